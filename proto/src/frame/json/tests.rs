//! What a relay reads and writes, and what it refuses.

use super::*;
use crate::frame::Message;
use crate::{Durability, PayloadRef};

fn written(frame: &ServerFrame<'_>) -> String {
    let mut out = Vec::new();
    write(frame, &mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[test]
fn a_frame_of_todays_clients_is_read() {
    let text = r#"{"type":"subscribe","topics":["a","b"],"client_id":"c","offset":"last"}"#;
    let Ok(ClientFrame::Subscribe(subscribe)) = read(text) else { panic!("a subscribe frame") };
    assert_eq!(subscribe.topics, ["a", "b"]);
    assert_eq!(subscribe.offset.as_deref(), Some("last"));
    assert!(matches!(read(r#"{"type":"ping"}"#), Ok(ClientFrame::Ping { reference: None })));
    assert!(matches!(read(r#"{"type":"ack","message_id":"1-0"}"#), Ok(ClientFrame::Ack { .. })));
}

#[test]
fn a_publish_keeps_its_payload_as_it_came() {
    let text = r#"{"type":"publish","ref":"7","topic":"t","payload":{ "b":1.10,"a":null },"key":"k"}"#;
    let Ok(ClientFrame::Publish(publish)) = read(text) else { panic!("a publish frame") };
    assert_eq!(&*publish.payload, br#"{ "b":1.10,"a":null }"#);
    assert_eq!(publish.reference.as_deref(), Some("7"));
    let Ok(ClientFrame::Publish(publish)) = read(r#"{"type":"publish","topic":"t","payload":null}"#) else {
        panic!("null is a payload")
    };
    assert_eq!(&*publish.payload, b"null");
}

#[test]
fn a_publish_may_have_text_or_bytes() {
    for (members, payload, content_type) in [
        (r#""payload_text":"a\n\u00e9""#, "a\né".as_bytes(), "text/plain; charset=utf-8"),
        (r#""content_type":"text/csv","payload_text":"a""#, b"a", "text/csv"),
        (r#""payload_base64":"\u0041P8=""#, b"\0\xff", "application/octet-stream"),
        (r#""payload":[1],"content_type":"a/b+json""#, b"[1]", "a/b+json"),
    ] {
        let text = format!(r#"{{"type":"publish","topic":"t",{members}}}"#);
        let Ok(ClientFrame::Publish(publish)) = read(&text) else { panic!("a publish frame: {text}") };
        assert_eq!((&*publish.payload, publish.content_type.as_deref()), (payload, Some(content_type)));
    }
}

#[test]
fn server_frames_have_their_type_in_front() {
    let topic = TopicName::parse("t").expect("a valid name");
    let message = ServerFrame::Message(Message {
        message_id: MessageId::new(5, 0),
        topic: topic.clone(),
        payload: Cow::Borrowed(b"[1]"),
        content_type: None,
        timestamp: crate::Timestamp::from_millis(5),
        metadata: None,
        order_key: None,
    });
    assert_eq!(
        written(&message),
        r#"{"type":"message","message_id":"5-0","topic":"t","payload":[1],"timestamp":"1970-01-01T00:00:00.005Z"}"#
    );
    let mut text = b"before".to_vec();
    let payload = PayloadRef::json(b"\r[\n1]\n");
    let timestamp = crate::Timestamp::from_millis(5);
    let message = MessageRef {
        message_id: MessageId::new(5, 0),
        topic: &topic,
        payload,
        timestamp,
        metadata: None,
        order_key: None,
    };
    (MESSAGE.write)(&message, &mut text);
    assert_eq!(
        String::from_utf8_lossy(&text),
        "before{\"type\":\"message\",\"message_id\":\"5-0\",\"topic\":\"t\",\"payload\":\r[\n1]\n,\
         \"timestamp\":\"1970-01-01T00:00:00.005Z\"}"
    );
    let (asked, reached) = (Durability { fsync: true, replicas: 0 }, Durability::ACCEPTED);
    let published = |reference: Option<&'static str>, replayed: bool| {
        written(&ServerFrame::Published {
            durability: replayed.then_some(DurabilityTold { asked, reached }),
            reference: reference.map(Into::into),
            message_id: MessageId::new(5, 1),
            topic: topic.clone(),
            timestamp: crate::Timestamp::from_millis(5),
            replayed,
        })
    };
    let rest = r#""message_id":"5-1","topic":"t","timestamp":"1970-01-01T00:00:00.005Z""#;
    assert_eq!(published(Some("a\"b"), false), format!(r#"{{"type":"published","ref":"a\"b",{rest}}}"#));
    let told = r#""replayed":true,"durability":{"asked":"fsync","reached":"accepted"}"#;
    assert_eq!(published(None, true), format!(r#"{{"type":"published",{rest},{told}}}"#));
    let gap = crate::gap::Gap {
        topic,
        from: MessageId::new(1, 0),
        to: MessageId::new(5, 0),
        reason: crate::gap::GapReason::Trimmed,
        missed: Some(3),
    };
    assert_eq!(
        written(&ServerFrame::Gap(gap)),
        r#"{"type":"gap","topic":"t","from":"1-0","to":"5-0","reason":"trimmed","missed":3}"#
    );
}
