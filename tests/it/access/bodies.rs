//! Bodies that nobody asked for: who may do nothing with one does not make the relay read it, nor decode it.

use std::time::Duration;

use serde_json::Value;
use tidemill::proto::Code;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::closed::{self, ROOT, token};
use crate::support::relay::{Answer, TestRelay, memory};

/// Who may send a body without saying who calls: none of these is decoded.
const ANYBODY: [&str; 7] = [
    "/auth/login",
    "/auth/cookie",
    "/auth/token/refresh",
    "/auth/token/revoke",
    "/auth/device/code",
    "/auth/device/token",
    "/auth/device",
];

/// What takes a body and stands in no document: a method, a path, and a content type.
const UNDESCRIBED: [(&str, &str, &str); 3] = [
    ("PUT", "/api/v1/topics/stats", "application/json"),
    ("PATCH", "/auth/users/stats", "application/json"),
    ("POST", "/auth/device", "application/x-www-form-urlencoded"),
];

/// How soon who is refused without being read is answered: nothing is waited for.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Returns each request that takes a body: its method, its path, and a content type.
async fn with_bodies(relay: &TestRelay) -> Vec<(String, String, String)> {
    let document = relay.get("/openapi.json").await.json();
    let mut all: Vec<_> = UNDESCRIBED.map(|(one, two, three)| (one.into(), two.into(), three.into())).into();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            for kind in
                operation["requestBody"]["content"].as_object().into_iter().flat_map(|them| them.keys())
            {
                let path =
                    path.replace("{topic}", "t").replace("{message_id}", "1-1").replace("{group}", "g");
                let path = path.replace("{bucket}", "b").replace("{key}", "k");
                let path = path.replace("{room}", "r").replace("{member}", "m");
                let path = path.replace("{lock}", "l").replace("limits/{name}", "limits/n");
                let path = path.replace("{lease}", &"0".repeat(32)).replace("{series}", "s");
                let path = path
                    .split('{')
                    .next()
                    .map(|start| if start.len() < path.len() { format!("{start}x") } else { path.clone() });
                all.push((method.to_uppercase(), path.expect("a path"), kind.clone()));
            }
        }
    }
    assert!(all.len() > 20, "the operations are found: {all:?}");
    all
}

fn code(answer: &Answer) -> Code {
    assert!(answer.status >= 400, "{answer:?}");
    answer.problem().code
}

#[tokio::test]
async fn nothing_is_decoded_for_who_may_do_nothing_with_it() {
    let relay = closed::start(memory()).await;
    let (_, nothing) = token(&relay, ROOT, &[]).await;
    let rules = [
        "allow publish,read,manage,work *",
        "allow publish,read,manage keys/*",
        "allow publish presence/*",
        "allow work,read locks/*",
        "allow work,read limits/*",
        "allow publish,read series/*",
        "allow admin *",
    ];
    let (_, all) = token(&relay, ROOT, &rules).await;
    for (method, path, kind) in with_bodies(&relay).await {
        let send = async |who: Option<&str>| {
            let who = who.map(|who| ("authorization", who));
            let headers: Vec<_> =
                [("content-type", &*kind), ("content-encoding", "gzip")].into_iter().chain(who).collect();
            // Whoever decodes it finds that it is none.
            code(&relay.send(&method, &path, &headers, b"this is not gzip").await)
        };
        let shown = format!("{method} {path} {kind}");
        if ANYBODY.contains(&&*path) {
            for who in [None, Some(&*all), Some("Bearer nonsense")] {
                assert_eq!(send(who).await, Code::UnsupportedEncoding, "{shown} from {who:?}");
            }
            continue;
        }
        for who in [None, Some("Bearer nonsense"), Some("Basic eDp5")] {
            assert_eq!(send(who).await, Code::Unauthenticated, "{shown} from {who:?}");
        }
        // Of who calls, and about nothing else: it says who it is.
        let is_own = ["/api/v1/tokens", "/api/v1/tickets", "/api/v1/access/explain"].contains(&&*path);
        let expected = if is_own { Code::InvalidRequest } else { Code::Forbidden };
        assert_eq!(send(Some(&nothing)).await, expected, "{shown} from who may do nothing");
        assert_eq!(send(Some(&all)).await, Code::InvalidRequest, "{shown} from who may");
    }
    relay.stop().await;
}

/// Reads the head of an answer.
async fn head(relay: &TestRelay, request: &str) -> String {
    let mut stream = relay.connect().await;
    stream.write_all(request.as_bytes()).await.expect("the relay reads");
    let mut bytes = Vec::new();
    let read = async {
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await.expect("an answer"));
        }
    };
    timeout(AT_ONCE, read).await.unwrap_or_else(|_| panic!("it waits for the body of {request}"));
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn who_may_do_nothing_with_a_body_is_refused_before_it_comes() {
    let relay = TestRelay::start_with(memory(), |options| {
        closed::close(options);
        options.http.body_timeout = 4 * AT_ONCE;
    })
    .await;
    let (_, nothing) = token(&relay, ROOT, &["allow read,publish,manage keys/*"]).await;
    for (method, path, kind) in with_bodies(&relay).await {
        if ANYBODY.contains(&&*path) {
            continue;
        }
        let ask = async |more: &str| {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: 1000\r\n{more}\r\n"
            );
            head(&relay, &request).await
        };
        let told = ask("").await;
        assert!(told.starts_with("HTTP/1.1 401 "), "{method} {path} {kind}: {told}");
        if path.ends_with("/messages") || path.ends_with("/bulk") || path.ends_with("/trim") {
            let told = ask(&format!("authorization: {nothing}\r\n")).await;
            assert!(told.starts_with("HTTP/1.1 403 "), "{method} {path} {kind}: {told}");
        }
    }
    let metrics = closed::send(&relay, Some(ROOT), "GET", "/api/v1/tokens", &Value::Null).await;
    assert_eq!(metrics.status, 200, "and others are served");
    relay.stop().await;
}
