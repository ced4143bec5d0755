//! Users, tokens and roles through a file: asked for, as hashes, and none in the place of another unless that is said.

use std::path::Path;

use crate::support::process::{Ended, Relay, run, run_line};
use crate::support::relay::try_send;
use crate::support::server::{Kind, Server};

/// Runs commands about a storage.
fn at(server: &Server, arguments: &[&str], input: &str) -> Ended {
    let url = format!("valkey://127.0.0.1:{}", server.port());
    run(&[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)], arguments, input)
}

fn line(server: &Server, folder: &Path, line: &str) -> Ended {
    let url = format!("valkey://127.0.0.1:{}", server.port());
    run_line(&line.replace("URL", &url), folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_brought_where_that_is_asked_for_and_none_is_replaced_unsaid() {
    let Some(first) = Server::start(Kind::Valkey, &[]).await else { return };
    let Some(second) = Server::start(Kind::Valkey, &[]).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    at(&first, &["role", "set", "crew", "allow publish,read orders.*"], "").lines();
    at(&first, &["user", "add", "ada", "--role", "admin"], "battery staple\n").lines();
    let made = at(&first, &["token", "new", "shop", "--rule", "allow publish,read *"], "");
    let token = made.lines()[0].to_owned();

    // Not unless it is asked for.
    line(&first, folder, "tidemill export --from URL --output without.tidemill").lines();
    let none = line(&second, folder, "tidemill import --to URL --access without.tidemill");
    assert!(none.code == Some(2) && none.stderr.contains("no users, tokens and roles"), "{none:?}");
    line(&first, folder, "tidemill export --from URL --access --output all.tidemill").lines();
    let file = std::fs::read(folder.join("all.tidemill")).expect("the file");
    let text = zstd_of(folder, "all.tidemill");
    assert!(text.contains("user/ada") && text.contains("$argon2id$"), "{text}");
    for secret in ["battery staple", &token] {
        assert!(!text.contains(secret) && !String::from_utf8_lossy(&file).contains(secret));
    }
    let left_out = line(&second, folder, "tidemill import --to URL all.tidemill");
    assert!(left_out.stderr.contains("are left out; --access brings them"), "{left_out:?}");
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 1, "a heading alone");

    let would = line(&second, folder, "tidemill import --to URL --access --dry-run all.tidemill");
    assert!(would.lines().contains(&"user ada: would be brought"), "{would:?}");
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 1);
    let done = line(&second, folder, "tidemill import --to URL --access all.tidemill");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.contains("brought 3 users, tokens and roles"), "{done:?}");
    let again = line(&second, folder, "tidemill import --to URL --access all.tidemill");
    assert!(again.stderr.contains("brought 0 users, tokens and roles; 3 were there already"), "{again:?}");

    // What people and programs have is good there.
    let url = format!("valkey://127.0.0.1:{}", second.port());
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*url), ("TIDEMILL_ACCESS", "closed")];
    let relay = Relay::ready_at("127.0.0.1:0", &variables, &[]).await;
    let shown = format!("Bearer {token}");
    let headers = [("authorization", &*shown), ("content-type", "application/json")];
    let answer = try_send(relay.address(), "POST", "/api/v1/topics/orders/messages", &headers, b"1").await;
    assert_eq!(answer.expect("an answer").status, 201);
    let listed = relay.run(&["user", "list", "--user", "ada"], "battery staple\n");
    assert_eq!(listed.lines().len(), 2, "{listed:?}");

    // Another of the same name is in the way, and then nothing is brought.
    at(&first, &["user", "password", "ada"], "another staple\n").lines();
    at(&first, &["user", "add", "bob"], "a third staple\n").lines();
    line(&first, folder, "tidemill export --from URL --access --overwrite --output all.tidemill").lines();
    let would = line(&second, folder, "tidemill import --to URL --access --dry-run all.tidemill -o json");
    assert_eq!(would.code, Some(3), "{would:?}");
    assert!(would.stdout.contains(r#"{"access":"user/ada","action":"in the way: needs --overwrite"}"#));
    let refused = line(&second, folder, "tidemill import --to URL --access all.tidemill");
    assert!(
        refused.code == Some(1) && refused.stderr.contains("user ada is at the target already"),
        "{refused:?}"
    );
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 2, "bob is not there, either");
    let replaced = line(&second, folder, "tidemill import --to URL --access --overwrite all.tidemill");
    assert_eq!(replaced.code, Some(0), "{replaced:?}");
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 3);
    drop(relay);

    // A relay gives no hashes away.
    let open = tokio::task::spawn_blocking(|| Relay::start(&[], &[])).await.expect("it starts");
    let refused = open.run(&["export", "--from", &open.url, "--access", "--output", "-"], "");
    assert!(refused.error(2).contains("gives no hashes"), "{refused:?}");
}

