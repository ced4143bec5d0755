//! What a closed relay lets each principal do, on every door, and what it tells of what it does not.

use serde_json::{Value, json};
use tidemill::proto::frame::{ClientFrame, Consume, ServerFrame, Subscribe, binary};
use tokio_tungstenite::tungstenite::Message;

use super::closed::{self, ROOT, send, token};
use crate::support::raw::{RawConnection, status};
use crate::support::relay::{Answer, TestRelay, memory};
use crate::support::ws::{WsClient, publish_frame};

/// The topics: two with a message, and two that are not there.
const TOPICS: [&str; 4] = ["a.there", "b.there", "a.none", "b.none"];

/// The doors, by what goes through them.
pub(super) const PUBLISH: [&str; 8] =
    ["described", "body", "slow", "item", "line", "socket", "binary socket", "bytes"];
pub(super) const READ: [&str; 11] = [
    "page",
    "message",
    "payload",
    "describe",
    "wait",
    "poll",
    "events",
    "several",
    "lines",
    "live",
    "binary live",
];
pub(super) const WORK: [&str; 6] =
    ["claim", "claim of several", "consume", "binary consume", "settle", "settle on a socket"];
pub(super) const MANAGE: [&str; 8] =
    ["create", "update", "change", "trim", "take out", "cancel", "close", "delete"];

/// What came of going through a door: the code of a problem, or none, and its text.
pub(super) type Outcome = (Option<String>, String);

pub(super) fn of_answer(answer: &Answer) -> Outcome {
    if answer.status < 400 {
        return (None, String::new());
    }
    let problem = answer.problem();
    assert_eq!(
        answer.header("www-authenticate").is_some(),
        answer.status == 401,
        "who has to say who it is, is told how: {answer:?}"
    );
    (Some(problem.code.as_str().to_owned()), problem.detail)
}

/// Returns what became of the first message of several. Who may publish nothing at all is refused as a whole.
fn of_first(answer: &Answer) -> Outcome {
    if answer.status != 207 {
        return of_answer(answer);
    }
    of_result(&answer.json())
}

