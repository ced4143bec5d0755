//! One key over HTTP: what is put comes back, conditions hold, and numbers are exact.

use serde_json::{Value, json};
use tidemill::features::Feature;
use tidemill::proto::Timestamp;
use tidemill::storage::Storage;

use super::{JSON, bucket, delete, get, not_so, on_both_backends, post, put, revision};
use crate::support::relay::{TestRelay, memory};

on_both_backends![
    a_value_comes_back_as_it_was_put,
    curl_puts_what_who_uses_it_means,
    a_browser_runs_nothing_of_a_value,
    compare_and_set_lets_one_of_two_win,
    a_reader_that_has_it_is_told_so,
    deleting_says_whether_it_was_there,
    an_increment_is_exact_and_keeps_its_bounds,
    a_repeat_under_a_key_changes_nothing,
    a_bucket_that_is_full_says_so,
    what_is_counted_is_shown,
    a_relay_that_makes_no_topics_makes_no_buckets,
    who_makes_no_key_makes_no_bucket,
];

async fn a_value_comes_back_as_it_was_put(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let large = vec![b'x'; 1024 * 1024];
    let json = br#" {"n": 1.10, "a":"\u00e9"} "#;
    for (at, (kind, value)) in [
        (Some("application/json"), &json[..]),
        (Some("application/json"), b"null"),
        (Some("application/geo+json"), b"[ ]"),
        (Some("text/plain; charset=utf-8"), "é\r\n".as_bytes()),
        (Some("text/plain"), b""),
        (Some("image/png"), &all_bytes),
        (Some("application/x-ndjson"), b"1\n2\n"),
        (Some("application/octet-stream"), &large),
        (None, b"\0"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/api/v1/keys/b/k{at}");
        let headers: Vec<_> = kind.map(|kind| ("content-type", kind)).into_iter().collect();
        let answer = relay.send("PUT", &path, &headers, value).await;
        assert_eq!(answer.status, 201, "{kind:?}: {answer:?}");
        let told = answer.json();
        assert_eq!((&told["bucket"], &told["key"]), (&json!("b"), &json!(format!("k{at}"))));
        assert_eq!(told.as_object().expect("an object").len(), 3, "{told}");
        let is = revision(&answer);
        let accepting = relay.send("GET", &path, &[("accept-encoding", "gzip")], b"").await;
        assert_eq!(accepting.header("content-encoding"), None, "the `ETag` is of these bytes");
        for (method, answer) in [("GET", accepting), ("HEAD", relay.send("HEAD", &path, &[], b"").await)] {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.header("content-type"), Some(kind.unwrap_or("application/octet-stream")));
            assert_eq!(answer.header("content-length"), Some(value.len().to_string().as_str()));
            assert_eq!(answer.header("etag"), Some(format!("\"{is}\"").as_str()));
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
            let created = answer.header("tidemill-created-at").expect("a time");
            assert!(Timestamp::parse(created).is_ok(), "{created}");
            assert_eq!((answer.header("tidemill-expires-at"), answer.header("tidemill-owner")), (None, None));
            assert_eq!(answer.body == value, method == "GET" || value.is_empty(), "{kind:?}");
        }
    }
    let again = put(&relay, "b/k0", &[], "2").await;
    assert_eq!((again.status, get(&relay, "b/k0").await.text()), (200, "2"));
    relay.stop().await;
}

