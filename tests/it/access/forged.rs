//! Credentials that nobody has given out, on every door and in every place where credentials are shown: whoever shows
//! them is nobody, and nothing happens.
//!
//! What is wrong with each JWT, and as what it is refused, stands in `credentials`; here it is that no door is another
//! way in.

use futures_util::future::join_all;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tidemill::access::{Issuer, NewToken, TokenId, TokenKind};
use tokio::io::AsyncWriteExt as _;

use super::closed::{ROOT, close, send, token, user};
use super::doors::{MANAGE, Outcome, PUBLISH, READ, WORK, go, of_answer, upgrade};
use crate::credentials::forgeries::{
    Forgery, ISSUER, LARGE_BYTES, confused, malformed, misled, right, wrongly_typed,
};
use crate::credentials::signer::{Signer, set};
use crate::support::length::pick;
use crate::support::relay::{TestRelay, memory, read_answer};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// A head that is larger than any of these: so it is not its size that is refused.
const HEADERS_BYTES_MAX: usize = 256 * 1024;

/// A relay that knows an issuer with a key of each algorithm, and its keys.
struct Known {
    relay: TestRelay,
    keys: [Signer; 4],
    _folder: tempfile::TempDir,
}

impl Known {
    async fn start() -> Self {
        let keys = Signer::each();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        // A secret is no part of a set that is published: it has an issuer of its own.
        std::fs::write(&path, set(&[&keys[1], &keys[2], &keys[3]])).unwrap();
        let issuers = format!(
            "{ISSUER};aud=tidemill;file={} own;aud=tidemill;alg=HS256;secret={}",
            path.display(),
            keys[0].verifies
        );
        let relay = TestRelay::start_with(memory(), |options| {
            close(options);
            options.http.headers_bytes_max = HEADERS_BYTES_MAX;
            options.access.issuers = Issuer::parse_all(&issuers).unwrap();
        })
        .await;
        Self { relay, keys, _folder: folder }
    }
}

/// Secrets of the relay that are not given out, are over, or are for something else.
async fn of_the_relay(relay: &TestRelay) -> Vec<Forgery> {
    let text = |answer: Value, field: &str| answer[field].as_str().expect("a text").to_owned();
    let (id, right) = token(relay, ROOT, &["allow publish,read,manage *", "allow admin *"]).await;
    let right = right.trim_start_matches("Bearer ").to_owned();
    let of_id = |kind| NewToken::with_id(kind, TokenId::parse(&id).unwrap()).text.expose_secret().to_owned();
    let (gone, revoked) = token(relay, ROOT, &["allow publish,read,manage *"]).await;
    let path = format!("/api/v1/tokens/{gone}");
    assert_eq!(send(relay, Some(ROOT), "DELETE", &path, &Value::Null).await.status, 204);
    let wanted = json!({ "name": "t", "rules": ["allow read *"], "expires_in": 1 });
    let expired = text(send(relay, Some(ROOT), "POST", "/api/v1/tokens", &wanted).await.json(), "token");
    crate::support::eventually(std::time::Duration::from_secs(5), async || {
        let who = format!("Bearer {expired}");
        send(relay, Some(&who), "GET", "/api/v1/topics", &Value::Null).await.status == 401
    })
    .await;
    user(relay, "ann", &["write"]).await;
    let log_in = async || {
        let form = b"username=ann&password=correct+horse";
        relay.send("POST", "/auth/login", &[FORM], form).await.json()
    };
    let (over, going_on) = (log_in().await, log_in().await);
    let over = text(over, "access_token");
    let who = format!("Bearer {over}");
    assert_eq!(send(relay, Some(&who), "POST", "/auth/logout", &Value::Null).await.status, 204);
    let wanted = json!({ "rules": ["allow publish,read *"] });
    let who = format!("Bearer {right}");
    let ticket = text(send(relay, Some(&who), "POST", "/api/v1/tickets", &wanted).await.json(), "ticket");
    let device = relay.send("POST", "/auth/device/code", &[FORM], b"").await.json();
    let last = if right.ends_with('0') { "1" } else { "0" };
    let mut all = vec![
        ("revoked", revoked.trim_start_matches("Bearer ").to_owned()),
        ("expired", expired),
        ("of a log-in that is over", over),
        ("a refresh token", text(going_on, "refresh_token")),
        ("a ticket", ticket),
        ("the code of a device", text(device.clone(), "device_code")),
        ("the short code of a device", text(device, "user_code")),
        ("mistyped", format!("{}{last}", &right[..right.len() - 1])),
        ("too short", right[..60].to_owned()),
        ("too long", format!("{right}0")),
        ("in capitals", right.to_uppercase()),
        ("its id alone", id.clone()),
        ("with another id's secret", of_id(TokenKind::Token)),
        ("as an access token", right.replacen("tm_", "ta_", 1)),
        ("an access token of its id", of_id(TokenKind::Access)),
        ("a password", "correct horse".to_owned()),
        ("nothing but its kind", "tm_".to_owned()),
        ("large", format!("tm_{}", "a".repeat(LARGE_BYTES))),
        ("large, of a log-in", format!("ta_{}", "0".repeat(LARGE_BYTES))),
        ("its path", "tm_../../../etc/passwd".to_owned()),
    ];
    for kind in
        [TokenKind::Token, TokenKind::Access, TokenKind::Ticket, TokenKind::Refresh, TokenKind::Device]
    {
        all.push(("made up", NewToken::make(kind).text.expose_secret().to_owned()));
    }
    all.into_iter()
        .map(|(what, token)| (format!("{what} ({})", &token[..3.min(token.len())]), token))
        .collect()
}

