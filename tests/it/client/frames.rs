//! Frames, in both directions and both encodings: what is written is read back.

use std::borrow::Cow;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use tidemill::proto::frame::{
    CREDIT_MAX, ClientFrame, Consume, Consuming, Delivered, ErrorClass, ErrorFrame, Message, Publish, Said,
    ServerFrame, Settle, Subscribe, Work, binary, json,
};
use tidemill::proto::limits::TTL_SECONDS_MAX;
use tidemill::proto::work::{ConsumerName, GroupName, Settled, SettledStatus};
use tidemill::proto::{
    Code, Gap, GapReason, MessageId, OrderKey, PatternCursor, Timestamp, TopicName, TopicPattern,
    content_type,
};

use crate::support::length;

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    any::<String>().prop_map(Cow::Owned)
}

fn topic() -> impl Strategy<Value = TopicName> {
    "[A-Za-z0-9_-]{1,20}".prop_map(|name| TopicName::parse(&name).expect("it is in the grammar"))
}

fn id() -> impl Strategy<Value = MessageId> {
    any::<(u64, u64)>().prop_map(|(ms, seq)| MessageId::new(ms, seq))
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (0..253_402_300_799_999_u64).prop_map(Timestamp::from_millis)
}

fn json_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).expect("a string")),
        Just(r#"{ "a" : [1.10, {"b":null}] }"#.to_owned()),
    ]
}

fn object() -> impl Strategy<Value = String> {
    any::<String>()
        .prop_map(|text| format!(r#"{{"k": {}}}"#, serde_json::to_string(&text).expect("a string")))
}

/// By name, because that is how JSON holds them.
fn cursors() -> impl Strategy<Value = Vec<(TopicName, MessageId)>> {
    btree_map(topic(), id(), 0..5).prop_map(|cursors| cursors.into_iter().collect())
}

fn pattern() -> impl Strategy<Value = TopicPattern> {
    "[A-Za-z0-9_-]{0,9}[*][A-Za-z0-9_*-]{0,7}"
        .prop_map(|text| TopicPattern::parse(&text).expect("it is in the grammar"))
}

fn pattern_cursor() -> impl Strategy<Value = PatternCursor> {
    "p1[.][A-Za-z0-9_-]{1,40}".prop_map(|text| PatternCursor::parse(&text).expect("it is in the grammar"))
}

fn patterns() -> impl Strategy<Value = Vec<(TopicPattern, PatternCursor)>> {
    btree_map(pattern(), pattern_cursor(), 0..3).prop_map(|cursors| cursors.into_iter().collect())
}

fn message() -> impl Strategy<Value = Message<'static>> {
    // The relay writes what is around a payload of JSON too.
    let blanks = vec(prop::sample::select(&b" \t\r\n"[..]), 0..3);
    let payload = (payload(), blanks).prop_map(|((mut payload, kind), blanks)| {
        if kind.as_deref().is_none_or(content_type::is_json) {
            payload = [blanks.as_slice(), &payload, &blanks].concat();
        }
        (payload, kind)
    });
    let order_key =
        option::of("[a-z\"\\\\é]{1,9}").prop_map(|key| key.and_then(|key| OrderKey::parse(&key).ok()));
    (id(), topic(), payload, timestamp(), option::of(object()), order_key).prop_map(
        |(message_id, topic, (payload, content_type), timestamp, metadata, order_key)| Message {
            message_id,
            topic,
            payload: payload.into(),
            content_type,
            timestamp,
            metadata: metadata.map(|metadata| metadata.into_bytes().into()),
            order_key,
        },
    )
}

fn server_frame() -> impl Strategy<Value = ServerFrame<'static>> {
    let reason = prop::sample::select(&GapReason::ALL[..]);
    let class = prop::sample::select(
        &[ErrorClass::Subscription, ErrorClass::UnknownType, ErrorClass::Processing, ErrorClass::Publish][..],
    );
    let code = prop::sample::select(Code::ALL.to_vec());
    prop_oneof![
        (option::of(text()), cursors(), patterns(), vec(topic(), 0..3), text(), timestamp()).prop_map(
            |(reference, topics, patterns, absent, session_id, timestamp)| ServerFrame::Subscribed {
                reference,
                topics,
                patterns,
                absent,
                session_id,
                timestamp
            }
        ),
        (cursors(), patterns()).prop_map(|(topics, patterns)| ServerFrame::Unsubscribed { topics, patterns }),
        (option::of(text()), id(), topic(), timestamp(), any::<bool>()).prop_map(
            |(reference, message_id, topic, timestamp, replayed)| ServerFrame::Published {
                durability: None,
                reference,
                message_id,
                topic,
                timestamp,
                replayed
            }
        ),
        message().prop_map(ServerFrame::Message),
        (topic(), id(), id(), reason, option::of(any::<u64>())).prop_map(
            |(topic, from, to, reason, missed)| ServerFrame::Gap(Gap { topic, from, to, reason, missed })
        ),
        (option::of(text()), timestamp())
            .prop_map(|(reference, timestamp)| ServerFrame::Pong { reference, timestamp }),
        (
            option::of(text()),
            class,
            code,
            text(),
            option::of(text()),
            any::<bool>(),
            option::of(any::<u64>())
        )
            .prop_map(|(reference, class, code, message, field, retryable, retry_after_seconds)| {
                ServerFrame::Error(ErrorFrame {
                    message_id: None,
                    durability: None,
                    fence: None,
                    reference,
                    class,
                    code,
                    message,
                    field,
                    retryable,
                    retry_after_seconds,
                    last_id: None,
                    reason: None,
                })
            }),
        (text(), cursors(), patterns()).prop_map(|(reason, cursors, patterns)| ServerFrame::End {
            reason,
            cursors,
            patterns
        }),
        (pattern(), pattern_cursor()).prop_map(|(pattern, cursor)| ServerFrame::Cursor { pattern, cursor }),
        (option::of(text()), topic(), group(), "[a-z./@]{1,9}", 0..=CREDIT_MAX).prop_map(
            |(reference, topic, group, consumer, credit)| ServerFrame::Consuming(Consuming {
                reference,
                topic,
                group,
                consumer: ConsumerName::parse(&consumer).expect("it is in the grammar"),
                credit,
            })
        ),
        work().prop_map(ServerFrame::Work),
        (option::of(text()), vec(settled(), 0..4))
            .prop_map(|(reference, results)| ServerFrame::Settled { reference, results }),
    ]
}

