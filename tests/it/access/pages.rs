//! Web pages of other sites before a closed relay: on no door do they change anything, and of nothing may they read the
//! answer, whatever their origin looks like, and although somebody's credentials come with the request.

use serde_json::{Value, json};
use tidemill::proto::Code;

use super::closed::{self, ROOT, close, send, token, user};
use crate::support::relay::{Answer, TestRelay, memory, web};

const APP: &str = "https://app.example";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// Origins that are neither the one that may, nor that of the relay, which is asked as `localhost`. A list is sent as
/// several headers.
const HOSTILE: &[&[&str]] = &[
    &["https://evil.example"],
    &["null"],
    &["NULL"],
    &[""],
    &["*"],
    &["https://*"],
    &["https://*.example"],
    // Something behind it, or before it.
    &["https://app.example.evil.example"],
    &["https://evil-app.example"],
    &["https://evil.app.example"],
    &["https://app.examples"],
    &["https://app.exampl"],
    &["https://app"],
    &["app.example"],
    &["//app.example"],
    &["https:app.example"],
    // Another scheme, port, case, or way to write it.
    &["http://app.example"],
    &["wss://app.example"],
    &["https://app.example:443"],
    &["https://app.example:8443"],
    &["https://app.example:"],
    &["https://APP.example"],
    &["HTTPS://app.example"],
    &["https://app.example."],
    &["https://app.example/"],
    &["https://app.example/page"],
    &["https://app.example?"],
    &["https://app.example#"],
    &["https://app.example\\.evil.example"],
    &["https://app%2eexample"],
    &["https://app.example%00.evil.example"],
    &["https://app.example@evil.example"],
    &["https://evil.example@app.example"],
    &["https://\u{430}pp.example"],
    &["https://app\u{3002}example"],
    &["https://xn--pp-7kc.example"],
    // Several in one.
    &["https://app.example, https://evil.example"],
    &["https://app.example https://evil.example"],
    &["https://app.example;https://evil.example"],
    &["https://app.example", "https://evil.example"],
    &["https://evil.example", "https://app.example"],
    &["https://app.example", "https://app.example"],
    &["http://localhost", "http://localhost"],
    // What looks like the relay itself.
    &["localhost"],
    &["http://localhost/"],
    &["http://localhost.evil.example"],
    &["http://evil.localhost"],
    &["http://localhost@evil.example"],
    &["http://localhost:80:80"],
    &["http://localhost:99999"],
    &["http://127.0.0.1"],
    &["http://[::1]"],
    &["ftp://localhost"],
    &["file://localhost"],
    &["file://"],
    &["chrome-extension://abcdefgh"],
    &["moz-extension://localhost"],
    &["about:blank"],
    &["data:"],
];

