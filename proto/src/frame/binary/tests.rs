//! Golden bytes of every frame, and what is refused.

use super::*;
use crate::frame::{Change, Delivered, ErrorClass, Said, WatchTarget};
use crate::watched::{LoggedKind, WatchedKind};
use crate::work::{GroupName, Settled, SettledStatus};
use crate::{Durability, DurabilityTold, MessageId, OrderKey, PatternCursor, TopicName, TopicPattern};

fn topic() -> TopicName {
    TopicName::parse("t").expect("a valid name")
}

fn pattern() -> (TopicPattern, PatternCursor) {
    let cursor = PatternCursor::parse("p1.A").expect("a valid cursor");
    (TopicPattern::parse("t*").expect("a valid pattern"), cursor)
}

#[expect(clippy::too_many_lines, reason = "a frame stands beside its bytes, one behind the other")]
fn server_frames() -> Vec<(ServerFrame<'static>, &'static [u8])> {
    let id = MessageId::new(1_517_363_399_650, 7);
    let timestamp = Timestamp::from_millis(300);
    let told =
        DurabilityTold { asked: Durability { fsync: true, replicas: 0 }, reached: Durability::ACCEPTED };
    let mut frames: Vec<(ServerFrame<'static>, &'static [u8])> = vec![
        (
            ServerFrame::Subscribed {
                reference: Some(Cow::Borrowed("r")),
                topics: vec![(topic(), MessageId::MIN), (topic(), MessageId::new(1, 2))],
                patterns: vec![pattern()],
                absent: vec![topic()],
                session_id: Cow::Borrowed("s"),
                timestamp,
            },
            b"\x01\x00\x01\x01r\x02\x01t\x00\x00\x01t\x01\x02\x01\x02t*\x04p1.A\x01\x01t\x01s\xfb\x2c\x01",
        ),
        (
            ServerFrame::Unsubscribed { topics: vec![(topic(), MessageId::MIN)], patterns: vec![pattern()] },
            b"\x01\x01\x01\x01t\x00\x00\x01\x02t*\x04p1.A",
        ),
        (
            ServerFrame::Published {
                reference: None,
                message_id: id,
                topic: topic(),
                timestamp,
                replayed: true,
                durability: Some(told),
            },
            b"\x01\x02\x00\xfd\xe2\x0b\xe8\x49\x61\x01\x00\x00\x07\x01t\xfb\x2c\x01\x01\x01\x05fsync\x08accepted",
        ),
        (
            ServerFrame::Message(Message {
                message_id: MessageId::new(5, 0),
                topic: topic(),
                payload: Cow::Borrowed(b"[1]"),
                content_type: None,
                timestamp,
                metadata: Some(Cow::Borrowed(b"{}")),
                order_key: Some(OrderKey::parse("o").expect("a key")),
            }),
            b"\x01\x03\x05\x00\x01t\x03[1]\x00\xfb\x2c\x01\x01\x02{}\x01\x01o",
        ),
        (
            ServerFrame::Gap(Gap {
                topic: topic(),
                from: MessageId::new(1, 0),
                to: MessageId::new(5, 0),
                reason: GapReason::Trimmed,
                missed: Some(3),
            }),
            b"\x01\x04\x01t\x01\x00\x05\x00\x07trimmed\x01\x03",
        ),
        (ServerFrame::Pong { reference: None, timestamp }, b"\x01\x05\x00\xfb\x2c\x01"),
        (
            ServerFrame::Error(ErrorFrame {
                reference: None,
                class: ErrorClass::Publish,
                code: Code::TooLarge,
                message: Cow::Borrowed("m"),
                field: Some(Cow::Borrowed("payload")),
                retryable: false,
                retry_after_seconds: None,
                last_id: Some(MessageId::new(5, 1)),
                reason: None,
                message_id: Some(MessageId::new(5, 2)),
                durability: Some(told),
                fence: None,
            }),
            b"\x01\x06\x00\x03\x09too_large\x01m\x01\x07payload\x00\x00\x01\x05\x01\x00\x01\x05\x02\x01\x05fsync\x08accepted\x00",
        ),
        (
            ServerFrame::Error(ErrorFrame {
                message_id: None,
                durability: None,
                fence: Some(MessageId::new(5, 3)),
                reference: None,
                class: ErrorClass::Publish,
                code: Code::RateLimited,
                message: Cow::Borrowed("m"),
                field: None,
                retryable: true,
                retry_after_seconds: Some(7),
                last_id: None,
                reason: Some(Cow::Borrowed("r")),
            }),
            b"\x01\x06\x00\x03\x0crate_limited\x01m\x00\x01\x01\x07\x00\x01\x01r\x00\x00\x01\x05\x03",
        ),
        (
            ServerFrame::End {
                reason: Cow::Borrowed("bye"),
                cursors: vec![(topic(), MessageId::new(1, 2))],
                patterns: Vec::new(),
            },
            b"\x01\x07\x03bye\x01\x01t\x01\x02\x00",
        ),
        (
            ServerFrame::Closed(Closed {
                topic: topic(),
                state: RunState::Cancelled,
                reason: Some("r".to_owned()),
            }),
            b"\x01\x0a\x01t\x09cancelled\x01\x01r",
        ),
        (ServerFrame::Cursor { pattern: pattern().0, cursor: pattern().1 }, b"\x01\x08\x02t*\x04p1.A"),
        (
            ServerFrame::Scheduled {
                reference: Some(Cow::Borrowed("r")),
                schedule_id: ScheduleId::parse("5-a").expect("an id"),
                topic: topic(),
                deliver_at: timestamp,
                replayed: true,
            },
            b"\x01\x09\x01\x01r\x035-a\x01t\xfb\x2c\x01\x01",
        ),
        (
            ServerFrame::Consuming(Consuming {
                reference: None,
                topic: topic(),
                group: GroupName::parse("g").expect("a valid name"),
                consumer: ConsumerName::parse("c").expect("a valid name"),
                credit: 300,
            }),
            b"\x01\x0b\x00\x01t\x01g\x01c\xfb\x2c\x01",
        ),
        (
            ServerFrame::Work(Work {
                topic: topic(),
                group: GroupName::parse("g").expect("a valid name"),
                epoch: 9,
                cancelled: Some(Cow::Borrowed("r")),
                deliveries: vec![Delivered {
                    message: Message {
                        message_id: MessageId::new(5, 0),
                        topic: topic(),
                        payload: Cow::Borrowed(b"[1]"),
                        content_type: None,
                        timestamp,
                        metadata: Some(Cow::Borrowed(b"{}")),
                        order_key: None,
                    },
                    delivery: 2,
                    deadline: Timestamp::from_millis(301),
                }],
            }),
            b"\x01\x0c\x01t\x01g\x09\x01\x01r\x01\x05\x00\x03[1]\x00\xfb\x2c\x01\x01\x02{}\x00\x02\xfb\x2d\x01",
        ),
        (
            ServerFrame::Settled {
                reference: Some(Cow::Borrowed("r")),
                results: vec![Settled {
                    receipt: "x".to_owned(),
                    status: SettledStatus::Refused,
                    late: true,
                    dead: false,
                    until: Some(timestamp),
                    code: Some(Code::ReceiptVoid),
                    error: Some("e".to_owned()),
                }],
            },
            b"\x01\x0d\x01\x01r\x01\x01x\x05\x01\x00\x01\xfb\x2c\x01\x01\x0creceipt_void\x01\x01e",
        ),
    ];
    frames.extend(watched().map(|(watched, bytes)| (ServerFrame::Watched(watched), bytes)));
    frames
}

