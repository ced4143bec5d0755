//! For which pages a cookie counts, on every door: those of the relay itself, and no others.

use serde_json::{Value, json};
use tidemill::proto::Code;
use tokio_tungstenite::tungstenite::Error;

use super::{BESIDE, EVIL, NAMED, OWN, SAME, log_in, start};
use crate::access::closed::JSON;
use crate::support::raw::{RawConnection, status};
use crate::support::relay::{Answer, TestRelay};
use crate::support::ws::WsClient;

/// What a browser that is logged in reads: the path, and the kind of the answer.
const SAFE: &[(&str, &str)] = &[
    ("/api/v1/topics/t/messages", "*/*"),
    ("/api/v1/topics/t/messages?wait=1&after=earliest", "*/*"),
    ("/api/v1/topics/t", "*/*"),
    ("/api/v1/topics", "*/*"),
    ("/api/v1/topics/stats", "*/*"),
    ("/api/v1/users", "*/*"),
    ("/api/v1/tokens", "*/*"),
    ("/api/v1/roles", "*/*"),
    ("/auth/me", "*/*"),
    ("/auth/users", "*/*"),
    ("/messages/poll/stats", "*/*"),
    ("/metrics", "*/*"),
    ("/api/v1/topics/t/messages?after=earliest", "text/event-stream"),
    ("/api/v1/topics/t/messages?after=earliest", "application/x-ndjson"),
    ("/api/v1/stream?topics=t", "text/event-stream"),
    ("/api/v1/stream?topics=*", "application/x-ndjson"),
];

const LINES: &str = "application/x-ndjson";

/// What it changes, in an order in which all of it can be done: the method, the path, the kind of the body, and that.
fn unsafe_doors() -> Vec<(&'static str, &'static str, &'static str, String)> {
    let json = "application/json";
    let described = json!({ "topic": "t", "payload": 1 });
    [
        ("POST", "/api/v1/messages", json, described.clone()),
        ("POST", "/api/v1/messages/bulk", json, json!({ "messages": [described] })),
        ("POST", "/api/v1/topics/t/messages", json, json!(1)),
        ("POST", "/api/v1/topics/t/messages", LINES, json!(1)),
        ("POST", "/messages/poll", json, json!({ "topics": ["t"], "since": { "t": "earliest" } })),
        ("POST", "/api/v1/topics", json, json!({ "topic_name": "made" })),
        ("PUT", "/api/v1/topics/made", json, json!({ "description": "d" })),
        ("POST", "/api/v1/topics/made/trim", json, json!({ "keep": 0 })),
        ("DELETE", "/api/v1/topics/made", json, Value::Null),
        ("POST", "/api/v1/tokens", json, json!({ "name": "n", "rules": [] })),
        ("POST", "/api/v1/tickets", json, json!({ "topics": ["t"] })),
        ("PUT", "/api/v1/users/bob", json, json!({ "password": "battery staple" })),
        ("DELETE", "/api/v1/users/bob", json, Value::Null),
        ("PUT", "/api/v1/roles/crew", json, json!({ "rules": [] })),
        ("DELETE", "/api/v1/roles/crew", json, Value::Null),
        ("POST", "/api/v1/access/explain", json, json!({ "verb": "read", "topic": "t" })),
        ("POST", "/auth/register", json, json!({ "username": "eve", "password": "battery staple" })),
        ("PATCH", "/auth/users/eve", json, json!({ "is_active": false })),
        ("DELETE", "/auth/users/eve", json, Value::Null),
    ]
    .map(|(method, path, kind, body)| {
        (method, path, kind, if body.is_null() { String::new() } else { body.to_string() })
    })
    .into()
}

/// What is to become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is done.
    Done,
    /// It is refused, because of the page that sends it.
    Refused,
    /// It is as if there were no cookie.
    Nobody,
}

impl Fate {
    /// Returns what has become of a request, some of whose parts may be refused each by itself.
    fn of(answer: &Answer) -> Self {
        if answer.status == 207 {
            return match answer.json()["results"][0]["code"].as_str() {
                None => Self::Done,
                Some("unauthenticated") => Self::Nobody,
                Some(other) => panic!("{other}"),
            };
        }
        match answer.status {
            200..300 => Self::Done,
            403 => {
                assert_eq!(answer.problem().code, Code::OriginForbidden);
                Self::Refused
            }
            401 => Self::Nobody,
            other => panic!("{other} {answer:?}"),
        }
    }
}