/// Returns the text of all records.
fn zstd_of(folder: &Path, name: &str) -> String {
    let file = std::fs::File::open(folder.join(name)).expect("the file");
    let text = zstd::stream::decode_all(file).expect("frames of zstd");
    String::from_utf8(text).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_file_lacks_is_found_before_anybody_is_brought() {
    let Some(first) = Server::start(Kind::Valkey, &[]).await else { return };
    let Some(second) = Server::start(Kind::Valkey, &[]).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    at(&first, &["user", "add", "ada", "--role", "admin"], "battery staple\n").lines();
    line(&first, folder, "tidemill export --from URL --access --output all.tidemill").lines();
    for more in ["none-such", "'none.*'", "none-such --dry-run"] {
        let refused =
            line(&second, folder, &format!("tidemill import --to URL --access all.tidemill {more}"));
        let expected = "nothing is imported; leave it out, or correct its name: the file has no topic `none";
        assert!(refused.code == Some(1) && refused.stderr.contains(expected), "{refused:?}");
        assert_eq!(at(&second, &["user", "list"], "").lines().len(), 1, "a heading alone");
    }
    let alone = line(&second, folder, "tidemill import --to URL --access --no-topics all.tidemill");
    assert!(alone.stderr.contains("brought 1 user, token or role"), "{alone:?}");
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_copied_from_storage_to_storage_where_that_is_asked_for() {
    let Some(first) = Server::start(Kind::Valkey, &[]).await else { return };
    let Some(second) = Server::start(Kind::Valkey, &[]).await else { return };
    let [from, to] = [&first, &second].map(|server| format!("valkey://127.0.0.1:{}", server.port()));
    at(&first, &["user", "add", "ada", "--role", "admin"], "battery staple\n").lines();
    at(&first, &["token", "new", "shop", "--rule", "allow publish,read *"], "").lines();
    let copy = |more: &[&str]| run(&[], &[&["copy", "--from", &*from, "--to", &*to], more].concat(), "");
    first.command(&["XADD", "stream:topic:orders", "*", "payload", "1"]).await;

    // Something in the way of a topic is in the way of all.
    second.command(&["XADD", "stream:topic:orders", "*", "payload", "2"]).await;
    assert!(copy(&["--access"]).error(1).contains("`orders` is at the target already"));
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 1, "a heading alone");
    second.command(&["DEL", "stream:topic:orders"]).await;
    let would = copy(&["--access", "--dry-run"]);
    assert!(would.lines().contains(&"user ada: would be brought"), "{would:?}");
    assert!(would.lines().contains(&"orders: 1 message, 0 groups; would be copied"), "{would:?}");
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 1);
    let done = copy(&["--access"]);
    assert!(done.code == Some(0) && done.stderr.contains("brought 2 users, tokens and roles"), "{done:?}");
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 2);
    let again = copy(&["--access"]);
    assert!(again.stderr.contains("brought 0 users, tokens and roles; 2 were there already"), "{again:?}");

    // Another of the same name is in the way, and then nothing is copied.
    at(&first, &["user", "password", "ada"], "another staple\n").lines();
    assert_eq!(copy(&["--access", "--dry-run"]).code, Some(3));
    let refused = copy(&["--access"]);
    assert!(refused.error(1).contains("user ada is at the target already, and is another"), "{refused:?}");
    assert_eq!(copy(&["--access", "--no-topics", "--overwrite"]).code, Some(0));
    assert!(copy(&["--access"]).stderr.contains("brought 0 users"));

    // A relay gives no hashes away.
    let relay = tokio::task::spawn_blocking(|| Relay::start(&[], &[])).await.expect("it starts");
    let refused = run(&[], &["copy", "--from", &relay.url, "--to", &to, "--access"], "");
    assert!(refused.error(2).contains("gives no hashes"), "{refused:?}");
}
