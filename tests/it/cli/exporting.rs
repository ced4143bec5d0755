//! What exports and imports say and leave where something is not as it was meant: what stands under the name of the file, what is
//! deleted meanwhile, and a target that does not keep what it is given.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::json;
use crate::support::process::{Ended, Relay, Running, number_lines, run, run_line};
use crate::support::server::{Kind, Server};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn export(from: &str, path: &Path, more: &[&str]) -> Ended {
    run(&[], &[&["export", "--from", from, "--output", text(path)], more].concat(), "")
}

/// Starts an export that takes some seconds, and waits until it writes.
fn start(from: &str, path: &Path, more: &[&str]) -> Running {
    let arguments = ["export", "--from", from, "--output", text(path), "--rate", "500", "-o", "json"];
    let mut running = Running::start(&[], &[&arguments, more].concat());
    while json(&running.line())["messages"] == 0 {}
    running
}

/// Returns a relay with a large topic and a small one.
fn filled() -> Relay {
    let relay = Relay::start(&[], &[]);
    relay.run(&["publish", "large"], &number_lines(4_000)).lines();
    relay.run(&["publish", "small"], &number_lines(3)).lines();
    relay
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("all");
    (folder, path)
}

#[test]
fn nothing_is_written_into_what_stands_under_the_name_of_the_part() {
    let relay = filled();
    let (folder, path) = folder();
    let [part, other] = ["all.part", "other"].map(|name| folder.path().join(name));
    let mode = |path: &Path| fs::metadata(path).expect("the file").permissions().mode() & 0o777;
    let link: [&dyn Fn(); 3] = [
        &|| fs::hard_link(&other, &part).expect("a link"),
        &|| symlink(&other, &part).expect("a link"),
        &|| {
            fs::write(&part, "left").expect("a file");
            fs::set_permissions(&part, fs::Permissions::from_mode(0o666)).expect("ours");
        },
    ];
    for link in link {
        fs::write(&other, "precious").expect("a file");
        fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).expect("ours");
        link();
        let kept = fs::File::open(&part).expect("somebody has it open");
        export(&relay.url, &path, &["--overwrite"]).lines();
        assert_eq!(fs::read_to_string(&other).expect("the file"), "precious");
        assert_eq!((mode(&path), mode(&other)), (0o600, 0o644));
        let inode = fs::metadata(&path).expect("the file").ino();
        assert_ne!(inode, kept.metadata().expect("the file").ino(), "it is made anew");
        assert!(!part.exists() && !part.is_symlink());
    }
    run_line("mkfifo all.part", folder.path()).lines();
    let ended = export(&relay.url, &path, &["--overwrite"]);
    assert!(ended.error(1).contains("all.part is there, and is no file; remove it"), "{ended:?}");
}

#[test]
fn of_two_exports_to_one_file_the_second_is_refused_and_a_hangup_leaves_nothing() {
    let relay = filled();
    let (folder, path) = folder();
    let first = start(&relay.url, &path, &[]);
    let second = export(&relay.url, &path, &[]);
    assert!(second.error(1).contains("another export writes"), "{second:?}");
    assert!(folder.path().join("all.part").exists());
    first.hang_up();
    let ended = first.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stderr.contains("interrupted; nothing is exported"), "{ended:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    // A pipe that nobody reads is no reason to go on.
    run_line("mkfifo pipe", folder.path()).lines();
    let pipe = folder.path().join("pipe");
    let arguments = ["export", "--from", &relay.url, "--output", text(&pipe), "-o", "json"];
    let mut waiting = Running::start(&[], &arguments);
    waiting.line();
    waiting.interrupt();
    assert_eq!(waiting.end().code, Some(130));
}