fn group() -> impl Strategy<Value = GroupName> {
    "[A-Za-z0-9_-]{1,20}".prop_map(|name| GroupName::parse(&name).expect("it is in the grammar"))
}

/// Messages of one topic.
fn work() -> impl Strategy<Value = Work<'static>> {
    let one = (message(), 1..=u64::MAX, timestamp());
    let parts = (topic(), group(), any::<u64>(), option::of(text()), vec(one, 1..4));
    parts.prop_map(|(topic, group, epoch, cancelled, messages)| {
        let deliveries = messages.into_iter().map(|(message, delivery, deadline)| Delivered {
            message: Message { topic: topic.clone(), ..message },
            delivery,
            deadline,
        });
        Work { deliveries: deliveries.collect(), topic, group, epoch, cancelled }
    })
}

fn settled() -> impl Strategy<Value = Settled> {
    let code = prop::sample::select(Code::ALL.to_vec());
    let told = (option::of(timestamp()), option::of(code), option::of(any::<String>()));
    (any::<String>(), prop::sample::select(SettledStatus::ALL.to_vec()), any::<(bool, bool)>(), told)
        .prop_map(|(receipt, status, (late, dead), (until, code, error))| Settled {
            receipt,
            status,
            late,
            dead,
            until,
            code,
            error,
        })
}

/// The parts of a publish, which borrows them.
#[derive(Clone, Debug)]
struct Parts {
    payload: Vec<u8>,
    content_type: Option<Cow<'static, str>>,
    metadata: Option<String>,
}

fn parts() -> impl Strategy<Value = Parts> {
    (payload(), option::of(object())).prop_map(|((payload, content_type), metadata)| Parts {
        payload,
        content_type,
        metadata,
    })
}

/// JSON, with a content type or without one, or other bytes.
fn payload() -> impl Strategy<Value = (Vec<u8>, Option<Cow<'static, str>>)> {
    let other = prop_oneof![Just("text/plain".into()), Just("".into()), text()];
    let of_json = Just(Some(Cow::Borrowed("application/geo+json")));
    prop_oneof![
        (json_text(), prop_oneof![Just(None), of_json]).prop_map(|(json, kind)| (json.into_bytes(), kind)),
        (any::<String>(), Just(Some("text/plain".into()))).prop_map(|(text, kind)| (text.into_bytes(), kind)),
        (vec(any::<u8>(), 0..50), other)
            .prop_filter("it is no JSON", |(_, kind)| !content_type::is_json(kind))
            .prop_map(|(bytes, kind)| (bytes, Some(kind))),
    ]
}

