//! Requests over HTTP/1.1 that are answered before their bodies have come: the connection goes on, or the answer says
//! that it does not.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};

use crate::access::closed::{self, ROOT, token};
use crate::support::raw::RawConnection;
use crate::support::relay::{Answer, STUCK, TestRelay, memory, read_to_end};

/// Larger than what has come by the time that a request is refused.
const BODY_BYTES: usize = 500_000;

const MESSAGES: &str = "/api/v1/topics/t/messages";

async fn start() -> (TestRelay, String, String) {
    let relay = closed::start(memory()).await;
    let (_, all) = token(&relay, ROOT, &["allow publish,read *"]).await;
    let (_, little) = token(&relay, ROOT, &["allow read other"]).await;
    (relay, all, little)
}

#[tokio::test]
async fn a_connection_goes_on_behind_what_was_refused() {
    let (relay, all, little) = start().await;
    let mut connection = RawConnection::connect(relay.address).await.expect("the relay listens");
    let body = "x".repeat(BODY_BYTES);
    for _ in 0..5 {
        for (path, authorization, status) in [
            (MESSAGES, "", 401),
            (MESSAGES, "Bearer nonsense", 401),
            (MESSAGES, &*little, 403),
            ("/api/v1/messages?x=1", &*all, 400),
            ("/nothing", &*all, 404),
            ("/health", &*all, 405),
            ("/api/v1/messages", &*all, 415),
        ] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {authorization}\r\ncontent-length: {BODY_BYTES}\r\n\r\n"
            );
            let head = if authorization.is_empty() { head.replace("authorization: \r\n", "") } else { head };
            connection.send(head.as_bytes()).await.expect("the relay reads");
            connection.send(body.as_bytes()).await.expect("the relay reads on");
            let head = connection.head().await.expect("an answer");
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{path}: {head}");
            assert!(!head.contains("connection: close"), "{path}: {head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.and_then(|length| length.parse().ok()).expect("a length");
            connection.exactly(length).await.expect("the whole answer");
        }
    }
    let head = connection.ask("/health", "").await.expect("an answer on the same connection");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    relay.stop().await;
}

#[tokio::test]
async fn an_answer_says_that_the_connection_ends_where_it_does() {
    let (relay, _, _) = start().await;
    let head = format!("POST {MESSAGES} HTTP/1.1\r\nhost: localhost\r\n");
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    for (name, rest) in [
        ("a large body", "content-length: 8000000\r\n\r\nx".to_owned()),
        ("a body that does not come", "content-length: 10\r\n\r\nx".to_owned()),
        ("chunks that do not come", format!("{chunked}1\r\nx\r\n")),
        ("broken chunks", format!("{chunked}zz\r\nx\r\n")),
        ("many chunks", format!("{chunked}{}", format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(20))),
        ("a body that is held back", "expect: 100-continue\r\ncontent-length: 10\r\n\r\n".to_owned()),
    ] {
        let mut stream = relay.connect().await;
        let started = Instant::now();
        // The relay may hang up before it has read everything.
        drop(stream.write_all(format!("{head}{rest}").as_bytes()).await);
        let back = timeout(STUCK, read_to_end(&mut stream)).await.expect("the relay hangs up");
        let answer = Answer::parse(&back);
        assert_eq!((answer.status, answer.header("connection")), (401, Some("close")), "{name}: {answer:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{name}: {:?}", started.elapsed());
    }
    relay.stop().await;
}
