//! `tidemill tail`: the real binary, against the relay that the same binary runs.

use serde_json::Value;

use super::json;
use crate::client::stub::{Act, Stub};
#[cfg(feature = "valkey")]
use crate::support::process::number_lines;
use crate::support::process::{Relay, Running, run, run_line};
#[cfg(feature = "valkey")]
use crate::support::server::{Kind, Server};

impl Relay {
    fn tail(&self, arguments: &[&str]) -> Running {
        let arguments: Vec<&str> = ["tail"].iter().chain(arguments).copied().collect();
        Running::start(&[("TIDEMILL_URL", &self.url)], &arguments)
    }
}

#[test]
fn messages_are_printed_in_every_form_and_by_either_encoding() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["publish", "t", r#"{"n": 1.10}"#, "--metadata", r#"{"a":"b"}"#], "").lines();
    relay.run(&["publish", "t", "--text", "the \"tide\"\u{1b}[2J"], "").lines();
    relay.run(&["publish", "t", "--file", "clippy.toml", "--content-type", "text/plain"], "").lines();
    let read = relay.run(&["read", "t", "--all", "-o", "json"], "");
    let messages: Vec<Value> = read.lines().into_iter().map(json).collect();
    for encoding in ["json", "binary"] {
        let tail = |form| {
            let arguments =
                ["tail", "t", "--after", "earliest", "--limit", "3", "-o", form, "--encoding", encoding];
            let ended = relay.run(&arguments, "");
            let newest = messages[2]["message_id"].as_str().expect("an id");
            let output = if form == "text" { String::new() } else { format!(" --output={form}") };
            let encoding = if encoding == "json" { "" } else { " --encoding=binary" };
            let resume = format!("go on with: tidemill tail t --after={newest}{output}{encoding}\n");
            assert_eq!(ended.stderr, resume);
            ended
        };
        let text = tail("text");
        for (line, message) in text.lines().iter().zip(&messages) {
            let start = format!("{}  t  {}  ", message["timestamp"], message["message_id"]).replace('"', "");
            assert!(line.starts_with(&start), "{line:?} does not start with {start:?}");
        }
        assert!(text.lines()[0].ends_with(r#"{"n": 1.10}"#), "{}", text.stdout);
        assert!(text.lines()[2].contains("(text/plain) avoid-breaking"), "{}", text.stdout);
        assert!(!text.stdout.contains('\u{1b}'), "nothing reaches the terminal unescaped");

        let frames = tail("json");
        for (line, message) in frames.lines().into_iter().zip(&messages) {
            let mut expected = message.clone();
            expected["type"] = "message".into();
            assert_eq!(json(line), expected);
            assert!(line.starts_with(r#"{"type":"message","message_id":""#), "{line}");
        }
        let raw = tail("raw");
        let file = include_str!("../../../clippy.toml");
        assert_eq!(raw.stdout, format!("{{\"n\": 1.10}}\n\"the \\\"tide\\\"\\u001b[2J\"\n{file}"));
    }
}

#[test]
fn a_gap_is_told_to_people_and_to_programs() {
    let relay = Relay::start(&[], &[]);
    let published = relay.run(&["publish", "t"], "1\n2\n3\n4\n");
    let ids = published.lines();
    relay.run(&["trim", "t", "--keep", "1"], "").lines();
    let tail = |form| relay.run(&["tail", "t", "--after", ids[0], "--limit", "1", "-o", form], "");
    for form in ["text", "raw", "json"] {
        let ended = tail(form);
        let lines = ended.lines();
        let note = ended.stderr.lines().next().expect("a note");
        assert!(note.starts_with("gap: ") && note.ends_with("are gone (trimmed)"), "{note}");
        assert!(note.contains(&format!("of t between {} and {}", ids[0], ids[3])), "{note}");
        if form == "json" {
            assert_eq!((&json(lines[0])["type"], &json(lines[1])["payload"]), (&"gap".into(), &4.into()));
        } else {
            assert_eq!(lines.len(), 1);
        }
    }
}

#[test]
fn several_topics_begin_each_where_it_is_told() {
    let relay = Relay::start(&[], &[]);
    let a = relay.run(&["publish", "a"], "1\n2\n");
    relay.run(&["publish", "b:c"], "3\n4\n").lines();
    let after = format!("a={}", a.lines()[0]);
    let arguments = ["tail", "a", "b:c", "a", "--after=-1h", "--after", &after, "--limit=3", "-o=raw"];
    let ended = relay.run(&arguments, "");
    let mut lines = ended.lines();
    lines.sort_unstable();
    assert_eq!(lines, ["2", "3", "4"]);
    let newest = a.lines()[1];
    assert!(
        ended.stderr.starts_with(&format!("go on with: tidemill tail a b:c --after=a={newest} --after=b:c=")),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_topic_that_does_not_exist_is_waited_for_and_said() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["publish", "there", "1"], "").lines();
    let mut tail = relay.tail(&["later", "there", "-n", "1", "-o", "raw"]);
    assert_eq!(tail.note(), "there is no topic later yet; waiting for it\n");
    relay.run(&["publish", "later", "2"], "").lines();
    let ended = tail.end();
    assert_eq!(ended.lines(), ["2"]);
    assert!(ended.stderr.starts_with("go on with: "), "{}", ended.stderr);
}

#[test]
fn what_cannot_be_tailed_is_one_line() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["publish", "t", "1"], "").lines();
    let missing = relay.run(&["tail", "t", "nope", "no*", "t*", "neither", "--must-exist"], "");
    assert_eq!(
        missing.error(1),
        "topic `neither` does not exist, topic `nope` does not exist, no topic matches `no*` (code topic_not_found)"
    );
    let absent = run(&[("TIDEMILL_URL", "http://user:h3cret@127.0.0.1:1")], &["tail", "t"], "");
    let error = absent.error(1);
    assert!(error.contains("cannot reach a relay at http://127.0.0.1:1 "), "{error}");
    assert!(!error.contains("h3cret"), "{error}");
    for (arguments, part) in [
        (&["tail", "t", "--after=u=1-0"][..], "names u, which is not among the topics"),
        (&["tail", "t", "--after=1-0", "--after=2-0"], "stands once"),
        (&["tail", "t", "--after=t*=p1.A"], "names t*, which is not among the topics"),
        (&["tail", "t", "t*", "--after=p1.A"], "the topic t cannot start at the cursor of a pattern"),
        (&["tail", "t*", "--after=1-0"], "the pattern t* cannot start at the message id 1-0"),
        (&["tail", "t", "--url=localhost:1"], "http://host:port"),
        (&["tail", "t", "--url=http://h:1/ws"], "the URL is that of the relay, without it"),
        (&["read", "t", "--url=http://h:1/api/v1/topics"], "the URL is that of the relay, without it"),
    ] {
        assert!(run(&[], arguments, "").error(2).contains(part), "{arguments:?}");
    }
    for arguments in [
        &["tail"][..],
        &["tail", "t", "--after=soon"],
        &["tail", "t", "--after=a/b=1-0"],
        &["tail", "t*", "--after=p1.=A"],
        &["tail", "t*", "--after=t*=p1."],
        &["tail", "*********"],
    ] {
        let ended = run(&[], arguments, "");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    }
}

#[test]
fn the_command_to_go_on_with_goes_on_at_the_same_relay() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["publish", "t"], "1\n2\n").lines();
    let url = format!("--url={}", relay.url);
    let arguments =
        ["tail", "t", "--after", "earliest", "-n1", "-o", "json", &url, "--header", "X-Team: a b"];
    // Nothing around it says where the relay is.
    let ended = run(&[], &arguments, "");
    assert_eq!(ended.lines().len(), 1);
    let [hidden, resume]: [&str; 2] = ended.stderr.lines().collect::<Vec<_>>().try_into().expect("two lines");
    assert_eq!(hidden, "what may be a secret is left out: put the values of headers in place of `…`");
    let resume = resume.strip_prefix("go on with: tidemill ").expect("a command");
    let told = resume.strip_suffix(" --header='x-team: …' --output=json").expect("with its flags");
    assert!(told.ends_with(&url), "{resume}");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    assert_eq!(run_line(&format!("tidemill {told} -n1 -o raw"), folder.path()).lines(), ["2"]);
}

