//! What reading asks of the server: no more than it needs, and never more than the relay holds.

use std::collections::BTreeMap;

use tidemill::proto::limits::PAGE_BYTES_MAX;
use tidemill::proto::page::Order;
use tidemill::proto::{MessageId, TopicName};
use tidemill::storage::valkey::Target;
use tidemill::storage::{Batch, GapCheck, Range, Tail, Trim};

use super::Node;
use crate::support::ground::{append_all, append_numbers, followed, ids, json, message, topic};
use crate::support::server::{Kind, Server};

const MIB: usize = 1024 * 1024;

fn range(order: Order, after: Option<MessageId>, gap_check: GapCheck, limit: usize) -> Range {
    Range { order, after, gap_check, limit, bytes_max: PAGE_BYTES_MAX }
}

async fn read(node: &Node, topic: &TopicName, range: Range) -> Batch {
    node.storage.messages.read(topic, range).await.expect("a page is read")
}

/// Returns how often the server has run each command since it was last asked, but for those that look after
/// connections.
async fn commands(server: &Server) -> BTreeMap<String, u64> {
    let stats = server.command(&["INFO", "commandstats"]).await.text();
    server.command(&["CONFIG", "RESETSTAT"]).await;
    let count = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    let is_of_looks = |name: &str| ["info", "time", "set", "config|resetstat"].contains(&name);
    stats.lines().filter_map(count).filter(|(name, _)| !is_of_looks(name)).collect()
}

/// Returns how many bytes the server has written since it was last asked.
async fn written(server: &Server) -> usize {
    let stats = server.command(&["INFO", "stats"]).await.text();
    server.command(&["CONFIG", "RESETSTAT"]).await;
    let bytes = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    bytes.expect("the server counts").parse().expect("a number")
}