/// Returns what became of the first of several, by what was told of them.
fn of_result(told: &Value) -> Outcome {
    let result = &told["results"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (result["code"].as_str().map(str::to_owned), text(&result["error"]))
}

fn receipt_of(topic: &str, id: &str) -> String {
    format!("{topic}/g/0000000000000001/{id}/1")
}

/// Opens a socket, or returns why there is none.
async fn socket(relay: &TestRelay, who: Option<&str>, is_binary: bool) -> Result<WsClient, Outcome> {
    let mut headers: Vec<_> = who.map(|who| ("authorization", who)).into_iter().collect();
    if is_binary {
        headers.push(("sec-websocket-protocol", "tidemill.bincode.v1"));
    }
    upgrade(relay, &headers).await
}

/// Upgrades with these headers, or returns why that was refused.
pub(super) async fn upgrade(relay: &TestRelay, headers: &[(&str, &str)]) -> Result<WsClient, Outcome> {
    if let Ok(socket) = WsClient::connect_with(relay.address, headers).await {
        return Ok(socket);
    }
    let wanted = [
        ("upgrade", "websocket"),
        ("connection", "upgrade, close"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    Err(of_answer(&relay.send("GET", "/ws", &[headers, &wanted].concat(), b"").await))
}

async fn ask_json(relay: &TestRelay, who: Option<&str>, frame: Value) -> Outcome {
    let mut socket = match socket(relay, who, false).await {
        Ok(socket) => socket,
        Err(refused) => return refused,
    };
    socket.send(frame.to_string()).await;
    let frame = socket.frame().await;
    if frame["type"] == "settled" {
        return of_result(&frame);
    }
    if frame["type"] != "error" {
        return (None, String::new());
    }
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (Some(text(&frame["details"]["code"])), text(&frame["message"]))
}

async fn ask_binary(relay: &TestRelay, who: Option<&str>, frame: &ClientFrame<'_>) -> Outcome {
    let mut socket = match socket(relay, who, true).await {
        Ok(socket) => socket,
        Err(refused) => return refused,
    };
    socket.send_binary(frame).await;
    let Some(Ok(Message::Binary(bytes))) = socket.next().await else { panic!("no binary frame") };
    match binary::read_server(&bytes).expect("a frame") {
        ServerFrame::Error(error) => (Some(error.code.as_str().to_owned()), error.message.into_owned()),
        _ => (None, String::new()),
    }
}

/// Opens a stream, and returns what its head says.
async fn open(relay: &TestRelay, who: Option<&str>, path: &str, kind: &str) -> Outcome {
    let mut connection = RawConnection::connect(relay.address).await.expect("the relay listens");
    let who = who.map_or_else(String::new, |who| format!("authorization: {who}\r\n"));
    let head = connection.ask(path, &format!("accept: {kind}\r\n{who}")).await.expect("an answer");
    if status(&head) == 200 {
        return (None, String::new());
    }
    // The same without the connection that stays.
    let headers = if who.is_empty() { vec![] } else { vec![("authorization", who[15..].trim_end())] };
    let headers = [&headers[..], &[("accept", kind)]].concat();
    of_answer(&relay.send("GET", path, &headers, b"").await)
}

/// Goes through a door with a topic, as somebody.
pub(super) async fn go(relay: &TestRelay, who: Option<&str>, door: &str, topic: &str, id: &str) -> Outcome {
    let topics = format!("/api/v1/topics/{topic}");
    let messages = format!("{topics}/messages");
    let get = async |path: String| of_answer(&send(relay, who, "GET", &path, &Value::Null).await);
    let put =
        async |method: &str, path: &str, body: Value| of_answer(&send(relay, who, method, path, &body).await);
    let with = async |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let who: Vec<_> = who.map(|who| ("authorization", who)).into_iter().collect();
        relay.send("POST", path, &[headers, &who].concat(), body).await
    };
    let message = json!({ "topic": topic, "payload": 1 });
    let live = json!({ "type": "subscribe", "topics": [topic], "offset": "earliest" });
    match door {
        "described" => put("POST", "/api/v1/messages", message).await,
        "body" => put("POST", &messages, json!(1)).await,
        "bytes" => of_answer(&with(&messages, &[("content-type", "image/png")], b"\xff").await),
        // What means something to others leaves the fast path.
        "slow" => of_answer(&with(&messages, &[closed::JSON, ("x-team", "tides")], b"1").await),
        "item" => of_first(
            &send(relay, who, "POST", "/api/v1/messages/bulk", &json!({ "messages": [message] })).await,
        ),
        "line" => of_first(&with(&messages, &[("content-type", "application/x-ndjson")], b"1\n").await),
        "socket" => ask_json(relay, who, json!({ "type": "publish", "topic": topic, "payload": 1 })).await,
        "binary socket" => {
            let publish = publish_frame(topic, b"1");
            ask_binary(relay, who, &ClientFrame::Publish(publish)).await
        }
        "page" => get(messages).await,
        "message" => get(format!("{messages}/{id}")).await,
        "payload" => get(format!("{messages}/{id}/payload")).await,
        "describe" => get(topics).await,
        // From the beginning, so that it does not wait where there is a message.
        "wait" => get(format!("{messages}?wait=1&order=asc&after=earliest")).await,
        "poll" => {
            let body = json!({ "topics": [topic], "since": { topic: "earliest" }, "timeout": 1 });
            put("POST", "/messages/poll", body).await
        }
        "events" => open(relay, who, &format!("{messages}?after=earliest"), "text/event-stream").await,
        "lines" => open(relay, who, &format!("{messages}?after=earliest"), "application/x-ndjson").await,
        "several" => open(relay, who, &format!("/api/v1/stream?topics={topic}"), "text/event-stream").await,
        "live" => ask_json(relay, who, live).await,
        "binary live" => {
            let subscribe = Subscribe { topics: vec![topic.into()], ..Subscribe::default() };
            ask_binary(relay, who, &ClientFrame::Subscribe(subscribe)).await
        }
        "claim" => put("POST", &format!("{topics}/groups/g/claim"), json!({ "consumer": "c" })).await,
        "claim of several" => {
            let from = json!([{ "topic": topic, "group": "g" }]);
            put("POST", "/api/v1/work/claim", json!({ "consumer": "c", "from": from })).await
        }
        "consume" => {
            let consume = json!({ "type": "consume", "topic": topic, "group": "g", "credit": 1 });
            ask_json(relay, who, consume).await
        }
        "binary consume" => {
            let (topic, group) = (topic.into(), "g".into());
            let consume = Consume { reference: None, topic, group, credit: 1, consumer: None };
            ask_binary(relay, who, &ClientFrame::Consume(consume)).await
        }
        "settle" => {
            let body = json!({ "receipts": [receipt_of(topic, id)] });
            let answer = send(relay, who, "POST", "/api/v1/work/ack", &body).await;
            if answer.status == 200 { of_result(&answer.json()) } else { of_answer(&answer) }
        }
        "settle on a socket" => {
            let frame = json!({ "type": "ack", "receipts": [receipt_of(topic, id)] });
            ask_json(relay, who, frame).await
        }
        "create" => put("POST", "/api/v1/topics", json!({ "topic_name": topic })).await,
        "update" => put("PUT", &topics, json!({ "description": "x" })).await,
        "change" => put("PATCH", &topics, json!({ "max_messages": 1_000 })).await,
        "trim" => put("POST", &format!("{topics}/trim"), json!({ "keep": 1_000 })).await,
        "take out" => put("DELETE", &format!("{messages}/1-1"), Value::Null).await,
        "cancel" => put("POST", &format!("{topics}/cancel"), json!({ "reason": "x" })).await,
        "close" => put("POST", &format!("{topics}/close"), Value::Null).await,
        "delete" => put("DELETE", &topics, Value::Null).await,
        _ => panic!("there is no door `{door}`"),
    }
}

/// Logs a user in who has these rules.
async fn log_in(relay: &TestRelay, rules: &[&str]) -> String {
    let role = json!({ "rules": rules });
    assert!(send(relay, Some(ROOT), "PUT", "/api/v1/roles/crew", &role).await.status < 300);
    closed::user(relay, "u", &["crew"]).await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    let answer = relay.send("POST", "/auth/login", &[form], b"username=u&password=correct+horse").await;
    format!("Bearer {}", answer.json()["access_token"].as_str().expect("a text"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_door_lets_each_principal_do_what_its_rules_allow_and_tells_nothing_else() {
    let relay = closed::start(memory()).await;
    let (_, all) = token(&relay, ROOT, &["allow publish,read,manage *"]).await;
    let fill = async || {
        let mut ids = Vec::new();
        for topic in &TOPICS[..2] {
            // It may have been ended.
            send(&relay, Some(&all), "DELETE", &format!("/api/v1/topics/{topic}"), &Value::Null).await;
            let body = json!({ "topic": topic, "payload": 1 });
            let made = send(&relay, Some(&all), "POST", "/api/v1/messages", &body).await.json();
            ids.push(made["message_id"].as_str().expect("an id").to_owned());
        }
        for topic in &TOPICS[2..] {
            send(&relay, Some(&all), "DELETE", &format!("/api/v1/topics/{topic}"), &Value::Null).await;
        }
        ids
    };
    // The user `u` has these rules by a role, and owns nothing; whose a topic is makes no difference to who does not.
    let principals: [(&str, Option<Vec<&str>>, &str); 11] = [
        ("nobody", None, ""),
        ("nothing", Some(vec![]), ""),
        ("reader", Some(vec!["allow read a.*"]), "read a"),
        ("writer", Some(vec!["allow publish a.*"]), "publish a"),
        ("worker", Some(vec!["allow work a.*"]), "work a"),
        ("keeper", Some(vec!["allow manage *", "deny manage b.*"]), "manage a"),
        ("both", Some(vec!["allow read *", "allow publish *"]), "read a,read b,publish a,publish b"),
        ("keys", Some(vec!["allow publish,read,manage keys/*"]), ""),
        ("user without rules", Some(vec![]), ""),
        ("user who reads", Some(vec!["allow read a.*"]), "read a"),
        ("user who may not", Some(vec!["allow read a.*", "deny read,publish,manage b.*"]), "read a"),
    ];
    for (name, rules, may) in principals {
        let who = match &rules {
            Some(rules) if name.starts_with("user") => Some(log_in(&relay, rules).await),
            Some(rules) => Some(token(&relay, ROOT, rules).await.1),
            None => None,
        };
        let refused = if who.is_some() { "forbidden" } else { "unauthenticated" };
        let doors = [("publish", &PUBLISH[..]), ("read", &READ), ("work", &WORK), ("manage", &MANAGE)];
        for (verb, door) in doors.iter().flat_map(|(verb, doors)| doors.iter().map(move |door| (verb, door)))
        {
            // Others may have made or deleted what this door needs.
            let ids = fill().await;
            let mut told = Vec::new();
            for topic in TOPICS {
                let tenant = &topic[..1];
                let id = if tenant == "a" { &ids[0] } else { &ids[1] };
                let (code, detail) = go(&relay, who.as_deref(), door, topic, id).await;
                let is_allowed = may.split(',').any(|right| right == format!("{verb} {tenant}"));
                let shown = format!("{name} at `{door}` with {topic}: {code:?} {detail}");
                if is_allowed {
                    let fine = ["topic_not_found", "topic_exists", "message_not_found", "group_not_found"];
                    assert!(code.as_deref().is_none_or(|code| fine.contains(&code)), "{shown}");
                } else {
                    assert_eq!(code.as_deref(), Some(refused), "{shown}");
                    told.push((tenant, detail.replace(topic, "T")));
                }
            }
            for (tenant, detail) in &told {
                let same = told.iter().filter(|(of, _)| of == tenant).all(|(_, other)| other == detail);
                assert!(same, "{name} at `{door}`: what is told says whether a topic exists: {told:?}");
            }
        }
    }
    relay.stop().await;
}

#[tokio::test]
async fn lists_and_patterns_show_what_may_be_read_and_nothing_else() {
    let relay = closed::start(memory()).await;
    let (_, all) = token(&relay, ROOT, &["allow publish,read,manage *"]).await;
    let (_, reader) = token(&relay, ROOT, &["allow read a.*", "deny read a.secret"]).await;
    let publish = async |topic: &str| {
        let body = json!({ "topic": topic, "payload": topic });
        assert_eq!(send(&relay, Some(&all), "POST", "/api/v1/messages", &body).await.status, 201);
    };
    for topic in ["a.1", "a.secret", "b.1", "a.2"] {
        publish(topic).await;
    }
    let list = send(&relay, Some(&reader), "GET", "/api/v1/topics", &Value::Null).await.json();
    let names: Vec<_> =
        list.as_array().expect("a list").iter().map(|topic| topic["topic_name"].clone()).collect();
    assert_eq!(names, ["a.1", "a.2"]);
    let none = send(&relay, Some(&reader), "GET", "/api/v1/topics?match=b.*", &Value::Null).await;
    assert_eq!((none.status, none.json()), (200, json!([])));
    let counts = send(&relay, Some(&reader), "GET", "/api/v1/topics/stats", &Value::Null).await;
    assert_eq!(counts.status, 403, "how many there are is told to administrators");

    let mut client = socket(&relay, Some(&reader), false).await.expect("the relay upgrades");
    let frame = json!({ "type": "subscribe", "topics": ["*"], "cursors": { "*": "earliest" } });
    let subscribed = client.ask(frame.to_string(), "subscribed").await;
    assert!(
        !subscribed.to_string().contains("secret") && !subscribed.to_string().contains("b.1"),
        "{subscribed}"
    );
    for topic in ["b.new", "a.secret", "a.new"] {
        publish(topic).await;
    }
    let mut told = Vec::new();
    while told.last().is_none_or(|last: &String| last != "a.new") {
        let frame = client.frame().await;
        let text = frame.to_string();
        assert!(!text.contains("secret") && !text.contains("b."), "{text}");
        if frame["type"] == "message" {
            told.push(frame["topic"].as_str().expect("a name").to_owned());
        }
    }
    told.sort_unstable();
    assert_eq!(told, ["a.1", "a.2", "a.new"]);
    relay.stop().await;
}

/// Users see what they own; how many topics others have between, before and behind is nothing that a page tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_s_list_is_the_same_however_many_topics_others_have() {
    let relay = closed::start(memory()).await;
    let (_, all) = token(&relay, ROOT, &["allow publish,read,manage *"]).await;
    let user = log_in(&relay, &["allow publish own.*", "allow read shared.*"]).await;
    let publish = async |who: &str, topic: &str| {
        let body = json!({ "topic": topic, "payload": 1 });
        assert_eq!(send(&relay, Some(who), "POST", "/api/v1/messages", &body).await.status, 201, "{topic}");
    };
    let pages = async || {
        let mut pages = Vec::new();
        for path in [
            "/api/v1/topics",
            "/api/v1/topics?limit=1",
            "/api/v1/topics?limit=2",
            "/api/v1/topics?limit=3",
            "/api/v1/topics?limit=1&cursor=own.b",
            "/api/v1/topics?limit=2&cursor=own.a",
            "/api/v1/topics?match=own.*&limit=1",
            "/api/v1/topics?match=acme.*&limit=1",
            "/api/v1/topics?match=z*&limit=1",
            "/api/v1/topics?match=*&limit=2&cursor=b",
        ] {
            let answer = send(&relay, Some(&user), "GET", path, &Value::Null).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            let list = answer.json();
            let names = list.as_array().expect("a list").iter().map(|topic| topic["topic_name"].clone());
            pages.push((path, names.collect::<Vec<_>>(), answer.header("link").map(str::to_owned)));
        }
        pages
    };
    for topic in ["own.a", "own.b"] {
        publish(&user, topic).await;
    }
    publish(&all, "shared.x").await;
    let alone = pages().await;
    assert_eq!(alone[0].1, ["own.a", "own.b", "shared.x"]);
    assert_eq!((&*alone[1].1, alone[1].2.is_some()), (&[json!("own.a")][..], true));
    assert_eq!((&*alone[3].1, alone[3].2.is_some()), (&alone[0].1[..], false), "there is no other page");
    for at in 0..30 {
        for topic in ["acme.n", "own.a-", "own.b-", "p.", "shared-", "z."] {
            publish(&all, &format!("{topic}{at}")).await;
        }
    }
    assert_eq!(pages().await, alone);
    relay.stop().await;
}
