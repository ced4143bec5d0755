//! Plain publishes are answered without the HTTP library. Nobody may see a difference but in speed: not
//! in an answer, not in what comes before or behind it on the connection.

use std::time::Duration;

use tidemill::storage::Storage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::on_every_backend;
use crate::support::relay::{Answer, STUCK, TestRelay, fast_path, memory, read_answer, read_to_end};

/// Sends a request to `path` with `more` headers.
fn post(path: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: relay\r\n{more}content-length: {length}\r\n\r\n{body}")
}

/// A header that asks for nothing, and for which a request is left to the HTTP library.
const LIBRARY: &str = "te: trailers\r\n";
const JSON: &str = "content-type: application/json\r\n";

/// What two answers to the same request have in common: everything but message ids and times.
fn shape(answer: &Answer) -> (u16, Vec<(String, String)>, serde_json::Value) {
    let mut headers = answer.headers.clone();
    for (name, value) in &mut headers {
        if name == "date" {
            value.clear();
        }
    }
    headers.sort_unstable();
    let mut body = answer.json();
    let results = body.get_mut("results").and_then(|results| results.as_array_mut()).map(std::mem::take);
    let mut all = results.unwrap_or_default();
    all.push(body);
    for value in &mut all {
        for of in ["message_id", "timestamp"] {
            if let Some(value) = value.get_mut(of) {
                *value = serde_json::Value::Null;
            }
        }
    }
    (answer.status, headers, all.into())
}

