//! The command line: the real binary, against the relay that the same binary runs.
//!
//! Long because: it has what holds for all commands, with the list of them.

use serde_json::Value;

use crate::support::process::{Ended, Relay, run, run_unread};

#[cfg(feature = "bench")]
mod bench;
#[cfg(feature = "valkey")]
mod copy;
mod copying;
#[cfg(feature = "valkey")]
mod exporting;
mod groups;
mod headers;
mod lines;
mod locks;
mod mistakes;
#[cfg(feature = "valkey")]
mod moving;
#[cfg(feature = "valkey")]
mod relayed;
mod reload;
mod retry;
mod service;
mod settings;
mod tail;
mod topics;
mod work;

/// Real input: 1,707 lines of JSON.
const EARTHQUAKES: &str = include_str!("../../examples/earthquakes.ndjson");

fn json(line: &str) -> Value {
    serde_json::from_str(line).expect("a line of JSON")
}

#[test]
fn a_relay_greets_serves_what_it_greets_with_and_stops() {
    let (printed, greeting) = Relay::greeting(&[]);
    assert_eq!(printed, "", "what it says is for people, on standard error");
    for part in [env!("CARGO_PKG_VERSION"), "in memory", "for 1 day", "gone when the process ends"] {
        assert!(greeting.contains(part), "{part:?} is not in {greeting}");
    }
    let lines: Vec<_> = greeting.lines().filter(|line| line.trim_start().starts_with("curl")).collect();
    let (_, url) = greeting.split_once("listening on").expect("it says where");
    let path = format!("{}/api/v1/topics/demo/messages", url.split_whitespace().next().expect("a URL"));
    // `--json` is unknown to curl before 7.82.
    let publish = format!("curl -H 'content-type: application/json' -d '{{\"hello\":\"tide\"}}' {path}");
    assert_eq!(lines[0].trim(), publish);
    assert_eq!(lines[1].trim(), format!("curl {path}"));

    let relay = Relay::start(&[], &[]);
    let (code, log) = relay.stop();
    assert_eq!(code, Some(0));
    assert_eq!(json(log.lines().last().expect("a log"))["message"], "stopped");
    assert!(log.lines().all(|line| json(line)["level"].is_string()), "logs to a pipe are JSON: {log}");
    assert!(log.contains("SIGTERM"), "{log}");
}

/// What is not logged must not change what is done.
#[test]
fn a_relay_serves_however_little_it_logs() {
    for level in ["warn", "error"] {
        let listen = format!("127.0.0.1:{}", crate::support::server::free_port());
        let relay = Relay::start_at(&listen, &[("LOG_LEVEL", level)], &[]);
        let ready = relay.run(&["health"], "");
        assert_eq!(ready.code, Some(0), "{level}: {ready:?}");
        let (code, log) = relay.stop();
        assert_eq!((code, log.contains("SIGTERM")), (Some(0), false), "{level}: {log}");
    }
}

#[test]
fn every_line_of_a_file_goes_in_and_comes_out() {
    let relay = Relay::start(&[], &[]);
    let published = relay.run(&["publish", "quakes"], EARTHQUAKES);
    let ids = published.lines();
    assert_eq!(ids.len(), 1_707);
    assert_eq!(published.stderr, "1707 published to quakes, 0 refused\n");

    let read = relay.run(&["read", "quakes", "--all", "-o", "json"], "");
    let messages: Vec<Value> = read.lines().into_iter().map(json).collect();
    assert_eq!(messages.len(), 1_707);
    for ((message, id), line) in messages.iter().zip(&ids).zip(EARTHQUAKES.lines()) {
        assert_eq!(message["message_id"], *id);
        assert_eq!(message["payload"], json(line));
    }
    let newest = relay.run(&["read", "quakes", "--limit", "1500"], "");
    let backwards: Vec<&str> = ids.iter().rev().take(1_500).copied().collect();
    let read: Vec<&str> = newest.lines().iter().filter_map(|line| line.split("  ").next()).collect();
    assert_eq!(read, backwards);
}

