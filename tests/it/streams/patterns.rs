//! Streams of patterns: topics that there are and that come, and cursors that resume all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidemill::proto::{Code, PatternCursor};

use super::client::{Coming, Event};
use super::on_both_backends;
use crate::support::ground::Ground;
use crate::support::relay::TestRelay;

const PATH: &str = "/api/v1/stream?topics=orders.*";

/// Longer than the distance that a base keeps from now.
const QUIET: Duration = Duration::from_millis(3_500);

/// Messages by topic, in their order, and the newest cursor.
#[derive(Debug, Default)]
struct Got {
    messages: BTreeMap<String, Vec<String>>,
    gaps: Vec<String>,
    cursor: String,
}

impl Got {
    fn take(&mut self, event: &Event) {
        if let Some(id) = &event.id {
            self.cursor.clone_from(id);
        }
        let Some(data) = &event.data else { return };
        let json: serde_json::Value = serde_json::from_str(data).expect("JSON");
        match event.name.as_deref() {
            None => {
                let topic = json["topic"].as_str().expect("a topic").to_owned();
                self.messages.entry(topic).or_default().push(json["payload"].to_string());
            }
            Some("gap") => self.gaps.push(format!("{} {}", json["topic"], json["reason"]).replace('"', "")),
            Some("cursor") => assert_eq!(json["cursor"], self.cursor.split(',').next().expect("a part")),
            Some("subscribed") => {}
            Some(other) => panic!("{other}: {json}"),
        }
    }

    fn count(&self) -> usize {
        self.messages.values().map(Vec::len).sum()
    }

    /// Takes events until there are so many messages.
    async fn until(&mut self, stream: &mut Coming, count: usize) {
        while self.count() < count {
            let event = stream.event().await.expect("it goes on").expect("it does not end");
            self.take(&event);
        }
    }

    /// Takes events until a cursor has come.
    async fn until_cursor(&mut self, stream: &mut Coming) {
        loop {
            let event = stream.event().await.expect("it goes on").expect("it does not end");
            self.take(&event);
            if event.name.as_deref() == Some("cursor") {
                return;
            }
        }
    }

    fn of(&self, topic: &str) -> Vec<&str> {
        self.messages.get(topic).into_iter().flatten().map(String::as_str).collect()
    }
}

async fn follow(relay: &TestRelay, query: &str, cursor: &str) -> (Coming, Got) {
    let headers: &[(&str, &str)] = if cursor.is_empty() { &[] } else { &[("last-event-id", cursor)] };
    let stream = Coming::events(relay.address, &format!("{PATH}{query}"), headers).await.expect("a stream");
    let mut got = Got::default();
    got.take(&stream.opening);
    (stream, got)
}

async fn topics_that_are_there_and_that_come_are_read(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("orders.old", "0").await;
    relay.publish("others.x", "0").await;
    let (mut stream, mut got) = follow(&relay, "", "").await;
    let opening = stream.opening.json();
    assert!(PatternCursor::parse(opening["cursors"]["orders.*"].as_str().expect("a cursor")).is_ok());
    for (topic, payload) in [("orders.old", "1"), ("others.x", "1"), ("orders.new", "1"), ("orders.new", "2")]
    {
        relay.publish(topic, payload).await;
    }
    got.until(&mut stream, 3).await;
    assert_eq!((got.of("orders.old"), got.of("orders.new")), (vec!["1"], vec!["1", "2"]));
    assert_eq!((got.count(), got.gaps.len()), (3, 0));
    relay.stop().await;
}

async fn a_pattern_starts_where_it_is_told(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    for topic in 0..20 {
        for number in 0..30 {
            relay.publish(&format!("orders.{topic}"), &number.to_string()).await;
        }
    }
    for after in ["earliest", "-10m", "1-0"] {
        let (mut stream, mut got) = follow(&relay, &format!("&after={after}"), "").await;
        relay.publish("orders.last", "0").await;
        got.until(&mut stream, 601).await;
        for topic in 0..20 {
            let all: Vec<_> = (0..30).map(|number| number.to_string()).collect();
            assert_eq!(got.of(&format!("orders.{topic}")), all, "{after}");
        }
        assert!(got.gaps.is_empty(), "{after}: {:?}", got.gaps);
        assert_eq!(relay.send("DELETE", "/api/v1/topics/orders.last", &[], b"").await.status, 204);
    }
    relay.stop().await;
}