fn plain_client_frame() -> impl Strategy<Value = ClientFrame<'static>> {
    let cursors = btree_map(any::<String>(), any::<String>(), 0..4);
    prop_oneof![
        (
            option::of(text()),
            vec(text(), 0..4),
            cursors,
            option::of(text()),
            option::of(text()),
            any::<bool>(),
            option::of(text())
        )
            .prop_map(|(reference, topics, cursors, offset, client_id, must_exist, view)| {
                ClientFrame::Subscribe(Subscribe {
                    reference,
                    topics,
                    cursors: cursors
                        .into_iter()
                        .map(|(topic, cursor)| (topic.into(), cursor.into()))
                        .collect(),
                    offset,
                    client_id,
                    must_exist,
                    view,
                })
            }),
        vec(text(), 0..4).prop_map(|topics| ClientFrame::Unsubscribe { topics }),
        option::of(text()).prop_map(|reference| ClientFrame::Ping { reference }),
        text().prop_map(|message_id| ClientFrame::Ack { message_id }),
        (option::of(text()), text(), text(), any::<u64>(), option::of(text())).prop_map(
            |(reference, topic, group, credit, consumer)| {
                ClientFrame::Consume(Consume { reference, topic, group, credit, consumer })
            }
        ),
        (option::of(text()), vec(text(), 0..4), said()).prop_map(|(reference, receipts, said)| {
            ClientFrame::Settle(Settle { reference, receipts, said })
        }),
    ]
}

fn said() -> impl Strategy<Value = Said<'static>> {
    let time = || option::of((0..10_000_000_u64).prop_map(Duration::from_millis));
    prop_oneof![
        Just(Said::Ack { result: None }),
        Just(Said::Ack { result: Some(br#"{ "a" : [1.10, {"b":"c"}] }"#) }),
        (time(), option::of(text())).prop_map(|(delay, error)| Said::Nack { delay, error }),
        time().prop_map(|ack_wait| Said::Extend { ack_wait }),
        text().prop_map(|reason| Said::Reject { reason }),
        Just(Said::Release),
    ]
}

fn comes_back_from_a_client(frame: &ClientFrame<'_>) -> Result<(), TestCaseError> {
    let (mut text, mut bytes) = (Vec::new(), Vec::new());
    json::write_client(frame, &mut text);
    let text = String::from_utf8(text).expect("JSON is UTF-8");
    let read = json::read(&text);
    prop_assert_eq!(read.as_ref(), Ok(frame), "{}", text);
    binary::write_client(frame, &mut bytes);
    let read = binary::read_client(&bytes);
    prop_assert_eq!(read.as_ref(), Ok(frame));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(length::pick(500, 50_000)) })]

    #[test]
    fn what_a_relay_writes_a_client_reads(frame in server_frame()) {
        let (mut text, mut bytes) = (Vec::new(), Vec::new());
        json::write(&frame, &mut text);
        let text = String::from_utf8(text).expect("JSON is UTF-8");
        let read = json::read_server(&text);
        prop_assert_eq!(read.as_ref(), Ok(&frame), "{}", text);
        binary::write_server(&frame, &mut bytes);
        let read = binary::read_server(&bytes);
        prop_assert_eq!(read.as_ref(), Ok(&frame));
    }

    #[test]
    fn what_a_client_writes_a_relay_reads(frame in plain_client_frame()) {
        comes_back_from_a_client(&frame)?;
    }

    #[test]
    fn what_a_client_publishes_a_relay_reads(
        parts in parts(),
        reference in option::of(text()),
        topic in text(),
        ttl in option::of(1..=TTL_SECONDS_MAX),
        key in option::of(text()),
        order_key in option::of(text()),
    ) {
        let frame = ClientFrame::Publish(Publish {
            durability: None,
            fence: None,
            reference,
            topic,
            payload: parts.payload.as_slice().into(),
            content_type: parts.content_type,
            metadata: parts.metadata.as_deref().map(str::as_bytes),
            ttl,
            key,
            delivery: None,
            expected_last: None,
            order_key,
            unique: ttl.map(|ttl| ("g".into(), ttl.to_string().into())),
        });
        comes_back_from_a_client(&frame)?;
    }

    #[test]
    fn no_text_and_no_bytes_make_a_client_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = binary::read_server(&bytes);
        let _ = json::read_server(&String::from_utf8_lossy(&bytes));
    }
}
