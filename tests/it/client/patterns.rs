//! Reading patterns: what a subscription keeps of them over lost connections, against the stub.

use tidemill::proto::{PatternCursor, TopicSelector};
use tidemill_client::{ClientError, Event, Start, Subscription};

use super::stub::{Act, Stub};
use super::{client_with, next};
use crate::support::ground::topic;
use crate::support::relay::STUCK;

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