async fn a_cursor_resumes_all_topics_and_what_came_meanwhile(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    for topic in 0..30 {
        relay.publish(&format!("orders.{topic}"), "0").await;
    }
    let (mut stream, mut got) = follow(&relay, "&after=earliest", "").await;
    got.until(&mut stream, 30).await;
    relay.publish("orders.3", "1").await;
    got.until(&mut stream, 31).await;
    got.until_cursor(&mut stream).await;
    let cursor = got.cursor.clone();
    assert!(cursor.len() <= PatternCursor::BYTES_MAX, "{}", cursor.len());
    drop(stream);
    for topic in 25..40 {
        relay.publish(&format!("orders.{topic}"), "\"new\"").await;
    }
    // By the header, and by `after`.
    for (query, header) in [(String::new(), cursor.as_str()), (format!("&after={cursor}"), "")] {
        let (mut stream, mut got) = follow(&relay, &query, header).await;
        relay.publish("orders.end", "0").await;
        // Some may come again.
        let has_all = |got: &Got| {
            let mut new = (25..40).map(|topic| got.of(&format!("orders.{topic}")).last() == Some(&"\"new\""));
            new.all(|has| has) && !got.of("orders.end").is_empty()
        };
        while !has_all(&got) {
            let count = got.count() + 1;
            got.until(&mut stream, count).await;
        }
        assert!(got.gaps.is_empty(), "{:?}", got.gaps);
        relay.send("DELETE", "/api/v1/topics/orders.end", &[], b"").await;
    }
    relay.stop().await;
}

/// A topic that has been quiet for longer than a base keeps its distance.
async fn a_quiet_topic_is_not_missed_nor_repeated(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("orders.quiet", "0").await;
    let (mut stream, mut got) = follow(&relay, "&after=earliest", "").await;
    got.until(&mut stream, 1).await;
    tokio::time::sleep(QUIET).await;
    relay.publish("orders.busy", "0").await;
    got.until(&mut stream, 2).await;
    got.until_cursor(&mut stream).await;
    drop(stream);
    relay.publish("orders.busy", "1").await;
    let (mut stream, mut again) = follow(&relay, "", &got.cursor).await;
    again.until_cursor(&mut stream).await;
    while again.of("orders.busy").last() != Some(&"1") {
        let count = again.count() + 1;
        again.until(&mut stream, count).await;
    }
    assert_eq!((again.of("orders.quiet"), &again.gaps[..]), (vec![], &[][..]));
    relay.publish("orders.quiet", "1").await;
    let count = again.count() + 1;
    again.until(&mut stream, count).await;
    assert_eq!((again.of("orders.quiet"), &again.gaps[..]), (vec!["1"], &[][..]));
    relay.stop().await;
}

async fn deletions_and_trims_are_told(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("orders.a", "1").await;
    let (mut stream, mut got) = follow(&relay, "&after=earliest", "").await;
    got.until(&mut stream, 1).await;
    assert_eq!(relay.send("DELETE", "/api/v1/topics/orders.a", &[], b"").await.status, 204);
    relay.publish("orders.a", "2").await;
    got.until(&mut stream, 2).await;
    assert_eq!((got.of("orders.a"), &got.gaps[..]), (vec!["1", "2"], &["orders.a deleted".to_owned()][..]));
    relay.stop().await;
}

