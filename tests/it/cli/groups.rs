//! What is told of groups and of their messages, to whom, and what is done with dead letters.

use std::collections::BTreeMap;

use serde_json::{Value, json as value};

use super::work::{group, until, with_group, work};
use super::{json, run};
use crate::support::process::{Ended, Relay};

#[test]
fn dead_letters_are_looked_at_redriven_and_purged() {
    let relay = with_group(&["--max-deliveries", "1"]);
    let none = relay.run(&["dead", "list", "jobs", "workers"], "");
    assert_eq!(none.lines().len(), 1, "{none:?}");
    let ids = relay.run(&["publish", "jobs"], "1\n2\n3\n").stdout;
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(work(&relay, "3", &["-c", "3"], "echo 'it is broken' >&2; exit 1").code, Some(1));
    until(|| group(&relay)["dead"] == 3);
    until(|| relay.run(&["dead", "list", "jobs", "workers"], "").lines().len() == 4);
    let listed = relay.run(&["dead", "list", "jobs", "workers"], "");
    let listed: BTreeMap<&str, &str> =
        listed.lines()[1..].iter().filter_map(|line| line.split_once(' ')).collect();
    assert!(ids.iter().all(|id| listed[id].ends_with("it is broken")), "{listed:?}");
    let letters = relay.run(&["dead", "list", "jobs", "workers", "-n", "1", "-o", "json"], "");
    assert_eq!(json(letters.lines()[0])["metadata"]["dead_letter"]["reason"], "failed");
    let run = |arguments: &[&str]| relay.run(arguments, "");
    assert_eq!(
        run(&["dead", "redrive", "jobs", "workers", "--all", "--dry-run"]).lines(),
        ["3 would be redriven"]
    );
    assert_eq!(run(&["dead", "redrive", "jobs", "workers", ids[1]]).lines(), ["1 redriven"]);
    assert!(run(&["dead", "purge", "jobs", "workers", "--all"]).error(2).contains("add --yes"));
    assert_eq!(run(&["dead", "purge", "jobs", "workers", "--all", "--yes"]).lines(), ["2 purged"]);
    assert_eq!(run(&["dead", "list", "jobs", "workers"]).lines().len(), 1);
    assert_eq!(work(&relay, "1", &[], "exit 0").code, Some(0));
}

#[test]
fn groups_are_made_listed_changed_and_deleted() {
    let relay = Relay::start(&[], &[]);
    let run = |arguments: &[&str]| relay.run(&[&["groups"], arguments].concat(), "");
    let create = ["create", "jobs", "workers", "--ack-wait", "2m", "--backoff", "1s,90s", "--max-run", "1h"];
    let create = [&create[..], &["--ordering", "by_key"]].concat();
    assert_eq!(run(&create).lines(), ["made workers of jobs"]);
    assert!(run(&create).error(1).contains("tidemill groups change jobs workers"));
    relay.run(&["publish", "jobs"], "1\n2\n").lines();
    let listed = run(&["list", "jobs"]);
    assert!(
        listed.lines()[0].starts_with("GROUP ") && listed.lines()[1].starts_with("workers  2 "),
        "{listed:?}"
    );
    let shown = run(&["show", "jobs", "workers"]).stdout;
    for line in [
        "ack wait          2 m",
        "backoff waits     1 s, 90 s",
        "max run           1 h",
        "ordering          by_key",
        "waiting           2",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line:?} is not in {shown}");
    }
    assert_eq!(
        run(&["change", "jobs", "workers", "--max-in-flight", "3"]).lines(),
        ["changed workers of jobs"]
    );
    let told = group(&relay);
    assert_eq!(
        (&told["max_in_flight"], &told["max_run"], &told["ack_wait"]),
        (&3.into(), &3600.into(), &120.into())
    );
    run(&["change", "jobs", "workers", "--no-max-in-flight", "--no-max-run"]).lines();
    let told = group(&relay);
    assert_eq!(
        (&told["max_in_flight"], &told["max_run"], &told["ack_wait"]),
        (&Value::Null, &Value::Null, &120.into())
    );
    assert!(run(&["change", "jobs", "workers"]).error(2).contains("nothing is to be changed"));
    assert_eq!(run(&["pause", "jobs", "workers"]).lines(), ["paused workers of jobs"]);
    let state = |word: &str| {
        let listed = run(&["list", "jobs"]);
        assert!(listed.lines()[0].ends_with("  STATE") && listed.lines()[1].ends_with(word), "{listed:?}");
        let shown = run(&["show", "jobs", "workers"]).stdout;
        let line = shown.lines().find(|line| line.starts_with("state ")).unwrap_or_default();
        assert!(line.contains(word), "{shown}");
    };
    state("  paused");
    assert_eq!(run(&["resume", "jobs", "workers"]).lines(), ["resumed workers of jobs"]);
    state("  unclaimed");
    assert!(run(&["show", "jobs", "workers"]).stdout.contains("; none has asked: is a worker running?"));
    run(&["change", "jobs", "workers", "--max-in-flight", "1"]).lines();
    let claimed = relay.run(&["claim", "jobs", "workers", "--consumer", "me"], "");
    state("  max in flight");
    run(&["change", "jobs", "workers", "--no-max-in-flight"]).lines();
    state("  working");
    let receipt = claimed.lines()[0].split("  ").next().expect("a receipt");
    relay.run(&["release", receipt], "").lines();
    assert!(run(&["show", "jobs", "workers"]).stdout.contains("; the last time that one has asked was 2"));
    assert_eq!(work(&relay, "2", &["-q"], "exit 0").code, Some(0));
    state("  idle");
    assert_eq!(run(&["seek", "jobs", "workers", "-1h"]).lines(), ["set to -1h: workers of jobs"]);
    assert_eq!(group(&relay)["waiting"], 2);
    assert!(run(&["delete", "jobs", "workers"]).error(2).contains("add --yes"));
    assert_eq!(run(&["delete", "jobs", "workers", "--yes"]).lines(), ["deleted workers of jobs"]);
    let absent = run(&["show", "jobs", "workers"]);
    assert!(absent.error(1).contains("tidemill groups create jobs workers"), "{absent:?}");
}

