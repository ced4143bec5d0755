//! Retries of `tidemill publish` from standard input, against a stub that speaks WebSocket and fails as
//! it is told, and against real relays behind a faulty link.

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

use crate::support::process::{Ended, number_lines, run};
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, TestRelay, memory};

/// A publish as it came: key and payload.
type Seen = (String, String);

/// What becomes of a publish, by its payload and how often its key was seen before.
type Decide = fn(&str, usize) -> Answer;

/// What the stub does with a publish.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Accept,
    Refuse(Code),
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
                reference,
                message_id: MessageId::new(5, payload.parse().expect("a number")),
                topic: TopicName::parse(&topic).expect("a name"),
                timestamp: Timestamp::from_millis(1),
                replayed: false,
            },
            Answer::Refuse(code) => ServerFrame::Error(ErrorFrame {
                reference,
                class: ErrorClass::Publish,
                code,
                message: "not now".into(),
                field: None,
                retryable: code.retryable(),
            }),
        };
        let mut out = Vec::new();
        binary::write_server(&frame, &mut out);
        socket.send(Message::Binary(out.into())).await.ok()?;
    }
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
    assert_eq!(["k-1", "k-2", "k-3", "k-4"].map(|key| times(&seen, key)), [1, 2, 1, 2]);
    // In the order of the lines, however often one was sent.
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), ["5-1", "5-2", "5-4"]);
    assert_eq!(ended.stderr, "line 3: not now (code too_large)\n3 published to t, 1 refused\n");
}

#[tokio::test]
async fn retries_of_a_line_end() {
    let (ended, seen) = publish(|_, _| Answer::Refuse(Code::Overloaded), &["-o", "json"], "1\n").await;
    assert_eq!((ended.code, seen.len()), (Some(1), 6));
    let result: serde_json::Value = serde_json::from_str(&ended.stdout).expect("a result");
    assert_eq!((&result["status"], &result["code"]), (&"rejected".into(), &"overloaded".into()));
    assert_eq!(ended.stderr, "line 1: not now (code overloaded)\n0 published to t, 1 refused\n");
}

#[tokio::test]
async fn lines_without_an_answer_are_sent_again_as_they_were() {
    let decide: Decide = |payload, times| match (payload, times) {
        ("2", 0) => Answer::Cut,
        _ => Answer::Accept,
    };
    let (ended, seen) = publish(decide, &["--key=k"], "1\n2\n3\n").await;
    assert_eq!(ended.lines(), ["5-1", "5-2", "5-3"]);
    assert_eq!((times(&seen, "k-2"), times(&seen, "k-3")), (2, 1));
    let notes: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        notes[0].contains("no connection to the relay at http://127.0.0.1:")
            && notes[0].ends_with("; trying again"),
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
