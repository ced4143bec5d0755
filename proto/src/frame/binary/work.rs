//! The parts of the frames of consumers, as the layout has them.

use std::borrow::Cow;
use std::time::Duration;

use super::parts::{Id, read_id, read_order_key, write_id};
use super::{BinaryError, BorrowDecode, Encode};
use crate::frame::{Delivered, HandedRef, Message, Said};
use crate::work::{GroupName, Settled, SettledStatus};
use crate::{Code, Timestamp, TopicName};

/// What a frame of type 7 says of its receipts.
#[derive(Encode, BorrowDecode)]
pub(super) enum InSaid<'a> {
    /// 0
    Ack { result: Option<&'a [u8]> },
    /// 1
    Nack { delay_ms: Option<u64>, error: Option<Cow<'a, str>> },
    /// 2
    Extend { ack_wait_ms: Option<u64> },
    /// 3
    Reject { reason: Cow<'a, str> },
    /// 4
    Release,
}

/// A message of a frame of type 12. Its receipt is `topic/group/epoch/id/delivery`, the epoch as 16 hexadecimal digits.
#[derive(Encode, BorrowDecode)]
pub(super) struct OutDelivered<'a> {
    message_id: Id,
    payload: &'a [u8],
    content_type: Option<Cow<'a, str>>,
    timestamp_ms: u64,
    metadata: Option<&'a [u8]>,
    order_key: Option<Cow<'a, str>>,
    delivery: u64,
    deadline_ms: u64,
}

/// What came of one receipt. `status` counts acked, nacked, extended, rejected, released, refused from 0 on.
#[derive(Encode, BorrowDecode)]
pub(super) struct OutSettled<'a> {
    receipt: Cow<'a, str>,
    status: u8,
    late: bool,
    dead: bool,
    until_ms: Option<u64>,
    code: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
}

pub(super) fn read_group(text: &str) -> Result<GroupName, BinaryError> {
    GroupName::parse(text).map_err(|_| BinaryError::Part("group"))
}

pub(super) fn read_said(said: InSaid<'_>) -> Said<'_> {
    match said {
        InSaid::Ack { result } => Said::Ack { result },
        InSaid::Nack { delay_ms, error } => Said::Nack { delay: delay_ms.map(Duration::from_millis), error },
        InSaid::Extend { ack_wait_ms } => Said::Extend { ack_wait: ack_wait_ms.map(Duration::from_millis) },
        InSaid::Reject { reason } => Said::Reject { reason },
        InSaid::Release => Said::Release,
    }
}

pub(super) fn write_said<'a>(said: &Said<'a>) -> InSaid<'a> {
    let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    match said {
        Said::Ack { result } => InSaid::Ack { result: *result },
        Said::Nack { delay, error } => InSaid::Nack { delay_ms: ms(*delay), error: error.clone() },
        Said::Extend { ack_wait } => InSaid::Extend { ack_wait_ms: ms(*ack_wait) },
        Said::Reject { reason } => InSaid::Reject { reason: reason.clone() },
        Said::Release => InSaid::Release,
    }
}

impl<'a> OutDelivered<'a> {
    pub(super) fn of(handed: &HandedRef<'a>) -> Self {
        let HandedRef { message, delivery, deadline } = handed;
        Self {
            message_id: write_id(message.message_id),
            payload: message.payload.bytes,
            content_type: message.payload.content_type.map(Cow::Borrowed),
            timestamp_ms: message.timestamp.as_millis(),
            metadata: message.metadata,
            order_key: message.order_key.map(|key| Cow::Borrowed(key.as_str())),
            delivery: *delivery,
            deadline_ms: deadline.as_millis(),
        }
    }

    pub(super) fn read(self, topic: &TopicName) -> Result<Delivered<'a>, BinaryError> {
        let message = Message {
            message_id: read_id(self.message_id),
            topic: topic.clone(),
            payload: Cow::Borrowed(self.payload),
            content_type: self.content_type,
            timestamp: Timestamp::from_millis(self.timestamp_ms),
            metadata: self.metadata.map(Cow::Borrowed),
            order_key: read_order_key(self.order_key)?,
        };
        let deadline = Timestamp::from_millis(self.deadline_ms);
        Ok(Delivered { message, delivery: self.delivery, deadline })
    }
}

impl<'a> OutSettled<'a> {
    pub(super) fn of(settled: &'a Settled) -> Self {
        let status = SettledStatus::ALL.iter().position(|known| *known == settled.status).unwrap_or_default();
        Self {
            receipt: settled.receipt.as_str().into(),
            status: u8::try_from(status).unwrap_or_default(),
            late: settled.late,
            dead: settled.dead,
            until_ms: settled.until.map(Timestamp::as_millis),
            code: settled.code.map(|code| code.as_str().into()),
            error: settled.error.as_deref().map(Cow::Borrowed),
        }
    }

    pub(super) fn read(self) -> Result<Settled, BinaryError> {
        Ok(Settled {
            receipt: self.receipt.into_owned(),
            status: *SettledStatus::ALL.get(usize::from(self.status)).ok_or(BinaryError::Part("status"))?,
            late: self.late,
            dead: self.dead,
            until: self.until_ms.map(Timestamp::from_millis),
            // A code of a newer relay must not end the connection; what is said with it still holds.
            code: self.code.map(|code| Code::named(&code).unwrap_or(Code::Internal)),
            error: self.error.map(Cow::into_owned),
        })
    }
}
