//! From the command line.

use serde_json::{Value, json};

use crate::support::process::Relay;

#[test]
fn leases_are_created_renewed_shown_and_ended() {
    let relay = Relay::start(&[], &[]);
    let run = |rest: &[&str]| relay.run(&[&["leases"], rest].concat(), "");
    let created = run(&["create", "--ttl", "1m"]);
    let lease = created.lines()[0];
    assert_eq!(lease.len(), 32, "{created:?}");
    let put = |lease: &[&str]| {
        let put = relay.run(&[&["keys", "put", "flows", "k", "1"], lease].concat(), "");
        assert_eq!(put.code, Some(0), "{put:?}");
    };
    put(&["--lease", lease]);
    let shown = run(&["show", lease]);
    assert!(shown.lines()[0].starts_with("lasts 60 s, until 2"), "{shown:?}");
    assert_eq!(shown.lines()[1..], ["keeps keys/flows/k"]);
    let renewed = run(&["renew", lease]);
    assert!(renewed.lines()[0].starts_with("lasts until 2"), "{renewed:?}");
    put(&[]);
    let renewed = run(&["renew", lease]);
    assert_eq!(renewed.code, Some(1), "something is lost: {renewed:?}");
    assert!(
        renewed.stdout.lines().nth(1).is_some_and(|line| line.starts_with("lost: keys/flows/k (")),
        "{renewed:?}"
    );
    let shown: Value = serde_json::from_str(run(&["show", lease, "-o", "json"]).lines()[0]).expect("JSON");
    assert_eq!((&shown["ttl"], &shown["keeps"]), (&json!(60), &json!([])), "{shown}");
    assert_eq!(run(&["end", lease]).lines(), [""; 0]);
    assert!(run(&["renew", lease]).error(1).contains("lease_not_found"));
    let none = run(&["end", "no-lease"]);
    assert!(none.code == Some(2) && none.stderr.contains("32 hexadecimal digits"), "{none:?}");
    assert!(run(&["create", "--ttl", "10ms"]).error(1).contains("`ttl`"));
}
