//! Stopping: readers are told where to go on, one by one, within part of the drain time.

use std::time::Duration;

use serde_json::json;
use tidemill::access::{Caller, Leave};
use tokio::time::Instant;

use super::client::Coming;
use super::on_both_backends;
use super::wait::waiting;
use crate::support::ground::Ground;
use crate::support::relay::{TestRelay, memory};

const DRAIN: Duration = Duration::from_secs(2);

async fn every_reader_is_told_where_to_go_on(ground: &Ground) {
    let relay = TestRelay::start_with(ground.storage.clone(), |options| {
        options.drain = DRAIN;
        options.drain_spread = DRAIN;
    })
    .await;
    let id = relay.publish("drain", "0").await;
    let path = "/api/v1/topics/drain/messages?after=earliest";
    let mut events = Vec::new();
    for _ in 0..20 {
        let mut coming = Coming::events(relay.address, path, &[]).await.unwrap();
        coming.message().await.unwrap().expect("the first message");
        events.push(coming);
    }
    let mut lines = Coming::lines(relay.address, path).await.unwrap();
    lines.line().await.unwrap().expect("the first message");
    let polls = async {
        let body = json!({"topics": ["drain"], "timeout": 60}).to_string();
        let (poll, page) = tokio::join!(
            relay.post("/messages/poll", body),
            relay.get("/api/v1/topics/drain/messages?wait=60"),
        );
        assert_eq!((poll.status, &poll.json()["cursors"]), (200, &json!({ "drain": id })));
        assert_eq!((page.status, &page.json()["resume"]), (200, &json!(id)));
    };
    let reading = async {
        waiting(&relay, 2).await;
        let started = Instant::now();
        relay.begin_stop();
        let mut ends = Vec::new();
        for mut coming in events {
            ends.push(async move {
                let end = coming.event().await.unwrap().expect("a last event");
                assert_eq!((end.name.as_deref(), end.id.as_deref()), (Some("end"), None));
                assert!(end.retry.is_some(), "{end:?}");
                assert_eq!(end.json()["cursors"]["drain"], relay_id(&end.json()));
                let cursor = end.json()["cursors"]["drain"].clone();
                assert_eq!(coming.event().await.unwrap(), None, "it ends well");
                (cursor, started.elapsed())
            });
        }
        let line = lines.line().await.unwrap().expect("a last line");
        assert_eq!((&line["type"], &line["cursors"]), (&json!("end"), &json!({ "drain": id })));
        assert_eq!(lines.line().await.unwrap(), None);
        let ends = futures_util::future::join_all(ends).await;
        assert!(ends.iter().all(|(cursor, _)| *cursor == id));
        started.elapsed()
    };
    let ((), elapsed) = tokio::join!(polls, reading);
    assert!(elapsed < DRAIN, "before they would be cut: {elapsed:?}");
    assert!(elapsed > DRAIN / 10, "not all at once: {elapsed:?}");
    relay.stop().await;
}

/// Returns the one cursor of an end event.
fn relay_id(end: &serde_json::Value) -> serde_json::Value {
    let cursors = end["cursors"].as_object().expect("cursors");
    assert_eq!(cursors.len(), 1);
    cursors.values().next().cloned().unwrap_or_default()
}

on_both_backends! { every_reader_is_told_where_to_go_on }

#[tokio::test]
async fn readers_whose_sessions_the_relay_ends_are_told_where_they_stood() {
    let relay = TestRelay::start(memory()).await;
    let id = relay.publish("ended", "0").await;
    let path = "/api/v1/topics/ended/messages?after=earliest";
    let mut events = Coming::events(relay.address, path, &[]).await.unwrap();
    events.message().await.unwrap().expect("the first message");
    let mut lines = Coming::lines(relay.address, path).await.unwrap();
    lines.line().await.unwrap().expect("the first message");
    let poll = async {
        let poll = relay.get("/api/v1/topics/ended/messages?wait=60").await;
        assert_eq!((poll.status, &poll.json()["resume"]), (200, &json!(id)));
    };
    let ending = async {
        waiting(&relay, 1).await;
        assert_eq!(relay.sessions.end(&Caller::anyone()), 3);
        let end = events.event().await.unwrap().expect("a last event");
        assert_eq!((end.name.as_deref(), &end.json()["cursors"]), (Some("end"), &json!({ "ended": id })));
        assert_eq!(end.json()["reason"], Leave::Ended.reason());
        assert_eq!(events.event().await.unwrap(), None);
        let line = lines.line().await.unwrap().expect("a last line");
        assert_eq!((&line["type"], &line["reason"]), (&json!("end"), &json!(Leave::Ended.reason())));
    };
    tokio::join!(poll, ending);
    assert_eq!(relay.sessions.count(), 0);
    relay.stop().await;
}
