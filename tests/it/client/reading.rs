//! Reading: nothing is lost or repeated, whatever happens to the connection.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{Cursor, GapReason, Since};
use tidemill::server::TcpListen;
use tidemill::storage::{Storage, Trim};
use tidemill_client::{Client, ClientError, ClientOptions, Encoding, Event, PublisherOptions, Subscription};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::stub::{Act, Stub};
use super::{
    EARLIEST, ENCODINGS, Got, LATEST, client, client_with, next, numbered, on_both_backends, publish_numbers,
};
use crate::support::eventually;
use crate::support::ground::{append_numbers, topic};
use crate::support::proxy::{Flow, Proxy};
use crate::support::relay::{STUCK, TestRelay};

on_both_backends!(
    cuts_under_full_rate_lose_and_repeat_nothing,
    a_rolling_restart_loses_and_repeats_nothing,
    what_is_trimmed_while_away_is_a_gap,
    a_dead_link_is_noticed_and_reading_goes_on,
    several_topics_go_on_each_from_its_own_cursor,
    a_reader_from_now_on_misses_nothing_after_now,
    a_topic_that_must_exist_and_does_not_is_refused,
    the_latest_of_each_key_comes_first_and_then_every_message,
);

/// R2.
async fn cuts_under_full_rate_lose_and_repeat_nothing(storage: Storage) {
    const COUNT: usize = 4_000;
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    for (name, encoding) in [("json", ENCODINGS[0]), ("binary", ENCODINGS[1])] {
        let direct = client(relay.address.port(), encoding);
        let publisher = direct.publisher(PublisherOptions::default()).await.unwrap();
        publisher.publish(numbered(name, 0)).await.unwrap().await.unwrap();
        let mut subscription =
            client(proxy.port(), encoding).subscribe([(topic(name), EARLIEST)]).await.unwrap();
        let tasks = TaskTracker::new();
        let publishing = tasks.spawn(publish_numbers(publisher, name, 1..COUNT));
        let mut got = Got::default();
        for share in 1..=20 {
            got.until(&mut subscription, COUNT * share / 20).await;
            if share < 20 {
                proxy.cut();
            }
        }
        publishing.await.expect("all are published");
        assert_eq!(got.numbers, (0..COUNT).collect::<Vec<_>>());
        assert!(got.gaps.is_empty(), "{:?}", got.gaps);
        assert!(got.reconnects >= 5, "{} reconnects", got.reconnects);
    }
    relay.stop().await;
}

/// R30: two nodes on one backend are restarted one after the other, and clients know either.
async fn a_rolling_restart_loses_and_repeats_nothing(storage: Storage) {
    const COUNT: usize = 4_000;
    let mut relay =
        TestRelay::start_with(storage.clone(), |options| options.drain = Duration::from_millis(200)).await;
    let address = relay.address;
    let both = ENCODINGS.map(|encoding| client(address.port(), encoding));
    let publisher = both[0].publisher(PublisherOptions::default()).await.unwrap();
    publisher.publish(numbered("t", 0)).await.unwrap().await.unwrap();
    let tasks = TaskTracker::new();
    let mut readers = Vec::new();
    for client in &both {
        let mut subscription = client.subscribe([(topic("t"), EARLIEST)]).await.unwrap();
        readers.push(tasks.spawn(async move {
            let mut got = Got::default();
            got.until(&mut subscription, COUNT).await;
            got
        }));
    }
    let publishing = tasks.spawn(async move {
        publish_numbers(publisher, "t", 1..COUNT).await;
    });
    for _ in 0..3 {
        relay.stop().await;
        relay = TestRelay::start_with(storage.clone(), |options| {
            options.listen = vec![TcpListen::at(address)];
            options.drain = Duration::from_millis(200);
        })
        .await;
        let before = relay.publish("other", "1").await;
        assert!(!before.is_empty());
    }
    publishing.await.expect("all are published");
    for reader in readers {
        let got = reader.await.expect("it reads");
        assert_eq!(got.numbers, (0..COUNT).collect::<Vec<_>>());
        assert!(got.gaps.is_empty(), "{:?}", got.gaps);
    }
    relay.stop().await;
}

