//! Reading patterns: what a subscription keeps of them over lost connections.

use std::collections::BTreeMap;

use tidemill::proto::{PatternCursor, TopicSelector};
use tidemill::storage::Storage;
use tidemill_client::{ClientError, Encoding, Event, PublisherOptions, Start, Subscription};
use tokio_util::task::TaskTracker;

use super::stub::{Act, Stub};
use super::{ENCODINGS, client, client_with, next, numbered, on_both_backends};
use crate::support::ground::topic;
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, TestRelay};

on_both_backends!(cuts_lose_and_repeat_nothing_while_topics_come, another_subscription_goes_on_where_one_was,);

/// The link is cut again and again while topics are made and filled.
async fn cuts_lose_and_repeat_nothing_while_topics_come(storage: Storage) {
    const COUNT: usize = 4_000;
    const TOPICS: usize = 40;
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    for (prefix, encoding) in [("json", ENCODINGS[0]), ("binary", ENCODINGS[1])] {
        let name = move |number: usize| {
            let made = 1 + number * TOPICS / COUNT;
            format!("{prefix}.{}", number % made)
        };
        let topics = [(selector(&format!("{prefix}.*")), start("latest"))];
        let mut subscription = client(proxy.port(), encoding).subscribe(topics).await.unwrap();
        let publisher =
            client(relay.address.port(), encoding).publisher(PublisherOptions::default()).await.unwrap();
        let publishing = TaskTracker::new().spawn(async move {
            let mut receipts = Vec::new();
            for number in 0..COUNT {
                receipts.push(publisher.publish(numbered(&name(number), number)).await.expect("it goes on"));
            }
            for receipt in receipts {
                receipt.await.expect("it is kept");
            }
            publisher.close().await;
        });
        let mut got: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let (mut count, mut reconnects) = (0, 0);
        while count < COUNT {
            match next(&mut subscription).await {
                Event::Message(message) => {
                    let text = std::str::from_utf8(&message.payload).expect("a number");
                    let numbers = got.entry(message.topic.to_string()).or_default();
                    numbers.push(text.parse().expect("a number"));
                    count += 1;
                    if count % (COUNT / 20) == 0 && count < COUNT {
                        proxy.cut();
                    }
                }
                Event::Gap(gap) => panic!("nothing is gone: {gap:?}"),
                Event::Reconnected => reconnects += 1,
                Event::Disconnected(_) => {}
                Event::Closed(closed) => panic!("nothing has ended: {closed:?}"),
            }
        }
        publishing.await.expect("all are published");
        let mut expected: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for number in 0..COUNT {
            expected.entry(name(number)).or_default().push(number);
        }
        assert_eq!(got, expected);
        // What has arrived already is read without a connection, so that some cuts are none.
        assert!(reconnects >= 2, "{reconnects} reconnects");
    }
    relay.stop().await;
}

async fn another_subscription_goes_on_where_one_was(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let client = client(relay.address.port(), Encoding::Json);
    relay.publish("t", "0").await;
    relay.publish("o.a", "1").await;
    let topics = [("t", "earliest"), ("o.*", "earliest")];
    let topics = topics.map(|(topic, from)| (selector(topic), start(from)));
    let mut subscription = client.subscribe(topics).await.unwrap();
    let mut read_first = read(&mut subscription, 2).await;
    read_first.sort_unstable();
    assert!(read_first[0].starts_with("o.a ") && read_first[1].starts_with("t "), "{read_first:?}");
    let cursors = subscription.cursors();
    relay.publish("o.b", "2").await;
    let mut other = client.subscribe(cursors).await.unwrap();
    loop {
        match next(&mut other).await {
            Event::Message(message) if message.topic.as_str() == "o.b" => break,
            // What the relay had told no cursor for comes again.
            Event::Message(message) if message.topic.as_str() == "o.a" => {}
            event => panic!("not expected: {event:?}"),
        }
    }
    relay.stop().await;
}

fn selector(text: &str) -> TopicSelector {
    TopicSelector::parse(text).expect("a name or a pattern")
}

fn start(text: &str) -> Start {
    text.parse().expect("a start")
}

async fn subscribe(stub: &Stub, topics: &[(&str, &str)]) -> Result<Subscription, ClientError> {
    let topics = topics.iter().map(|(topic, from)| (selector(topic), start(from)));
    client_with(stub.port(), |options| options.silence_max = STUCK).subscribe(topics).await
}

/// Reads until there are so many messages, and returns them with gaps and connections between them.
async fn read(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let (mut read, mut messages) = (Vec::new(), 0);
    while messages < count {
        match next(subscription).await {
            Event::Message(message) => {
                messages += 1;
                read.push(format!("{} {}", message.topic, message.message_id.ms));
            }
            Event::Gap(gap) => read.push(format!("{} {}", gap.topic, gap.reason.as_str())),
            Event::Reconnected => read.push("again".to_owned()),
            Event::Disconnected(_) => {}
            Event::Closed(closed) => panic!("nothing has ended: {closed:?}"),
        }
    }
    read
}

