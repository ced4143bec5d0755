//! Retries of `tidemill publish` from standard input, against a stub that speaks WebSocket and fails as
//! it is told, and against real relays behind a faulty link.

use std::borrow::Cow;
use std::io::Write as _;
use std::pin::pin;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tidemill::proto::frame::{
    BINARY_SUBPROTOCOL, ClientFrame, ErrorClass, ErrorFrame, Publish, ServerFrame, binary,
};
use tidemill::proto::{Code, Cursor, MessageId, Since, Timestamp, TopicName};
use tidemill_client::{Client, ClientOptions, Event};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::process::{Ended, Relay, Running, number_lines, run, run_on_terminal};
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, TestRelay, memory, try_send};

/// A publish as it came: key and payload.
type Seen = (String, String);

/// What becomes of a publish, by its payload and how often its key was seen before.
type Decide = fn(&str, usize) -> Answer;

/// What the stub does with a publish.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Accept,
    Refuse(Code),
    /// Refuses with a time to wait.
    Limit {
        seconds: u64,
    },
    /// Keeps it, and says that it is not as durable as was asked.
    Keep,
    /// Cuts the connection.
    Cut,
}

/// Serves one connection until either side ends it.
async fn serve(stream: TcpStream, decide: Decide, seen: Arc<Mutex<Vec<Seen>>>) -> Option<()> {
    #[expect(clippy::result_large_err, reason = "the library asks for this type")]
    let choose = |_: &Request, mut response: Response| {
        let chosen = HeaderValue::from_static(BINARY_SUBPROTOCOL);
        response.headers_mut().insert("sec-websocket-protocol", chosen);
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose).await.ok()?;
    loop {
        let Message::Binary(bytes) = socket.next().await?.ok()? else { continue };
        let Ok(ClientFrame::Publish(publish)) = binary::read_client(&bytes) else { return None };
        let Publish { reference, topic, payload, key, .. } = publish;
        let key = key.expect("every line has a key").into_owned();
        let payload = String::from_utf8(payload.to_vec()).expect("JSON");
        let times = seen.lock().iter().filter(|(other, _)| *other == key).count();
        seen.lock().push((key, payload.clone()));
        let frame = match decide(&payload, times) {
            Answer::Cut => return socket.get_ref().set_zero_linger().ok(),
            Answer::Accept => ServerFrame::Published {
                durability: None,
                reference,
                message_id: MessageId::new(5, payload.parse().expect("a number")),
                topic: TopicName::parse(&topic).expect("a name"),
                timestamp: Timestamp::from_millis(1),
                replayed: false,
            },
            Answer::Refuse(code) => refusal(reference, code, None),
            Answer::Keep => {
                let mut frame = refusal(reference, Code::DurabilityNotReached, None);
                if let ServerFrame::Error(error) = &mut frame {
                    error.message_id = Some(MessageId::new(5, payload.parse().expect("a number")));
                }
                frame
            }
            Answer::Limit { seconds } => refusal(reference, Code::RateLimited, Some(seconds)),
        };
        let mut out = Vec::new();
        binary::write_server(&frame, &mut out);
        socket.send(Message::Binary(out.into())).await.ok()?;
    }
}

fn refusal(reference: Option<Cow<'_, str>>, code: Code, retry_after_seconds: Option<u64>) -> ServerFrame<'_> {
    ServerFrame::Error(ErrorFrame {
        message_id: None,
        durability: None,
        fence: None,
        reference,
        class: ErrorClass::Publish,
        code,
        message: "not now".into(),
        field: None,
        retryable: code.retryable(),
        retry_after_seconds,
        last_id: None,
        reason: None,
    })
}

/// Publishes lines to a stub, and returns how that ended with what the stub saw.
async fn publish(decide: Decide, arguments: &[&str], input: &str) -> (Ended, Vec<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (seen, stop, tasks) =
        (Arc::new(Mutex::new(Vec::new())), CancellationToken::new(), TaskTracker::new());
    let (serving, all) = (seen.clone(), tasks.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("it listens");
            all.spawn(serve(stream, decide, serving.clone()));
        }
    }));
    let ended = publish_to(port, arguments, input).await;
    stop.cancel();
    let seen = seen.lock().clone();
    (ended, seen)
}

