//! Locks from the command line: held while a command runs, and the command stopped where they are lost.

use std::process::ChildStdin;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::json;
use super::work::until;
use crate::support::process::{Ended, Relay, Running, path, run};

/// Prints a line, and then runs until it is told to end: then it prints another, and its exit status is 3.
const ENDS_WHEN_TOLD: &str = "trap 'echo told; exit 3' TERM; echo on; while :; do /bin/sleep 0.05; done";

/// What a command prints of its lock.
const TOLD: &str = "echo \"$TIDEMILL_LOCK=$TIDEMILL_FENCE\"";

fn shown(relay: &Relay, name: &str) -> Value {
    json(relay.run(&["locks", "show", name, "-o", "json"], "").lines()[0])
}

/// Runs a script under a lock.
fn under(relay: &Relay, flags: &[&str], script: &str) -> Ended {
    relay.run(&[&["lock", "a"], flags, &["--", "/bin/sh", "-c", script]].concat(), "")
}

fn start(relay: &Relay, flags: &[&str], script: &str) -> Running {
    let arguments = [&["lock", "a"], flags, &["--", "/bin/sh", "-c", script]].concat();
    Running::start(&[("TIDEMILL_URL", &relay.url)], &arguments)
}

/// Holds a lock until its input ends.
fn held(relay: &Relay, flags: &[&str]) -> (Running, ChildStdin) {
    let script = format!("{TOLD}; read -r line; exit 7");
    let arguments = [&["lock", "a"], flags, &["--", "/bin/sh", "-c", &script]].concat();
    Running::fed(&[("TIDEMILL_URL", &relay.url)], &arguments)
}

#[test]
fn a_lock_is_held_while_a_command_runs_and_then_by_who_waits() {
    let relay = Relay::start(&[], &[]);
    let (mut first, input) = held(&relay, &["--holder", "ann", "--ttl", "1m"]);
    let fence = first.line();
    let told = shown(&relay, "a");
    assert_eq!(told["holder"], "ann");
    for arguments in [&["locks"][..], &["locks", "list"]] {
        let list = relay.run(arguments, "");
        let lines = list.lines();
        assert!(lines[0].starts_with("LOCK  GUARDS  HOLDER  SINCE"), "{list:?}");
        let fence = told["fence"].as_str().expect("a fence");
        assert!(lines.len() == 2 && lines[1].starts_with("a     -       ann"), "{list:?}");
        assert!(lines[1].contains(fence), "{list:?}");
    }
    assert_eq!(json(relay.run(&["locks", "-o", "json"], "").lines()[0])["holder"], "ann");
    assert_eq!(fence.trim(), format!("a={}", told["fence"].as_str().expect("a fence")));
    let refused = under(&relay, &[], "echo ran");
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(75), ""), "{refused:?}");
    assert!(
        refused.stderr.contains("held by `ann`") && refused.stderr.contains("(code locked"),
        "{refused:?}"
    );
    let since = Instant::now();
    assert_eq!(under(&relay, &["--wait", "1s"], "echo ran").code, Some(75));
    assert!(since.elapsed() >= Duration::from_secs(1), "it waits: {:?}", since.elapsed());

    let second = start(&relay, &["--wait", "1m", "--holder", "bob"], TOLD);
    until(|| shown(&relay, "a")["waiting"] == 1);
    let text = relay.run(&["locks", "show", "a"], "");
    assert!(text.lines()[0].starts_with("a: held by ann until "), "{text:?}");
    assert_eq!(text.lines()[1].trim(), "1. bob waits");
    drop(input);
    assert_eq!(first.end().code, Some(7), "the status is that of the command");
    let second = second.end();
    assert_eq!((second.code, second.stderr.as_str()), (Some(0), ""), "{second:?}");
    let number = |line: &str| line.trim().strip_prefix("a=").expect("its lock").to_owned();
    assert!(number(second.lines()[0]) > number(&fence), "fences grow");
    assert_eq!(relay.run(&["locks", "show", "a"], "").lines(), ["a: held by nobody"]);
}

