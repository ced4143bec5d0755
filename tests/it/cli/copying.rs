//! What copying and freezing say where something is not as it was meant: keys of the other form, nothing to copy, servers that
//! are away, a target that was made read-only, and copies that are broken off.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::json;
use crate::support::cluster::Cluster;
use crate::support::process::{Ended, Relay, Running, run, run_unread};
use crate::support::server::{Kind, Server};

fn url(server: &Server) -> String {
    format!("valkey://127.0.0.1:{}", server.port())
}

fn relay_on(url: &str, form: &str) -> Relay {
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", url), ("TIDEMILL_VALKEY_KEY_FORM", form)];
    Relay::start(&variables, &[])
}

async fn two() -> Option<[Server; 2]> {
    let old = Server::start(Kind::Valkey, &[]).await?;
    Some([old, Server::start(Kind::Valkey, &[]).await.expect("the first one started")])
}

async fn walk(walk: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(walk).await.expect("the walk is gone");
}

/// Waits for a line of a copy that says so.
fn wait_for(copy: &mut Running, what: impl Fn(&Value) -> bool) {
    // There is one each second.
    let is_told = (0..60).any(|_| what(&json(&copy.line())));
    assert!(is_told, "it does not come by there");
}

/// Who forgets the form of the keys finds nothing, and is not told that this is all.
#[tokio::test(flavor = "multi_thread")]
async fn topics_under_keys_of_the_other_form_are_no_empty_storage() {
    let Some(servers) = two().await else { return };
    let [old, new] = servers.each_ref().map(url);
    walk(move || {
        let before = relay_on(&old, "braces");
        before.run(&["publish", "orders", "1"], "").lines();
        let copy = |more: &[&str]| run(&[], &[&["copy", "--from", &*old, "--to", &*new], more].concat(), "");
        let freeze = |more: &[&str]| run(&[], &[&["freeze", "--storage", &*old], more].concat(), "");
        let is_told = |ended: &Ended, flag: &str| {
            let error = ended.error(2);
            assert!(error.contains("as the topic `orders`"), "{ended:?}");
            assert!(error.contains(&format!("add {flag} where they are meant")), "{ended:?}");
        };
        for more in [&["--dry-run"][..], &["--follow", "--switch"], &["orders"], &["--from-keys", "plain"]] {
            is_told(&copy(more), "--from-keys braces");
        }
        for more in [&[][..], &["--status"], &["--undo"], &["--keys", "plain"]] {
            is_told(&freeze(more), "--keys braces");
        }
        before.run(&["publish", "orders", "2"], "").lines();
        let told = freeze(&["--keys", "braces"]);
        assert_eq!(told.lines(), ["read-only now: 1 topic, 0 buckets"]);
        freeze(&["--keys", "braces", "--undo"]).lines();
        assert_eq!(freeze(&["--keys", "plain", "--undo"]).code, Some(0), "what was frozen by mistake before");

        // Relays on the target would not see what comes there.
        let after = relay_on(&new, "braces");
        after.run(&["publish", "orders", "1"], "").lines();
        after.run(&["topics", "create", "other"], "").lines();
        after.run(&["topics", "delete", "orders", "--yes"], "").lines();
        let there = copy(&["--from-keys", "braces"]);
        assert!(there.error(2).contains("add --to-keys braces where they are meant"), "{there:?}");
        let told = copy(&["--from-keys", "braces", "--to-keys", "plain", "--dry-run"]);
        assert_eq!(told.lines(), ["orders: 2 messages, 0 groups; would be copied"]);
        copy(&["--from-keys", "braces", "--to-keys", "braces"]).lines();

        // The other way round, and within one server.
        let here = relay_on(&new, "plain");
        let within = ["copy", "--from", &*new, "--to", &*new, "--from-keys", "braces"];
        for _ in 0..2 {
            assert_eq!(run(&[], &within, "").code, Some(0));
        }
        assert_eq!(here.run(&["read", "orders"], "").lines().len(), 2);
    })
    .await;
    let Some(servers) = two().await else { return };
    let [old, new] = servers.each_ref().map(url);
    walk(move || {
        relay_on(&old, "plain").run(&["keys", "put", "flows", "a", "1"], "").lines();
        let copy = ["copy", "--from", &old, "--to", &new, "--from-keys", "braces", "--dry-run"];
        let ended = run(&[], &copy, "");
        assert!(ended.error(2).contains("as the bucket `flows`"), "{ended:?}");
        assert!(ended.stderr.contains("add --from-keys plain"), "{ended:?}");
        let ended = run(&[], &["freeze", "--storage", &old, "--keys", "braces"], "");
        assert!(ended.error(2).contains("add --keys plain"), "{ended:?}");
    })
    .await;
}