fn watched() -> [(Watched<'static>, &'static [u8]); 8] {
    let (watch, revision) = (Cow::Borrowed("w"), MessageId::new(5, 1));
    let change = Change {
        watch: watch.clone(),
        of: WatchedKind::Keys,
        change: LoggedKind::Put,
        key: Cow::Borrowed("k"),
        revision,
        value: Some(Cow::Borrowed(b"1")),
        content_type: Some(Cow::Borrowed("a/b")),
        ends_step: true,
    };
    let left = Change {
        of: WatchedKind::Members,
        change: LoggedKind::Expired,
        value: None,
        content_type: None,
        ends_step: false,
        ..change.clone()
    };
    [
        (
            Watched::Began { reference: Some(Cow::Borrowed("r")), watch: watch.clone() },
            b"\x01\x0e\x01\x01r\x01w",
        ),
        (
            Watched::Ended {
                reference: Some(Cow::Borrowed("r")),
                watch: watch.clone(),
                cursor: Some(revision),
                reason: None,
            },
            b"\x01\x0f\x01\x01r\x01w\x01\x05\x01\x00",
        ),
        (
            Watched::Ended {
                reference: None,
                watch: watch.clone(),
                cursor: None,
                reason: Some(Cow::Borrowed("y")),
            },
            b"\x01\x0f\x00\x01w\x00\x01\x01y",
        ),
        (Watched::Change(change), b"\x01\x10\x01w\x00\x01k\x05\x01\x01\x011\x01\x03a/b\x01"),
        (Watched::Change(left), b"\x01\x10\x01w\x05\x01k\x05\x01\x00\x00\x00"),
        (Watched::Synced { watch: watch.clone(), revision }, b"\x01\x11\x01w\x05\x01"),
        (Watched::Bookmark { watch: watch.clone(), revision }, b"\x01\x12\x01w\x05\x01"),
        (Watched::Reset { watch }, b"\x01\x13\x01w"),
    ]
}

