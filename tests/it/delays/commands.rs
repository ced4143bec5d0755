//! From the command line: publishing for later, and what waits.

use serde_json::{Value, json};

use crate::support::process::Relay;

#[test]
fn what_waits_is_published_listed_cancelled_and_set() {
    let relay = Relay::start(&[], &[]);
    let run = |arguments: &[&str]| relay.run(arguments, "");
    let id = run(&["publish", "t", "1", "--delay", "2h"]).lines()[0].to_owned();
    let other = run(&["publish", "t", "--text", "call back", "--at", "2000-01-01T00:00:00Z", "-o", "json"]);
    let other: Value = serde_json::from_str(other.lines()[0]).expect("JSON");
    assert!(other["schedule_id"].is_string() && other["deliver_at"].is_string(), "{other}");
    let metadata = ["publish", "t", "2", "--delay", "90m", "--metadata", r#"{"k":"v"}"#, "--key", "k"];
    let keyed = run(&metadata).lines()[0].to_owned();
    assert_eq!(run(&metadata).lines(), [keyed.as_str()], "the same again");
    let listed = run(&["schedule", "list", "t"]);
    let lines = listed.lines();
    assert!(
        lines[0].starts_with("ID ") && lines[1].starts_with(&keyed) && lines[2].starts_with(&id),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 3, "what was due in the past has come: {lines:?}");
    let json_lines = run(&["schedule", "list", "t", "-o", "json"]);
    let first: Value = serde_json::from_str(json_lines.lines()[0]).expect("JSON");
    assert_eq!((&first["payload"], &first["metadata"]), (&json!(2), &json!({"k": "v"})));
    assert_eq!(run(&["schedule", "cancel", "t", &keyed]).lines(), [format!("cancelled {keyed}")]);
    let error = run(&["schedule", "cancel", "t", &keyed]);
    assert!(error.error(1).contains("no message waits"), "{error:?}");
    let message = run(&["schedule", "now", "t", &id]).lines()[0].to_owned();
    assert!(run(&["read", "t"]).stdout.contains(&message));
    let batch = relay.run(&["publish", "t", "--delay", "1h", "-o", "json"], "5\n6\n");
    let results: Vec<Value> =
        batch.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(results.iter().map(|one| &one["status"]).collect::<Vec<_>>(), ["scheduled", "scheduled"]);
    assert!(results.iter().all(|one| one["schedule_id"].is_string()), "{results:?}");
    assert_eq!(run(&["schedule", "list", "t"]).lines().len(), 3);
}

#[test]
fn recurring_messages_are_set_listed_and_removed() {
    let relay = Relay::start(&[], &[]);
    let run = |arguments: &[&str]| relay.run(arguments, "");
    let put = ["schedule", "recurring", "put", "jobs", "nightly", "0 3 * * *", r#"{"do":"report"}"#];
    let zone = ["--timezone", "Europe/Berlin"];
    let told = run(&[&put[..], &zone].concat());
    assert!(told.lines()[0].starts_with("nightly comes next at 2"), "{told:?}");
    let listed = run(&["schedule", "recurring", "list", "jobs"]);
    assert!(
        listed.lines()[1].starts_with("nightly ") && listed.stdout.contains("Europe/Berlin"),
        "{listed:?}"
    );
    let wrong = run(&["schedule", "recurring", "put", "jobs", "nightly", "every night", "1"]);
    assert!(wrong.error(1).contains("`cron`"), "{wrong:?}");
    let wrong = run(&["schedule", "recurring", "put", "jobs", "nightly", "0 3 * * *", "report"]);
    assert!(wrong.error(2).contains("--text"), "{wrong:?}");
    assert_eq!(run(&["schedule", "recurring", "delete", "jobs", "nightly"]).lines(), ["deleted nightly"]);
    assert_eq!(run(&["schedule", "recurring", "list", "jobs"]).lines().len(), 1);
}

#[test]
fn a_delay_that_is_none_says_what_to_write() {
    for arguments in [["publish", "t", "1", "--delay", "soon"], ["publish", "t", "1", "--delay", "366d"]] {
        let ended = crate::support::process::run(&[], &arguments, "");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("at most 365 days, as in `90s`"), "{ended:?}");
    }
}
