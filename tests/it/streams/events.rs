//! Server-sent events of one topic: their form, where they start, what is refused.

use super::client::{Coming, Event};
use super::on_both_backends;
use crate::support::ground::{Ground, append_all, json, message};
use crate::support::relay::TestRelay;
use std::time::Duration;

use tidemill::proto::{Code, Timestamp, TopicName};
use tidemill::storage::Body;

const PATH: &str = "/api/v1/topics/events/messages";

fn topic() -> TopicName {
    crate::support::ground::topic("events")
}

async fn events_have_this_form(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let metadata = Some("{\r\"k\":\n\"v\"\r\n}".into());
    let pretty = "{\r\n  \"a\": \"\\n\\r\u{2028}\u{85}data: x\",\n\n  \"id\": \"event: y\"\r}";
    let bytes = Body {
        payload: b"\0\r\n\nid: 1".as_slice().into(),
        content_type: Some("text/plain; a=\"data:\"".into()),
        metadata: None,
        order_key: None,
    };
    let messages = [Body { metadata, ..json(pretty) }, bytes, json("7")];
    let ids = append_all(&ground.storage, messages.map(|body| message(&topic(), body)).to_vec()).await;

    let mut coming = Coming::events(relay.address, &format!("{PATH}?after=earliest"), &[]).await.unwrap();
    for (name, value) in [
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("vary", "accept"),
        ("transfer-encoding", "chunked"),
    ] {
        assert_eq!(coming.head.header(name), Some(value));
    }
    let retry = coming.opening.retry.expect("when to come back");
    assert!((1_000..=3_000).contains(&retry), "{retry}");
    // One block, with data in JSON, so that no client takes it for an empty message. What is trimmed from the first
    // message on is missed by who comes back with it.
    let before = ids[0].previous().expect("a place").to_string();
    let opening = Event {
        retry: Some(retry),
        id: Some(before.clone()),
        name: Some("subscribed".to_owned()),
        data: Some(format!(r#"{{"cursors":{{"events":"{before}"}},"absent":[]}}"#)),
        comments: 0,
    };
    assert_eq!(coming.opening, opening);
    for (at, id) in ids.iter().enumerate() {
        let event = coming.event().await.unwrap().expect("a message");
        assert!(event.is_message(), "{event:?}");
        assert_eq!(event.id, Some(id.to_string()));
        let page = relay.get(&format!("{PATH}/{id}")).await;
        assert_eq!(event.json(), page.json(), "it looks the same everywhere");
        let lines = page.text().replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(
            event.data.as_deref(),
            Some(lines.as_str()),
            "{at}: byte for byte, with line feeds for CR"
        );
    }
    relay.stop().await;
}

async fn it_starts_where_it_is_told(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let ids = crate::support::ground::append_numbers(&ground.storage, &topic(), 10).await;
    let id = |at: usize| ids[at].to_string();
    let (two, five, eight) = (id(2), id(5), id(8));
    let header = |id: &str| vec![("last-event-id".to_owned(), id.to_owned())];
    let cases = [
        (String::new(), vec![], 10),
        ("?after=latest".to_owned(), vec![], 10),
        ("?after=earliest".to_owned(), vec![], 0),
        (format!("?after={two}"), vec![], 3),
        (format!("?cursor={two}"), vec![], 3),
        ("?after=-1h".to_owned(), vec![], 0),
        ("?after=earliest".to_owned(), header(&five), 6),
        (format!("?after={two}"), header(&five), 6),
        (format!("?last_event_id={five}"), vec![], 6),
        (format!("?last_event_id={five}&after=earliest"), vec![], 6),
        (format!("?lastEventId={five}&after=earliest"), vec![], 6),
        (format!("?Last-Event-ID={five}"), vec![], 6),
        // What a library adds when it connects again is newer than what the page has written.
        (format!("?last_event_id={two}&lastEventId={five}"), vec![], 6),
        (format!("?last_event_id={five}&lastEventId="), vec![], 6),
        (format!("?lastEventId={five}"), header(&eight), 9),
        ("?last_event_id=&after=earliest".to_owned(), header(""), 0),
        // A browser keeps the query when it connects again: its header is newer.
        (format!("?last_event_id={five}"), header(&eight), 9),
    ];
    let mut streams = Vec::new();
    for (query, headers, first) in cases {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let coming = Coming::events(relay.address, &format!("{PATH}{query}"), &headers).await.unwrap();
        streams.push((query, coming, first));
    }
    relay.publish("events", "10").await;
    let twice = [("last-event-id", five.as_str()), ("last-event-id", eight.as_str())];
    for (path, headers, is_refused) in [
        (PATH, &twice[..], true),
        ("/api/v1/stream?topics=events", &twice, true),
        (PATH, &[("last-event-id", ""), ("last-event-id", five.as_str())], false),
    ] {
        let headers = [&[("accept", "text/event-stream")], headers].concat();
        let answer = relay.send("HEAD", path, &headers, b"").await;
        assert_eq!(answer.status, if is_refused { 400 } else { 200 }, "{path} {headers:?}");
    }
    for (query, mut coming, first) in streams {
        for expected in first..=10 {
            let message = coming.message().await.unwrap().expect("it goes on").json();
            assert_eq!(message["payload"], expected, "{query}");
        }
    }
    relay.stop().await;
}

/// What is lost between the first connection and the first message is told by no message.
async fn who_starts_from_now_on_resumes_without_having_got_a_message(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    for body in [r#"{"topic_name":"events"}"#, r#"{"topic_name":"other"}"#] {
        assert_eq!(relay.post("/api/v1/topics", body).await.status, 201);
    }
    relay.publish("other", "0").await;
    for (topic, path) in [("events", PATH), ("other", "/api/v1/topics/other/messages")] {
        let mut coming = Coming::events(relay.address, path, &[]).await.unwrap();
        let id = coming.opening.id.take().expect("where it starts");
        assert_eq!(coming.opening.json()["cursors"][topic], id, "a client of any kind finds it");
        drop(coming);
        relay.publish(topic, "1").await;
        let mut coming = Coming::events(relay.address, path, &[("last-event-id", &id)]).await.unwrap();
        assert_eq!(coming.opening.id, Some(id), "a stream that is resumed says it, too");
        let first = coming.event().await.unwrap().expect("a message");
        assert_eq!(first.json()["payload"], 1, "{first:?}");
    }
    relay.stop().await;
}

async fn what_does_not_fit_is_refused_by_name(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("events", "1").await;
    let cases = [
        ("?limit=5", "", "limit"),
        ("?order=asc", "", "order"),
        ("?wait=5", "", "wait"),
        ("?must_exist=TRUE", "", "must_exist"),
        ("?cursor=1-0&after=1-0", "", "after"),
        ("?cursor=earliest", "", "cursor"),
        ("?after=$", "", "after"),
        ("?last_event_id=latest", "", "last_event_id"),
        ("?lastEventId=latest", "", "lastEventId"),
        ("?Last-Event-ID=latest", "", "Last-Event-ID"),
        ("?last_event_id=1-0&last_event_id=1-0", "", "last_event_id"),
        ("?last_event_id=1-0%0d%0a", "", "last_event_id"),
        ("", "-", "Last-Event-ID"),
        ("", "18446744073709551616-0", "Last-Event-ID"),
        ("", "\u{e9}", "Last-Event-ID"),
        ("?afer=latest", "", "afer"),
    ];
    for accept in ["text/event-stream", "application/x-ndjson"] {
        for (query, id, field) in cases {
            let headers = [("accept", accept), ("last-event-id", id)];
            let answer = relay.send("GET", &format!("{PATH}{query}"), &headers, b"").await;
            let problem = answer.problem();
            assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{query} {id}");
        }
        let missing = relay
            .send("GET", "/api/v1/topics/none/messages?must_exist=true", &[("accept", accept)], b"")
            .await;
        assert_eq!(missing.problem().code, Code::TopicNotFound);
    }
    for name in ["last_event_id", "lastEventId", "Last-Event-ID"] {
        let page = relay.get(&format!("{PATH}?{name}=1-0")).await;
        assert_eq!(page.problem().field.as_deref(), Some(name));
    }
    assert_eq!(relay.send("GET", PATH, &[("accept", "*/*")], b"").await.json()["total"], 1, "a page");
    relay.stop().await;
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_is_alive() {
    let storage = crate::support::relay::memory();
    let relay = TestRelay::start_with(storage, |options| {
        options.http.ping_every = Duration::from_millis(50);
    })
    .await;
    relay.publish("events", "1").await;
    let mut coming = Coming::events(relay.address, PATH, &[]).await.unwrap();
    for _ in 0..3 {
        // One line, without an empty one that would end a block: no client hands it on.
        let ping = coming.text_line().await.unwrap().expect("a sign of life");
        let time = ping.strip_prefix(": ").expect("a comment");
        assert!(time.parse::<Timestamp>().is_ok(), "{ping}");
    }
    relay.publish("events", "2").await;
    let message = coming.message().await.unwrap().expect("a message");
    assert_eq!(message.json()["payload"], 2);
    relay.stop().await;
}

on_both_backends! {
    events_have_this_form,
    it_starts_where_it_is_told,
    who_starts_from_now_on_resumes_without_having_got_a_message,
    what_does_not_fit_is_refused_by_name,
}