/// What went in as a file comes out as that file, by either command and in either encoding.
#[test]
fn payloads_come_out_as_they_went_in() {
    let relay = Relay::start(&[], &[]);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let metadata = ["--metadata", r#"{"k": [1]}"#];
    for (topic, kind, more, bytes) in [
        ("json", None, &[][..], &b" {\"a\":\r\n1.10}\n\n"[..]),
        ("json-about", None, &metadata, b"\t[1]\n"),
        ("bytes", Some("image/png"), &[], b"\x89PNG\r\n\x1a\n\0\xff"),
        ("bytes-about", Some("image/png"), &metadata, b"\0\xff\n"),
        ("text", Some("text/plain"), &[], "caf\u{e9}\n\n".as_bytes()),
        ("events", Some("application/cloudevents+json"), &[], b"{}\n"),
        ("empty", Some("text/plain"), &[], b""),
    ] {
        let file = folder.path().join(topic);
        std::fs::write(&file, bytes).expect("the folder is ours");
        let file = file.to_str().expect("a path in UTF-8");
        let kind: Vec<_> = kind.iter().flat_map(|kind| ["--content-type", kind]).collect();
        let published = relay.run(&[&["publish", topic, "--file", file], &kind[..], more].concat(), "");
        assert_eq!(published.lines().len(), 1, "{topic}: {published:?}");
        // A line end follows JSON, and nothing else.
        let is_json = topic.starts_with("json") || topic == "events";
        let expected = [bytes, if is_json { b"\n" } else { b"" }].concat();
        let tail = ["tail", topic, "--after", "earliest", "-n", "1", "-o", "raw", "--encoding"];
        for command in [
            &["read", topic, "-o", "raw"][..],
            &[&tail[..], &["json"]].concat(),
            &[&tail[..], &["binary"]].concat(),
        ] {
            assert_eq!(relay.run_for_bytes(command), expected, "{command:?}");
        }
        let message = json(relay.run(&["read", topic, "-o", "json"], "").lines()[0]);
        assert_eq!(message.get("metadata").is_some(), !more.is_empty(), "{message}");
    }
    // Of lines, all but the line end is the payload.
    relay.run(&["publish", "lines"], "1 \r\n\t[2]\n\n3").lines();
    assert_eq!(relay.run_for_bytes(&["read", "lines", "--all", "-o", "raw"]), b"1 \n\t[2]\n3\n");
}

#[test]
fn a_publish_follows_the_message_that_it_names() {
    let relay = Relay::start(&[], &[]);
    let first = relay.run(&["publish", "t", "1", "--expected-last", "0-0"], "");
    let id = first.lines()[0].to_owned();
    let refused = relay.run(&["publish", "t", "2", "--expected-last", "0-0"], "");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&id), "{refused:?}");
    let metadata = ["publish", "t", "2", "--metadata", "{}", "--expected-last", &id];
    assert_eq!(relay.run(&metadata, "").lines().len(), 1);
    let lines = relay.run(&["publish", "t", "--expected-last", &id], "3\n");
    assert!(lines.stderr.contains("is for one payload"), "{lines:?}");
    assert_eq!(relay.run(&["read", "t"], "").lines().len(), 2);
}

#[test]
fn a_publish_has_the_order_key_that_it_names() {
    let relay = Relay::start(&[], &[]);
    let key = ["--order-key", "a \u{e9}"];
    for (arguments, input) in [
        (&["publish", "t", "1"][..], ""),
        (&["publish", "t", "1", "--metadata", "{}"], ""),
        (&["publish", "t"], "1\n"),
    ] {
        relay.run(&[arguments, &key].concat(), input).lines();
        let read = relay.run(&["read", "t", "-o", "json"], "");
        assert_eq!(json(read.lines()[0])["order_key"], "a \u{e9}", "{arguments:?}");
    }
    let refused = relay.run(&["publish", "t", "1", "--order-key", ""], "");
    assert!(refused.code == Some(2) && refused.stderr.contains("--order-key"), "{refused:?}");
}