#[test]
fn a_lock_is_renewed_for_as_long_as_the_command_runs() {
    let relay = Relay::start(&[], &[]);
    let (mut first, input) = held(&relay, &["--ttl", "2s"]);
    first.line();
    let fence = shown(&relay, "a")["fence"].clone();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(5) {
        assert_eq!(shown(&relay, "a")["fence"], fence);
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(input);
    let ended = first.end();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(7), ""), "{ended:?}");
}

/// Also where it was waited for longer than it is then held.
#[test]
fn what_was_waited_for_is_held_for_its_whole_time() {
    let relay = Relay::start(&[], &[]);
    let (mut first, input) = held(&relay, &[]);
    first.line();
    let second = start(&relay, &["--wait", "1m", "--ttl", "2s"], "/bin/sleep 3; echo done");
    until(|| shown(&relay, "a")["waiting"] == 1);
    std::thread::sleep(Duration::from_millis(2_500));
    drop(input);
    first.end();
    let second = second.end();
    assert_eq!((second.code, second.stderr.as_str()), (Some(0), ""), "{second:?}");
    assert_eq!(second.lines(), ["done"]);
}

#[test]
fn a_command_whose_lock_is_taken_away_is_stopped() {
    let relay = Relay::start(&[], &[]);
    let mut running = start(&relay, &["--ttl", "3s"], ENDS_WHEN_TOLD);
    running.line();
    assert!(relay.run(&["locks", "delete", "a"], "").error(2).contains("add --yes"));
    assert_eq!(relay.run(&["locks", "delete", "a", "--yes"], "").lines(), ["deleted a"]);
    let ended = running.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(124), "told\n"), "{ended:?}");
    assert!(ended.stderr.contains("the lock a is lost, and the command is stopped: "), "{ended:?}");
    assert!(relay.run(&["locks", "delete", "a", "--yes"], "").error(1).contains("(code lock_not_held"));
}

/// All that it has started, too, which would hold its output open for long.
#[test]
fn a_command_that_does_not_end_when_told_is_killed() {
    let relay = Relay::start(&[], &[]);
    let script = "trap '' TERM; /bin/sleep 100 & echo on; while :; do /bin/sleep 0.05; done";
    let mut running = start(&relay, &["--ttl", "1500ms"], script);
    running.line();
    let since = Instant::now();
    relay.run(&["locks", "delete", "a", "--yes"], "").lines();
    assert_eq!(running.end().code, Some(124));
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}

#[test]
fn a_command_is_stopped_in_time_where_the_relay_is_killed() {
    let relay = Relay::start(&[], &[]);
    let mut running = start(&relay, &["--ttl", "6s"], ENDS_WHEN_TOLD);
    running.line();
    let since = Instant::now();
    drop(relay);
    let ended = running.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(124), "told\n"), "{ended:?}");
    let took = since.elapsed();
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(6), "{took:?}");
    assert!(ended.stderr.contains("no connection to the relay at "), "{ended:?}");
}

#[test]
fn ctrl_c_ends_the_command_in_its_own_way_and_releases() {
    let relay = Relay::start(&[], &[]);
    let mut running = start(&relay, &[], ENDS_WHEN_TOLD);
    running.line();
    running.interrupt();
    let ended = running.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), "told\n"), "{ended:?}");
    assert_eq!(shown(&relay, "a").get("holder"), None);
    // A second one kills it.
    let mut running = start(&relay, &[], "trap 'echo told' TERM; echo on; while :; do /bin/sleep 0.05; done");
    running.line();
    running.interrupt();
    assert_eq!(running.line(), "told\n");
    running.interrupt();
    assert_eq!(running.end().code, Some(128 + 9));
    assert_eq!(shown(&relay, "a").get("holder"), None);
    // Who gives up while it waits has no place any more.
    let (mut first, input) = held(&relay, &[]);
    first.line();
    let waits = start(&relay, &["--wait", "1m"], "echo ran");
    until(|| shown(&relay, "a")["waiting"] == 1);
    waits.interrupt();
    let ended = waits.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{ended:?}");
    until(|| shown(&relay, "a")["waiting"] == 0);
    drop(input);
    first.end();
}