async fn publish_to(port: u16, arguments: &[&str], input: &str) -> Ended {
    let url = format!("http://127.0.0.1:{port}");
    let arguments: Vec<String> = ["publish", "t"].iter().chain(arguments).map(ToString::to_string).collect();
    let input = input.to_owned();
    let command = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&[("TIDEMILL_URL", &url)], &arguments, &input)
    };
    tokio::task::spawn_blocking(command).await.expect("the command runs")
}

fn times(seen: &[Seen], key: &str) -> usize {
    seen.iter().filter(|(other, _)| other == key).count()
}

#[tokio::test]
async fn of_many_lines_only_what_may_pass_is_sent_again() {
    let decide: Decide = |payload, times| match (payload, times) {
        ("2", 0) => Answer::Refuse(Code::StorageUnavailable),
        ("4", 0) => Answer::Refuse(Code::OutcomeUnknown),
        ("3", _) => Answer::Refuse(Code::TooLarge),
        _ => Answer::Accept,
    };
    let (ended, seen) = publish(decide, &["--key=k"], "1\n2\n3\n4\n").await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(["k/0", "k/1", "k/2", "k/3"].map(|key| times(&seen, key)), [1, 2, 1, 2]);
    // In the order of the lines, however often one was sent.
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), ["5-1", "5-2", "5-4"]);
    assert_eq!(ended.stderr, "line 3: not now (code too_large)\n3 published to t, 1 refused\n");
}

#[tokio::test]
async fn lines_that_are_refused_for_some_seconds_are_published_in_their_order() {
    let decide: Decide = |_, times| if times < 6 { Answer::Refuse(Code::Overloaded) } else { Answer::Accept };
    let (ended, seen) = publish(decide, &["--key=k"], "1\n2\n").await;
    assert_eq!((ended.lines(), seen.len()), (vec!["5-1", "5-2"], 14));
    // Waiting in silence looks like hanging.
    assert!(seen.chunks(2).all(|both| both[0].1 == "1" && both[1].1 == "2"), "{seen:?}");
    let notes: Vec<&str> = ended.stderr.lines().collect();
    assert!(notes[0].contains("trying again for up to 60 s; Ctrl-C ends it: not now (code overloaded)"));
    assert_eq!(notes[1..], ["2 published to t, 0 refused"]);
}

#[tokio::test]
async fn retries_of_a_line_end() {
    let decide: Decide = |_, times| match times {
        0 => Answer::Refuse(Code::Overloaded),
        // Later than it is tried again.
        _ => Answer::Limit { seconds: 61 },
    };
    let (ended, seen) = publish(decide, &["-o", "json"], "1\n").await;
    assert_eq!((ended.code, seen.len()), (Some(1), 2));
    let result: serde_json::Value = serde_json::from_str(&ended.stdout).expect("a result");
    assert_eq!((&result["status"], &result["code"]), (&"rejected".into(), &"rate_limited".into()));
    let notes: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!((notes[0], notes[2]), ("line 1: not now (code rate_limited)", "0 published to t, 1 refused"));
    assert!(notes[1].starts_with("from line 1 on, lines may be missing; go on with"), "{notes:?}");
}

