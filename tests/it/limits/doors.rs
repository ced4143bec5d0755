//! What is counted on each door, and what who is refused is told.

use serde_json::{Value, json};
use tidemill::limits::{Limit, LimitOptions};
use tidemill::proto::frame::{ClientFrame, ServerFrame, binary};
use tokio_tungstenite::tungstenite::Message;

use super::{is_refused_at, limit, message, send_from};
use crate::access::closed::{JSON, ROOT, token};
use crate::support::raw::RawConnection;
use crate::support::relay::{Answer, TestRelay, memory};
use crate::support::ws::{WsClient, publish_frame};

/// How much passes in these tests.
const AMOUNT: u32 = 10;
/// How much is tried.
const TRIED: usize = 15;

/// The codes of what came of messages, in their order; none of those that were taken.
type Outcomes = Vec<Option<String>>;

fn of_several(answer: &crate::support::relay::Answer) -> Outcomes {
    assert_eq!(answer.status, 207, "{answer:?}");
    let results = answer.json();
    let results = results["results"].as_array().expect("results").clone();
    results.iter().map(|result| result["code"].as_str().map(str::to_owned)).collect()
}

async fn one_by_one(relay: &TestRelay, who: &str, path: &str, more: Option<(&str, &str)>) -> Outcomes {
    let mut outcomes = Vec::new();
    for _ in 0..TRIED {
        let headers: Vec<_> = [JSON, ("authorization", who)].into_iter().chain(more).collect();
        let body = if path.ends_with("/t/messages") { json!(1) } else { message() };
        let answer = relay.send("POST", path, &headers, body.to_string().as_bytes()).await;
        if answer.status == 201 {
            outcomes.push(None);
        } else {
            is_refused_at(&answer, "principal-messages", AMOUNT);
            outcomes.push(Some("rate_limited".to_owned()));
        }
    }
    outcomes
}

async fn on_one_connection(relay: &TestRelay, who: &str) -> Outcomes {
    let mut connection = RawConnection::connect(relay.address).await.expect("it connects");
    let mut outcomes = Vec::new();
    for _ in 0..TRIED {
        let kind = format!("application/json\r\nauthorization: {who}");
        let body = message().to_string();
        let answer = connection.exchange("POST", "/api/v1/messages", &kind, &body).await;
        let (status, answer) = answer.expect("an answer on the same connection");
        outcomes.push((status != 201).then(|| {
            let answer = String::from_utf8(answer).expect("text");
            assert!(answer.contains("\"code\":\"rate_limited\""), "{answer}");
            "rate_limited".to_owned()
        }));
    }
    outcomes
}

async fn socket(relay: &TestRelay, who: &str) -> Outcomes {
    let mut socket =
        WsClient::connect_with(relay.address, &[("authorization", who)]).await.expect("it upgrades");
    let mut outcomes = Vec::new();
    for _ in 0..TRIED {
        socket.send(r#"{"type":"publish","topic":"t","payload":1}"#).await;
        let frame = socket.frame().await;
        let code = frame["details"]["code"].as_str().map(str::to_owned);
        if code.is_some() {
            assert!(frame["details"]["retry_after_seconds"].as_u64().is_some(), "{frame}");
        }
        outcomes.push(code);
    }
    outcomes
}

async fn binary_socket(relay: &TestRelay, who: &str) -> Outcomes {
    let headers = [("authorization", who), ("sec-websocket-protocol", "tidemill.bincode.v1")];
    let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
    let publish = || ClientFrame::Publish(publish_frame("t", b"1"));
    // All at once: they are taken one after the other.
    for _ in 0..TRIED {
        socket.send_binary(&publish()).await;
    }
    let mut outcomes = Vec::new();
    for _ in 0..TRIED {
        let Some(Ok(Message::Binary(bytes))) = socket.next().await else { panic!("no binary frame") };
        outcomes.push(match binary::read_server(&bytes).expect("a frame") {
            ServerFrame::Error(error) => {
                assert!(error.retry_after_seconds.is_some_and(|seconds| seconds > 0));
                Some(error.code.as_str().to_owned())
            }
            _ => None,
        });
    }
    // Refusals overtake what the storage is asked for.
    outcomes.sort_unstable();
    outcomes
}

/// Whoever could make tokens that are counted by themselves would have no limit.
#[tokio::test]
async fn a_token_that_a_token_has_made_is_counted_with_it() {
    let limits = LimitOptions::none().with(Limit::PrincipalMessages, AMOUNT);
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits)).await;
    let (_, first) = token(&relay, ROOT, &["allow publish,read *"]).await;
    let (_, child) = token(&relay, &first, &["allow publish *"]).await;
    let (_, grandchild) = token(&relay, &child, &["allow publish *"]).await;
    let (_, other) = token(&relay, ROOT, &["allow publish *"]).await;
    let taken = async |who: &str| {
        let outcomes = one_by_one(&relay, who, "/api/v1/messages", None).await;
        outcomes.iter().filter(|outcome| outcome.is_none()).count()
    };
    assert_eq!(taken(&child).await, AMOUNT as usize);
    assert_eq!((taken(&grandchild).await, taken(&first).await), (0, 0));
    assert_eq!(taken(&other).await, AMOUNT as usize, "what a user makes is counted by itself");
    relay.stop().await;
}