/// What changes something, or connects: a method, a path, a content type, a body.
const WRITES: &[(&str, &str, &str, &str)] = &[
    ("POST", "/api/v1/messages", JSON, r#"{"topic":"t","payload":"evil"}"#),
    ("POST", "/api/v1/messages", "text/plain", r#"{"topic":"t","payload":"evil"}"#),
    ("POST", "/api/v1/messages/bulk", JSON, r#"{"messages":[{"topic":"t","payload":"evil"}]}"#),
    ("POST", "/api/v1/topics/t/messages", JSON, "\"evil\""),
    ("POST", "/api/v1/topics/t/messages", "text/plain", "evil"),
    ("POST", "/api/v1/topics/t/messages", "application/x-ndjson", "\"evil\"\n"),
    ("POST", "/messages/poll", JSON, r#"{"topics":["t"],"since":{"t":"earliest"},"timeout":1}"#),
    ("POST", "/api/v1/topics", JSON, r#"{"topic_name":"evil"}"#),
    ("PUT", "/api/v1/topics/t", JSON, r#"{"description":"evil"}"#),
    ("POST", "/api/v1/topics/t/trim", JSON, r#"{"keep":0}"#),
    ("DELETE", "/api/v1/topics/t/messages/1-1", "", ""),
    ("DELETE", "/api/v1/topics/t", "", ""),
    ("POST", "/api/v1/tokens", JSON, r#"{"name":"evil","rules":["allow admin *"]}"#),
    ("POST", "/api/v1/tickets", JSON, r#"{"topics":["t"]}"#),
    ("PUT", "/api/v1/users/evil", JSON, r#"{"password":"correct horse"}"#),
    ("DELETE", "/api/v1/users/ann", "", ""),
    ("PUT", "/api/v1/roles/anonymous", JSON, r#"{"rules":["allow read *"]}"#),
    ("DELETE", "/api/v1/roles/read", "", ""),
    ("POST", "/api/v1/access/explain", JSON, r#"{"verb":"read","topic":"t"}"#),
    ("POST", "/auth/login", FORM, "username=ann&password=correct+horse"),
    ("POST", "/auth/cookie", JSON, r#"{"username":"ann","password":"correct horse"}"#),
    ("POST", "/auth/token/refresh", JSON, r#"{"refresh_token":"x"}"#),
    ("POST", "/auth/token/revoke", JSON, r#"{"refresh_token":"x"}"#),
    ("POST", "/auth/logout", "", ""),
    ("POST", "/auth/register", JSON, r#"{"username":"evil","password":"correct horse"}"#),
    ("PATCH", "/auth/users/ann", JSON, r#"{"permissions":["admin"]}"#),
    ("DELETE", "/auth/users/ann", "", ""),
    ("POST", "/auth/device/code", FORM, ""),
    ("POST", "/auth/device", FORM, "user_code=x&username=ann&password=correct+horse&decision=allow"),
    ("GET", "/ws", "", ""),
];

/// What is read: a path, and what is accepted. Each answers at once.
const READS: &[(&str, &str)] = &[
    ("/api/v1/topics", JSON),
    ("/api/v1/topics/t", JSON),
    ("/api/v1/topics/t/messages", JSON),
    ("/api/v1/topics/t/messages?wait=1&after=earliest&order=asc", JSON),
    ("/api/v1/topics/t/messages/1-1", JSON),
    ("/api/v1/topics/t/messages/1-1/payload", JSON),
    ("/api/v1/topics/none/messages?after=1-1&must_exist=true", "text/event-stream"),
    ("/api/v1/topics/none/messages?after=1-1&must_exist=true", "application/x-ndjson"),
    ("/api/v1/stream?topics=none&must_exist=true", "text/event-stream"),
    ("/api/v1/tokens", JSON),
    ("/api/v1/users", JSON),
    ("/auth/me", JSON),
    ("/auth/device", "text/html"),
    ("/health", JSON),
    ("/ready", JSON),
    ("/metrics", "text/plain"),
    ("/openapi.json", JSON),
    ("/nowhere", JSON),
];

/// A request as a page of these origins makes it, with the credentials of somebody who may everything.
async fn ask(
    relay: &TestRelay,
    origins: &[&str],
    who: &str,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: {}\r\ncontent-length: {}\r\nauthorization: {who}\r\n",
        if path == "/ws" { "upgrade, close" } else { "close" },
        body.len()
    );
    if path == "/ws" {
        head += "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    }
    for origin in origins {
        head.extend(["origin: ", origin, "\r\n"]);
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        head.extend([name, ": ", value, "\r\n"]);
    }
    Answer::parse(&relay.raw(format!("{head}\r\n{body}").as_bytes()).await)
}

fn may_be_read(answer: &Answer) -> Option<&str> {
    assert_eq!(answer.header("access-control-allow-credentials"), None, "{answer:?}");
    answer.header("access-control-allow-origin")
}

async fn closed_relay() -> (TestRelay, String) {
    let relay = TestRelay::start_with(memory(), |options| {
        close(options);
        options.web = web(&[APP]);
    })
    .await;
    user(&relay, "ann", &["read"]).await;
    let (_, all) = token(&relay, ROOT, &["allow publish,read,manage *", "allow admin *"]).await;
    let body = json!({ "topic": "t", "payload": "own" });
    assert_eq!(send(&relay, Some(&all), "POST", "/api/v1/messages", &body).await.status, 201);
    (relay, all)
}

async fn state(relay: &TestRelay, all: &str) -> Value {
    let ask = async |path: &str| send(relay, Some(all), "GET", path, &Value::Null).await.json();
    let (topics, page) = (ask("/api/v1/topics").await, ask("/api/v1/topics/t/messages").await);
    let (users, roles) = (ask("/api/v1/users").await, ask("/api/v1/roles").await);
    let tokens = ask("/api/v1/tokens").await.as_array().expect("a list").len();
    json!([topics, page, users, roles, tokens])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_change_nothing_on_any_door() {
    let (relay, all) = closed_relay().await;
    let before = state(&relay, &all).await;
    for origins in HOSTILE {
        for (method, path, kind, body) in WRITES {
            // With what is good for everything here: a page may have got hold of it, or a browser may send it.
            let answer = ask(&relay, origins, &all, (method, path), &[("content-type", kind)], body).await;
            assert_eq!(answer.status, 403, "{method} {path} from {origins:?}: {answer:?}");
            assert_eq!(answer.problem().code, Code::OriginForbidden, "{method} {path} from {origins:?}");
            assert_eq!(may_be_read(&answer), None, "{method} {path} from {origins:?}");
        }
    }
    // As they come from a browser that says that the page is of another site, whatever it says of its origin.
    for origins in [&[][..], &["https://evil.example"], &["null"]] {
        for (method, path, kind, body) in WRITES {
            let headers = [("content-type", *kind), ("sec-fetch-site", "cross-site")];
            let answer = ask(&relay, origins, &all, (method, path), &headers, body).await;
            assert_eq!(answer.status, 403, "{method} {path} from {origins:?}: {answer:?}");
        }
    }
    assert_eq!(state(&relay, &all).await, before, "nothing was changed");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_may_read_no_answer() {
    let (relay, all) = closed_relay().await;
    for (path, accept) in READS {
        let plain = ask(&relay, &[], &all, ("GET", path), &[("accept", accept)], "").await.status;
        for origins in HOSTILE {
            let answer = ask(&relay, origins, &all, ("GET", path), &[("accept", accept)], "").await;
            assert_eq!(may_be_read(&answer), None, "{path} for {origins:?}: {answer:?}");
            assert_eq!(answer.status, plain, "{path} for {origins:?}");
            // Nor is it asked beforehand whether it may.
            let asks = [
                ("access-control-request-method", "GET"),
                ("access-control-request-headers", "authorization"),
            ];
            let preflight = ask(&relay, origins, &all, ("OPTIONS", path), &asks, "").await;
            assert_eq!((preflight.status, may_be_read(&preflight)), (403, None), "{path} for {origins:?}");
        }
        let answer = ask(&relay, &[APP], &all, ("GET", path), &[("accept", accept)], "").await;
        assert_eq!((may_be_read(&answer), answer.status), (Some(APP), plain), "{path}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn the_page_that_may_goes_through_every_door() {
    let (relay, all) = closed_relay().await;
    for origin in [APP, "http://localhost"] {
        // A cookie is for pages of the relay alone.
        let is_for_it = |path: &str| path != "/ws" && (path != "/auth/cookie" || origin != APP);
        for (method, path, kind, body) in WRITES.iter().filter(|(_, path, ..)| is_for_it(path)) {
            let answer = ask(&relay, &[origin], &all, (method, path), &[("content-type", kind)], body).await;
            let is_refused = answer.status == 403 && answer.text().contains("origin_forbidden");
            assert!(!is_refused, "{method} {path} from {origin}: {answer:?}");
            assert_eq!(may_be_read(&answer), (origin == APP).then_some(APP), "{method} {path}");
        }
    }
    for origin in [APP, &format!("http://{}", relay.address)] {
        let headers = [("authorization", &*all), ("origin", origin)];
        let upgraded = crate::support::ws::WsClient::connect_with(relay.address, &headers).await;
        assert!(upgraded.is_ok(), "{origin}: {:?}", upgraded.err());
    }
    assert_eq!(closed::send(&relay, Some(&all), "GET", "/health", &Value::Null).await.status, 200);
    relay.stop().await;
}
