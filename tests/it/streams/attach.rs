//! Readers that attach at any moment, at any cursor, over every transport, while messages are
//! published as fast as they go: each gets every message once, in order.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Coming, number};
use super::{numbered_lines, on_both_backends};
use crate::support::dice::Dice;
use crate::support::ground::Ground;
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, TestRelay};

const TOTAL: u64 = 6_000;
const BATCH: u64 = 20;
const TOPIC: &str = "attach";
const PATH: &str = "/api/v1/topics/attach/messages";

/// Publishes the numbers up to [`TOTAL`], and tells the ids of those that are confirmed.
async fn publish_all(relay: &TestRelay, ids: &watch::Sender<Vec<String>>) {
    let mut next = 0;
    while next < TOTAL {
        let body = numbered_lines(next..next + BATCH);
        let answer =
            relay.send("POST", PATH, &[("content-type", "application/x-ndjson")], body.as_bytes()).await;
        assert_eq!(answer.status, 207);
        let answer = answer.json();
        let results = answer["results"].as_array().expect("results");
        let more = results.iter().map(|result| result["message_id"].as_str().expect("accepted").to_owned());
        ids.send_modify(|ids| ids.extend(more));
        next += BATCH;
    }
}

/// Where a reader starts.
#[derive(Clone, Debug)]
enum From {
    /// After the message of this number.
    After(u64, String),
    Earliest,
    /// From now on, where so many messages had been confirmed.
    Latest(u64),
}

impl From {
    fn cursor(&self) -> &str {
        match self {
            Self::After(_, id) => id,
            Self::Earliest => "earliest",
            Self::Latest(_) => "latest",
        }
    }

    /// Checks the numbers that a reader got.
    fn check(&self, numbers: &[u64], who: &str) {
        let first = numbers[0];
        match self {
            Self::After(number, _) => assert_eq!(first, number + 1, "{who} {self:?}"),
            Self::Earliest => assert_eq!(first, 0, "{who}"),
            // What was confirmed before is not from now on.
            Self::Latest(confirmed) => assert!(first >= *confirmed, "{who} {self:?} {first}"),
        }
        let expected: Vec<_> = (first..TOTAL).collect();
        assert_eq!(numbers, expected, "{who} {self:?}");
    }
}

async fn by_events(address: SocketAddr, from: From) -> Vec<u64> {
    let path = format!("{PATH}?after={}", from.cursor());
    let mut coming = Coming::events(address, &path, &[]).await.unwrap();
    let mut numbers = Vec::new();
    while numbers.last() != Some(&(TOTAL - 1)) {
        numbers.push(number(&coming.message().await.unwrap().expect("it goes on").json()));
    }
    numbers
}

async fn by_lines(address: SocketAddr, from: From) -> Vec<u64> {
    let mut coming = Coming::lines(address, &format!("{PATH}?after={}", from.cursor())).await.unwrap();
    let mut numbers = Vec::new();
    while numbers.last() != Some(&(TOTAL - 1)) {
        let line = coming.line().await.unwrap().expect("it goes on");
        assert_eq!(line["type"], "message", "{line}");
        numbers.push(number(&line));
    }
    numbers
}

async fn by_waiting(relay: Arc<TestRelay>, from: From) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut cursor = from.cursor().to_owned();
    while numbers.last() != Some(&(TOTAL - 1)) {
        let page = relay.get(&format!("{PATH}?wait=20&limit=700&after={cursor}")).await.json();
        assert!(page.get("gap").is_none(), "{page}");
        numbers.extend(page["messages"].as_array().expect("messages").iter().map(number));
        page["resume"].as_str().expect("where to go on").clone_into(&mut cursor);
    }
    numbers
}

async fn by_polling(relay: Arc<TestRelay>, from: From) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut since = match &from {
        From::Latest(_) => Value::Null,
        from => json!({ TOPIC: from.cursor() }),
    };
    while numbers.last() != Some(&(TOTAL - 1)) {
        let body = json!({"topics": [TOPIC], "since": since, "timeout": 20}).to_string();
        let answer = relay.post("/messages/poll", body).await.json();
        assert!(answer.get("gaps").is_none(), "{answer}");
        numbers.extend(answer["messages"].as_array().expect("messages").iter().map(number));
        since = answer["cursors"].clone();
    }
    numbers
}