/// Where credentials are read, each in its own way.
const PLACES: [&str; 3] = ["described", "slow", "socket"];

/// Shows a text in the header, at these doors of topics.
async fn in_the_header(relay: &TestRelay, shown: &str, doors: &[&str]) -> Vec<(String, Outcome)> {
    let who = format!("Bearer {shown}");
    let who = &who;
    let topics = doors.iter().map(async |door| {
        (format!("the header at `{door}`"), go(relay, Some(who), door, "b.there", "1-1").await)
    });
    join_all(topics).await
}

/// Publishes as somebody, and shows a text in the next request over the same connection, which remembers who called.
async fn behind(relay: &TestRelay, right: &str, shown: &str) -> Outcome {
    let mut stream = relay.connect().await;
    let mut publish = async |who: &str| {
        let head =
            "POST /api/v1/topics/last/messages HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\n";
        let request = format!("{head}authorization: {who}\r\ncontent-length: 1\r\n\r\n1");
        stream.write_all(request.as_bytes()).await.expect("the relay reads");
        of_answer(&read_answer(&mut stream).await)
    };
    assert_eq!(publish(right).await.0, None, "it may");
    publish(&format!("Bearer {shown}")).await
}

/// Shows a text in the header, where nothing is about topics.
async fn to_administer(relay: &TestRelay, shown: &str) -> Vec<(String, Outcome)> {
    let who = format!("Bearer {shown}");
    let asked = [
        ("GET", "/api/v1/topics", Value::Null),
        ("GET", "/api/v1/topics/stats", Value::Null),
        ("POST", "/api/v1/tokens", json!({ "name": "t", "rules": [] })),
        ("POST", "/api/v1/tickets", json!({ "topics": ["b.there"] })),
        ("PUT", "/api/v1/users/eve", json!({ "password": "correct horse", "roles": ["admin"] })),
        ("PUT", "/api/v1/roles/anonymous", json!({ "rules": ["allow read *"] })),
        ("POST", "/api/v1/access/explain", json!({ "verb": "read", "topic": "t" })),
        ("PATCH", "/auth/users/ann", json!({ "permissions": ["admin"] })),
        ("GET", "/auth/me", Value::Null),
        ("POST", "/auth/logout", Value::Null),
        ("GET", "/metrics", Value::Null),
    ];
    let ask = asked.iter().map(async |(method, path, body)| {
        let answer = send(relay, Some(&who), method, path, body).await;
        (format!("the header at {method} {path}"), of_answer(&answer))
    });
    join_all(ask).await
}

