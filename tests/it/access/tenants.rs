//! Two tenants on one relay, `acme.*` and `zeta.*`: no name, however it is written, and nothing that one of them has been
//! handed, leads into the other's topics; and lists, errors, gaps and counts tell nothing of them.

use serde_json::{Value, json};

use super::closed::{self, JSON, ROOT, send, token};
use super::doors::{MANAGE, PUBLISH, READ, WORK, go, upgrade};
use crate::support::raw::{RawConnection, Stream};
use crate::support::relay::{Answer, TestRelay, memory};

/// What only the other tenant may see.
const SECRET: &str = "zeta-payload";
const EVENTS: &str = "text/event-stream";

/// Both tenants, and who may everything.
struct Tenants {
    relay: TestRelay,
    acme: String,
    zeta: String,
    all: String,
    /// The ids of the other tenant's messages.
    ids: Vec<String>,
}

impl Tenants {
    async fn start() -> Self {
        let relay = closed::start(memory()).await;
        let of = async |rules: &[&str]| token(&relay, ROOT, rules).await.1;
        let acme = of(&["allow publish,read,manage acme.*"]).await;
        let zeta = of(&["allow publish,read,manage zeta.*"]).await;
        let all = of(&["allow publish,read,manage *", "allow admin *"]).await;
        let own = json!({ "topic": "acme.orders", "payload": "own" });
        assert_eq!(send(&relay, Some(&acme), "POST", "/api/v1/messages", &own).await.status, 201);
        let theirs = json!({ "topic": "zeta.orders", "payload": SECRET });
        let both = json!({ "messages": [theirs, theirs] });
        let made = send(&relay, Some(&zeta), "POST", "/api/v1/messages/bulk", &both).await.json();
        let results = made["results"].as_array().expect("a list").iter();
        // The last one comes after the other tenant's message, so that this has another id.
        let ids = results.map(|result| result["message_id"].as_str().expect("an id").to_owned()).collect();
        Self { relay, acme, zeta, all, ids }
    }

    async fn as_acme(&self, method: &str, path: &str, body: &Value) -> Answer {
        let answer = send(&self.relay, Some(&self.acme), method, path, body).await;
        tells_nothing(&answer, &format!("{method} {path} {body}"));
        answer
    }

    /// Checks that the other tenant has what it had, and that there are no topics but those of the two.
    async fn are_as_they_were(&self) {
        let list =
            send(&self.relay, Some(&self.all), "GET", "/api/v1/topics?limit=1000", &Value::Null).await.json();
        let topics = list.as_array().expect("a list");
        for topic in topics {
            let name = topic["topic_name"].as_str().expect("a name");
            assert!(name.starts_with("acme.") || name == "zeta.orders", "{name} was made");
        }
        let path = "/api/v1/topics/zeta.orders";
        let detail = send(&self.relay, Some(&self.zeta), "GET", path, &Value::Null).await.json();
        assert_eq!((&detail["length"], &detail["description"]), (&json!(2), &Value::Null), "{detail}");
        let path = "/api/v1/topics/zeta.orders/messages?order=asc";
        let page = send(&self.relay, Some(&self.zeta), "GET", path, &Value::Null).await.json();
        let left: Vec<_> = page["messages"].as_array().expect("a list").iter().collect();
        assert!(left.len() == 2 && left.iter().all(|message| message["payload"] == SECRET), "{page}");
    }
}

#[track_caller]
fn tells_nothing(answer: &Answer, shown: &str) {
    let told = format!("{:?}{}", answer.headers, String::from_utf8_lossy(&answer.body));
    assert!(!told.contains(SECRET), "{shown} tells the payload: {told}");
}

