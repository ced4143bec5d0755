//! Fences of locks that are shown with publishes over a WebSocket, in both encodings.

use std::time::Duration;

use serde_json::json;
use tidemill::proto::frame::{ClientFrame, ErrorFrame, Publish, ServerFrame, binary};
use tidemill::proto::{Code, Delivery, MessageId};
use tidemill::storage::Storage;
use tokio_tungstenite::tungstenite::Message;

use super::on_both_backends;
use crate::support::relay::TestRelay;
use crate::support::ws::{WsClient, publish_frame};

on_both_backends!(
    who_has_lost_a_lock_between_two_publishes_is_refused,
    a_fence_is_looked_at_for_each_of_many_that_are_pipelined,
    what_a_fence_cannot_stand_beside_is_named,
);

/// What a publish was answered.
#[derive(Debug, PartialEq, Eq)]
enum Answered {
    Published,
    /// It was refused as fenced, for this fence that stands against it.
    Fenced(Option<MessageId>),
    /// This field was refused.
    Invalid(Option<String>),
}

/// A client of one encoding.
enum Client {
    Json(WsClient),
    Binary(WsClient),
}

impl Client {
    async fn both(relay: &TestRelay) -> [Self; 2] {
        let json = WsClient::connect(relay.address).await;
        [Self::Json(json), Self::Binary(WsClient::connect_binary(relay.address).await)]
    }

    async fn send(&mut self, publish: Publish<'_>) {
        match self {
            Self::Json(client) => {
                let mut text = Vec::new();
                tidemill::proto::frame::json::write_client(&ClientFrame::Publish(publish), &mut text);
                client.send(String::from_utf8(text).expect("JSON is UTF-8")).await;
            }
            Self::Binary(client) => client.send_binary(&ClientFrame::Publish(publish)).await,
        }
    }

    async fn answer(&mut self) -> Answered {
        let (Self::Json(client) | Self::Binary(client)) = self;
        let received = client.next().await.expect("an answer").expect("a frame");
        let frame = match &received {
            Message::Text(text) => tidemill::proto::frame::json::read_server(text).expect("a frame"),
            Message::Binary(bytes) => binary::read_server(bytes).expect("a frame"),
            other => panic!("{other:?}"),
        };
        match frame {
            ServerFrame::Published { .. } => Answered::Published,
            ServerFrame::Error(ErrorFrame { code: Code::Fenced, fence, retryable: false, .. }) => {
                Answered::Fenced(fence)
            }
            ServerFrame::Error(ErrorFrame { code: Code::InvalidField, field, .. }) => {
                Answered::Invalid(field.map(std::borrow::Cow::into_owned))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&mut self, publish: Publish<'_>) -> Answered {
        self.send(publish).await;
        self.answer().await
    }
}

/// Has somebody hold the lock, and returns the fence.
async fn acquired(relay: &TestRelay, holder: &str) -> MessageId {
    let body = json!({"holder": holder, "ttl": "1m", "guards": {"topic": "orders"}});
    let answer = relay.post("/api/v1/locks/writer", &body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    MessageId::parse(answer.json()["fence"].as_str().expect("a fence")).expect("a fence")
}

async fn take_away(relay: &TestRelay) {
    let path = "/api/v1/locks/writer?guards=topic:orders";
    assert_eq!(relay.send("DELETE", path, &[], b"").await.status, 204);
}

fn under(fence: MessageId) -> Publish<'static> {
    Publish { fence: Some(format!("writer={fence}").into()), ..publish_frame("orders", b"1") }
}

async fn total(relay: &TestRelay) -> serde_json::Value {
    relay.get("/api/v1/topics/orders").await.json()["length"].clone()
}

async fn who_has_lost_a_lock_between_two_publishes_is_refused(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for mut client in Client::both(&relay).await {
        let before = total(&relay).await.as_u64().unwrap_or_default();
        let ann = acquired(&relay, "ann").await;
        assert_eq!(client.ask(under(ann)).await, Answered::Published);
        take_away(&relay).await;
        assert_eq!(client.ask(under(ann)).await, Answered::Fenced(None));
        let bob = acquired(&relay, "bob").await;
        assert_eq!(client.ask(under(ann)).await, Answered::Fenced(Some(bob)));
        assert_eq!(client.ask(under(bob)).await, Answered::Published);
        assert_eq!(total(&relay).await, before + 2);
        take_away(&relay).await;
    }
    relay.stop().await;
}

async fn a_fence_is_looked_at_for_each_of_many_that_are_pipelined(storage: Storage) {
    const ROUNDS: usize = 50;

    let relay = TestRelay::start(storage).await;
    let old = acquired(&relay, "ann").await;
    take_away(&relay).await;
    let new = acquired(&relay, "bob").await;
    for mut client in Client::both(&relay).await {
        for _ in 0..ROUNDS {
            for publish in [under(old), under(new), publish_frame("orders", b"1")] {
                client.send(publish).await;
            }
        }
        for _ in 0..ROUNDS {
            assert_eq!(client.answer().await, Answered::Fenced(Some(new)));
            assert_eq!(client.answer().await, Answered::Published);
            assert_eq!(client.answer().await, Answered::Published, "who shows none is not asked for one");
        }
    }
    assert_eq!(total(&relay).await, 2 * 2 * ROUNDS);
    relay.stop().await;
}

async fn what_a_fence_cannot_stand_beside_is_named(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let fence = acquired(&relay, "ann").await;
    let later = |publish| Publish { delivery: Some(Delivery::After(Duration::from_mins(1))), ..publish };
    let of = |fence: &'static str| Publish { fence: Some(fence.into()), ..publish_frame("orders", b"1") };
    let unique = || Some(("g".into(), "k".into()));
    for mut client in Client::both(&relay).await {
        for (publish, field) in [
            (of("writer"), "fence"),
            (of("writer=1"), "fence"),
            (of("writer=9999999999999-0"), "fence"),
            (later(under(fence)), "fence"),
            (Publish { unique: unique(), ..under(fence) }, "fence"),
            // What else is for now alone.
            (Publish { unique: unique(), ..later(publish_frame("orders", b"1")) }, "unique"),
            (
                Publish { expected_last: Some("0-0".into()), ..later(publish_frame("orders", b"1")) },
                "expected_last",
            ),
            (
                Publish { durability: Some("accepted".into()), ..later(publish_frame("orders", b"1")) },
                "durability",
            ),
        ] {
            let told = format!("{publish:?}");
            assert_eq!(client.ask(publish).await, Answered::Invalid(Some(field.to_owned())), "{told}");
        }
    }
    relay.stop().await;
}