#[tokio::test]
async fn messages_are_counted_on_every_door() {
    let limits = LimitOptions::none().with(Limit::PrincipalMessages, AMOUNT);
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits)).await;
    let mut expected: Outcomes = vec![None; AMOUNT as usize];
    expected.resize(TRIED, Some("rate_limited".to_owned()));
    for door in ["described", "body", "slow", "connection", "items", "lines", "socket", "bytes"] {
        // Each has its own.
        let (_, who) = token(&relay, ROOT, &["allow publish,read *"]).await;
        let path = "/api/v1/topics/t/messages";
        let outcomes = match door {
            "described" => one_by_one(&relay, &who, "/api/v1/messages", None).await,
            "body" => one_by_one(&relay, &who, path, None).await,
            "slow" => one_by_one(&relay, &who, path, Some(("tidemill-meta-a", "b"))).await,
            "connection" => on_one_connection(&relay, &who).await,
            "items" => {
                let body = json!({ "messages": vec![message(); TRIED] }).to_string();
                let headers = [JSON, ("authorization", &*who)];
                of_several(&relay.send("POST", "/api/v1/messages/bulk", &headers, body.as_bytes()).await)
            }
            "lines" => {
                let headers = [("content-type", "application/x-ndjson"), ("authorization", &*who)];
                of_several(&relay.send("POST", path, &headers, "1\n".repeat(TRIED).as_bytes()).await)
            }
            "socket" => socket(&relay, &who).await,
            "bytes" => binary_socket(&relay, &who).await,
            other => unreachable!("{other}"),
        };
        assert_eq!(outcomes, expected, "{door}");
        let page = relay.send("GET", path, &[("authorization", &*who)], b"").await;
        assert_eq!(page.status, 200, "who may not publish now may read");
    }
    relay.stop().await;
}

