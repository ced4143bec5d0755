//! Frames in JSON against their schemas: what is written validates, and what is broken does not.

mod watched;

use std::borrow::Cow;
use std::time::Duration;

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};
use tidemill::proto::frame::schema::{
    CLIENT_FRAMES, FrameSchema, SERVER_FRAMES, of_client, of_server, schemas,
};
use tidemill::proto::frame::{
    CREDIT_MAX, ClientFrame, Consume, Consuming, Delivered, ErrorClass, ErrorFrame, Message, Publish, Said,
    ServerFrame, Settle, Subscribe, Watch, WatchTarget, Work, json as encoding,
};
use tidemill::proto::limits::TTL_SECONDS_MAX;
use tidemill::proto::topics::{Closed, RunState};
use tidemill::proto::work::{ConsumerName, GroupName, Settled, SettledStatus};
use tidemill::proto::{
    Code, Delivery, Durability, DurabilityTold, Gap, GapReason, MessageId, OrderKey, PatternCursor,
    ScheduleId, Timestamp, TopicName, TopicPattern,
};

use crate::support::ws::publish_frame;

/// A frame as it is written, with its description.
type Written = (FrameSchema, Value);

/// Returns what decides whether a frame is one of this kind. A frame of the relay may have more fields
/// than are described, so that it can grow; here it may not, so that a field nobody described is found.
fn validator(name: &str, draft: Draft) -> Validator {
    let mut root = json!({
        "$ref": format!("#/components/schemas/{name}"),
        "components": { "schemas": schemas() },
    });
    if draft == Draft::Draft202012 {
        root["unevaluatedProperties"] = json!(false);
    }
    let options = jsonschema::options().with_draft(draft).should_validate_formats(true);
    options.build(&root).expect("a schema")
}

/// One kind of frame in two dialects: that of `AsyncAPI`, and the stricter one of today.
struct Kind([Validator; 2]);

impl Kind {
    fn of(name: &str) -> Self {
        Self([Draft::Draft7, Draft::Draft202012].map(|draft| validator(name, draft)))
    }

    /// Returns which of the dialects take a frame.
    fn taken(&self, frame: &Value) -> [bool; 2] {
        self.0.each_ref().map(|validator| validator.is_valid(frame))
    }
}

fn topic() -> TopicName {
    TopicName::parse("a:b").expect("a valid name")
}

fn pattern() -> (TopicPattern, PatternCursor) {
    let cursor = PatternCursor::parse("p1.A_-z").expect("a valid cursor");
    (TopicPattern::parse("a:*.b").expect("a valid pattern"), cursor)
}

