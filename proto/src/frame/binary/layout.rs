//! The layouts of all frames, in the order of their numbers.

use std::borrow::Cow;

use super::parts::{Cursors, Id, OutDurability, PatternCursors};
use super::watch::{InTarget, OutChange};
use super::work::{InSaid, OutDelivered, OutSettled};
use super::{BorrowDecode, Encode};

#[derive(Encode, BorrowDecode)]
pub(super) enum In<'a> {
    /// 0
    Subscribe {
        reference: Option<Cow<'a, str>>,
        topics: Vec<Cow<'a, str>>,
        cursors: Vec<(Cow<'a, str>, Cow<'a, str>)>,
        offset: Option<Cow<'a, str>>,
        client_id: Option<Cow<'a, str>>,
        must_exist: bool,
        view: Option<Cow<'a, str>>,
    },
    /// 1
    Unsubscribe { topics: Vec<Cow<'a, str>> },
    /// 2
    Publish {
        reference: Option<Cow<'a, str>>,
        topic: Cow<'a, str>,
        payload: &'a [u8],
        content_type: Option<Cow<'a, str>>,
        metadata: Option<&'a [u8]>,
        ttl_seconds: Option<u64>,
        key: Option<Cow<'a, str>>,
        expected_last: Option<Cow<'a, str>>,
        order_key: Option<Cow<'a, str>>,
        unique: Option<(Cow<'a, str>, Cow<'a, str>)>,
        durability: Option<Cow<'a, str>>,
        fence: Option<Cow<'a, str>>,
    },
    /// 3
    Ping { reference: Option<Cow<'a, str>> },
    /// 4
    Ack { message_id: Cow<'a, str> },
    /// 5: a publish for later; `is_time` says that `delivery_ms` is a time, else it is a delay.
    PublishLater {
        reference: Option<Cow<'a, str>>,
        topic: Cow<'a, str>,
        payload: &'a [u8],
        content_type: Option<Cow<'a, str>>,
        metadata: Option<&'a [u8]>,
        ttl_seconds: Option<u64>,
        key: Option<Cow<'a, str>>,
        is_time: bool,
        delivery_ms: u64,
        order_key: Option<Cow<'a, str>>,
        expected_last: Option<Cow<'a, str>>,
        unique: Option<(Cow<'a, str>, Cow<'a, str>)>,
        durability: Option<Cow<'a, str>>,
        fence: Option<Cow<'a, str>>,
    },
    /// 6
    Consume {
        reference: Option<Cow<'a, str>>,
        topic: Cow<'a, str>,
        group: Cow<'a, str>,
        credit: u64,
        consumer: Option<Cow<'a, str>>,
    },
    /// 7
    Settle { reference: Option<Cow<'a, str>>, receipts: Vec<Cow<'a, str>>, said: InSaid<'a> },
    /// 8
    Watch {
        reference: Option<Cow<'a, str>>,
        watch: Cow<'a, str>,
        target: InTarget<'a>,
        cursor: Option<Cow<'a, str>>,
    },
    /// 9
    Unwatch { reference: Option<Cow<'a, str>>, watch: Cow<'a, str> },
}

#[derive(Encode, BorrowDecode)]
pub(super) enum Out<'a> {
    /// 0
    Subscribed {
        reference: Option<Cow<'a, str>>,
        topics: Cursors<'a>,
        patterns: PatternCursors<'a>,
        absent: Vec<Cow<'a, str>>,
        session_id: Cow<'a, str>,
        timestamp_ms: u64,
    },
    /// 1
    Unsubscribed { topics: Cursors<'a>, patterns: PatternCursors<'a> },
    /// 2
    Published {
        reference: Option<Cow<'a, str>>,
        message_id: Id,
        topic: Cow<'a, str>,
        timestamp_ms: u64,
        replayed: bool,
        durability: Option<OutDurability<'a>>,
    },
    /// 3
    Message {
        message_id: Id,
        topic: Cow<'a, str>,
        payload: &'a [u8],
        content_type: Option<Cow<'a, str>>,
        timestamp_ms: u64,
        metadata: Option<&'a [u8]>,
        order_key: Option<Cow<'a, str>>,
    },
    /// 4
    Gap { topic: Cow<'a, str>, from: Id, to: Id, reason: Cow<'a, str>, missed: Option<u64> },
    /// 5
    Pong { reference: Option<Cow<'a, str>>, timestamp_ms: u64 },
    /// 6
    Error {
        reference: Option<Cow<'a, str>>,
        class: u8,
        code: Cow<'a, str>,
        message: Cow<'a, str>,
        field: Option<Cow<'a, str>>,
        retryable: bool,
        retry_after_seconds: Option<u64>,
        last_id: Option<Id>,
        reason: Option<Cow<'a, str>>,
        message_id: Option<Id>,
        durability: Option<OutDurability<'a>>,
        fence: Option<Id>,
    },
    /// 7
    End { reason: Cow<'a, str>, cursors: Cursors<'a>, patterns: PatternCursors<'a> },
    /// 8
    Cursor { pattern: Cow<'a, str>, cursor: Cow<'a, str> },
    /// 9
    Scheduled {
        reference: Option<Cow<'a, str>>,
        schedule_id: Cow<'a, str>,
        topic: Cow<'a, str>,
        deliver_at_ms: u64,
        replayed: bool,
    },
    /// 10
    Closed { topic: Cow<'a, str>, state: Cow<'a, str>, reason: Option<Cow<'a, str>> },
    /// 11
    Consuming {
        reference: Option<Cow<'a, str>>,
        topic: Cow<'a, str>,
        group: Cow<'a, str>,
        consumer: Cow<'a, str>,
        credit: u32,
    },
    /// 12
    Work {
        topic: Cow<'a, str>,
        group: Cow<'a, str>,
        epoch: u64,
        cancelled: Option<Cow<'a, str>>,
        messages: Vec<OutDelivered<'a>>,
    },
    /// 13
    Settled { reference: Option<Cow<'a, str>>, results: Vec<OutSettled<'a>> },
    /// 14
    Watching { reference: Option<Cow<'a, str>>, watch: Cow<'a, str> },
    /// 15
    Unwatched {
        reference: Option<Cow<'a, str>>,
        watch: Cow<'a, str>,
        cursor: Option<Id>,
        reason: Option<Cow<'a, str>>,
    },
    /// 16
    Change { watch: Cow<'a, str>, change: OutChange<'a> },
    /// 17
    Synced { watch: Cow<'a, str>, revision: Id },
    /// 18
    Bookmark { watch: Cow<'a, str>, revision: Id },
    /// 19
    Reset { watch: Cow<'a, str> },
}
