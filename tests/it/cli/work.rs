//! Work from the command line: a command for each message, and what is said of groups and messages.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::json;
use crate::support::process::{Ended, Relay, Running, number_lines, run};
use crate::support::relay::STUCK;
use crate::support::server::{Kind, Server};

/// Waits until a probe answers true.
pub(super) fn until(probe: impl Fn() -> bool) {
    let since = Instant::now();
    while !probe() {
        assert!(since.elapsed() < STUCK, "it never comes");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a relay with a group `workers` of `jobs`.
pub(super) fn with_group(settings: &[&str]) -> Relay {
    let relay = Relay::start(&[], &[]);
    relay.run(&[&["groups", "create", "jobs", "workers"], settings].concat(), "").lines();
    relay
}

pub(super) fn group(relay: &Relay) -> Value {
    json(relay.run(&["groups", "show", "jobs", "workers", "-o", "json"], "").lines()[0])
}

/// Runs a script for messages until there were so many.
pub(super) fn work(relay: &Relay, count: &str, flags: &[&str], script: &str) -> Ended {
    let begin = ["work", "jobs", "-g", "workers", "-n", count];
    relay.run(&[&begin[..], flags, &["--", "/bin/sh", "-c", script]].concat(), "")
}

fn start(relay: &Relay, flags: &[&str], script: &str) -> Running {
    let begin = ["work", "jobs", "-g", "workers"];
    let arguments = [&begin[..], flags, &["--", "/bin/sh", "-c", script]].concat();
    Running::start(&[("TIDEMILL_URL", &relay.url), ("PATH", "/usr/bin:/bin")], &arguments)
}

#[test]
fn a_command_gets_the_message_and_what_is_known_of_it() {
    let relay = with_group(&[]);
    let published = relay.run(&["publish", "jobs", r#"{"n": 1.10}"#, "--metadata", r#"{"trace":"t1"}"#], "");
    let id = published.lines()[0].to_owned();
    let script = r#"read -r all; echo "$all|$TIDEMILL_MESSAGE_ID|$TIDEMILL_DELIVERY|$TIDEMILL_TOPIC|$TIDEMILL_GROUP|$TIDEMILL_CONTENT_TYPE|$TIDEMILL_METADATA|$TIDEMILL_TIMESTAMP""#;
    let script = script.replace("read -r all", "all=$(/bin/cat)");
    let ended = work(&relay, "1", &[], &script);
    let told = format!("{{\"n\": 1.10}}|{id}|1|jobs|workers|application/json|{{\"trace\":\"t1\"}}|20");
    assert!(ended.lines()[0].starts_with(&told), "{ended:?}");
    assert!(ended.stderr.starts_with(&format!("acked {id} in 0.")), "{ended:?}");
    // Bytes are bytes, and metadata of another message are not this one's.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("bytes");
    std::fs::write(&file, b"\0\xff\n").expect("the folder is ours");
    let path = file.to_str().expect("UTF-8");
    relay.run(&["publish", "jobs", "--file", path, "--content-type", "image/png"], "").lines();
    let into = folder.path().join("into");
    let script =
        format!("cat > {}; echo \"$TIDEMILL_CONTENT_TYPE|${{TIDEMILL_METADATA-none}}\"", into.display());
    assert_eq!(work(&relay, "1", &[], &format!("PATH=/bin:/usr/bin; {script}")).lines(), ["image/png|none"]);
    assert_eq!(std::fs::read(into).expect("it was written"), b"\0\xff\n");
}

#[test]
fn the_exit_status_says_what_becomes_of_the_message() {
    let relay = with_group(&["--max-deliveries", "2", "--backoff", "1h"]);
    relay.run(&["publish", "jobs"], "0\n65\n75\n9\n\"term\"\n\"unread\"\n").lines();
    let script = r#"
        PATH=/bin:/usr/bin
        payload=$(cat)
        echo "not this line" >&2
        case $payload in
            0) exit 0 ;;
            65) echo "no such customer" >&2; exit 65 ;;
            75) echo "the database is away" >&2; exit 75 ;;
            9) exit 9 ;;
            '"term"') kill -TERM $$ ;;
        esac"#;
    let ended = work(&relay, "6", &[], script);
    assert_eq!(ended.code, Some(1), "not all of them are done: {ended:?}");
    let lines: Vec<&str> = ended.stderr.lines().collect();
    for (word, error) in [
        ("acked ", ""),
        ("rejected ", ": no such customer; a dead letter now"),
        ("nacked ", ": the database is away; again at "),
        ("nacked ", ": not this line; again at "),
        ("nacked ", ": not this line; again at "),
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(word) && line.contains(error)),
            "{word}{error}: {ended:?}"
        );
    }
    let told = group(&relay);
    assert_eq!((&told["done"], &told["in_backoff"]), (&2.into(), &3.into()), "{told}");
    until(|| group(&relay)["dead"] == 1);
    let dead = relay.run(&["dead", "list", "jobs", "workers"], "");
    let lines = dead.lines();
    assert!(
        lines.len() == 2 && lines[0].starts_with("ID ") && lines[1].contains("no such customer"),
        "{dead:?}"
    );
}