#[expect(clippy::too_many_lines, reason = "one frame after the other")]
fn server_frames() -> Vec<Written> {
    let (message_id, timestamp) = (MessageId::new(u64::MAX, 3), Timestamp::from_millis(5));
    let (asked, reached) = (Durability { fsync: true, replicas: 1 }, Durability::ACCEPTED);
    let told = DurabilityTold { asked, reached };
    let reference = || [None, Some(Cow::Borrowed("r\""))];
    let cursors = [vec![], vec![(topic(), MessageId::MIN)], vec![(topic(), message_id)]];
    let mut frames = Vec::new();
    for reference in reference() {
        for topics in &cursors {
            frames.push(ServerFrame::Subscribed {
                reference: reference.clone(),
                topics: topics.clone(),
                patterns: if topics.is_empty() { vec![pattern()] } else { Vec::new() },
                absent: topics.iter().map(|(topic, _)| topic.clone()).collect(),
                session_id: "s".into(),
                timestamp,
            });
        }
        for replayed in [false, true] {
            frames.push(ServerFrame::Published {
                durability: replayed.then_some(told),
                reference: reference.clone(),
                message_id,
                topic: topic(),
                timestamp,
                replayed,
            });
            frames.push(ServerFrame::Scheduled {
                reference: reference.clone(),
                schedule_id: ScheduleId::parse("5-000000-a").expect("an id"),
                topic: topic(),
                deliver_at: timestamp,
                replayed,
            });
        }
        frames.push(ServerFrame::Pong { reference, timestamp });
    }
    for cursors in cursors {
        for patterns in [vec![], vec![pattern()]] {
            frames.push(ServerFrame::Unsubscribed { topics: cursors.clone(), patterns: patterns.clone() });
            frames.push(ServerFrame::End { reason: "r".into(), cursors: cursors.clone(), patterns });
        }
    }
    let (pattern, cursor) = pattern();
    frames.push(ServerFrame::Cursor { pattern, cursor });
    for (state, reason) in [(RunState::Closed, None), (RunState::Cancelled, Some("why".to_owned()))] {
        frames.push(ServerFrame::Closed(Closed { topic: topic(), state, reason }));
    }
    for (payload, content_type) in [
        (&b"[1]"[..], None),
        (b"null", None),
        (b"1.5", None),
        (b"\"t\"", None),
        (b"{\"a\":{}}", None),
        (b"[1]", Some("a/b+json")),
        (b"text", Some("text/plain")),
        (b"\xff", Some("a/b")),
        (b"", Some("a/b")),
    ] {
        for metadata in [None, Some(&br#"{"k":[1]}"#[..])] {
            frames.push(ServerFrame::Message(Message {
                message_id,
                topic: topic(),
                payload: payload.into(),
                content_type: content_type.map(Into::into),
                timestamp,
                metadata: metadata.map(Into::into),
                order_key: metadata.and_then(|_| OrderKey::parse("k").ok()),
            }));
        }
    }
    let group = GroupName::parse("g").expect("a valid name");
    let messages = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Message(message) => Some(message.clone()),
        _ => None,
    });
    let delivered = messages.map(|message| Delivered { message, delivery: 1, deadline: timestamp });
    let deliveries: Vec<_> = delivered.collect();
    for cancelled in [None, Some("why".into())] {
        let (group, deliveries) = (group.clone(), deliveries.clone());
        frames.push(ServerFrame::Work(Work { topic: topic(), group, epoch: 1, cancelled, deliveries }));
    }
    for reference in reference() {
        let consumer = ConsumerName::parse("c").expect("a valid name");
        let (topic, group, credit) = (topic(), group.clone(), CREDIT_MAX);
        let of = reference.clone();
        frames.push(ServerFrame::Consuming(Consuming { reference: of, topic, group, consumer, credit }));
        let plain = Settled {
            receipt: "r".to_owned(),
            status: SettledStatus::Acked,
            late: false,
            dead: false,
            until: None,
            code: None,
            error: None,
        };
        let refused = Settled {
            status: SettledStatus::Refused,
            late: true,
            dead: true,
            until: Some(timestamp),
            code: Some(Code::ReceiptVoid),
            error: Some("e".to_owned()),
            ..plain.clone()
        };
        frames.push(ServerFrame::Settled { reference, results: vec![plain, refused] });
    }
    for reason in GapReason::ALL {
        for missed in [None, Some(u64::MAX)] {
            frames.push(ServerFrame::Gap(Gap {
                topic: topic(),
                from: message_id,
                to: message_id,
                reason,
                missed,
            }));
        }
    }
    for class in
        [ErrorClass::Subscription, ErrorClass::UnknownType, ErrorClass::Processing, ErrorClass::Publish]
    {
        for &code in Code::ALL {
            for (reference, field) in reference().into_iter().zip([Some(Cow::Borrowed("f")), None]) {
                let message = "m".into();
                frames.push(ServerFrame::Error(ErrorFrame {
                    message_id: (code == Code::DurabilityNotReached).then_some(message_id),
                    durability: (code == Code::DurabilityNotReached).then_some(told),
                    fence: (code == Code::Fenced).then_some(message_id),
                    reference,
                    class,
                    code,
                    message,
                    field,
                    retryable: code.retryable(),
                    retry_after_seconds: code.retryable().then_some(1),
                    last_id: (code == Code::LastMismatch).then_some(MessageId::MIN),
                    reason: (code == Code::Cancelled).then_some("why".into()),
                }));
            }
        }
    }
    frames.extend(watched::frames().into_iter().map(ServerFrame::Watched));
    let written = |frame: &ServerFrame<'_>| {
        let mut out = Vec::new();
        encoding::write(frame, &mut out);
        (of_server(frame), serde_json::from_slice(&out).expect("JSON"))
    };
    frames.iter().map(written).collect()
}

