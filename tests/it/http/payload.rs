//! Payloads that are no JSON, what surrounds them, and reading one alone.

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::storage::Storage;

use super::on_every_backend;
use crate::support::relay::{Answer, TestRelay, memory};

on_every_backend![
    a_payload_is_read_alone_and_nothing_of_it_runs,
    who_has_an_answer_is_told_that_it_is_the_same,
    text_and_bytes_are_published_as_json_too,
    headers_become_metadata,
];

const PATH: &str = "/api/v1/topics/payload/messages";

async fn publish(relay: &TestRelay, headers: &[(&str, &str)], body: &[u8]) -> String {
    let answer = relay.send("POST", PATH, headers, body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["message_id"].as_str().expect("an id").to_owned()
}

async fn a_payload_is_read_alone_and_nothing_of_it_runs(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for (kind, body, is_saved) in [
        ("text/html", &b"<script>alert(1)</script>"[..], true),
        ("image/svg+xml", b"<svg onload='alert(1)'/>", true),
        ("application/pdf", b"%PDF", true),
        ("text/javascript", b"alert(1)", true),
        ("image/png", b"\x89PNG\0\xff", false),
        ("text/plain", b"caf\xe9", false),
        ("application/cloudevents+json", b" {}\n", false),
        ("application/json", b"\r\n[1] ", false),
        ("application/octet-stream", b"", true),
    ] {
        let id = publish(&relay, &[("content-type", kind)], body).await;
        let path = format!("{PATH}/{id}/payload");
        let answer = relay.get(&path).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, body), "{kind}");
        let disposition = answer.header("content-disposition").expect("a disposition");
        assert_eq!(disposition.starts_with("attachment"), is_saved, "{kind}: {disposition}");
        for (name, value) in [
            ("content-type", kind),
            ("content-security-policy", "default-src 'none'; sandbox"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{kind}");
        }
        let head = relay.send("HEAD", &path, &[], b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        for name in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(name), answer.header(name), "{name}");
        }
    }
    for (path, code) in [
        (format!("{PATH}/1-0/payload"), Code::MessageNotFound),
        ("/api/v1/topics/none/messages/1-0/payload".to_owned(), Code::TopicNotFound),
        (format!("{PATH}/1/payload"), Code::InvalidField),
        (format!("{PATH}/1-0/payload?x=1"), Code::InvalidField),
    ] {
        assert_eq!(relay.get(&path).await.problem().code, code, "{path}");
    }
    relay.stop().await;
}

async fn who_has_an_answer_is_told_that_it_is_the_same(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let id = publish(&relay, &[("content-type", "text/plain")], b"a").await;
    let one = format!("{PATH}/{id}");
    for path in [one.clone(), format!("{one}/payload"), "/api/v1/topics/payload".to_owned()] {
        let full = relay.get(&path).await;
        let tag = full.header("etag").expect("a validator").to_owned();
        assert!(tag.starts_with("W/\""), "compressed it is the same: {tag}");
        let known = format!("\"other\", {tag}");
        for method in ["GET", "HEAD"] {
            let same = relay.send(method, &path, &[("if-none-match", &known)], b"").await;
            assert_eq!((same.status, same.body.len()), (304, 0), "{method} {path}");
            assert_eq!(same.header("etag"), Some(tag.as_str()));
            assert_eq!(same.header("content-type"), None);
        }
        let other = relay.send("GET", &path, &[("if-none-match", "\"other\"")], b"").await;
        assert_eq!(other.status, 200, "{path}");
        if !path.ends_with(&id) && !path.ends_with("payload") {
            publish(&relay, &[("content-type", "text/plain")], b"b").await;
            let changed = relay.send("GET", &path, &[("if-none-match", &tag)], b"").await;
            assert_eq!(changed.status, 200, "{path} has another message");
        }
    }
    // The same bytes of another type are another answer.
    let html = publish(&relay, &[("content-type", "text/html")], b"a").await;
    let tag =
        async |id: &str| relay.get(&format!("{PATH}/{id}/payload")).await.header("etag").map(str::to_owned);
    assert_ne!(tag(&id).await, tag(&html).await);
    relay.stop().await;
}

