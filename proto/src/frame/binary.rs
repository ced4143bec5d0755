//! Frames in binary: a version byte, then bincode's standard encoding of the frame.
//!
//! Standard here means: little-endian, variable-length integers (values up to 250 as one byte; 251,
//! 252 and 253 in front of a 16-, 32- and 64-bit number), lengths and variants as such integers,
//! `Option` as a byte 0 or 1. `binary/layout.rs` and what it names are the whole of it, so that another language needs
//! no bincode: fields stand in the order in which they are declared. Golden bytes hold it still.
//!
//! Long because: it is one list, of every frame in both directions.
//!
//! bincode is pinned to 2.0.1 and named in this file alone; see its line in `Cargo.toml`.

use std::borrow::Cow;
use std::time::Duration;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::error::DecodeError;
use bincode::{BorrowDecode, Encode};

use self::layout::{In, Out};
use self::parts::{
    read_class, read_cursors, read_durability, read_id, read_order_key, read_pattern_cursor,
    read_pattern_cursors, read_topic, write_class, write_cursors, write_durability, write_id,
    write_pattern_cursors,
};
use self::watch::{read_target, write_target};
use self::work::{OutDelivered, OutSettled, read_group, read_said, write_said};
use super::{
    ClientFrame, Consume, Consuming, ErrorFrame, HandedRef, Message, Publish, ServerFrame, Settle, Subscribe,
    Watch, Watched, Work, WorkRef,
};
use crate::gap::{Gap, GapReason};
use crate::message::{MessageEncoding, MessageRef};
use crate::topics::{Closed, RunState};
use crate::work::ConsumerName;
use crate::{Code, Delivery, ScheduleId, Timestamp};

mod layout;
mod parts;
mod watch;
mod watched;
mod work;

pub use parts::BinaryError;
pub use watch::{write_change_head, write_change_rest};

/// The byte in front of every frame.
pub const VERSION: u8 = 1;
/// Most bytes that reading one frame may allocate, whatever lengths the frame claims.
const DECODE_BYTES_MAX: usize = 64 * 1024 * 1024;

const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODE_BYTES_MAX>> =
    bincode::config::standard().with_limit::<DECODE_BYTES_MAX>();

/// Reads a client's frame.
///
/// # Errors
/// The bytes are not one whole frame of this version.
pub fn read_client(bytes: &[u8]) -> Result<ClientFrame<'_>, BinaryError> {
    Ok(match decode::<In<'_>>(bytes)? {
        In::Subscribe { reference, topics, cursors, offset, client_id, must_exist, view } => {
            ClientFrame::Subscribe(Subscribe {
                reference,
                topics,
                cursors,
                offset,
                client_id,
                must_exist,
                view,
            })
        }
        In::Unsubscribe { topics } => ClientFrame::Unsubscribe { topics },
        In::Publish {
            reference,
            topic,
            payload,
            content_type,
            metadata,
            ttl_seconds,
            key,
            expected_last,
            order_key,
            unique,
            durability,
            fence,
        } => ClientFrame::Publish(Publish {
            reference,
            topic,
            payload: Cow::Borrowed(payload),
            content_type,
            metadata,
            ttl: ttl_seconds,
            key,
            expected_last,
            order_key,
            unique,
            durability,
            fence,
            delivery: None,
        }),
        In::PublishLater {
            reference,
            topic,
            payload,
            content_type,
            metadata,
            ttl_seconds,
            key,
            is_time,
            delivery_ms,
            order_key,
            expected_last,
            unique,
            durability,
            fence,
        } => ClientFrame::Publish(Publish {
            reference,
            topic,
            payload: Cow::Borrowed(payload),
            content_type,
            metadata,
            ttl: ttl_seconds,
            key,
            order_key,
            expected_last,
            unique,
            durability,
            fence,
            delivery: Some(if is_time {
                Delivery::At(Timestamp::from_millis(delivery_ms))
            } else {
                Delivery::After(Duration::from_millis(delivery_ms))
            }),
        }),
        In::Ping { reference } => ClientFrame::Ping { reference },
        In::Ack { message_id } => ClientFrame::Ack { message_id },
        In::Consume { reference, topic, group, credit, consumer } => {
            ClientFrame::Consume(Consume { reference, topic, group, credit, consumer })
        }
        In::Settle { reference, receipts, said } => {
            ClientFrame::Settle(Settle { reference, receipts, said: read_said(said) })
        }
        In::Watch { reference, watch, target, cursor } => {
            ClientFrame::Watch(Watch { reference, watch, target: read_target(target), cursor })
        }
        In::Unwatch { reference, watch } => ClientFrame::Unwatch { reference, watch },
    })
}