/// A file with nothing in it, or one whose topics nobody sees where they are brought, would pass for a backup.
#[tokio::test(flavor = "multi_thread")]
async fn neither_a_file_nor_its_target_is_of_the_other_form_unless_that_is_said() {
    let Some(servers) = two().await else { return };
    let [old, new] = servers.each_ref().map(url);
    walk(move || {
        let before = relay_on(&old, "braces");
        before.run(&["publish", "orders", "1"], "").lines();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("all").to_str().expect("UTF-8").to_owned();
        let export =
            |more: &[&str]| run(&[], &[&["export", "--from", &*old, "--output", &*path], more].concat(), "");
        for more in [&[][..], &["--from-keys", "plain"]] {
            let ended = export(more);
            assert!(ended.error(2).contains("add --from-keys braces where they are meant"), "{ended:?}");
            assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        }
        assert_eq!(export(&["--from-keys", "braces"]).code, Some(0));

        let after = relay_on(&new, "braces");
        after.run(&["topics", "create", "other"], "").lines();
        let import = |more: &[&str]| run(&[], &[&["import", "--to", &*new, &*path], more].concat(), "");
        for more in [&[][..], &["--dry-run"]] {
            let ended = import(more);
            assert_eq!(ended.code, Some(2), "{ended:?}");
            assert!(ended.stderr.contains("add --to-keys braces where they are meant"), "{ended:?}");
        }
        let would = import(&["--to-keys", "plain", "--dry-run"]);
        assert_eq!(would.lines(), ["orders: 1 message, 0 groups; would be copied"]);
        assert_eq!(import(&["--to-keys", "braces"]).code, Some(0));
        assert_eq!(after.run(&["read", "orders"], "").lines().len(), 1);

        // What ends read-only names the form, too.
        run(&[], &["freeze", "--storage", &new, "--keys", "braces"], "").lines();
        let variables = [("VALKEY_URL", new.as_str()), ("TIDEMILL_VALKEY_KEY_FORM", "braces")];
        let told = run(&[&[("STORAGE_BACKEND", "valkey")], &variables[..]].concat(), &["doctor"], "");
        let undo = format!("`tidemill freeze --storage {new}/0 --keys braces --undo` ends that");
        assert!(told.stdout.contains(&undo), "{told:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_nothing_to_copy_is_said() {
    let Some(servers) = two().await else { return };
    let [old, new] = servers.each_ref().map(url);
    walk(move || {
        let nothing = "the source has nothing to copy: no topics, and no buckets";
        let copy = |more: &[&str]| run(&[], &[&["copy", "--from", &*old, "--to", &*new], more].concat(), "");
        assert_eq!(copy(&["--dry-run"]).lines(), [nothing]);
        let would = copy(&["--dry-run", "-o", "json"]);
        assert_eq!((would.lines().len(), would.stderr.trim_end()), (0, nothing));
        let done = copy(&[]);
        assert_eq!((done.code, done.stderr.trim_end()), (Some(0), nothing), "{done:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cluster_that_is_read_only_the_server_that_is_away_is_named() {
    let Some(mut cluster) = Cluster::start(Kind::Valkey, 3, 0).await else { return };
    let storage = url(cluster.node(0));
    let frozen = storage.clone();
    walk(move || {
        run(&[], &["freeze", "--storage", &frozen], "").lines();
    })
    .await;
    let away = format!("127.0.0.1:{}", cluster.node(2).port());
    cluster.kill(2);
    walk(move || {
        for more in ["--undo", "--status"] {
            let ended = run(&[], &["freeze", "--storage", &storage, more], "");
            let error = ended.error(1);
            assert!(error.contains(&format!("{storage}/0: {away}: ")), "{ended:?}");
            assert!(!error.contains("read-only"), "{ended:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_made_read_only_gets_no_more_of_a_copy() {
    let Some(servers) = two().await else { return };
    let [old, new] = servers.each_ref().map(url);
    walk(move || {
        let before = relay_on(&old, "plain");
        before.run(&["publish", "orders", "1"], "").lines();
        before.run(&["keys", "put", "flows", "a", "1"], "").lines();
        let sides = ["copy", "--from", &*old, "--to", &*new];
        let copy = |more: &[&str]| run(&[], &[&sides[..], more].concat(), "");
        let mut running = Running::start(&[], &[&sides[..], &["--follow", "-o", "json"]].concat());
        wait_for(&mut running, |far| far["caught_up"] == true);
        run(&[], &["freeze", "--storage", &new], "").lines();
        let ended = running.end();
        assert!(ended.error(1).contains("the target is read-only"), "{ended:?}");

        for more in [&["--dry-run"][..], &["--dry-run", "--follow"]] {
            let would = copy(more);
            assert_eq!(would.code, Some(3), "{would:?}");
            assert!(would.stderr.starts_with("in the way: the target is read-only"), "{would:?}");
        }
        assert!(copy(&["--follow", "--switch"]).error(1).contains("the target is read-only"));
        assert!(copy(&[]).error(1).contains("the target is read-only"));
        before.run(&["publish", "orders", "2"], "").lines();
        run(&[], &["freeze", "--storage", &new, "--undo"], "").lines();
        assert_eq!(copy(&[]).code, Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_broken_off_says_what_stands() {
    let Some(servers) = two().await else { return };
    let [old, new] = servers.each_ref().map(url);
    walk(move || {
        let before = relay_on(&old, "plain");
        before.run(&["publish", "orders", "1"], "").lines();
        let sides = ["copy", "--from", &*old, "--to", &*new, "--follow"];
        let start = |more: &[&str]| Running::start(&[], &[&sides[..], more].concat());
        let goes_on = "interrupted; not all is copied; the same command goes on from here";
        let mut copy = start(&["-o", "json"]);
        wait_for(&mut copy, |far| far["caught_up"] == true && far["source_read_only"] == false);
        copy.interrupt();
        assert_eq!(copy.end().error(130), goes_on);

        // Some seconds go by until no node can be about to make a topic.
        let mut copy = start(&["--switch", "-o", "json"]);
        wait_for(&mut copy, |far| far["source_read_only"] == true && far["done"] == false);
        copy.interrupt();
        let stands = format!(
            "{goes_on}; the source is read-only now, and `tidemill freeze --storage {old}/0 --undo` ends that"
        );
        assert_eq!(copy.end().error(130), stands);
        let refused = before.run(&["publish", "orders", "1", "--no-retry"], "");
        assert!(refused.error(1).contains("code read_only"), "{refused:?}");
        let done = run(&[], &[&sides[..], &["--switch"]].concat(), "");
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.stderr.contains("the source is read-only now, and takes no changes"), "{done:?}");
        let undone = run(&[], &["freeze", "--storage", &old, "--undo"], "");
        assert_eq!(undone.lines(), ["taking changes again: 1 topic, 0 buckets"]);
        assert!(undone.stderr.contains("what comes from now on is not there"), "{undone:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_some_topics_asks_only_the_servers_on_which_they_can_be() {
    let Some(servers) = two().await else { return };
    let mut us = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    let [main, new] = servers.each_ref().map(url);
    let placement = format!("us.*={}", url(&us));
    let relay = tokio::task::spawn_blocking(move || {
        let variables =
            [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*main), ("VALKEY_PLACEMENT", &*placement)];
        let relay = Relay::start(&variables, &[]);
        relay.run(&["publish", "eu.orders", "1"], "").lines();
        relay.run(&["publish", "us.orders", "1"], "").lines();
        relay
    });
    let relay = relay.await.expect("no panic");
    us.kill9();
    walk(move || {
        let copy = ["copy", "--from", &relay.url, "--to", &new, "--patience", "5"];
        let copy = |more: &[&str]| run(&[], &[&copy[..], more].concat(), "");
        for topics in ["eu.*", "eu.orders"] {
            let would = copy(&[topics, "--dry-run"]);
            assert_eq!(would.lines(), ["eu.orders: 1 message, 0 groups; would be copied"], "{would:?}");
        }
        assert_eq!(copy(&["eu.*"]).code, Some(0));
        let would = copy(&["us.*", "--dry-run"]);
        assert!(would.error(1).starts_with("not all is copied; once that side is there again"), "{would:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_in_cluster_mode_that_are_no_cluster_yet_are_told_of() {
    let Some(node) = Server::start_node(Kind::Valkey, &[]).await else { return };
    let old = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    let (old, new) = (url(&old), url(&node));
    let began = Instant::now();
    walk(move || {
        let ended = run(&[], &["copy", "--from", &old, "--to", &new, "--patience", "3", "--dry-run"], "");
        let error = ended.error(1);
        assert!(error.contains("no server of its cluster has slots"), "{ended:?}");
        assert!(error.contains("`valkey-cli --cluster create`"), "{ended:?}");
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_told_with_how_much_there_is_at_either_side() {
    let Some(servers) = two().await else { return };
    let [old, new] = servers.each_ref().map(url);
    walk(move || {
        let (before, after) = (relay_on(&old, "plain"), relay_on(&new, "plain"));
        before.run(&["publish", "orders", "1"], "").lines();
        let copy = || run(&[], &["copy", "--from", &old, "--to", &new], "");
        copy().lines();
        before.run(&["publish", "orders", "2"], "").lines();
        let taken = copy();
        let what = "`orders` is at the target already as a whole copy, and messages have come to the source since that it has not (messages there: 1, at the source: 2)";
        assert!(taken.error(1).contains(what), "{taken:?}");
        after.run(&["topics", "delete", "orders", "--yes"], "").lines();
        after.run(&["publish", "orders", "1"], "").lines();
        let taken = copy();
        let what = "`orders` is at the target already, and is another one than that of the source";
        assert!(taken.error(1).contains(what), "{taken:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_at_the_target_is_told_and_put_back_where_that_is_said() {
    let Some(servers) = two().await else { return };
    let [old, new] = servers.each_ref().map(url);
    walk(move || {
        let (before, after) = (relay_on(&old, "plain"), relay_on(&new, "plain"));
        for number in ["1", "2", "3"] {
            before.run(&["publish", "orders", number], "").lines();
        }
        before.run(&["keys", "put", "flows", "a", "1"], "").lines();
        before.run(&["keys", "put", "flows", "b", "1"], "").lines();
        before.run(&["groups", "create", "orders", "workers"], "").lines();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("all").to_str().expect("UTF-8").to_owned();
        run(&[], &["export", "--from", &*old, "--output", &*path], "").lines();
        let import = |more: &[&str]| run(&[], &[&["import", "--to", &*new, &*path], more].concat(), "");
        import(&[]).lines();
        after.run(&["trim", "orders", "--keep", "1"], "").lines();
        after.run(&["groups", "delete", "orders", "workers", "--yes"], "").lines();
        after.run(&["keys", "delete", "flows", "b"], "").lines();
        let told = import(&["--dry-run"]);
        let there = [
            "orders: 3 messages, 1 group; there already, without 2 messages and 1 group",
            "bucket flows: 2 keys; there already, without 1 key",
            "with --overwrite it would lose 1 topic with 1 message, 1 bucket with 1 key: what lacks something is replaced, too",
        ];
        assert_eq!(told.lines(), there, "{told:?}");
        let said = import(&[]);
        assert!(said.stderr.contains("without something that the source has: 1 topic, 1 bucket"), "{said:?}");
        assert_eq!(after.run(&["read", "orders"], "").lines().len(), 1);
        let would = import(&["--dry-run", "--overwrite"]);
        let lost = "orders: 3 messages, 1 group; would be overwritten, as the target lacks 2 messages and 1 group; the target has 1 message, and its last message is not younger than that of the source";
        assert_eq!(would.lines()[0], lost, "{would:?}");
        assert_eq!(would.lines()[2], "the target would lose 1 topic with 1 message, 1 bucket with 1 key");
        let done = import(&["--overwrite"]);
        assert!(done.lines()[0].contains("replaced at the target: 1 message, 1 key"), "{done:?}");
        assert_eq!(after.run(&["read", "orders"], "").lines().len(), 3);
        after.run(&["groups", "show", "orders", "workers"], "").lines();
        assert_eq!(after.run(&["keys", "get", "flows", "b"], "").lines(), ["1"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_that_is_not_read_to_its_end_says_all_the_same_that_something_is_in_the_way() {
    let Some(servers) = two().await else { return };
    let [old, new] = servers.each_ref().map(url);
    walk(move || {
        for side in [&old, &new] {
            let relay = relay_on(side, "plain");
            relay.run(&["publish", "orders", "1"], "").lines();
        }
        let (code, told) = run_unread(&["copy", "--from", &old, "--to", &new, "--dry-run"]);
        assert_eq!(code, Some(3), "{told}");
        assert!(told.starts_with("in the way: topic `orders`"), "{told}");
        let (code, told) = run_unread(&["copy", "--from", &old, "--to", &new, "--dry-run", "--overwrite"]);
        assert_eq!(code, Some(0), "{told}");
    })
    .await;
}

#[test]
fn the_folder_is_named_in_which_a_file_from_a_pipe_cannot_be_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let none = folder.path().join("none");
    let none = none.to_str().expect("UTF-8");
    let ended = run(&[("TMPDIR", none)], &["import", "--to", "valkey://127.0.0.1:1", "-"], "{}");
    let error = ended.error(1);
    assert!(error.contains("nothing is imported: standard input: it cannot be kept in"), "{ended:?}");
    assert!(error.contains(none) && error.contains("TMPDIR"), "{ended:?}");
}

#[test]
fn the_schemes_of_relays_are_named_where_none_is_understood() {
    for (url, part) in [
        ("h:6379", "or `http://host:8080` of a relay, or `https://`"),
        ("ftp://h", "those of a relay are http and https"),
    ] {
        let ended = run(&[], &["copy", "--from", url, "--to", "valkey://127.0.0.1:1"], "");
        assert!(ended.error(2).contains(part), "{ended:?}");
    }
    for command in ["copy", "freeze", "export", "import"] {
        let help = run(&[], &[command, "--help"], "").stdout;
        assert!(help.contains("TIDEMILL_VALKEY_KEY_FORM"), "{help}");
    }
}
