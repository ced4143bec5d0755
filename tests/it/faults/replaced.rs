//! A stream that was replaced behind the relay's back, or changed: what every door tells, of a bare id and to
//! who reads live. The table stands in the contract of the storage.

use std::time::Duration;

use super::Node;
use crate::support::doors::{BARE, Readers, bare};
use crate::support::eventually;
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
    TakenOut,
    Emptied,
    GivenALargerId,
    SetOver,
    Deleted,
}

const ALL: [Done; 12] = [
    Done::Replaced,
    Done::WithSmallerIds,
    Done::WithTheSameIds,
    Done::RenamedOver,
    Done::RenamedOverByAnOlderTopic,
    Done::RenamedOverByANewerTopic,
    Done::RestoredFromAnOlderCopy,
    Done::TakenOut,
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
            // It is the same topic, so who has stayed goes on behind what it has got.
            Self::RestoredFromAnOlderCopy => (&["2", END], &["gap reset", END]),
            Self::TakenOut => (&["gap trimmed", "3", "5", END], &["gap trimmed", "5", END]),
            Self::Emptied => (&["gap trimmed", END], &[END]),
            Self::GivenALargerId => (&["2", "3", END], &[END]),
            Self::SetOver | Self::Deleted => (&["gap reset", END], &["gap deleted", END]),
        }
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
}

impl<'a> Stage<'a> {
    async fn set(server: &'a Server, node: &'a Node, done: Done, is_foreign: bool) -> Self {
        server.command(&["FLUSHDB"]).await;
        if done == Done::RenamedOverByAnOlderTopic {
            assert_eq!(node.publish("other", "4", None).await.status, 201);
        }
        let (mut ids, mut copy) = (Vec::new(), Vec::new());
        for payload in ["1", "2", "3"] {
            let id = if is_foreign {
                server.command(&["XADD", KEY, "*", "payload", payload]).await.text()
            } else {
                let answer = node.publish(TOPIC, payload, None).await;
                assert_eq!(answer.status, 201);
                answer.json()["message_id"].as_str().expect("an id").to_owned()
            };
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
        Self { server, node, ids, copy }
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
            Done::RestoredFromAnOlderCopy => {
                let command: [&[u8]; 5] = [b"RESTORE", KEY.as_bytes(), b"0", &self.copy, b"REPLACE"];
                server.command(&command).await;
            }
            Done::TakenOut => {
                // In one step, so that nobody has seen the message that is taken out last.
                let script = "redis.call('XDEL', KEYS[1], ARGV[1])
                    local id = redis.call('XADD', KEYS[1], '*', 'payload', '4')
                    redis.call('XADD', KEYS[1], '*', 'payload', '5')
                    redis.call('XDEL', KEYS[1], id)";
                server.command(&["EVAL", script, "1", KEY, &ids[1]]).await;
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
        let mut told = readers.next(before, &of).await;
        self.end(done).await;
        for (door, rest) in readers.next(to_live.len() - before, &of).await {
            let all = told.entry(door).or_default();
            all.extend(rest);
            // Who had not come to the ring when the topic was emptied cannot know that it had everything.
            let may_not_know = done == Done::Emptied && all[..] == ["gap trimmed"];
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
        if done != Done::Emptied {
            assert_eq!(readers.have_more(), None, "{done:?}");
        }
    }
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

/// Streams of other producers, before a sweep has come by, and after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_tells_what_was_done_to_a_stream_of_another_producer() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    for is_swept in [false, true] {
        for done in [Done::Replaced, Done::WithSmallerIds, Done::RenamedOver, Done::TakenOut, Done::Emptied] {
            let stage = Stage::set(&server, &node, done, true).await;
            if is_swept {
                eventually(STUCK, async || {
                    server.command(&["DEL", "tidemill:sweep"]).await;
                    node.storage.upkeep.sweep().await.expect("it sweeps").topics > 0
                })
                .await;
            }
            stage.play(done, false).await;
        }
    }
    node.stop().await;
}
