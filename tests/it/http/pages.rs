//! Pages: orders, cursors, and words for cursors.

use serde_json::Value;
use tidemill::proto::Code;
use tidemill::storage::Storage;

use super::{numbered_lines, on_every_backend};
use crate::support::relay::TestRelay;

on_every_backend![
    pages_join_in_both_orders,
    a_page_tells_what_was_asked,
    after_reads_forward_from_where_it_says,
    what_does_not_exist_is_told_apart,
    large_payloads_end_a_page_early,
];

fn payloads(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().map(|message| message["payload"].as_u64().expect("a number")).collect()
}

async fn publish_numbers(relay: &TestRelay, topic: &str, count: u64) {
    let lines = numbered_lines(count);
    let path = format!("/api/v1/topics/{topic}/messages");
    let answer =
        relay.send("POST", &path, &[("content-type", "application/x-ndjson")], lines.as_bytes()).await;
    assert_eq!(answer.json()["summary"]["accepted"], count);
}

async fn pages_join_in_both_orders(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    publish_numbers(&relay, "pages.join", 25).await;
    for (order, expected) in [("asc", (0..25).collect::<Vec<_>>()), ("desc", (0..25).rev().collect())] {
        let (mut all, mut cursor, mut sizes) = (Vec::new(), String::new(), Vec::new());
        loop {
            let path = format!("/api/v1/topics/pages.join/messages?order={order}&limit=10{cursor}");
            let page = relay.get(&path).await.json();
            let numbers = payloads(&page);
            sizes.push(numbers.len());
            all.extend(numbers);
            match page["next_cursor"].as_str() {
                Some(next) => {
                    assert_eq!(
                        page["messages"][page["messages"].as_array().expect("messages").len() - 1]["message_id"],
                        next
                    );
                    cursor = format!("&cursor={next}");
                }
                None => break,
            }
        }
        assert_eq!(all, expected, "{order}");
        assert_eq!(sizes, [10, 10, 5, 0], "{order}");
    }
    relay.stop().await;
}

async fn a_page_tells_what_was_asked(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let id = relay.publish("pages.shape", "{ }").await;
    let page = relay.get("/api/v1/topics/pages.shape/messages").await;
    let message = &page.json()["messages"][0];
    assert_eq!(
        page.text(),
        format!(
            r#"{{"messages":[{{"message_id":"{id}","topic":"pages.shape","payload":{{ }},"timestamp":{}}}],"total":1,"limit":10,"order":"desc","cursor":null,"next_cursor":"{id}"}}"#,
            message["timestamp"]
        )
    );
    let path = format!("/api/v1/topics/pages.shape/messages?limit=3&order=asc&cursor={id}");
    let text =
        format!(r#"{{"messages":[],"total":0,"limit":3,"order":"asc","cursor":"{id}","next_cursor":null}}"#);
    assert_eq!(relay.get(&path).await.text(), text);
    relay.stop().await;
}

async fn after_reads_forward_from_where_it_says(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    publish_numbers(&relay, "pages.after", 5).await;
    let page = |after: String| {
        let relay = &relay;
        async move { relay.get(&format!("/api/v1/topics/pages.after/messages?after={after}")).await.json() }
    };
    let all = page("earliest".to_owned()).await;
    assert_eq!(payloads(&all), [0, 1, 2, 3, 4]);
    assert_eq!((all["order"].as_str(), all["cursor"].as_str()), (Some("asc"), Some("earliest")));
    let third = all["messages"][2]["message_id"].as_str().expect("an id").to_owned();
    assert_eq!(payloads(&page(third).await), [3, 4]);
    assert_eq!(payloads(&page("latest".to_owned()).await), [] as [u64; 0]);
    assert_eq!(payloads(&page("-10m".to_owned()).await), [0, 1, 2, 3, 4]);
    let time = all["messages"][0]["timestamp"].as_str().expect("a time");
    let early = time.replace('Z', "+14:00");
    assert_eq!(payloads(&page(early).await), [0, 1, 2, 3, 4], "an offset needs no escape");
    assert_eq!(payloads(&page("2999-01-01T00:00:00Z".to_owned()).await).len(), 0);
    // The least and the greatest times of other languages are the nearest that there are.
    for always in [
        "0001-01-01T00:00:00Z",
        "-271821-04-20T00:00:00.000Z",
        "1969-12-31T23:59:59Z",
        "-99999999999999999999d",
    ] {
        assert_eq!(payloads(&page(always.to_owned()).await), [0, 1, 2, 3, 4], "{always}");
    }
    for never in ["9999-12-31T23:59:59.9999999Z", "+275760-09-13T00:00:00Z"] {
        assert_eq!(payloads(&page(never.to_owned()).await).len(), 0, "{never}");
    }
    let refused =
        relay.get("/api/v1/topics/pages.after/messages?after=18446744073709551616-0").await.problem();
    assert!(
        refused.detail.contains("from 0 to 18446744073709551615"),
        "the range is told: {}",
        refused.detail
    );
    let trim = async |before: &str| {
        let body = format!(r#"{{"before":"{before}"}}"#);
        relay.post("/api/v1/topics/pages.after/trim", body).await.json()["removed"].clone()
    };
    assert_eq!(trim("0001-01-01T00:00:00Z").await, 0);
    assert_eq!(trim("9999-12-31T23:59:59Z").await, 5);
    relay.stop().await;
}

async fn what_does_not_exist_is_told_apart(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for path in [
        "/api/v1/topics/pages.none/messages",
        "/api/v1/topics/pages.none/messages?after=latest",
        "/api/v1/topics/pages.none/messages/1-1",
        "/api/v1/topics/pages.none",
    ] {
        assert_eq!(relay.get(path).await.problem().code, Code::TopicNotFound, "{path}");
    }
    let id = relay.publish("pages.one", "1").await;
    let path = "/api/v1/topics/pages.one/messages";
    assert_eq!(relay.get(&format!("{path}/{id}")).await.status, 200);
    assert_eq!(relay.get(&format!("{path}/1-1")).await.problem().code, Code::MessageNotFound);
    assert_eq!(relay.get("/api/v1/topics/pages.none").await.status, 404, "a read creates nothing");
    relay.stop().await;
}

async fn large_payloads_end_a_page_early(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let path = "/api/v1/topics/pages.large/messages";
    let body = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..10 {
        assert_eq!(
            relay.send("POST", path, &[("content-type", "application/json")], body.as_bytes()).await.status,
            201
        );
    }
    let first = relay.get(&format!("{path}?limit=1000&order=asc")).await.json();
    let total = first["total"].as_u64().expect("a number");
    assert!((1..10).contains(&total), "{total}");
    let next = first["next_cursor"].as_str().expect("a cursor");
    let second = relay.get(&format!("{path}?limit=1000&order=asc&cursor={next}")).await.json();
    assert_eq!(second["total"].as_u64().expect("a number") + total, 10);
    relay.stop().await;
}
