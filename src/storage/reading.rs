//! Reading as the contract has it: who reads what, and what comes of it.
//!
//! # What is told of what happened to a topic
//! Each is told once, on every door (page, one that waits, poll, events, lines, WebSocket), and then comes what
//! there is. A *bare id* is the cursor of who comes; who *follows* has stayed, and knows which topic it read
//! ([`Epoch`]); who *counts* follows, and knows how many messages the topic had been given, as a feed does.
//!
//! | what happened | a bare id | who follows |
//! |---|---|---|
//! | trimmed, by number, age or request | `trimmed`, then the oldest there is | the same; who counts is told how many |
//! | deleted by request | nothing; where the cursor's own message was trimmed, nothing as far as each id up to the oldest message was one of those | nothing; who counts is told how many others are gone |
//! | the topic deleted | no topic | `deleted`, then the next topic of the name from its first message |
//! | deleted and made again | `deleted`, from the first message | the same |
//! | replaced behind the relay (made anew, renamed over), also with smaller ids | `reset`, from the first message | the same |
//! | the same, with the very ids that there were | nothing: an id that is there proves that it is | `reset`, from the first message |
//! | an older copy restored, also with others behind it, or the newest messages lost in a failover | `reset`, from the first message; nothing for an id that is left | `reset`, from the first message. A feed goes on behind the newest of those that it has given out that is left, if nothing else stands in front of that one |
//! | the newest messages lost by the server, where a node knows that it had confirmed them | `reset` in their place, for each who comes there; nothing for who has got the last of them | the same; a feed that has got them, `reset` |
//! | an older copy, with as many messages as before and the same last id | nothing for an id that is left | nothing, before one of its own is found to be gone: the server has no number that differs |
//! | messages taken out behind the relay, ahead of the reader | `trimmed` by the read that comes by, or to the end, or whose own message is gone; behind all that is kept by the one that begins at the last; nothing where a newer one had been deleted by request before that | the same; who counts is told in any case, and how many |
//! | emptied, also by taking out all | `trimmed`; once more by the next message, where nobody can know that none was between | nothing where it had everything and had come to the end of it |
//! | emptied and set back behind the first id that it can give | `reset`, once | the same |
//! | the last id set forward | nothing | nothing |
//! | something else put under the key | an error | `deleted` |
//! | a cursor from before the topic was made | `deleted`, from the first message | the same |
//! | any other that no message had, and that is neither the place in front of one that is there (or was deleted by request) nor [the end of a millisecond](end_of) | `reset`, from the first message | – |
//! | a topic that was made, deleted and made again while the reader of a name without a topic (`0-0`) was away | nothing: the reader gets the topic there is, from its first message | `deleted` |
//!
//! Who begins at a time or at `earliest` has a cursor from then on as well: the newest message that was kept from
//! before that time, else the place in front of the oldest that was kept, else that behind the last. A page is told
//! nothing of what lies in front of it.
//!
//! A stream of another producer has no epoch until a sweep has come by, which who follows it has done at once; until
//! then that one is told what a bare id is, and by the count. What is at hand because others read it live is not missing, also where it was
//! trimmed since.

use std::time::Duration;

use tidemill_proto::page::Order;
use tidemill_proto::topics::RunState;
use tidemill_proto::{Gap, MessageId, Timestamp};

use super::message::StoredMessage;
use super::runs::RunEnd;

/// Which messages to read.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Direction.
    pub order: Order,
    /// The id to go on from, itself excluded and not necessarily kept: later messages in ascending
    /// order, earlier ones in descending order. `None` starts at that order's end of the topic.
    pub after: Option<MessageId>,
    /// What is to be told of what is missing behind `after`.
    pub gap_check: GapCheck,
    /// Most messages to return; at least 1.
    pub limit: usize,
    /// Payload and metadata bytes after which to stop early; the first message is always returned.
    pub bytes_max: usize,
}

/// Returns the place of a reader that has everything up to the end of a millisecond, whatever was there; it proves
/// nothing of what stands next to it. No clock gives a message this id. The place in front of the first message of the
/// next millisecond is another, right behind it, and proves that this message is still there.
#[must_use]
pub const fn end_of(ms: u64) -> MessageId {
    MessageId::new(ms, u64::MAX - 1)
}