#[test]
fn a_publish_is_unique_in_the_group_that_it_names() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["groups", "create", "t", "g"], "").lines();
    let first = relay.run(&["publish", "t", "1", "--unique", "g/k"], "");
    for more in [&[][..], &["--metadata", "{}"]] {
        let again = relay.run(&[&["publish", "t", "2", "--unique", "g/k"], more].concat(), "");
        assert_eq!(again.lines(), first.lines(), "{more:?}");
    }
    let lines = relay.run(&["publish", "t", "--unique", "g/k"], "3\n");
    assert!(lines.stderr.contains("is for one payload"), "{lines:?}");
    let absent = relay.run(&["publish", "t", "1", "--unique", "h/k"], "");
    assert!(
        absent.code == Some(1) && absent.stderr.contains("no group of the name in `unique`"),
        "{absent:?}"
    );
    for wrong in ["g", "a.b/k"] {
        assert_eq!(relay.run(&["publish", "t", "1", "--unique", wrong], "").code, Some(2), "{wrong}");
    }
    assert_eq!(relay.run(&["read", "t"], "").lines().len(), 1);
}

#[test]
fn a_quiet_publish_tells_what_went_wrong_alone() {
    let relay = Relay::start(&[], &[]);
    for (arguments, input, code, told) in [
        (&["publish", "t", "1", "--quiet"][..], "", 0, ""),
        (&["publish", "t", "-q", "-o", "json"], "1\n2\n", 0, ""),
        (&["publish", "t", "-q"], "1\nx\n", 1, "line 2: not JSON"),
    ] {
        let ended = relay.run(arguments, input);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.starts_with(told) && ended.stderr.is_empty() == told.is_empty(), "{ended:?}");
    }
    assert_eq!(relay.run(&["read", "t"], "").lines().len(), 4);
}

#[test]
fn topics_are_listed_with_what_they_hold() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["publish", "full"], "1\n2\n3\n").lines();
    relay.run(&["topics", "create", "empty"], "").lines();
    relay.run(&["publish", "stats"], "1\n").lines();
    let listed = relay.run(&["topics"], "");
    let rows: Vec<Vec<_>> = listed
        .lines()
        .iter()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(rows[0][..3], ["TOPIC", "LENGTH", "AGE"]);
    assert_eq!(rows[1][..3], ["empty", "0", "-"]);
    assert_eq!(rows[2][..2], ["full", "3"]);
    assert!(rows[2][2].ends_with(" s"), "{rows:?}");
    assert_eq!(rows[3][..3], ["stats", "-", "-"], "its path is that of the counts");
    let details = relay.run(&["topics", "-o", "json"], "");
    let lengths: Vec<_> = details.lines().into_iter().map(|line| json(line)["length"].clone()).collect();
    assert_eq!(lengths, [0.into(), 3.into(), Value::Null]);
}

#[test]
fn a_read_tells_of_messages_that_are_gone() {
    let relay = Relay::start(&[], &[]);
    let published = relay.run(&["publish", "t"], "1\n2\n3\n4\n");
    let ids = published.lines();
    relay.run(&["trim", "t", "--keep", "1"], "").lines();
    for place in [["--after", ids[0], "--limit=9"], ["--cursor", ids[0], "--order=asc"]] {
        let read = |form| relay.run(&[&["read", "t", "-o", form][..], &place].concat(), "");
        let told = format!("gap: messages of t between {} and {} are gone (trimmed)\n", ids[0], ids[3]);
        let text = read("text");
        assert_eq!(text.stderr, told);
        assert_eq!(text.lines().len(), 1);
        let lines = read("json");
        assert_eq!(lines.stderr, told);
        let [gap, message]: [&str; 2] = lines.lines().try_into().expect("two lines");
        let (gap, message) = (json(gap), json(message));
        assert_eq!((&gap["type"], &gap["from"], &gap["to"]), (&"gap".into(), &ids[0].into(), &ids[3].into()));
        assert_eq!(message["payload"], 4);
    }
    let kept = relay.run(&["read", "t", "--after", ids[3]], "");
    assert_eq!((kept.lines().len(), kept.stderr.as_str()), (0, ""));
}

