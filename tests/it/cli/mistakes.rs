//! What newcomers write, and what they are told to write.

use crate::support::process::{Relay, run};

#[test]
fn mistakes_of_newcomers_are_answered_with_what_to_write() {
    for (arguments, part) in [
        (&["read", "t", "--after", "10m"][..], "did you mean `-10m`?"),
        (&["tail", "t", "--after=10m"], "did you mean `-10m`?"),
        (&["tail", "t", "--after=t=10m"], "did you mean `-10m`?"),
        (&["trim", "t", "--before", "7d"], "did you mean `-7d`?"),
        (&["read", "t", "-n", "0"], "write a whole number from 1 on"),
        (&["tail", "t", "-n", "0"], "write a whole number from 1 on"),
        (&["lock", "nightly", "./report"], "the command to be run comes behind `--`: `-- ./report`"),
        (&["claim", "t", "g", "--consumer", "c", "--wait", "61s"], "write at most `60s`"),
        (&["publish", "t", "1", "--ttl", "soon"], "or a number with a unit"),
        (&["publish", "t", "1", "--ttl", "500ms"], "write whole seconds"),
        (&["topics", "create", "t", "--retention-seconds", "soon"], "or a number with a unit"),
        (&["topics", "create", "t", "--max-messages", "5m"], "write a whole number from 1 on"),
        (&["topics", "change", "t", "--idle-seconds", "1w"], "or a number with a unit"),
        (&["trim", "t", "--keep", "many"], "write a whole number from 0 on"),
        (&["copy", "--from", "a", "--to", "b", "--patience", "soon"], "or a number with a unit"),
        (&["read", "orders.*"], "is a pattern, and one topic is meant"),
        (&["serve", "--port", "80"], "--listen"),
        (&["serve", "--docs", "false"], "--docs=false"),
    ] {
        let ended = run(&[], arguments, "");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(part), "{part:?} is not in {}", ended.stderr);
    }
}

#[test]
fn a_claim_waits_for_as_long_as_the_relay_lets_it() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["groups", "create", "t", "g"], "").lines();
    relay.run(&["publish", "t", "1"], "").lines();
    let claimed = relay.run(&["claim", "t", "g", "--consumer", "c", "--wait", "60s"], "");
    assert_eq!(claimed.lines().len(), 1, "{claimed:?}");
}

#[test]
fn a_wrong_cron_expression_is_told_in_plain_words() {
    let relay = Relay::start(&[], &[]);
    let ended = relay.run(&["schedule", "recurring", "put", "t", "nightly", "0 25 * * *", "1"], "");
    assert!(ended.error(1).contains("its hours are `25`, and may be 0 to 23"), "{ended:?}");
}

#[test]
fn an_address_that_is_taken_is_said_with_what_to_do() {
    let relay = Relay::start(&[], &[]);
    let ended = run(&[], &["serve", "--listen", &relay.address().to_string()], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().expect("an error");
    assert!(
        last.contains("another relay may be running: stop it") && last.contains("--listen 127.0.0.1:8081"),
        "{last}"
    );
}
