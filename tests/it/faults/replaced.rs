//! A stream that was replaced behind the relay's back, or changed: what every door tells, of a bare id and to
//! who reads live. The table stands in the contract of the storage.

use std::time::Duration;

use tidemill::proto::MessageId;

use super::Node;
use crate::support::doors::{BARE, Readers, bare};
use crate::support::eventually;
use crate::support::ground::topic;
use crate::support::relay::STUCK;
use crate::support::resp::Reply;
use crate::support::server::{Kind, Server};

const TOPIC: &str = "replaced";
const KEY: &str = "stream:topic:replaced";
/// What is published last, so that a reader knows that it has everything.
const END: &str = "\"end\"";

/// What is done behind the relay's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Replaced,
    WithSmallerIds,
    WithTheSameIds,
    RenamedOver,
    RenamedOverByAnOlderTopic,
    RenamedOverByANewerTopic,
    RestoredFromAnOlderCopy,
    RestoredAndGivenOthers,
    RestoredAndGivenAsMany,
    SetBack,
    TakenOut,
    TakenOutAndDeletedByRequest,
    AllTakenOut,
    Emptied,
    GivenALargerId,
    SetOver,
    Deleted,
}

const ALL: [Done; 17] = [
    Done::Replaced,
    Done::WithSmallerIds,
    Done::WithTheSameIds,
    Done::RenamedOver,
    Done::RenamedOverByAnOlderTopic,
    Done::RenamedOverByANewerTopic,
    Done::RestoredFromAnOlderCopy,
    Done::RestoredAndGivenOthers,
    Done::RestoredAndGivenAsMany,
    Done::SetBack,
    Done::TakenOut,
    Done::TakenOutAndDeletedByRequest,
    Done::AllTakenOut,
    Done::Emptied,
    Done::GivenALargerId,
    Done::SetOver,
    Done::Deleted,
];

impl Done {
    /// Returns what is told to who has seen `1` and comes with its id, and to who has got `3` live.
    fn told(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Replaced | Self::RenamedOver | Self::RenamedOverByAnOlderTopic => {
                (&["gap reset", "4", END], &["gap reset", "4", END])
            }
            Self::WithSmallerIds => (&["gap reset", "4", "5", END], &["gap reset", "4", "5", END]),
            // A bare id that is kept proves that nothing is missing: nobody can know better.
            Self::WithTheSameIds => (&["5", "6", END], &["gap reset", "4", "5", "6", END]),
            Self::RenamedOverByANewerTopic => (&["gap deleted", "4", END], &["gap deleted", "4", END]),
            // It is the same topic, of which the node has given out what is left.
            Self::RestoredFromAnOlderCopy => (&["2", END], &["gap reset", END]),
            Self::RestoredAndGivenOthers => (&["2", "4", "5", END], &["gap reset", "4", "5", END]),
            Self::RestoredAndGivenAsMany => (&["2", "4", END], &["gap reset", "4", END]),
            Self::SetBack => (&["gap reset", END], &["gap reset", END]),
            Self::TakenOut => (&["gap trimmed", "3", "5", END], &["gap trimmed", "5", END]),
            Self::TakenOutAndDeletedByRequest | Self::Emptied | Self::AllTakenOut => {
                (&["gap trimmed", END], &[END])
            }
            Self::GivenALargerId => (&["2", "3", END], &[END]),
            Self::SetOver | Self::Deleted => (&["gap reset", END], &["gap deleted", END]),
        }
    }

    const fn is_restored(self) -> bool {
        matches!(
            self,
            Self::RestoredFromAnOlderCopy | Self::RestoredAndGivenOthers | Self::RestoredAndGivenAsMany
        )
    }

    /// Returns how many of those come before the end is there.
    fn told_before(self) -> usize {
        self.told().1.iter().filter(|told| **told != END).count()
    }
}

/// A topic with three messages, and what it takes to do something to it.
struct Stage<'a> {
    server: &'a Server,
    node: &'a Node,
    ids: Vec<String>,
    copy: Vec<u8>,
    /// Who reads from the first message on.
    _watching: Readers,
}