#[test]
fn groups_of_all_topics_are_listed_and_those_that_nobody_attends_to() {
    let relay = Relay::start(&[], &[]);
    let run = |arguments: &[&str]| relay.run(&[&["groups"], arguments].concat(), "");
    assert!(run(&[]).lines()[0].starts_with("TOPIC "), "there is none yet");
    for topic in ["mails", "jobs"] {
        run(&["create", topic, "workers"]).lines();
        relay.run(&["publish", topic, "1"], "").lines();
    }
    let rows = |arguments: &[&str]| {
        let listed = run(arguments);
        assert!(
            listed.lines()[0].starts_with("TOPIC ") && listed.lines()[0].ends_with("  STATE"),
            "{listed:?}"
        );
        let words = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        listed.lines().into_iter().skip(1).map(words).collect::<Vec<_>>()
    };
    for arguments in [&[][..], &["list"], &["list", "--unattended"]] {
        assert_eq!(rows(arguments), ["jobs workers 1", "mails workers 1"], "{arguments:?}");
    }
    assert_eq!(relay.run(&["claim", "jobs", "workers", "--consumer", "c"], "").code, Some(0));
    assert_eq!(rows(&["list", "--unattended"]), ["mails workers 1"]);
    assert_eq!(rows(&["list"]).len(), 2);
    let told = run(&["list", "--unattended", "-o", "json"]);
    let told: Value = serde_json::from_str(told.lines()[0]).expect("JSON");
    assert_eq!((&told["topic"], &told["waiting"]), (&"mails".into(), &1.into()));
    let refused = run(&["list", "jobs", "--unattended"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("cannot be used with"), "{refused:?}");
}

#[test]
fn the_help_of_a_new_group_says_its_own_settings_first_with_what_they_are() {
    let help = run(&[], &["groups", "create", "--help"], "").stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text} is not in {help}"));
    assert!(at("--start") < at("--ack-wait") && at("--ordering") < at("--url"), "{help}");
    assert!(at("[new groups: 30s]") < at("[new groups: 5]"), "{help}");
}