pub(super) async fn read(relay: &TestRelay, path: &str, kind: &str, headers: &[(&str, &str)]) -> Fate {
    if kind == "*/*" {
        return Fate::of(&relay.send("GET", path, headers, b"").await);
    }
    let mut connection = RawConnection::connect(relay.address).await.expect("the relay listens");
    let lines: String = headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let head = connection.ask(path, &format!("accept: {kind}\r\n{lines}")).await.expect("an answer");
    match status(&head) {
        200 => Fate::Done,
        403 => Fate::Refused,
        401 => Fate::Nobody,
        other => panic!("{other} {head}"),
    }
}

async fn connect(relay: &TestRelay, cookie: &str, headers: &[(&str, &str)]) -> Fate {
    // Here the relay is called by its address.
    let own = format!("http://{}", relay.address);
    let headers = headers.iter().map(|(name, value)| (*name, if *value == OWN.1 { &*own } else { *value }));
    let headers: Vec<_> = headers.chain([("cookie", cookie)]).collect();
    let mut socket = match WsClient::connect_with(relay.address, &headers).await {
        Ok(socket) => socket,
        Err(Error::Http(answer)) if answer.status() == 403 => return Fate::Refused,
        Err(Error::Http(answer)) if answer.status() == 401 => return Fate::Nobody,
        Err(error) => panic!("{error}"),
    };
    socket.send(json!({ "type": "publish", "topic": "t", "payload": 1 }).to_string()).await;
    let frame = socket.frame().await;
    match (frame["type"].as_str(), frame["details"]["code"].as_str()) {
        (Some("published"), _) => Fate::Done,
        (_, Some("unauthenticated")) => Fate::Nobody,
        _ => panic!("{frame}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_door_the_cookie_counts_for_pages_of_the_relay_alone() {
    use Fate::{Done, Nobody, Refused};

    let relay = start().await;
    let cookie = log_in(&relay).await;
    let sent = ("cookie", &*cookie);
    // What is read, and what changes something or connects, by what the request says of its page.
    for (page, read_is, changed_is) in [
        (&[SAME][..], Done, Done),
        (&[OWN], Done, Done),
        (&[SAME, ("origin", "null")], Done, Done),
        (&[], Done, Refused),
        (&[("sec-fetch-site", "none")], Done, Refused),
        (&[NAMED], Nobody, Nobody),
        (&[NAMED, ("sec-fetch-site", "cross-site")], Nobody, Nobody),
        (&[EVIL], Refused, Refused),
        (&[BESIDE], Refused, Refused),
        (&[("origin", "https://localhost")], Refused, Refused),
        (&[("origin", "null")], Refused, Refused),
        (&[("sec-fetch-site", "same-site")], Refused, Refused),
        (&[("sec-fetch-site", "cross-site")], Refused, Refused),
        (&[BESIDE, ("sec-fetch-site", "same-site")], Refused, Refused),
        (&[OWN, EVIL], Refused, Refused),
        (&[SAME, ("sec-fetch-site", "cross-site")], Refused, Refused),
    ] {
        let headers = [page, &[sent]].concat();
        assert_eq!(
            relay.send("POST", "/api/v1/topics/t/messages", &[JSON, SAME, sent], b"1").await.status,
            201
        );
        for (path, kind) in SAFE {
            let fate = read(&relay, path, kind, &headers).await;
            assert_eq!(fate, read_is, "{path} {kind} {page:?}");
        }
        for (method, path, kind, body) in unsafe_doors() {
            let headers = [&headers[..], &[("content-type", kind)]].concat();
            let answer = relay.send(method, path, &headers, body.as_bytes()).await;
            assert_eq!(Fate::of(&answer), changed_is, "{method} {path} {kind} {page:?}");
            assert_eq!(answer.header("access-control-allow-credentials"), None);
        }
        assert_eq!(connect(&relay, &cookie, page).await, changed_is, "a WebSocket {page:?}");
    }
    // Nor is a page that may use the relay told that it may send cookies along.
    let asked = [NAMED, ("access-control-request-method", "POST"), sent];
    let preflight = relay.send("OPTIONS", "/api/v1/messages", &asked, b"").await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-credentials")), (204, None));
    // Details of probes are for who may administer.
    for (page, is_told) in [(SAME, true), (EVIL, false), (NAMED, false)] {
        let health = relay.send("GET", "/health", &[page, sent], b"").await;
        assert_eq!((health.status, health.json().get("version").is_some()), (200, is_told), "{page:?}");
    }
    relay.stop().await;
}
