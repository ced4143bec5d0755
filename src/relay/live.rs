//! Live reading: feeds, and readers that hold nothing but cursors.
//!
//! | file | owns |
//! |---|---|
//! | `primitives` | locks and flags; a test may say who comes to them first |
//! | `options` | how feeds are kept |
//! | `encodings` | a message as each transport writes it, made once and shared |
//! | `message` | a message on its way to live readers |
//! | `pending` | what is on its way to clients that do not take it at once, counted |
//! | `begin` | where a reader of a topic begins |
//! | `bookmark` | cursors of readers of patterns: few bytes, whatever a pattern covers |
//! | `item` | what readers get, and how much of it at once |
//! | `ring_bytes` | what the rings of a node hold, counted over all of them |
//! | `ring` | the newest messages of a topic, without a hole between them |
//! | `shared_batch` | what a feed has for its readers, encoded once for all in the same place |
//! | `outlet` | what a transport gives, so that feeds can write to its clients |
//! | `subscribers` | the readers of a feed, and how many are told at once |
//! | `parking` | where a reader leaves its cursors and its outlet while the feed writes for it |
//! | `feed` | the one task that reads a topic forward for all its readers on this node |
//! | `names` | the names of topics that a pattern covers, as they come |
//! | `pattern_feed` | the messages of all topics that a pattern covers, for its readers on this node |
//! | `patterns` | which patterns have feeds |
//! | `topic_map` | a map of topics that is walked a part at a time |
//! | `history` | reads of storage for those behind the ring, bounded and shared |
//! | `running` | the feeds that run, and what has them look: hints and the sweep |
//! | `feeds` | which topics have feeds, and how readers come to them |
//! | `pattern_reader` | the way of a reader to the feed of a pattern, and out of it |
//! | `following` | a pattern of a reader: its place in the pattern's ring |
//! | `storage_read` | a read of storage for one topic of a reader |
//! | `subscription` | one topic of a reader: its cursor, and the way from history into the ring |
//! | `doubt` | the question whose a topic is by now, and what is kept back until it is answered |
//! | `reader` | what one connection reads |
//! | `adding` | how topics come to a reader, and where it starts in them |
//! | `withheld` | what a reader keeps back of topics that it reads because its caller owns them |
//! | `patterned` | the patterns of a reader: how they are added and taken away |
//! | `by_topic` | a reader of a pattern that has not come to the pattern's ring: it reads each topic by itself |
//! | `pattern_task` | the one task that reads the topics of a pattern into its ring |
//!
//! Each file knows some of those above it, and none below.
//!
//! A reader behind the ring reads pages from storage until its cursor lies in the ring; from there it
//! is served from the ring, and when it falls behind again, from storage again. Both are reads of the
//! same stream by the same cursor, so there is no hand-over in which a message could be lost.
//!
//! A reader that has everything parks: it leaves its cursors and its outlet, and the feeds deliver to it
//! without waking its task. For all else it takes them back, and whoever holds the cursors is the only
//! one who writes.
//!
//! **Invariant:** nothing is queued per reader but the rest of what is being written to it, and that is
//! counted for all readers together. A slow reader costs its cursor.
//!
//! **Invariant:** a ring without a hole: between the cursor in front of it and its tail it has every
//! message of the topic, or a gap in the place of what is gone.
//!
//! **Invariant:** doorbells and hints only say "look": losing them costs time, never a message.

mod adding;
mod awaited;
mod begin;
mod bookmark;
mod by_topic;
mod delivered;
mod doubt;
mod encodings;
mod feed;
mod feeds;
mod following;
mod history;
mod item;
mod message;
mod names;
mod options;
#[cfg(test)]
mod orders;
mod outlet;
mod parking;
mod pattern_feed;
mod pattern_reader;
mod pattern_task;
mod patterned;
mod patterns;
mod pending;
mod primitives;
mod reader;
mod ring;
mod ring_bytes;
mod running;
mod shared_batch;
mod storage_read;
mod subscribers;
mod subscription;
mod topic_map;
mod turn;
mod withheld;

pub use begin::{Absent, Begun};
pub(super) use feeds::Feeds;
pub use item::{Item, TakeLimit};
pub use message::LiveMessage;
pub(super) use options::FeedOptions;
pub use outlet::{NoOutlet, Outlet};
pub(super) use pattern_task::run as run_pattern;
pub use patterned::StartAt;
pub use pending::Held;
pub use reader::LiveReader;
pub use shared_batch::SharedBatch;