/// Shows a text where a secret of the relay stands that is none for a header.
async fn elsewhere(relay: &TestRelay, shown: &str) -> Vec<(String, Outcome)> {
    let mut all = Vec::new();
    let mut note = |place: &str, outcome| all.push((place.to_owned(), outcome));
    // Of a subprotocol only what can stand in one.
    if !shown.contains([' ', ',', '"']) {
        let protocols = format!("bearer, bearer.{shown}");
        let upgraded = upgrade(relay, &[("sec-websocket-protocol", &protocols)]).await;
        note("the subprotocol", upgraded.err().unwrap_or((None, String::new())));
    }
    // As a page of the relay itself sends it, from which alone a cookie is taken.
    let cookie = format!("tidemill={shown}");
    let headers =
        [("cookie", &*cookie), ("sec-fetch-site", "same-origin"), ("content-type", "application/json")];
    if shown.bytes().all(|byte| byte.is_ascii_graphic()) {
        for (method, path, body) in [
            ("GET", "/api/v1/topics/b.there/messages", ""),
            ("POST", "/api/v1/topics/b.there/messages", "1"),
            ("POST", "/api/v1/tokens", r#"{"name":"t","rules":[]}"#),
            ("GET", "/auth/me", ""),
        ] {
            let answer = relay.send(method, path, &headers, body.as_bytes()).await;
            note("a cookie", of_answer(&answer));
        }
    }
    let escaped: String = url::form_urlencoded::byte_serialize(shown.as_bytes()).collect();
    let path = format!("/api/v1/topics/b.there/messages?after=earliest&ticket={escaped}");
    // What is a ticket is good for it.
    if !shown.starts_with("tk_") && path.len() < LARGE_BYTES {
        let answer = relay.send("GET", &path, &[("accept", "text/event-stream")], b"").await;
        note("a ticket", of_answer(&answer));
    }
    let form = format!("username=ann&password={escaped}");
    if form.len() < LARGE_BYTES && shown != "correct horse" {
        note("a password", of_answer(&relay.send("POST", "/auth/login", &[FORM], form.as_bytes()).await));
    }
    if shown.len() < LARGE_BYTES / 2 && !shown.starts_with("tr_") {
        let body = json!({ "refresh_token": shown });
        let answer = send(relay, None, "POST", "/auth/token/refresh", &body).await;
        note("a refresh token", of_answer(&answer));
    }
    all
}

/// Returns all that could have been changed.
async fn state(relay: &TestRelay) -> Value {
    let (_, admin) = token(relay, ROOT, &["allow admin *", "allow read *"]).await;
    let ask = async |path: &str| send(relay, Some(&admin), "GET", path, &Value::Null).await.json();
    let (topics, users, roles) =
        (ask("/api/v1/topics").await, ask("/api/v1/users").await, ask("/api/v1/roles").await);
    let page = ask("/api/v1/topics/b.there/messages").await;
    json!([topics, users, roles, page])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_given_out_opens_no_door_and_changes_nothing() {
    let known = Known::start().await;
    let Known { relay, keys, .. } = &known;
    let body = json!({ "topic": "b.there", "payload": 1 });
    for key in keys {
        // So that what is refused below is refused for what is wrong with it.
        let right = format!("Bearer {}", key.sign(&right(key)));
        let answer = send(relay, Some(&right), "POST", "/api/v1/messages", &body).await;
        assert_eq!(answer.status, 201, "{:?}: {answer:?}", key.algorithm);
    }
    let mut forged = confused(keys);
    forged.extend(wrongly_typed(&keys[2]));
    forged.extend(misled(&keys[2]));
    forged.extend(malformed(&keys[2]));
    forged.extend(of_the_relay(relay).await);
    let (_, publisher) = token(relay, ROOT, &["allow publish last"]).await;
    assert_eq!(behind(relay, &publisher, "nonsense").await.0.as_deref(), Some("unauthenticated"));
    let before = state(relay).await;
    let (doors, every) = ([&PUBLISH[..], &READ, &WORK, &MANAGE].concat(), pick(10, 1));
    for (at, (what, shown)) in forged.iter().enumerate() {
        // What is wrong with it is found in one place; that all doors ask there, a part of them shows.
        let mut outcomes = if at % every == 0 {
            [in_the_header(relay, shown, &doors).await, to_administer(relay, shown).await].concat()
        } else {
            in_the_header(relay, shown, &PLACES).await
        };
        outcomes.extend(elsewhere(relay, shown).await);
        outcomes.push(("the header behind a right one".to_owned(), behind(relay, &publisher, shown).await));
        for (door, (code, detail)) in outcomes {
            assert_eq!(code.as_deref(), Some("unauthenticated"), "{what}, as {door}: {detail}");
            assert!(shown.len() < 20 || !detail.contains(&**shown), "{what}, as {door}: {detail}");
        }
    }
    assert!(forged.len() > 200, "{}", forged.len());
    assert_eq!(state(relay).await, before, "nothing was changed");
    known.relay.stop().await;
}

/// Ways to show credentials that are none: another scheme, two at once, or in a place that is none.
#[tokio::test]
async fn credentials_are_shown_in_one_way() {
    let known = Known::start().await;
    let relay = &known.relay;
    let (_, right) = token(relay, ROOT, &["allow read *"]).await;
    let text = right.trim_start_matches("Bearer ");
    let list = "/api/v1/topics";
    let status =
        async |headers: &[(&str, &str)], path: &str| relay.send("GET", path, headers, b"").await.status;
    assert_eq!(status(&[("authorization", &right)], list).await, 200);
    for wrong in [
        text.to_owned(),
        format!("Token {text}"),
        format!("Basic {text}"),
        format!("Bearer{text}"),
        format!("Bearer\t{text}"),
        format!("Bearer \"{text}\""),
        format!("Bearer token={text}"),
        format!("Bearer {text},{text}"),
        format!("Bearer {text} {text}"),
        format!("Bearer Bearer {text}"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        String::new(),
    ] {
        assert_eq!(status(&[("authorization", &wrong)], list).await, 401, "{}", wrong.replace(text, "…"));
    }
    let twice = [("authorization", &*right), ("authorization", &*right)];
    assert_eq!(status(&twice, list).await, 400);
    // Nowhere else.
    for (name, value) in [
        ("cookie", format!("token={text}")),
        ("cookie", format!("tidemill={text}; __Host-tidemill={text}")),
        ("cookie", format!("access_token={text}; Authorization={right}")),
        ("x-api-key", text.to_owned()),
        ("x-authorization", right.clone()),
        ("proxy-authorization", right.clone()),
        ("sec-websocket-protocol", format!("bearer, bearer.{text}")),
        ("x-forwarded-user", "root".to_owned()),
        ("x-remote-user", "root".to_owned()),
    ] {
        assert_eq!(status(&[(name, &value)], list).await, 401, "{name}");
    }
    for name in ["token", "access_token", "authorization", "bearer", "ticket", "api_key", "jwt"] {
        let answer = status(&[], &format!("{list}?{name}={text}")).await;
        assert!(matches!(answer, 400 | 401), "{name}: {answer}");
        let refused = upgrade_at(relay, &format!("/ws?{name}={text}")).await;
        assert!(matches!(refused, 400 | 401), "{name}: {refused}");
    }
    known.relay.stop().await;
}

/// Returns the status of an upgrade at a path.
async fn upgrade_at(relay: &TestRelay, path: &str) -> u16 {
    let headers = [
        ("upgrade", "websocket"),
        ("connection", "upgrade, close"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    relay.send("GET", path, &headers, b"").await.status
}