#[test]
fn a_pattern_that_matches_nothing_yet_is_said() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["publish", "earthquakes", "1"], "").lines();
    let mut tail = relay.tail(&["earthquakes.*", "earth*", "-n", "1", "-o", "raw"]);
    assert_eq!(tail.note(), "no topic matches `earthquakes.*` yet; waiting for one\n");
    relay.run(&["publish", "earthquakes.eu", "2"], "").lines();
    assert_eq!(tail.end().lines(), ["2"]);
}

#[test]
fn a_relay_without_tls_is_said() {
    let relay = Relay::start(&[], &[]);
    let url = relay.url.replace("http://", "https://");
    for arguments in [&["publish", "t", "1"][..], &["publish", "t"], &["tail", "t"], &["read", "t"]] {
        let ended = run(&[("TIDEMILL_URL", &url)], arguments, "1\n");
        assert!(ended.error(1).contains("(it speaks no TLS: write http://)"), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn topics_of_a_pattern_are_followed_with_those_that_come() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["publish", "o.a", "1"], "").lines();
    relay.run(&["publish", "other", "1"], "").lines();
    let mut tail = relay.tail(&["o.*", "--after", "earliest", "-n", "2"]);
    assert!(tail.line().contains("Z  o.a  "));
    relay.run(&["publish", "o.b", "2"], "").lines();
    let ended = tail.end();
    assert!(ended.lines()[0].contains("Z  o.b  "), "{}", ended.stdout);
    assert!(ended.stderr.starts_with("go on with: tidemill tail 'o.*' --after=p1."), "{}", ended.stderr);
    let refused = relay.run(&["tail", "o.*", "--after=p1.AAAA"], "");
    assert!(refused.error(1).contains("cursor"), "{}", refused.stderr);
}

/// In a folder whose files the patterns match, too, for a shell would put their names in place of a pattern.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_are_followed_and_gone_on_with_by_a_shell() {
    let stub = Stub::start(vec![
        vec![
            Act::MessageOf("o.a", 1),
            Act::Cursor("o.*", "p1.A"),
            Act::Cursor("*", "p1.B"),
            Act::MessageOf("t", 2),
            Act::Message(3),
        ],
        vec![Act::MessageOf("o.b", 4)],
        vec![Act::MessageOf("o.a", 1), Act::Cursor("o.*", "p1.C"), Act::MessageOf("o.b", 2)],
        vec![Act::MessageOf("o.c", 3)],
    ])
    .await;
    tokio::task::block_in_place(|| {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for name in ["o.x", "--after=o.*=p1.x", "--after=*=latest"] {
            std::fs::write(folder.path().join(name), "").expect("the folder is ours");
        }
        let resume = |line: &str, expected: &[&str]| {
            let ended = run_line(line, folder.path());
            let words = |line: &&str| line.split("  ").skip(1).collect::<Vec<_>>().join(" ");
            assert_eq!(ended.lines().iter().map(words).collect::<Vec<_>>(), expected);
            ended.stderr.trim().strip_prefix("go on with: ").expect("a command").to_owned()
        };
        let url = format!("--url=http://127.0.0.1:{}", stub.port());
        let line = format!("tidemill tail 'o.*' t '*' --after='o.*=p1.0' --after=-10m --limit=3 {url}");
        let told = resume(&line, &["o.a 1-0 1", "t 2-0 2", "t 3-0 3"]);
        // Where a pattern covers it, too, messages that came once may be those of the pattern.
        let after = "--after=t=0-0";
        assert_eq!(
            told,
            format!("tidemill tail t '*' 'o.*' {after} --after='*=p1.B' --after='o.*=p1.A' {url}")
        );
        resume(&format!("{told} -n1"), &["o.b 4-0 4"]);
        let told = resume(&format!("tidemill tail 'o.*' {url} -n2"), &["o.a 1-0 1", "o.b 2-0 2"]);
        assert_eq!(told, format!("tidemill tail 'o.*' --after=p1.C {url}"));
        resume(&format!("{told} -n 1"), &["o.c 3-0 3"]);
    });
    assert_eq!(stub.asked()[2..], ["latest", "p1.C"]);
}