fn client_frames() -> Vec<Written> {
    let text = Cow::Borrowed;
    let publish = publish_frame("t", b"null");
    let consume = |reference, consumer| {
        let (topic, group, credit) = (text("a"), text("g"), u64::from(CREDIT_MAX));
        ClientFrame::Consume(Consume { reference, topic, group, credit, consumer })
    };
    let with = |reference, said| {
        ClientFrame::Settle(Settle { reference, receipts: vec![text("a"), text("b")], said })
    };
    let settle = |said| with(Some(text("7")), said);
    let watch =
        |reference, target, cursor| ClientFrame::Watch(Watch { reference, watch: text("w"), target, cursor });
    let frames = [
        ClientFrame::Subscribe(Subscribe { topics: vec![text("a")], ..Subscribe::default() }),
        ClientFrame::Subscribe(Subscribe {
            reference: Some(text("7")),
            topics: vec![text("a"), text("b.c"), text("d.*"), text("*")],
            cursors: vec![
                (text("a"), text("5-0")),
                (text("b.c"), text("-10m")),
                (text("d.*"), text("p1.A")),
                (text("*"), text("earliest")),
            ],
            offset: Some(text("last")),
            client_id: Some(text("c")),
            must_exist: true,
            view: Some(text("latest")),
        }),
        ClientFrame::Unsubscribe { topics: vec![text("a")] },
        ClientFrame::Publish(publish.clone()),
        ClientFrame::Publish(Publish {
            reference: Some(text("7")),
            payload: b"[1.10]".into(),
            metadata: Some(br#"{"m":"n"}"#),
            ttl: Some(TTL_SECONDS_MAX),
            key: Some(text("k")),
            expected_last: Some(text("0-0")),
            order_key: Some(text("k")),
            unique: Some((text("g"), text("k"))),
            durability: Some(text("fsync, replicas=1")),
            delivery: None,
            ..publish.clone()
        }),
        ClientFrame::Publish(Publish { fence: Some(text("nightly=5-1")), ..publish.clone() }),
        ClientFrame::Publish(Publish {
            delivery: Some(Delivery::After(Duration::from_millis(1_500))),
            ..publish.clone()
        }),
        ClientFrame::Publish(Publish {
            delivery: Some(Delivery::At(Timestamp::from_millis(5))),
            ..publish.clone()
        }),
        ClientFrame::Publish(Publish { content_type: Some(text("a/b+json")), ..publish.clone() }),
        ClientFrame::Publish(Publish { content_type: Some(text("text/plain")), ..publish.clone() }),
        ClientFrame::Publish(Publish { payload: b"\xff".into(), content_type: Some(text("a/b")), ..publish }),
        ClientFrame::Ping { reference: None },
        ClientFrame::Ping { reference: Some(text("7")) },
        ClientFrame::Ack { message_id: text("1-0") },
        consume(None, None),
        consume(Some(text("7")), Some(text("c"))),
        with(None, Said::Ack { result: None }),
        with(None, Said::Nack { delay: None, error: None }),
        with(None, Said::Extend { ack_wait: None }),
        with(None, Said::Reject { reason: text("r") }),
        with(None, Said::Release),
        settle(Said::Ack { result: None }),
        settle(Said::Ack { result: Some(b"null") }),
        settle(Said::Ack { result: Some(b"[1]") }),
        settle(Said::Nack { delay: None, error: None }),
        settle(Said::Nack { delay: Some(Duration::from_millis(1_500)), error: Some(text("e")) }),
        settle(Said::Extend { ack_wait: None }),
        settle(Said::Extend { ack_wait: Some(Duration::from_secs(1)) }),
        settle(Said::Reject { reason: text("r") }),
        settle(Said::Release),
        watch(None, WatchTarget::Keys { bucket: text("b"), prefix: text("") }, None),
        watch(
            Some(text("7")),
            WatchTarget::Keys { bucket: text("b"), prefix: text("p.") },
            Some(text("5-1")),
        ),
        watch(None, WatchTarget::Key { bucket: text("b"), key: text("k") }, None),
        watch(None, WatchTarget::Room { room: text("r") }, None),
        ClientFrame::Unwatch { reference: None, watch: text("w") },
        ClientFrame::Unwatch { reference: Some(text("7")), watch: text("w") },
    ];
    let written = |frame: &ClientFrame<'_>| {
        let mut out = Vec::new();
        encoding::write_client(frame, &mut out);
        (of_client(frame), serde_json::from_slice(&out).expect("JSON"))
    };
    frames.iter().map(written).collect()
}