#[test]
fn what_is_deleted_while_it_is_exported_is_named_and_what_was_named_is_an_error() {
    let relay = filled();
    let delete = |topic: &str| relay.run(&["topics", "delete", topic, "--yes"], "").lines().len();
    let (_folder, path) = folder();
    let running = start(&relay.url, &path, &[]);
    delete("large");
    let ended = running.end();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let last = json(ended.stdout.lines().last().expect("a line"));
    assert_eq!((&last["done"], &last["deleted_topics"]), (&true.into(), &serde_json::json!(["large"])));
    let there = fs::read(&path).expect("the file is there");

    // Named, it is what is wanted.
    relay.run(&["publish", "large"], &number_lines(4_000)).lines();
    let running = start(&relay.url, &path, &["--overwrite", "large", "small"]);
    delete("large");
    let ended = running.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("topic `large` was deleted at the source while it was read"), "{ended:?}");
    assert_eq!(fs::read(&path).expect("the file"), there);

    // All goes.
    relay.run(&["publish", "large"], &number_lines(4_000)).lines();
    let running = start(&relay.url, &path, &["--overwrite"]);
    delete("large");
    delete("small");
    let ended = running.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the source has lost all that it had while it was read"), "{ended:?}");
    let ended = export(&relay.url, &path, &["--overwrite"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("to replace it, add --allow-empty"), "{ended:?}");
    assert_eq!(fs::read(&path).expect("the file"), there);
    assert_eq!(export(&relay.url, &path, &["--overwrite", "--allow-empty"]).code, Some(0));
    assert_ne!(fs::read(&path).expect("the file"), there);
}

#[test]
fn a_target_that_has_no_room_for_all_is_told_of() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["publish", "orders"], &number_lines(40_000)).lines();
    let (_folder, path) = folder();
    export(&relay.url, &path, &[]).lines();
    let small = Relay::start(&[("TIDEMILL_MEMORY_BYTES_MAX", "1MiB")], &[]);
    let ended = run(&[], &["import", "--to", &small.url, text(&path)], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told = "the target does not keep what it was given: topic `orders` lacks ";
    assert!(ended.stderr.contains(told), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_to_stay_and_what_has_no_name_that_is_allowed_is_told() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let old = "1700000000000-1";
    server.command(&["XADD", "stream:topic:orders", old, "payload", "1"]).await;
    server.command(&["XGROUP", "CREATE", "stream:topic:orders", "odd name/é", "0"]).await;
    server.command(&["XADD", "stream:topic:a b/é", old, "payload", "1"]).await;
    let url = format!("valkey://127.0.0.1:{}", server.port());
    let walk = tokio::task::spawn_blocking(move || {
        let (_folder, path) = folder();
        let told = export(&url, &path, &[]);
        assert_eq!(told.code, Some(0), "{told:?}");
        let odd =
            "left out, as Tidemill allows no such names: topic `a b/é`, group `odd name/é` of topic `orders`";
        assert!(told.stderr.contains(odd), "{told:?}");
        let would = |to: &str| run(&[], &["import", "--to", to, text(&path), "--dry-run"], "").stderr;
        let short = Relay::start(&[("PERSISTENT_TIER_RETENTION", "60")], &[]);
        let said = "too old to stay: up to 1 message of 1 topic; the target removes what is older than 60 s";
        assert!(would(&short.url).contains(said), "{}", would(&short.url));
        let long = Relay::start(&[("PERSISTENT_TIER_RETENTION", "0")], &[]);
        assert!(!would(&long.url).contains("too old"), "{}", would(&long.url));
        let said = "relays of the target on which PERSISTENT_TIER_RETENTION is not set remove what is older than 86400 s";
        let copied = run(&[], &["copy", "--from", &long.url, "--to", &url, "--dry-run"], "");
        assert!(!copied.stderr.contains(said), "there is nothing: {copied:?}");
        run(&[], &["import", "--to", &long.url, text(&path)], "").lines();
        let empty = format!("{url}/1");
        let copied = run(&[], &["copy", "--from", &long.url, "--to", &empty, "--dry-run"], "");
        assert!(copied.stderr.contains(said), "{copied:?}");
    });
    walk.await.expect("the walk is gone");
}