/// Appends a client's frame to `out`.
pub fn write_client(frame: &ClientFrame<'_>, out: &mut Vec<u8>) {
    let frame = match frame {
        ClientFrame::Subscribe(it) => In::Subscribe {
            reference: it.reference.clone(),
            topics: it.topics.clone(),
            cursors: it.cursors.clone(),
            offset: it.offset.clone(),
            client_id: it.client_id.clone(),
            must_exist: it.must_exist,
            view: it.view.clone(),
        },
        ClientFrame::Unsubscribe { topics } => In::Unsubscribe { topics: topics.clone() },
        ClientFrame::Publish(it) => match it.delivery {
            None => In::Publish {
                reference: it.reference.clone(),
                topic: it.topic.clone(),
                payload: &it.payload,
                content_type: it.content_type.clone(),
                metadata: it.metadata,
                ttl_seconds: it.ttl,
                key: it.key.clone(),
                expected_last: it.expected_last.clone(),
                order_key: it.order_key.clone(),
                unique: it.unique.clone(),
                durability: it.durability.clone(),
                fence: it.fence.clone(),
            },
            Some(delivery) => In::PublishLater {
                reference: it.reference.clone(),
                topic: it.topic.clone(),
                payload: &it.payload,
                content_type: it.content_type.clone(),
                metadata: it.metadata,
                ttl_seconds: it.ttl,
                key: it.key.clone(),
                is_time: matches!(delivery, Delivery::At(_)),
                delivery_ms: match delivery {
                    Delivery::After(delay) => u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                    Delivery::At(at) => at.as_millis(),
                },
                order_key: it.order_key.clone(),
                expected_last: it.expected_last.clone(),
                unique: it.unique.clone(),
                durability: it.durability.clone(),
                fence: it.fence.clone(),
            },
        },
        ClientFrame::Ping { reference } => In::Ping { reference: reference.clone() },
        ClientFrame::Ack { message_id } => In::Ack { message_id: message_id.clone() },
        ClientFrame::Consume(it) => In::Consume {
            reference: it.reference.clone(),
            topic: it.topic.clone(),
            group: it.group.clone(),
            credit: it.credit,
            consumer: it.consumer.clone(),
        },
        ClientFrame::Settle(it) => In::Settle {
            reference: it.reference.clone(),
            receipts: it.receipts.clone(),
            said: write_said(&it.said),
        },
        ClientFrame::Watch(it) => In::Watch {
            reference: it.reference.clone(),
            watch: it.watch.clone(),
            target: write_target(&it.target),
            cursor: it.cursor.clone(),
        },
        ClientFrame::Unwatch { reference, watch } => {
            In::Unwatch { reference: reference.clone(), watch: watch.clone() }
        }
    };
    encode(&frame, out);
}