#[test]
fn an_interrupt_tells_how_to_go_on() {
    let relay = Relay::start(&[], &[]);
    let first = relay.run(&["publish", "t", "1"], "").stdout;
    let mut tail = relay.tail(&["t", "-o", "raw", "--after", "earliest"]);
    assert_eq!(tail.line(), "1\n");
    relay.run(&["publish", "t", "2"], "").lines();
    assert_eq!(tail.line(), "2\n");
    let last = relay.run(&["publish", "t", "3"], "").stdout;
    assert_eq!(tail.line(), "3\n");
    tail.interrupt();
    let ended = tail.end();
    assert_eq!(ended.lines(), Vec::<&str>::new());
    let resume = format!("go on with: tidemill tail t --after={} --output=raw\n", last.trim_end());
    assert_eq!(ended.stderr, resume);
    assert_ne!(first, last);
}

#[test]
fn a_reader_that_leaves_ends_tail_quietly() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["publish", "t", "1"], "").lines();
    let mut tail = relay.tail(&["t", "--after", "earliest"]);
    assert!(!tail.line().is_empty());
    tail.leave();
    relay.run(&["publish", "t", "2"], "").lines();
    let ended = tail.end();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

/// R30, with the real binary at every end: publisher and reader go through restarts and kills.
#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_and_kills_of_the_relay_lose_and_repeat_nothing() {
    const LINES: usize = 20_000;
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let valkey = format!("redis://127.0.0.1:{}", server.port());
    let variables =
        [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", valkey.as_str()), ("TIDEMILL_DRAIN_MS", "200")];
    let relay = Relay::ready_at("127.0.0.1:0", &variables, &[]).await;
    tokio::task::block_in_place(|| {
        let url = relay.url.clone();
        let listen = url.trim_start_matches("http://");
        relay.run(&["topics", "create", "t"], "").lines();
        let limit = LINES.to_string();
        let mut tails: Vec<Running> = ["json", "binary"]
            .map(|encoding| {
                relay.tail(&["t", "-o=raw", "--after=earliest", "-n", &limit, "--encoding", encoding])
            })
            .into();
        let input = number_lines(LINES);
        let publishing = std::thread::spawn({
            let url = url.clone();
            move || run(&[("TIDEMILL_URL", &url)], &["publish", "t"], &input)
        });
        let mut relay = Some(relay);
        let mut lines = vec![String::new(); tails.len()];
        for share in 1..=4 {
            for (tail, lines) in tails.iter_mut().zip(&mut lines) {
                for _ in 0..LINES / 4 {
                    lines.push_str(&tail.line());
                }
            }
            let Some(running) = relay.take() else { break };
            match share {
                // Told to stop, then killed.
                1 => assert_eq!(running.stop().0, Some(0)),
                2 => drop(running),
                _ => {
                    relay = Some(running);
                    continue;
                }
            }
            relay = Some(Relay::start_at(listen, &variables, &[]));
        }
        let done = publishing.join().expect("it does not panic");
        assert_eq!(done.lines().len(), LINES);
        let expected = number_lines(LINES);
        for (tail, lines) in tails.into_iter().zip(lines) {
            assert!(lines == expected, "each message once, in order");
            let ended = tail.end();
            assert_eq!(ended.lines(), Vec::<&str>::new());
            assert!(ended.stderr.contains("connecting again\nconnected again\n"), "{}", ended.stderr);
            assert!(!ended.stderr.contains("gap"), "{}", ended.stderr);
        }
        drop(relay);
    });
}

