//! Bad input: a problem document that names the field and the rule, and nothing is changed.

use tidemill::proto::Code;
use tidemill::storage::Storage;

use super::on_memory;
use crate::support::relay::TestRelay;

const JSON: (&str, &str) = ("content-type", "application/json");
const MESSAGES: &str = "/api/v1/messages";

on_memory![
    a_bad_publish_is_refused,
    a_bad_parameter_is_refused,
    a_bad_topic_body_is_refused,
    wrong_methods_paths_and_types_are_refused,
    large_things_are_refused,
];

async fn a_bad_publish_is_refused(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let before = relay.total_messages().await;
    let topic = |name: &str| format!(r#"{{"topic":"{name}","payload":1}}"#).into_bytes();
    let payload = |text: &str| format!(r#"{{"topic":"bad","payload":{text}}}"#).into_bytes();
    let with = |field: &str| format!(r#"{{"topic":"bad","payload":1,{field}}}"#).into_bytes();
    let deep = |open: &str, close: &str, depth: usize| {
        payload(&format!("{}1{}", open.repeat(depth), close.repeat(depth)))
    };
    let long = "x".repeat(256);
    for (name, body, code, field) in [
        ("nothing", Vec::new(), Code::InvalidJson, None),
        ("not JSON", b"topic=a".to_vec(), Code::InvalidJson, None),
        ("cut short", br#"{"topic":"bad","payload":{"#.to_vec(), Code::InvalidJson, None),
        ("more than one value", br#"{"topic":"bad","payload":1}{}"#.to_vec(), Code::InvalidJson, None),
        ("NaN", payload("NaN"), Code::InvalidJson, None),
        ("Infinity", payload("-Infinity"), Code::InvalidJson, None),
        ("a leading zero", payload("01"), Code::InvalidJson, None),
        ("a trailing comma", payload("[1,]"), Code::InvalidJson, None),
        ("a bare control character", payload("\"\u{1}\""), Code::InvalidJson, None),
        ("a comment", payload("/* */ 1"), Code::InvalidJson, None),
        ("not UTF-8", b"{\"topic\":\"bad\",\"payload\":\"\xff\xfe\"}".to_vec(), Code::InvalidJson, None),
        ("overlong UTF-8", b"{\"topic\":\"bad\",\"payload\":\"\xc0\xaf\"}".to_vec(), Code::InvalidJson, None),
        (
            "an encoded surrogate",
            b"{\"topic\":\"bad\",\"payload\":\"\xed\xa0\x80\"}".to_vec(),
            Code::InvalidJson,
            None,
        ),
        ("a list", b"[]".to_vec(), Code::InvalidField, None),
        ("a string", b"\"a\"".to_vec(), Code::InvalidField, None),
        ("no topic", br#"{"payload":1}"#.to_vec(), Code::InvalidField, Some("topic")),
        ("no payload", br#"{"topic":"bad"}"#.to_vec(), Code::InvalidField, Some("payload")),
        (
            "a topic that is a number",
            br#"{"topic":1,"payload":1}"#.to_vec(),
            Code::InvalidField,
            Some("topic"),
        ),
        (
            "a topic that is null",
            br#"{"topic":null,"payload":1}"#.to_vec(),
            Code::InvalidField,
            Some("topic"),
        ),
        ("an empty topic", topic(""), Code::InvalidField, Some("topic")),
        ("a slash", topic("a/b"), Code::InvalidField, Some("topic")),
        ("a blank", topic("a b"), Code::InvalidField, Some("topic")),
        ("a line break", topic(r"a\r\nb"), Code::InvalidField, Some("topic")),
        ("an escape for a terminal", topic(r"a\u001b[31m"), Code::InvalidField, Some("topic")),
        ("a line separator", topic(r"a\u2028b"), Code::InvalidField, Some("topic")),
        ("a NUL", topic(r"a\u0000"), Code::InvalidField, Some("topic")),
        ("a hash tag", topic("x} {y"), Code::InvalidField, Some("topic")),
        ("a dollar", topic("$all"), Code::InvalidField, Some("topic")),
        ("two dots", topic(".."), Code::InvalidField, Some("topic")),
        ("half a surrogate pair", topic(r"a\ud800"), Code::InvalidField, Some("topic")),
        ("256 characters", topic(&long), Code::InvalidField, Some("topic")),
        (
            "a topic twice",
            br#"{"topic":"a","topic":"b","payload":1}"#.to_vec(),
            Code::InvalidField,
            Some("topic"),
        ),
        ("a payload twice", with(r#""payload":2"#), Code::InvalidField, Some("payload")),
        ("an unknown field", with(r#""metdata":{}"#), Code::InvalidField, Some("metdata")),
        ("a key in the body", with(r#""key":"k""#), Code::InvalidField, Some("key")),
        ("metadata that is a list", with(r#""metadata":[]"#), Code::InvalidField, Some("metadata")),
        ("metadata that is text", with(r#""metadata":"{}""#), Code::InvalidField, Some("metadata")),
        (
            "large metadata",
            with(&format!(r#""metadata":{{"a":"{}"}}"#, "x".repeat(70_000))),
            Code::InvalidField,
            Some("metadata"),
        ),
        ("no time to live", with(r#""ttl":0"#), Code::InvalidField, Some("ttl")),
        ("a negative time to live", with(r#""ttl":-1"#), Code::InvalidField, Some("ttl")),
        ("a fractional time to live", with(r#""ttl":1.5"#), Code::InvalidField, Some("ttl")),
        ("a time to live that is text", with(r#""ttl":"60""#), Code::InvalidField, Some("ttl")),
        (
            "a time to live past 64 bits",
            with(r#""ttl":99999999999999999999"#),
            Code::InvalidField,
            Some("ttl"),
        ),
        ("an endless time to live", with(r#""ttl":1e9"#), Code::InvalidField, Some("ttl")),
        ("129 lists", deep("[", "]", 129), Code::InvalidField, Some("payload")),
        ("129 objects", deep(r#"{"a":"#, "}", 129), Code::InvalidField, Some("payload")),
        ("a hundred thousand lists", deep("[", "]", 100_000), Code::InvalidField, Some("payload")),
    ] {
        let problem = relay.send("POST", MESSAGES, &[JSON], &body).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (code, field), "{name}: {problem:?}");
        assert_eq!((problem.status, problem.retryable), (400, false), "{name}");
        assert!(
            problem.detail.is_ascii() && !problem.detail.contains(['\r', '\n', '\u{1b}']),
            "{name}: {problem:?}"
        );
    }
    assert_eq!(relay.send("POST", MESSAGES, &[JSON], &deep("[", "]", 128)).await.status, 201);
    assert_eq!(relay.total_messages().await, before + 1, "nothing else was changed");
    let problem = relay.post(MESSAGES, "{\n \"topic\": nope}").await.problem();
    assert!(problem.detail.contains("line 2 column"), "{}", problem.detail);
    for key in ["", "two words", "caf\u{e9}", &"k".repeat(256)] {
        let headers = [JSON, ("idempotency-key", key)];
        let problem = relay.send("POST", MESSAGES, &headers, &payload("1")).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("Idempotency-Key")), "{key:?}");
    }
    assert_eq!(relay.total_messages().await, before + 1);
    relay.stop().await;
}

async fn a_bad_parameter_is_refused(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("bad.query", "1").await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=%2B5", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("order=up", "order"),
        ("order=ASC", "order"),
        ("cursor=", "cursor"),
        ("cursor=1", "cursor"),
        ("cursor=1-2-3", "cursor"),
        ("cursor=latest", "cursor"),
        ("cursor=%ff", "cursor"),
        ("after=", "after"),
        ("after=yesterday", "after"),
        ("after=2026-13-01T00:00:00Z", "after"),
        ("after=-10y", "after"),
        ("after=10m", "after"),
        ("after=1-1&cursor=1-1", "after"),
        ("after=1-1&order=desc", "after"),
        ("limit=1&limit=2", "limit"),
        ("page=2", "page"),
        ("limt=2", "limt"),
    ] {
        let problem = relay.get(&format!("/api/v1/topics/bad.query/messages?{query}")).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)), "{query}");
    }
    let hint = relay.get("/api/v1/topics/bad.query/messages?limt=2").await.problem().detail;
    assert!(hint.contains("did you mean `limit`?"), "{hint}");
    for (path, field) in [
        ("/api/v1/topics?limit=1001", "limit"),
        ("/api/v1/topics?cursor=a%2Fb", "cursor"),
        ("/api/v1/topics?order=asc", "order"),
        ("/api/v1/topics/stats?x=1", "x"),
        ("/api/v1/topics/bad.query?x=1", "x"),
        ("/api/v1/topics/bad.query/messages/1-1?x=1", "x"),
        ("/api/v1/topics/bad.query/messages/one", "message_id"),
        ("/api/v1/topics/a%2Fb", "topic"),
        ("/api/v1/topics/a%0d%0ab/messages", "topic"),
        ("/api/v1/topics/%ff/messages", "topic"),
    ] {
        let problem = relay.get(path).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)), "{path}");
    }
    let path = "/api/v1/topics/bad.query/messages?ttl=soon";
    let problem = relay.send("POST", path, &[JSON], b"1").await.problem();
    assert_eq!((problem.status, problem.field.as_deref()), (400, Some("ttl")));
    relay.stop().await;
}

async fn a_bad_topic_body_is_refused(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let long = format!(r#"{{"topic_name":"bad.topic","description":"{}"}}"#, "x".repeat(4_097));
    for (body, field) in [
        ("{}", Some("topic_name")),
        (r#"{"topic_name":""}"#, Some("topic_name")),
        (r#"{"topic_name":"a/b"}"#, Some("topic_name")),
        (r#"{"topic_name":"bad.topic","description":1}"#, Some("description")),
        (&*long, Some("description")),
        (r#"{"topic_name":"bad.topic","retention_seconds":0}"#, Some("retention_seconds")),
        (r#"{"topic_name":"bad.topic","retention_seconds":1.5}"#, Some("retention_seconds")),
        (r#"{"topic_name":"bad.topic","owner_id":"me"}"#, Some("owner_id")),
        ("[]", None),
    ] {
        let problem = relay.post("/api/v1/topics", body).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, field), "{body}");
    }
    assert_eq!(relay.get("/api/v1/topics/bad.topic").await.status, 404, "nothing was created");
    let large = relay.post("/api/v1/topics", vec![b' '; 70_000]).await.problem();
    assert_eq!(large.code, Code::TooLarge);
    relay.stop().await;
}

async fn wrong_methods_paths_and_types_are_refused(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for (method, path, allow) in [
        ("GET", "/api/v1/messages", "POST"),
        ("DELETE", "/api/v1/topics", "GET,HEAD,POST"),
        ("POST", "/health", "GET,HEAD"),
        ("PATCH", "/api/v1/topics/a", "DELETE,GET,HEAD,PUT"),
        ("PUT", "/api/v1/topics/a/messages", "GET,HEAD,POST"),
        ("BREW", "/api/v1/topics/a/trim", "POST"),
        ("POST", "/api/v1/topics/stats", "DELETE,GET,HEAD,PUT"),
    ] {
        let answer = relay.send(method, path, &[], b"").await;
        assert_eq!(answer.problem().code, Code::MethodNotAllowed, "{method} {path}");
        let mut allowed: Vec<_> = answer.header("allow").expect("a list").split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {path}");
    }
    for path in
        ["/nothing", "/api/v1", "/api/v1/topics/", "/api/v1/topics/a/b/c", "/api/v2/messages", "//health"]
    {
        assert_eq!(relay.get(path).await.problem().code, Code::NotFound, "{path}");
    }
    let body = br#"{"topic":"bad.type","payload":1}"#;
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "application/x-ndjson", "application/jsonp"]
    {
        for path in [MESSAGES, "/api/v1/messages/bulk", "/api/v1/topics", "/api/v1/topics/a/trim"] {
            let problem = relay.send("POST", path, &[("content-type", content_type)], body).await.problem();
            assert_eq!(problem.code, Code::UnsupportedMediaType, "{content_type} {path}");
            assert!(problem.detail.contains("application/json"), "{}", problem.detail);
        }
    }
    let twice = [("content-type", "text/plain"), ("content-type", "text/html")];
    for (headers, name) in [(&twice[..], "two types"), (&[("content-type", "")], "an empty one")] {
        let problem = relay.send("POST", "/api/v1/topics/bad.type/messages", headers, b"1").await.problem();
        assert_eq!(problem.field.as_deref(), Some("Content-Type"), "{name}");
    }
    let long = format!("text/{}", "x".repeat(300));
    let problem =
        relay.send("POST", "/api/v1/topics/bad.type/messages", &[("content-type", &long)], b"1").await;
    assert_eq!(problem.problem().field.as_deref(), Some("Content-Type"));
    assert_eq!(relay.get("/api/v1/topics/bad.type").await.status, 404, "nothing was changed");
    relay.stop().await;
}

async fn large_things_are_refused(storage: Storage) {
    let relay = TestRelay::start_with(storage, |options| {
        options.relay.payload_bytes_max = 1_000;
        options.http.body_bytes_max = 300_000;
    })
    .await;
    let text = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
    let path = "/api/v1/topics/bad.large/messages";
    assert_eq!(relay.send("POST", path, &[JSON], text(1_000).as_bytes()).await.status, 201);
    let envelope = |len| format!(r#"{{"topic":"bad.large","payload":{}}}"#, text(len));
    assert_eq!(relay.post(MESSAGES, envelope(1_000)).await.status, 201);
    let too_large = relay.post(MESSAGES, envelope(1_001)).await.problem();
    assert_eq!((too_large.code, too_large.field.as_deref()), (Code::TooLarge, Some("payload")));
    assert!(too_large.detail.contains("1000") && too_large.detail.contains("TIDEMILL_PAYLOAD_BYTES_MAX"));
    for content_type in ["application/json", "text/plain"] {
        let headers = [("content-type", content_type)];
        let problem = relay.send("POST", path, &headers, text(1_001).as_bytes()).await.problem();
        assert_eq!(problem.code, Code::TooLarge, "{content_type}");
    }
    let bulk = relay.post("/api/v1/messages/bulk", format!(r#"{{"messages":[{}]}}"#, envelope(1_001))).await;
    assert_eq!(bulk.json()["results"][0]["code"], "too_large");
    let body = format!(r#"{{"messages":[{}]}}"#, " ".repeat(300_000));
    let problem = relay.post("/api/v1/messages/bulk", body).await.problem();
    assert_eq!(problem.code, Code::TooLarge);
    assert!(problem.detail.contains("TIDEMILL_MAX_BODY_BYTES"), "{}", problem.detail);
    // Ten megabytes of brackets are refused for their size before anybody looks inside.
    let nested = format!(r#"{{"topic":"bad.large","payload":{}"#, "[".repeat(10 * 1024 * 1024));
    assert_eq!(relay.post(MESSAGES, nested).await.problem().code, Code::TooLarge);
    assert_eq!(relay.get("/api/v1/topics/bad.large").await.json()["length"], 2, "nothing else was kept");

    let header = "x".repeat(9_000);
    let headers = relay.send("GET", "/health", &[("x-large", &header)], b"").await;
    assert_eq!((headers.status, headers.problem().code), (431, Code::HeadersTooLarge));
    let path = relay.get(&format!("/{header}")).await;
    assert_eq!(path.problem().code, Code::HeadersTooLarge);
    let endless = relay.send("GET", "/health", &[("x-large", &"x".repeat(1_000_000))], b"").await;
    assert_eq!(endless.status, 431);
    let many: Vec<_> = (0..500).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(relay.send("GET", "/health", &many, b"").await.status, 431);
    relay.stop().await;
}