/// Returns every kind of frame with what was written of it; none may be without.
fn by_kind() -> Vec<(&'static FrameSchema, Vec<Value>)> {
    let written: Vec<_> = client_frames().into_iter().chain(server_frames()).collect();
    let of = |frame: &FrameSchema| -> Vec<Value> {
        written.iter().filter(|(of, _)| of.name == frame.name).map(|(_, value)| value.clone()).collect()
    };
    CLIENT_FRAMES.iter().chain(SERVER_FRAMES).map(|frame| (frame, of(frame))).collect()
}

#[test]
fn what_is_written_validates_in_every_form() {
    for (frame, forms) in by_kind() {
        assert!(!forms.is_empty(), "no {} was written", frame.name);
        let kind = Kind::of(frame.name);
        for form in forms {
            assert_eq!(form["type"], frame.kind);
            for validator in &kind.0 {
                let errors: Vec<_> = validator.iter_errors(&form).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{} {form}: {errors:?}", frame.name);
            }
        }
    }
}

/// A field that is described, and that nothing ever writes, is not one.
#[test]
fn what_is_described_is_written() {
    let schemas = serde_json::to_value(schemas()).expect("plain data");
    for (frame, forms) in by_kind() {
        for field in fields(&schemas, &schemas[frame.name]) {
            assert!(forms.iter().any(|form| form.get(&field).is_some()), "{} has no {field}", frame.name);
        }
    }
}

fn fields(schemas: &Value, schema: &Value) -> Vec<String> {
    let own = schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned();
    let parts = ["allOf", "oneOf"].into_iter().filter_map(|of| schema[of].as_array()).flatten();
    let of_part = parts.flat_map(|part| fields(schemas, part));
    let name = schema["$ref"].as_str().and_then(|to| to.strip_prefix("#/components/schemas/"));
    let of_reference = name.map(|name| fields(schemas, &schemas[name])).unwrap_or_default();
    own.chain(of_part).chain(of_reference).collect()
}

#[test]
fn a_frame_without_what_is_required_does_not_validate() {
    for (frame, forms) in by_kind() {
        let kind = Kind::of(frame.name);
        // The form with the fewest fields has only required ones.
        let size = |form: &&Value| form.as_object().map(Map::len);
        let smallest = forms.iter().min_by_key(size).expect("a form");
        for field in smallest.as_object().expect("an object").keys() {
            let mut broken = smallest.clone();
            broken.as_object_mut().expect("an object").remove(field);
            assert_eq!(kind.taken(&broken), [false; 2], "{broken}");
        }
    }
}

#[test]
fn a_field_of_another_type_does_not_validate() {
    for (frame, forms) in by_kind() {
        let kind = Kind::of(frame.name);
        for form in forms {
            for field in form.as_object().expect("an object").keys() {
                // Any JSON value is one of these.
                if ["payload", "result", "value", "data"].contains(&field.as_str()) {
                    continue;
                }
                let mut broken = form.clone();
                broken[field] = match field.as_str() {
                    // A number of seconds, or a text with a unit.
                    "delay" | "ack_wait" | "ttl" => json!(true),
                    _ if form[field].is_number() => json!("1"),
                    _ => json!(1),
                };
                assert_eq!(kind.taken(&broken), [false; 2], "{broken}");
            }
        }
    }
}

#[test]
fn a_frame_is_of_one_kind_only() {
    let frames = by_kind();
    for (frame, forms) in &frames {
        let kind = Kind::of(frame.name);
        for (other, forms) in frames.iter().filter(|(other, _)| other.name != frame.name) {
            assert_eq!(kind.taken(&forms[0]), [false; 2], "{} as {}", other.kind, frame.kind);
        }
        let mut unknown = forms[0].clone();
        unknown["type"] = json!("shout");
        assert_eq!(kind.taken(&unknown), [false; 2], "{unknown}");
    }
}

