//! From the command line.

use serde_json::Value;

use crate::support::process::Relay;

#[test]
fn points_are_added_and_shown_and_a_series_is_forgotten() {
    let relay = Relay::start(&[], &[]);
    let run = |arguments: &[&str]| relay.run(&[&["series"], arguments].concat(), "");
    let at = "2026-01-01T00:00:00Z";
    let added = run(&["add", "latency", "12.5"]);
    assert_eq!(
        added.lines()[0].split_whitespace().collect::<Vec<_>>(),
        ["MINUTE", "COUNT", "SUM", "MIN", "MAX"]
    );
    assert!(added.lines()[1].ends_with('5'), "{added:?}");
    assert_eq!(run(&["add", "latency", "-2", "--count", "3"]).code, Some(0));
    let shown = run(&["show", "latency", "--last", "5m"]);
    let last: Vec<_> = shown.lines().last().expect("a line").split_whitespace().collect();
    assert_eq!(last, ["all", "4", "6.5", "-2", "12.5"], "{shown:?}");
    let told: Value = serde_json::from_str(run(&["show", "latency", "-o", "json"]).lines()[0]).expect("JSON");
    assert_eq!((&told["total"]["count"], &told["series"]), (&4.into(), &"latency".into()));
    assert_eq!(run(&["add", "errors", "1"]).code, Some(0));
    assert_eq!(run(&["list"]).lines(), ["errors", "latency"]);
    assert_eq!(run(&["list", "--prefix", "l", "-o", "json"]).lines(), [r#"{"series":"latency"}"#]);
    assert_eq!(run(&["delete", "latency"]).lines(), ["deleted latency"]);
    assert_eq!(run(&["list"]).lines(), ["errors"]);
    let none = run(&["show", "latency"]);
    let last: Vec<_> = none.lines().last().expect("a line").split_whitespace().collect();
    assert_eq!(last, ["all", "0", "0", "-", "-"], "{none:?}");
    assert!(run(&["add", "latency", "1", "--at", at]).stderr.contains("`at`"));
    for arguments in [
        &["add", "latency", "much"][..],
        &["add", "latency", "1e201"],
        &["add", "latency", "NaN"],
        &["add", "latency", "1", "--count", "0"],
        &["add", "late ncy", "1"],
        &["show", "latency", "--last", "soon"],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
}