/// Ids of letters are taken for those of their messages.
#[test]
fn what_cannot_be_redriven_ends_with_1() {
    let relay = with_group(&["--max-deliveries", "1"]);
    let ids = relay.run(&["publish", "jobs"], "1\n2\n").stdout;
    let ids: Vec<&str> = ids.lines().collect();
    work(&relay, "2", &[], "exit 65");
    until(|| relay.run(&["dead", "list", "jobs", "workers"], "").lines().len() == 3);
    let letters = relay.run(&["read", "jobs.workers.dead", "-o", "json"], "").stdout;
    let letter = json(letters.lines().next().expect("a letter"))["message_id"].clone();
    let letter = letter.as_str().expect("an id");
    for verb in [&["redrive"][..], &["purge", "--yes"]] {
        let ended = relay.run(&[&["dead"], verb, &["jobs", "workers", letter]].concat(), "");
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stdout.starts_with("0 ") && ended.stdout.contains(", 1 is no dead letter"),
            "{ended:?}"
        );
        assert!(
            ended.stderr.starts_with("ids are those of the messages")
                && ended.stderr.contains("`metadata.dead_letter.message_id`"),
            "{ended:?}"
        );
    }
    let some = relay.run(&["dead", "redrive", "jobs", "workers", ids[0], "1-1", "-o", "json"], "");
    assert_eq!(some.code, Some(1), "{some:?}");
    assert_eq!(
        json(&some.stdout),
        value!({ "messages": 1, "copies": 0, "gone": 0, "unknown": 1 }),
        "{some:?}"
    );
    // Neither the message is there, nor its letter.
    relay.run(&["trim", "jobs", "--keep", "0"], "").lines();
    relay.run(&["trim", "jobs.workers.dead", "--keep", "0"], "").lines();
    let gone = relay.run(&["dead", "redrive", "jobs", "workers", "--all"], "");
    assert_eq!((gone.code, gone.stderr.as_str()), (Some(1), ""), "{gone:?}");
    assert_eq!(gone.stdout, "0 redriven, 1 is gone, and its letter, too\n");
}

#[test]
fn what_a_group_was_never_given_is_told_apart_from_what_it_has_forgotten() {
    let relay = with_group(&[]);
    let why = |id: &str| {
        let told = relay.run(&["why", "jobs", id], "");
        assert_eq!(told.code, Some(1), "there is no such message: {told:?}");
        told.stdout.lines().nth(1).expect("a line of the group").to_owned()
    };
    let never = "workers: was never given to the group: it is gone from the topic, or was never there";
    assert_eq!(why("5-0"), never);
    let id = relay.run(&["publish", "jobs", "1"], "").lines()[0].to_owned();
    relay.run(&["trim", "jobs", "--message", &id], "").lines();
    assert_eq!(why(&id), never);
    relay.run(&["publish", "jobs", "2"], "").lines();
    assert_eq!(work(&relay, "1", &[], "exit 0").code, Some(0));
    assert_eq!(why(&id), "workers: is gone from the topic, and the group remembers nothing of it");
}

#[test]
fn the_id_of_a_scheduled_message_is_known_as_such() {
    let relay = with_group(&[]);
    let scheduled = relay.run(&["publish", "jobs", "1", "--delay", "1h"], "");
    for id in [scheduled.lines()[0], "1770000000000-000000-9f86d081"] {
        let ended = relay.run(&["why", "jobs", id], "");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(
            ended.stderr.contains("the id of a scheduled message")
                && ended.stderr.contains("`tidemill schedule list TOPIC`"),
            "{ended:?}"
        );
    }
}

#[test]
fn a_publish_that_keeps_nothing_new_says_so() {
    let relay = with_group(&[]);
    let publish = |arguments: &[&str]| relay.run(&[&["publish", "jobs", "1"], arguments].concat(), "");
    let told = |ended: &Ended, id: &str, why: &str| {
        assert_eq!(ended.lines(), [id], "{ended:?}");
        assert_eq!(ended.stderr, format!("nothing new was kept: {why}; the id is that of the first\n"));
    };
    for (flags, why) in [
        (["--unique", "workers/k"], "a message with the key k waits or is worked on in workers"),
        (["--key", "i"], "it was published before under the idempotency key i"),
    ] {
        let first = publish(&flags);
        let id = first.lines()[0];
        assert_eq!(first.stderr, "", "{first:?}");
        told(&publish(&flags), id, why);
        // What is for programs has it in the answer, and who wants to hear nothing hears nothing.
        for form in [&["-o", "json"][..], &["-q"]] {
            let again = publish(&[&flags[..], form].concat());
            assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "{again:?}");
        }
    }
    let later = ["--key", "later", "--delay", "1h"];
    let first = publish(&later);
    told(&publish(&later), first.lines()[0], "it was published before under the idempotency key later");
}