async fn a_pattern_stands_beside_names(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    for topic in ["orders.a", "orders.b", "plain"] {
        relay.publish(topic, "0").await;
    }
    let path = "/api/v1/stream?topics=plain,orders.*,later&after=earliest";
    let mut stream = Coming::events(relay.address, path, &[]).await.expect("a stream");
    let mut got = Got::default();
    got.take(&stream.opening);
    assert_eq!(stream.opening.json()["absent"], serde_json::json!(["later"]));
    got.until(&mut stream, 3).await;
    got.until_cursor(&mut stream).await;
    relay.publish("plain", "1").await;
    got.until(&mut stream, 4).await;
    drop(stream);
    relay.publish("plain", "2").await;
    relay.publish("orders.b", "2").await;
    relay.publish("later", "2").await;
    let headers = [("last-event-id", got.cursor.as_str())];
    let mut stream = Coming::events(relay.address, path, &headers).await.expect("a stream");
    let mut again = Got::default();
    while ["plain", "orders.b", "later"].iter().any(|topic| again.of(topic).last() != Some(&"2")) {
        let count = again.count() + 1;
        again.until(&mut stream, count).await;
    }
    assert_eq!(again.of("plain"), ["2"], "named topics go on exactly");
    assert!(again.gaps.is_empty(), "{again:?}");
    relay.stop().await;
}

async fn lines_have_cursors_too(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("orders.a", "0").await;
    let mut stream = Coming::lines(relay.address, &format!("{PATH}&after=earliest")).await.expect("a stream");
    let mut types = BTreeSet::new();
    while !types.contains("cursor") || !types.contains("message") {
        let line = stream.line().await.expect("it goes on").expect("it does not end");
        if line["type"] == "cursor" {
            assert_eq!(line["topic"], "orders.*");
            assert!(PatternCursor::parse(line["cursor"].as_str().expect("a text")).is_ok());
        }
        types.insert(line["type"].as_str().expect("a type").to_owned());
    }
    relay.stop().await;
}

async fn a_pattern_that_cannot_be_read_on_says_why_and_ends(ground: &Ground) {
    let relay =
        TestRelay::start_with(ground.storage.clone(), |options| options.relay.live_topics_max = 3).await;
    relay.publish("orders.0", "0").await;
    let (mut stream, _) = follow(&relay, "", "").await;
    for number in 1..5 {
        relay.publish(&format!("orders.{number}"), "0").await;
    }
    let mut events = Vec::new();
    while let Some(event) = stream.event().await.expect("it goes on") {
        events.push(event);
    }
    let [.., problem, end] = &events[..] else { panic!("{events:?}") };
    assert_eq!((problem.name.as_deref(), &problem.json()["code"]), (Some("problem"), &"overloaded".into()));
    let cursor = end.json()["cursors"]["orders.*"].as_str().map(PatternCursor::parse);
    assert!(end.name.as_deref() == Some("end") && matches!(cursor, Some(Ok(_))), "{end:?}");
    let refused = relay.get(PATH).await.problem();
    assert_eq!(refused.code, Code::Overloaded);
    relay.stop().await;
}

async fn what_is_wrong_is_named(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("a", "0").await;
    for (query, field) in [
        ("topics=orders.*,others.*", "topics"),
        ("topics=.*", "topics"),
        ("topics=*********", "topics"),
        ("topics=orders.*&after=p1.", "after"),
        ("topics=orders.*&after=p1.A", "after"),
        ("topics=orders.*,a&after=p1.AA", "after"),
        ("topics=orders.*&last_event_id=p1.", "last_event_id"),
        ("topics=orders.*&last_event_id=p2.AA", "last_event_id"),
        ("topics=orders.*&last_event_id=p1.AA,", "last_event_id"),
    ] {
        let problem = relay.get(&format!("/api/v1/stream?{query}")).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)), "{query}");
    }
    relay.stop().await;
}

on_both_backends! {
    topics_that_are_there_and_that_come_are_read,
    a_pattern_starts_where_it_is_told,
    a_cursor_resumes_all_topics_and_what_came_meanwhile,
    a_quiet_topic_is_not_missed_nor_repeated,
    deletions_and_trims_are_told,
    a_pattern_stands_beside_names,
    lines_have_cursors_too,
    a_pattern_that_cannot_be_read_on_says_why_and_ends,
    what_is_wrong_is_named,
}