#[test]
fn the_bounds_of_the_wire_hold() {
    let names = |count: usize| vec!["t"; count];
    let publish = |field: &str, value: Value| {
        let mut frame = json!({ "type": "publish", "topic": "t", "payload": 1 });
        frame[field] = value;
        frame
    };
    for (name, frame, expected) in [
        ("SubscribeFrame", json!({ "type": "subscribe", "topics": names(1_000) }), true),
        ("SubscribeFrame", json!({ "type": "subscribe", "topics": names(1_001) }), false),
        ("SubscribeFrame", json!({ "type": "subscribe", "topics": [] }), false),
        ("SubscribeFrame", json!({ "type": "subscribe", "topics": ["a/b"] }), false),
        (
            "SubscribeFrame",
            json!({ "type": "subscribe", "topics": ["t"], "cursors": { "a/b": "5-0" } }),
            false,
        ),
        ("SubscribeFrame", json!({ "type": "subscribe", "topics": ["*********"] }), false),
        ("UnsubscribeFrame", json!({ "type": "unsubscribe", "topics": ["t.*"] }), true),
        ("UnsubscribeFrame", json!({ "type": "unsubscribe", "topics": names(1_001) }), false),
        ("CursorFrame", json!({ "type": "cursor", "topic": "t", "cursor": "p1.A" }), false),
        ("CursorFrame", json!({ "type": "cursor", "topic": "t*", "cursor": "1-0" }), false),
        ("EndFrame", json!({ "type": "end", "reason": "r", "cursors": { "t*": "latest" } }), false),
        ("PingFrame", json!({ "type": "ping", "ref": "r".repeat(128) }), true),
        ("PingFrame", json!({ "type": "ping", "ref": "r".repeat(129) }), false),
        (
            "PublishFrame",
            json!({ "type": "publish", "topic": "t", "payload": 1, "payload_text": "a" }),
            false,
        ),
        ("PublishFrame", json!({ "type": "publish", "topic": "t", "payload_text": "a", "x": 1 }), false),
        ("PublishFrame", json!({ "type": "publish", "topic": "t", "payload_text": "a" }), true),
        ("PingFrame", json!({ "type": "ping", "tpoic": 1 }), false),
        ("PublishFrame", publish("topic", json!("t".repeat(255))), true),
        ("PublishFrame", publish("topic", json!("t".repeat(256))), false),
        ("PublishFrame", publish("topic", json!(".t")), false),
        ("PublishFrame", publish("ttl", json!(0)), false),
        ("PublishFrame", publish("ttl", json!(TTL_SECONDS_MAX + 1)), false),
        ("PublishFrame", publish("key", json!("k".repeat(256))), false),
        ("PublishFrame", publish("key", json!("a b")), false),
        ("PublishFrame", publish("key", json!("")), false),
        ("PublishFrame", publish("metadata", json!([])), false),
        ("PongFrame", json!({ "type": "pong", "timestamp": "yesterday" }), false),
        (
            "GapFrame",
            json!({ "type": "gap", "topic": "t", "from": "1-0", "to": "5-0", "reason": "lost" }),
            false,
        ),
    ] {
        assert_eq!(Kind::of(name).taken(&frame), [expected; 2], "{frame}");
    }
}

#[test]
fn a_message_has_one_payload() {
    let kind = Kind::of("MessageFrame");
    let mut message = json!({
        "type": "message", "message_id": "5-0", "topic": "t", "timestamp": "1970-01-01T00:00:00.005Z",
    });
    assert_eq!(kind.taken(&message), [false; 2]);
    message["payload_base64"] = json!("/w==");
    assert_eq!(kind.taken(&message), [false; 2], "bytes have a content type");
    message["content_type"] = json!("a/b");
    assert_eq!(kind.taken(&message), [true; 2]);
    message["payload"] = json!(1);
    assert_eq!(kind.taken(&message), [false; 2], "two payloads");
}
