//! One stream of several topics: an event's id resumes all of them.

use serde_json::Value;
use tidemill::proto::Code;

use super::client::Coming;
use super::on_both_backends;
use crate::support::ground::Ground;
use crate::support::raw::Stream;
use crate::support::relay::TestRelay;

/// Reads so many messages and returns each as `topic:payload`, with the last id.
async fn read(coming: &mut Coming, count: usize) -> (Vec<String>, String) {
    let (mut got, mut last) = (Vec::new(), String::new());
    while got.len() < count {
        let event = coming.event().await.unwrap().expect("it goes on");
        last = event.id.clone().unwrap_or(last);
        if event.is_message() {
            let message: Value = event.json();
            got.push(format!("{}:{}", message["topic"].as_str().expect("a topic"), message["payload"]));
        }
    }
    (got, last)
}

async fn an_id_resumes_every_topic(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    assert_eq!(relay.post("/api/v1/topics", r#"{"topic_name":"c"}"#).await.status, 201);
    for number in 0..3 {
        for topic in ["a", "b"] {
            relay.publish(topic, &number.to_string()).await;
        }
    }
    let path = "/api/v1/stream?topics=c,a,b,a&after=earliest";
    let mut coming = Coming::events(relay.address, path, &[]).await.unwrap();
    let (mut got, _) = read(&mut coming, 2).await;
    let (more, last) = read(&mut coming, 4).await;
    got.extend(more);
    let of = |topic: &str| -> Vec<_> { got.iter().filter(|name| name.starts_with(topic)).cloned().collect() };
    assert_eq!(of("a"), ["a:0", "a:1", "a:2"]);
    assert_eq!(of("b"), ["b:0", "b:1", "b:2"]);
    drop(coming);
    // `c` had no message when the reader was cut off, and is not the last topic that it heard of.
    relay.publish("c", "0").await;
    relay.publish("a", "3").await;
    let header = [("last-event-id", last.as_str())];
    let mut coming = Coming::events(relay.address, path, &header).await.unwrap();
    let (mut got, last) = read(&mut coming, 2).await;
    got.sort();
    assert_eq!(got, ["a:3", "c:0"]);
    drop(coming);

    relay.publish("b", "3").await;
    relay.publish("d", "0").await;
    // A topic more is read as the query says, and one less is forgotten.
    let path = format!("/api/v1/stream?topics=b,d,a&after=earliest&last_event_id={last}");
    let (mut got, _) = read(&mut Coming::events(relay.address, &path, &[]).await.unwrap(), 2).await;
    got.sort();
    assert_eq!(got, ["b:3", "d:0"]);
    relay.stop().await;
}

async fn it_resumes_without_having_got_a_message(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("a", "0").await;
    assert_eq!(relay.post("/api/v1/topics", r#"{"topic_name":"b"}"#).await.status, 201);
    let path = "/api/v1/stream?topics=a,b";
    let mut coming = Coming::events(relay.address, path, &[]).await.unwrap();
    let id = coming.opening.id.take().expect("where it starts");
    assert_eq!(coming.opening.json()["cursors"]["b"], "0-0");
    assert_eq!(coming.opening.json()["absent"], serde_json::json!([]));
    drop(coming);
    relay.publish("b", "0").await;
    relay.publish("a", "1").await;
    let mut coming = Coming::events(relay.address, path, &[("last-event-id", &id)]).await.unwrap();
    let (mut got, _) = read(&mut coming, 2).await;
    got.sort();
    assert_eq!(got, ["a:1", "b:0"]);
    relay.stop().await;
}

async fn lines_carry_several_topics_too(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("a", "1").await;
    relay.publish("b", "1").await;
    let path = "/api/v1/stream?topics=a,b&after=earliest";
    let mut coming = Coming::lines(relay.address, path).await.unwrap();
    let mut topics = Vec::new();
    for _ in 0..2 {
        topics.push(coming.line().await.unwrap().expect("a line")["topic"].as_str().unwrap().to_owned());
    }
    topics.sort();
    assert_eq!(topics, ["a", "b"]);
    relay.stop().await;
}

/// R19: the small topic's message does not wait for those of the large one.
async fn a_large_topic_does_not_starve_a_small_one(ground: &Ground) {
    const LARGE: usize = 60;
    let relay = TestRelay::start(ground.storage.clone()).await;
    let payload = format!("\"{}\"", "x".repeat(900_000));
    for _ in 0..LARGE {
        relay.publish("large", &payload).await;
    }
    relay.publish("small", "1").await;
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let path = "/api/v1/stream?topics=large,small&after=earliest";
        let mut stream = Stream::open(relay.address, path, accept, "").await.unwrap();
        let (mut large, mut small) = (0, 0);
        // History takes turns, and so does what is live.
        for expected in 1..=2 {
            while small < expected {
                let frame = stream.until(b"\n").await.unwrap();
                let is_of = |topic: &[u8]| memchr::memmem::find(&frame, topic).is_some();
                large += usize::from(is_of(br#""topic":"large""#));
                small += usize::from(is_of(br#""topic":"small""#));
            }
            assert!(large < LARGE * 2 / 3, "{large} large messages came before the small one");
            if expected == 1 {
                relay.publish("small", "2").await;
            }
        }
    }
    relay.stop().await;
}

async fn what_is_wrong_is_named(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("a", "1").await;
    for (query, field) in [
        ("", "topics"),
        ("?topics=", "topics"),
        ("?topics=a,", "topics"),
        ("?topics=a,b%0d%0a", "topics"),
        ("?topics=a&after=x", "after"),
        ("?topics=a&limit=1", "limit"),
        ("?topics=a&must_exist=1", "must_exist"),
        ("?topics=a&last_event_id=1-0", "last_event_id"),
        ("?topics=a&last_event_id=AgAA", "last_event_id"),
    ] {
        let problem = relay.get(&format!("/api/v1/stream{query}")).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{query}");
    }
    let header = [("last-event-id", "nonsense")];
    let problem = relay.send("GET", "/api/v1/stream?topics=a", &header, b"").await.problem();
    assert_eq!((problem.status, problem.field.as_deref()), (400, Some("Last-Event-ID")));

    let problem = relay.get("/api/v1/stream?topics=x,a,y&must_exist=true").await.problem();
    assert_eq!(problem.code, Code::TopicNotFound);
    assert!(problem.detail.contains("`x`, `y`"), "{}", problem.detail);

    let many: Vec<_> = (0..51).map(|number| format!("t{number}")).collect();
    let problem = relay.get(&format!("/api/v1/stream?topics={}", many.join(","))).await.problem();
    assert!(problem.detail.contains("TIDEMILL_STREAM_TOPICS_MAX"), "{}", problem.detail);
    relay.stop().await;
}

on_both_backends! {
    an_id_resumes_every_topic,
    it_resumes_without_having_got_a_message,
    lines_carry_several_topics_too,
    a_large_topic_does_not_starve_a_small_one,
    what_is_wrong_is_named,
}
