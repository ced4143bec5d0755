//! Who may do what in rooms on a closed relay, and relays without rooms.

use serde_json::{Value, json};
use tidemill::features::Feature;
use tidemill::proto::Code;

use crate::access::closed::{self, ROOT, send, token};
use crate::support::relay::{TestRelay, memory};

const NOTHING: Value = Value::Null;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_says_who_may_be_where() {
    let relay = closed::start(memory()).await;
    let of = async |rules: &[&str]| token(&relay, ROOT, rules).await.1;
    let member = of(&["allow publish presence/lobby/ann"]).await;
    let viewer = of(&["allow read presence/lobby/*"]).await;
    let topics = of(&["allow publish,read,manage *", "allow publish,read keys/*"]).await;
    let room = "/api/v1/presence/lobby";
    for (method, path, as_member, as_viewer) in [
        ("PUT", format!("{room}/ann"), 201, 403),
        ("PUT", format!("{room}/bob"), 403, 403),
        ("PUT", "/api/v1/presence/other/ann".to_owned(), 403, 403),
        ("GET", room.to_owned(), 403, 200),
        ("GET", "/api/v1/presence/other".to_owned(), 403, 403),
        ("DELETE", format!("{room}/bob"), 403, 403),
        ("DELETE", format!("{room}/ann"), 204, 403),
    ] {
        for (who, expected) in
            [(Some(&topics), 403), (None, 401), (Some(&viewer), as_viewer), (Some(&member), as_member)]
        {
            let answer = send(&relay, who.map(String::as_str), method, &path, &NOTHING).await;
            assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
            match expected {
                401 => assert_eq!(answer.problem().code, Code::Unauthenticated),
                403 => assert_eq!(answer.problem().code, Code::Forbidden),
                _ => {}
            }
        }
    }
    // Rooms are listed whose members may be read.
    let everybody = of(&["allow publish,read presence/*"]).await;
    for room in ["other", "lobby"] {
        let path = format!("/api/v1/presence/{room}/ann");
        assert_eq!(send(&relay, Some(&everybody), "PUT", &path, &NOTHING).await.status, 201);
    }
    let all = json!([{ "room": "lobby", "count": 1 }, { "room": "other", "count": 1 }]);
    for (who, status, rooms) in [
        (None, 401, None),
        (Some(&*member), 403, None),
        (Some(&*topics), 403, None),
        (Some(&*viewer), 200, Some(json!([{ "room": "lobby", "count": 1 }]))),
        (Some(&*everybody), 200, Some(all)),
    ] {
        let answer = send(&relay, who, "GET", "/api/v1/presence", &NOTHING).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(rooms.is_none_or(|rooms| answer.json() == rooms), "{answer:?}");
    }
    // Whoever may read a topic is no member by that.
    let reader = of(&["allow read t"]).await;
    let both = of(&["allow read t", "allow publish presence/lobby/ann"]).await;
    let stream = async |who: &str, query: &str| {
        let headers = [("authorization", who), ("accept", "text/event-stream")];
        relay.send("HEAD", &format!("/api/v1/stream?topics=t{query}"), &headers, b"").await.status
    };
    assert_eq!(stream(&reader, "").await, 200);
    let opened = async |who: &str, query: &str| {
        let headers = format!("authorization: {who}\r\naccept: text/event-stream\r\n");
        let connection = crate::support::raw::RawConnection::connect(relay.address).await;
        let mut connection = connection.expect("the relay listens");
        let head = connection.ask(&format!("/api/v1/stream?topics=t{query}"), &headers).await;
        crate::support::raw::status(&head.expect("an answer"))
    };
    assert_eq!(opened(&reader, "&presence=lobby&member=ann").await, 403);
    assert_eq!(opened(&both, "&presence=lobby&member=bob").await, 403);
    assert_eq!(opened(&both, "&presence=lobby&member=ann").await, 200);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_without_presence_says_so() {
    let relay = TestRelay::without(memory(), Feature::Presence).await;
    for (method, path) in [("GET", "lobby"), ("PUT", "lobby/ann"), ("DELETE", "lobby/ann")] {
        let answer = relay.send(method, &format!("/api/v1/presence/{path}"), &[], b"").await;
        assert_eq!(answer.problem().status, 404, "{method} {path}");
    }
    let headers = [("accept", "text/event-stream")];
    let stream = relay.send("GET", "/api/v1/stream?topics=t&presence=lobby", &headers, b"").await;
    assert_eq!(stream.problem().status, 400, "{stream:?}");
    let paths = relay.get("/openapi.json").await.json()["paths"].as_object().expect("paths").clone();
    assert!(!paths.keys().any(|path| path.contains("presence")), "{:?}", paths.keys());
    assert_eq!(relay.get("/api/v1/buckets").await.json(), json!([]), "the rest is there");
    relay.stop().await;
}