#[tokio::test]
async fn requests_of_who_does_not_say_who_calls_are_counted_by_address_on_every_door() {
    let limits = LimitOptions::none().with(Limit::AnonymousRequests, AMOUNT);
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits)).await;
    let role = json!({ "rules": ["allow publish,read *"] });
    let written =
        send_from(&relay, "192.0.2.200", Some(ROOT), ("PUT", "/api/v1/roles/anonymous"), &role).await;
    assert!(matches!(written.status, 200 | 201), "{written:?}");
    let id = relay.publish("t", "1").await;
    let poll = json!({ "topics": ["t"], "timeout": 1, "since": { "t": "0-0" } });
    for (at, (method, path, body)) in [
        ("POST", "/api/v1/messages".to_owned(), message()),
        ("POST", "/api/v1/messages/bulk".to_owned(), json!({ "messages": [message()] })),
        ("POST", "/api/v1/topics/t/messages".to_owned(), json!(1)),
        ("GET", "/api/v1/topics/t/messages".to_owned(), Value::Null),
        ("GET", "/api/v1/topics/t/messages?wait=1&after=0-0".to_owned(), Value::Null),
        ("GET", format!("/api/v1/topics/t/messages/{id}"), Value::Null),
        ("GET", "/api/v1/topics".to_owned(), Value::Null),
        ("GET", "/api/v1/topics/t".to_owned(), Value::Null),
        ("POST", "/messages/poll".to_owned(), poll),
        ("GET", "/api/v1/users".to_owned(), Value::Null),
    ]
    .iter()
    .enumerate()
    {
        let from = format!("192.0.2.{at}");
        for _ in 0..AMOUNT {
            let answer = send_from(&relay, &from, None, (method, path), body).await;
            assert_ne!(answer.status, 429, "{method} {path}");
        }
        let refused = send_from(&relay, &from, None, (method, path), body).await;
        is_refused_at(&refused, "anonymous-requests", AMOUNT);
        for path in ["/health", "/ready"] {
            assert_eq!(
                send_from(&relay, &from, None, ("GET", path), &Value::Null).await.status,
                200,
                "{path}"
            );
        }
    }
    relay.stop().await;
}

#[tokio::test]
async fn upgrades_and_frames_are_requests() {
    let limits = LimitOptions::none().with(Limit::AnonymousRequests, AMOUNT);
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits)).await;
    let role = json!({ "rules": ["allow publish,read *"] });
    send_from(&relay, "192.0.2.200", Some(ROOT), ("PUT", "/api/v1/roles/anonymous"), &role).await;
    let from = [("x-forwarded-for", "192.0.2.1")];
    let mut socket = WsClient::connect_with(relay.address, &from).await.expect("it upgrades");
    for _ in 0..(AMOUNT - 1) / 2 {
        socket.ask(r#"{"type":"publish","topic":"p","payload":1}"#, "published").await;
        socket.ask(r#"{"type":"subscribe","topics":["t"]}"#, "subscribed").await;
    }
    socket.ask(r#"{"type":"publish","topic":"p","payload":1}"#, "published").await;
    for frame in [
        r#"{"type":"publish","ref":"r","topic":"t","payload":1}"#,
        r#"{"type":"subscribe","ref":"r","topics":["t"]}"#,
    ] {
        let refused = socket.ask(frame, "error").await;
        assert_eq!((&refused["details"]["code"], &refused["ref"]), (&json!("rate_limited"), &json!("r")));
    }
    let again = WsClient::connect_with(relay.address, &from).await;
    assert!(again.is_err(), "another socket of the same address");
    socket.ask(r#"{"type":"ping"}"#, "pong").await;
    relay.stop().await;
}

#[tokio::test]
async fn a_principal_s_requests_are_counted_wherever_it_calls_from_and_its_publishes_are_not() {
    let limits = LimitOptions::none().with(Limit::PrincipalRequests, AMOUNT);
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits)).await;
    let (_, who) = token(&relay, ROOT, &["allow publish,read *"]).await;
    let publish = ("POST", "/api/v1/messages");
    for at in 0..TRIED {
        let from = format!("192.0.2.{at}");
        assert_eq!(send_from(&relay, &from, Some(&who), publish, &message()).await.status, 201);
    }
    let page = ("GET", "/api/v1/topics/t/messages");
    for at in 0..AMOUNT {
        let from = format!("192.0.2.{at}");
        assert_eq!(send_from(&relay, &from, Some(&who), page, &Value::Null).await.status, 200);
    }
    let refused = send_from(&relay, "192.0.2.77", Some(&who), page, &Value::Null).await;
    is_refused_at(&refused, "principal-requests", AMOUNT);
    let (_, other) = token(&relay, ROOT, &["allow read *"]).await;
    assert_eq!(send_from(&relay, "192.0.2.77", Some(&other), page, &Value::Null).await.status, 200);
    relay.stop().await;
}

#[tokio::test]
async fn log_ins_are_counted_by_address_right_ones_too() {
    let limits = LimitOptions::none().with(Limit::LogIns, AMOUNT);
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits)).await;
    let (_, bearer) = token(&relay, ROOT, &["allow admin *"]).await;
    let users = ("GET", "/api/v1/users");
    // `root` with another password, and nobody.
    for wrong in
        ["Basic cm9vdDp3cm9uZw==", "Basic bm9ib2R5Ondyb25n"].into_iter().cycle().take(AMOUNT as usize)
    {
        assert_eq!(send_from(&relay, "192.0.2.1", Some(wrong), users, &Value::Null).await.status, 401);
    }
    let refused = send_from(&relay, "192.0.2.1", Some(ROOT), users, &Value::Null).await;
    is_refused_at(&refused, "log-ins", AMOUNT);
    for (from, who) in [("192.0.2.1", &*bearer), ("192.0.2.2", ROOT)] {
        assert_eq!(send_from(&relay, from, Some(who), users, &Value::Null).await.status, 200, "{from}");
    }
    relay.stop().await;
}

