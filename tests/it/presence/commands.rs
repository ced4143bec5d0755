//! Rooms from the command line.

use serde_json::{Value, json};

use crate::support::process::{Relay, Running};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn somebody_is_in_a_room_as_long_as_it_says_so() {
    let relay = Relay::start(&[], &[]);
    let start = |arguments: &[&str]| {
        Running::start(&[("TIDEMILL_URL", &relay.url)], &[&["presence"], arguments].concat())
    };
    let run = |arguments: &[&str]| relay.run(&[&["presence"], arguments].concat(), "");
    assert_eq!(run(&["list", "lobby"]).lines(), ["MEMBER  SINCE  EXPIRES  ADDRESS  DATA"]);
    let mut watch = start(&["watch", "lobby", "-o", "json"]);
    assert_eq!(json_of(&watch.line())["type"], json!("synced"));
    let mut ann = start(&["join", "lobby", "ann", "--data", r#"{"role": "pilot"}"#, "--ttl", "1s"]);
    assert_eq!(ann.note(), "ann is in lobby\n");
    for arguments in [&[][..], &["rooms"]] {
        assert_eq!(run(arguments).lines(), ["ROOM   MEMBERS", "lobby  1"]);
    }
    assert_eq!(json_of(run(&["-o", "json"]).lines()[0]), json!({ "room": "lobby", "count": 1 }));
    let joined = json_of(&watch.line());
    assert_eq!((&joined["type"], &joined["member"]), (&json!("joined"), &json!("ann")));
    assert_eq!(joined["data"], json!({ "role": "pilot" }));
    // She says so again and again.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    let listed = run(&["list", "lobby"]);
    assert!(
        listed.lines()[1].starts_with("ann ") && listed.lines()[1].ends_with(r#"{"role": "pilot"}"#),
        "{listed:?}"
    );
    assert_eq!(json_of(run(&["list", "lobby", "-o", "json"]).lines()[0])["member"], json!("ann"));
    ann.interrupt();
    assert_eq!(ann.end().code, Some(0));
    let left = json_of(&watch.line());
    assert_eq!(
        (&left["type"], &left["reason"]),
        (&json!("left"), &json!("left")),
        "and nothing between: {left}"
    );
    // As long as a command runs.
    let ended = run(&["join", "lobby", "bob", "--", "sh", "-c", "echo works; exit 0"]);
    assert_eq!((ended.lines(), ended.code), (vec!["works"], Some(0)));
    for kind in ["joined", "left"] {
        let frame = json_of(&watch.line());
        assert_eq!((&frame["type"], &frame["member"]), (&json!(kind), &json!("bob")));
    }
    assert_eq!(run(&["join", "lobby", "bob", "--", "sh", "-c", "exit 3"]).code, Some(1));
    for kind in ["joined", "left"] {
        assert_eq!(json_of(&watch.line())["type"], json!(kind));
    }
    let missing = run(&["join", "lobby", "bob", "--", "/no/such/command"]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
    for kind in ["joined", "left"] {
        assert_eq!(json_of(&watch.line())["type"], json!(kind));
    }
    // Somebody else takes one out, who does not say so again at once.
    let mut cyd = start(&["join", "lobby", "cyd", "--ttl", "1h"]);
    assert_eq!(cyd.note(), "cyd is in lobby\n");
    assert_eq!(json_of(&watch.line())["type"], json!("joined"));
    assert_eq!(run(&["leave", "lobby", "cyd"]).code, Some(0));
    assert_eq!(json_of(&watch.line())["type"], json!("left"));
    // For people.
    let mut eve = start(&["join", "lobby", "eve", "--ttl", "1h"]);
    assert_eq!(eve.note(), "eve is in lobby\n");
    let mut text = start(&["watch", "lobby"]);
    assert!(text.line().contains("  joined   eve  since 2"));
    assert!(text.line().ends_with("  synced\n"));
    run(&["join", "lobby", "dan", "--", "true"]).lines();
    assert!(text.line().contains("  joined   dan  since 2"));
    assert!(text.line().ends_with("  left     dan  left\n"));
    // What is wrong is told.
    assert_eq!(run(&["join", "lobby", "ann", "--data", "{"]).code, Some(2));
    assert_eq!(run(&["join", "lobby", "ann", "--ttl", "10ms"]).code, Some(2));
    assert!(run(&["join", "lobby", "ann", "--ttl", "48h"]).error(1).contains("`ttl`"));
}