impl<'a> Stage<'a> {
    async fn set(server: &'a Server, node: &'a Node, done: Done, is_foreign: bool) -> Self {
        server.command(&["FLUSHDB"]).await;
        if done == Done::RenamedOverByAnOlderTopic {
            assert_eq!(node.publish("other", "4", None).await.status, 201);
            // Its id is of the millisecond after it was made, and not to be one of those that follow.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let (mut ids, mut copy) = (Vec::new(), Vec::new());
        let mut watching = None;
        for payload in ["1", "2", "3"] {
            if payload == "3" && done.is_restored() {
                // There is an id between the two.
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            let id = if is_foreign {
                server.command(&["XADD", KEY, "*", "payload", payload]).await.text()
            } else {
                let answer = node.publish(TOPIC, payload, None).await;
                assert_eq!(answer.status, 201);
                answer.json()["message_id"].as_str().expect("an id").to_owned()
            };
            if watching.is_none() {
                watching = Some(Readers::attach(&node.relay, TOPIC, &id).await);
                // One of another producer is marked as soon as it is read.
                let groups = async || server.command(&["XINFO", "GROUPS", KEY]).await;
                eventually(STUCK, async || !groups().await.array().is_empty()).await;
            }
            ids.push(id);
            if payload == "2"
                && let Reply::Bulk(bytes) = server.command(&["DUMP", KEY]).await
            {
                copy = bytes;
            }
        }
        if done == Done::RenamedOverByANewerTopic {
            // A topic's first id is of the millisecond after it was made.
            tokio::time::sleep(Duration::from_millis(3)).await;
            assert_eq!(node.publish("other", "4", None).await.status, 201);
        }
        Self { server, node, ids, copy, _watching: watching.expect("there is a first message") }
    }

    async fn add(&self, id: &str, payload: &str) {
        self.server.command(&["XADD", KEY, id, "payload", payload]).await;
    }

    /// Makes the stream anew, with these ids, before anybody can see that it was gone.
    async fn replace(&self, ids: &[&str]) {
        let script = "redis.call('DEL', KEYS[1])
            for at, id in ipairs(ARGV) do redis.call('XADD', KEYS[1], id, 'payload', at + 3) end";
        self.server.command(&[&["EVAL", script, "1", KEY], ids].concat()).await;
    }

    async fn act(&self, done: Done) {
        let Self { server, ids, .. } = self;
        match done {
            Done::Replaced => self.replace(&["*"]).await,
            Done::WithSmallerIds => self.replace(&["1-1", "1-2"]).await,
            Done::WithTheSameIds => self.replace(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await,
            Done::RenamedOver => {
                server.command(&["XADD", "elsewhere", "*", "payload", "4"]).await;
                server.command(&["RENAME", "elsewhere", KEY]).await;
            }
            Done::RenamedOverByAnOlderTopic | Done::RenamedOverByANewerTopic => {
                server.command(&["RENAME", "stream:topic:other", KEY]).await;
            }
            Done::RestoredFromAnOlderCopy => restore(server, &self.copy, &[]).await,
            Done::RestoredAndGivenOthers => restore(server, &self.copy, &after(&ids[1], 2)).await,
            Done::RestoredAndGivenAsMany => restore(server, &self.copy, &after(&ids[1], 1)).await,
            Done::SetBack => {
                let script = "redis.call('XTRIM', KEYS[1], 'MAXLEN', '0')
                    redis.call('XSETID', KEYS[1], '0-5', 'ENTRIESADDED', '0', 'MAXDELETEDID', '0-1')";
                server.command(&["EVAL", script, "1", KEY]).await;
            }
            Done::TakenOut => {
                // In one step, so that nobody has seen the message that is taken out last.
                let script = "redis.call('XDEL', KEYS[1], ARGV[1])
                    local id = redis.call('XADD', KEYS[1], '*', 'payload', '4')
                    redis.call('XADD', KEYS[1], '*', 'payload', '5')
                    redis.call('XDEL', KEYS[1], id)";
                server.command(&["EVAL", script, "1", KEY, &ids[1]]).await;
            }
            Done::TakenOutAndDeletedByRequest => {
                server.command(&["XDEL", KEY, &ids[1]]).await;
                let (topic, id) = (topic(TOPIC), ids[2].parse().expect("an id"));
                assert!(self.node.storage.messages.remove(&topic, id).await.expect("it is deleted"));
            }
            Done::AllTakenOut => {
                server.command(&["XDEL", KEY, &ids[0], &ids[1], &ids[2]]).await;
            }
            Done::Emptied => {
                server.command(&["XTRIM", KEY, "MAXLEN", "0"]).await;
            }
            Done::GivenALargerId => {
                server.command(&["XSETID", KEY, "9999999999999-0"]).await;
            }
            Done::SetOver => {
                server.command(&["SET", KEY, "x"]).await;
            }
            Done::Deleted => {
                server.command(&["DEL", KEY]).await;
            }
        }
    }

    async fn end(&self, done: Done) {
        if done == Done::SetOver {
            self.server.command(&["DEL", KEY]).await;
        }
        self.add("*", END).await;
    }

    /// Does it under readers, and compares what every door tells.
    async fn play(&self, done: Done, at_once: bool) {
        let mut readers = Readers::attach(&self.node.relay, TOPIC, &self.ids[1]).await;
        for (door, told) in readers.next(1, "at first").await {
            assert_eq!(told, ["3"], "{door}");
        }
        let (to_bare, to_live) = done.told();
        self.act(done).await;
        let before = if at_once { 0 } else { done.told_before() };
        let of = format!("{done:?}, at once: {at_once}");
        let is_emptied = matches!(done, Done::Emptied | Done::AllTakenOut);
        let mut told = readers.next(before, &of).await;
        self.end(done).await;
        for (door, rest) in readers.next(to_live.len() - before, &of).await {
            let all = told.entry(door).or_default();
            all.extend(rest);
            // Who had not come to the ring when the topic was emptied cannot know that it had everything.
            let may_not_know = is_emptied && all[..] == ["gap trimmed"];
            assert!(*all == to_live || may_not_know, "{done:?} at once: {at_once}, live on {door}: {all:?}");
        }
        for door in BARE {
            let told = bare(&self.node.relay, door, (TOPIC, &self.ids[0]), END).await;
            // What was trimmed, and is still at hand because others read it live, is not missing.
            let is_at_hand = done == Done::Emptied && door != "page" && told == ["2", "3", END];
            assert!(
                told == to_bare || is_at_hand,
                "{done:?} at once: {at_once}, a bare id on {door}: {told:?}, not {to_bare:?}"
            );
        }
        if !is_emptied {
            assert_eq!(readers.have_more(), None, "{done:?}");
        }
    }
}

/// Puts an older copy of the stream in its place, with these entries behind it, in one step.
async fn restore(server: &Server, copy: &[u8], ids: &[String]) {
    let script = b"redis.call('RESTORE', KEYS[1], '0', ARGV[1], 'REPLACE')
        for at = 2, #ARGV do redis.call('XADD', KEYS[1], ARGV[at], 'payload', at + 2) end";
    let command: [&[u8]; 5] = [b"EVAL", script, b"1", KEY.as_bytes(), copy];
    let ids = ids.iter().map(String::as_bytes);
    server.command(&command.into_iter().chain(ids).collect::<Vec<_>>()).await;
}

/// Returns the ids that follow one.
fn after(id: &str, count: usize) -> Vec<String> {
    let id: MessageId = id.parse().expect("an id");
    std::iter::successors(id.next(), |id| id.next()).take(count).map(|id| id.to_string()).collect()
}

/// Who reads live goes on behind the newest of what it has got that is left, and gets all that came in its place.
async fn who_has_got_a_part_of_a_restored_copy_gets_the_rest(notices: &str) {
    let kind = Kind::Valkey;
    let Some(server) = Server::start(kind, &["--notify-keyspace-events", notices]).await else { return };
    let node = Node::start(server.port()).await;
    let publish = async |payload: &str| {
        let answer = node.publish(TOPIC, payload, None).await;
        assert_eq!(answer.status, 201);
        answer.json()["message_id"].as_str().expect("an id").to_owned()
    };
    let first = publish("1").await;
    let mut readers = Readers::attach(&node.relay, TOPIC, &first).await;
    let second = publish("2").await;
    assert!(readers.next(1, "at first").await.values().all(|told| told == &["2"]));
    let Reply::Bulk(copy) = server.command(&["DUMP", KEY]).await else { panic!("there is a stream") };
    // There is an id between the two.
    tokio::time::sleep(Duration::from_millis(3)).await;
    publish("9").await;
    assert!(readers.next(1, "before").await.values().all(|told| told == &["9"]));
    restore(&server, &copy, &after(&second, 2)).await;
    for (door, told) in readers.next(3, "restored").await {
        assert_eq!(told, ["gap reset", "4", "5"], "{door}");
    }
    // Again, without the newest of those; the next message shows it.
    restore(&server, &copy, &after(&second, 1)).await;
    let end = publish(END).await;
    for (door, told) in readers.next(2, "again").await {
        assert_eq!(told, ["gap reset", END], "{door}");
    }
    // Where nothing is left of it, all that there is, as for readers of a node that has given out nothing yet.
    let other = Node::start(server.port()).await;
    let mut others = Readers::attach(&other.relay, TOPIC, &end).await;
    restore(&server, &copy, &[]).await;
    for readers in [&mut readers, &mut others] {
        for (door, told) in readers.next(3, "at last").await {
            assert_eq!(told, ["gap reset", "1", "2"], "{door}");
        }
        assert_eq!(readers.have_more(), None);
    }
    node.stop().await;
    other.stop().await;
}

async fn every_door_tells_what_was_done(kind: Kind, notices: &str) {
    let Some(server) = Server::start(kind, &["--notify-keyspace-events", notices]).await else { return };
    let node = Node::start(server.port()).await;
    for done in ALL {
        for at_once in [true, false] {
            // Where it is over before anybody has looked, nothing need be told of a topic that was gone between.
            if at_once && matches!(done, Done::SetOver | Done::Deleted) {
                continue;
            }
            Stage::set(&server, &node, done, false).await.play(done, at_once).await;
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_got_a_part_of_a_restored_copy_gets_the_rest_with_notices_and_without() {
    for notices in ["", "Ktg$"] {
        who_has_got_a_part_of_a_restored_copy_gets_the_rest(notices).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_tells_what_was_done_to_a_stream_of_valkey() {
    every_door_tells_what_was_done(Kind::Valkey, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_tells_what_was_done_to_a_stream_of_valkey_that_gives_notice() {
    every_door_tells_what_was_done(Kind::Valkey, "Ktg$").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_tells_what_was_done_to_a_stream_of_redis() {
    every_door_tells_what_was_done(Kind::Redis, "").await;
}

/// A stream of another producer is marked as soon as somebody reads it live, long before a sweep comes by; then it
/// is as one of the relay's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_tells_what_was_done_to_a_stream_of_another_producer() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    for done in ALL {
        Stage::set(&server, &node, done, true).await.play(done, false).await;
    }
    node.stop().await;
}

/// A page that is full, and passes what others took out, tells it; those in front of it and behind it do not.
async fn the_page_that_passes_what_was_taken_out_tells_it(kind: Kind) {
    let Some(server) = Server::start(kind, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let mut ids = Vec::new();
    for payload in 0..30 {
        let answer = node.publish(TOPIC, &payload.to_string(), None).await;
        ids.push(answer.json()["message_id"].as_str().expect("an id").to_owned());
    }
    server.command(&["XDEL", KEY, &ids[10], &ids[11]]).await;
    for (from, missing) in [(0, false), (4, false), (5, true), (9, true), (12, false), (15, false)] {
        let path = format!("/api/v1/topics/{TOPIC}/messages?limit=5&after={}", ids[from]);
        let page = node.relay.get(&path).await.json();
        assert_eq!(page["messages"].as_array().map(Vec::len), Some(5), "{from}");
        assert_eq!(page["gap"]["reason"] == "trimmed", missing, "{from}: {}", page["gap"]);
    }
    node.stop().await;
}

#[tokio::test]
async fn the_page_that_passes_what_was_taken_out_of_valkey_tells_it() {
    the_page_that_passes_what_was_taken_out_tells_it(Kind::Valkey).await;
}

#[tokio::test]
async fn the_page_that_passes_what_was_taken_out_of_redis_tells_it() {
    the_page_that_passes_what_was_taken_out_tells_it(Kind::Redis).await;
}