#[test]
fn a_full_topic_is_told_with_how_long_it_is_tried_and_need_not_be() {
    let relay = Relay::start(&[], &[]);
    let create = ["topics", "create", "q", "--max-messages", "1", "--when-full", "refuse"];
    relay.run(&create, "").lines();
    relay.run(&["publish", "q", "1"], "").lines();
    let once = relay.run(&["publish", "q", "2", "--no-retry"], "");
    assert!(once.error(1).contains("(code topic_full"), "{once:?}");
    let mut trying =
        crate::support::process::Running::start(&[("TIDEMILL_URL", &relay.url)], &["publish", "q", "2"]);
    let note = trying.note();
    assert!(
        note.starts_with("waiting 10 s and trying again for up to 60 s; Ctrl-C ends it: topic `q`"),
        "{note}"
    );
    trying.interrupt();
    // Nothing of it was kept, so there is no key to tell.
    assert_eq!(trying.end().error(130).lines().last(), Some("interrupted"));
    // Nobody is there who could take it.
    let since = tokio::time::Instant::now();
    let away = run(&[("TIDEMILL_URL", "http://127.0.0.1:1")], &["publish", "q", "2", "--no-retry"], "");
    assert!(away.error(1).starts_with("cannot reach a relay"), "{away:?}");
    assert!(since.elapsed() < std::time::Duration::from_secs(2), "{:?}", since.elapsed());
}

/// A relay that is closed, and what its administrator runs.
fn closed() -> (Relay, String) {
    let relay = Relay::start(&[("TIDEMILL_ADMIN_PASSWORD", "correct horse")], &[]);
    let new = ["token", "new", "ops", "--rule", "allow publish,read,work,manage *", "--user", "admin"];
    let token = relay.run(&new, "correct horse\n").lines()[0].to_owned();
    (relay, token)
}

/// Returns what runs a command for who has these rules alone.
fn caller(relay: &Relay, ops: &str, rule: &str) -> impl Fn(&[&str]) -> Ended {
    let variables = |token: &str| [("TIDEMILL_URL", relay.url.clone()), ("TIDEMILL_TOKEN", token.to_owned())];
    let run_with = |variables: &[(&str, String)], arguments: &[&str]| {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        run(&variables, arguments, "")
    };
    let made = run_with(&variables(ops), &["token", "new", "t", "--rule", rule]);
    let own = variables(made.lines()[0]);
    move |arguments| run_with(&own, arguments)
}

#[test]
fn who_may_manage_makes_a_group_that_is_not_there() {
    let (relay, ops) = closed();
    let manager = caller(&relay, &ops, "allow manage jobs");
    let create = ["groups", "create", "jobs", "workers"];
    assert_eq!(manager(&[&create[..], &["--ack-wait", "2m"]].concat()).lines(), ["made workers of jobs"]);
    assert!(manager(&create).error(1).contains("tidemill groups change jobs workers"));
    let worker = caller(&relay, &ops, "allow work jobs");
    let shown = worker(&["groups", "show", "jobs", "workers"]).stdout;
    assert!(shown.contains("ack wait          2 m\n"), "its settings stay: {shown}");
    assert!(worker(&["groups", "create", "jobs", "others"]).error(1).contains("`manage`"));
}

#[test]
fn why_tells_what_the_caller_may_know() {
    let (relay, ops) = closed();
    let operator = caller(&relay, &ops, "allow publish,read,work,manage jobs*");
    operator(&["groups", "create", "jobs", "workers"]).lines();
    let id = operator(&["publish", "jobs", "1"]).lines()[0].to_owned();
    operator(&["groups", "pause", "jobs", "workers"]).lines();
    let why = ["why", "jobs", &id, "--group", "workers"];
    assert!(operator(&why).lines()[1].starts_with("workers: waits: the group is paused"));

    let publisher = caller(&relay, &ops, "allow publish,read jobs");
    let told = publisher(&why);
    assert!(told.lines()[0].contains(": published at 2"), "{told:?}");
    assert_eq!(told.lines()[1], "workers: waits to be claimed");
    let all = publisher(&why[..3]);
    assert!(all.error(1).contains("--group GROUP"), "{all:?}");
    let absent = publisher(&["why", "jobs", &id, "--group", "others"]);
    assert!(absent.stderr.contains("tidemill groups create jobs others"), "{absent:?}");

    let worker = caller(&relay, &ops, "allow work jobs");
    for arguments in [&why[..], &why[..3]] {
        let told = worker(arguments);
        assert_eq!((told.code, told.stdout.as_str()), (Some(1), ""), "{told:?}");
        let lines: Vec<&str> = told.stderr.lines().collect();
        assert_eq!(lines[0], "who calls may not read jobs: when the message was published is left out");
        assert!(lines[1].starts_with("workers: ") && lines[1].contains("`read`"), "{told:?}");
    }
}