#[test]
fn a_command_that_is_not_there_ends_the_worker_and_no_message_fails() {
    let relay = with_group(&[]);
    relay.run(&["publish", "jobs", "1"], "").lines();
    let ended = relay.run(&["work", "jobs", "-g", "workers", "--", "/does/not/exist"], "");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("error: cannot run `/does/not/exist`: "), "{ended:?}");
    let told = group(&relay);
    assert_eq!((&told["waiting"], &told["failed"]), (&1.into(), &0.into()), "{told}");
    let none = relay.run(&["work", "jobs", "-g", "others", "--", "true"], "");
    let error = none.error(1);
    assert!(error.contains("tidemill groups create jobs others") && error.contains("--create"), "{error}");
    let made = Running::start(
        &[("TIDEMILL_URL", &relay.url)],
        &["work", "new", "-g", "made", "--create", "--", "/bin/true"],
    );
    until(|| relay.run(&["groups", "show", "new", "made"], "").code == Some(0));
    drop(made);
}

/// A publisher follows its job, and gets what the command printed.
#[test]
fn results_come_to_who_follows_the_message() {
    let relay = with_group(&[]);
    for (payload, printed, result) in [
        ("[1, 2]", "{\"sum\": 3.0}", r#""result":{"sum": 3.0}"#),
        ("[2]", "high water", r#""result":"high water""#),
        ("[3]", "", r#""state":"done""#),
    ] {
        let id = relay.run(&["publish", "jobs", payload], "").lines()[0].to_owned();
        let following = format!("{}/api/v1/topics/jobs/groups/workers/messages/{id}?wait=20s", relay.url);
        let client = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                reqwest::get(following).await.expect("an answer").text().await.expect("text")
            })
        });
        let ended = work(&relay, "1", &["--result"], &format!("echo '{printed}'"));
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
        let state = client.join().expect("it is answered");
        assert!(state.contains(result), "{state}");
    }
    // More than a result may have is not kept, and the message is done.
    let id = relay.run(&["publish", "jobs", "[4]"], "").lines()[0].to_owned();
    let ended = work(&relay, "1", &["--result"], "PATH=/bin:/usr/bin; head -c 300000 /dev/zero | tr '\\0' x");
    assert!(ended.stderr.starts_with("the output has more than 65536 bytes"), "{ended:?}");
    let why = relay.run(&["why", "jobs", &id], "");
    let told = why.lines()[1];
    assert!(told.starts_with("workers: is done") && !told.contains("with a result"), "{why:?}");
}