#[tokio::test]
async fn lines_that_are_kept_and_not_durable_count_apart_and_the_key_is_told() {
    let decide: Decide = |payload, _| if payload == "2" { Answer::Keep } else { Answer::Accept };
    let (ended, seen) = publish(decide, &[], "1\n2\n").await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "5-1\n"), "{ended:?}");
    let notes: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(notes[0], "line 2: not now (code durability_not_reached)");
    let key = seen[0].0.strip_suffix("/0").expect("the key of the first line");
    assert_eq!(
        notes[1],
        format!(
            "from line 2 on, lines may be missing, or not as durable as was asked; go on with the same input and --key {key}, under which nothing is kept twice as long as the relay remembers it"
        )
    );
    assert_eq!(notes[2..], ["1 published to t, 1 kept and not as durable as was asked, 0 refused"]);
    // Also where it is the only one.
    let (ended, _) = publish(decide, &["--key=k", "-o", "json"], "2\n").await;
    let result: serde_json::Value = serde_json::from_str(&ended.stdout).expect("a result");
    assert_eq!((&result["message_id"], &result["code"]), (&"5-2".into(), &"durability_not_reached".into()));
    assert!(ended.stderr.contains("--key k, "), "{ended:?}");
}

/// Waiting in silence looks like hanging.
#[tokio::test]
async fn lines_that_wait_for_a_limit_say_so_once() {
    let decide: Decide = |payload, times| match (payload, times) {
        ("2" | "3", 0) | ("3", 1) => Answer::Limit { seconds: 1 },
        _ => Answer::Accept,
    };
    let (ended, seen) = publish(decide, &["--key=k"], "1\n2\n3\n").await;
    assert_eq!((ended.lines(), seen.len()), (vec!["5-1", "5-2", "5-3"], 6));
    let told = "waiting 1 s and trying again for up to 60 s; Ctrl-C ends it: not now (code rate_limited)\n3 published to t, 0 refused\n";
    assert_eq!(ended.stderr, told);
}