/// Sends a form that a proxy passes on from this address.
async fn send_form(relay: &TestRelay, from: &str, path: &str, form: &str) -> Answer {
    let kind = ("content-type", "application/x-www-form-urlencoded");
    relay.send("POST", path, &[kind, ("x-forwarded-for", from)], form.as_bytes()).await
}

#[tokio::test]
async fn each_door_for_passwords_counts_in_the_same() {
    let limits = LimitOptions::none().with(Limit::LogIns, AMOUNT);
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits)).await;
    let codes = send_form(&relay, "192.0.2.1", "/auth/device/code", "").await.json();
    let wrong = "username=root&password=wrong";
    let code = codes["user_code"].as_str().expect("a text");
    let decide = format!("{wrong}&decision=allow&user_code={code}");
    let doors = [("/auth/login", wrong, 401), ("/auth/device", &*decide, 403)];
    for (path, form, status) in doors.into_iter().cycle().take(AMOUNT as usize) {
        assert_eq!(send_form(&relay, "192.0.2.1", path, form).await.status, status, "{path}");
    }
    for (path, form, _) in doors {
        is_refused_at(&send_form(&relay, "192.0.2.1", path, form).await, "log-ins", AMOUNT);
    }
    let right = "username=root&password=correct+horse";
    is_refused_at(&send_form(&relay, "192.0.2.1", "/auth/login", right).await, "log-ins", AMOUNT);
    assert_eq!(send_form(&relay, "192.0.2.2", "/auth/login", right).await.status, 200);
    relay.stop().await;
}

#[tokio::test]
async fn what_anybody_may_begin_counts_as_what_who_says_nothing_asks() {
    let limits = LimitOptions::none().with(Limit::AnonymousRequests, AMOUNT);
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits)).await;
    for _ in 0..AMOUNT {
        assert_eq!(send_form(&relay, "192.0.2.1", "/auth/device/code", "").await.status, 200);
    }
    let refused = send_form(&relay, "192.0.2.1", "/auth/device/code", "").await;
    is_refused_at(&refused, "anonymous-requests", AMOUNT);
    let sign_in = ("GET", "/auth/oidc/one/login");
    let refused = send_from(&relay, "192.0.2.1", None, sign_in, &Value::Null).await;
    is_refused_at(&refused, "anonymous-requests", AMOUNT);
    assert_eq!(send_form(&relay, "192.0.2.2", "/auth/device/code", "").await.status, 200);
    // Who tries the codes of devices; the page itself is for everybody.
    let guess = ("GET", "/auth/device?user_code=BCDF-GHJK");
    for _ in 0..AMOUNT {
        assert_eq!(send_from(&relay, "192.0.2.3", None, guess, &Value::Null).await.status, 404);
    }
    let refused = send_from(&relay, "192.0.2.3", None, guess, &Value::Null).await;
    is_refused_at(&refused, "anonymous-requests", AMOUNT);
    let page = send_from(&relay, "192.0.2.3", None, ("GET", "/auth/device"), &Value::Null).await;
    assert_eq!(page.status, 200);
    relay.stop().await;
}

