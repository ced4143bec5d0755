//! JWTs of an issuer that the operator has named, on every kind of door.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tidemill::access::Issuer;
use tidemill::proto::Code;
use tokio::time::timeout;

use super::closed::{ROOT, close, send};
use crate::support::eventually;
use crate::support::process::{Relay, run};
use crate::support::raw::{RawConnection, Stream};
use crate::support::relay::{TestRelay, memory};
use crate::support::ws::{Got, WsClient};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(super) const ISSUER: &str = "https://id.example/;aud=tidemill;secret=0123456789abcdef0123456789abcdef";
/// In 2100.
const LATER: u64 = 4_102_444_800;

pub(super) fn sign(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = json!({
        "iss": "https://id.example/", "aud": "tidemill", "sub": "ada", "exp": LATER,
        "tidemill": { "publish": ["orders.*"], "read": ["orders.*", "in.{name}"] },
    });
    change(&mut claims);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), &claims, &key).expect("it is signed")
}

#[tokio::test]
async fn somebody_of_an_issuer_may_what_the_token_grants() {
    let relay = TestRelay::start_with(memory(), |options| {
        close(options);
        options.access.issuers = Issuer::parse_all(ISSUER).expect("an issuer");
    })
    .await;
    let jwt = sign(|_| {});
    let bearer = format!("Bearer {jwt}");
    let publish = async |who: &str, topic: &str| {
        send(&relay, Some(who), "POST", "/api/v1/messages", &json!({ "topic": topic, "payload": 1 })).await
    };
    assert_eq!(publish(&bearer, "orders.eu").await.status, 201);
    assert_eq!(publish(&bearer, "in.ada").await.problem().code, Code::Forbidden);
    for (path, expected) in [("orders.eu", 200), ("in.ada", 404), ("in.bob", 403), ("payroll", 403)] {
        let path = format!("/api/v1/topics/{path}/messages");
        assert_eq!(send(&relay, Some(&bearer), "GET", &path, &Value::Null).await.status, expected, "{path}");
    }
    // As browsers show it, who can send no header.
    let protocols = format!("bearer, bearer.{jwt}");
    let headers = [("sec-websocket-protocol", &*protocols)];
    let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
    assert_eq!(socket.protocol.as_deref(), Some("bearer"), "the token is not sent back");
    socket.ask(r#"{"type":"subscribe","topics":["orders.eu"],"offset":"earliest"}"#, "subscribed").await;
    assert!(matches!(socket.got().await, Got::Message(_, payload) if payload == b"1"));

    let by_scope = sign(|claims| {
        claims.as_object_mut().expect("claims").remove("tidemill");
        claims["scope"] = "openid tidemill:read:orders.*".into();
    });
    let by_scope = format!("Bearer {by_scope}");
    assert_eq!(publish(&by_scope, "orders.eu").await.problem().code, Code::Forbidden);
    let path = "/api/v1/topics/orders.eu/messages";
    assert_eq!(send(&relay, Some(&by_scope), "GET", path, &Value::Null).await.status, 200);

    // It makes no tokens, and administers nothing.
    let wanted = json!({ "name": "t", "rules": [] });
    let refused = send(&relay, Some(&bearer), "POST", "/api/v1/tokens", &wanted).await.problem();
    assert!(refused.code == Code::Forbidden && refused.detail.contains("JWT"), "{refused:?}");
    assert_eq!(send(&relay, Some(&bearer), "GET", "/api/v1/users", &Value::Null).await.status, 403);
    // Nobody but administrators asks about others, and what a JWT is about is no principal of the relay's.
    let asked = json!({ "verb": "read", "topic": "orders.eu" });
    let told = send(&relay, Some(&bearer), "POST", "/api/v1/access/explain", &asked).await.json();
    assert_eq!((&told["allowed"], &told["rule"]), (&json!(true), &json!("allow read orders.*")));
    assert!(told["principal"].as_str().is_some_and(|who| who.contains("ada") && who.contains("id.example")));

    // What is amiss is told.
    let nothing = sign(|claims| drop(claims.as_object_mut().expect("claims").remove("tidemill")));
    let problem = publish(&format!("Bearer {nothing}"), "orders.eu").await.problem();
    assert_eq!(problem.code, Code::Forbidden);
    assert!(problem.detail.contains("grants nothing") && problem.detail.contains("`scope`"), "{problem:?}");
    let other = sign(|claims| claims["iss"] = "https://id.example".into());
    let problem = publish(&format!("Bearer {other}"), "orders.eu").await.problem();
    assert!(problem.detail.contains("`https://id.example` is not known"), "{problem:?}");
    for (claim, wrong) in [("iss", json!("\u{1b}[31m\"<b>`")), ("iss", json!("x".repeat(5_000)))] {
        let wrong = sign(|claims| claims[claim] = wrong);
        let problem = publish(&format!("Bearer {wrong}"), "orders.eu").await.problem();
        let is_plain = !problem.detail.chars().any(char::is_control) && problem.detail.len() < 300;
        assert!(problem.code == Code::Unauthenticated && is_plain, "{problem:?}");
    }
    for (kind, told) in [("tr_", "/auth/token/refresh"), ("tk_", "?ticket="), ("td_", "/auth/device/token")] {
        let problem = publish(&format!("Bearer {kind}{}", "0".repeat(66)), "orders.eu").await.problem();
        assert!(problem.code == Code::Unauthenticated && problem.detail.contains(told), "{problem:?}");
    }
    for parameter in ["token", "access_token"] {
        let path = format!("/api/v1/topics?{parameter}={jwt}");
        let problem = send(&relay, Some(&bearer), "GET", &path, &Value::Null).await.problem();
        assert!(
            problem.detail.contains("Authorization: Bearer") && !problem.detail.contains(&jwt),
            "{problem:?}"
        );
    }

    for (wrong, claim) in [
        (sign(|claims| claims["aud"] = "others".into()), "aud"),
        (sign(|claims| claims["exp"] = 1.into()), "exp"),
        (sign(|claims| claims["iss"] = "https://other.example/".into()), "iss"),
        (sign(|claims| drop(claims.as_object_mut().expect("claims").remove("exp"))), "exp"),
        (format!("{jwt}x"), "signature"),
    ] {
        let problem = publish(&format!("Bearer {wrong}"), "orders.eu").await.problem();
        assert_eq!(problem.code, Code::Unauthenticated, "{claim}");
        assert!(problem.detail.contains(claim) && !problem.detail.contains(&wrong), "{}", problem.detail);
    }
    assert_eq!(send(&relay, Some(ROOT), "GET", "/api/v1/users", &Value::Null).await.status, 200);
    relay.stop().await;
}

#[test]
fn a_command_shows_a_jwt_as_it_shows_a_token() {
    let relay = Relay::start(&[("TIDEMILL_JWT_ISSUERS", ISSUER)], &[]);
    let variables = [("TIDEMILL_URL", &*relay.url), ("TIDEMILL_TOKEN", &*sign(|_| {}))];
    run(&variables, &["publish", "orders.eu", "7"], "").lines();
    let tail = ["tail", "orders.*", "--after", "earliest", "--limit", "1", "-o", "raw"];
    assert_eq!(run(&variables, &tail, "").lines(), ["7"]);
    assert!(run(&variables, &["read", "payroll"], "").error(1).contains("forbidden"));
}

/// Keys that are taken away are the only way to take a JWT back.
#[tokio::test]
async fn what_is_open_by_a_key_that_is_taken_away_ends_and_nothing_else() {
    use crate::credentials::signer::Signer;

    let (gone, stays) = (Signer::curve("gone"), Signer::curve("stays"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.pem");
    std::fs::write(&file, format!("{}{}", gone.verifies, stays.verifies)).expect("it is written");
    let issuer = format!("https://id.example/;aud=tidemill;file={}", file.display());
    let relay = TestRelay::start_with(memory(), |options| {
        close(options);
        options.access.issuers = Issuer::parse_all(&issuer).expect("an issuer");
    })
    .await;
    let claims = json!({
        "iss": "https://id.example/", "aud": "tidemill", "sub": "ada", "exp": LATER,
        "tidemill": { "publish": ["*"], "read": ["*"] },
    });
    let left = format!("{}{}", stays.verifies, Signer::curve("new").verifies);
    // Keys of PEM have no names.
    let bearer = |signer: &Signer| format!("Bearer {}", signer.sign(&claims));
    let (gone, stays) = (bearer(&gone), bearer(&stays));
    let topics =
        async |bearer: &str| send(&relay, Some(bearer), "GET", "/api/v1/topics", &Value::Null).await.status;
    let open = async |bearer: &str| {
        let headers = [("authorization", bearer)];
        let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
        socket.subscribe("t", "latest").await;
        let made = send(&relay, Some(bearer), "POST", "/api/v1/tickets", &json!({ "topics": ["t"] })).await;
        let ticket = made.json()["ticket"].as_str().expect("a ticket").to_owned();
        (socket, format!("/api/v1/topics/t/messages?after=latest&ticket={ticket}"))
    };
    let stream = async |path: &str, headers: &str| {
        let connection = RawConnection::connect(relay.address).await.expect("it connects");
        Stream::try_open_on(connection, path, "text/event-stream", headers).await.expect("an answer")
    };
    assert_eq!((topics(&gone).await, topics(&stays).await), (200, 200));
    let ((mut ends, resumed), (mut goes_on, kept)) = (open(&gone).await, open(&stays).await);
    let (_, unused) = open(&gone).await;
    let mut by_ticket = stream(&resumed, "").await.expect("it opens");
    let mut kept_open = stream(&kept, "").await.expect("it opens");
    std::fs::write(&file, left).expect("it is written");
    // A file is looked at every few seconds.
    eventually(Duration::from_secs(15), async || topics(&gone).await == 401).await;
    let ended = timeout(Duration::from_secs(5), async { (ends.got().await, ends.got().await) }).await;
    assert_eq!(ended.expect("in time"), (Got::End, Got::Close(4401)));
    let told =
        timeout(Duration::from_secs(5), by_ticket.rest()).await.expect("in time").expect("it ends well");
    assert!(String::from_utf8(told).expect("text").contains("revoked"));
    assert_eq!(stream(&unused, "").await.err(), Some(401), "a ticket that opens nothing any more");
    assert_eq!(stream(&resumed, "last-event-id: 1-0\r\n").await.err(), Some(401), "nor resumes anything");
    // The other key's go on, as if nothing had happened.
    assert_eq!(topics(&stays).await, 200);
    let published = json!({ "topic": "t", "payload": 7 });
    assert_eq!(send(&relay, Some(&stays), "POST", "/api/v1/messages", &published).await.status, 201);
    assert!(matches!(goes_on.got().await, Got::Message(_, payload) if payload == b"7"));
    kept_open.until(b"\"payload\":7").await.expect("it comes");
    relay.stop().await;
}