/// Whoever is lost gives its messages back by the group's time.
fn three_workers_share_the_messages_and_one_of_them_is_killed(variables: &[(&str, &str)]) {
    const COUNT: usize = 60;
    let relay = Relay::start(variables, &[]);
    relay.run(&["groups", "create", "jobs", "workers", "--ack-wait", "2s", "--backoff", "0s"], "").lines();
    relay.run(&["publish", "jobs"], &number_lines(COUNT)).lines();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let done = folder.path().join("done");
    let script =
        format!("n=$(cat); echo $n >> {}.begun; sleep 0.05; echo $n >> {}", done.display(), done.display());
    let mut workers: Vec<_> = (0..3).map(|_| start(&relay, &["-c", "4"], &script)).collect();
    let lines = |path: &Path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    until(|| lines(&done) > 5);
    // SIGKILL, at once.
    drop(workers.pop());
    until(|| group(&relay)["done"] == COUNT);
    let text = std::fs::read_to_string(&done).expect("it was written");
    // A command whose worker was killed before it wrote to it has read nothing.
    let whole = text.lines().filter(|line| !line.is_empty());
    let numbers: BTreeSet<usize> = whole.map(|line| line.parse().expect("a number")).collect();
    assert_eq!(numbers.len(), COUNT, "none is lost");
    for worker in &workers {
        worker.interrupt();
    }
    for worker in workers {
        let ended = worker.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let told = group(&relay);
    assert_eq!(
        (&told["in_flight"], &told["waiting"], &told["dead"]),
        (&0.into(), &0.into(), &0.into()),
        "{told}"
    );
}

#[test]
fn three_workers_share_the_messages_and_one_of_them_is_killed_in_memory() {
    three_workers_share_the_messages_and_one_of_them_is_killed(&[]);
}

#[tokio::test]
async fn three_workers_share_the_messages_and_one_of_them_is_killed_on_valkey() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let port = server.port().to_string();
    let on_valkey = move || {
        let variables =
            [("STORAGE_BACKEND", "valkey"), ("VALKEY_HOST", "127.0.0.1"), ("VALKEY_PORT", port.as_str())];
        three_workers_share_the_messages_and_one_of_them_is_killed(&variables);
    };
    tokio::task::spawn_blocking(on_valkey).await.expect("it passes");
}

#[test]
fn a_worker_that_is_told_to_end_lets_what_runs_end() {
    let relay = with_group(&["--ack-wait", "10m"]);
    relay.run(&["publish", "jobs"], "1\n2\n3\n").lines();
    // Ctrl-C does not reach the command.
    let mut worker = start(&relay, &["-c", "2"], "echo begun; sleep 0.5");
    assert_eq!((worker.line(), worker.line()), ("begun\n".to_owned(), "begun\n".to_owned()));
    worker.interrupt();
    let ended = worker.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr.lines().filter(|line| line.starts_with("acked ")).count(), 2, "{ended:?}");
    let told = group(&relay);
    assert_eq!(
        (&told["done"], &told["waiting"], &told["in_flight"]),
        (&2.into(), &1.into(), &0.into()),
        "{told}"
    );
    // A second signal ends what runs, too, and gives back what it was.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("ended");
    let mut worker = start(&relay, &[], &format!("echo begun; sleep 30; echo > {}", file.display()));
    assert_eq!(worker.line(), "begun\n");
    worker.interrupt();
    assert!(worker.note().starts_with("ending: "));
    worker.interrupt();
    let since = Instant::now();
    let ended = worker.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.starts_with("released "), "{ended:?}");
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let told = group(&relay);
    assert_eq!((&told["waiting"], &told["failed"]), (&1.into(), &0.into()), "{told}");
    assert!(!file.exists());
}

#[test]
fn a_worker_with_nothing_to_do_ends_at_once_and_in_silence() {
    let relay = with_group(&[]);
    relay.run(&["publish", "jobs", "1"], "").lines();
    let mut worker = start(&relay, &[], "echo begun");
    assert_eq!(worker.line(), "begun\n");
    assert!(worker.note().starts_with("acked "));
    worker.interrupt();
    let since = Instant::now();
    let ended = worker.end();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}