async fn text_and_bytes_are_published_as_json_too(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for (members, served) in [
        (
            json!({"payload_text": "a\n\"é\""}),
            json!({"payload_text": "a\n\"é\"", "content_type": "text/plain; charset=utf-8"}),
        ),
        (
            json!({"payload_text": "a,b", "content_type": "text/csv"}),
            json!({"payload_text": "a,b", "content_type": "text/csv"}),
        ),
        (
            json!({"payload_text": "<a/>", "content_type": "application/xml"}),
            json!({"payload_base64": "PGEvPg==", "content_type": "application/xml"}),
        ),
        (
            json!({"payload_text": "{\"a\":1}", "content_type": "application/json"}),
            json!({"payload": {"a": 1}}),
        ),
        (
            json!({"payload_base64": "AP8="}),
            json!({"payload_base64": "AP8=", "content_type": "application/octet-stream"}),
        ),
        (
            json!({"payload_base64": "", "payload_text": null, "content_type": "image/png"}),
            json!({"payload_base64": "", "content_type": "image/png"}),
        ),
        (
            json!({"payload": null, "content_type": "a/b+json"}),
            json!({"payload": null, "content_type": "a/b+json"}),
        ),
        (json!({"payload": 1, "content_type": "application/json"}), json!({"payload": 1})),
    ] {
        let mut body = members.clone();
        body["topic"] = "payload".into();
        let single = relay.post("/api/v1/messages", body.to_string()).await;
        let bulk = relay.post("/api/v1/messages/bulk", json!({"messages": [body]}).to_string()).await;
        let ids = [single.json()["message_id"].clone(), bulk.json()["results"][0]["message_id"].clone()];
        for id in ids {
            let id = id.as_str().unwrap_or_else(|| panic!("{members}: {single:?} {bulk:?}"));
            let mut message = relay.get(&format!("{PATH}/{id}")).await.json();
            let object = message.as_object_mut().expect("an object");
            object.retain(|name, _| !["message_id", "topic", "timestamp"].contains(&name.as_str()));
            assert_eq!(message, served, "{members}");
        }
    }
    for (members, field) in [
        (r#""payload":1,"payload_text":"a""#, "payload_text"),
        (r#""payload_text":"a","payload_base64":"""#, "payload_text"),
        (r#""payload":1,"payload_base64":"""#, "payload_base64"),
        (r#""payload_text":1"#, "payload_text"),
        (r#""payload_text":"\ud800""#, "payload_text"),
        (r#""payload_base64":"A""#, "payload_base64"),
        (r#""payload":1,"content_type":"text/plain""#, "content_type"),
        (r#""payload_text":"a","content_type":"""#, "content_type"),
        (r#""payload_text":"a","content_type":"a\nb""#, "content_type"),
        (r#""payload_text":"{","content_type":"a/b+json""#, "payload_text"),
        (r#""content_type":"text/plain""#, "payload"),
    ] {
        let body = format!(r#"{{"topic":"payload",{members}}}"#);
        let problem = relay.post("/api/v1/messages", &body).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)), "{members}");
        let bulk = relay.post("/api/v1/messages/bulk", format!(r#"{{"messages":[{body}]}}"#)).await.json();
        assert_eq!(bulk["results"][0]["code"], "invalid_field", "{members}: {bulk}");
    }
    relay.stop().await;
}

async fn headers_become_metadata(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let metadata = async |id: &str| relay.get(&format!("{PATH}/{id}")).await.json()["metadata"].clone();
    let send = async |more: &[(&str, &str)], kind: &str, body: &[u8]| {
        relay.send("POST", PATH, &[&[("content-type", kind)], more].concat(), body).await
    };
    let all = [
        ("Tidemill-Meta-Source", "web"),
        ("ce-id", "7"),
        ("Ce-SpecVersion", "1.0"),
        ("traceparent", "00-1"),
        ("x-other", "no"),
    ];
    let expected = json!({"source": "web", "ce-id": "7", "ce-specversion": "1.0", "traceparent": "00-1"});
    for kind in ["application/json", "text/plain"] {
        let answer = send(&all, kind, b"1").await.json();
        assert_eq!(metadata(answer["message_id"].as_str().expect("an id")).await, expected);
    }
    let lines = send(&all, "application/x-ndjson", b"1\n2\n").await.json();
    for result in lines["results"].as_array().expect("results") {
        assert_eq!(metadata(result["message_id"].as_str().expect("an id")).await, expected);
    }

    // A retry is part of another span, and the same message; with other metadata it is another one.
    let keyed = async |more: &[(&str, &str)]| {
        send(&[&[("idempotency-key", "once")], more].concat(), "text/plain", b"a").await
    };
    let first = keyed(&[("traceparent", "00-1"), ("ce-id", "7")]).await.json();
    for more in [&[("ce-id", "7"), ("traceparent", "00-2"), ("tracestate", "a=b")][..], &[("ce-id", "7")]] {
        let again = keyed(more).await;
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{again:?}");
        assert_eq!(again.json(), first);
    }
    assert_eq!(keyed(&[("ce-id", "8")]).await.problem().code, Code::KeyReused);

    for (more, field) in [
        (&[("ce-id", "1"), ("ce-id", "2")][..], "ce-id"),
        (&[("tidemill-meta-", "1")], "tidemill-meta-"),
        (&[("ce-id", "1"), ("tidemill-meta-ce-id", "1")], "tidemill-meta-ce-id"),
    ] {
        let problem = send(more, "text/plain", b"a").await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)));
    }
    for (path, body) in [
        ("/api/v1/messages", r#"{"topic":"payload","payload":1}"#),
        ("/api/v1/messages/bulk", r#"{"messages":[]}"#),
    ] {
        let headers = [("content-type", "application/json"), ("tidemill-meta-a", "1")];
        let problem = relay.send("POST", path, &headers, body.as_bytes()).await.problem();
        assert_eq!(problem.field.as_deref(), Some("tidemill-meta-a"), "{path}");
    }
    relay.stop().await;
}

/// The head of a stream has no body, however long one waits.
#[tokio::test]
async fn a_head_is_answered_wherever_there_is_a_get() {
    let relay = TestRelay::start(memory()).await;
    let id = publish(&relay, &[("content-type", "application/json")], b"1").await;
    let stream = "/api/v1/stream?topics=payload&after=earliest";
    for (path, accept, kind) in [
        (PATH, "*/*", "application/json"),
        (PATH, "text/event-stream", "text/event-stream"),
        (PATH, "application/x-ndjson", "application/x-ndjson"),
        (stream, "*/*", "text/event-stream"),
        (&format!("{PATH}/{id}"), "*/*", "application/json"),
        ("/api/v1/topics", "*/*", "application/json"),
        ("/health", "*/*", "application/json"),
    ] {
        let head = relay.send("HEAD", path, &[("accept", accept)], b"").await;
        assert_eq!((head.status, head.header("content-type")), (200, Some(kind)), "{path} as {accept}");
        assert!(head.body.is_empty(), "{head:?}");
    }
    relay.stop().await;
}

/// What `curl -d` says of every body that nobody has named.
#[tokio::test]
async fn a_form_is_refused_with_what_to_write() {
    let relay = TestRelay::start(memory()).await;
    for kind in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-URLencoded; charset=utf-8"] {
        for path in [PATH, "/api/v1/messages", "/api/v1/messages/bulk"] {
            let answer = relay.send("POST", path, &[("content-type", kind)], br#"{"a":1}"#).await;
            let problem = answer.problem();
            assert_eq!((problem.status, problem.code), (415, Code::UnsupportedMediaType), "{path}");
            assert!(problem.detail.contains("Content-Type: application/json"), "{}", problem.detail);
        }
    }
    assert_eq!(relay.get(PATH).await.status, 404, "nothing was kept");
    relay.stop().await;
}

/// What is no payload is not kept as one.
#[tokio::test]
async fn bodies_that_are_no_payload_are_refused_with_what_to_send() {
    let relay = TestRelay::start(memory()).await;
    for (kind, body, code, part) in [
        (Some("multipart/form-data; boundary=x"), "--x--", Code::UnsupportedMediaType, "--data-binary @FILE"),
        (Some("Multipart/Form-Data"), "", Code::UnsupportedMediaType, "--data-binary @FILE"),
        (Some("json"), "{}", Code::InvalidField, "`Content-Type` must be a media type"),
        (Some("text/"), "x", Code::InvalidField, "`Content-Type` must be a media type"),
        (Some("/plain; a=b/c"), "x", Code::InvalidField, "`Content-Type` must be a media type"),
        (None, "", Code::InvalidRequest, "the request has no body"),
        (Some("application/json"), "", Code::InvalidJson, "the body is empty"),
        (Some("application/json"), "1\n2\n", Code::InvalidJson, "application/x-ndjson"),
    ] {
        let headers: Vec<_> = kind.iter().map(|kind| ("content-type", *kind)).collect();
        let problem = relay.send("POST", PATH, &headers, body.as_bytes()).await.problem();
        assert_eq!(problem.code, code, "{kind:?}: {}", problem.detail);
        assert!(problem.detail.contains(part), "{part:?} is not in {}", problem.detail);
    }
    assert_eq!(relay.get(PATH).await.status, 404, "nothing was kept");
    let lines = [("content-type", "application/x-ndjson")];
    let answer = relay.send("POST", PATH, &lines, br#"{"a":1}{"a":2}"#).await.json();
    let error = answer["results"][0]["error"].as_str().expect("it is refused");
    assert!(
        error.starts_with("line 1: trailing characters at column 8; ") && error.contains("--data-binary"),
        "{error}"
    );
    relay.stop().await;
}

#[tokio::test]
async fn paths_say_what_they_take() {
    let relay = TestRelay::start(memory()).await;
    for (method, path, part) in [
        (
            "GET",
            "/api/v1/messages",
            "this path takes `POST`, to publish; messages are read with `GET /api/v1/topics/{topic}/messages`",
        ),
        ("PUT", PATH, "this path takes `GET` and `POST`: `GET` reads and `POST` publishes"),
        (
            "POST",
            "/api/v1/topics/t",
            "this path takes `GET` and `PUT` and `DELETE` and `PATCH`; messages are published",
        ),
        ("POST", "/api/v1/stream", "this path takes `GET`, to read"),
        ("GET", "/messages/poll", "this path takes `POST`"),
        ("GET", "/api/v1/topics/", "leave it out"),
        ("GET", "/nothing", "`/docs` lists the paths"),
        ("GET", "/api/v1/topics/a.*/messages", "is a pattern, and one topic is meant"),
    ] {
        let problem = relay.send(method, path, &[], b"").await.problem();
        assert!(problem.detail.contains(part), "{part:?} is not in {}", problem.detail);
    }
    relay.stop().await;
    let relay = TestRelay::start_with(memory(), |options| {
        (options.http.serve_docs, options.http.serve_metrics) = (false, false);
    })
    .await;
    for (path, setting) in
        [("/docs", "DOCS"), ("/openapi.json", "DOCS"), ("/", "DOCS"), ("/metrics", "METRICS")]
    {
        let detail = relay.get(path).await.problem().detail;
        assert!(detail.contains(&format!("(setting `TIDEMILL_{setting}`)")), "{path}: {detail}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn who_prefers_little_gets_what_was_rejected() {
    let relay = TestRelay::start(memory()).await;
    let send = async |path: &str, kind: &str, prefer: &str, body: &str| -> Answer {
        let headers = [("content-type", kind), ("prefer", prefer)];
        relay.send("POST", path, &headers, body.as_bytes()).await
    };
    let bulk = json!({"messages": [
        {"topic": "payload", "payload": 1},
        {"topic": "a/b", "payload": 2},
        {"topic": "payload", "payload": 3},
        {"topic": "payload"},
    ]})
    .to_string();
    let lines = "1\n\n{\n3\nx\n";
    for prefer in [
        "return=minimal",
        "respond-async, Return=\"minimal\"; foo=1",
        "handling=lenient,return=minimal",
        "return = minimal ; a=\"b, c\"; d",
        "a=\"b;c\", return=minimal, return=representation",
    ] {
        for (path, kind, body, indexes) in [
            ("/api/v1/messages/bulk", "application/json", bulk.as_str(), [1, 3]),
            (PATH, "application/x-ndjson", lines, [1, 3]),
        ] {
            let answer = send(path, kind, prefer, body).await;
            assert_eq!((answer.status, answer.header("preference-applied")), (207, Some("return=minimal")));
            let answer = answer.json();
            assert_eq!(answer["summary"], json!({"total": 4, "accepted": 2, "rejected": 2}));
            let results = answer["results"].as_array().expect("results");
            let told: Vec<_> = results.iter().map(|result| result["index"].clone()).collect();
            assert_eq!(told, indexes.map(Value::from), "{answer}");
            assert!(results.iter().all(|result| result["status"] == "rejected"), "{answer}");
        }
    }
    let many = "1\n".repeat(20_000);
    let answer = send(PATH, "application/x-ndjson", "return=minimal", &many).await;
    assert!(answer.body.len() < 200, "{} bytes for 20,000 messages", answer.body.len());
    for prefer in [
        "return=representation",
        "minimal",
        "return",
        "xreturn=minimal",
        "return=representation, return=minimal",
        "respond-async; return=minimal",
        "a=\"b, return=minimal\"",
        "a=\"b, return=minimal",
        "return=minimally",
    ] {
        let answer = send(PATH, "application/x-ndjson", prefer, "1\n").await;
        assert_eq!(answer.header("preference-applied"), None);
        let result = &answer.json()["results"][0];
        assert!(result["message_id"].is_string() && result.get("index").is_none(), "{result}");
    }
    relay.stop().await;
}

/// A payload of the default limit is a frame that common libraries take, in whatever form it comes.
#[tokio::test]
async fn the_largest_message_fits_the_frames_of_libraries() {
    use tidemill::proto::limits::{LIBRARY_FRAME_BYTES, METADATA_BYTES_MAX, PAYLOAD_BYTES_DEFAULT};

    let relay = TestRelay::start_with(memory(), |options| {
        options.relay.payload_bytes_max = PAYLOAD_BYTES_DEFAULT;
    })
    .await;
    let mut client = crate::support::ws::WsClient::connect(relay.address).await;
    let topic = "t".repeat(255);
    let metadata = format!(r#"{{"k":"{}"}}"#, "m".repeat(METADATA_BYTES_MAX - 8));
    let json = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_DEFAULT - 2));
    let newlines = "\n".repeat(PAYLOAD_BYTES_DEFAULT);
    let bytes = "\0".repeat(PAYLOAD_BYTES_DEFAULT);
    let mut ids = Vec::new();
    for (kind, payload) in [("application/x+json", &json), ("text/plain", &newlines), ("a/b", &bytes)] {
        use base64::Engine as _;

        let base64 = base64::engine::general_purpose::STANDARD.encode(payload);
        let frame = format!(
            r#"{{"type":"publish","topic":"{topic}","payload_base64":"{base64}","content_type":"{kind}","metadata":{metadata}}}"#
        );
        let published = client.ask(frame, "published").await;
        ids.push(published["message_id"].clone());
    }
    let mut reader = crate::support::ws::WsClient::connect(relay.address).await;
    reader.subscribe(&topic, "earliest").await;
    for id in ids {
        let Some(Ok(tokio_tungstenite::tungstenite::Message::Text(text))) = reader.next().await else {
            panic!("a message")
        };
        assert!(text.len() <= LIBRARY_FRAME_BYTES, "{} bytes", text.len());
        let message: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(message["message_id"], id);
    }
    relay.stop().await;
}
