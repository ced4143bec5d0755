//! From the command line.

use serde_json::Value;

use crate::support::process::Relay;

#[test]
fn leases_are_created_renewed_shown_and_ended() {
    let relay = Relay::start(&[], &[]);
    let run = |rest: &[&str]| relay.run(&[&["leases"], rest].concat(), "");
    let created = run(&["create", "--ttl", "1m"]);
    let lease = created.lines()[0];
    assert_eq!(lease.len(), 32, "{created:?}");
    let curl = |method: &str, path: &str| {
        let url = format!("{}/api/v1/{path}", relay.url);
        let body = ["-s", "-X", method, "-H", "content-type: application/json", "-d", "1", &url];
        let output = std::process::Command::new("curl").args(body).output().expect("curl runs");
        String::from_utf8(output.stdout).expect("a text")
    };
    for path in ["keys/flows/k", "presence/lobby/ann"] {
        curl("PUT", &format!("{path}?lease={lease}"));
    }
    let shown = run(&["show", lease]);
    assert!(shown.lines()[0].starts_with("lasts 60 s, until 2"), "{shown:?}");
    assert_eq!(shown.lines()[1..], ["keeps keys/flows/k", "keeps presence/lobby/ann"]);
    let renewed = run(&["renew", lease]);
    assert!(renewed.lines()[0].starts_with("lasts until 2"), "{renewed:?}");
    curl("PUT", "keys/flows/k");
    let renewed = run(&["renew", lease]);
    assert_eq!(renewed.code, Some(1), "something is lost: {renewed:?}");
    assert!(
        renewed.stdout.lines().nth(1).is_some_and(|line| line.starts_with("lost: keys/flows/k (")),
        "{renewed:?}"
    );
    let shown: Value = serde_json::from_str(run(&["show", lease, "-o", "json"]).lines()[0]).expect("JSON");
    assert_eq!(shown["keeps"][0]["member"], "ann");
    assert_eq!(run(&["end", lease]).lines(), [""; 0]);
    assert!(run(&["renew", lease]).error(1).contains("lease_not_found"));
    assert!(run(&["end", "no-lease"]).error(2).contains("32 hexadecimal digits"));
    assert!(run(&["create", "--ttl", "10ms"]).error(1).contains("`ttl`"));
}
