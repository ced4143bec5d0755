//! From the command line.

use serde_json::Value;

use crate::support::process::{Relay, run};

#[test]
fn limits_are_taken_looked_at_and_given_back() {
    let relay = Relay::start(&[], &[]);
    let run = |what: &str, rest: &[&str]| {
        let arguments = [&["limits", what, "mail", "--limit", "2", "--per", "1h"], rest].concat();
        relay.run(&arguments, "")
    };
    assert_eq!(run("take", &[]).lines(), ["allowed, 1 left, all in 1800 s"]);
    assert!(run("take", &[]).stdout.starts_with("allowed, 0 left"));
    for what in ["take", "peek"] {
        let refused = run(what, &[]);
        assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.stdout.starts_with("refused, again in 17"), "{refused:?}");
    }
    assert!(run("refund", &["--cost", "2"]).stdout.starts_with("allowed, 2 left"));
    let answer: Value = serde_json::from_str(run("take", &["-o", "json"]).lines()[0]).expect("JSON");
    assert_eq!((answer["allowed"].as_bool(), answer["remaining"].as_u64()), (Some(true), Some(1)));
    let both = run("peek", &["--limit", "5", "--per", "1d", "--burst", "2", "--burst", "1"]);
    assert!(both.stdout.starts_with("allowed, 1 left"), "{both:?}");
}

#[test]
fn what_cannot_be_found_out_is_no_refusal() {
    let relay = Relay::start(&[], &[]);
    let of = |rest: &[&str]| relay.run(&[&["limits", "take", "mail"], rest].concat(), "");
    for (rest, told) in [
        (&["--limit", "2", "--per", "1h", "--cost", "3"][..], "`cost`"),
        (&["--limit", "2", "--per", "soon"], "as in `30s`"),
        (&["--limit", "2", "--limit", "3", "--per", "1h"], "--per for each --limit"),
        (&["--limit", "2", "--per", "1h", "--burst", "1", "--burst", "2"], "--burst for each"),
        (&["--limit", "0", "--per", "1h"], "--limit"),
        (&["--per", "1h"], "--limit"),
    ] {
        let ended = of(rest);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
    let away = run(
        &[],
        &["limits", "take", "mail", "--limit", "1", "--per", "1s", "--url", "http://127.0.0.1:9"],
        "",
    );
    assert_eq!(away.code, Some(2), "{away:?}");
}
