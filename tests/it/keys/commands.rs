//! Keys and buckets from the command line.

use serde_json::{Value, json};

use crate::support::process::Relay;

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn keys_are_put_got_listed_and_deleted() {
    let relay = Relay::start(&[], &[]);
    let run = |arguments: &[&str]| relay.run(&[&["keys"], arguments].concat(), "");
    let first = run(&["put", "flows", "a", r#"{"step": 3}"#]).lines()[0].to_owned();
    assert_eq!(run(&["get", "flows", "a"]).stdout, r#"{"step": 3}"#, "byte for byte");
    let told = json_of(&run(&["get", "flows", "a", "-o", "json"]).stdout);
    assert_eq!((&told["value"], &told["revision"]), (&json!({ "step": 3 }), &json!(first)));
    assert!(told["created_at"].is_string() && told.get("expires_at").is_none(), "{told}");
    // Conditions.
    let refused = run(&["put", "flows", "a", "1", "--if-absent"]);
    assert!(refused.error(1).contains(&first), "it names the revision that there is: {refused:?}");
    let second = run(&["put", "flows", "a", "4", "--if-match", &first]).lines()[0].to_owned();
    assert!(run(&["put", "flows", "a", "5", "--if-match", &first]).error(1).contains(&second));
    assert!(run(&["delete", "flows", "a", "--if-match", &first]).error(1).contains(&second));
    // Other values.
    run(&["put", "flows", "text", "-t", "high water", "--ttl", "1h", "--owner", "ann"]);
    assert_eq!(run(&["get", "flows", "text"]).stdout, "high water");
    let told = json_of(&run(&["get", "flows", "text", "-o", "json"]).stdout);
    assert_eq!((&told["value_text"], &told["owner"]), (&json!("high water"), &json!("ann")));
    assert!(told["expires_at"].is_string(), "{told}");
    let piped = relay.run(&["keys", "put", "flows", "lines", "--content-type", "text/csv"], "a,b\n1,2\n");
    assert_eq!(piped.code, Some(0), "{piped:?}");
    assert_eq!(run(&["get", "flows", "lines"]).stdout, "a,b\n1,2\n");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("tide.png");
    let bytes: Vec<u8> = (0..=255).collect();
    std::fs::write(&file, &bytes).expect("the folder is ours");
    let file = file.to_str().expect("a path in UTF-8");
    run(&["put", "flows", "picture", "-f", file, "--content-type", "image/png"]).lines();
    assert_eq!(relay.run_for_bytes(&["keys", "get", "flows", "picture"]), bytes);
    assert!(run(&["put", "flows", "x", "high water"]).error(2).contains("--text"));
    // Lists.
    let listed = run(&["list", "flows"]);
    let names: Vec<_> = listed.lines()[1..].iter().map(|line| line.split(' ').next()).collect();
    assert_eq!(names, [Some("a"), Some("lines"), Some("picture"), Some("text")]);
    let valued = run(&["list", "flows", "--prefix", "te", "--values"]);
    assert!(valued.lines()[1].contains("high water") && valued.lines().len() == 2, "{valued:?}");
    let first_line = json_of(run(&["list", "flows", "--values", "-o", "json"]).lines()[0]);
    assert_eq!((&first_line["key"], &first_line["value"]), (&json!("a"), &json!(4)));
    // A number.
    assert_eq!(run(&["increment", "flows", "n"]).lines(), ["1"]);
    assert_eq!(run(&["increment", "flows", "n", "41", "--max", "42"]).lines(), ["42"]);
    assert!(run(&["increment", "flows", "n", "--max", "42"]).error(1).contains("42"));
    assert_eq!(run(&["increment", "flows", "n", "-2", "--min", "0"]).lines(), ["40"]);
    // Times.
    assert!(run(&["touch", "flows", "text", "--ttl", "2h"]).lines()[0].starts_with("text lives until 2"));
    assert_eq!(run(&["touch", "flows", "a"]).lines(), ["a lives on for ever"]);
    assert!(run(&["touch", "flows", "none"]).error(1).contains("key_not_found"));
    // The end.
    assert_eq!(run(&["delete", "flows", "a"]).lines(), ["deleted a"]);
    for arguments in [["delete", "flows", "a"], ["get", "flows", "a"], ["history", "flows", "a"]] {
        assert!(run(&arguments).error(1).contains("no key `a`"), "{arguments:?}");
    }
    assert_eq!(run(&["get", "flows", "a/b"]).code, Some(2));
}

#[test]
fn buckets_are_made_shown_listed_and_deleted() {
    let relay = Relay::start(&[], &[]);
    let run = |arguments: &[&str]| relay.run(arguments, "");
    let put = ["buckets", "put", "sessions", "--history", "2", "--ttl", "30m", "--absolute-age", "12h"];
    assert_eq!(run(&put).lines(), ["made sessions"]);
    assert_eq!(run(&["buckets", "put", "sessions", "--history", "3"]).lines(), ["changed sessions"]);
    assert!(run(&["buckets", "put", "sessions", "--history", "65"]).error(1).contains("`history`"));
    let revisions: Vec<_> = ["1", "2"]
        .map(|value| {
            let put = run(&["keys", "put", "sessions", "s1", value, "--owner", "ann"]);
            put.lines()[0].to_owned()
        })
        .into();
    let history = run(&["keys", "history", "sessions", "s1"]);
    assert!(history.lines()[1].contains(&revisions[1]) && history.lines()[2].contains(&revisions[0]));
    assert_eq!(run(&["keys", "get", "sessions", "s1", "--revision", &revisions[0]]).stdout, "1");
    let shown = run(&["buckets", "show", "sessions"]);
    let rows: Vec<Vec<_>> = shown.lines().iter().map(|line| line.split_whitespace().collect()).collect();
    for row in [["keys", "1"], ["bytes", "2"], ["history", "3"], ["ttl", "-"]] {
        assert!(rows.iter().any(|of| of[..] == row), "{shown:?}");
    }
    let listed = run(&["buckets"]);
    assert!(listed.lines()[1].starts_with("sessions "), "{listed:?}");
    assert_eq!(json_of(run(&["buckets", "list", "-o", "json"]).lines()[0])["keys"], json!(1));
    assert_eq!(run(&["buckets", "revoke", "sessions", "ann"]).lines(), ["revoked 1"]);
    assert!(run(&["buckets", "show", "none"]).error(1).contains("`none` does not exist"));
    assert_eq!(run(&["buckets", "delete", "sessions", "--yes"]).lines(), ["deleted sessions"]);
    assert_eq!(run(&["buckets"]).lines().len(), 1);
}