async fn curl_puts_what_who_uses_it_means(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    for (body, kind) in [
        (r#"{"a":1}"#, "application/json"),
        ("a=1&b=2", "application/x-www-form-urlencoded"),
        ("hello", "application/x-www-form-urlencoded"),
    ] {
        let answer = relay.send("PUT", "/api/v1/keys/b/k", &[form], body.as_bytes()).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        let answer = get(&relay, "b/k").await;
        assert_eq!((answer.text(), answer.header("content-type")), (body, Some(kind)));
    }
    relay.stop().await;
}

async fn a_browser_runs_nothing_of_a_value(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for (kind, disposition) in [
        ("text/html", "attachment; filename=\"b-k\""),
        ("image/svg+xml", "attachment; filename=\"b-k\""),
        ("text/plain", "inline"),
    ] {
        relay.send("PUT", "/api/v1/keys/b/k", &[("content-type", kind)], b"<script>1</script>").await;
        let answer = get(&relay, "b/k").await;
        for (name, value) in [
            ("content-type", kind),
            ("content-disposition", disposition),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{kind}");
        }
    }
    let origin = ("origin", "https://allowed.example");
    let answer = relay.send("GET", "/api/v1/keys/b/k", &[origin], b"").await;
    let exposed = answer.header("access-control-expose-headers").expect("what pages may read");
    for name in ["etag", "tidemill-created-at", "tidemill-expires-at", "tidemill-owner"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    relay.stop().await;
}

async fn compare_and_set_lets_one_of_two_win(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let absent = ("if-none-match", "*");
    assert_eq!(not_so(&put(&relay, "b/k", &[("if-match", "*")], "0").await), None, "it is not there");
    assert_eq!(not_so(&put(&relay, "b/k", &[("if-match", "\"1-0\"")], "0").await), None);
    let first = put(&relay, "b/k", &[absent], "1").await;
    assert_eq!(first.status, 201, "{first:?}");
    let first = revision(&first);
    assert_eq!(not_so(&put(&relay, "b/k", &[absent], "0").await), Some(first.clone()));
    let tag = format!("\"{first}\"");
    let second = put(&relay, "b/k", &[("if-match", &tag)], "2").await;
    assert_eq!(second.status, 200, "{second:?}");
    let second = revision(&second);
    assert_ne!(first, second);
    assert_eq!(not_so(&put(&relay, "b/k", &[("if-match", &tag)], "3").await), Some(second.clone()));
    assert_eq!(not_so(&delete(&relay, "b/k", &[("if-match", &tag)]).await), Some(second.clone()));
    let increment = post(&relay, "b/k/increment", &[("if-match", &tag)], "{}").await;
    assert_eq!(not_so(&increment), Some(second.clone()));
    assert_eq!(get(&relay, "b/k").await.text(), "2", "nothing was changed");
    // Many who have read the same: one of them wins.
    let puts = (0..16).map(|number| {
        let (relay, tag) = (&relay, format!("\"{second}\""));
        async move { put(relay, "b/k", &[("if-match", tag.as_str())], &number.to_string()).await.status }
    });
    let statuses = futures_util::future::join_all(puts).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 412)), "{statuses:?}");
    relay.stop().await;
}

async fn a_reader_that_has_it_is_told_so(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let is = revision(&put(&relay, "b/k", &[], "1").await);
    let ask = async |known: &str| {
        let known = [("if-none-match", known)];
        relay.send("GET", "/api/v1/keys/b/k", &known, b"").await
    };
    for known in [format!("\"{is}\""), format!("W/\"{is}\""), format!("\"1-0\", \"{is}\""), "*".to_owned()] {
        let answer = ask(&known).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{known}");
        assert_eq!(answer.header("etag"), Some(format!("\"{is}\"").as_str()));
    }
    for known in ["\"1-0\"", "\"x\""] {
        assert_eq!(ask(known).await.text(), "1", "{known}");
    }
    put(&relay, "b/k", &[], "2").await;
    assert_eq!(ask(&format!("\"{is}\"")).await.text(), "2");
    relay.stop().await;
}

async fn deleting_says_whether_it_was_there(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let code = async |path: &str| get(&relay, path).await.problem().code.as_str().to_owned();
    assert_eq!(code("b/k").await, "key_not_found", "there is no such bucket either");
    assert_eq!(delete(&relay, "b/k", &[]).await.problem().code.as_str(), "key_not_found");
    let put = revision(&put(&relay, "b/k", &[], "1").await);
    let gone = delete(&relay, "b/k", &[("if-match", &format!("\"{put}\""))]).await;
    assert_eq!(gone.status, 200, "{gone:?}");
    assert_ne!(revision(&gone), put, "it is a change of its own");
    assert_eq!(code("b/k").await, "key_not_found");
    assert_eq!(delete(&relay, "b/k", &[]).await.status, 404);
    relay.stop().await;
}