#[tokio::test]
async fn who_guesses_tokens_counts_as_who_says_nothing_and_harms_nobody_else() {
    let limits = LimitOptions::none().with(Limit::AnonymousRequests, AMOUNT);
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits)).await;
    let (_, who) = token(&relay, ROOT, &["allow read *"]).await;
    let list = ("GET", "/api/v1/topics");
    for _ in 0..AMOUNT {
        let guess = send_from(&relay, "192.0.2.1", Some("Bearer tm_x"), list, &Value::Null).await;
        assert_eq!(guess.status, 401);
    }
    for guess in [Some("Bearer tm_x"), Some("Bearer a.b.c"), None] {
        let refused = send_from(&relay, "192.0.2.1", guess, list, &Value::Null).await;
        is_refused_at(&refused, "anonymous-requests", AMOUNT);
    }
    let right = send_from(&relay, "192.0.2.1", Some(&who), list, &Value::Null).await;
    assert_eq!(right.status, 200, "who says who calls is not counted there");
    relay.stop().await;
}

#[tokio::test]
async fn an_open_relay_counts_addresses_where_it_is_told_to_and_else_nothing() {
    let limits = LimitOptions::none().with(Limit::AddressMessages, AMOUNT).with(Limit::AddressRequests, 14);
    let relay = TestRelay::start_with(memory(), |options| options.limits = limits).await;
    for _ in 0..AMOUNT {
        assert_eq!(relay.post("/api/v1/messages", message().to_string()).await.status, 201);
    }
    is_refused_at(&relay.post("/api/v1/messages", message().to_string()).await, "address-messages", AMOUNT);
    for _ in 0..3 {
        assert_eq!(relay.get("/api/v1/topics").await.status, 200);
    }
    is_refused_at(&relay.get("/api/v1/topics").await, "address-requests", 14);
    relay.stop().await;
}

#[tokio::test]
async fn topics_are_counted_however_they_are_made_and_those_that_are_there_are_not() {
    let limits = LimitOptions::none().with(Limit::Topics, 4);
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits)).await;
    let (_, who) = token(&relay, ROOT, &["allow publish,read,manage *"]).await;
    let (_, other) = token(&relay, ROOT, &["allow publish,manage *"]).await;
    let publish = async |who: &str, topic: &str| {
        let body = json!({ "topic": topic, "payload": 1 });
        send_from(&relay, "192.0.2.1", Some(who), ("POST", "/api/v1/messages"), &body).await
    };
    let make = async |topic: &str| {
        let body = json!({ "topic_name": topic });
        send_from(&relay, "192.0.2.1", Some(&who), ("POST", "/api/v1/topics"), &body).await
    };
    assert_eq!(make("a").await.status, 201);
    assert_eq!(publish(&who, "b").await.status, 201);
    let items = json!({ "messages": [{ "topic": "c", "payload": 1 }, { "topic": "c", "payload": 2 }] });
    let bulk = send_from(&relay, "192.0.2.1", Some(&who), ("POST", "/api/v1/messages/bulk"), &items).await;
    assert_eq!(of_several(&bulk), [None, None]);
    let headers = [("authorization", &*who)];
    let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
    socket.ask(r#"{"type":"publish","topic":"d","payload":1}"#, "published").await;

    for refused in [make("e").await, publish(&who, "e").await] {
        assert_eq!(refused.problem().code.as_str(), "rate_limited");
        assert_eq!(refused.header("ratelimit-policy"), Some("\"topics\";q=4;w=3600"));
    }
    let refused = socket.ask(r#"{"type":"publish","topic":"e","payload":1}"#, "error").await;
    assert_eq!(refused["details"]["code"], "rate_limited");
    for topic in ["a", "b", "c", "d"] {
        assert_eq!(publish(&who, topic).await.status, 201, "{topic} is there");
    }
    assert_eq!(publish(&other, "e").await.status, 201, "another caller makes it");
    assert_eq!(publish(&who, "e").await.status, 201, "and then it is there");
    relay.stop().await;
}
