//! How many bytes topics keep.

use tidemill::proto::{TopicName, TopicSelector};
use tidemill::storage::Trim;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::support::eventually;
use crate::support::ground::{Ground, SOON, append_all, json, message};

const PAYLOAD_BYTES: usize = 1_000;
const MESSAGES: usize = 300;

fn selectors(texts: &[&str]) -> Vec<TopicSelector> {
    texts.iter().map(|text| TopicSelector::parse(text).expect(text)).collect()
}

/// Returns what is told, once something is.
async fn kept(ground: &Ground, texts: &[&str]) -> Vec<u64> {
    let selectors = selectors(texts);
    let told = async {
        loop {
            // None while another node weighs.
            if let Some(told) = ground.storage.upkeep.kept(&selectors).await.expect("it answers") {
                return told;
            }
            yield_now().await;
        }
    };
    timeout(SOON, told).await.expect("it is told in time")
}

async fn fill(ground: &Ground, topic: &TopicName) {
    let payload = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES - 2));
    let messages = (0..MESSAGES).map(|_| message(topic, json(payload.clone())));
    append_all(&ground.storage, messages.collect()).await;
}

pub(super) async fn what_topics_keep_is_told_about_by_their_names(ground: &Ground) {
    let [one, two, other] =
        ["kept.a.1", "kept.a.2", "kept.b"].map(|name| TopicName::parse(name).expect(name));
    for topic in [&one, &two, &other] {
        fill(ground, topic).await;
    }
    let told = kept(ground, &["kept.a.*", "kept.*", "kept.b", "kept.none", "*.none"]).await;
    let of_one = (MESSAGES * PAYLOAD_BYTES) as u64;
    // What holds the messages is bytes, too: entries and the nodes that they lie in.
    let is_about = |bytes: u64, topics: u64| (topics * of_one..topics * of_one * 3 / 2).contains(&bytes);
    assert!(is_about(told[0], 2) && is_about(told[1], 3) && is_about(told[2], 1), "{told:?}");
    assert_eq!(told[3..], [0, 0]);

    ground.storage.messages.trim(&one, Trim::Keep(0)).await.expect("it is trimmed");
    ground.storage.topics.delete(&other).await.expect("it is deleted");
    eventually(SOON, async || {
        let told = kept(ground, &["kept.a.*", "kept.*", "kept.b"]).await;
        is_about(told[0], 1) && is_about(told[1], 1) && told[2] == 0
    })
    .await;
    assert_eq!(kept(ground, &[]).await, Vec::<u64>::new());
}