#[test]
fn the_latest_of_each_key_comes_first_and_is_shown_with_its_key() {
    let relay = Relay::start(&[], &[]);
    relay.run(&["topics", "create", "pumps", "--compact-by", "pump"], "").lines();
    let publish = |pump: &str, payload: &str| {
        let metadata = format!(r#"{{"pump": "{pump}"}}"#);
        relay.run(&["publish", "pumps", payload, "--metadata", &metadata], "").lines();
    };
    for (pump, payload) in [("a", "1"), ("b", "2"), ("a", "3")] {
        publish(pump, payload);
    }
    let ends = |line: &str, end: &str| assert!(line.trim_end().ends_with(end), "{line:?} {end:?}");
    let mut tail = relay.tail(&["pumps", "--latest"]);
    for end in ["  b  2", "  a  3"] {
        ends(&tail.line(), end);
    }
    publish("c", "4");
    ends(&tail.line(), "  c  4");
    tail.interrupt();
    let ended = tail.end();
    let again = ended.stderr.lines().last().and_then(|line| line.strip_prefix("go on with: tidemill "));
    let again = again.unwrap_or_else(|| panic!("{ended:?}"));
    assert!(again.starts_with("tail pumps --after=") && again.ends_with(" --latest"), "{again}");
    publish("b", "5");
    let words: Vec<_> = again.split(' ').chain(["--limit", "1"]).collect();
    ends(relay.run(&words, "").lines()[0], "  b  5");
    // What programs read is the message as it is.
    let raw = relay.run(&["tail", "pumps", "--latest", "-o", "raw", "-n", "3"], "");
    assert_eq!(raw.lines(), ["3", "4", "5"]);
    let read = relay.run(&["read", "pumps", "--latest", "--all"], "");
    for (line, end) in read.lines().iter().zip(["  a  3", "  c  4", "  b  5"]) {
        ends(line, end);
    }
    assert_eq!(read.lines().len(), 3);
    let one = relay.run(&["read", "pumps", "-n", "1"], "");
    assert!(one.lines()[0].ends_with("Z  5"), "who does not ask for keys is shown none: {one:?}");
    let pattern = relay.run(&["tail", "pump*", "--latest"], "");
    assert_eq!(pattern.code, Some(2));
    assert!(pattern.stderr.contains("`pump*`"), "{pattern:?}");
    relay.run(&["publish", "plain", "1"], "").lines();
    let refused = relay.run(&["tail", "plain", "--latest"], "");
    assert!(refused.error(1).contains("`plain` is not compacted"), "{refused:?}");
}
