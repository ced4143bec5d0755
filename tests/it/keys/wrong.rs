//! What is wrong with a request about keys is named, and nothing is changed.

use serde_json::{Value, json};
use tidemill::storage::Storage;

use super::{JSON, bucket, get, on_both_backends, put, revision};
use crate::support::relay::TestRelay;

on_both_backends![what_is_wrong_is_named_and_changes_nothing];

/// A request: the method, the path below `/api/v1`, a header, and the body; the status, and the field that is named.
type Wrong =
    (&'static str, &'static str, (&'static str, &'static str), &'static str, u16, Option<&'static str>);

#[rustfmt::skip]
const WRONG: &[Wrong] = &[
    // Names.
    ("GET", "keys/b/a%2Fb", JSON, "", 400, Some("key")),
    ("GET", "keys/b/.a", JSON, "", 400, Some("key")),
    ("GET", "keys/b%20/k", JSON, "", 400, Some("bucket")),
    ("GET", "keys/b/%FF", JSON, "", 400, Some("key")),
    ("GET", "buckets/%FF", JSON, "", 400, Some("bucket")),
    ("PUT", "keys/b/k*", JSON, "2", 400, Some("key")),
    ("PUT", "keys/pres%2Fence/k", JSON, "2", 400, Some("bucket")),
    ("PUT", "buckets/a:", JSON, "{}", 400, Some("bucket")),
    ("DELETE", "keys/b/é", JSON, "", 400, Some("key")),
    // Parameters.
    ("GET", "keys/b/k?revision=abc", JSON, "", 400, Some("revision")),
    ("GET", "keys/b/k?revision=%221-0%22", JSON, "", 400, Some("revision")),
    ("GET", "keys/b/k?view=all", JSON, "", 400, Some("view")),
    ("GET", "keys/b/k?view=history&revision=1-0", JSON, "", 400, Some("view")),
    ("GET", "keys/b/k?ttl=1", JSON, "", 400, Some("ttl")),
    ("PUT", "keys/b/k?ttl=0", JSON, "2", 400, Some("ttl")),
    ("PUT", "keys/b/k?ttl=-1", JSON, "2", 400, Some("ttl")),
    ("PUT", "keys/b/k?ttl=soon", JSON, "2", 400, Some("ttl")),
    ("PUT", "keys/b/k?ttl=11y", JSON, "2", 400, Some("ttl")),
    ("PUT", "keys/b/k?ttl=4000d", JSON, "2", 400, Some("ttl")),
    ("PUT", "keys/b/k?ttl=1&ttl=2", JSON, "2", 400, Some("ttl")),
    ("PUT", "keys/b/k?owner=", JSON, "2", 400, Some("owner")),
    ("PUT", "keys/b/k?owner=a%2Fb", JSON, "2", 400, Some("owner")),
    ("PUT", "keys/b/k?tl=1", JSON, "2", 400, Some("tl")),
    ("PUT", "keys/b/k?fresh=0", JSON, "2", 400, Some("fresh")),
    ("PUT", "keys/b/k?fresh=soon", JSON, "2", 400, Some("fresh")),
    ("GET", "keys/b/k?fill=0", JSON, "", 400, Some("fill")),
    ("GET", "keys/b/k?fill=11m", JSON, "", 400, Some("fill")),
    ("GET", "keys/b/k?fill=", JSON, "", 400, Some("fill")),
    ("GET", "keys/b/k?fill=1s&wait=2m", JSON, "", 400, Some("wait")),
    ("GET", "keys/b/k?fill=1s&view=history", JSON, "", 400, Some("fill")),
    ("GET", "keys/b/k?fill=1s&fallback=parent", JSON, "", 400, Some("fill")),
    ("GET", "keys/b/k?wait=1s", JSON, "", 400, Some("wait")),
    ("DELETE", "keys/b/k?ttl=1", JSON, "", 400, Some("ttl")),
    ("GET", "keys/b?prefix=*", JSON, "", 400, Some("prefix")),
    ("GET", "keys/b?prefix=.a", JSON, "", 400, Some("prefix")),
    ("GET", "keys/b?after=", JSON, "", 400, Some("after")),
    ("GET", "keys/b?limit=0", JSON, "", 400, Some("limit")),
    ("GET", "keys/b?limit=1001", JSON, "", 400, Some("limit")),
    ("GET", "keys/b?values=yes", JSON, "", 400, Some("values")),
    ("GET", "keys/b?key=k", JSON, "", 400, Some("key")),
    ("GET", "keys/b?last_event_id=1-0", JSON, "", 400, Some("last_event_id")),
    ("GET", "keys/b?limit=1", ("accept", "text/event-stream"), "", 400, Some("limit")),
    ("GET", "buckets?limit=101", JSON, "", 400, Some("limit")),
    ("PUT", "buckets/b", JSON, r#"{"adaptive_ttl": "1m"}"#, 400, Some("adaptive_ttl")),
    ("PUT", "buckets/b", JSON, r#"{"adaptive_ttl": {"min": "1m"}}"#, 400, Some("adaptive_ttl.max")),
    ("PUT", "buckets/b", JSON, r#"{"adaptive_ttl": {"min": 0, "max": 1}}"#, 400, Some("adaptive_ttl.min")),
    ("PUT", "buckets/b", JSON, r#"{"adaptive_ttl": {"min": "2m", "max": "1m"}}"#, 400, Some("adaptive_ttl.min")),
    ("PUT", "buckets/b", JSON, r#"{"adaptive_ttl": {"min": 1, "max": "1d", "step": 1}}"#, 400, Some("step")),
    ("GET", "buckets?after=a/b", JSON, "", 400, Some("after")),
    // Conditions and idempotency keys.
    ("PUT", "keys/b/k", ("if-match", "\"abc\""), "2", 400, Some("If-Match")),
    ("PUT", "keys/b/k", ("if-match", "\"1-0\", \"2-0\""), "2", 400, Some("If-Match")),
    ("PUT", "keys/b/k", ("if-none-match", "\"1-0\""), "2", 400, Some("If-None-Match")),
    ("DELETE", "keys/b/k", ("if-match", "k"), "", 400, Some("If-Match")),
    ("POST", "keys/b", ("if-match", "*"), r#"{"changes": [{"op": "delete", "key": "k"}]}"#, 400, Some("If-Match")),
    ("POST", "keys/increment", ("if-match", "*"), r#"{"changes": [{"op": "delete", "key": "k"}]}"#, 400, Some("If-Match")),
    ("POST", "keys/b/k/touch", ("if-match", "*"), "{}", 400, Some("If-Match")),
    ("POST", "keys/b", ("if-none-match", "*"), r#"{"changes": [{"op": "delete", "key": "k"}]}"#, 400, Some("If-None-Match")),
    ("POST", "keys/b/k/touch", ("if-none-match", "*"), "{}", 400, Some("If-None-Match")),
    ("DELETE", "buckets/b", ("if-match", "*"), "", 400, Some("If-Match")),
    ("DELETE", "buckets/b", ("if-none-match", "*"), "", 400, Some("If-None-Match")),
    ("PUT", "buckets/b", ("if-none-match", "*"), "{}", 400, Some("If-None-Match")),
    ("POST", "buckets/b/revoke", ("if-none-match", "*"), r#"{"owner": "ann"}"#, 400, Some("If-None-Match")),
    ("PUT", "keys/b/k", ("if-unmodified-since", "Sat, 29 Oct 1994 19:43:31 GMT"), "2", 400, Some("If-Unmodified-Since")),
    ("PUT", "buckets/b", ("tidemill-fence", "l=1-1"), "{}", 400, Some("Tidemill-Fence")),
    ("DELETE", "buckets/b", ("tidemill-fence", "l=1-1"), "", 400, Some("Tidemill-Fence")),
    ("POST", "buckets/b/revoke", ("tidemill-fence", "l=1-1"), r#"{"owner": "ann"}"#, 400, Some("Tidemill-Fence")),
    ("POST", "keys/b/k/touch", ("tidemill-fence", "l=1-1"), "{}", 400, Some("Tidemill-Fence")),
    ("PUT", "keys/b/k", ("tidemill-fill", "abc"), "2", 400, Some("Tidemill-Fill")),
    ("PUT", "keys/b/k", ("tidemill-fill", ""), "2", 400, Some("Tidemill-Fill")),
    ("PUT", "keys/b/k", ("tidemill-fill", "0123456789abcdef0123456789abcdef"), "2", 412, None),
    ("PUT", "keys/b/k", ("idempotency-key", "a b"), "2", 400, Some("Idempotency-Key")),
    // Values.
    ("PUT", "keys/b/k", JSON, "{", 400, None),
    ("PUT", "keys/b/k", JSON, "", 400, None),
    ("PUT", "keys/b/k", JSON, "1 2", 400, None),
    ("PUT", "keys/b/k", JSON, "\"\\ud800\"", 400, Some("value")),
    ("PUT", "keys/b/k", ("x", "y"), "", 400, None),
    ("PUT", "keys/b/k", ("content-type", "text"), "2", 400, Some("Content-Type")),
    ("PUT", "keys/b/k", ("content-type", "multipart/form-data; boundary=a"), "2", 415, None),
    ("PUT", "keys/b/k", ("content-type", "application/json; charset=utf-16"), "2", 415, None),
    ("PUT", "keys/b/k", ("content-encoding", "zzz"), "2", 415, None),
    // Increments and touches.
    ("POST", "keys/b/k/increment", JSON, r#"{"by": 0.5}"#, 400, Some("by")),
    ("POST", "keys/b/k/increment", JSON, r#"{"by": "1"}"#, 400, Some("by")),
    ("POST", "keys/b/k/increment", JSON, r#"{"by": 9223372036854775808}"#, 400, Some("by")),
    ("POST", "keys/b/k/increment", JSON, r#"{"min": 2, "max": 1}"#, 400, Some("min")),
    ("POST", "keys/b/k/increment", JSON, r#"{"max": true}"#, 400, Some("max")),
    ("POST", "keys/b/k/increment", JSON, r#"{"ttl": 0}"#, 400, Some("ttl")),
    ("POST", "keys/b/k/increment", JSON, r#"{"amount": 1}"#, 400, Some("amount")),
    ("POST", "keys/b/k/increment", JSON, "[]", 400, None),
    ("POST", "keys/b/k/increment", ("content-type", "text/plain"), "{}", 415, None),
    ("POST", "keys/b/k/touch", JSON, r#"{"ttl": -1}"#, 400, Some("ttl")),
    ("POST", "keys/b/k/touch", JSON, r#"{"return": "all"}"#, 400, Some("return")),
    ("POST", "keys/b/k/touch", JSON, r#"{"return": true}"#, 400, Some("return")),
    ("POST", "keys/b/k/touch?ttl=1", JSON, "{}", 400, Some("ttl")),
    ("POST", "keys/b/k/rename", JSON, "{}", 404, None),
    ("POST", "keys/b/k", JSON, "{}", 405, None),
    ("PATCH", "keys/b/k", JSON, "{}", 405, None),
    // Batches.
    ("POST", "keys/b", JSON, "{}", 400, Some("changes")),
    ("POST", "keys/b", JSON, r#"{"changes": []}"#, 400, Some("changes")),
    ("POST", "keys/b", JSON, r#"{"changes": {}}"#, 400, Some("changes")),
    ("POST", "keys/b", JSON, r#"{"changes": [1]}"#, 400, Some("changes[0]")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"key": "k", "value": 2}]}"#, 400, Some("changes[0].op")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "set", "key": "k", "value": 2}]}"#, 400, Some("changes[0].op")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "value": 2}]}"#, 400, Some("changes[0].key")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "key": "k"}]}"#, 400, Some("changes[0].value")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "key": "a", "value": 2}, {"op": "put", "key": "b/c", "value": 2}]}"#, 400, Some("changes[1].key")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "key": "a", "value": 2}, {"op": "delete", "key": "a"}]}"#, 400, Some("changes[1].key")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "key": "k", "value": 2, "value_text": "2"}]}"#, 400, Some("changes[0].value_text")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "key": "k", "value_base64": "%"}]}"#, 400, Some("changes[0].value_base64")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "key": "k", "value": 2, "content_type": "text/plain"}]}"#, 400, Some("changes[0].content_type")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "key": "k", "value": 2, "ttl": "x"}]}"#, 400, Some("changes[0].ttl")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "key": "k", "value": 2, "fresh": 0}]}"#, 400, Some("changes[0].fresh")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "delete", "key": "k", "fresh": 1}]}"#, 400, Some("changes[0].fresh")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "key": "k", "value": 2, "owner": 7}]}"#, 400, Some("changes[0].owner")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "put", "key": "k", "value": 2, "by": 1}]}"#, 400, Some("changes[0].by")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "delete", "key": "k", "value": 2}]}"#, 400, Some("changes[0].value")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "increment", "key": "k", "owner": "a"}]}"#, 400, Some("changes[0].owner")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "delete", "key": "k", "if_match": "x"}]}"#, 400, Some("changes[0].if_match")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "delete", "key": "k", "if_none_match": "1-0"}]}"#, 400, Some("changes[0].if_none_match")),
    ("POST", "keys/b", JSON, r#"{"changes": [{"op": "delete", "key": "k", "force": true}]}"#, 400, Some("changes[0].force")),
    ("POST", "keys/b", ("content-type", "text/plain"), r#"{"changes": [{"op": "delete", "key": "k"}]}"#, 415, None),
    // Buckets.
    ("PUT", "buckets/b", JSON, r#"{"history": 0}"#, 400, Some("history")),
    ("PUT", "buckets/b", JSON, r#"{"history": 65}"#, 400, Some("history")),
    ("PUT", "buckets/b", JSON, r#"{"ttl": 0}"#, 400, Some("ttl")),
    ("PUT", "buckets/b", JSON, r#"{"absolute_age": "never"}"#, 400, Some("absolute_age")),
    ("PUT", "buckets/b", JSON, r#"{"max_keys": 0}"#, 400, Some("max_keys")),
    ("PUT", "buckets/b", JSON, r#"{"max_bytes": 1.5}"#, 400, Some("max_bytes")),
    ("PUT", "buckets/b", JSON, r#"{"size": 1}"#, 400, Some("size")),
    ("PUT", "buckets/b", JSON, "null", 400, None),
    ("PUT", "buckets/b", ("content-type", "text/plain"), "{}", 415, None),
    ("POST", "buckets/b/revoke", JSON, "{}", 400, Some("owner")),
    ("POST", "buckets/b/revoke", JSON, r#"{"owner": "a b"}"#, 400, Some("owner")),
    ("DELETE", "buckets/b?force=true", JSON, "", 400, Some("force")),
];

/// A change among several, and what is named of it.
#[rustfmt::skip]
const WRONG_CHANGES: &[(&str, &str)] = &[
    ("1", ""),
    ("[]", ""),
    ("null", ""),
    (r#""put""#, ""),
    ("{}", ".op"),
    (r#"{"op": 1, "key": "k"}"#, ".op"),
    (r#"{"op": "put", "value": 2}"#, ".key"),
    (r#"{"op": "put", "key": 7, "value": 2}"#, ".key"),
    (r#"{"op": "put", "key": "first", "value": 2}"#, ".key"),
    (r#"{"op": "put", "key": "k"}"#, ".value"),
    (r#"{"op": "put", "key": "k", "value": "\ud800"}"#, ".value"),
    (r#"{"op": "put", "key": "k", "value_text": 2}"#, ".value_text"),
    (r#"{"op": "put", "key": "k", "value_text": "{", "content_type": "application/json"}"#, ".value_text"),
    (r#"{"op": "put", "key": "k", "value_base64": "%"}"#, ".value_base64"),
    (r#"{"op": "put", "key": "k", "value_base64": "ew==", "content_type": "application/json"}"#, ".value_base64"),
    (r#"{"op": "put", "key": "k", "value_text": "2", "content_type": ""}"#, ".content_type"),
    (r#"{"op": "put", "key": "k", "value": 2, "ttl": 0}"#, ".ttl"),
    (r#"{"op": "put", "key": "k", "value": 2, "owner": "a b"}"#, ".owner"),
    (r#"{"op": "put", "key": "k", "value": 2, "fresh": "x"}"#, ".fresh"),
    (r#"{"op": "put", "key": "k", "value": 2, "if_match": 1}"#, ".if_match"),
    (r#"{"op": "put", "key": "k", "value": 2, "if_none_match": "x"}"#, ".if_none_match"),
    (r#"{"op": "put", "key": "k", "value": 2, "if_match": "*", "if_none_match": "*"}"#, ".if_none_match"),
    (r#"{"op": "put", "key": "k", "value": 2, "by": 1}"#, ".by"),
    (r#"{"op": "increment", "key": "k", "by": 0.5}"#, ".by"),
    (r#"{"op": "increment", "key": "k", "min": "x"}"#, ".min"),
    (r#"{"op": "increment", "key": "k", "min": 2, "max": 1}"#, ".min"),
    (r#"{"op": "increment", "key": "k", "max": {}}"#, ".max"),
    (r#"{"op": "increment", "key": "k", "ttl": -1}"#, ".ttl"),
    (r#"{"op": "delete", "key": "k", "value": 2}"#, ".value"),
    (r#"{"op": "delete", "key": "k", "key": "k"}"#, ".key"),
    (r#"{"op": "delete", "key": "k", "force": true}"#, ".force"),
];

async fn what_is_wrong_is_named_and_changes_nothing(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    bucket(&relay, "b", r#"{"history": 3, "ttl": "1h"}"#).await;
    let is = revision(&put(&relay, "b/k?owner=ann", &[], "1").await);
    let detail = relay.get("/api/v1/buckets/b").await.json();
    for (method, path, header, body, status, field) in WRONG {
        // A value has a type where the header is about something else, and needs one.
        let is_typed = matches!(header.0, "content-type" | "x") || body.is_empty();
        let headers = if is_typed { vec![*header] } else { vec![*header, JSON] };
        let path = format!("/api/v1/{path}");
        let answer = relay.send(method, &path, &headers, body.as_bytes()).await;
        let shown = format!("{method} {path} {header:?} {body}: {answer:?}");
        assert_eq!(answer.status, *status, "{shown}");
        assert_eq!(answer.problem().field.as_deref(), *field, "{shown}");
    }
    for (change, named) in WRONG_CHANGES {
        let body = format!(r#"{{"changes": [{{"op": "put", "key": "first", "value": 1}}, {change}]}}"#);
        let problem = super::post(&relay, "b", &[], &body).await.problem();
        let field = format!("changes[1]{named}");
        assert_eq!((problem.status, problem.field), (400, Some(field)), "{body}: {}", problem.detail);
        assert!(problem.detail.starts_with("`changes[1]`: "), "{}", problem.detail);
    }
    let large = vec![b'x'; 1024 * 1024 + 1];
    let text = [("content-type", "text/plain")];
    let refused = relay.send("PUT", "/api/v1/keys/b/k", &text, &large).await.problem();
    assert_eq!(refused.status, 413);
    assert!(refused.detail.contains("TIDEMILL_VALUE_BYTES_MAX"), "{refused:?}");
    let text = "x".repeat(1024 * 1024 + 1);
    let change = json!({ "changes": [{ "op": "put", "key": "k", "value_text": text }] }).to_string();
    let refused = super::post(&relay, "b", &[], &change).await.problem();
    assert_eq!(
        (refused.status, refused.field.as_deref()),
        (413, Some("changes[0].value_text")),
        "{}",
        refused.detail
    );
    let both = [("if-match", "*"), ("if-none-match", "*")];
    let refused = put(&relay, "b/k", &both, "2").await.problem();
    assert_eq!((refused.status, refused.field.as_deref()), (400, Some("If-None-Match")));
    let after = get(&relay, "b/k").await;
    assert_eq!((after.text(), revision(&after), after.header("tidemill-owner")), ("1", is, Some("ann")));
    assert_eq!(relay.get("/api/v1/buckets/b").await.json(), detail, "nothing was changed");
    let buckets: Value = relay.get("/api/v1/buckets").await.json();
    assert_eq!(buckets.as_array().map(Vec::len), Some(1), "none was made: {buckets}");
    relay.stop().await;
}