#[test]
fn the_exit_status_is_that_of_the_command_or_says_why_there_is_none() {
    let relay = Relay::start(&[], &[]);
    for (script, status) in [("exit 0", 0), ("exit 75", 75), ("kill -TERM $$", 128 + 15)] {
        let ended = under(&relay, &[], script);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(status), ""), "{script}");
    }
    for (command, status) in [("/does/not/exist", 127), ("/etc/hostname", 126)] {
        let ended = relay.run(&["lock", "a", "--", command], "");
        assert!(ended.error(status).contains(&format!("cannot run `{command}`: ")), "{ended:?}");
        assert_eq!(shown(&relay, "a").get("holder"), None, "it is released all the same");
    }
    let away = run(&[("TIDEMILL_URL", "http://127.0.0.1:1")], &["lock", "a", "--", "/bin/true"], "");
    assert!(away.error(125).contains("cannot reach a relay"), "{away:?}");
    for wrong in [
        &["lock", "a"][..],
        &["lock", "a b", "--", "/bin/true"],
        &["lock", "a", "--ttl", "1ms", "--", "/bin/true"],
        &["lock", "a", "--wait", "2d", "--", "/bin/true"],
        &["lock", "a", "--guards", "room:a", "--", "/bin/true"],
        &["locks", "release", "a", "x"],
    ] {
        assert_eq!(relay.run(wrong, "").code, Some(2), "{wrong:?}");
    }
}

/// The fence of a lock that guards a topic is looked at where it is published.
#[test]
fn a_command_publishes_under_the_fence_of_its_lock() {
    let relay = Relay::start(&[], &[]);
    let script = format!(
        "{} publish t 1 --fence \"$TIDEMILL_LOCK=$TIDEMILL_FENCE\" -q && {TOLD}",
        env!("CARGO_BIN_EXE_tidemill")
    );
    let ended = under(&relay, &["--guards", "topic:t"], &script);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let late = relay.run(&["publish", "t", "2", "--fence", ended.lines()[0]], "");
    assert!(late.error(1).contains("(code fenced"), "{late:?}");
    assert_eq!(relay.run(&["read", "t"], "").lines().len(), 1);
    let guarded = relay.run(&["locks", "show", "a", "--guards", "topic:t"], "");
    assert_eq!(guarded.lines(), ["a, which guards topic:t: held by nobody"]);
}

#[test]
fn who_has_the_token_of_a_lock_releases_it() {
    let relay = Relay::start(&[], &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let request = reqwest::Client::new().post(format!("{}/api/v1/locks/a", relay.url));
    let request = request.json(&serde_json::json!({ "holder": "ann", "ttl": "1m" }));
    let granted = runtime.block_on(async { request.send().await.expect("an answer").text().await });
    let granted = json(&granted.expect("a text"));
    let token = granted["token"].as_str().expect("a token");
    assert_eq!(relay.run(&["locks", "release", "a", token], "").lines(), ["released a"]);
    assert!(relay.run(&["locks", "release", "a", token], "").error(1).contains("(code lock_lost"));
}

#[test]
fn lines_are_published_under_a_lock_until_it_is_lost() {
    let relay = Relay::start(&[], &[]);
    let publish = "printf '1\\n2\\n' | \"$0\" publish t --fence \"$TIDEMILL_LOCK=$TIDEMILL_FENCE\"";
    let (mut first, input) = held(&relay, &[]);
    let fence = first.line();
    let publish_under = |fence: &str| relay.run(&["publish", "t", "--fence", fence.trim()], "1\n2\n3\n");
    let kept = publish_under(&fence);
    assert_eq!((kept.code, kept.lines().len()), (Some(0), 3), "{kept:?}");
    drop(input);
    first.end();
    let program = path();
    let own = ["lock", "a", "--", "/bin/sh", "-c", publish, program.to_str().expect("a path")];
    let own = relay.run(&own, "");
    assert_eq!((own.code, own.lines().len()), (Some(0), 2), "{own:?}");
    let refused = publish_under(&fence);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.contains("(code fenced"), "{refused:?}");
    let result = relay.run(&["publish", "t", "-o", "json", "--fence", fence.trim()], "1\n");
    let result = json(&result.stdout);
    assert_eq!(result["code"], "fenced");
    assert!(result["fence"].as_str() > fence.trim().strip_prefix("a="), "{result}");
}