/// Reads a frame of the relay.
///
/// # Errors
/// The bytes are not one whole frame of this version, or a part of it is not valid.
#[expect(clippy::too_many_lines, reason = "one arm for each frame, each plain")]
pub fn read_server(bytes: &[u8]) -> Result<ServerFrame<'_>, BinaryError> {
    Ok(match decode::<Out<'_>>(bytes)? {
        Out::Subscribed { reference, topics, patterns, absent, session_id, timestamp_ms } => {
            ServerFrame::Subscribed {
                reference,
                topics: read_cursors(&topics)?,
                patterns: read_pattern_cursors(&patterns)?,
                absent: absent.iter().map(|topic| read_topic(topic)).collect::<Result<_, _>>()?,
                session_id,
                timestamp: Timestamp::from_millis(timestamp_ms),
            }
        }
        Out::Unsubscribed { topics, patterns } => ServerFrame::Unsubscribed {
            topics: read_cursors(&topics)?,
            patterns: read_pattern_cursors(&patterns)?,
        },
        Out::Published { reference, message_id, topic, timestamp_ms, replayed, durability } => {
            ServerFrame::Published {
                reference,
                message_id: read_id(message_id),
                topic: read_topic(&topic)?,
                timestamp: Timestamp::from_millis(timestamp_ms),
                replayed,
                durability: read_durability(durability)?,
            }
        }
        Out::Message { message_id, topic, payload, content_type, timestamp_ms, metadata, order_key } => {
            ServerFrame::Message(Message {
                message_id: read_id(message_id),
                topic: read_topic(&topic)?,
                payload: Cow::Borrowed(payload),
                content_type,
                timestamp: Timestamp::from_millis(timestamp_ms),
                metadata: metadata.map(Cow::Borrowed),
                order_key: read_order_key(order_key)?,
            })
        }
        Out::Gap { topic, from, to, reason, missed } => ServerFrame::Gap(Gap {
            topic: read_topic(&topic)?,
            from: read_id(from),
            to: read_id(to),
            reason: GapReason::ALL
                .into_iter()
                .find(|known| known.as_str() == reason)
                .ok_or(BinaryError::Part("reason"))?,
            missed,
        }),
        Out::Pong { reference, timestamp_ms } => {
            ServerFrame::Pong { reference, timestamp: Timestamp::from_millis(timestamp_ms) }
        }
        Out::Error {
            reference,
            class,
            code,
            message,
            field,
            retryable,
            retry_after_seconds,
            last_id,
            reason,
            message_id,
            durability,
            fence,
        } => {
            ServerFrame::Error(ErrorFrame {
                reference,
                class: read_class(class)?,
                // A code of a newer relay must not end the connection; what is said with it still holds.
                code: Code::named(&code).unwrap_or(Code::Internal),
                message,
                field,
                retryable,
                retry_after_seconds,
                last_id: last_id.map(read_id),
                reason,
                message_id: message_id.map(read_id),
                durability: read_durability(durability)?,
                fence: fence.map(read_id),
            })
        }
        Out::End { reason, cursors, patterns } => ServerFrame::End {
            reason,
            cursors: read_cursors(&cursors)?,
            patterns: read_pattern_cursors(&patterns)?,
        },
        Out::Cursor { pattern, cursor } => {
            let (pattern, cursor) = read_pattern_cursor(&pattern, &cursor)?;
            ServerFrame::Cursor { pattern, cursor }
        }
        Out::Scheduled { reference, schedule_id, topic, deliver_at_ms, replayed } => ServerFrame::Scheduled {
            reference,
            schedule_id: ScheduleId::parse(&schedule_id).map_err(|_| BinaryError::Part("schedule_id"))?,
            topic: read_topic(&topic)?,
            deliver_at: Timestamp::from_millis(deliver_at_ms),
            replayed,
        },
        Out::Closed { topic, state, reason } => ServerFrame::Closed(Closed {
            topic: read_topic(&topic)?,
            state: RunState::named(&state).ok_or(BinaryError::Part("state"))?,
            reason: reason.map(Cow::into_owned),
        }),
        Out::Consuming { reference, topic, group, consumer, credit } => ServerFrame::Consuming(Consuming {
            reference,
            topic: read_topic(&topic)?,
            group: read_group(&group)?,
            consumer: ConsumerName::parse(&consumer).map_err(|_| BinaryError::Part("consumer"))?,
            credit,
        }),
        Out::Work { topic, group, epoch, cancelled, messages } => {
            let topic = read_topic(&topic)?;
            let deliveries = messages.into_iter().map(|one| one.read(&topic)).collect::<Result<_, _>>()?;
            ServerFrame::Work(Work { topic, group: read_group(&group)?, epoch, cancelled, deliveries })
        }
        Out::Settled { reference, results } => ServerFrame::Settled {
            reference,
            results: results.into_iter().map(OutSettled::read).collect::<Result<_, _>>()?,
        },
        Out::Watching { reference, watch } => ServerFrame::Watched(Watched::Began { reference, watch }),
        Out::Unwatched { reference, watch, cursor, reason } => {
            let cursor = cursor.map(read_id);
            ServerFrame::Watched(Watched::Ended { reference, watch, cursor, reason })
        }
        Out::Change { watch, change } => ServerFrame::Watched(Watched::Change(change.read(watch)?)),
        Out::Synced { watch, revision } => {
            ServerFrame::Watched(Watched::Synced { watch, revision: read_id(revision) })
        }
        Out::Bookmark { watch, revision } => {
            ServerFrame::Watched(Watched::Bookmark { watch, revision: read_id(revision) })
        }
        Out::Reset { watch } => ServerFrame::Watched(Watched::Reset { watch }),
    })
}