async fn what_is_trimmed_while_away_is_a_gap(storage: Storage) {
    for (name, encoding) in [("json", ENCODINGS[0]), ("binary", ENCODINGS[1])] {
        let relay = TestRelay::start(storage.clone()).await;
        let address = relay.address;
        let mut ids = append_numbers(&storage, &topic(name), 1).await;
        let mut subscription =
            client(address.port(), encoding).subscribe([(topic(name), EARLIEST)]).await.unwrap();
        let mut got = Got::default();
        got.until(&mut subscription, 1).await;
        // What the relay remembers goes with it.
        relay.stop().await;
        ids.extend(append_numbers(&storage, &topic(name), 19).await);
        storage.messages.trim(&topic(name), Trim::Keep(5)).await.unwrap();
        let relay = TestRelay::start_with(storage.clone(), |options| {
            options.listen = vec![TcpListen::at(address)];
        })
        .await;
        got.until(&mut subscription, 6).await;
        assert_eq!(got.numbers, [0, 14, 15, 16, 17, 18], "{got:?}");
        let [gap] = &got.gaps[..] else { panic!("one gap, not {:?}", got.gaps) };
        assert_eq!((gap.reason, gap.from, gap.to), (GapReason::Trimmed, ids[0], ids[15]));
        relay.stop().await;
    }
}