/// Names as they could be written in a path, and whether they are names of the tenant `acme`.
const IN_PATHS: [(&str, bool); 44] = [
    ("acme.orders", true),
    ("%61cme.orders", true),
    ("acme%2Eorders", true),
    ("acme%2eorders", true),
    ("%61%63%6d%65%2e%6f%72%64%65%72%73", true),
    ("acme.zeta.orders", true),
    // Twice encoded is not a name.
    ("%2561cme.orders", false),
    ("acme%252Eorders", false),
    ("zeta.orders", false),
    ("%7Aeta.orders", false),
    ("zeta%2Eorders", false),
    ("%257Aeta.orders", false),
    // Case, and what looks alike.
    ("Acme.orders", false),
    ("ACME.ORDERS", false),
    ("%D0%B0cme.orders", false),
    ("acme%EF%BC%8Eorders", false),
    ("acme%E2%80%A4orders", false),
    ("acme%C2%AD.orders", false),
    ("%EF%BC%A1cme.orders", false),
    ("acme.orders%E2%80%8B", false),
    // Not the pattern, but near it.
    ("acme", false),
    ("acme.", false),
    (".acme.orders", false),
    ("acme:orders", false),
    ("acme-x.orders", false),
    ("acmeorders", false),
    ("xacme.orders", false),
    ("x.acme.orders", false),
    // Ways up, and ways out of the name.
    ("acme.x%2F..%2Fzeta.orders", false),
    ("acme.x/../zeta.orders", false),
    ("acme.x/%2e%2e/zeta.orders", false),
    ("acme.x%5C..%5Czeta.orders", false),
    ("..%2Fzeta.orders", false),
    ("%2e%2e", false),
    ("acme.x;zeta.orders", false),
    ("acme.x,zeta.orders", false),
    ("acme.x%26topics=zeta.orders", false),
    ("acme.x%00zeta.orders", false),
    ("acme.x%0d%0azeta.orders", false),
    ("acme.x%20zeta.orders", false),
    // Patterns where names stand.
    ("acme.*", false),
    ("*", false),
    ("%2A", false),
    ("acme.%7Bname%7D", false),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_way_to_write_a_name_in_a_path_leads_out_of_a_tenant() {
    let tenants = Tenants::start().await;
    let Tenants { relay, acme, .. } = &tenants;
    for (name, is_own) in IN_PATHS {
        // What somebody asks for is repeated.
        let pair = format!("name={name}");
        let (_, decoded) = url::form_urlencoded::parse(pair.as_bytes()).next().expect("a pair");
        let is_asked_for = name.contains("zeta") || decoded.contains("zeta");
        let messages = format!("/api/v1/topics/{name}/messages");
        let topic = format!("/api/v1/topics/{name}");
        let id = &tenants.ids[0];
        for (method, path, kind, body) in [
            // The fast path, and past it.
            ("POST", messages.clone(), "application/json", "1"),
            ("POST", messages.clone(), "image/png", "1"),
            ("POST", messages.clone(), "application/x-ndjson", "1\n"),
            ("GET", format!("{messages}?order=asc"), "", ""),
            ("GET", format!("{messages}?wait=1&after=earliest&order=asc"), "", ""),
            ("GET", format!("{messages}/{id}"), "", ""),
            ("GET", format!("{messages}/{id}/payload"), "", ""),
            ("GET", topic.clone(), "", ""),
            ("PUT", topic.clone(), "application/json", r#"{"description":"taken"}"#),
            ("POST", format!("{topic}/trim"), "application/json", r#"{"keep":0}"#),
            ("DELETE", format!("{messages}/{id}"), "", ""),
            ("DELETE", topic.clone(), "", ""),
            ("GET", format!("/api/v1/topics?match={name}"), "", ""),
            ("GET", format!("/api/v1/topics?cursor={name}"), "", ""),
        ] {
            let kind = Some(("content-type", kind)).filter(|(_, kind)| !kind.is_empty());
            let headers: Vec<_> = [("authorization", &**acme)].into_iter().chain(kind).collect();
            let answer = relay.send(method, &path, &headers, body.as_bytes()).await;
            let shown = format!("{method} {path}");
            tells_nothing(&answer, &shown);
            assert!(answer.status < 500, "{shown}: {answer:?}");
            // Lists show what may be read, whatever was asked; lines have an answer each.
            let is_list = path.starts_with("/api/v1/topics?");
            let is_taken = match answer.status {
                207 => answer.json()["summary"]["accepted"] != 0,
                status => status < 300,
            };
            assert!(is_own || is_list || !is_taken, "{shown}: {answer:?}");
            assert!(!answer.text().contains("zeta") || is_asked_for, "{shown}: {answer:?}");
        }
        for (path, kind) in [
            (format!("{messages}?after=earliest"), EVENTS),
            (format!("{messages}?after=earliest"), "application/x-ndjson"),
            (format!("/api/v1/stream?topics={name}&after=earliest"), EVENTS),
            (format!("/api/v1/stream?topics=acme.orders,{name}"), EVENTS),
        ] {
            let mut connection = RawConnection::connect(relay.address).await.expect("it listens");
            let headers = format!("accept: {kind}\r\nauthorization: {acme}\r\n");
            let head = connection.ask(&path, &headers).await.expect("an answer");
            let is_open = crate::support::raw::status(&head) == 200;
            // A pattern is read as far as its reader may.
            let is_pattern = (name.contains('*') || name == "%2A") && path.contains("stream?topics=");
            assert!(!is_open || is_own || is_pattern, "{path}: {head}");
        }
    }
    tenants.are_as_they_were().await;
    tenants.relay.stop().await;
}

/// Names as they could stand in JSON, that are none of the tenant `acme`.
const IN_TEXTS: [&str; 24] = [
    "zeta.orders",
    "ZETA.orders",
    "Acme.orders",
    "\u{430}cme.orders",
    "acme\u{ff0e}orders",
    "acme\u{2024}orders",
    "ac\u{ad}me.orders",
    "\u{ff21}cme.orders",
    "acme.orders\u{200b}",
    "%61cme.orders",
    "%7Aeta.orders",
    "acme",
    "acme.",
    ".acme.orders",
    "acme:orders",
    "x.acme.orders",
    "acme.x/../zeta.orders",
    "acme.x\0zeta.orders",
    "acme.x\nzeta.orders",
    " acme.orders",
    "acme.orders ",
    "",
    "..",
    "keys/acme.x",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_way_to_write_a_name_in_a_body_or_a_frame_leads_out_of_a_tenant() {
    let tenants = Tenants::start().await;
    let Tenants { relay, acme, .. } = &tenants;
    for name in IN_TEXTS {
        for (method, path, body) in [
            ("POST", "/api/v1/messages", json!({ "topic": name, "payload": 1 })),
            ("POST", "/api/v1/messages/bulk", json!({ "messages": [{ "topic": name, "payload": 1 }] })),
            (
                "POST",
                "/messages/poll",
                json!({ "topics": [name], "since": { name: "earliest" }, "timeout": 1 }),
            ),
            ("POST", "/messages/poll", json!({ "topics": ["acme.orders", name], "timeout": 1 })),
            ("POST", "/api/v1/topics", json!({ "topic_name": name })),
        ] {
            let answer = tenants.as_acme(method, path, &body).await;
            let is_taken = match answer.status {
                207 => answer.json()["summary"]["accepted"] != 0,
                status => status < 300,
            };
            assert!(!is_taken && answer.status < 500, "{path} {body}: {answer:?}");
        }
        for frame in [
            json!({ "type": "publish", "topic": name, "payload": 1 }),
            json!({ "type": "subscribe", "topics": [name], "offset": "earliest" }),
            json!({ "type": "subscribe", "topics": ["acme.orders", name] }),
            json!({ "type": "subscribe", "topics": [name], "cursors": { name: "earliest" } }),
        ] {
            let mut socket = upgrade(relay, &[("authorization", acme)]).await.expect("it upgrades");
            socket.send(frame.to_string()).await;
            let told = socket.frame().await;
            assert_eq!(told["type"], "error", "{frame}: {told}");
        }
    }
    // The same in a token and a ticket of the tenant: they can do no more than who makes them.
    let wide = json!({ "name": "wide", "rules": ["allow publish,read,work,manage *"] });
    let made = tenants.as_acme("POST", "/api/v1/tokens", &wide).await.json();
    let wide = format!("Bearer {}", made["token"].as_str().expect("a text"));
    let own = send(relay, Some(&wide), "GET", "/api/v1/topics/acme.orders/messages", &Value::Null).await;
    assert_eq!(own.status, 200, "{own:?}");
    for door in PUBLISH.iter().chain(&READ).chain(&WORK).chain(&MANAGE) {
        let (code, detail) = go(relay, Some(&wide), door, "zeta.orders", &tenants.ids[0]).await;
        assert_eq!(code.as_deref(), Some("forbidden"), "{door}: {detail}");
    }
    tenants.are_as_they_were().await;
    tenants.relay.stop().await;
}

/// Reads the events of a stream up to the one with this in it.
async fn events(relay: &TestRelay, who: &str, path: &str, more: &str, end: &str) -> String {
    let headers = format!("authorization: {who}\r\n{more}");
    let mut stream = Stream::open(relay.address, path, EVENTS, &headers).await.expect("a stream");
    let told = stream.until(end.as_bytes()).await.expect("it comes");
    String::from_utf8(told).expect("text")
}

fn last_id(events: &str) -> String {
    let id = events.lines().rev().find_map(|line| line.strip_prefix("id: "));
    id.unwrap_or_else(|| panic!("no id in {events}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_other_tenant_was_handed_opens_nothing_and_tells_nothing() {
    let tenants = Tenants::start().await;
    let Tenants { relay, acme, zeta, all, ids } = &tenants;
    let as_acme = async |method: &str, path: &str, body: Value| tenants.as_acme(method, path, &body).await;

    // Ids of its messages, beside ids that there never were: the same is said of both.
    let made_up = "1-1";
    for path in ["/api/v1/topics/acme.orders/messages/ID", "/api/v1/topics/acme.orders/messages/ID/payload"] {
        let told = async |id: &str| {
            let answer = as_acme("GET", &path.replace("ID", id), Value::Null).await;
            (answer.status, answer.problem().detail.replace(id, "ID"))
        };
        assert_eq!(told(&ids[1]).await, told(made_up).await, "{path}");
    }
    for cursor in [&*ids[0], &ids[1]] {
        let path = format!("/api/v1/topics/acme.orders/messages?after={cursor}&order=asc");
        let page = as_acme("GET", &path, Value::Null).await;
        assert!(page.status == 200 && !page.text().contains("zeta"), "{page:?}");
        let since = json!({ "topics": ["acme.orders"], "since": { "acme.orders": cursor, "zeta.orders": cursor }, "timeout": 1 });
        let polled = as_acme("POST", "/messages/poll", since).await;
        assert!(polled.status == 200 && !polled.text().contains("zeta"), "{polled:?}");
    }

    // Event ids of streams that have the other tenant's topics in them, and of a pattern over all.
    let both = "/api/v1/stream?topics=acme.orders,zeta.orders&after=earliest";
    let of_both = last_id(&events(relay, all, both, "", "own").await);
    let everything = "/api/v1/stream?topics=*&after=earliest";
    let of_all = last_id(&events(relay, all, everything, "", SECRET).await);
    let of_zeta =
        last_id(&events(relay, zeta, "/api/v1/stream?topics=zeta.*&after=earliest", "", SECRET).await);
    let publish = json!({ "topic": "acme.orders", "payload": "next" });
    for (path, id) in [
        ("/api/v1/stream?topics=acme.orders", &of_both),
        ("/api/v1/stream?topics=*", &of_all),
        ("/api/v1/stream?topics=*", &of_zeta),
        ("/api/v1/stream?topics=acme.*", &of_all),
        ("/api/v1/stream?topics=acme.*", &of_zeta),
        ("/api/v1/topics/acme.orders/messages", &ids[0]),
    ] {
        let mut connection = RawConnection::connect(relay.address).await.expect("it listens");
        let headers = format!("accept: {EVENTS}\r\nauthorization: {acme}\r\nlast-event-id: {id}\r\n");
        let head = connection.ask(path, &headers).await.expect("an answer");
        if crate::support::raw::status(&head) != 200 {
            continue;
        }
        drop(connection);
        // Behind all that was handed out.
        assert_eq!(as_acme("POST", "/api/v1/messages", publish.clone()).await.status, 201);
        let told = events(relay, acme, path, &format!("last-event-id: {id}\r\n"), "next").await;
        assert!(!told.contains("zeta"), "{path} after {id}: {told}");
    }
    // The same over a socket.
    for (topics, cursors) in [
        (json!(["acme.orders"]), json!({ "acme.orders": ids[0], "zeta.orders": ids[0] })),
        (json!(["*"]), json!({ "*": of_all })),
        (json!(["*"]), json!({ "*": "earliest" })),
        (json!(["zeta.*"]), json!({ "zeta.*": of_zeta })),
    ] {
        let mut socket = upgrade(relay, &[("authorization", acme)]).await.expect("it upgrades");
        let frame = json!({ "type": "subscribe", "topics": topics, "cursors": cursors });
        socket.send(frame.to_string()).await;
        let mut told = socket.frame().await.to_string();
        if topics == json!(["*"]) && !told.contains("error") {
            as_acme("POST", "/api/v1/messages", publish.clone()).await;
            while !told.contains("next") {
                told = socket.frame().await.to_string();
                assert!(!told.contains("zeta"), "{frame}: {told}");
            }
        }
        let asked = frame.to_string().contains("zeta.");
        assert!(asked || !told.contains("zeta"), "{frame}: {told}");
        assert!(!told.contains(SECRET), "{frame}: {told}");
    }

    // Its ticket opens what is its own, and stands beside no other token.
    let made =
        send(relay, Some(zeta), "POST", "/api/v1/tickets", &json!({ "rules": ["allow publish,read *"] }))
            .await;
    let ticket = made.json()["ticket"].as_str().expect("a text").to_owned();
    let path = format!("/api/v1/topics/acme.orders/messages?after=earliest&ticket={ticket}");
    assert_eq!(relay.send("GET", &path, &[("accept", EVENTS)], b"").await.status, 403, "its maker may not");
    let path = format!("/api/v1/topics/zeta.orders/messages?after=earliest&ticket={ticket}");
    let beside = relay.send("GET", &path, &[("accept", EVENTS), ("authorization", acme)], b"").await;
    tells_nothing(&beside, "a ticket beside a token");
    assert_eq!(beside.status, 400, "{beside:?}");

    // Under the same key each has its own message.
    let keyed = async |who: &str, topic: &str| {
        let headers = [JSON, ("authorization", who), ("idempotency-key", "order-1")];
        let body = json!({ "topic": topic, "payload": "keyed" }).to_string();
        relay.send("POST", "/api/v1/messages", &headers, body.as_bytes()).await
    };
    let own = token(relay, ROOT, &["allow publish zeta.keyed", "allow read zeta.keyed"]).await.1;
    let (first, second) = (keyed(&own, "zeta.keyed").await, keyed(acme, "acme.keyed").await);
    assert_eq!((first.status, second.status, second.header("idempotency-replayed")), (201, 201, None));
    assert_eq!(second.json()["topic"], "acme.keyed");
    let gone = send(relay, Some(all), "DELETE", "/api/v1/topics/zeta.keyed", &Value::Null).await;
    assert_eq!(gone.status, 204);
    tenants.are_as_they_were().await;
    tenants.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_counts_and_explanations_are_about_one_s_own() {
    let tenants = Tenants::start().await;
    let Tenants { relay, acme, zeta, .. } = &tenants;
    // Somebody of the other tenant waits, and has something open.
    let poll = json!({ "topics": ["zeta.orders"], "timeout": 5 });
    let waiting = send(relay, Some(zeta), "POST", "/messages/poll", &poll);
    let headers = format!("authorization: {zeta}\r\n");
    let stream = Stream::open(relay.address, "/api/v1/stream?topics=zeta.*", EVENTS, &headers).await;
    let looking = async {
        for path in [
            "/api/v1/topics",
            "/api/v1/topics?match=*",
            "/api/v1/topics?match=zeta.*",
            "/api/v1/topics?match=zeta.orders",
            "/api/v1/topics?match=*orders",
            "/api/v1/topics?cursor=acme.orders",
            "/api/v1/topics?cursor=zeta.a",
            "/api/v1/topics?limit=1",
            "/api/v1/tokens",
            "/auth/me",
            "/health",
            "/ready",
        ] {
            let answer = tenants.as_acme("GET", path, &Value::Null).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            let told = format!("{:?}{}", answer.headers, answer.text());
            let told = told.replace("zeta.a", "").replace("match=zeta", "");
            assert!(!told.contains("zeta"), "{path}: {told}");
        }
        for path in [
            "/api/v1/topics/stats",
            "/messages/poll/stats",
            "/metrics",
            "/api/v1/users",
            "/api/v1/roles",
            "/auth/users",
            "/auth/users/stats",
        ] {
            let answer = tenants.as_acme("GET", path, &Value::Null).await;
            assert_eq!(
                (answer.status, answer.problem().code.as_str()),
                (403, "forbidden"),
                "{path}: {answer:?}"
            );
            assert!(!answer.text().contains("zeta"), "{path}: {answer:?}");
            let nobody = relay.get(path).await;
            assert_eq!(nobody.status, 401, "{path}: {nobody:?}");
        }
        for principal in ["anonymous", "root"] {
            let asked = json!({ "verb": "read", "topic": "zeta.orders", "principal": principal });
            let answer = tenants.as_acme("POST", "/api/v1/access/explain", &asked).await;
            assert_eq!(answer.status, 403, "{principal}");
        }
        // Of a topic that is there and one that is not, the same is said on every door.
        for door in PUBLISH.iter().chain(&READ).chain(&WORK).chain(&MANAGE) {
            let there = go(relay, Some(acme), door, "zeta.orders", &tenants.ids[0]).await;
            let none = go(relay, Some(acme), door, "zeta.nothing", &tenants.ids[0]).await;
            let same = |(code, detail): (Option<String>, String)| {
                (code, detail.replace("zeta.orders", "T").replace("zeta.nothing", "T"))
            };
            assert_eq!(same(there), same(none), "{door}");
        }
    };
    let (polled, ()) = tokio::join!(waiting, looking);
    assert_eq!(polled.status, 200);
    drop(stream);
    tenants.are_as_they_were().await;
    tenants.relay.stop().await;
}
