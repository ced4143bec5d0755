//! Pages that are waited for.

use std::time::Duration;

use tidemill::proto::Code;
use tokio::time::Instant;

use super::on_both_backends;
use crate::support::eventually;
use crate::support::ground::{Ground, append_numbers, topic};
use crate::support::relay::{STUCK, TestRelay};

const PATH: &str = "/api/v1/topics/wait/messages";

/// Waits until so many long-polls wait.
pub(super) async fn waiting(relay: &TestRelay, count: usize) {
    eventually(STUCK, || async { relay.get("/messages/poll/stats").await.json()["active_waiters"] == count })
        .await;
}

async fn a_page_that_is_not_empty_comes_at_once(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let ids = append_numbers(&ground.storage, &topic("wait"), 5).await;
    let page = relay.get(&format!("{PATH}?wait=60&limit=2&after=earliest")).await.json();
    assert_eq!((&page["total"], &page["limit"], &page["order"]), (&2.into(), &2.into(), &"asc".into()));
    assert_eq!((&page["messages"][0]["payload"], &page["cursor"]), (&0.into(), &"earliest".into()));
    assert_eq!(page["next_cursor"], ids[1].to_string());
    assert_eq!(page["resume"], page["next_cursor"]);
    let rest = relay.get(&format!("{PATH}?wait=60&cursor={}", ids[1])).await.json();
    assert_eq!(rest["total"], 3, "`cursor` reads forward too");
    let same = relay.get(&format!("{PATH}?order=asc&cursor={}", ids[1])).await.json();
    assert_eq!(rest["messages"], same["messages"]);
    assert!(same.get("resume").is_none(), "plain pages have their old form");
    relay.stop().await;
}

async fn an_empty_page_waits_for_a_message(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let mut last = relay.publish("wait", "0").await;
    for start in ["", "&after=latest", "&after=", "&cursor="] {
        let query =
            if start.ends_with('=') { format!("?wait=30{start}{last}") } else { format!("?wait=30{start}") };
        let publish = async {
            waiting(&relay, 1).await;
            relay.publish("wait", "1").await
        };
        let path = format!("{PATH}{query}");
        let (page, next) = tokio::join!(relay.get(&path), publish);
        let page = page.json();
        let first = page["messages"].as_array().and_then(|messages| messages.last()).expect("a message");
        assert_eq!(first["message_id"], next, "{query}");
        assert_eq!((&page["total"], &page["resume"]), (&1.into(), &next.clone().into()), "{query}");
        last = next;
    }
    relay.stop().await;
}

async fn what_comes_between_two_waits_is_not_lost(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    assert_eq!(relay.post("/api/v1/topics", r#"{"topic_name":"wait"}"#).await.status, 201);
    for number in 0..2 {
        let started = Instant::now();
        let page = relay.get(&format!("{PATH}?wait=1")).await.json();
        assert!(started.elapsed() >= Duration::from_secs(1), "as long as was asked for");
        assert_eq!((&page["total"], page["next_cursor"].is_null()), (&0.into(), true));
        let resume = page["resume"].as_str().expect("where to go on").to_owned();
        relay.publish("wait", &number.to_string()).await;
        let page = relay.get(&format!("{PATH}?wait=5&after={resume}")).await.json();
        assert_eq!(page["messages"][0]["payload"], number, "{resume}");
        assert!(page.get("gap").is_none(), "{page}");
    }
    relay.stop().await;
}

async fn what_does_not_fit_is_refused(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("wait", "0").await;
    for (query, field) in [
        ("wait=0", "wait"),
        ("wait=61", "wait"),
        ("wait=61s", "wait"),
        ("wait=soon", "wait"),
        ("wait=", "wait"),
        ("wait=+5", "wait"),
        ("wait=5&order=desc", "wait"),
        ("wait=5&cursor=1-0&after=1-0", "after"),
        ("wait=5&must_exist=yes", "must_exist"),
        ("must_exist=false", "must_exist"),
    ] {
        let problem = relay.get(&format!("{PATH}?{query}")).await.problem();
        assert_eq!(problem.field.as_deref(), Some(field), "{query}");
    }
    let missing = relay.get("/api/v1/topics/none/messages?wait=5&must_exist=true").await.problem();
    assert_eq!(missing.code, Code::TopicNotFound);
    relay.stop().await;
}

on_both_backends! {
    a_page_that_is_not_empty_comes_at_once,
    an_empty_page_waits_for_a_message,
    what_comes_between_two_waits_is_not_lost,
    what_does_not_fit_is_refused,
}