#[test]
fn the_bytes_of_server_frames_stand_still() {
    for (frame, golden) in server_frames() {
        let mut out = Vec::new();
        write_server(&frame, &mut out);
        assert_eq!(out, golden, "{frame:?}");
        if let ServerFrame::Message(message) = &frame {
            out.clear();
            (MESSAGE.write)(&message.parts(), &mut out);
            assert_eq!(out, golden, "from its parts");
        }
        if let ServerFrame::Watched(Watched::Change(change)) = &frame {
            out.clear();
            write_change_head(&change.watch, &mut out);
            write_change_rest(&change.parts(), change.ends_step, &mut out);
            assert_eq!(out, golden, "from its parts");
        }
        assert_eq!(read_server(golden), Ok(frame));
    }
}

#[test]
fn the_bytes_of_client_frames_stand_still() {
    let later = |delivery| {
        ClientFrame::Publish(Publish {
            durability: Some(Cow::Borrowed("d")),
            fence: Some(Cow::Borrowed("f")),
            reference: Some(Cow::Borrowed("7")),
            topic: Cow::Borrowed("a"),
            payload: Cow::Borrowed(b"1"),
            content_type: None,
            metadata: None,
            ttl: None,
            key: None,
            delivery: Some(delivery),
            expected_last: Some(Cow::Borrowed("e")),
            order_key: Some(Cow::Borrowed("o")),
            unique: Some((Cow::Borrowed("g"), Cow::Borrowed("u"))),
        })
    };
    let settle =
        |said| ClientFrame::Settle(Settle { reference: None, receipts: vec![Cow::Borrowed("x")], said });
    let watch = |target, cursor| {
        ClientFrame::Watch(Watch { reference: None, watch: Cow::Borrowed("w"), target, cursor })
    };
    let text = Cow::Borrowed;
    let frames: [(ClientFrame<'_>, &[u8]); 17] = [
        (
            ClientFrame::Subscribe(Subscribe {
                reference: None,
                topics: vec![Cow::Borrowed("a")],
                cursors: vec![(Cow::Borrowed("a"), Cow::Borrowed("1-0"))],
                offset: Some(Cow::Borrowed("last")),
                client_id: None,
                must_exist: true,
                view: Some(Cow::Borrowed("latest")),
            }),
            b"\x01\x00\x00\x01\x01a\x01\x01a\x031-0\x01\x04last\x00\x01\x01\x06latest",
        ),
        (ClientFrame::Unsubscribe { topics: vec![Cow::Borrowed("a")] }, b"\x01\x01\x01\x01a"),
        (
            ClientFrame::Publish(Publish {
                durability: Some(Cow::Borrowed("fsync")),
                fence: Some(Cow::Borrowed("a=5-1")),
                reference: Some(Cow::Borrowed("7")),
                topic: Cow::Borrowed("a"),
                payload: Cow::Borrowed(b"\x00\xff"),
                content_type: Some(Cow::Borrowed("x/y")),
                metadata: None,
                ttl: Some(60),
                key: None,
                delivery: None,
                expected_last: Some(Cow::Borrowed("0-0")),
                order_key: None,
                unique: Some((Cow::Borrowed("g"), Cow::Borrowed("u"))),
            }),
            b"\x01\x02\x01\x017\x01a\x02\x00\xff\x01\x03x/y\x00\x01\x3c\x00\x01\x030-0\x00\x01\x01g\x01u\x01\x05fsync\x01\x05a=5-1",
        ),
        (ClientFrame::Ping { reference: None }, b"\x01\x03\x00"),
        (ClientFrame::Ack { message_id: Cow::Borrowed("1-0") }, b"\x01\x04\x031-0"),
        (
            later(Delivery::After(Duration::from_millis(300))),
            b"\x01\x05\x01\x017\x01a\x011\x00\x00\x00\x00\x00\xfb\x2c\x01\x01\x01o\x01\x01e\x01\x01g\x01u\x01\x01d\x01\x01f",
        ),
        (
            later(Delivery::At(Timestamp::from_millis(5))),
            b"\x01\x05\x01\x017\x01a\x011\x00\x00\x00\x00\x01\x05\x01\x01o\x01\x01e\x01\x01g\x01u\x01\x01d\x01\x01f",
        ),
        (
            ClientFrame::Consume(Consume {
                reference: Some(Cow::Borrowed("7")),
                topic: Cow::Borrowed("a"),
                group: Cow::Borrowed("g"),
                credit: 100,
                consumer: None,
            }),
            b"\x01\x06\x01\x017\x01a\x01g\x64\x00",
        ),
        (settle(Said::Ack { result: Some(b"1") }), b"\x01\x07\x00\x01\x01x\x00\x01\x011"),
        (
            settle(Said::Nack { delay: Some(Duration::from_millis(300)), error: Some(Cow::Borrowed("e")) }),
            b"\x01\x07\x00\x01\x01x\x01\x01\xfb\x2c\x01\x01\x01e",
        ),
        (settle(Said::Extend { ack_wait: None }), b"\x01\x07\x00\x01\x01x\x02\x00"),
        (settle(Said::Reject { reason: Cow::Borrowed("r") }), b"\x01\x07\x00\x01\x01x\x03\x01r"),
        (settle(Said::Release), b"\x01\x07\x00\x01\x01x\x04"),
        (
            watch(WatchTarget::Keys { bucket: text("b"), prefix: text("") }, None),
            b"\x01\x08\x00\x01w\x00\x01b\x00\x00",
        ),
        (
            watch(WatchTarget::Key { bucket: text("b"), key: text("k") }, Some(text("5-1"))),
            b"\x01\x08\x00\x01w\x01\x01b\x01k\x01\x035-1",
        ),
        (watch(WatchTarget::Room { room: text("r") }, None), b"\x01\x08\x00\x01w\x02\x01r\x00"),
        (ClientFrame::Unwatch { reference: Some(text("7")), watch: text("w") }, b"\x01\x09\x01\x017\x01w"),
    ];
    for (frame, golden) in frames {
        let mut out = Vec::new();
        write_client(&frame, &mut out);
        assert_eq!(out, golden, "{frame:?}");
        assert_eq!(read_client(golden), Ok(frame));
    }
}

#[test]
fn other_bytes_are_refused() {
    assert_eq!(read_client(b""), Err(BinaryError::Empty));
    assert_eq!(read_client(b"\x02\x03\x00"), Err(BinaryError::Version(2)));
    assert_eq!(read_client(b"\x01\x03\x00\x00"), Err(BinaryError::Trailing(1)));
    for bytes in [
        &b"\x01"[..],
        b"\x01\x0a",
        b"\x01\x04\x03\xff\xff\xff",
        b"\x01\x01\xfd\xff\xff\xff\xff\xff\xff\xff\x7f",
    ] {
        assert!(matches!(read_client(bytes), Err(BinaryError::Malformed(_))), "{bytes:?}");
    }
}

#[test]
fn a_pattern_and_its_cursor_are_checked() {
    for (bytes, part) in [(&b"\x01\x08\x01t\x04p1.A"[..], "pattern"), (b"\x01\x08\x02t*\x031-0", "cursor")] {
        assert_eq!(read_server(bytes), Err(BinaryError::Part(part)));
    }
}

#[test]
fn what_is_wrong_is_said_in_words_of_the_frame() {
    for (bytes, words) in [
        (
            &b"\x01\x20"[..],
            "the frame cannot be read: a number that says what follows, as the kind of the frame does, is none that this version has",
        ),
        (b"\x01\x04\x03a", "the frame cannot be read: it ends within a field"),
        (b"\x01\x04\x01\xff", "the frame cannot be read: a text in it is not UTF-8"),
        (
            b"\x01\x04\xfd\xff\xff\xff\xff\xff\xff\xff\x7f",
            "the frame cannot be read: a length in it is larger than a frame can be",
        ),
    ] {
        assert_eq!(read_client(bytes).expect_err(words).to_string(), words, "{bytes:?}");
    }
    for first in 0..=u8::MAX {
        for second in 0..=u8::MAX {
            for third in [0, 1, 2, 3, 250, 251, 252, 253, 254, 255] {
                let Err(error) = read_client(&[VERSION, first, second, third]) else { continue };
                let text = error.to_string();
                assert!(!text.contains("::") && !text.contains("In") && !text.contains("u64"), "{text}");
            }
        }
    }
}
