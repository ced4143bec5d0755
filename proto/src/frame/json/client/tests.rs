//! What a client writes and reads, and what it refuses.

use super::*;
use crate::frame::json::write;
use crate::frame::{Change, Subscribe, Watch, WatchTarget, Watched};
use crate::watched::{LoggedKind, WatchedKind};

#[test]
fn what_a_client_writes_is_what_a_relay_reads() {
    let watch = |target| {
        let (reference, watch) = (Some(Cow::Borrowed("r")), Cow::Borrowed("w\""));
        ClientFrame::Watch(Watch { reference, watch, target, cursor: Some(Cow::Borrowed("5-1")) })
    };
    let frames = [
        ClientFrame::Subscribe(Subscribe {
            reference: Some(Cow::Borrowed("r\"")),
            topics: vec![Cow::Borrowed("a"), Cow::Borrowed("b")],
            cursors: vec![(Cow::Borrowed("a"), Cow::Borrowed("5-0"))],
            offset: Some(Cow::Borrowed("last")),
            client_id: None,
            must_exist: true,
            view: Some(Cow::Borrowed("latest")),
        }),
        ClientFrame::Unsubscribe { topics: vec![Cow::Borrowed("a")] },
        ClientFrame::Publish(Publish {
            durability: Some(Cow::Borrowed("fsync")),
            fence: Some(Cow::Borrowed("a=5-1")),
            reference: Some(Cow::Borrowed("7")),
            topic: Cow::Borrowed("t"),
            payload: Cow::Borrowed(br#"{ "a" : 1.10 }"#),
            content_type: None,
            metadata: Some(br#"{"m":"n"}"#),
            ttl: Some(60),
            key: Some(Cow::Borrowed("k")),
            delivery: Some(Delivery::After(std::time::Duration::from_millis(1_500))),
            expected_last: Some(Cow::Borrowed("0-0")),
            order_key: Some(Cow::Borrowed("o\"")),
            unique: Some((Cow::Borrowed("g"), Cow::Borrowed("u\""))),
        }),
        ClientFrame::Ping { reference: None },
        ClientFrame::Ack { message_id: Cow::Borrowed("1-0") },
        ClientFrame::Consume(Consume {
            reference: Some(Cow::Borrowed("7")),
            topic: Cow::Borrowed("t"),
            group: Cow::Borrowed("g"),
            credit: 100,
            consumer: Some(Cow::Borrowed("c")),
        }),
        watch(WatchTarget::Keys { bucket: Cow::Borrowed("b"), prefix: Cow::Borrowed("") }),
        watch(WatchTarget::Keys { bucket: Cow::Borrowed("b"), prefix: Cow::Borrowed("p.") }),
        watch(WatchTarget::Key { bucket: Cow::Borrowed("b"), key: Cow::Borrowed("k") }),
        watch(WatchTarget::Room { room: Cow::Borrowed("r") }),
        ClientFrame::Unwatch { reference: None, watch: Cow::Borrowed("w\"") },
    ];
    for frame in frames {
        let mut out = Vec::new();
        write_client(&frame, &mut out);
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        assert_eq!(crate::frame::json::read(&text), Ok(frame), "{text}");
    }
}

#[test]
fn what_a_relay_tells_of_a_watch_is_what_a_client_reads() {
    let (watch, revision) = (Cow::Borrowed("w\""), MessageId::new(5, 1));
    let change = |of, change, value: Option<&'static [u8]>, content_type: Option<&'static str>, ends_step| {
        Watched::Change(Change {
            watch: watch.clone(),
            of,
            change,
            key: Cow::Borrowed("k"),
            revision,
            value: value.map(Cow::Borrowed),
            content_type: content_type.map(Cow::Borrowed),
            ends_step,
        })
    };
    let (keys, members) = (WatchedKind::Keys, WatchedKind::Members);
    let bare = br#"{"since":"1970-01-01T00:00:00.001Z"}"#;
    let full = br#"{"since":"1970-01-01T00:00:00.001Z","node":"n","connection":"c","address":"a","lease":"l","data":{ "reason": 1 }}"#;
    for watched in [
        Watched::Began { reference: Some(Cow::Borrowed("r")), watch: watch.clone() },
        Watched::Ended { reference: None, watch: watch.clone(), cursor: None, reason: None },
        Watched::Ended {
            reference: Some(Cow::Borrowed("r")),
            watch: watch.clone(),
            cursor: Some(revision),
            reason: Some(Cow::Borrowed("\"why")),
        },
        change(keys, LoggedKind::Put, Some(b"{ \"a\" : 1.10 }"), None, false),
        change(keys, LoggedKind::Put, Some(b"null"), None, true),
        change(keys, LoggedKind::Put, Some(b"\"t"), Some("text/plain"), true),
        change(keys, LoggedKind::Put, Some(b"\xff"), Some("a/b"), true),
        change(keys, LoggedKind::Put, None, None, false),
        change(keys, LoggedKind::Deleted, None, None, true),
        change(keys, LoggedKind::Expired, None, None, false),
        change(members, LoggedKind::Put, Some(bare), None, false),
        change(members, LoggedKind::Put, Some(full), None, true),
        change(members, LoggedKind::Deleted, None, None, true),
        change(members, LoggedKind::Expired, None, None, true),
        Watched::Synced { watch: watch.clone(), revision },
        Watched::Bookmark { watch: watch.clone(), revision },
        Watched::Reset { watch: watch.clone() },
    ] {
        let frame = ServerFrame::Watched(watched);
        let mut out = Vec::new();
        write(&frame, &mut out);
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        assert_eq!(read_server(&text), Ok(frame), "{text}");
    }
}

#[test]
fn any_payload_has_a_form_in_json() {
    for (payload, content_type, read_type) in [
        (&b"\xff"[..], Some("a/b"), Some("a/b")),
        (b"", Some("text/plain"), Some("text/plain")),
        (b"[1]", Some("a/b+json"), Some("a/b+json")),
        (b"[\n1]", None, None),
        // What it is stays the same, and is said.
        (b" [1]\n", None, Some("application/json")),
    ] {
        let publish = Publish {
            durability: None,
            fence: None,
            reference: None,
            topic: Cow::Borrowed("t"),
            payload: Cow::Borrowed(payload),
            content_type: content_type.map(Cow::Borrowed),
            metadata: None,
            ttl: None,
            key: None,
            delivery: Some(Delivery::At(Timestamp::from_millis(5))),
            expected_last: None,
            order_key: None,
            unique: None,
        };
        let mut out = Vec::new();
        write_client(&ClientFrame::Publish(publish), &mut out);
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        let Ok(ClientFrame::Publish(read)) = crate::frame::json::read(&text) else {
            panic!("a publish: {text}")
        };
        assert_eq!((&*read.payload, read.content_type.as_deref()), (payload, read_type));
    }
}

#[test]
fn a_newer_relay_may_say_more() {
    let text = r#"{"new":[1],"timestamp":"2026-01-31T12:00:00Z","type":"pong","ref":"a\nb"}"#;
    let Ok(ServerFrame::Pong { reference, .. }) = read_server(text) else { panic!("a pong") };
    assert_eq!(reference.as_deref(), Some("a\nb"));
    assert_eq!(read_server(r#"{"type":"shout"}"#), Err(ServerFrameError::UnknownType("shout".to_owned())));
    let text =
        r#"{"type":"error","code":"new_code","message":"m","details":{"code":"new_code","retryable":true}}"#;
    let Ok(ServerFrame::Error(error)) = read_server(text) else { panic!("an error") };
    assert_eq!((error.class, error.code, error.retryable), (ErrorClass::Publish, Code::Internal, true));
    let text = r#"{"type":"error","code":"fenced","message":"m","details":{"code":"fenced","retryable":false,"fence":"5-1"}}"#;
    let Ok(ServerFrame::Error(error)) = read_server(text) else { panic!("an error") };
    let mut out = Vec::new();
    write(&ServerFrame::Error(error.clone()), &mut out);
    assert_eq!((error.fence, out.as_slice()), (Some(MessageId::new(5, 1)), text.as_bytes()));
}

#[test]
fn what_is_no_frame_is_refused() {
    for text in ["", "[]", "{", "{}", r#"{"type":1}"#, r#"{"type":"gap","topic":"a/b"}"#] {
        assert!(matches!(read_server(text), Err(ServerFrameError::Malformed(_))), "{text}");
    }
    let missing = |kind, field| Err(ServerFrameError::Missing(kind, field));
    assert_eq!(read_server(r#"{"type":"gap"}"#), missing("gap", "reason"));
    assert_eq!(read_server(r#"{"type":"message","message_id":"1-0"}"#), missing("message", "payload"));
    let text = r#"{"type":"message","payload_base64":"!","content_type":"a/b"}"#;
    assert_eq!(read_server(text), missing("message", "payload"));
    let text = r#"{"type":"message","payload":1,"message_id":"1-0","topic":"a*"}"#;
    assert_eq!(read_server(text), missing("message", "topic"), "a message is of one topic");
    for (text, field) in [
        (r#"{"type":"cursor","topic":"a","cursor":"p1.A"}"#, "topic"),
        (r#"{"type":"cursor","cursor":"p1.A"}"#, "topic"),
        (r#"{"type":"cursor","topic":"a*"}"#, "cursor"),
    ] {
        assert_eq!(read_server(text), missing("cursor", field), "{text}");
    }
    let text = r#"{"type":"unsubscribed","topics":["a"],"cursors":{"a":null}}"#;
    assert!(matches!(read_server(text), Err(ServerFrameError::Malformed(_))));
    for cursors in ["{}", r#"{"a*":"1-0"}"#, r#"{"a*":"latest"}"#] {
        let text = format!(r#"{{"type":"unsubscribed","topics":["a*"],"cursors":{cursors}}}"#);
        assert_eq!(read_server(&text), missing("unsubscribed", "cursors"), "{text}");
    }
    let text = r#"{"type":"end","cursors":{"a":"p1.A"}}"#;
    assert_eq!(read_server(text), missing("end", "cursors"));
}

#[test]
fn topics_and_patterns_stand_together() {
    let pattern = |text| TopicPattern::parse(text).expect("a valid pattern");
    let topic = |text| TopicName::parse(text).expect("a valid name");
    let cursor = PatternCursor::parse("p1.A").expect("a valid cursor");
    let patterns = vec![(pattern("a.*"), cursor.clone())];
    let topics = vec![(topic("a"), MessageId::new(5, 0)), (topic("b"), MessageId::MIN)];
    let cursors = r#""cursors":{"a":"5-0","a.*":"p1.A","b":"0-0"}"#;
    for (frame, text) in [
        (
            ServerFrame::Unsubscribed { topics: topics.clone(), patterns: patterns.clone() },
            format!(r#"{{"type":"unsubscribed","topics":["a","b","a.*"],{cursors}}}"#),
        ),
        (
            ServerFrame::End { reason: "r".into(), cursors: topics, patterns },
            format!(r#"{{"type":"end","reason":"r",{cursors}}}"#),
        ),
        (
            ServerFrame::Cursor { pattern: pattern("*"), cursor },
            r#"{"type":"cursor","topic":"*","cursor":"p1.A"}"#.to_owned(),
        ),
    ] {
        let mut out = Vec::new();
        crate::frame::json::write(&frame, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), text);
        assert_eq!(read_server(&text), Ok(frame));
    }
}
