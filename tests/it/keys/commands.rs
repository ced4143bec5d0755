//! Keys and buckets from the command line.

use serde_json::{Value, json};

use crate::support::process::{Relay, Running};

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
    let put = json_of(
        &run(&["put", "flows", "text", "-t", "high water", "--ttl", "1h", "--owner", "ann", "-o", "json"])
            .stdout,
    );
    assert!(put["expires_at"].as_str() >= told["expires_at"].as_str(), "{put}: {told}");
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
    run(&["put", "flows", "text", "-t", "low water", "--fresh", "30s"]).lines();
    run(&["put", "flows", "text", "-t", "high water", "--ttl", "1h", "--owner", "ann"]).lines();
    let refused = run(&["put", "flows", "x", "1", "--fresh", "4000d"]);
    assert!(refused.error(1).contains("fresh"), "the relay is told of it: {refused:?}");
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

#[test]
fn keys_are_watched_through_a_restart() {
    let relay = Relay::start(&[], &[]);
    let put =
        |key: &str, value: &str| relay.run(&["keys", "put", "flows", key, value], "").lines()[0].to_owned();
    let watch = |arguments: &[&str]| {
        Running::start(&[("TIDEMILL_URL", &relay.url)], &[&["keys", "watch", "flows"], arguments].concat())
    };
    let (first_put, second_put) = (put("a", r#"{"step": 1}"#), put("b", "2"));
    let mut all = watch(&[]);
    let mut json = watch(&["-o", "json", "--prefix", "a"]);
    let mut one = watch(&["--key", "b"]);
    assert_eq!(all.line(), format!("{first_put}  put      a  {{\"step\": 1}}\n"));
    for watch in [&mut all, &mut one] {
        assert_eq!(watch.line(), format!("{second_put}  put      b  2\n"));
        assert_eq!(watch.line(), format!("{second_put}  synced\n"));
    }
    let first = json_of(&json.line());
    assert_eq!(
        (&first["type"], &first["key"], &first["value"]),
        (&json!("put"), &json!("a"), &json!({ "step": 1 }))
    );
    let synced = json_of(&json.line());
    assert_eq!((&synced["type"], &synced["id"]), (&json!("synced"), &json!(second_put)));
    relay.run(&["keys", "put", "flows", "text", "-t", "high\u{1b}[2J water"], "").lines();
    let third = put("a", "3");
    relay.run(&["keys", "delete", "flows", "b"], "").lines();
    let text = all.line();
    assert!(
        text.ends_with("  put      text  (text/plain; charset=utf-8) high\\u001b[2J water\n"),
        "{text:?}"
    );
    assert_eq!(all.line(), format!("{third}  put      a  3\n"));
    assert!(all.line().ends_with("  deleted  b\n"));
    assert!(one.line().ends_with("  deleted  b\n"));
    assert_eq!(json_of(&json.line())["revision"], json!(third));
    // It tells how to go on, and so it does.
    json.interrupt();
    let ended = json.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let again =
        ended.stderr.lines().last().and_then(|line| line.strip_prefix("go on with: ")).expect("a command");
    assert!(again.starts_with("tidemill keys watch flows --prefix=a --after="), "{again}");
    let words: Vec<_> = again.split(' ').skip(1).collect();
    let mut later = Running::start(&[("TIDEMILL_URL", &relay.url)], &words);
    let fourth = put("a", "4");
    assert_eq!(json_of(&later.line())["revision"], json!(fourth));
    // The relay, which kept it in memory, has lost everything.
    let at = relay.address().to_string();
    let (code, _) = relay.stop();
    assert_eq!(code, Some(0));
    assert!(later.note().contains("connecting again"));
    let relay = Relay::start_at(&at, &[], &[]);
    assert_eq!(later.note(), "connected again\n");
    assert_eq!(later.note(), "changes are gone that were not read; everything comes anew\n");
    assert_eq!(json_of(&later.line())["type"], json!("reset"));
    assert_eq!(json_of(&later.line())["type"], json!("synced"));
    // People are told of what is not there any more.
    assert_eq!(all.line(), format!("{fourth}  put      a  4\n"));
    assert_eq!(all.line(), "reset\n");
    for gone in ["  gone     a\n", "  gone     text\n", "  synced\n"] {
        let line = all.line();
        assert!(line.ends_with(gone), "{line}");
    }
    assert_eq!(one.line(), "reset\n");
    let line = one.line();
    assert!(line.ends_with("  synced\n"), "that it is gone was told before: {line}");
    let anew = relay.run(&["keys", "put", "flows", "a", "5"], "").lines()[0].to_owned();
    assert_eq!(json_of(&later.line())["revision"], json!(anew));
    assert_eq!(all.line(), format!("{anew}  put      a  5\n"));
    // What is wrong is told at once.
    let refused = relay.run(&["keys", "watch", "flows", "--prefix", "a b"], "");
    assert!(refused.error(1).contains("`prefix`"), "{refused:?}");
    assert_eq!(relay.run(&["keys", "watch", "flows", "--prefix", "a", "--key", "a"], "").code, Some(2));
    drop(relay);
}

#[test]
fn a_watch_shows_null_and_is_ended_from_elsewhere() {
    let relay = Relay::start(&[], &[]);
    let put = relay.run(&["keys", "put", "flows", "a", "null"], "").lines()[0].to_owned();
    let mut watch = Running::start(&[("TIDEMILL_URL", &relay.url)], &["keys", "watch", "flows"]);
    assert_eq!(watch.line(), format!("{put}  put      a  null\n"));
    assert_eq!(watch.line(), format!("{put}  synced\n"));
    let open = json_of(&relay.run(&["sessions", "list", "-o", "json"], "").stdout);
    let session = open["sessions"][0]["session"].as_str().expect("an id");
    let ended = relay.run(&["sessions", "end", session, "-o", "json"], "");
    assert_eq!(json_of(ended.lines()[0]), json!({ "ended": session }));
    assert!(watch.note().contains("connecting again"));
}