async fn a_page_asks_for_its_entries_and_for_nothing_else(kind: Kind) {
    let Some(server) = Server::start(kind, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let topic = topic("asked");
    let ids = append_numbers(&node.storage, &topic, 1_000).await;
    // What entries weigh in this topic is known from then on.
    read(&node, &topic, range(Order::Asc, None, GapCheck::None, 10)).await;
    commands(&server).await;
    // Forwards, what proves that nothing is missing between the entries comes along with them.
    let (forwards, backwards) = (&["xinfo|groups", "xrange", "zlexcount"][..], &["xrevrange"][..]);
    for (range, first, names) in [
        (range(Order::Asc, None, GapCheck::None, 100), 0, forwards),
        (range(Order::Asc, Some(ids[499]), GapCheck::None, 100), 500, forwards),
        (range(Order::Asc, Some(ids[499]), GapCheck::Seen, 100), 500, forwards),
        (range(Order::Desc, None, GapCheck::None, 100), 999, backwards),
        (range(Order::Desc, Some(ids[500]), GapCheck::None, 100), 499, backwards),
    ] {
        let page = read(&node, &topic, range).await;
        assert_eq!((page.gap, page.messages.len(), page.messages[0].id), (None, 100, ids[first]));
        let asked = names.iter().map(|name| ((*name).to_owned(), 1)).collect();
        assert_eq!(commands(&server).await, asked, "{range:?}");
    }
    // At the end of a topic, and for a reader that follows, it is looked which topic that is, once.
    let epoch = node.storage.live.tail(&topic).await.expect("there is one").epoch;
    read(&node, &topic, range(Order::Asc, Some(ids[999]), GapCheck::Seen, 100)).await;
    commands(&server).await;
    for (gap_check, at) in [
        (GapCheck::Seen, 999),
        (GapCheck::follows(epoch, Some(1_000)), 999),
        (GapCheck::follows(epoch, Some(800)), 799),
    ] {
        let page = read(&node, &topic, range(Order::Asc, Some(ids[at]), gap_check, 500)).await;
        assert!(page.at_end && page.gap.is_none(), "{gap_check:?}");
        let asked = match gap_check {
            // One of the two for groups is the script's.
            GapCheck::Seen => {
                &[("evalsha", 1), ("xinfo|groups", 2), ("xinfo|stream", 1), ("xrange", 1), ("zlexcount", 1)][..]
            }
            // A script costs the server more than all of these.
            _ => &[("xinfo|groups", 1), ("xrange", 1), ("zlexcount", 1)],
        };
        let asked =
            asked.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<BTreeMap<_, _>>();
        assert_eq!(commands(&server).await, asked, "{gap_check:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn of_valkey_a_page_asks_for_its_entries_and_for_nothing_else() {
    a_page_asks_for_its_entries_and_for_nothing_else(Kind::Valkey).await;
}

#[tokio::test]
async fn of_redis_a_page_asks_for_its_entries_and_for_nothing_else() {
    a_page_asks_for_its_entries_and_for_nothing_else(Kind::Redis).await;
}

/// What is told of a topic that was trimmed, and of one that is empty.
async fn told(node: &Node, ids: &[MessageId]) -> (Vec<Batch>, Vec<Tail>) {
    let (trimmed, empty) = (topic("trimmed"), topic("empty"));
    let mut pages = Vec::new();
    let epoch = node.storage.live.tail(&trimmed).await.expect("there is one").epoch;
    let passed_over = GapCheck::Follows { epoch, given: None, knows_of: Some(ids[5]) };
    let start = MessageId::MIN;
    for (gap_check, cursor) in
        [(GapCheck::Seen, ids[0]), (GapCheck::follows(epoch, Some(1)), ids[0]), (passed_over, start)]
    {
        pages.push(read(node, &trimmed, range(Order::Asc, Some(cursor), gap_check, 10)).await);
        pages.push(read(node, &empty, range(Order::Asc, Some(cursor), gap_check, 10)).await);
    }
    let mut tails = Vec::new();
    for topic in [&trimmed, &empty] {
        tails.push(node.storage.live.tail(topic).await.expect("there is one"));
    }
    (pages, tails)
}

/// A reader whose cursor is gone, and who stands at the end, is told the same by a server that runs no
/// scripts for this user; and where it does, entries do not come along.
async fn gaps_and_tails_are_told_with_scripts_and_without(kind: Kind) {
    let Some(server) = Server::start(kind, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let (trimmed, empty) = (topic("trimmed"), topic("empty"));
    let messages = (0..6).map(|number| {
        let padding = if number == 5 { "x".repeat(MIB) } else { String::new() };
        message(&trimmed, json(format!(r#"[{number},"{padding}"]"#)))
    });
    let ids = append_all(&node.storage, messages.collect()).await;
    assert_eq!(node.storage.messages.trim(&trimmed, Trim::Keep(1)).await.expect("it is trimmed"), 5);
    append_numbers(&node.storage, &empty, 2).await;
    assert_eq!(node.storage.messages.trim(&empty, Trim::Keep(0)).await.expect("it is trimmed"), 2);
    let missing = topic("missing");
    assert!(node.storage.live.tail(&missing).await.is_err());

    written(&server).await;
    let tail = node.storage.live.tail(&trimmed).await.expect("there is one");
    assert_eq!((tail.last, tail.given), (Some(ids[5]), Some(6)));
    let bytes = written(&server).await;
    assert!(bytes < MIB / 4, "{bytes} bytes for the tail of a topic with a message of a mebibyte");

    let with_scripts = told(&node, &ids).await;
    assert!(with_scripts.0[0].gap.is_some() && with_scripts.0[2].gap.as_ref().unwrap().missed == Some(4));
    let rights = ["ACL", "SETUSER", "plain", "on", ">p", "~*", "&*", "+@all", "-eval", "-evalsha"];
    server.command(&rights).await;
    let plain = Node::start_with(server.port(), |options, _| {
        let url = format!("redis://plain:p@127.0.0.1:{}", server.port());
        options.target = Target::parse(&url).expect("the URL is right");
    })
    .await;
    plain.is_ready_within(crate::support::ground::SOON).await;
    for _ in 0..2 {
        assert_eq!(told(&plain, &ids).await, with_scripts);
    }
    let refused = plain.storage.live.tail(&missing).await;
    assert!(matches!(refused, Err(tidemill::storage::StorageError::NoTopic)), "{refused:?}");
    node.stop().await;
    plain.stop().await;
}

#[tokio::test]
async fn of_valkey_gaps_and_tails_are_told_with_scripts_and_without() {
    Box::pin(gaps_and_tails_are_told_with_scripts_and_without(Kind::Valkey)).await;
}

#[tokio::test]
async fn of_redis_gaps_and_tails_are_told_with_scripts_and_without() {
    Box::pin(gaps_and_tails_are_told_with_scripts_and_without(Kind::Redis)).await;
}

/// Returns the id by which the server knows the connection of this name.
async fn connection(server: &Server, name: &str) -> String {
    let list = server.command(&["CLIENT", "LIST"]).await.text();
    let line = list.lines().find(|line| line.contains(&format!(" name={name} "))).expect("it is connected");
    line.split(' ').next().expect("an id").to_owned()
}

/// Where a few small messages are followed by many large ones, what entries weigh is guessed wrong: what
/// comes too much is thrown away, the connection stays, and the reader gets everything.
#[tokio::test]
async fn large_messages_behind_small_ones_are_read_in_parts_over_the_same_connection() {
    const LARGE: usize = 60;

    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start_with(server.port(), |options, _| options.timeout = super::DEADLINE).await;
    node.is_ready_within(crate::support::ground::SOON).await;
    let topic = topic("grows");
    let mut written = append_numbers(&node.storage, &topic, 20).await;
    let text = "x".repeat(MIB);
    for number in 0..LARGE {
        let large = message(&topic, json(format!(r#"[{number},"{text}"]"#)));
        written.extend(append_all(&node.storage, vec![large]).await);
    }
    for (name, bytes_max) in [("tidemill-page", PAGE_BYTES_MAX), ("tidemill-read", MIB)] {
        let before = connection(&server, name).await;
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let range = Range { bytes_max, ..range(Order::Asc, after, GapCheck::Seen, 1_000) };
            let page = read(&node, &topic, range).await;
            let bytes: usize = page.messages.iter().map(|message| message.body.len_bytes()).sum();
            assert!(bytes <= bytes_max.max(MIB + 100), "{bytes} in a page");
            found.extend(ids(&page.messages));
            after = page.next.or(after);
            if page.at_end {
                break;
            }
        }
        assert_eq!(found, written, "{name}");
        assert_eq!(connection(&server, name).await, before, "{name} was not replaced");
    }
    node.stop().await;
}

/// Changes bring a message of each topic along, so their answer has a bound too.
#[tokio::test]
async fn news_of_many_topics_with_large_messages_name_them_all() {
    const TOPICS: usize = 50;

    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start_with(server.port(), |options, _| options.timeout = super::DEADLINE).await;
    node.is_ready_within(crate::support::ground::SOON).await;
    let text = format!(r#""{}""#, "x".repeat(200 * 1024));
    let mut asked = Vec::new();
    for number in 0..TOPICS {
        let topic = topic(&format!("changes-{number}"));
        let ids = append_all(&node.storage, vec![message(&topic, json("1"))]).await;
        append_all(&node.storage, vec![message(&topic, json(text.clone()))]).await;
        asked.push(followed(&topic, Some(ids[0])));
    }
    asked.push(followed(&topic("gone"), None));
    let before = connection(&server, "tidemill-read").await;
    let changes = node.storage.live.poll_changes(&asked[..TOPICS]).await.expect("changes");
    assert_eq!(changes.changed, (0..TOPICS).collect::<Vec<_>>());
    let few = node.storage.live.poll_changes(&asked[TOPICS - 2..]).await.expect("changes");
    assert_eq!((few.changed, few.gone), (vec![0, 1], vec![2]));
    assert_eq!(connection(&server, "tidemill-read").await, before, "it was not replaced");
    node.stop().await;
}
