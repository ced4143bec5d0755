//! HTTP/2 is served as HTTP/1.1 is: the same answers, the same rules, the same live streams.

use std::time::Duration;

use axum::http::Method;
use tidemill::http::OwnUrl;

use super::{WINDOW, start};
use crate::access::closed::close;
use crate::support::http2::{Http2, whole};
use crate::support::relay::{STUCK, web};
use crate::support::{always, eventually};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn requests_are_answered_side_by_side() {
    let (relay, papers, address) = start(|_| {}).await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    for number in 0..3 {
        let body = format!(r#"{{"n":{number}}}"#);
        let answer = client.send(Method::POST, "/api/v1/topics/t/messages", &[JSON], body.as_bytes()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let page = client.send(Method::GET, "/api/v1/topics/t/messages", &[], b"").await;
    assert_eq!(page.json()["messages"].as_array().map(Vec::len), Some(3));
    // Many windows long.
    let large = format!(r#""{}""#, "z".repeat(500_000));
    let answer = client.send(Method::POST, "/api/v1/topics/large/messages", &[JSON], large.as_bytes()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    // A poll waits, and keeps nobody else waiting.
    let poll = client.ask(Method::GET, "/api/v1/topics/t/messages?wait=20&after=latest", &[], b"");
    let publish = async {
        let others = client.send(Method::GET, "/api/v1/topics/t/messages", &[], b"").await;
        assert_eq!(others.status, 200);
        eventually(STUCK, || async {
            let stats = client.send(Method::GET, "/messages/poll/stats", &[], b"").await.json();
            stats["active_waiters"] == 1
        })
        .await;
        relay.publish("t", r#""found""#).await;
    };
    let (found, ()) = tokio::join!(poll, publish);
    let found = whole(found.expect("an answer")).await.json();
    assert_eq!(found["messages"][0]["payload"], "found");
    let missing = client.send(Method::GET, "/nothing", &[], b"").await;
    assert_eq!(missing.problem().code.as_str(), "not_found");
    let head =
        client.send(Method::HEAD, "/api/v1/topics/t/messages", &[("accept", "text/event-stream")], b"");
    assert_eq!((head.await.status, relay.sessions.count()), (200, 0));
    relay.stop().await;
}

#[tokio::test]
async fn a_large_page_comes_whole() {
    let (relay, papers, address) = start(|_| {}).await;
    let text = "x".repeat(300_000);
    relay.publish("t", &format!(r#""{text}""#)).await;
    relay.publish("t", &format!(r#""{text}""#)).await;
    let client = Http2::connect(&papers, address, 20_000).await;
    let page = client.send(Method::GET, "/api/v1/topics/t/messages", &[], b"").await.json();
    assert_eq!(page["messages"][1]["payload"], text);
    relay.stop().await;
}

#[tokio::test]
async fn live_streams_are_followed_side_by_side() {
    const STREAMS: usize = 20;
    let (relay, papers, address) = start(|_| {}).await;
    relay.publish("t", "0").await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let kind = ["text/event-stream", "application/x-ndjson"][number % 2];
        let path = "/api/v1/topics/t/messages?after=earliest";
        let response = client.ask(Method::GET, path, &[("accept", kind)], b"").await.expect("a stream");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], kind);
        assert!(!response.headers().contains_key("content-length"));
        assert!(response.headers().contains_key("date"));
        streams.push(response.into_body());
    }
    for number in 1..50 {
        relay.publish("t", &number.to_string()).await;
    }
    let padding = "y".repeat(100_000);
    relay.publish("t", &format!(r#""{padding}""#)).await;
    for stream in &mut streams {
        let text = stream.until(&padding).await;
        let payloads: Vec<_> = text.split(r#""payload":"#).skip(1).collect();
        assert_eq!(payloads.len(), 51, "each of them once");
        for (number, payload) in payloads[..50].iter().enumerate() {
            assert!(payload.starts_with(&format!("{number}")), "{number}: {payload}");
        }
    }
    assert_eq!(relay.sessions.count(), STREAMS);
    // Who takes a stream back is gone; the others stay.
    drop(streams.split_off(1));
    eventually(STUCK, || async { relay.sessions.count() == 1 }).await;
    relay.publish("t", r#""after""#).await;
    streams[0].until(r#""after""#).await;
    drop((streams, client));
    eventually(STUCK, || async { relay.sessions.count() == 0 }).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_is_alive() {
    let (relay, papers, address) = start(|options| options.http.ping_every = Duration::from_millis(50)).await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    let accept = ("accept", "application/x-ndjson");
    let response = client.ask(Method::GET, "/api/v1/topics/t/messages", &[accept], b"").await.unwrap();
    let mut stream = response.into_body();
    for _ in 0..3 {
        stream.until(r#""ping""#).await;
    }
    relay.stop().await;
}

#[tokio::test]
async fn streams_end_with_cursors_while_the_relay_drains() {
    let (relay, papers, address) = start(|options| options.drain_spread = Duration::from_millis(100)).await;
    let id = relay.publish("t", "1").await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    let path = "/api/v1/topics/t/messages?after=earliest";
    let response = client.ask(Method::GET, path, &[("accept", "text/event-stream")], b"").await.unwrap();
    let mut stream = response.into_body();
    stream.until(&id).await;
    relay.begin_stop();
    let last = stream.rest().await.expect("a stream that ends well");
    assert!(last.contains("event: end") && last.contains(&id), "{last}");
    client.ended().await;
    relay.stop().await;
}

#[tokio::test]
async fn a_session_that_is_ended_says_so() {
    let (relay, papers, address) = start(|_| {}).await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    let accept = ("accept", "text/event-stream");
    let response = client.ask(Method::GET, "/api/v1/stream?topics=a,b", &[accept], b"").await.unwrap();
    let mut stream = response.into_body();
    stream.until("subscribed").await;
    relay.sessions.end(&tidemill::access::Caller::anyone());
    let last = stream.rest().await.expect("a stream that ends well");
    assert!(last.contains("event: end"), "{last}");
    let page = client.send(Method::GET, "/api/v1/topics", &[], b"").await;
    assert_eq!(page.status, 200, "the connection goes on");
    relay.stop().await;
}

#[tokio::test]
async fn web_sockets_stay_on_http_1() {
    let (relay, papers, address) = start(|_| {}).await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    let answer = client.send(Method::GET, "/ws", &[("sec-websocket-version", "13")], b"").await;
    assert_eq!(answer.status, 400);
    assert!(answer.problem().detail.contains("HTTP/1.1"), "{answer:?}");
    relay.stop().await;
}

#[tokio::test]
async fn pages_of_others_are_refused_whatever_they_call_the_relay() {
    let (relay, papers, address) = start(|options| {
        options.web = web(&["https://allowed.example"]);
    })
    .await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    let own = format!("https://{address}");
    let path = "/api/v1/topics/t/messages";
    let cases = [
        (None, None, 201),
        (Some(own.as_str()), None, 201),
        (Some("https://allowed.example"), None, 201),
        (Some("https://evil.example"), None, 403),
        (Some("https://evil.example"), Some("evil.example"), 400),
        (Some("null"), None, 403),
    ];
    for (origin, host, status) in cases {
        let mut headers = vec![JSON];
        headers.extend(origin.map(|origin| ("origin", origin)));
        headers.extend(host.map(|host| ("host", host)));
        let answer = client.send(Method::POST, path, &headers, b"1").await;
        assert_eq!(answer.status, status, "{origin:?} {host:?}: {answer:?}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_is_called_by_its_names_alone() {
    use tidemill::access::{TrustedHosts, WebRules};

    let (relay, papers, address) =
        start(|options| options.web = WebRules::new([], TrustedHosts::Loopback)).await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    for (authority, status) in [("localhost", 200), ("evil.example", 403), ("evil.example:443", 403)] {
        let answer = client.ask_for(authority, Method::GET, "/api/v1/topics", &[], b"").await;
        assert_eq!(whole(answer.expect("an answer")).await.status, status, "{authority}");
        let probe = client.ask_for(authority, Method::GET, "/health", &[], b"").await;
        assert_eq!(whole(probe.expect("an answer")).await.status, 200, "{authority}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn what_is_under_way_counts_as_connections() {
    let (relay, papers, address) = start(|options| options.connections_per_address_max = 3).await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    let accept = ("accept", "text/event-stream");
    let open = async || client.ask(Method::GET, "/api/v1/topics/t/messages", &[accept], b"").await.unwrap();
    let (one, two) = (open().await, open().await);
    assert_eq!((one.status(), two.status()), (200.try_into().unwrap(), 200.try_into().unwrap()));
    let refused = whole(open().await).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after").map(str::parse::<u64>), Some(Ok(1)));
    assert_eq!(refused.json()["code"], "overloaded");
    drop(one);
    eventually(STUCK, || async { open().await.status() == 200 }).await;
    drop(two);
    relay.stop().await;
}

#[tokio::test]
async fn a_connection_with_nothing_under_way_is_closed() {
    let (relay, papers, address) = start(|options| options.header_timeout = Duration::from_millis(200)).await;
    let idle = Http2::connect(&papers, address, WINDOW).await;
    let busy = Http2::connect(&papers, address, WINDOW).await;
    let accept = ("accept", "text/event-stream");
    let response = busy.ask(Method::GET, "/api/v1/topics/t/messages", &[accept], b"").await.unwrap();
    let mut stream = response.into_body();
    stream.until("subscribed").await;
    idle.ended().await;
    always(Duration::from_millis(500), || async { relay.sessions.count() == 1 }).await;
    relay.publish("t", r#""still""#).await;
    stream.until(r#""still""#).await;
    relay.stop().await;
}

#[tokio::test]
async fn who_never_begins_is_cut_off_in_time() {
    use tokio::io::AsyncReadExt as _;

    let (relay, papers, address) = start(|options| options.header_timeout = Duration::from_millis(200)).await;
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut stream = papers.try_agree(stream, &[b"h2"]).await.unwrap();
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    drop(tokio::time::timeout(STUCK, read).await.expect("the relay hangs up"));
    relay.stop().await;
}

/// Over HTTP/2 a browser sends each cookie in a line of its own (RFC 9113 section 8.2.3).
#[tokio::test]
async fn cookies_that_are_cut_into_lines_are_read() {
    let (relay, papers, address) = start(|options| {
        close(options);
        options.http.own_url = OwnUrl::AsAsked { tls: true };
    })
    .await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    let origin = format!("https://{address}");
    let (own, form) = (("origin", &*origin), ("content-type", "application/x-www-form-urlencoded"));
    let body = b"username=root&password=correct+horse";
    let made = client.send(Method::POST, "/auth/cookie", &[own, form], body).await;
    let cookie =
        made.header("set-cookie").expect("it sets one").split(';').next().expect("a pair").to_owned();
    assert!(cookie.starts_with("__Host-tidemill=tc_"), "{cookie}");
    let cookies = [("cookie", "a=b"), ("cookie", &*cookie), ("cookie", "c=d")];
    let path = "/api/v1/topics/t/messages";
    for (page, expected) in [(Some(own), 201), (None, 403), (Some(("origin", "https://evil.example")), 403)] {
        let headers: Vec<_> = [JSON].into_iter().chain(page).chain(cookies).collect();
        assert_eq!(client.send(Method::POST, path, &headers, b"1").await.status, expected, "{page:?}");
    }
    let twice = [("cookie", &*cookie), ("cookie", &*cookie)];
    assert_eq!(client.send(Method::GET, path, &twice, b"").await.status, 401);
    let stream = [("accept", "text/event-stream"), cookies[1]];
    assert_eq!(client.ask(Method::GET, path, &stream, b"").await.expect("a stream").status(), 200);
    relay.stop().await;
}