async fn an_increment_is_exact_and_keeps_its_bounds(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let add = async |body: &str| post(&relay, "b/n/increment", &[], body).await;
    let first = relay.send("POST", "/api/v1/keys/b/n/increment", &[], b"").await;
    assert_eq!((first.status, &first.json()["value"]), (200, &json!(1)), "{first:?}");
    assert_eq!(revision(&first), first.json()["revision"].as_str().expect("a revision"));
    assert_eq!(get(&relay, "b/n").await.text(), "1");
    let many = add(r#"{"by": 9223372036854775806}"#).await;
    assert_eq!(many.json()["value"].to_string(), i64::MAX.to_string());
    let over = add("{}").await.problem();
    assert_eq!((over.status, over.code.as_str()), (409, "conflict"));
    assert!(over.detail.contains(&i64::MAX.to_string()), "{over:?}");
    assert_eq!(add(r#"{"by": -9223372036854775807}"#).await.json()["value"], json!(0));
    assert_eq!(add(r#"{"by": -1, "min": 0}"#).await.status, 409);
    assert_eq!(add(r#"{"by": 6, "max": 5}"#).await.status, 409);
    assert_eq!(add(r#"{"by": 5, "max": 5}"#).await.json()["value"], json!(5));
    assert_eq!(get(&relay, "b/n").await.text(), "5");
    let adds = (0..32).map(|_| add(r#"{"by": 3}"#));
    let answers = futures_util::future::join_all(adds).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(get(&relay, "b/n").await.text(), "101", "none is lost");
    put(&relay, "b/text", &[], "\"x\"").await;
    let refused = post(&relay, "b/text/increment", &[], "{}").await.problem();
    assert_eq!(refused.code.as_str(), "conflict", "{refused:?}");
    put(&relay, "b/number", &[], "41").await;
    assert_eq!(post(&relay, "b/number/increment", &[], "{}").await.json()["value"], json!(42));
    relay.stop().await;
}

async fn a_repeat_under_a_key_changes_nothing(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let key = ("idempotency-key", "one");
    let first = post(&relay, "b/n/increment", &[key], r#"{"by": 5}"#).await;
    assert_eq!(first.header("idempotency-replayed"), None);
    post(&relay, "b/n/increment", &[], r#"{"by": 5}"#).await;
    let repeat = post(&relay, "b/n/increment", &[key], r#"{"by": 5}"#).await;
    assert_eq!((repeat.status, repeat.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(repeat.json(), first.json(), "the first answer again");
    assert_eq!(get(&relay, "b/n").await.text(), "10");
    for (path, body) in [("b/n/increment", r#"{"by": 6}"#), ("b/m/increment", r#"{"by": 5}"#)] {
        let reused = post(&relay, path, &[key], body).await.problem();
        assert_eq!((reused.status, reused.code.as_str()), (422, "key_reused"));
    }
    // The key is the bucket's own.
    assert_eq!(post(&relay, "other/n/increment", &[key], r#"{"by": 6}"#).await.status, 200);
    let two = ("idempotency-key", "two");
    let made = put(&relay, "b/k", &[two, ("if-none-match", "*")], "1").await;
    let again = put(&relay, "b/k", &[two, ("if-none-match", "*")], "1").await;
    assert_eq!((made.status, again.status), (201, 201), "its condition held");
    assert_eq!(revision(&made), revision(&again));
    let three = ("idempotency-key", "three");
    let gone = delete(&relay, "b/k", &[three]).await;
    let again = delete(&relay, "b/k", &[three]).await;
    assert_eq!((again.status, revision(&again)), (200, revision(&gone)));
    relay.stop().await;
}

async fn a_bucket_that_is_full_says_so(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let made = bucket(&relay, "few", r#"{"max_keys": 2}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
    for key in ["a", "b", "a"] {
        assert!(put(&relay, &format!("few/{key}"), &[], "1").await.status < 300);
    }
    let refused = put(&relay, "few/c", &[], "1").await.problem();
    assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (507, "bucket_full", true));
    assert!(refused.detail.contains("max_keys"), "{refused:?}");
    delete(&relay, "few/a", &[]).await;
    assert_eq!(put(&relay, "few/c", &[], "1").await.status, 201);
    bucket(&relay, "small", r#"{"max_bytes": 10}"#).await;
    assert_eq!(put(&relay, "small/a", &[], "12345678").await.status, 201);
    let refused = put(&relay, "small/b", &[], "12345678").await.problem();
    assert!(refused.code.as_str() == "bucket_full" && refused.detail.contains("max_bytes"), "{refused:?}");
    relay.stop().await;
}

async fn what_is_counted_is_shown(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let key = ("idempotency-key", "one");
    for _ in 0..2 {
        put(&relay, "b/k", &[key], "1").await;
    }
    get(&relay, "b/k").await;
    get(&relay, "b/none").await;
    put(&relay, "b/k", &[("if-none-match", "*")], "1").await;
    put(&relay, "b/k", &[], "{").await;
    let metrics = relay.get("/metrics").await;
    for line in [
        r#"tidemill_keys_changes_total{result="accepted"} 1"#,
        r#"tidemill_keys_changes_total{result="replayed"} 1"#,
        r#"tidemill_keys_refused_total{code="precondition_failed"} 1"#,
        r#"tidemill_keys_reads_total{result="hit"} 1"#,
        r#"tidemill_keys_reads_total{result="miss"} 1"#,
    ] {
        assert!(metrics.text().lines().any(|of| of == line), "no {line} in {}", metrics.text());
    }
    relay.stop().await;
}

async fn a_relay_that_makes_no_topics_makes_no_buckets(storage: Storage) {
    let relay = TestRelay::start_with(storage, |options| options.relay.topic_auto_create = false).await;
    let refused = put(&relay, "b/k", &[], "1").await.problem();
    assert_eq!((refused.status, refused.code.as_str()), (404, "bucket_not_found"));
    assert!(refused.detail.contains("PUT /api/v1/buckets/b"), "{refused:?}");
    assert_eq!(bucket(&relay, "b", "{}").await.status, 201);
    assert_eq!(put(&relay, "b/k", &[], "1").await.status, 201);
    relay.stop().await;
}

async fn who_makes_no_key_makes_no_bucket(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    bucket(&relay, "vacant", "{}").await;
    let [one, two, three] = ["1", "2", "3"].map(|key| ("idempotency-key", key));
    let batch = |changes: Value| json!({ "changes": changes }).to_string();
    let deletes = batch(json!([{ "op": "delete", "key": "a" }, { "op": "delete", "key": "b" }]));
    let bounded =
        batch(json!([{ "op": "put", "key": "a", "value": 1 }, { "op": "increment", "key": "n", "max": 0 }]));
    for (method, path, headers, body, status) in [
        ("DELETE", "/k", &[][..], "", 404),
        ("DELETE", "/k", &[one], "", 404),
        ("DELETE", "/k", &[("if-match", "*")], "", 412),
        ("PUT", "/k", &[("if-match", "*")], "1", 412),
        ("PUT", "/k", &[("if-match", "\"5-1\"")], "1", 412),
        ("PUT", "/k", &[("tidemill-fill", "0123456789abcdef0123456789abcdef")], "1", 412),
        ("POST", "/k/increment", &[("if-match", "*")], "{}", 412),
        ("POST", "/k/increment", &[], r#"{"by": 5, "max": 4}"#, 409),
        ("POST", "/k/increment", &[two], r#"{"by": -1, "min": 0}"#, 409),
        ("POST", "/k/touch", &[], "{}", 404),
        ("POST", "", &[three], &deletes, 200),
        ("POST", "", &[], &deletes, 200),
        ("POST", "", &[], &bounded, 409),
    ] {
        let headers = [&[JSON], headers].concat();
        let ask = async |bucket: &str| {
            let path = format!("/api/v1/keys/{bucket}{path}");
            let answer = relay.send(method, &path, &headers, body.as_bytes()).await;
            let mut told = answer.json();
            told.as_object_mut().expect("an object").remove("request_id");
            (answer.status, told.to_string().replace(bucket, "_"))
        };
        let of_none = ask("unmade").await;
        assert_eq!(of_none.0, status, "{method} {path} {headers:?} {body}: {of_none:?}");
        assert_eq!(of_none, ask("vacant").await, "as of a bucket without keys");
        assert_eq!(
            relay.get("/api/v1/buckets/unmade").await.status,
            404,
            "{method} {path} {headers:?} {body}"
        );
    }
    assert_eq!(put(&relay, "unmade/k", &[("if-none-match", "*")], "1").await.status, 201);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_switched_off_is_not_there() {
    let relay = TestRelay::without(memory(), Feature::Keys).await;
    for path in ["/api/v1/keys/b/k", "/api/v1/keys/b", "/api/v1/buckets", "/api/v1/buckets/b"] {
        let answer = relay.get(path).await;
        assert_eq!(answer.problem().code.as_str(), "not_found", "{path}");
    }
    let document: Value = relay.get("/openapi.json").await.json();
    assert!(document["paths"].get("/api/v1/buckets").is_none());
    relay.stop().await;
}
