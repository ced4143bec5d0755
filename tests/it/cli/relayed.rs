//! Copying from and to running relays, as an operator does: what a topic carries comes there and back again.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::MessageId;

use super::json as parsed;
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::process::{Ended, Relay, Running, number_lines, run};
use crate::support::proxy::Proxy;
use crate::support::relay::try_send;
use crate::support::server::{Kind, Server};

mod export;

/// Where steps of a copy are asked for.
const READ: &str = "/api/v1/admin/copy/read";
const WRITE: &str = "/api/v1/admin/copy/write";

fn copy(from: &str, to: &str, more: &[&str]) -> Ended {
    run(&[], &[&["copy", "--from", from, "--to", to, "-o", "json"][..], more].concat(), "")
}

/// Asks a relay what it has.
async fn told(node: SocketAddr, read: Value) -> Value {
    let body = json!({"version": 1, "read": read}).to_string();
    let answer = try_send(node, "POST", READ, &[("content-type", "application/json")], body.as_bytes()).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["told"].clone()
}

async fn asked(node: SocketAddr, method: &str, path: &str, body: &str) -> Value {
    let headers = [("content-type", "application/json")];
    let answer = try_send(node, method, path, &headers, body.as_bytes()).await.expect("an answer");
    assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

/// Returns how many messages of the topic a relay has.
async fn length(node: SocketAddr) -> u64 {
    let body = json!({"version": 1, "read": {"topic": {"topic": "orders"}}}).to_string();
    let answer = try_send(node, "POST", READ, &[("content-type", "application/json")], body.as_bytes()).await;
    answer.map_or(0, |answer| answer.json()["told"]["topic"]["length"].as_u64().unwrap_or(0))
}

/// Fills a relay with all that a topic and a bucket can carry.
async fn fill(node: SocketAddr) {
    let about = r#"{"topic_name":"orders","description":"of \"tides\"","max_messages":100000,"keep_until_acked":true}"#;
    asked(node, "POST", "/api/v1/topics", about).await;
    let headers =
        [("content-type", "image/png"), ("tidemill-order-key", "a"), ("tidemill-meta-of", "pictures")];
    for body in [&b"\0\xff\r\n"[..], b" 1 "] {
        let sent = try_send(node, "POST", "/api/v1/topics/orders/messages", &headers, body).await;
        assert_eq!(sent.expect("an answer").status, 201);
    }
    for number in 0..40 {
        let body = format!(r#"{{"topic":"orders","payload": [{number}, null],"metadata":{{"k": [1]}}}}"#);
        asked(node, "POST", "/api/v1/messages", &body).await;
    }
    let gone = r#"{"topic":"orders","payload":"soon","ttl":1}"#;
    asked(node, "POST", "/api/v1/messages", gone).await;
    let deleted = asked(node, "POST", "/api/v1/messages", r#"{"topic":"orders","payload":0}"#).await;
    let id = deleted["message_id"].as_str().expect("an id");
    asked(node, "DELETE", &format!("/api/v1/topics/orders/messages/{id}"), "").await;
    asked(node, "POST", "/api/v1/messages", r#"{"topic":"orders","payload":"last"}"#).await;
    let trimmed = asked(node, "POST", "/api/v1/topics/orders/trim", r#"{"keep":38}"#).await;
    assert_eq!(trimmed["removed"].as_u64(), Some(6), "{trimmed}");

    asked(node, "PUT", "/api/v1/topics/orders/groups/billing", r#"{"start":"earliest","ordering":"by_key"}"#)
        .await;
    let claim = r#"{"consumer":"me","max":4}"#;
    let claimed = asked(node, "POST", "/api/v1/topics/orders/groups/billing/claim", claim).await;
    let receipts: Vec<&Value> =
        claimed["messages"].as_array().expect("messages").iter().map(|message| &message["receipt"]).collect();
    asked(node, "POST", "/api/v1/work/ack", &json!({"receipts": receipts[..2]}).to_string()).await;
    asked(
        node,
        "POST",
        "/api/v1/work/reject",
        &json!({"receipts": receipts[2..3], "reason": "broken"}).to_string(),
    )
    .await;

    let later = r#"{"topic":"orders","payload":"later","delay":"30d","metadata":{"a":1}}"#;
    asked(node, "POST", "/api/v1/messages", later).await;
    let rule = r#"{"cron":"0 3 1 1 *","timezone":"Europe/Berlin","payload":{"at":"new year"},"ttl":60}"#;
    asked(node, "PUT", "/api/v1/topics/orders/recurring/yearly", rule).await;

    asked(node, "POST", "/api/v1/topics", r#"{"topic_name":"states","compact_by":"k"}"#).await;
    for (key, payload) in [("a", 1), ("b", 1), ("a", 2), ("c", 1), ("c", 2)] {
        let body = json!({"topic": "states", "payload": payload, "metadata": {"k": key}}).to_string();
        let sent = asked(node, "POST", "/api/v1/messages", &body).await;
        if (key, payload) == ("c", 2) {
            asked(node, "GET", "/api/v1/topics/states/messages?view=latest", "").await;
            let id = sent["message_id"].as_str().expect("an id");
            asked(node, "DELETE", &format!("/api/v1/topics/states/messages/{id}"), "").await;
        }
    }
    asked(node, "POST", "/api/v1/messages", r#"{"topic":"done","payload":1}"#).await;
    asked(node, "POST", "/api/v1/topics/done/cancel", r#"{"reason":"too dear"}"#).await;

    asked(node, "PUT", "/api/v1/buckets/flows", r#"{"history":3,"ttl":"10d","max_keys":100}"#).await;
    for value in ["1", "{\"a\": 2}", "null"] {
        asked(node, "PUT", "/api/v1/keys/flows/a", value).await;
    }
    asked(node, "PUT", "/api/v1/keys/flows/b?owner=ann&ttl=1h", "\"b\"").await;
    asked(node, "PUT", "/api/v1/keys/flows/c", "3").await;
    asked(node, "DELETE", "/api/v1/keys/flows/c", "").await;
}

/// Asks a relay for all messages of a topic or a bucket, page by page.
async fn messages(node: SocketAddr, asked: &str, of: (&str, &Value)) -> Value {
    let mut all = Vec::new();
    loop {
        let last = all.last().map_or(json!("0-0"), |last: &Value| last["message_id"].clone());
        let page = told(node, json!({ asked: {of.0: of.1, "after": last} })).await;
        let page = page["messages"].as_array().expect("messages").clone();
        if page.is_empty() {
            return all.into();
        }
        all.extend(page);
    }
}

/// Returns all that is to be the same at a copy.
async fn all_of(node: SocketAddr) -> Vec<Value> {
    let mut all = Vec::new();
    let names = told(node, json!({"topic_names": {"prefix": "", "after": null}})).await;
    let names = names["topic_names"].as_array().expect("names").clone();
    for topic in names {
        let of = |what: &str| json!({ what: {"topic": topic} });
        all.push(told(node, of("topic")).await);
        let is_compacted = all.last().is_some_and(|told| told["topic"]["topic"]["compact_by"].is_string());
        all.push(messages(node, "messages", ("topic", &topic)).await);
        if is_compacted {
            all.push(messages(node, "latest", ("topic", &topic)).await);
        }
        for asked in ["deletions", "groups", "recurring"] {
            all.push(told(node, of(asked)).await);
        }
        let waiting = told(node, json!({"waiting": {"topic": topic, "after": null}})).await;
        all.push(waiting["waiting"]["messages"].clone());
        if topic == "orders" {
            for asked in ["group", "pending", "dead"] {
                let of = json!({"topic": topic, "group": "billing", "after": null});
                let mut of = json!({ asked: of });
                if asked == "group" {
                    of["group"].as_object_mut().expect("an object").remove("after");
                }
                all.push(told(node, of).await);
            }
        }
    }
    let of = |what: &str| json!({ what: {"bucket": "flows", "after": null} });
    all.push(told(node, json!({"bucket": {"bucket": "flows"}})).await);
    all.push(told(node, of("keys")).await["keys"]["keys"].clone());
    all.push(told(node, of("ends")).await);
    all.push(messages(node, "changes", ("bucket", &json!("flows"))).await);
    all
}

async fn with_copy(from: String, to: String, more: &'static [&'static str]) -> Ended {
    tokio::task::spawn_blocking(move || copy(&from, &to, more)).await.expect("no panic")
}

async fn on(url: Option<&str>) -> Relay {
    let variables = url.map(|url| [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", url)]);
    Relay::ready_at("127.0.0.1:0", variables.as_ref().map_or(&[], |variables| &variables[..]), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_has_comes_to_another_and_back_again() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("valkey://127.0.0.1:{}", server.port());
    let (first, second, third) = (on(None).await, on(Some(&url)).await, on(None).await);
    fill(first.address()).await;
    let before = all_of(first.address()).await;

    let would = with_copy(first.url.clone(), second.url.clone(), &["--dry-run"]).await;
    let planned: Vec<Value> = would.lines().iter().map(|line| parsed(line)).collect();
    let billed = planned.iter().find(|one| one["topic"] == "orders").expect("it is planned");
    assert_eq!((&billed["action"], &billed["groups"]), (&json!("would be copied"), &json!(1)));
    assert!(planned.iter().any(|one| one["bucket"] == "flows" && one["keys"] == 2), "{planned:?}");
    let names = told(second.address(), json!({"topic_names": {"prefix": "", "after": null}})).await;
    assert_eq!(names["topic_names"], json!([]), "nothing is done");

    for (from, to) in [(&first, &second), (&second, &third)] {
        let done = with_copy(from.url.clone(), to.url.clone(), &[]).await;
        let last = parsed(done.lines().last().expect("it says how far it is"));
        assert_eq!((&last["done"], &last["buckets_finished"]), (&json!(true), &json!(1)), "{done:?}");
        assert_eq!(last["topics"], last["finished"]);
        let there = all_of(to.address()).await;
        assert_eq!(there.len(), before.len());
        for (there, before) in there.iter().zip(&before) {
            assert_eq!(there, before);
        }
    }
    // What is there already is left alone, and what is something else is not overwritten unless that is said.
    let again = with_copy(first.url.clone(), third.url.clone(), &[]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    asked(third.address(), "DELETE", "/api/v1/topics/done", "").await;
    asked(third.address(), "POST", "/api/v1/messages", r#"{"topic":"done","payload":"mine"}"#).await;
    let refused = with_copy(first.url.clone(), third.url.clone(), &[]).await;
    assert!(refused.error(1).contains("`done` is at the target already"), "{refused:?}");
    let done = with_copy(first.url.clone(), third.url.clone(), &["--overwrite"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(all_of(third.address()).await, before);
    tokio::task::spawn_blocking(move || drop((first, second, third))).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_has_lost_is_told_by_a_relay_to_which_it_is_copied() {
    const STREAM: &str = "stream:topic:lost";
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("valkey://127.0.0.1:{}", server.port());
    let (from, to) = (on(Some(&url)).await, on(None).await);
    let sent = asked(from.address(), "POST", "/api/v1/messages", r#"{"topic":"lost","payload":1}"#).await;
    let last: MessageId = sent["message_id"].as_str().expect("an id").parse().expect("an id");
    // As a node marks it that knows of a message behind the last.
    let gone = MessageId::new(last.ms + 1, 0).to_string();
    let mark = format!("tidemill-lost:{last}:{gone}");
    assert_eq!(server.command(&["XGROUP", "CREATE", STREAM, &mark, "$"]).await.text(), "OK");
    assert_eq!(server.command(&["XSETID", STREAM, &gone]).await.text(), "OK");

    let done = with_copy(from.url.clone(), to.url.clone(), &[]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let path = format!("/api/v1/topics/lost/messages?after={last}");
    let [there, here] = [&from, &to].map(|relay| asked(relay.address(), "GET", &path, ""));
    let (there, here) = (there.await, here.await);
    assert_eq!((&there["gap"]["reason"], &there["gap"]), (&json!("reset"), &here["gap"]), "{there} {here}");
    let first = asked(to.address(), "GET", "/api/v1/topics/lost/messages?after=0-0", "").await;
    assert_eq!((&first["gap"], &first["messages"][0]["payload"]), (&Value::Null, &json!(1)), "{first}");
    tokio::task::spawn_blocking(move || drop((from, to))).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_followed_through_breaks_of_its_link_until_it_is_read_only() {
    let (from, to) = (on(None).await, on(None).await);
    let published = |relay: &Relay, count: usize| {
        let url = relay.url.clone();
        tokio::task::spawn_blocking(move || {
            let url = [("TIDEMILL_URL", url.as_str())];
            let done = run(&url, &["publish", "orders"], &number_lines(count));
            done.lines().iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()
        })
    };
    let mut accepted = published(&from, 6_000).await.expect("no panic");
    let proxy = Proxy::start(to.address().port()).await;
    proxy.delay(Duration::from_millis(30), Duration::from_millis(5));
    let target = format!("http://127.0.0.1:{}", proxy.port());
    let arguments = ["copy", "--from", &from.url, "--to", &target, "--follow", "-o", "json"];
    let mut copy = Running::start(&[], &arguments);
    // Each time that a part has come, the link is cut, and for the last time it is away for a while.
    for kept in [1, 2_000, 4_000] {
        eventually(SOON, async || length(to.address()).await >= kept).await;
        proxy.cut();
    }
    proxy.refuse(true);
    proxy.cut();
    let fails = tokio::task::spawn_blocking(move || {
        let is_told = (0..60).any(|_| parsed(&copy.line())["failing"].is_string());
        (copy, is_told)
    });
    let (copy, is_told) = fails.await.expect("no panic");
    assert!(is_told, "it does not say that the target is away");
    proxy.heal();
    accepted.extend(published(&from, 700).await.expect("no panic"));
    let all = u64::try_from(accepted.len()).expect("it fits");
    eventually(SOON, async || length(to.address()).await == all).await;
    let source = from.url.clone();
    let ended = tokio::task::spawn_blocking(move || {
        let frozen = run(&[], &["freeze", "--storage", &source, "-o", "json"], "");
        assert_eq!(parsed(frozen.lines()[0]), json!({"read_only": true, "topics": 1, "buckets": 0}));
        let refused =
            run(&[("TIDEMILL_URL", source.as_str())], &["publish", "orders", "1", "--no-retry"], "");
        assert!(refused.error(1).contains("code read_only"), "{refused:?}");
        copy.end()
    })
    .await
    .expect("no panic");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let there = told(to.address(), json!({"topic": {"topic": "orders"}})).await["topic"].clone();
    assert_eq!((&there["length"], &there["last"]), (&json!(all), &json!(accepted.last())));
    assert_eq!(there["freeze"], Value::Null);
    asked(to.address(), "POST", "/api/v1/messages", r#"{"topic":"orders","payload":1}"#).await;
    tokio::task::spawn_blocking(move || drop((from, to))).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_and_what_is_wrong_is_told_and_changes_nothing() {
    let open = on(None).await;
    let variables = [("TIDEMILL_ACCESS", "closed"), ("TIDEMILL_ADMIN_PASSWORD", "a long enough one")];
    let closed = Relay::ready_at("127.0.0.1:0", &variables, &["--max-body-bytes=65536"]).await;
    asked(open.address(), "POST", "/api/v1/messages", r#"{"topic":"orders","payload":1}"#).await;
    for (from, to, flag) in [(&open, &closed, "--to-token"), (&closed, &open, "--from-token")] {
        let refused = with_copy(from.url.clone(), to.url.clone(), &[]).await;
        let error = refused.error(1);
        let advice =
            format!("name a token of who may administer the relay with {flag}, and the same command");
        assert!(error.contains("code unauthenticated") && error.contains(&advice), "{refused:?}");
    }
    let url = closed.url.clone();
    let frozen = tokio::task::spawn_blocking(move || run(&[], &["freeze", "--storage", &url], ""));
    let frozen = frozen.await.expect("no panic");
    assert!(frozen.error(1).contains("may administer the relay with --token"), "{frozen:?}");

    let send = async |path: &str, body: String| {
        let headers = [("content-type", "application/json")];
        try_send(open.address(), "POST", path, &headers, body.as_bytes()).await.expect("an answer")
    };
    let topic = told(open.address(), json!({"topic": {"topic": "orders"}})).await["topic"].clone();
    let mut broken = topic.clone();
    broken["topic"]["max_messages"] = json!(0);
    broken["topic"]["topic_id"] = json!("other");
    broken["topic"]["topic_name"] = json!("other");
    let message = |body: Value| {
        let message = json!({"message_id": "1-0", "timestamp": "2026-01-01T00:00:00.000Z", "body": body});
        let messages = json!({"topic": "orders", "epoch": null, "after": "0-0", "messages": [message]});
        json!({"version": 1, "write": {"messages": messages}})
    };
    for (path, body, code, field) in [
        (READ, json!({"read": "refuses_new"}), "invalid_field", Some("version")),
        (READ, json!({"version": 2, "read": "refuses_new"}), "invalid_field", Some("version")),
        (
            READ,
            json!({"version": 1, "read": {"topic": {"topic": "*"}}}),
            "invalid_field",
            Some("read.topic.topic"),
        ),
        (READ, json!({"version": 1, "read": {"topic": {"topic": "none"}}}), "topic_not_found", None),
        (READ, json!({"version": 1, "read": {"bucket": {"bucket": "none"}}}), "bucket_not_found", None),
        (
            WRITE,
            json!({"version": 1, "write": {"begin": broken}}),
            "invalid_field",
            Some("write.begin.topic.max_messages"),
        ),
        (WRITE, json!({"version": 1, "write": {"begin": topic}}), "topic_exists", None),
        (WRITE, message(json!({"payload": 1})), "topic_exists", None),
        (WRITE, message(json!({})), "invalid_field", Some("write.messages.messages[0].body")),
        (
            WRITE,
            message(json!({"payload": 1, "content_type": "\n"})),
            "invalid_field",
            Some("write.messages.messages[0].body.content_type"),
        ),
        (
            WRITE,
            message(json!({"payload": 1, "metadata": []})),
            "invalid_field",
            Some("write.messages.messages[0].body.metadata"),
        ),
    ] {
        let answer = send(path, body.to_string()).await.json();
        assert_eq!((&answer["code"], answer["field"].as_str()), (&json!(code), field), "{body}: {answer}");
    }
    let names = told(open.address(), json!({"topic_names": {"prefix": "", "after": null}})).await;
    assert_eq!(names["topic_names"], json!(["orders"]));
    let counted = try_send(open.address(), "GET", "/metrics", &[], b"").await.expect("an answer");
    let counted = String::from_utf8(counted.body).expect("text");
    assert!(counted.contains(r#"tidemill_copy_steps_total{kind="write",result="refused"}"#), "{counted}");

    // A message that is too large for a step is told, too.
    let large = format!(r#"{{"topic":"large","payload":"{}"}}"#, "x".repeat(100_000));
    asked(open.address(), "POST", "/api/v1/messages", &large).await;
    let small = Relay::ready_at("127.0.0.1:0", &[], &["--max-body-bytes=65536"]).await;
    let refused = with_copy(open.url.clone(), small.url.clone(), &["large"]).await;
    let told = refused.error(1);
    assert!(told.contains("code too_large") && told.contains("MAX_BODY_BYTES"), "{refused:?}");
    tokio::task::spawn_blocking(move || drop((open, closed, small))).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_more_undone_messages_than_fit_in_a_body_is_copied() {
    const COUNT: usize = 3_000;
    let small = ["--max-body-bytes=200KiB", "--payload-bytes-max=16KiB"];
    let (from, to) = (on(None).await, Relay::ready_at("127.0.0.1:0", &[], &small).await);
    let url = from.url.clone();
    let filled = move || {
        let url = [("TIDEMILL_URL", url.as_str())];
        run(&url, &["publish", "jobs"], &number_lines(COUNT)).lines();
        let many = ["--max-in-flight", "5000", "--ack-wait", "1h"];
        run(&url, &[&["groups", "create", "jobs", "workers"][..], &many].concat(), "").lines();
    };
    tokio::task::spawn_blocking(filled).await.expect("no panic");
    let mut claimed = 0;
    while claimed < COUNT {
        let answer = r#"{"consumer":"me","max":100}"#;
        let answer = asked(from.address(), "POST", "/api/v1/topics/jobs/groups/workers/claim", answer).await;
        let count = answer["messages"].as_array().expect("messages").len();
        assert!(count > 0, "{answer}");
        claimed += count;
    }
    let done = with_copy(from.url.clone(), to.url.clone(), &[]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let group = asked(to.address(), "GET", "/api/v1/topics/jobs/groups/workers", "").await;
    assert_eq!((&group["waiting"], &group["done"]), (&json!(0), &json!(0)), "{group}");
    let mut pending: Vec<Value> = Vec::new();
    loop {
        let after = pending.last().map(|last| last["id"].clone());
        let asked = json!({"pending": {"topic": "jobs", "group": "workers", "after": after}});
        let page = told(to.address(), asked).await["pending"].as_array().expect("messages").clone();
        if page.is_empty() {
            break;
        }
        pending.extend(page);
    }
    assert_eq!(pending.len(), COUNT);
    tokio::task::spawn_blocking(move || drop((from, to))).await.expect("no panic");
}