async fn a_dead_link_is_noticed_and_reading_goes_on(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    relay.publish("t", "0").await;
    let mut subscription =
        client(proxy.port(), Encoding::Json).subscribe([(topic("t"), EARLIEST)]).await.unwrap();
    let mut got = Got::default();
    got.until(&mut subscription, 1).await;
    // A living link may be silent for as long as it likes.
    let quiet = timeout(Duration::from_millis(1_500), subscription.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    proxy.flow(Flow::BlackHole);
    relay.publish("t", "1").await;
    let Event::Disconnected(ClientError::Away { why, .. }) = next(&mut subscription).await else {
        panic!("the dead link is noticed")
    };
    assert!(why.contains("nothing was heard"), "{why}");
    proxy.cut();
    proxy.heal();
    got.until(&mut subscription, 2).await;
    assert_eq!(got.numbers, [0, 1]);
    relay.stop().await;
}

async fn several_topics_go_on_each_from_its_own_cursor(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let names = ["a", "b", "c"];
    for name in names {
        relay.publish(name, "0").await;
    }
    let mut subscription = client(proxy.port(), Encoding::Binary)
        .subscribe(names.map(|name| (topic(name), EARLIEST)))
        .await
        .unwrap();
    let mut got: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 1..30 {
        relay.publish(names[round % 3], &round.to_string()).await;
        if round % 7 == 0 {
            proxy.cut();
        }
        while got.values().map(Vec::len).sum::<usize>() < 3 + round {
            if let Event::Message(message) = next(&mut subscription).await {
                let payload = String::from_utf8(message.payload.to_vec()).unwrap();
                got.entry(message.topic.to_string()).or_default().push(payload);
            }
        }
    }
    for (at, name) in names.into_iter().enumerate() {
        let of_it = (1..30).filter(|round| round % 3 == at).map(|round| round.to_string());
        assert_eq!(got[name], ["0".to_owned()].into_iter().chain(of_it).collect::<Vec<_>>());
    }
    // The cursors go on where this subscription is, in another one.
    relay.publish("b", "30").await;
    let mut other =
        client(relay.address.port(), Encoding::Json).subscribe(subscription.cursors()).await.unwrap();
    let Event::Message(message) = next(&mut other).await else { panic!("a message") };
    assert_eq!(&message.payload[..], b"30");
    relay.stop().await;
}

/// `latest` means now, also where the connection breaks before anything came.
async fn a_reader_from_now_on_misses_nothing_after_now(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    relay.publish("t", "0").await;
    let client = client(proxy.port(), Encoding::Json);
    let ago = Since::Ago(Duration::ZERO);
    let mut from_now = [
        client.subscribe([(topic("t"), LATEST)]).await.unwrap(),
        client
            .subscribe([(topic("t"), Since::Cursor(Cursor::After(id(&relay.publish("t", "1").await))))])
            .await
            .unwrap(),
        client.subscribe([(topic("t"), ago)]).await.unwrap(),
    ];
    proxy.refuse(true);
    proxy.cut();
    relay.publish("t", "2").await;
    proxy.refuse(false);
    for (subscription, expected) in from_now.iter_mut().zip([&[1, 2][..], &[2], &[2]]) {
        let mut got = Got::default();
        got.until(subscription, expected.len()).await;
        assert_eq!(got.numbers, expected);
        assert!(got.gaps.is_empty(), "{:?}", got.gaps);
    }
    relay.stop().await;
}

fn id(text: &str) -> tidemill::proto::MessageId {
    text.parse().expect("an id")
}

async fn a_topic_that_must_exist_and_does_not_is_refused(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for encoding in ENCODINGS {
        let refused =
            client(relay.address.port(), encoding).subscribe_existing([(topic("no"), LATEST)]).await;
        let Err(ClientError::Refused(refusal)) = refused else { panic!("{refused:?}") };
        assert_eq!(refusal.code.as_str(), "topic_not_found");
        assert!(refusal.message.contains("`no`") && !refusal.retryable, "{refusal:?}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn an_absent_relay_is_an_error_at_once() {
    let port = crate::support::server::free_port();
    let absent = client(port, Encoding::Json).subscribe([(topic("t"), LATEST)]).await;
    assert!(matches!(absent, Err(ClientError::Away { .. })), "{absent:?}");
    let relay = TestRelay::start(crate::support::relay::memory()).await;
    let wrong = Client::new(&format!("http://{}/not/here", relay.address), ClientOptions::default()).unwrap();
    let wrong = wrong.subscribe([(topic("t"), LATEST)]).await;
    assert!(matches!(wrong, Err(ClientError::Refused(_) | ClientError::NotARelay { .. })), "{wrong:?}");
    let tls = Client::new(&format!("https://{}", relay.address), ClientOptions::default()).unwrap();
    let tls = tls.subscribe([(topic("t"), LATEST)]).await;
    assert!(matches!(tls, Err(ClientError::Away { .. })), "{tls:?}");
    relay.stop().await;
}

#[tokio::test]
async fn close_codes_say_whether_to_come_back() {
    for code in [1000, 1001, 1011, 1012, 1013, 4500] {
        let stub = Stub::start(vec![
            vec![Act::Message(5), Act::Close(code)],
            vec![Act::Message(5), Act::Message(6)],
        ])
        .await;
        let mut got = Got::default();
        let mut subscription = subscribe(&stub).await;
        got.until(&mut subscription, 2).await;
        assert_eq!((got.numbers, got.reconnects), (vec![5, 6], 1), "{code}: a repeat is not passed on");
        assert_eq!(stub.asked(), ["earliest", "5-0"], "{code}");
    }
    for code in [1002, 1003, 1007, 1008, 4000, 4401] {
        let stub = Stub::start(vec![vec![Act::Message(5), Act::Close(code)]]).await;
        let mut got = Got::default();
        let mut subscription = subscribe(&stub).await;
        got.until(&mut subscription, 1).await;
        for _ in 0..2 {
            let ended = timeout(STUCK, subscription.next()).await.expect("it ends");
            assert!(
                matches!(&ended, Err(ClientError::Stopped { code: said, .. }) if *said == code),
                "{ended:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_end_in_band_and_a_cut_come_back() {
    let stub =
        Stub::start(vec![vec![Act::Message(5), Act::End], vec![Act::Cut], vec![Act::Message(6)]]).await;
    let mut got = Got::default();
    let mut subscription = subscribe(&stub).await;
    got.until(&mut subscription, 2).await;
    assert_eq!((got.numbers, got.reconnects), (vec![5, 6], 2));
}

/// The caller's pace is the socket's pace: what is not asked for stays with the sender.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_read_holds_back_the_relay() {
    const COUNT: u64 = 4_000;
    const PAYLOAD_BYTES: usize = 64 * 1024;
    // What the two kernels' buffers hold on a loopback link is some megabytes.
    const HELD_BYTES_MAX: u64 = 32 * 1024 * 1024;
    let stub = Stub::start(vec![vec![Act::Large(COUNT, PAYLOAD_BYTES)]]).await;
    let mut subscription = subscribe(&stub).await;
    // How much was sent at the last look, and for how many looks it has been the same.
    let still = Cell::new((0, 0));
    eventually(STUCK, || {
        let (sent, looks) = (stub.sent_bytes(), still.get());
        still.set(if sent > 0 && sent == looks.0 { (sent, looks.1 + 1) } else { (sent, 0) });
        std::future::ready(still.get().1 >= 30)
    })
    .await;
    assert!(stub.sent_bytes() < HELD_BYTES_MAX, "{} bytes were taken", stub.sent_bytes());
    for ms in 1..=COUNT {
        let Event::Message(message) = next(&mut subscription).await else { panic!("a message") };
        assert_eq!((message.message_id.ms, message.payload.len()), (ms, PAYLOAD_BYTES));
    }
}

async fn subscribe(stub: &Stub) -> Subscription {
    client_with(stub.port(), |options| options.silence_max = STUCK)
        .subscribe([(topic("t"), EARLIEST)])
        .await
        .expect("the stub subscribes")
}

async fn the_latest_of_each_key_comes_first_and_then_every_message(storage: Storage) {
    let about = TopicUpdate { compact_by: Some("id".to_owned()), ..TopicUpdate::default() };
    for name in ["json", "binary"] {
        storage.topics.create(&topic(name), about.clone(), None).await.expect("a topic");
    }
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let publish = async |name: &str, number: usize| {
        let key = ["a", "b", "c"][number % 3];
        let metadata = json!({ "id": key });
        let body = json!({ "topic": name, "payload": number, "metadata": metadata });
        assert_eq!(relay.post("/api/v1/messages", body.to_string()).await.status, 201);
    };
    for (name, encoding) in [("json", ENCODINGS[0]), ("binary", ENCODINGS[1])] {
        for number in 0..30 {
            publish(name, number).await;
        }
        let client = client(proxy.port(), encoding);
        let mut subscription = client.subscribe_latest([(topic(name), EARLIEST)]).await.unwrap();
        let mut got = Got::default();
        got.until(&mut subscription, 1).await;
        // In the middle of what there is, and behind it.
        for number in 30..36 {
            proxy.cut();
            publish(name, number).await;
            let count = got.numbers.len() + 1;
            got.until(&mut subscription, count).await;
        }
        got.until(&mut subscription, 9).await;
        assert_eq!(got.numbers, (27..36).collect::<Vec<_>>(), "{name}");
        assert!(got.gaps.is_empty() && got.reconnects > 0, "{:?} {}", got.gaps, got.reconnects);
        // As a reader of all has it.
        let mut all = client.subscribe([(topic(name), EARLIEST)]).await.unwrap();
        let mut everything = Got::default();
        everything.until(&mut all, 36).await;
        assert_eq!(everything.numbers, (0..36).collect::<Vec<_>>());
        relay.publish("plain", "1").await;
        let refused = client.subscribe_latest([(topic("plain"), EARLIEST)]).await.map(drop);
        assert!(matches!(&refused, Err(ClientError::Refused(_))), "{refused:?}");
    }
    relay.stop().await;
}