async fn every_reader_gets_everything_once_in_order(ground: &Ground) {
    let mut dice = Dice::cast();
    let relay = Arc::new(TestRelay::start(ground.storage.clone()).await);
    relay.publish(TOPIC, "-1").await;
    let trimmed = relay.post("/api/v1/topics/attach/trim", r#"{"keep":0}"#).await;
    assert_eq!(trimmed.status, 200);
    let (ids, confirmed) = watch::channel(Vec::<String>::new());
    let mut readers = JoinSet::new();
    for reader in 0..120_u64 {
        let (at, pick, kind) = (dice.roll(TOTAL * 9 / 10), dice.roll(10), reader % 4);
        let back = dice.roll(TOTAL);
        let (relay, mut confirmed) = (relay.clone(), confirmed.clone());
        readers.spawn(async move {
            confirmed.wait_for(|ids| ids.len() as u64 >= at).await.unwrap();
            let from = {
                let ids = confirmed.borrow();
                match pick {
                    0 | 1 => From::Latest(ids.len() as u64),
                    _ if ids.is_empty() => From::Earliest,
                    2 => From::Earliest,
                    // The last one, near the end of the ring, or anywhere.
                    pick => {
                        let back = back % [1, 3, 50, 1_500, TOTAL][usize::try_from(pick % 5).unwrap()];
                        let number = (ids.len() as u64 - 1).saturating_sub(back);
                        From::After(number, ids[usize::try_from(number).unwrap()].clone())
                    }
                }
            };
            let address = relay.address;
            let (who, numbers) = match kind {
                0 => ("events", by_events(address, from.clone()).await),
                1 => ("lines", by_lines(address, from.clone()).await),
                2 => ("wait", by_waiting(relay, from.clone()).await),
                _ => ("poll", by_polling(relay, from.clone()).await),
            };
            from.check(&numbers, who);
        });
    }
    let publishing = publish_all(&relay, &ids);
    let reading = async {
        while let Some(done) = readers.join_next().await {
            done.unwrap();
        }
    };
    timeout(3 * STUCK, async { tokio::join!(publishing, reading) }).await.expect("all come to the end");
    Arc::into_inner(relay).expect("nobody reads any more").stop().await;
}

async fn who_is_cut_off_resumes_by_the_last_event(ground: &Ground) {
    let relay = Arc::new(TestRelay::start(ground.storage.clone()).await);
    let proxy = Arc::new(Proxy::start(relay.address.port()).await);
    let address = SocketAddr::from(([127, 0, 0, 1], proxy.port()));
    relay.publish(TOPIC, "-1").await;
    let (ids, mut confirmed) = watch::channel(Vec::<String>::new());
    let mut readers = JoinSet::new();
    let greeted = Arc::new(Semaphore::new(0));
    for _ in 0..10 {
        let greeted = greeted.clone();
        readers.spawn(async move {
            let (mut last_id, mut numbers) = (String::new(), Vec::new());
            while numbers.last() != Some(&(TOTAL - 1)) {
                let header = [("last-event-id", last_id.as_str())];
                let Ok(mut coming) = Coming::events(address, PATH, &header).await else { continue };
                if last_id.is_empty() {
                    greeted.add_permits(1);
                }
                let mut seen = coming.opening.id.take().expect("where it starts");
                while let Ok(Some(event)) = coming.event().await {
                    if event.is_message() {
                        assert_eq!(event.json()["message_id"].as_str(), event.id.as_deref());
                        numbers.push(number(&event.json()));
                    }
                    assert!(event.name.is_none(), "{event:?}");
                    seen = event.id.unwrap_or(seen);
                    if numbers.last() == Some(&(TOTAL - 1)) {
                        break;
                    }
                }
                last_id = seen;
            }
            assert_eq!(numbers, (0..TOTAL).collect::<Vec<_>>());
        });
    }
    // Everybody is there, and knows where, before the first message.
    greeted.acquire_many(10).await.unwrap().forget();
    let cutting = async {
        for cut in 1..=20 {
            confirmed.wait_for(|ids| ids.len() as u64 >= cut * TOTAL / 21).await.unwrap();
            proxy.cut();
        }
    };
    let reading = async {
        while let Some(done) = readers.join_next().await {
            done.unwrap();
        }
    };
    timeout(3 * STUCK, async { tokio::join!(publish_all(&relay, &ids), cutting, reading) })
        .await
        .expect("all come to the end");
    Arc::into_inner(relay).expect("nobody reads any more").stop().await;
}

on_both_backends! {
    every_reader_gets_everything_once_in_order,
    who_is_cut_off_resumes_by_the_last_event,
}
