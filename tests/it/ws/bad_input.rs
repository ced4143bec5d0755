//! What a client does wrong: an `error` frame or the right close code, and the session, where it goes
//! on, unharmed.

use serde_json::json;
use tidemill::proto::frame::{ServerFrame, binary};
use tokio_tungstenite::tungstenite::Message;

use crate::support::relay::{TestRelay, memory};
use crate::support::ws::{RawWs, WsClient, masked};

#[expect(
    clippy::too_many_lines,
    reason = "a frame stands beside what is wrong with it, one behind the other"
)]
#[tokio::test]
async fn a_bad_frame_is_answered_and_the_session_goes_on() {
    let relay = TestRelay::start(memory()).await;
    relay.publish("t", "0").await;
    let mut client = WsClient::connect(relay.address).await;
    client.subscribe("t", "latest").await;
    let deep =
        format!(r#"{{"type":"publish","topic":"t","payload":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let long = format!(r#"{{"type":"ping","ref":"{}"}}"#, "r".repeat(129));
    let cases = [
        ("", "PROCESSING_ERROR", "invalid_json", None),
        ("hello", "PROCESSING_ERROR", "invalid_json", None),
        ("[]", "PROCESSING_ERROR", "invalid_json", None),
        ("{}", "UNKNOWN_MESSAGE_TYPE", "invalid_field", Some("type")),
        (r#"{"type":"shout"}"#, "UNKNOWN_MESSAGE_TYPE", "invalid_field", Some("type")),
        (r#"{"type":7}"#, "PROCESSING_ERROR", "invalid_field", Some("type")),
        (r#"{"type":"ping","x":1}"#, "PROCESSING_ERROR", "invalid_field", Some("x")),
        (r#"{"type":"ack"}"#, "PROCESSING_ERROR", "invalid_field", Some("receipts")),
        (&long, "PROCESSING_ERROR", "invalid_field", Some("ref")),
        (r#"{"type":"subscribe"}"#, "SUBSCRIPTION_ERROR", "invalid_field", Some("topics")),
        (r#"{"type":"subscribe","topics":[]}"#, "SUBSCRIPTION_ERROR", "invalid_field", Some("topics")),
        (r#"{"type":"subscribe","topics":["a/b"]}"#, "SUBSCRIPTION_ERROR", "invalid_field", Some("topics")),
        (
            r#"{"type":"subscribe","topics":["t"],"offset":"soon"}"#,
            "SUBSCRIPTION_ERROR",
            "invalid_field",
            Some("offset"),
        ),
        (
            r#"{"type":"subscribe","topics":["t"],"cursors":{"t":"9"}}"#,
            "SUBSCRIPTION_ERROR",
            "invalid_field",
            Some("cursors"),
        ),
        (
            r#"{"type":"subscribe","topics":["t"],"cursors":{"u":"1-0"}}"#,
            "SUBSCRIPTION_ERROR",
            "invalid_field",
            Some("cursors"),
        ),
        (r#"{"type":"unsubscribe","topics":[]}"#, "SUBSCRIPTION_ERROR", "invalid_field", Some("topics")),
        (r#"{"type":"publish","payload":1}"#, "invalid_field", "invalid_field", Some("topic")),
        (r#"{"type":"publish","topic":"t"}"#, "invalid_field", "invalid_field", Some("payload")),
        (r#"{"type":"publish","topic":"$","payload":1}"#, "invalid_field", "invalid_field", Some("topic")),
        (
            r#"{"type":"publish","topic":"t","payload":1,"metadata":[]}"#,
            "invalid_field",
            "invalid_field",
            Some("metadata"),
        ),
        (
            r#"{"type":"publish","topic":"t","payload":1,"ttl":0}"#,
            "invalid_field",
            "invalid_field",
            Some("ttl"),
        ),
        (
            r#"{"type":"publish","topic":"t","payload":1,"key":"a b"}"#,
            "invalid_field",
            "invalid_field",
            Some("key"),
        ),
        (&deep, "invalid_field", "invalid_field", Some("payload")),
    ];
    for (text, class, code, field) in cases {
        let error = client.ask(text, "error").await;
        assert_eq!(error["code"], class, "{text}: {error}");
        assert_eq!(error["details"]["code"], code, "{text}: {error}");
        assert_eq!(error["details"]["field"].as_str(), field, "{text}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{text}: {error}");
    }
    client.send_any(Message::binary(b"\x01\x03\x00".to_vec())).await;
    let error = client.expect("error").await;
    assert!(error["message"].as_str().expect("a text").contains("tidemill.bincode.v1"), "{error}");
    // A refused publish carries its reference, whatever is wrong with it.
    for (text, field) in [
        (r#"{"type":"publish","ref":"6","topic":"t","payload":1,"colour":"red"}"#, "colour"),
        (r#"{"type":"publish","topic":"t","payload":1,"ttl":"soon","ref":"6"}"#, "ttl"),
        (r#"{"type":"publish","ref":"6","topic":"t","payload":1,"expected_last":"1"}"#, "expected_last"),
        (r#"{"type":"publish","ref":"6","topic":"t","payload":1,"expected_last":1}"#, "expected_last"),
        (r#"{"type":"publish","ref":"6","topic":"t","payload":1,"order_key":""}"#, "order_key"),
        (r#"{"type":"publish","ref":"6","topic":"t","payload":1,"unique":{"group":"g"}}"#, "unique"),
        (
            r#"{"type":"publish","ref":"6","topic":"t","payload":1,"unique":{"group":"a.b","key":"k"}}"#,
            "unique",
        ),
        (r#"{"type":"publish","ref":"6","topic":"t","payload_base64":"?"}"#, "payload_base64"),
        (
            r#"{"type":"publish","ref":"6","topic":"t","payload":1,"content_type":"text/plain"}"#,
            "content_type",
        ),
        (
            r#"{"type":"publish","ref":"6","topic":"t","payload_text":"{","content_type":"application/json"}"#,
            "payload",
        ),
    ] {
        let error = client.ask(text, "error").await;
        assert_eq!((&error["ref"], &error["code"]), (&json!("6"), &json!("invalid_field")), "{error}");
        assert_eq!(error["details"]["field"], field, "{error}");
    }
    let error = client.ask(r#"{"type":"publish","ref":"7","topic":"t","payload":1,"ttl":0}"#, "error").await;
    assert_eq!(error["ref"], "7");
    assert_eq!(error["details"], json!({"code": "invalid_field", "retryable": false, "field": "ttl"}));
    relay.publish("t", "1").await;
    assert_eq!(client.expect("message").await["payload"], 1, "the subscription is unharmed");
    relay.stop().await;
}

#[tokio::test]
async fn a_bad_binary_frame_is_answered_and_the_session_goes_on() {
    let relay = TestRelay::start(memory()).await;
    let mut client = WsClient::connect_binary(relay.address).await;
    let huge_list = b"\x01\x01\xfd\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec();
    for message in [
        Message::binary(Vec::new()),
        Message::binary(b"\x02\x03\x00".to_vec()),
        Message::binary(b"\x01\x09".to_vec()),
        Message::binary(b"\x01\x03\x00\x00".to_vec()),
        Message::binary(huge_list),
        Message::text("{}"),
    ] {
        client.send_any(message.clone()).await;
        let Some(Ok(Message::Binary(bytes))) = client.next().await else { panic!("a binary frame") };
        let frame = binary::read_server(&bytes).expect("a frame");
        assert!(matches!(frame, ServerFrame::Error(_)), "{message:?}: {frame:?}");
    }
    client.send_any(Message::binary(b"\x01\x03\x00".to_vec())).await;
    let Some(Ok(Message::Binary(bytes))) = client.next().await else { panic!("a binary frame") };
    assert!(matches!(binary::read_server(&bytes), Ok(ServerFrame::Pong { .. })));
    relay.stop().await;
}

#[tokio::test]
async fn what_breaks_the_protocol_is_closed_with_its_code() {
    let relay = TestRelay::start_with(memory(), |options| options.relay.payload_bytes_max = 10_000).await;
    let unmasked = vec![0x81, 0x02, b'{', b'}'];
    let huge = [&[0x81, 0x80 | 0x7F][..], &(64_u64 << 20).to_be_bytes(), &[0; 4]].concat();
    let fragments = {
        // More than the largest message, in pieces that are each small enough.
        let piece = vec![b' '; 60_000];
        [masked(0x01, &piece), masked(0x00, &piece), masked(0x80, &piece)].concat()
    };
    let crumbs = {
        let mut crumbs = masked(0x01, b"x");
        let crumb = masked(0x00, b"x");
        crumbs.extend((0..200_000).flat_map(|_| crumb.clone()));
        crumbs
    };
    let cases: [(&str, Vec<u8>, u16); 14] = [
        ("unmasked", unmasked, 1002),
        ("reserved bit", masked(0xC1, b"{}"), 1002),
        ("reserved opcode", masked(0x83, b"{}"), 1002),
        ("reserved control opcode", masked(0x8B, b""), 1002),
        ("a long ping", masked(0x89, &[b'p'; 126]), 1002),
        ("a ping in fragments", masked(0x09, b"p"), 1002),
        ("a continuation of nothing", masked(0x80, b"{}"), 1002),
        ("a message in a message", [masked(0x01, b"{"), masked(0x81, b"{}")].concat(), 1002),
        ("text that is not UTF-8", masked(0x81, b"\xff\xfe"), 1007),
        ("an overlong character", masked(0x81, b"\xc0\xaf"), 1007),
        ("a frame of 64 MiB", huge, 1009),
        ("a message too large in one", masked(0x81, &vec![b' '; 150_000]), 1009),
        ("a message too large in pieces", fragments, 1009),
        ("a message too large in crumbs", crumbs, 1009),
    ];
    for (name, bytes, code) in cases {
        let mut raw = RawWs::connect(relay.address).await;
        raw.send(&bytes).await;
        assert_eq!(raw.close_code().await, Some(code), "{name}");
    }
    // Nobody else has noticed.
    let mut client = WsClient::connect(relay.address).await;
    client.ask(r#"{"type":"ping"}"#, "pong").await;
    relay.stop().await;
}

#[tokio::test]
async fn control_frames_are_answered_as_the_protocol_says() {
    let relay = TestRelay::start(memory()).await;
    let mut raw = RawWs::connect(relay.address).await;
    raw.send(&masked(0x89, b"abc")).await;
    assert_eq!(raw.next().await, Some((0x8A, b"abc".to_vec())));
    // Between the fragments of a message, too.
    raw.send(&[masked(0x01, br#"{"type":"#), masked(0x89, b"mid"), masked(0x80, br#""ping"}"#)].concat())
        .await;
    assert_eq!(raw.next().await, Some((0x8A, b"mid".to_vec())));
    let (first, pong) = raw.next().await.expect("a pong");
    assert_eq!(first, 0x81);
    assert!(pong.starts_with(br#"{"type":"pong""#));
    // A flood is taken, and at the end the session still answers.
    let flood: Vec<u8> = (0..50_000).flat_map(|_| masked(0x89, b"")).collect();
    raw.send(&flood).await;
    raw.send(&masked(0x81, br#"{"type":"ping"}"#)).await;
    while let Some((first, _)) = raw.next().await {
        if first == 0x81 {
            break;
        }
    }
    raw.send(&masked(0x88, &1000_u16.to_be_bytes())).await;
    assert_eq!(raw.close_code().await, Some(1000));
    assert_eq!(raw.next().await, None, "the relay hangs up");
    relay.stop().await;
}