fn texts(subscription: &Subscription) -> Vec<String> {
    subscription.cursors().into_iter().map(|(topic, start)| format!("{topic}={start}")).collect()
}

#[tokio::test]
async fn a_pattern_resumes_by_its_newest_cursor_and_passes_over_what_comes_again() {
    let stub = Stub::start(vec![
        vec![
            Act::MessageOf("o.a", 5),
            Act::MessageOf("o.b", 4),
            Act::Cursor("o.*", "p1.A"),
            Act::MessageOf("o.a", 6),
            Act::Close(1012),
        ],
        vec![
            Act::MessageOf("o.a", 6),
            Act::MessageOf("o.b", 4),
            Act::MessageOf("o.c", 1),
            Act::EndWith("o.*", "p1.B"),
        ],
        vec![Act::MessageOf("o.c", 2)],
    ])
    .await;
    let mut subscription = subscribe(&stub, &[("o.*", "latest")]).await.expect("the stub subscribes");
    assert_eq!(texts(&subscription), ["o.*=p1.0"], "what `latest` meant");
    assert_eq!(
        read(&mut subscription, 5).await,
        ["o.a 5", "o.b 4", "o.a 6", "again", "o.c 1", "again", "o.c 2"]
    );
    assert_eq!(stub.asked(), ["latest", "p1.A", "p1.B"]);
    assert_eq!(texts(&subscription), ["o.*=p1.B"]);
    let other = client_with(stub.port(), |_| {}).subscribe(subscription.cursors()).await;
    assert!(other.is_ok(), "{other:?}");
    assert_eq!(stub.asked()[3], "p1.B");
}

#[tokio::test]
async fn ids_of_a_topic_that_begins_anew_are_new() {
    let stub = Stub::start(vec![
        vec![Act::MessageOf("a", 50), Act::MessageOf("b", 50), Act::Close(1012)],
        vec![Act::Reset("a", 50, 5), Act::MessageOf("a", 5), Act::MessageOf("b", 5), Act::MessageOf("b", 51)],
    ])
    .await;
    let mut subscription = subscribe(&stub, &[("*", "p1.A")]).await.expect("the stub subscribes");
    assert_eq!(read(&mut subscription, 4).await, ["a 50", "b 50", "again", "a reset", "a 5", "b 51"]);
}

#[tokio::test]
async fn topics_and_patterns_of_one_subscription_go_on_each_from_its_own_place() {
    let stub = Stub::start(vec![
        vec![Act::MessageOf("o.a", 5), Act::Cursor("o.*", "p1.A"), Act::Message(7), Act::Close(1012)],
        vec![Act::MessageOf("o.a", 5), Act::Message(7), Act::Message(8)],
    ])
    .await;
    let topics = [("t", "earliest"), ("o.*", "-10m")];
    let mut subscription = subscribe(&stub, &topics).await.expect("the stub subscribes");
    assert_eq!(read(&mut subscription, 3).await, ["o.a 5", "t 7", "again", "t 8"]);
    assert_eq!(stub.asked(), ["-600000ms earliest", "p1.A 7-0"], "frames have them by name");
    assert_eq!(texts(&subscription), ["t=8-0", "o.*=p1.A"]);
}

#[tokio::test]
async fn a_topic_that_is_read_twice_is_passed_on_as_it_comes() {
    let stub = Stub::start(vec![
        vec![Act::MessageOf("o.a", 5), Act::MessageOf("o.a", 5), Act::MessageOf("o.a", 6), Act::Close(1012)],
        vec![Act::MessageOf("o.a", 6), Act::MessageOf("o.a", 6)],
    ])
    .await;
    let topics = [("o.a", "earliest"), ("o.*", "earliest")];
    let mut subscription = subscribe(&stub, &topics).await.expect("the stub subscribes");
    assert_eq!(read(&mut subscription, 5).await, ["o.a 5", "o.a 5", "o.a 6", "again", "o.a 6", "o.a 6"]);
    assert_eq!(stub.asked()[1], "p1.0 5-0", "the second may not have come by the name");
}

#[tokio::test]
async fn a_start_of_the_other_kind_is_refused_before_anything_is_sent() {
    let stub = Stub::start(vec![]).await;
    for topics in [[("t", "p1.A")], [("t*", "5-0")]] {
        let refused = subscribe(&stub, &topics).await;
        assert!(matches!(refused, Err(ClientError::Usage(_))), "{refused:?}");
    }
    let cursor = PatternCursor::parse("p1.A").expect("a cursor");
    let refused = client_with(stub.port(), |_| {}).subscribe([(topic("t"), cursor)]).await;
    assert!(matches!(refused, Err(ClientError::Usage(_))), "{refused:?}");
    assert!(stub.asked().is_empty());
}
