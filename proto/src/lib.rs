//! The wire contract of Tidemill: types, limits, problem codes and the JSON encoding of a message.
//!
//! A client can depend on this crate alone: it does no I/O and knows neither a runtime nor a web
//! framework. The relay uses the same types, so the two cannot drift apart.
//!
//! | module | owns |
//! |---|---|
//! | [`topic`] | [`TopicName`]: the grammar of topic names |
//! | [`pattern`] | [`TopicPattern`]: topics by their names, as in `orders.*` |
//! | [`selector`] | [`TopicSelector`]: a topic name, or a pattern in its place |
//! | [`duration`] | durations: numbers of seconds, or text with a unit |
//! | [`id`] | [`MessageId`]: `<ms>-<seq>`, ordered within a topic |
//! | [`time`] | [`Timestamp`]: RFC 3339 in UTC, to the millisecond |
//! | [`cursor`] | [`Cursor`]: where a reader goes on |
//! | [`pattern_cursor`] | [`PatternCursor`]: where a reader of a pattern goes on |
//! | [`content_type`] | what a content type says of a payload |
//! | [`quoted`] | values of headers with quoted strings in them |
//! | [`order_key`] | [`OrderKey`]: which messages are worked on one after the other |
//! | [`durability`] | [`Durability`]: what must hold before a publisher is answered |
//! | [`schedule`] | messages for later, and those that come again and again |
//! | [`message`] | publishing, and [`Message`], the one form in which a message is served |
//! | [`trace`] | [`Trace`]: the trace that a message is part of |
//! | [`payload`] | how a payload stands in JSON |
//! | [`page`] | pages of messages |
//! | [`gap`] | [`Gap`]: messages that a reader asked for and that are gone |
//! | [`frame`] | WebSocket frames, in JSON and in binary |
//! | [`access`] | users, tokens and roles, and why somebody may do something |
//! | [`names`] | names of what is no topic: buckets, keys, locks, limits, rooms, members, series |
//! | [`keys`] | buckets of keys: values, changes, histories, settings |
//! | [`series`] | series of measurements: points, and minutes of them |
//! | [`takes`] | limits of applications: what is taken of them |
//! | [`locks`] | locks: who holds one, for how long, and who waits |
//! | [`leases`] | leases: what one renewal keeps alive together |
//! | [`work`] | groups, claims, receipts, and how messages are settled |
//! | [`presence`] | who is present in rooms |
//! | [`watched`] | changes of keys and members, as those who watch are told of them |
//! | [`topics`] | descriptions of topics, trimming, statistics |
//! | [`node`] | [`NodeId`]: which of several relays answers |
//! | [`copy`] | what is told of topics and buckets to who copies them, and what is taken over |
//! | [`health`] | the answers of `/health` and `/ready` |
//! | [`problem`] | [`Problem`] (RFC 9457) and the list of [`Code`]s |
//! | [`json`] | what JSON text must keep so that every reader can read it |
//! | [`limits`] | every bound of the wire, with its reason |
//!
//! **Invariant:** what is parsed here is valid everywhere. Past the edge no `String` is a topic, an
//! id or a time.

#[macro_use]
mod text;

mod alphabet;

pub mod access;
pub mod content_type;
pub mod copy;
pub mod cursor;
pub mod drain;
pub mod durability;
pub mod duration;
pub mod frame;
pub mod gap;
pub mod health;
pub mod id;
pub mod json;
pub mod keys;
pub mod leases;
pub mod limits;
pub mod locks;
pub mod message;
pub mod names;
pub mod node;
pub mod nodes;
pub mod order_key;
pub mod page;
pub mod pattern;
pub mod pattern_cursor;
pub mod payload;
pub mod presence;
pub mod problem;
pub mod quoted;
pub mod reload;
pub mod schedule;
pub mod selector;
pub mod series;
pub mod sessions;
pub mod slow;
pub mod takes;
pub mod time;
pub mod topic;
pub mod topics;
pub mod trace;
pub mod watched;
pub mod work;

pub use cursor::{Cursor, Since};
pub use durability::{Durability, DurabilityError, DurabilityTold};
pub use gap::{Gap, GapReason};
pub use id::MessageId;
pub use message::{Message, MessageEncoding, MessageRef, Published};
pub use names::{BucketName, KeyName, LimitName, LockName, MemberName, RoomName, SeriesName};
pub use node::NodeId;
pub use order_key::{OrderKey, OrderKeyError};
pub use pattern::TopicPattern;
pub use pattern_cursor::PatternCursor;
pub use payload::PayloadRef;
pub use problem::{Code, IDEMPOTENCY_KEY_FIELD, Problem};
pub use schedule::{Delivery, RecurringName, ScheduleId, Scheduled};
pub use selector::TopicSelector;
pub use time::Timestamp;
pub use topic::TopicName;
pub use trace::Trace;