#[test]
fn a_command_is_kept_for_as_long_as_it_may_run_and_ended_then() {
    let relay = with_group(&["--ack-wait", "500ms", "--max-run", "3s", "--backoff", "1h"]);
    relay.run(&["publish", "jobs", "1"], "").lines();
    let since = Instant::now();
    let script = "trap 'echo asked to end >&2' TERM; while :; do sleep 0.1; done";
    let ended = work(&relay, "1", &[], &format!("PATH=/bin:/usr/bin; {script}"));
    assert!((2_500..5_000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
    assert!(ended.stderr.contains("asked to end\n"), "first it is asked: {ended:?}");
    assert!(ended.stderr.contains(": ran longer than max_run (3 s); again at "), "{ended:?}");
    assert_eq!(group(&relay)["failed"], 1);
    // One that ends when it is asked to has run for too long as well, whatever it says then.
    for script in ["sleep 30", "trap 'echo useless >&2; exit 65' TERM; while :; do sleep 0.1; done"] {
        let id = relay.run(&["publish", "jobs", "1"], "").lines()[0].to_owned();
        let ended = work(&relay, "1", &[], &format!("PATH=/bin:/usr/bin; {script}"));
        assert!(ended.stderr.contains(": ran longer than max_run (3 s); again at "), "{ended:?}");
        let why = relay.run(&["why", "jobs", &id], "");
        assert!(why.stdout.ends_with(", after 1 delivery: ran longer than max_run (3 s)\n"), "{why:?}");
    }
}

#[test]
fn a_terminal_shows_a_line_for_each_message_and_a_count() {
    let relay = with_group(&[]);
    relay.run(&["publish", "jobs"], "1\n2\n").lines();
    let seen = crate::support::process::run_on_terminal(
        &relay.url,
        100,
        &["work", "jobs", "-g", "workers", "-n", "2", "--", "/bin/sh", "-c", "echo from the command"],
        "",
    );
    assert_eq!(seen.matches("acked ").count(), 2, "{seen}");
    assert!(seen.contains("from the command") && seen.contains("1 running, "), "{seen}");
}

#[test]
fn messages_are_claimed_and_settled_by_hand() {
    let relay = with_group(&["--max-deliveries", "9"]);
    let ids = relay.run(&["publish", "jobs"], "1\n2\n3\n4\n5\n").stdout;
    let ids: Vec<&str> = ids.lines().collect();
    let claimed = relay.run(&["claim", "jobs", "workers", "--consumer", "me", "-n", "4"], "");
    let receipts: Vec<&str> =
        claimed.lines().iter().map(|line| line.split("  ").next().expect("a receipt")).collect();
    assert_eq!(receipts.len(), 4);
    assert!(claimed.lines()[0].ends_with("  1"), "its payload: {claimed:?}");
    let say = |arguments: &[&str]| relay.run(arguments, "").stdout;
    assert_eq!(say(&["ack", receipts[0], "--result", "[7]"]), format!("acked {}\n", receipts[0]));
    assert!(say(&["nack", receipts[1], "--delay", "1h", "--error", "later"]).contains("; again at 2"));
    assert!(say(&["extend", receipts[2], "--ack-wait", "5m"]).contains("; until 2"));
    assert!(say(&["reject", receipts[3], "--reason", "useless"]).contains("; a dead letter now"));
    let why = |id| relay.run(&["why", "jobs", id], "").lines()[1].to_owned();
    let done = why(ids[0]);
    assert!(done.starts_with("workers: is done") && done.ends_with(", with a result"), "{done}");
    assert!(why(ids[1]).starts_with("workers: has failed, and waits until 2"), "{}", why(ids[1]));
    assert!(why(ids[1]).ends_with(", after 1 delivery: later"), "{}", why(ids[1]));
    assert!(why(ids[2]).starts_with("workers: is with me since 2"), "{}", why(ids[2]));
    assert!(why(ids[3]).starts_with("workers: is a dead letter in jobs.workers.dead"), "{}", why(ids[3]));
    assert!(why(ids[3]).ends_with(": useless"), "{}", why(ids[3]));
    let waits = why(ids[4]);
    let asked = waits
        .strip_prefix("workers: waits to be claimed, of 1 that wait; a consumer last asked for messages at ");
    assert!(asked.is_some(), "{waits}");
    let unknown = relay.run(&["why", "jobs", "1-1"], "");
    assert_eq!(unknown.code, Some(1), "as other look-ups of what is not there: {unknown:?}");
    let lines: Vec<&str> = unknown.stdout.lines().collect();
    assert!(lines[0].ends_with("not in the topic; trimmed, deleted, expired, or never there"), "{unknown:?}");
    assert!(lines[1].ends_with("the group remembers nothing of it"), "{unknown:?}");
    let told = json(relay.run(&["why", "jobs", ids[2], "-g", "workers", "-o", "json"], "").lines()[0]);
    assert_eq!((&told["state"], &told["consumer"]), (&"in_flight".into(), &"me".into()));
    assert_eq!(say(&["release", receipts[2]]), format!("released {}\n", receipts[2]));
    // What is refused is told by the exit status, too.
    let again = relay.run(&["ack", receipts[0]], "");
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stdout.starts_with(&format!("refused {}; ", receipts[0])), "{again:?}");
    let claimed = relay.run(&["claim", "jobs", "workers", "--consumer", "me", "-o", "json"], "");
    let message = json(claimed.lines()[0]);
    assert_eq!((&message["payload"], &message["delivery"]), (&3.into(), &2.into()));
}

#[test]
fn what_is_not_understood_ends_with_2() {
    let unreachable = [("TIDEMILL_URL", "http://127.0.0.1:1")];
    let receipt = "jobs/workers/4f0c2a9e6b1d7358/1770000000000-0/1";
    for arguments in [
        &["work", "jobs", "-g", "workers"][..],
        &["work", "jobs", "--", "true"],
        &["work", "jobs", "-g", "a.b", "--", "true"],
        &["work", "jobs", "-g", "w", "-c", "0", "--", "true"],
        &["work", "jobs", "-g", "w", "--once", "-n", "2", "--", "true"],
        &["groups", "create", "jobs", "w", "--ack-wait", "soon"],
        &["groups", "seek", "jobs", "w", "yesterday"],
        &["claim", "jobs", "w"],
        &["claim", "jobs", "w", "--consumer", "a b"],
        &["claim", "jobs", "w", "--consumer", "me", "--wait", "10m"],
        &["ack"],
        &["ack", "a/b"],
        &["ack", receipt, "--result", "high"],
        &["reject", receipt],
        &["dead", "redrive", "jobs", "w"],
        &["dead", "redrive", "jobs", "w", "1-1", "--all"],
        &["why", "jobs", "latest"],
        &["why", "jobs", "1770000000000-000001"],
        &["publish", "jobs", "--no-retry"],
    ] {
        let ended = run(&unreachable, arguments, "");
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    }
}

#[test]
fn a_command_is_told_that_its_topic_was_cancelled_and_the_order_key() {
    let relay = with_group(&[]);
    relay.run(&["publish", "jobs", "1", "--order-key", "k 1"], "").lines();
    relay.run(&["publish", "jobs"], "2\n3\n").lines();
    let script = r#"echo "${TIDEMILL_ORDER_KEY-none}|${TIDEMILL_CANCELLED-none}""#;
    assert_eq!(work(&relay, "1", &[], script).lines(), ["k 1|none"]);
    relay.run(&["topics", "cancel", "jobs", "too \"late\""], "").lines();
    assert_eq!(work(&relay, "1", &[], script).lines(), ["none|too \"late\""]);
    let claimed = relay.run(&["claim", "jobs", "workers", "--consumer", "me"], "");
    assert!(claimed.lines()[0].ends_with("(cancelled: too \"late\") 3"), "{claimed:?}");
}