#[test]
fn a_read_that_stops_before_the_end_says_so() {
    let relay = Relay::start(&[], &[]);
    let published = relay.run(&["publish", "t"], "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n");
    let ids = published.lines();
    let told = |arguments: &[&str]| {
        let ended = relay.run(&[&["read", "t"][..], arguments].concat(), "");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stderr
    };
    assert_eq!(told(&["--after=-1h"]), format!("more follow; add --all, or go on with --after {}\n", ids[9]));
    assert_eq!(
        told(&["--after", ids[9], "-n", "1"]),
        format!("more follow; add --all, or go on with --after {}\n", ids[10])
    );
    let older =
        format!("older ones follow; go on with --cursor {}, or read all, oldest first, with --all\n", ids[2]);
    assert_eq!(told(&[]), older);
    for arguments in [
        &["--after", ids[9], "-n", "2"][..],
        &["--all"],
        &["--after=-1h", "--all"],
        &["-n", "3"],
        &["--cursor", ids[5]],
    ] {
        assert_eq!(told(arguments), "", "{arguments:?}");
    }
}

#[test]
fn a_message_is_published_in_every_form() {
    let relay = Relay::start(&[], &[]);
    let ok = |arguments: &[&str]| assert_eq!(relay.run(arguments, "").lines().len(), 1, "{arguments:?}");
    ok(&["publish", "t", r#"{"n": 1.10}"#, "--metadata", r#"{"a":"b"}"#, "--ttl", "1000s"]);
    ok(&["publish", "t", "-5"]);
    ok(&["publish", "t", "--text", "the \"tide\"\u{1b}[2J"]);
    ok(&["publish", "t", "--file", "Cargo.toml", "--content-type", "text/plain"]);
    let answer = relay.run(&["publish", "t", "null", "-o", "json"], "");
    assert_eq!(json(answer.lines()[0])["topic"], "t");

    let read = relay.run(&["read", "t", "--order", "asc", "-o", "json"], "");
    let lines = read.lines();
    assert!(lines[0].contains(r#""payload":{"n": 1.10}"#), "byte for byte: {}", lines[0]);
    assert_eq!(json(lines[0])["metadata"]["a"], "b");
    assert_eq!(json(lines[1])["payload"], -5);
    assert_eq!(json(lines[2])["payload"], "the \"tide\"\u{1b}[2J");
    assert_eq!(json(lines[3])["content_type"], "text/plain");
    assert_eq!(lines.len(), 5);

    let text = relay.run(&["read", "t", "--order", "asc"], "");
    assert!(!text.stdout.contains('\u{1b}'), "nothing reaches the terminal unescaped");
    assert!(text.lines()[3].contains("(text/plain) [workspace]"), "{}", text.stdout);
}

#[test]
fn an_idempotency_key_keeps_one_copy() {
    let relay = Relay::start(&[], &[]);
    let publish = |payload| relay.run(&["publish", "t", payload, "--key", "k"], "");
    assert_eq!(publish("1").lines(), publish("1").lines());
    assert!(publish("2").error(1).contains("(code key_reused, request id "));
    let lines = |_| relay.run(&["publish", "t", "--key", "l"], "1\n2\n").stdout;
    let both: Vec<String> = (0..2).map(lines).collect();
    assert_eq!(both[0], both[1]);
    assert_eq!(relay.run(&["read", "t"], "").lines().len(), 3);
}

#[test]
fn lines_that_are_no_payload_are_named_and_the_others_kept() {
    let relay = Relay::start(&[], &[]);
    let ended = relay.run(&["publish", "t"], "1\nhello\n\r\n{\"a\":\n[2]\r\n");
    assert_eq!(ended.code, Some(1));
    let errors: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(errors[0], "line 2: not JSON (expected value at column 1); publish text with --text");
    assert!(errors[1].starts_with("line 4: not JSON") && !errors[1].contains("line 1"), "{errors:?}");
    assert_eq!(errors[2], "2 published to t, 2 refused");
    assert_eq!(relay.run(&["publish", "t", "--text"], "hello\n\n{\n").lines().len(), 2);
    assert_eq!(relay.run(&["read", "t"], "").lines().len(), 4);
}

#[test]
fn input_that_is_not_understood_ends_with_2_and_says_what_to_write() {
    let unreachable = [("TIDEMILL_URL", "http://127.0.0.1:1")];
    let cases: [(&[&str], &[&str]); 8] = [
        (&["publish", "t", "hello"], &["not JSON", "'\"text\"'", "--text"]),
        (&["publish", "t", "1", "--metadata", "[1]"], &["--metadata is not a JSON object"]),
        (&["publish", "t", "--content-type", "a/b"], &["--content-type is for one payload"]),
        (&["publish", "t", "--file", "/does/not/exist"], &["/does/not/exist cannot be read"]),
        (&["read", "t", "--after=-1h", "--order", "desc"], &["--after reads forward"]),
        (&["topics", "delete", "t"], &["add --yes"]),
        (&["topics", "--url", "localhost:8080"], &["(from flag --url)", "http://host:port"]),
        (&["topics", "--url", "http://h/?a=b"], &["has a query"]),
    ];
    for (arguments, parts) in cases {
        let ended = run(&unreachable, arguments, "");
        for part in parts {
            assert!(ended.error(2).contains(part), "{part:?} is not in {ended:?}");
        }
    }
    for arguments in [
        &["read", "a/b"][..],
        &["read", "t", "--after", "yesterday"],
        &["read", "t", "--limit", "0"],
        &["trim", "t"],
        &["trim", "t", "--keep", "1", "--before=-1h"],
        &["publish", "t", "1", "--ttl", "0"],
        &["serve", "--listen", "80"],
        &["unknown"],
    ] {
        let ended = run(&unreachable, arguments, "");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    }
}

#[test]
fn problems_and_absent_relays_are_one_line() {
    let relay = Relay::start(&[], &[]);
    let missing = relay.run(&["read", "nope"], "");
    let error = missing.error(1);
    assert!(error.contains("`nope`") && error.contains("(code topic_not_found, request id "), "{error}");
    let absent = run(&[("TIDEMILL_URL", "http://user:h3cret@127.0.0.1:1")], &["publish", "t", "1"], "");
    let error = absent.error(1);
    assert!(error.contains("cannot reach a relay at http://127.0.0.1:1 "), "{error}");
    assert!(error.contains("tidemill serve") && !error.contains("h3cret"), "{error}");
}

#[test]
fn topics_are_listed_shown_made_trimmed_and_deleted() {
    let relay = Relay::start(&[], &[]);
    let create =
        ["topics", "create", "orders", "--description", "what was sold", "--retention-seconds", "1m"];
    assert_eq!(relay.run(&create, "").lines(), ["created orders"]);
    assert!(relay.run(&create, "").error(1).contains("(code topic_exists"));
    relay.run(&["publish", "orders"], "1\n2\n3\n").lines();
    relay.run(&["publish", "log", "1"], "").lines();

    let list = relay.run(&["topics"], "");
    let lines = list.lines();
    assert!(
        lines[0].starts_with("TOPIC ") && lines[1].starts_with("log ") && lines[2].starts_with("orders ")
    );
    assert!(lines[2].ends_with("60 s       what was sold"), "{lines:?}");
    let list = relay.run(&["topics", "list", "-o", "json"], "");
    assert_eq!(
        list.lines().iter().map(|line| json(line)["topic_name"].clone()).collect::<Vec<_>>(),
        ["log", "orders"]
    );
    let shown = relay.run(&["topics", "show", "orders", "-o", "json"], "");
    assert_eq!(json(shown.lines()[0])["length"], 3);
    assert!(relay.run(&["topics", "show", "orders"], "").stdout.contains("messages     3\n"));

    let first =
        json(relay.run(&["topics", "show", "orders", "-o", "json"], "").lines()[0])["first_id"].clone();
    let first = first.as_str().expect("an id");
    assert_eq!(relay.run(&["trim", "orders", "--message", first], "").lines(), ["removed 1 message"]);
    assert!(relay.run(&["trim", "orders", "--message", first], "").error(1).contains("message_not_found"));
    assert_eq!(relay.run(&["trim", "orders", "--keep", "1"], "").lines(), ["removed 1 message"]);
    let trimmed = relay.run(&["trim", "orders", "--before=-0s", "-o", "json"], "");
    assert!(json(trimmed.lines()[0])["removed"].as_u64() <= Some(1));
    assert_eq!(relay.run(&["topics", "delete", "orders", "--yes"], "").lines(), ["deleted orders"]);
    assert!(relay.run(&["read", "orders"], "").error(1).contains("topic_not_found"));
}

#[test]
fn a_list_of_more_than_one_page_is_followed_to_its_end() {
    let relay = Relay::start(&[], &[]);
    let topics = 2_100;
    // One request per topic would take long; one bulk publish per thousand does not.
    let client = reqwest::Client::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for first in (0..topics).step_by(1_000) {
        let message = |at| serde_json::json!({ "topic": format!("t{at:04}"), "payload": 1 });
        let messages: Vec<Value> = (first..topics.min(first + 1_000)).map(message).collect();
        let url = format!("{}/api/v1/messages/bulk", relay.url);
        let request = client.post(url).json(&serde_json::json!({ "messages": messages }));
        assert_eq!(runtime.block_on(request.send()).expect("an answer").status(), 207);
    }
    let list = relay.run(&["topics", "-o", "json"], "");
    let names: Vec<String> = list.lines().iter().map(|line| json(line)["topic_name"].to_string()).collect();
    let expected: Vec<String> = (0..topics).map(|at| format!("\"t{at:04}\"")).collect();
    assert_eq!(names, expected);
}

#[test]
fn health_tells_by_its_exit_status_and_finds_its_relay() {
    let relay = Relay::start(&[], &[]);
    let health = relay.run(&["health"], "");
    assert!(health.lines()[0].starts_with("healthy: version"), "{health:?}");
    // Which server has been asked is not plain where an environment names it.
    assert!(health.lines()[0].ends_with(&format!(", at {}", relay.url)), "{health:?}");
    assert_eq!(relay.run(&["health", "--ready"], "").lines(), [format!("ready: at {}", relay.url)]);
    let json_health = relay.run(&["health", "-o", "json"], "");
    assert_eq!(json(json_health.lines()[0])["backend"]["kind"], "memory");
    let port = relay.url.rsplit(':').next().expect("a port");
    let listen = format!("0.0.0.0:{port}");
    assert_eq!(
        run(&[("TIDEMILL_LISTEN", &listen)], &["health", "--ready"], "").lines(),
        [format!("ready: at {}", relay.url)]
    );
    assert!(run(&[("TIDEMILL_LISTEN", "127.0.0.1:1")], &["health"], "").error(1).contains("cannot reach"));
}

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    for arguments in [&["config", "show"][..], &["config", "init"], &["completions", "bash"]] {
        assert_eq!(run_unread(arguments), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn an_address_that_is_taken_is_an_error_with_its_reason() {
    let relay = Relay::start(&[], &[]);
    let address = relay.url.trim_start_matches("http://");
    let ended = run(&[], &["serve", "--listen", address], "");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&format!("cannot listen on {address}: ")), "{}", ended.stderr);
}

#[test]
fn help_and_completions_cover_every_command() {
    let commands = [
        "serve",
        "doctor",
        "publish",
        "read",
        "tail",
        "topics",
        "trim",
        "lock",
        "locks",
        "work",
        "groups",
        "claim",
        "ack",
        "nack",
        "extend",
        "reject",
        "release",
        "dead",
        "why",
        "config",
        "health",
        "completions",
    ];
    let help = run(&[], &["--help"], "");
    for command in commands {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command}");
        let own = run(&[], &[command, "--help"], "");
        assert!(own.lines().contains(&"Examples:"), "{command}");
        assert!(!own.stdout.contains("arguments of `tidemill"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script: Ended = run(&[], &["completions", shell], "");
        assert!(commands.iter().all(|command| script.stdout.contains(command)), "{shell}");
    }
}