/// What a read is to tell of what is missing behind the `after` of its range: it depends on what its reader
/// knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapCheck {
    /// Nothing: `after` was made from a time, or the order is descending.
    None,
    /// Nothing, but the reader will stay, so it is told the epoch of the topic.
    Epoch,
    /// The reader has seen the message of that id, so it must be told what it has missed. With
    /// [`MessageId::MIN`] it was there before the first message, and has missed every one that is gone;
    /// who only wants what there is has no `after`.
    Seen,
    /// The same, and the reader has stayed: it knows of which topic the message was.
    Follows {
        /// The epoch of that topic.
        epoch: Epoch,
        /// How many messages the topic had been given with that one, if the reader counts: then what was
        /// missed is known exactly, or that nothing was.
        given: Option<u64>,
        /// Of a reader that was there before the first message ([`MessageId::MIN`]) and has got none: a
        /// message that the topic had. If it is not of the topic there is, those are gone with their own.
        knows_of: Option<MessageId>,
    },
}

impl GapCheck {
    /// Returns a reader that has stayed since the topic was of this epoch.
    #[must_use]
    pub const fn follows(epoch: Epoch, given: Option<u64>) -> Self {
        Self::Follows { epoch, given, knows_of: None }
    }
}

pub use tidemill_proto::copy::Epoch;

/// What a read found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The hole between the cursor and the first message, where there may be one. Only in front: a
    /// read that meets a hole further on ends before it, and the next one tells it.
    pub gap: Option<Gap>,
    /// The messages, in the order of the range.
    pub messages: Vec<StoredMessage>,
    /// Where to go on: the id of the last message, or (where a run of expired messages is so long
    /// that the read stopped inside it) the last id looked at. `None` if the end was reached and no
    /// message was found.
    pub next: Option<MessageId>,
    /// The last id looked at, expired messages included; `None` if there was none.
    pub reached: Option<MessageId>,
    /// How many messages were looked at, expired ones included.
    pub looked_at: u64,
    /// Whether the read has come to the end of the topic. Where not, the next one may find more.
    pub at_end: bool,
    /// Which topic this is, where the read has looked: at its end for a reader that follows, and wherever
    /// it tells of a gap.
    pub epoch: Option<Epoch>,
    /// Whether the topic takes messages, where the read has looked which topic it is.
    pub state: RunState,
    /// What had been taken out of the topic, for a reader that follows.
    pub taken_out: TakenOut,
    /// Where it was read from a copy of the backend's data: by how much that may be behind.
    pub age: Option<Duration>,
}

/// What was ever taken out of a topic alone, by request or otherwise. Where it is not the same as before, what
/// was read before need not be there any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOut {
    /// The newest such message. `None` also where it is known only that no message is missing behind the oldest that is
    /// kept.
    pub newest: Option<MessageId>,
    /// How many were deleted by request, of those that are remembered.
    pub by_request: u64,
}

/// The newest end of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The oldest kept message.
    pub first: Option<MessageId>,
    /// The last id that the topic has given; its message need not be kept. `None` if there was none.
    pub last: Option<MessageId>,
    /// How many messages the topic was ever given, where the backend counts them.
    pub given: Option<u64>,
    /// Which topic this is.
    pub epoch: Epoch,
    /// The smallest id that this topic can give, or ever could: none of its messages has one below. Of a topic
    /// that was made when the clock that makes its ids showed some millisecond, or later, it is of no earlier
    /// millisecond; where that clock is set back, as by a change to another server, it has shown both. Never
    /// changes while the topic is what it is. `None` where nobody knows it: another producer has made the
    /// topic.
    pub born: Option<MessageId>,
    /// When a sweep noticed last that this topic had been given a message whose id is of an earlier time than the
    /// one at which it had not been there yet, by more than two seconds: whoever publishes to it chooses ids that
    /// do not follow the clock, or that clock was set back. Or when one first saw a topic that another producer had
    /// made, or that had taken the place of another: what it was given before may be as old as it likes. `None`
    /// proves nothing: it is noticed by the second sweep that finds the topic changed.
    pub late: Option<Timestamp>,
    /// That the topic has ended, if it has: `last` is then the last that it will ever give.
    pub ended: Option<RunEnd>,
}
