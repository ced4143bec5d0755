//! Bad input: a problem document that names the field and the rule, and nothing is changed.

use tidemill::proto::Code;
use tidemill::storage::Storage;

use super::on_every_backend;
use crate::support::relay::TestRelay;

const JSON: (&str, &str) = ("content-type", "application/json");
const MESSAGES: &str = "/api/v1/messages";

on_every_backend![
    a_bad_publish_is_refused,
    a_bad_parameter_is_refused,
    a_bad_topic_body_is_refused,
    wrong_methods_paths_and_types_are_refused,
    large_things_are_refused,
];

/// A publish that is refused: what is wrong with it, its body, and the code and field of the problem.
type Bad = (&'static str, Vec<u8>, Code, Option<&'static str>);

fn topic(name: &str) -> Vec<u8> {
    format!(r#"{{"topic":"{name}","payload":1}}"#).into_bytes()
}

fn payload(text: &str) -> Vec<u8> {
    format!(r#"{{"topic":"bad","payload":{text}}}"#).into_bytes()
}

fn with(field: &str) -> Vec<u8> {
    format!(r#"{{"topic":"bad","payload":1,{field}}}"#).into_bytes()
}

fn deep(open: &str, close: &str, depth: usize) -> Vec<u8> {
    payload(&format!("{}1{}", open.repeat(depth), close.repeat(depth)))
}

fn not_json() -> Vec<Bad> {
    let bad = [
        ("nothing", Vec::new()),
        ("not JSON", b"topic=a".to_vec()),
        ("cut short", br#"{"topic":"bad","payload":{"#.to_vec()),
        ("more than one value", br#"{"topic":"bad","payload":1}{}"#.to_vec()),
        ("NaN", payload("NaN")),
        ("Infinity", payload("-Infinity")),
        ("a leading zero", payload("01")),
        ("a trailing comma", payload("[1,]")),
        ("a bare control character", payload("\"\u{1}\"")),
        ("a comment", payload("/* */ 1")),
        ("not UTF-8", b"{\"topic\":\"bad\",\"payload\":\"\xff\xfe\"}".to_vec()),
        ("overlong UTF-8", b"{\"topic\":\"bad\",\"payload\":\"\xc0\xaf\"}".to_vec()),
        ("an encoded surrogate", b"{\"topic\":\"bad\",\"payload\":\"\xed\xa0\x80\"}".to_vec()),
    ];
    bad.into_iter().map(|(name, body)| (name, body, Code::InvalidJson, None)).collect()
}

fn bad_shapes() -> Vec<Bad> {
    let large = format!(r#""metadata":{{"a":"{}"}}"#, "x".repeat(70_000));
    let bad = [
        ("a list", b"[]".to_vec(), None),
        ("a string", b"\"a\"".to_vec(), None),
        ("no topic", br#"{"payload":1}"#.to_vec(), Some("topic")),
        ("no payload", br#"{"topic":"bad"}"#.to_vec(), Some("payload")),
        ("a topic twice", br#"{"topic":"bad","topic":"bad","payload":1}"#.to_vec(), Some("topic")),
        ("a payload twice", with(r#""payload":2"#), Some("payload")),
        ("an unknown field", with(r#""metdata":{}"#), Some("metdata")),
        ("a key in the body", with(r#""key":"k""#), Some("key")),
        ("metadata that is a list", with(r#""metadata":[]"#), Some("metadata")),
        ("metadata that is text", with(r#""metadata":"{}""#), Some("metadata")),
        ("large metadata", with(&large), Some("metadata")),
        ("no time to live", with(r#""ttl":0"#), Some("ttl")),
        ("a negative time to live", with(r#""ttl":-1"#), Some("ttl")),
        ("a fractional time to live", with(r#""ttl":1.5"#), Some("ttl")),
        ("a time to live in words", with(r#""ttl":"soon""#), Some("ttl")),
        ("a time to live of half a second", with(r#""ttl":"500ms""#), Some("ttl")),
        ("a time to live of more than ten years", with(r#""ttl":"3651d""#), Some("ttl")),
        ("a time to live past 64 bits", with(r#""ttl":99999999999999999999"#), Some("ttl")),
        ("an endless time to live", with(r#""ttl":1e9"#), Some("ttl")),
        ("121 lists", deep("[", "]", 121), Some("payload")),
        ("121 objects", deep(r#"{"a":"#, "}", 121), Some("payload")),
        ("half a surrogate pair", payload(r#"["a","\ud800"]"#), Some("payload")),
        ("half a surrogate pair as a key", payload(r#"{"\udfff":1}"#), Some("payload")),
        ("metadata with half a surrogate pair", with(r#""metadata":{"a":"\udc00\ud800"}"#), Some("metadata")),
        (
            "deep metadata",
            with(&format!(r#""metadata":{{"a":{}{}}}"#, "[".repeat(120), "]".repeat(120))),
            Some("metadata"),
        ),
        ("a hundred thousand lists", deep("[", "]", 100_000), Some("payload")),
    ];
    bad.into_iter().map(|(name, body, field)| (name, body, Code::InvalidField, field)).collect()
}

fn bad_topics() -> Vec<Bad> {
    let bad = [
        ("a topic that is a number", br#"{"topic":1,"payload":1}"#.to_vec()),
        ("a topic that is null", br#"{"topic":null,"payload":1}"#.to_vec()),
        ("an empty topic", topic("")),
        ("a slash", topic("a/b")),
        ("a blank", topic("a b")),
        ("a line break", topic(r"a\r\nb")),
        ("an escape for a terminal", topic(r"a\u001b[31m")),
        ("a line separator", topic(r"a\u2028b")),
        ("a NUL", topic(r"a\u0000")),
        ("a hash tag", topic("x} {y")),
        ("a dollar", topic("$all")),
        ("two dots", topic("..")),
        ("half a surrogate pair", topic(r"a\ud800")),
        ("256 characters", topic(&"x".repeat(256))),
    ];
    bad.into_iter().map(|(name, body)| (name, body, Code::InvalidField, Some("topic"))).collect()
}

async fn a_bad_publish_is_refused(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for (name, body, code, field) in not_json().into_iter().chain(bad_shapes()).chain(bad_topics()) {
        let problem = relay.send("POST", MESSAGES, &[JSON], &body).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (code, field), "{name}: {problem:?}");
        assert_eq!((problem.status, problem.retryable), (400, false), "{name}");
        let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        assert!(problem.detail.bytes().all(printable), "{name}: {problem:?}");
    }
    assert_eq!(relay.get("/api/v1/topics/bad").await.status, 404, "nothing was changed");
    assert_eq!(relay.send("POST", MESSAGES, &[JSON], &deep("[", "]", 120)).await.status, 201);
    let page = relay.get("/api/v1/topics/bad/messages").await.json();
    assert!(page["messages"][0]["payload"].is_array(), "what is allowed can be read by common readers");
    let problem = relay.post(MESSAGES, "{\n \"topic\": nope}").await.problem();
    assert!(problem.detail.contains("line 2 column"), "{}", problem.detail);
    for key in ["", "two words", "caf\u{e9}", &"k".repeat(256)] {
        let headers = [JSON, ("idempotency-key", key)];
        let problem = relay.send("POST", MESSAGES, &headers, &payload("1")).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("Idempotency-Key")), "{key:?}");
    }
    assert_eq!(relay.get("/api/v1/topics/bad").await.json()["length"], 1, "nothing else was changed");
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
        ("after=2026-01-01T00:00:00+24:00", "after"),
        ("after=2026-01-01T00:00:00-25:00", "after"),
        ("after=0001-01-01T00:00:00%2B25:00", "after"),
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
        ("/api/v1/topics?match=", "match"),
        ("/api/v1/topics?match=.*", "match"),
        ("/api/v1/topics?match=orders.", "match"),
        ("/api/v1/topics?match=a%2F*", "match"),
        ("/api/v1/topics?match=a+*", "match"),
        ("/api/v1/topics?match=*********", "match"),
        ("/api/v1/topics?match=a*&match=b*", "match"),
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
        (r#"{"topic_name":"bad.topic","max_messages":0}"#, Some("max_messages")),
        (r#"{"topic_name":"bad.topic","max_messages":"7"}"#, Some("max_messages")),
        (r#"{"topic_name":"bad.topic","max_bytes":-1}"#, Some("max_bytes")),
        (r#"{"topic_name":"bad.topic","when_full":"drop"}"#, Some("when_full")),
        (r#"{"topic_name":"bad.topic","when_full":1}"#, Some("when_full")),
        (r#"{"topic_name":"bad.topic","keep_until_acked":"yes"}"#, Some("keep_until_acked")),
        (r#"{"topic_name":"bad.topic","idle_seconds":0}"#, Some("idle_seconds")),
        (r#"{"topic_name":"bad.topic","idle_seconds":3153600001}"#, Some("idle_seconds")),
        (r#"{"topic_name":"bad.topic","compact_by":""}"#, Some("compact_by")),
        (r#"{"topic_name":"bad.topic","compact_by":7}"#, Some("compact_by")),
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
        ("POST", "/api/v1/topics/a", "DELETE,GET,HEAD,PATCH,PUT"),
        ("PUT", "/api/v1/topics/a/messages", "GET,HEAD,POST"),
        ("BREW", "/api/v1/topics/a/trim", "POST"),
        ("POST", "/api/v1/topics/stats", "DELETE,GET,HEAD,PATCH,PUT"),
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
    assert!(problem.detail.contains("MAX_BODY_BYTES"), "{}", problem.detail);
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

#[tokio::test]
async fn a_parameter_that_a_path_does_not_have_is_refused_on_every_path() {
    let relay = TestRelay::start(crate::support::relay::memory()).await;
    relay.publish("known", "1").await;
    let document = relay.get("/openapi.json").await.json();
    let described = document["paths"].as_object().expect("paths").iter().flat_map(|(path, item)| {
        item.as_object().expect("operations").keys().map(|method| (method.to_uppercase(), path.clone()))
    });
    let undescribed =
        ["/ws", "/asyncapi.json", "/", "/problems"].map(|path| ("GET".to_owned(), path.to_owned()));
    let of_stats = ["PUT", "DELETE"].map(|method| (method.to_owned(), "/api/v1/topics/stats".to_owned()));
    let mut seen = 0;
    for (method, path) in described.chain(undescribed).chain(of_stats) {
        let path = path.replace("{topic}", "known").replace("{message_id}", "1-0").replace("{group}", "g");
        let path = path.replace("{schedule_id}", "1-0").replace("{name}", "n");
        let path = path.replace("{bucket}", "b").replace("{key}", "k").replace("{lock}", "l");
        let path = path.replace("{room}", "r").replace("{member}", "m");
        let path = path.replace("{lock}", "l").replace("{lease}", &"0".repeat(32)).replace("{series}", "s");
        for query in ["ttl_=5", "made_up", "%6dade_up=1&made_up=2", "TOPICS=known"] {
            let json = [("content-type", "application/json")];
            let answer = relay.send(&method, &format!("{path}?{query}"), &json, b"{}").await;
            assert_eq!(answer.status, 400, "{method} {path}?{query}: {answer:?}");
            let problem = answer.problem();
            assert_eq!(problem.code, Code::InvalidField, "{method} {path}?{query}");
            assert!(problem.detail.contains("is not a parameter of this path"), "{}", problem.detail);
            seen += 1;
        }
    }
    assert!(seen > 80, "the paths are found");
    let kept = relay.post("/api/v1/messages?ttl=5", r#"{"topic":"known","payload":2}"#).await;
    assert_eq!(kept.problem().field.as_deref(), Some("ttl"));
    assert_eq!(relay.get("/api/v1/topics/known").await.json()["length"], 1);
    relay.stop().await;
}