/// Appends a frame of the relay to `out`.
pub fn write_server(frame: &ServerFrame<'_>, out: &mut Vec<u8>) {
    let text = |text: &str| Cow::Owned::<str>(text.to_owned());
    let frame = match frame {
        ServerFrame::Subscribed { reference, topics, patterns, absent, session_id, timestamp } => {
            Out::Subscribed {
                reference: reference.clone(),
                topics: write_cursors(topics),
                patterns: write_pattern_cursors(patterns),
                absent: absent.iter().map(|topic| Cow::Borrowed(topic.as_str())).collect(),
                session_id: session_id.clone(),
                timestamp_ms: timestamp.as_millis(),
            }
        }
        ServerFrame::Unsubscribed { topics, patterns } => {
            Out::Unsubscribed { topics: write_cursors(topics), patterns: write_pattern_cursors(patterns) }
        }
        ServerFrame::Published { reference, message_id, topic, timestamp, replayed, durability } => {
            Out::Published {
                reference: reference.clone(),
                message_id: write_id(*message_id),
                topic: Cow::Borrowed(topic.as_str()),
                timestamp_ms: timestamp.as_millis(),
                replayed: *replayed,
                durability: durability.map(write_durability),
            }
        }
        ServerFrame::Scheduled { reference, schedule_id, topic, deliver_at, replayed } => Out::Scheduled {
            reference: reference.clone(),
            schedule_id: Cow::Borrowed(schedule_id.as_str()),
            topic: Cow::Borrowed(topic.as_str()),
            deliver_at_ms: deliver_at.as_millis(),
            replayed: *replayed,
        },
        ServerFrame::Message(message) => message_out(&message.parts()),
        ServerFrame::Gap(gap) => Out::Gap {
            topic: Cow::Borrowed(gap.topic.as_str()),
            from: write_id(gap.from),
            to: write_id(gap.to),
            reason: text(gap.reason.as_str()),
            missed: gap.missed,
        },
        ServerFrame::Pong { reference, timestamp } => {
            Out::Pong { reference: reference.clone(), timestamp_ms: timestamp.as_millis() }
        }
        ServerFrame::Error(error) => Out::Error {
            reference: error.reference.clone(),
            class: write_class(error.class),
            code: text(error.code.as_str()),
            message: error.message.clone(),
            field: error.field.clone(),
            retryable: error.retryable,
            retry_after_seconds: error.retry_after_seconds,
            last_id: error.last_id.map(write_id),
            reason: error.reason.clone(),
            message_id: error.message_id.map(write_id),
            durability: error.durability.map(write_durability),
            fence: error.fence.map(write_id),
        },
        ServerFrame::End { reason, cursors, patterns } => Out::End {
            reason: reason.clone(),
            cursors: write_cursors(cursors),
            patterns: write_pattern_cursors(patterns),
        },
        ServerFrame::Cursor { pattern, cursor } => {
            Out::Cursor { pattern: Cow::Borrowed(pattern.as_str()), cursor: Cow::Borrowed(cursor.as_str()) }
        }
        ServerFrame::Closed(closed) => Out::Closed {
            topic: Cow::Borrowed(closed.topic.as_str()),
            state: Cow::Borrowed(closed.state.as_str()),
            reason: closed.reason.as_deref().map(Cow::Borrowed),
        },
        ServerFrame::Consuming(it) => Out::Consuming {
            reference: it.reference.clone(),
            topic: Cow::Borrowed(it.topic.as_str()),
            group: Cow::Borrowed(it.group.as_str()),
            consumer: Cow::Borrowed(it.consumer.as_str()),
            credit: it.credit,
        },
        ServerFrame::Work(work) => return write_work(work.head(), work.handed(), out),
        ServerFrame::Settled { reference, results } => Out::Settled {
            reference: reference.clone(),
            results: results.iter().map(OutSettled::of).collect(),
        },
        ServerFrame::Watched(watched) => watched::write(watched),
    };
    encode(&frame, out);
}

