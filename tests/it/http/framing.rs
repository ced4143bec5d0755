//! Requests whose framing is broken or double-tongued: one interpretation, or none, and nothing is
//! read as a request that a proxy in front took for a body.

use std::time::Duration;

use tidemill::proto::Code;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::relay::{Answer, STUCK, TestRelay, memory, read_to_end};

const POST: &str =
    "POST /api/v1/topics/framing/messages HTTP/1.1\r\nhost: relay\r\ncontent-type: text/plain\r\n";
const SMUGGLED: &str = "GET /health HTTP/1.1\r\nhost: relay\r\nx-request-id: smuggled\r\n\r\n";

/// Returns how many answers there are in what came back.
fn answers(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).matches("HTTP/1.").count()
}

#[tokio::test]
async fn broken_framing_is_refused_and_ends_the_connection() {
    let relay = TestRelay::start(memory()).await;
    for (name, request) in [
        ("two lengths", format!("{POST}content-length: 5\r\ncontent-length: 6\r\n\r\nhello")),
        ("a list of lengths", format!("{POST}content-length: 5, 5\r\n\r\nhello")),
        ("a signed length", format!("{POST}content-length: +5\r\n\r\nhello")),
        ("a negative length", format!("{POST}content-length: -5\r\n\r\nhello")),
        ("a hexadecimal length", format!("{POST}content-length: 0x5\r\n\r\nhello")),
        ("a length past 64 bits", format!("{POST}content-length: 18446744073709551616\r\n\r\nhello")),
        ("a blank before the colon", format!("{POST}content-length : 5\r\n\r\nhello")),
        ("an unknown encoding", format!("{POST}transfer-encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
        (
            "chunked not last",
            format!("{POST}transfer-encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "another encoding beneath",
            format!("{POST}transfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "chunked in HTTP/1.0",
            format!(
                "{}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                POST.replace("/1.1", "/1.0")
            ),
        ),
        ("a folded header", format!("{POST}x-a: b\r\n c\r\ncontent-length: 5\r\n\r\nhello")),
        ("a NUL in a header", format!("{POST}x-a: b\0c\r\ncontent-length: 5\r\n\r\nhello")),
        ("a NUL in the path", "GET /health\0 HTTP/1.1\r\nhost: relay\r\n\r\n".to_owned()),
        (
            "a bare CR in a header",
            format!("{POST}x-a: b\rcontent-length: 9\r\ncontent-length: 5\r\n\r\nhello"),
        ),
        ("no version", "GET /health\r\n\r\n".to_owned()),
        ("another version", "GET /health HTTP/3.0\r\nhost: relay\r\n\r\n".to_owned()),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("no host", "GET /health HTTP/1.1\r\n\r\n".to_owned()),
        ("two hosts", "GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned()),
    ] {
        let back = relay.raw(format!("{request}{SMUGGLED}").as_bytes()).await;
        let text = String::from_utf8_lossy(&back);
        assert!(answers(&back) <= 1, "{name}: {text}");
        assert!(back.is_empty() || text.starts_with("HTTP/1.1 400 "), "{name}: {text}");
        assert!(!text.contains("smuggled"), "{name}: {text}");
    }
    assert_eq!(relay.get("/api/v1/topics/framing").await.status, 404, "nothing was changed");
    relay.stop().await;
}

#[tokio::test]
async fn a_length_beside_chunks_is_not_believed_and_ends_the_connection() {
    let relay = TestRelay::start(memory()).await;
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for (name, headers) in [
        ("length first", "content-length: 3\r\ntransfer-encoding: chunked\r\n"),
        ("length last", "transfer-encoding: chunked\r\ncontent-length: 3\r\n"),
    ] {
        let back = relay.raw(format!("{POST}{headers}\r\n{chunks}{SMUGGLED}").as_bytes()).await;
        let text = String::from_utf8_lossy(&back);
        assert_eq!(answers(&back), 1, "{name}: {text}");
        assert!(!text.contains("smuggled"), "{name}: {text}");
        let id = Answer::parse(&back).json()["message_id"].as_str().expect("an id").to_owned();
        let message = relay.get(&format!("/api/v1/topics/framing/messages/{id}")).await.json();
        assert_eq!(message["payload_text"], "hello", "{name}: all five bytes");
    }
    relay.stop().await;
}

#[tokio::test]
async fn unusual_but_clear_requests_are_answered() {
    let relay = TestRelay::start(memory()).await;
    let close = "connection: close\r\n";
    for (name, request, status) in [
        ("absolute form", format!("GET http://elsewhere/health HTTP/1.1\r\nhost: relay\r\n{close}\r\n"), 200),
        ("bare line feeds", "GET /health HTTP/1.1\nhost: relay\nconnection: close\n\n".to_owned(), 200),
        ("HTTP/1.0 without a host", "GET /health HTTP/1.0\r\n\r\n".to_owned(), 200),
        (
            "the same length twice",
            format!("{POST}{close}content-length: 5\r\ncontent-length: 5\r\n\r\nhello"),
            201,
        ),
        ("options of the server", format!("OPTIONS * HTTP/1.1\r\nhost: relay\r\n{close}\r\n"), 404),
        (
            "chunks with extensions and trailers",
            format!("{POST}{close}transfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx-t: 1\r\n\r\n"),
            201,
        ),
    ] {
        let back = relay.raw(request.as_bytes()).await;
        assert_eq!((answers(&back), Answer::parse(&back).status), (1, status), "{name}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let relay = TestRelay::start(memory()).await;
    let request = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: relay\r\n{more}\r\n");
    let all = [
        request("/health", "x-request-id: one\r\n"),
        request("/nothing", "x-request-id: two\r\n"),
        request("/ready", "x-request-id: three\r\nconnection: close\r\n"),
    ];
    let back = relay.raw(all.concat().as_bytes()).await;
    let text = String::from_utf8_lossy(&back);
    let at = |id: &str| text.find(&format!("x-request-id: {id}")).expect("the id stands in the answer");
    assert!(answers(&back) == 3 && at("one") < at("two") && at("two") < at("three"), "{text}");
    relay.stop().await;
}

#[tokio::test]
async fn a_broken_body_is_told_and_ends_the_connection() {
    let relay = TestRelay::start(memory()).await;
    for (name, body) in [
        ("a chunk length that is none", "zz\r\nhello\r\n0\r\n\r\n"),
        ("a negative chunk length", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a chunk longer than its length", "3\r\nhello\r\n0\r\n\r\n"),
        ("a chunk length past 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ] {
        let back =
            relay.raw(format!("{POST}transfer-encoding: chunked\r\n\r\n{body}{SMUGGLED}").as_bytes()).await;
        assert_eq!(answers(&back), 1, "{name}");
        let answer = Answer::parse(&back);
        assert_eq!(
            (answer.problem().code, answer.header("connection")),
            (Code::InvalidRequest, Some("close")),
            "{name}"
        );
    }
    assert_eq!(relay.get("/api/v1/topics/framing").await.status, 404, "nothing was changed");
    relay.stop().await;
}

#[tokio::test]
async fn a_body_is_asked_for_only_where_it_is_wanted() {
    let relay = TestRelay::start(memory()).await;
    let mut stream = relay.connect().await;
    let expect = format!("{POST}expect: 100-continue\r\nconnection: close\r\n");
    stream.write_all(format!("{expect}content-length: 5\r\n\r\n").as_bytes()).await.expect("written");
    let mut line = [0; 25];
    let read = stream.read_exact(&mut line);
    tokio::time::timeout(STUCK, read).await.expect("an answer").expect("25 bytes");
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.expect("written");
    assert_eq!(Answer::parse(&read_to_end(&mut stream).await).status, 201);

    let back = relay.raw(format!("{expect}content-length: 99999999\r\n\r\n").as_bytes()).await;
    assert_eq!(Answer::parse(&back).problem().code, Code::TooLarge, "refused before it is sent");
    relay.stop().await;
}

#[tokio::test]
async fn a_client_that_still_sends_reads_why_it_is_refused() {
    let relay = TestRelay::start(memory()).await;
    for headers in ["content-length: 8000000\r\n", "transfer-encoding: chunked\r\n"] {
        let mut stream = relay.connect().await;
        stream.write_all(format!("{POST}{headers}\r\n").as_bytes()).await.expect("written");
        let mut chunk = b"10000\r\n".to_vec();
        chunk.resize(chunk.len() + 0x10000, b'x');
        chunk.extend_from_slice(b"\r\n");
        for _ in 0..100 {
            if stream.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let answer = Answer::parse(&read_to_end(&mut stream).await);
        let problem = answer.problem();
        assert_eq!(problem.code, Code::TooLarge);
        assert!(problem.detail.contains("TIDEMILL_PAYLOAD_BYTES_MAX"), "{}", problem.detail);
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(relay.get("/api/v1/topics/framing").await.status, 404, "nothing was changed");
    relay.stop().await;
}

#[tokio::test]
async fn what_was_refused_unread_does_not_break_the_next_request() {
    let relay = TestRelay::start(memory()).await;
    let mut stream = relay.connect().await;
    let refused = "POST /api/v1/messages HTTP/1.1\r\nhost: relay\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";
    stream.write_all(refused.as_bytes()).await.expect("written");
    stream.write_all(SMUGGLED.as_bytes()).await.expect("written");
    stream.shutdown().await.expect("half closed");
    let back = tokio::time::timeout(Duration::from_secs(5), read_to_end(&mut stream)).await.expect("an end");
    let text = String::from_utf8_lossy(&back);
    assert!(text.starts_with("HTTP/1.1 415 "), "{text}");
    assert!(answers(&back) == 1 || text.contains("HTTP/1.1 200 OK"), "{text}");
    relay.stop().await;
}