async fn both_ways_answer_alike(storage: Storage) {
    let relay = TestRelay::start_with(storage, |options| {
        options.relay.payload_bytes_max = 2_000;
    })
    .await;
    let long = "x".repeat(2_000);
    let too_long = format!("/api/v1/topics/{}/messages", "n".repeat(400));
    for (path, headers, body) in [
        ("/api/v1/messages", JSON, r#"{"topic":"both","payload":{"a":1}}"#.to_owned()),
        (
            "/api/v1/messages",
            JSON,
            r#"{"topic":"both","payload":null,"metadata":{"k":"v"},"ttl":60}"#.to_owned(),
        ),
        ("/api/v1/messages", "", r#"{"topic":"both","payload":1}"#.to_owned()),
        ("/api/v1/messages", "content-type: text/plain\r\n", r#"{"topic":"both","payload":1}"#.to_owned()),
        ("/api/v1/messages", JSON, r#"{"topic":"both"}"#.to_owned()),
        ("/api/v1/messages", JSON, r#"{"topic":"bo th","payload":1}"#.to_owned()),
        ("/api/v1/messages", JSON, r#"{"topic":"both","payload":1,"more":2}"#.to_owned()),
        ("/api/v1/messages", JSON, r#"{"topic":"both","payload":"#.to_owned()),
        ("/api/v1/messages", JSON, String::new()),
        ("/api/v1/messages", JSON, format!(r#"{{"topic":"both","payload":"{long}"}}"#)),
        ("/api/v1/messages?x=1", JSON, r#"{"topic":"both","payload":1}"#.to_owned()),
        ("/api/v1/topics/both/messages", JSON, "[1, 2]".to_owned()),
        ("/api/v1/topics/both/messages", JSON, "[1, 2".to_owned()),
        ("/api/v1/topics/both/messages", "content-type: text/plain\r\n", "words".to_owned()),
        ("/api/v1/topics/both/messages", "content-type: image/png\r\n", String::new()),
        ("/api/v1/topics/both/messages", "", "bytes".to_owned()),
        ("/api/v1/topics/both/messages", "content-type: application/x-ndjson\r\n", "1\n2\n".to_owned()),
        ("/api/v1/topics/both/messages?ttl=60", JSON, "1".to_owned()),
        ("/api/v1/topics/b%6Fth/messages", JSON, "1".to_owned()),
        ("/api/v1/topics/b%20th/messages", JSON, "1".to_owned()),
        ("/api/v1/topics//messages", JSON, "1".to_owned()),
        ("/api/v1/topics/a/b/messages", JSON, "1".to_owned()),
        (&too_long, JSON, "1".to_owned()),
        ("/api/v1/topics/both/messages", "content-type: \u{e9}\r\n", "1".to_owned()),
        ("/api/v1/topics/both/messages", "content-type: x\u{e9}abcd\r\n", "1".to_owned()),
        ("/api/v1/messages", "content-type: x\u{e9}abcd\r\n", r#"{"topic":"both","payload":1}"#.to_owned()),
        (
            "/api/v1/messages",
            "content-type: application/json; x=\u{e9}\r\n",
            r#"{"topic":"both","payload":1}"#.to_owned(),
        ),
        ("/api/v1/topics/both/messages", JSON, format!("1{}", " ".repeat(2_000))),
        ("/api/v1/messages", "content-type: application/json\r\nidempotency-key: \r\n", "1".to_owned()),
        ("/api/v1/messages", JSON, "\u{feff}{\"topic\":\"both\",\"payload\":1}".to_owned()),
        ("/api/v1/topics/both/messages", JSON, "\u{feff}1".to_owned()),
        ("/api/v1/topics/both/messages", "content-type: text/plain\r\n", "\u{feff}1".to_owned()),
        (
            "/api/v1/topics/both/messages",
            "content-type: application/json; charset=utf-8; charset=utf-16\r\n",
            "1".to_owned(),
        ),
        (
            "/api/v1/messages",
            "content-type: application/json; charset=latin1; charset=utf-8\r\n",
            r#"{"topic":"both","payload":1}"#.to_owned(),
        ),
        (
            "/api/v1/topics/both/messages",
            "content-type: application/json; a=\"; charset=utf-16\"\r\n",
            "1".to_owned(),
        ),
        (
            "/api/v1/topics/both/messages",
            "content-type: application/json\r\ncontent-type: application/json\r\n",
            "1".to_owned(),
        ),
        (
            "/api/v1/topics/both/messages",
            "content-type: application/json\r\nidempotency-key: a\r\nidempotency-key: a\r\n",
            "1".to_owned(),
        ),
        ("/api/v1/messages", "content-type: application/json\r\nx-request-id: my.id\r\n", "1".to_owned()),
    ] {
        let id = if headers.contains("x-request-id") { "" } else { "x-request-id: same\r\n" };
        let mut answers = Vec::new();
        for more in ["", LIBRARY] {
            let mut stream = relay.connect().await;
            let request = post(path, &format!("{headers}{id}{more}"), &body);
            stream.write_all(request.as_bytes()).await.expect("the relay reads");
            answers.push(shape(&read_answer(&mut stream).await));
        }
        assert_eq!(answers[0], answers[1], "{path} {headers} {body}");
    }
    let on_the_fast_path = taken(&relay).await;
    assert_eq!(on_the_fast_path > 0, fast_path(), "{on_the_fast_path} requests took it");
    // A key is remembered across both ways.
    for (more, replayed) in [("", None), (LIBRARY, Some("true")), ("", Some("true"))] {
        let mut stream = relay.connect().await;
        let headers = format!("{JSON}idempotency-key: once\r\n{more}");
        let request = post("/api/v1/messages", &headers, r#"{"topic":"both","payload":"once"}"#);
        stream.write_all(request.as_bytes()).await.expect("the relay reads");
        let answer = read_answer(&mut stream).await;
        assert_eq!((answer.status, answer.header("idempotency-replayed")), (201, replayed));
    }
    relay.stop().await;
}

on_every_backend![both_ways_answer_alike];

/// Returns how many requests were answered on the fast path.
async fn taken(relay: &TestRelay) -> u64 {
    let metrics = relay.get("/metrics").await;
    let text = String::from_utf8(metrics.body).expect("text");
    let count = text.lines().find_map(|line| line.strip_prefix("tidemill_http_fast_path_requests_total "));
    count.map_or(0, |count| count.parse().expect("a number"))
}

/// Whatever a header may mean is for the router to know.
#[tokio::test]
async fn only_headers_that_mean_nothing_are_passed_by() {
    let relay = TestRelay::start(memory()).await;
    let body = r#"{"topic":"plain","payload":1}"#;
    let plain = u64::from(fast_path());
    for (more, takes) in [
        ("", plain),
        ("User-Agent: a\r\nACCEPT: */*\r\naccept-encoding: gzip\r\naccept-language: en\r\n", plain),
        ("cache-control: no-cache\r\npragma: no-cache\r\nconnection: keep-alive\r\n", plain),
        ("idempotency-key: k\r\nx-request-id: r\r\n", plain),
        // Where everybody is let in, nothing is read of it.
        ("authorization: Bearer x\r\n", plain),
        ("Authorization:\r\n", plain),
        ("proxy-authorization: Basic x\r\n", 0),
        ("cookie: a=b\r\n", 0),
        ("origin: http://relay\r\n", 0),
        ("referer: http://relay/\r\n", 0),
        ("sec-fetch-site: same-origin\r\n", 0),
        ("content-encoding: identity\r\n", 0),
        ("x-forwarded-for: 10.0.0.1\r\n", 0),
        ("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n", 0),
        ("x-made-up: 1\r\n", 0),
    ] {
        let before = taken(&relay).await;
        let mut stream = relay.connect().await;
        let request = post("/api/v1/messages", &format!("{JSON}{more}"), body);
        stream.write_all(request.as_bytes()).await.expect("the relay reads");
        assert_eq!(read_answer(&mut stream).await.status, 201, "{more}");
        assert_eq!(taken(&relay).await - before, takes, "{more}");
    }
    // Who sets a condition is not to have its message kept where nobody looks at it.
    for (condition, field) in [("if-match: *", "If-Match"), ("If-Unmodified-Since: x", "If-Unmodified-Since")]
    {
        let mut stream = relay.connect().await;
        let request = post("/api/v1/messages", &format!("{JSON}{condition}\r\n"), body);
        stream.write_all(request.as_bytes()).await.expect("the relay reads");
        let refused = read_answer(&mut stream).await;
        assert_eq!((refused.status, refused.problem().field.as_deref()), (400, Some(field)));
    }
    relay.stop().await;
}

#[tokio::test]
async fn requests_of_both_kinds_take_turns_on_one_connection() {
    let relay = TestRelay::start(memory()).await;
    let publish = |number: usize, more: &str| {
        let headers = format!("{JSON}x-request-id: id-{number}\r\n{more}");
        post("/api/v1/messages", &headers, &format!(r#"{{"topic":"turns","payload":{number}}}"#))
    };
    let page =
        "GET /api/v1/topics/turns/messages?order=asc HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n";
    let all = format!(
        "{}{}{}{}{}{page}",
        publish(0, ""),
        publish(1, ""),
        publish(2, "connection: keep-alive\r\n"),
        publish(3, LIBRARY),
        publish(4, ""),
    );
    // However the bytes are cut, all is answered in order.
    for cut in [1, 7, 100, 150, 197, 333, all.len()] {
        let mut stream = relay.connect().await;
        let (mut read, mut write) = stream.split();
        let writing = async {
            for piece in all.as_bytes().chunks(cut) {
                write.write_all(piece).await.expect("the relay reads");
                tokio::task::yield_now().await;
            }
        };
        let mut back = Vec::new();
        let reading = read.read_to_end(&mut back);
        let ((), read) = timeout(STUCK, async { tokio::join!(writing, reading) }).await.expect("in time");
        read.expect("without a reset");
        let text = String::from_utf8_lossy(&back);
        let ids: Vec<_> = text.split("x-request-id: ").skip(1).filter_map(|rest| rest.get(..4)).collect();
        assert_eq!(ids[..5], ["id-0", "id-1", "id-2", "id-3", "id-4"], "{cut}: {text}");
        let page = &back[text.rfind("HTTP/1.1 200 OK").expect("a page")..];
        let payloads: Vec<_> = Answer::parse(page).json()["messages"]
            .as_array()
            .expect("messages")
            .iter()
            .map(|message| message["payload"].as_u64().expect("a number"))
            .collect();
        assert_eq!(payloads[payloads.len() - 5..], [0, 1, 2, 3, 4], "{cut}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_longer() {
    let relay = TestRelay::start_with(memory(), |options| {
        options.header_timeout = Duration::from_millis(400);
        options.http.body_timeout = Duration::from_millis(300);
    })
    .await;
    let whole = post("/api/v1/messages", JSON, r#"{"topic":"slow","payload":1}"#);
    // All but the last byte: the body is late, and that is told.
    let mut stream = relay.connect().await;
    stream.write_all(&whole.as_bytes()[..whole.len() - 1]).await.expect("the relay reads");
    let back = read_to_end(&mut stream).await;
    assert_eq!(Answer::parse(&back).status, 408);
    // Half a head: the connection ends without a word, as for every other request.
    for start in [&whole[..20], ""] {
        let mut stream = relay.connect().await;
        stream.write_all(start.as_bytes()).await.expect("the relay reads");
        assert!(read_to_end(&mut stream).await.is_empty());
    }
    // A client that hangs up in the middle of a body has published nothing.
    let mut stream = relay.connect().await;
    stream.write_all(&whole.as_bytes()[..whole.len() - 1]).await.expect("the relay reads");
    stream.shutdown().await.expect("an open connection");
    assert_eq!(Answer::parse(&read_to_end(&mut stream).await).status, 400);
    // An answered client may be quiet for the time of a head, and then its connection ends.
    let mut stream = relay.connect().await;
    for _ in 0..3 {
        stream.write_all(whole.as_bytes()).await.expect("the relay reads");
        assert_eq!(read_answer(&mut stream).await.status, 201);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(read_to_end(&mut stream).await.is_empty());
    let page = relay.get("/api/v1/topics/slow/messages").await.json();
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(3));
    relay.stop().await;
}

#[tokio::test]
async fn a_node_that_drains_lets_quiet_connections_go() {
    let relay = TestRelay::start(memory()).await;
    let mut stream = relay.connect().await;
    let request = post("/api/v1/messages", JSON, r#"{"topic":"drain","payload":1}"#);
    stream.write_all(request.as_bytes()).await.expect("the relay reads");
    assert_eq!(read_answer(&mut stream).await.status, 201);
    relay.begin_stop();
    assert!(read_to_end(&mut stream).await.is_empty());
    relay.stop().await;
}
