//! With the client library: a receipt of a schedule, also where the answer is lost on its way.

use std::time::Duration;

use tidemill::proto::page::Order;
use tidemill::proto::{Code, Delivery};
use tidemill::storage::Storage;
use tidemill_client::{Client, ClientError, ClientOptions, Encoding, NewMessage, PublisherOptions};

use super::on_both_backends;
use crate::support::eventually;
use crate::support::ground::{SOON, read_all, texts, topic};
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, TestRelay};

on_both_backends![what_is_scheduled_is_told_and_a_lost_answer_makes_no_copy];

async fn what_is_scheduled_is_told_and_a_lost_answer_makes_no_copy(storage: Storage) {
    let relay = TestRelay::start(storage.clone()).await;
    let proxy = Proxy::start(relay.address.port()).await;
    for encoding in [Encoding::Json, Encoding::Binary] {
        let options = ClientOptions { encoding, ..ClientOptions::default() };
        let client = Client::new(&format!("http://127.0.0.1:{}", proxy.port()), options).expect("a URL");
        let publisher = client.publisher(PublisherOptions::default()).await.expect("a connection");
        let name = topic(&format!("{encoding:?}"));
        let message = |text: &str| NewMessage::json(&name, text).expect("JSON");
        let hour = Delivery::After(Duration::from_hours(1));
        let first = publisher.schedule(message("1"), hour).await.expect("handed over").await.expect("kept");
        assert_eq!((&first.topic, first.replayed), (&name, false));
        let wrong = Delivery::After(Duration::from_hours(24 * 366));
        let refused = publisher.schedule(message("2"), wrong).await.expect("handed over").await;
        let Err(ClientError::Refused(refusal)) = refused else { panic!("{refused:?}") };
        assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidField, Some("delay")));
        // Its answer is lost, and it is sent again under its key.
        proxy.swallow_replies_after(0);
        let lost = publisher.schedule(message("3"), hour).await.expect("handed over");
        eventually(STUCK, async || storage.schedules.count_waiting().await.is_ok_and(|count| count % 2 == 0))
            .await;
        proxy.cut();
        proxy.heal();
        assert!(lost.await.expect("it is sent again").replayed);
        let now =
            publisher.schedule(message("4"), Delivery::After(Duration::ZERO)).await.expect("handed over");
        now.await.expect("kept");
        eventually(SOON, async || texts(&read_all(&storage, &name, Order::Asc, 10).await) == ["\"4\""]).await;
        publisher.close().await;
    }
    assert_eq!(storage.schedules.count_waiting().await.expect("a count"), 4);
    relay.stop().await;
}