/// What does not pass, or holds for every line, ends the run; what is wrong with one line does not.
#[tokio::test]
async fn a_refusal_that_holds_for_all_lines_ends_the_run() {
    let input = number_lines(20_000);
    let (ended, seen) = publish(|_, _| Answer::Refuse(Code::Forbidden), &["--key=k"], &input).await;
    assert_eq!(ended.code, Some(1));
    assert!(seen.len() < 1_000, "{} were sent", seen.len());
    assert!(ended.stderr.lines().count() < 20, "{}", ended.stderr);
    // Told once, at the end.
    assert!(ended.stderr.ends_with(" refused\nerror: not now (code forbidden)\n"), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("forbidden").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.starts_with("from line 1 on, lines may be missing; go on with"), "{}", ended.stderr);
    assert!(ended.stderr.contains("go on with the same input and --key k, under which"), "{}", ended.stderr);
    let (ended, seen) = publish(|_, _| Answer::Refuse(Code::TooLarge), &[], &number_lines(1_000)).await;
    assert_eq!((ended.code, seen.len()), (Some(1), 1_000));
    assert!(
        ended.stderr.ends_with("990 more lines: too_large\n0 published to t, 1000 refused\n"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn lines_without_an_answer_are_sent_again_as_they_were() {
    let decide: Decide = |payload, times| match (payload, times) {
        ("2", 0) => Answer::Cut,
        _ => Answer::Accept,
    };
    let (ended, seen) = publish(decide, &["--key=k"], "1\n2\n3\n").await;
    assert_eq!(ended.lines(), ["5-1", "5-2", "5-3"]);
    assert_eq!((times(&seen, "k/1"), times(&seen, "k/2")), (2, 1));
    let notes: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        notes[0].contains("no connection to the relay at http://127.0.0.1:")
            && notes[0].ends_with("; trying again for up to 60 s"),
        "{notes:?}"
    );
    assert_eq!(notes[1..], ["3 published to t, 0 refused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_while_a_file_is_published_make_no_copy() {
    const LINES: usize = 20_000;
    let relay = TestRelay::start(memory()).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let input = number_lines(LINES);
    let mut publishing = pin!(publish_to(proxy.port(), &[], &input));
    // The topic has to be there before it can be read.
    relay.publish("t", "-1").await;
    let topic = TopicName::parse("t").expect("a name");
    let client = Client::new(&format!("http://{}", relay.address), ClientOptions::default()).expect("a URL");
    let mut reader = client.subscribe([(topic, Since::Cursor(Cursor::Earliest))]).await.expect("a relay");
    let mut payloads: Vec<i64> = Vec::new();
    let mut ended = None;
    while payloads.len() < LINES + 1 {
        tokio::select! {
            done = &mut publishing, if ended.is_none() => ended = Some(done),
            event = tokio::time::timeout(STUCK, reader.next()) => {
                if let Event::Message(message) = event.expect("they come").expect("it reads") {
                    let text = std::str::from_utf8(&message.payload).expect("a number");
                    payloads.push(text.parse().expect("a number"));
                    if payloads.len().is_multiple_of(3_000) {
                        proxy.cut();
                    }
                }
            }
        }
    }
    let ended = match ended {
        Some(ended) => ended,
        None => publishing.await,
    };
    assert_eq!(ended.lines().len(), LINES);
    assert!(ended.stderr.contains("trying again"), "it was cut: {}", ended.stderr);
    assert_eq!(payloads, (-1..i64::try_from(LINES).expect("it is small")).collect::<Vec<_>>());
    relay.stop().await;
}

/// A relay that remembers a handful of keys takes any number of lines, in order, and says so once.
#[test]
fn a_relay_that_can_remember_no_more_keys_takes_lines_without() {
    const LINES: usize = 3_000;
    let relay = Relay::start(&[("TIDEMILL_IDEMPOTENCY_BYTES_MAX", "16KiB")], &[]);
    let told = "the relay remembers as many idempotency keys as it may: from here on a line that has no answer when the connection breaks may be there twice\n";
    let ended = relay.run(&["publish", "t"], &number_lines(LINES));
    assert_eq!(ended.lines().len(), LINES);
    assert_eq!(ended.stderr, format!("{told}{LINES} published to t, 0 refused\n"));
    let read = relay.run(&["read", "t", "--all", "-o", "raw"], "");
    assert!(read.stdout == number_lines(LINES), "each line once, in order");
    let one = relay.run(&["publish", "t", "1"], "");
    assert_eq!((one.lines().len(), one.stderr.as_str()), (1, told));
    // Who names a key wants it.
    let key = "k".repeat(200);
    assert!(relay.run(&["publish", "t", "1", "--key", &key], "").error(1).contains("code storage_full"));
    let ended = relay.run(&["publish", "t", "--key", &key], "1\n2\n");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("line 1: the relay remembers as many"), "{}", ended.stderr);
    // Who wants none is told nothing.
    for arguments in [&["publish", "t", "--no-key"][..], &["publish", "t", "1", "--no-key"]] {
        let ended = relay.run(&[arguments, &["-q"]].concat(), "1\n2\n");
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    }
    let both = relay.run(&["publish", "t", "1", "--no-key", "--key", "k"], "");
    assert_eq!(both.code, Some(2), "{both:?}");
}

/// What was published one way is known the other way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_lines_are_those_of_http() {
    const LINES: &str = "1\n\nnonsense\n {\"a\":  1} \r\n3\n";
    let relay = Relay::ready_at("127.0.0.1:0", &[], &[]).await;
    let ended = tokio::task::block_in_place(|| relay.run(&["publish", "t", "--key", "k"], LINES));
    assert!(ended.stderr.ends_with("3 published to t, 1 refused\n"), "{ended:?}");
    let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", "k")];
    let path = "/api/v1/topics/t/messages";
    let answer =
        try_send(relay.address(), "POST", path, &headers, LINES.as_bytes()).await.expect("an answer");
    let answer: serde_json::Value = serde_json::from_str(answer.text()).expect("JSON");
    let results = answer["results"].as_array().expect("a list");
    assert_eq!(results.len(), 4);
    for (at, result) in results.iter().enumerate() {
        assert_eq!(result.get("replayed").is_some(), at != 1, "{result}");
    }
    let ids: Vec<_> = results.iter().filter_map(|result| result["message_id"].as_str()).collect();
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), ids);
}