/// Appends a `work` frame to `out`, from its parts.
pub fn write_work<'a>(
    work: WorkRef<'_>,
    messages: impl IntoIterator<Item = HandedRef<'a>>,
    out: &mut Vec<u8>,
) {
    let frame = Out::Work {
        topic: Cow::Borrowed(work.topic.as_str()),
        group: Cow::Borrowed(work.group.as_str()),
        epoch: work.epoch,
        cancelled: work.cancelled.map(Cow::Borrowed),
        messages: messages.into_iter().map(|handed| OutDelivered::of(&handed)).collect(),
    };
    encode(&frame, out);
}

/// A message frame.
pub static MESSAGE: MessageEncoding =
    MessageEncoding { name: "binary frame", write: |message, out| encode(&message_out(message), out) };

fn message_out<'a>(message: &MessageRef<'a>) -> Out<'a> {
    Out::Message {
        message_id: write_id(message.message_id),
        topic: Cow::Borrowed(message.topic.as_str()),
        payload: message.payload.bytes,
        content_type: message.payload.content_type.map(Cow::Borrowed),
        timestamp_ms: message.timestamp.as_millis(),
        metadata: message.metadata,
        order_key: message.order_key.map(|key| Cow::Borrowed(key.as_str())),
    }
}

fn decode<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, BinaryError> {
    let (version, frame) = bytes.split_first().ok_or(BinaryError::Empty)?;
    if *version != VERSION {
        return Err(BinaryError::Version(*version));
    }
    let (value, used) = bincode::borrow_decode_from_slice(frame, CONFIG)
        .map_err(|error| BinaryError::Malformed(why(&error)))?;
    if used == frame.len() { Ok(value) } else { Err(BinaryError::Trailing(frame.len() - used)) }
}

/// Returns what is wrong with the bytes, in words of the frame: the library's own name types of this file, which
/// are nothing to a client.
fn why(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::UnexpectedEnd { .. } => "it ends within a field",
        DecodeError::UnexpectedVariant { .. } => {
            "a number that says what follows, as the kind of the frame does, is none that this version has"
        }
        DecodeError::LimitExceeded
        | DecodeError::OutsideUsizeRange(_)
        | DecodeError::ArrayLengthMismatch { .. } => "a length in it is larger than a frame can be",
        DecodeError::Utf8 { .. } | DecodeError::InvalidCharEncoding(_) => "a text in it is not UTF-8",
        DecodeError::InvalidBooleanValue(_) => "a byte that is 0 for no and 1 for yes is neither",
        DecodeError::InvalidIntegerType { .. } => "a number in it is wider than its field",
        // The others are of types that no frame has; the library may add more.
        _ => "its bytes do not fit the layout of this version",
    }
}

fn encode(frame: &impl Encode, out: &mut Vec<u8>) {
    out.push(VERSION);
    append(frame, out);
}

fn append(part: &impl Encode, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(part, out, CONFIG).expect("plain structures encode into a vector");
}

#[cfg(test)]
mod tests;
