//! Copying from one server to another, as an operator does, with relays and publishers that go on.

use serde_json::Value;

use super::json;
use crate::support::process::{Relay, Running, number_lines, run};
use crate::support::server::{Kind, Server};

fn url(server: &Server) -> String {
    format!("valkey://127.0.0.1:{}", server.port())
}

fn relay_on(url: &str, form: &str) -> Relay {
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", url), ("TIDEMILL_VALKEY_KEY_FORM", form)];
    Relay::start(&variables, &[])
}

fn read_all(relay: &Relay, topic: &str) -> Vec<String> {
    let read = relay.run(&["read", topic, "--all", "-o", "json"], "");
    let id = |line: &&str| json(line)["message_id"].as_str().expect("an id").to_owned();
    read.lines().iter().map(id).collect()
}

/// Waits for a line of the copy that says so.
fn wait_for(copy: &mut Running, what: impl Fn(&Value) -> bool) {
    // There is one each second.
    let is_told = (0..60).any(|_| what(&json(&copy.line())));
    assert!(is_told, "it does not come by there");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_moves_from_one_server_to_another_while_publishing_goes_on() {
    let Some(old) = Server::start(Kind::Valkey, &[]).await else { return };
    let new = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    let (old, new) = (url(&old), url(&new));
    let walk = tokio::task::spawn_blocking(move || {
        let (before, after) = (relay_on(&old, "plain"), relay_on(&new, "braces"));
        let first = before.run(&["publish", "orders"], &number_lines(2_000));
        let mut accepted: Vec<String> = first.lines().iter().map(|id| (*id).to_owned()).collect();
        before.run(&["groups", "create", "orders", "billing"], "").lines();
        let claimed =
            before.run(&["claim", "orders", "billing", "--consumer", "me", "--max", "10", "-o", "json"], "");
        let receipts: Vec<String> = claimed
            .lines()
            .iter()
            .map(|line| json(line)["receipt"].as_str().expect("a receipt").to_owned())
            .collect();
        let acks: Vec<&str> = receipts.iter().map(String::as_str).collect();
        before.run(&[&["ack"][..], &acks[..4]].concat(), "").lines();

        let storages = ["--from", &*old, "--to", &*new, "--to-keys", "braces"];
        let would = run(&[], &[&["copy"][..], &storages, &["--dry-run", "-o", "json"]].concat(), "");
        let planned = json(would.lines()[0]);
        assert_eq!(
            (&planned["topic"], &planned["action"], &planned["messages"], &planned["groups"]),
            (&"orders".into(), &"would be copied".into(), &2_000.into(), &1.into())
        );

        let mut copy = Running::start(&[], &[&["copy"][..], &storages, &["--follow", "-o", "json"]].concat());
        // Publishers go on: what is accepted now is at the target later.
        let more = before.run(&["publish", "orders"], &number_lines(500));
        accepted.extend(more.lines().iter().map(|id| (*id).to_owned()));
        wait_for(&mut copy, |far| far["messages"].as_u64() >= Some(2_500));
        let held = after.run(&["publish", "orders", "1", "--no-retry"], "");
        assert!(held.error(1).contains("code read_only"), "{held:?}");
        assert!(held.stderr.contains("`orders` is being copied here and is not whole yet"), "{held:?}");

        let frozen = run(&[], &["freeze", "--storage", &old, "-o", "json"], "");
        assert_eq!(
            json(frozen.lines()[0]),
            serde_json::json!({"read_only": true, "topics": 1, "buckets": 0})
        );
        let refused = before.run(&["publish", "orders", "1", "--no-retry"], "");
        assert!(refused.error(1).contains("code read_only"), "{refused:?}");
        assert!(refused.stderr.contains("`orders` was made read-only with `tidemill freeze`"), "{refused:?}");
        let refused = before.run(&["publish", "new", "1", "--no-retry"], "");
        assert!(refused.error(1).contains("`new` is not there, and is not made"), "{refused:?}");
        let refused = before.run(&["keys", "put", "flows", "a", "1"], "");
        assert!(refused.error(1).contains("`flows` is not there, and is not made"), "{refused:?}");
        let ended = copy.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let last = json(ended.stdout.lines().last().expect("it says how far it is"));
        assert_eq!((&last["done"], &last["messages"]), (&true.into(), &2_500.into()));

        assert_eq!(read_all(&after, "orders"), accepted);
        assert_eq!(read_all(&before, "orders"), accepted, "it is read there, too");
        let group = after.run(&["groups", "show", "orders", "billing", "-o", "json"], "");
        let group = json(group.lines()[0]);
        assert_eq!((&group["done"], &group["in_flight"]), (&4.into(), &0.into()));
        after.run(&["publish", "orders", "1"], "").lines();

        // It is done: doing it again does nothing, but what has gone on is something else.
        let again = run(&[], &[&["copy"][..], &storages].concat(), "");
        assert_eq!(again.code, Some(0), "{again:?}");
        run(&[], &["freeze", "--storage", &old, "--undo"], "").lines();
        before.run(&["publish", "orders", "1"], "").lines();
        let other = run(&[], &[&["copy"][..], &storages].concat(), "");
        assert!(other.error(1).contains("`orders`") && other.stderr.contains("--overwrite"), "{other:?}");
    });
    walk.await.expect("the walk is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_and_its_server_are_one_storage() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = url(&server);
    let walk = tokio::task::spawn_blocking(move || {
        let relay = relay_on(&url, "plain");
        relay.run(&["publish", "orders", "1"], "").lines();
        let other = url.replace("127.0.0.1", "localhost");
        for (from, to) in [(&relay.url, &url), (&url, &relay.url), (&url, &other), (&relay.url, &relay.url)] {
            let copy = ["copy", "--from", from, "--to", to, "--follow", "--switch"];
            let ended = run(&[], &copy, "");
            let error = ended.error(2);
            assert!(error.contains("are one storage") || error.contains("name the same side"), "{ended:?}");
        }
        relay.run(&["publish", "orders", "2", "--no-retry"], "").lines();
    });
    walk.await.expect("the walk is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_ends_with_3_where_something_is_in_the_way() {
    let Some(old) = Server::start(Kind::Valkey, &[]).await else { return };
    let new = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    let (old, new) = (url(&old), url(&new));
    let walk = tokio::task::spawn_blocking(move || {
        let (before, after) = (relay_on(&old, "plain"), relay_on(&new, "plain"));
        before.run(&["publish", "orders", "1"], "").lines();
        let would = |more: &[&str]| {
            let copy = ["copy", "--from", &old, "--to", &new, "--dry-run"];
            run(&[], &[&copy[..], more].concat(), "")
        };
        assert_eq!(would(&[]).lines(), ["orders: 1 message, 0 groups; would be copied"]);
        run(&[], &["freeze", "--storage", &new], "").lines();
        let refused = would(&[]);
        assert_eq!(refused.code, Some(3), "{refused:?}");
        assert!(refused.stderr.starts_with("in the way: the target is read-only"), "{refused:?}");
        let status = |more: &[&str]| {
            let status = ["freeze", "--storage", &new, "--status"];
            let told = run(&[], &[&status[..], more].concat(), "");
            told.lines().first().expect("a line").to_string()
        };
        assert_eq!(status(&[]), "read-only: 0 topics, 0 buckets; no more are made");
        assert_eq!(json(&status(&["-o", "json"]))["read_only"], true);
        let health = after.run(&["health", "-o", "json"], "");
        let health = json(health.lines()[0]);
        assert_eq!((&health["backend"]["read_only"], &health["status"]), (&true.into(), &"degraded".into()));
        let ready = after.run(&["health", "--ready"], "");
        assert_eq!(ready.code, Some(0), "what can be done there goes on: {ready:?}");
        let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", new.as_str())];
        let check = run(&variables, &["doctor"], "");
        assert!(check.stdout.contains("! read-only: the storage is read-only"), "{check:?}");
        let undo = format!("`tidemill freeze --storage {new}/0 --undo` ends that");
        assert!(check.stdout.contains(&undo), "{check:?}");
        run(&[], &["freeze", "--storage", &new, "--undo"], "").lines();
        let check = run(&variables, &["doctor"], "");
        assert!(!check.stdout.contains("read-only"), "{check:?}");

        after.run(&["publish", "orders", "1"], "").lines();
        assert_eq!(status(&[]), "read-only: 0 topics, 0 buckets; taking changes: 1 topic, 0 buckets");
        let taken = would(&["-o", "json"]);
        assert_eq!(taken.code, Some(3), "{taken:?}");
        assert!(taken.stderr.contains("`orders` is at the target already"), "{taken:?}");
        assert!(taken.stderr.contains("add --overwrite"), "{taken:?}");
        assert_eq!(would(&["--overwrite"]).code, Some(0));
    });
    walk.await.expect("the walk is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_much_the_target_loses_is_told_before_and_after() {
    let Some(old) = Server::start(Kind::Valkey, &[]).await else { return };
    let new = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    let (old, new) = (url(&old), url(&new));
    let walk = tokio::task::spawn_blocking(move || {
        let (before, after) = (relay_on(&old, "plain"), relay_on(&new, "plain"));
        after.run(&["publish", "early"], &number_lines(3)).lines();
        for topic in ["early", "late", "only"] {
            before.run(&["publish", topic, "1"], "").lines();
        }
        before.run(&["keys", "put", "flows", "a", "1"], "").lines();
        after.run(&["publish", "late"], &number_lines(4)).lines();
        after.run(&["keys", "put", "flows", "a", "1"], "").lines();
        after.run(&["keys", "put", "flows", "b", "1"], "").lines();
        let copy = |more: &[&str]| run(&[], &[&["copy", "--from", &*old, "--to", &*new], more].concat(), "");

        let would = copy(&["--dry-run"]);
        assert_eq!(would.code, Some(3), "{would:?}");
        let needs = "in the way: needs --overwrite; the target has";
        let lines = [
            format!(
                "early: 1 message, 0 groups; {needs} 3 messages, and its last message is not younger than that of the source"
            ),
            format!(
                "late: 1 message, 0 groups; {needs} 4 messages, and its last message is younger than that of the source"
            ),
            "only: 1 message, 0 groups; would be copied".to_owned(),
            format!(
                "bucket flows: 1 key; {needs} 2 keys, and its last change is younger than that of the source"
            ),
            "the target would lose 2 topics with 7 messages, 1 bucket with 2 keys".to_owned(),
        ];
        assert_eq!(would.stdout.lines().collect::<Vec<_>>(), lines);
        let would = copy(&["--dry-run", "--overwrite", "-o", "json"]);
        let told: Vec<Value> = would.lines().iter().map(|line| json(line)).collect();
        let late = &told[1];
        assert_eq!(
            (&late["action"], &late["replaced_messages"], &late["target_is_younger"]),
            (&"would be overwritten".into(), &4.into(), &true.into())
        );
        assert_eq!(told[2].get("replaced_messages"), None, "{told:?}");
        assert_eq!((&told[3]["replaced_keys"], &told[3]["target_is_younger"]), (&2.into(), &true.into()));
        assert_eq!(
            told[4],
            serde_json::json!({"replaced_topics": 2, "replaced_messages": 7, "replaced_buckets": 1, "replaced_keys": 2})
        );

        let done = copy(&["--overwrite"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let first = "early: 1 message, 0 groups; is overwritten; the target has 3 messages";
        assert!(done.stderr.starts_with(first), "{done:?}");
        let sums = "the target loses 2 topics with 7 messages, 1 bucket with 2 keys\n";
        assert!(done.stderr.contains(sums), "{done:?}");
        assert!(done.stdout.ends_with("; replaced at the target: 7 messages, 2 keys\n"), "{done:?}");
        let again = copy(&["--overwrite", "-o", "json"]);
        assert_eq!(json(again.lines().last().expect("a line"))["replaced_messages"], 0, "{again:?}");
    });
    walk.await.expect("the walk is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_while_a_copy_is_broken_off_is_named_and_can_be_deleted_at_the_target() {
    let Some(old) = Server::start(Kind::Valkey, &[]).await else { return };
    let new = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    let (old, new) = (url(&old), url(&new));
    let walk = tokio::task::spawn_blocking(move || {
        let (before, after) = (relay_on(&old, "plain"), relay_on(&new, "plain"));
        before.run(&["publish", "orders", "1"], "").lines();
        before.run(&["publish", "passing", "1"], "").lines();
        before.run(&["keys", "put", "flows", "a", "1"], "").lines();
        let sides = ["copy", "--from", &*old, "--to", &*new];
        let copy = |more: &[&str]| run(&[], &[&sides[..], more].concat(), "");
        let mut broken = Running::start(&[], &[&sides[..], &["--follow", "-o", "json"]].concat());
        wait_for(&mut broken, |far| far["caught_up"] == true);
        broken.interrupt();
        assert_eq!(broken.end().code, Some(130));
        before.run(&["topics", "delete", "passing", "--yes"], "").lines();
        before.run(&["buckets", "delete", "flows", "--yes"], "").lines();

        let would = copy(&["--dry-run"]);
        assert_eq!(would.code, Some(3), "{would:?}");
        let left = "in the way: a part of a copy, and not at the source";
        assert!(would.stdout.contains(&format!("passing: 1 message, 0 groups; {left}\n")), "{would:?}");
        assert!(would.stdout.contains(&format!("bucket flows: 1 key; {left}\n")), "{would:?}");
        let ended = copy(&["--follow", "--switch"]);
        assert!(ended.error(1).contains("topic `passing` is at the target as a part of a copy"), "{ended:?}");
        before.run(&["publish", "orders", "2"], "").lines();

        after.run(&["topics", "delete", "passing", "--yes"], "").lines();
        assert!(copy(&[]).error(1).contains("bucket `flows` is at the target as a part"));
        after.run(&["buckets", "delete", "flows", "--yes"], "").lines();
        assert_eq!(copy(&["--follow", "--switch"]).code, Some(0));
        assert_eq!(read_all(&after, "orders"), read_all(&before, "orders"));
    });
    walk.await.expect("the walk is gone");
}

#[test]
fn a_side_that_is_away_at_the_start_is_waited_for_as_long_as_is_said() {
    let began = tokio::time::Instant::now();
    let away = ["copy", "--from", "valkey://127.0.0.1:1", "--to", "valkey://127.0.0.1:2", "--patience", "1"];
    let ended = run(&[], &away, "");
    let error = ended.error(1);
    assert!(error.contains("valkey://127.0.0.1:1/0: no connection to the server: "), "{ended:?}");
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
}

/// Who has a password wrong is told so in place of waiting for minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_refuses_the_login_or_the_database_ends_it_at_once() {
    let settings = ["--requirepass", "secret", "--databases", "2"];
    let user = ["--user", "poor", "on", ">pw", "~*", "&*", "+ping", "+hello"];
    let Some(server) = Server::start(Kind::Valkey, &[&settings[..], &user].concat()).await else { return };
    let open = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    for (login, database, part) in [
        (":wrong@", 0, "WRONGPASS"),
        ("", 0, "NOAUTH"),
        ("poor:pw@", 0, "refused to set client name"),
        (":secret@", 7, "DB index is out of range"),
    ] {
        let closed = format!("valkey://{login}127.0.0.1:{}/{database}", server.port());
        for (from, to) in [(&closed, &url(&open)), (&url(&open), &closed)] {
            let began = tokio::time::Instant::now();
            let ended = run(&[], &["copy", "--from", from, "--to", to], "");
            let error = ended.error(1);
            assert!(error.contains(part) && error.contains("a storage refuses it; correct"), "{ended:?}");
            assert!(!error.contains("wrong") && !error.contains("secret"), "{ended:?}");
            assert!(began.elapsed() < std::time::Duration::from_secs(10), "{part}: {:?}", began.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_comes_later_than_at_the_start_is_copied() {
    let Some(mut old) = Server::start(Kind::Valkey, &["--appendonly", "yes"]).await else { return };
    let new = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    let (from, to) = (url(&old), url(&new));
    old.command(&["PING"]).await;
    old.kill9();
    let copy = Running::start(&[], &["copy", "--from", &from, "--to", &to, "-o", "json"]);
    // Longer than what was waited once.
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    old.restart().await;
    let ended = tokio::task::spawn_blocking(move || copy.end()).await.expect("no panic");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.starts_with(&format!("waiting for {from}/0: no connection")), "{ended:?}");
}

#[test]
fn what_cannot_be_copied_from_or_to_is_said() {
    let same = ["copy", "--from", "valkey://127.0.0.1:1", "--to", "valkey://127.0.0.1:1"];
    for (arguments, code, part) in [
        (
            &["copy", "--from", "http://127.0.0.1:1", "--to", "http://127.0.0.1:2", "--patience", "0"][..],
            1,
            "the source failed: no connection to the relay at http://127.0.0.1:1",
        ),
        (&["copy", "--from", "http://h/?a", "--to", "http://127.0.0.1:2"], 2, "the relay's URL has a query"),
        (&["copy", "--from", "ftp://h", "--to", "valkey://127.0.0.1:1"], 2, "--from: has an unknown scheme"),
        (&["copy", "--from", "@/no/such/file", "--to", "valkey://127.0.0.1:1"], 2, "--from: /no/such/file"),
        (&["freeze", "--storage", "valkey"], 2, "--storage: has no scheme"),
    ] {
        let ended = run(&[], arguments, "");
        assert!(ended.error(code).contains(part), "{ended:?}");
    }
    assert_eq!(run(&[], &[&same[..], &["--switch"]].concat(), "").code, Some(2), "without --follow");
    let none =
        run(&[], &["copy", "--from", "valkey://127.0.0.1:1", "--to", "valkey://127.0.0.1:1", "a b"], "");
    assert_eq!(none.code, Some(2), "{none:?}");
}