#[test]
fn an_interrupt_tells_what_was_published_and_how_to_go_on() {
    let relay = Relay::start(&[], &[]);
    let (mut running, mut input) =
        Running::fed(&[("TIDEMILL_URL", &relay.url)], &["publish", "t", "--key", "k$1"]);
    input.write_all(b"1\n2\n").expect("it reads");
    assert!(!running.line().is_empty() && !running.line().is_empty());
    running.interrupt();
    let ended = running.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let notes: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        notes[0]
            .starts_with("no answer for line 3 and what follows; go on with the same input and --key 'k$1'"),
        "{notes:?}"
    );
    assert_eq!(notes[1..], ["at least 2 published to t, 0 refused", "error: interrupted"]);
    // What was told works.
    let again = relay.run(&["publish", "t", "--key", "k$1"], "1\n2\n3\n");
    assert_eq!(again.lines().len(), 3);
    assert_eq!(relay.run(&["read", "t", "--all"], "").lines().len(), 3);
    // Without keys nothing more is promised than holds.
    let (mut running, mut input) =
        Running::fed(&[("TIDEMILL_URL", &relay.url)], &["publish", "t", "--no-key"]);
    input.write_all(b"1\n").expect("it reads");
    assert!(!running.line().is_empty());
    running.interrupt();
    let ended = running.end();
    assert!(ended.stderr.contains("as with `tail -n +2`"), "{ended:?}");
}

#[test]
fn a_reader_that_leaves_ends_a_publish_with_a_lower_bound() {
    let relay = Relay::start(&[], &[]);
    let (mut running, mut input) =
        Running::fed(&[("TIDEMILL_URL", &relay.url)], &["publish", "t", "--key", "k"]);
    input.write_all(b"1\n2\n").expect("it reads");
    assert!(!running.line().is_empty() && !running.line().is_empty());
    running.leave();
    input.write_all(b"3\n").expect("it reads");
    let ended = running.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let notes: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!((notes[0], notes[2]), ("standard output was closed", "at least 3 published to t, 0 refused"));
    assert_eq!(relay.run(&["read", "t", "--all"], "").lines().len(), 3);
}

/// The bar is for eyes: a terminal costs no more than a pipe.
#[test]
fn the_progress_bar_fits_the_terminal_and_is_drawn_seldom() {
    let relay = Relay::start(&[], &[]);
    for columns in [80, 40] {
        let begun = tokio::time::Instant::now();
        let seen = run_on_terminal(&relay.url, columns, &["publish", "t"], &number_lines(20_000));
        let tenths = begun.elapsed().as_millis() / 100;
        let draws: Vec<&str> = seen.split(['\r', '\n']).filter(|draw| draw.contains('%')).collect();
        assert!(!draws.is_empty(), "{seen:?}");
        assert!(
            draws.len() as u128 <= 2 * (tenths + 2),
            "{} draws in {tenths} tenths of a second",
            draws.len()
        );
        for draw in draws {
            assert!(without_escapes(draw).chars().count() <= columns, "{draw:?}");
        }
        assert!(seen.contains("20000 published to t, 0 refused"), "{seen:?}");
    }
}

/// Returns what a terminal shows of a line.
fn without_escapes(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    // `[`, parameters, and a letter.
    parts.fold(first, |shown, part| {
        shown + part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or_default()
    })
}

/// As when a block of commands is pasted.
#[test]
fn a_relay_that_is_just_starting_is_waited_for() {
    for arguments in [&["publish", "t", "1"][..], &["publish", "t"]] {
        let listen = format!("127.0.0.1:{}", crate::support::server::free_port());
        let url = format!("http://{listen}");
        let publishing = std::thread::spawn(move || run(&[("TIDEMILL_URL", &url)], arguments, "1\n"));
        let relay = Relay::start_at(&listen, &[], &[]);
        let ended = publishing.join().expect("it does not panic");
        assert_eq!(ended.lines().len(), 1, "{ended:?}");
        drop(relay);
    }
}
