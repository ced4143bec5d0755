//! Topics over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::storage::Storage;

use super::on_every_backend;
use crate::support::eventually;
use crate::support::relay::TestRelay;
use crate::support::ws::WsClient;

const JSON: (&str, &str) = ("content-type", "application/json");

on_every_backend![
    a_topic_lives_from_create_to_delete,
    the_live_readers_of_a_topic_are_counted,
    a_part_of_a_topic_is_changed_and_the_rest_stays,
    the_list_is_read_page_by_page,
    the_list_is_narrowed_to_a_pattern,
    a_message_is_deleted_by_itself,
    a_trim_removes_the_old_end,
    a_topic_may_be_called_stats,
];

async fn a_topic_lives_from_create_to_delete(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let body = r#"{"topic_name":"topics.life","description":"Über \"alles\"","retention_seconds":3600}"#;
    let created = relay.post("/api/v1/topics", body).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.header("location"), Some("/api/v1/topics/topics.life"));
    let created = created.json();
    assert_eq!(created["topic_id"], "topics.life");
    assert_eq!(created["description"], "Über \"alles\"");
    assert_eq!(created["retention_seconds"], 3600);
    assert!(created["created_at"].is_string());
    assert_eq!(relay.post("/api/v1/topics", body).await.problem().code, Code::TopicExists);

    let path = "/api/v1/topics/topics.life";
    let empty = relay.get(path).await.json();
    assert_eq!(
        (&empty["length"], &empty["first_id"], &empty["oldest_age_seconds"]),
        (&json!(0), &Value::Null, &Value::Null)
    );
    assert_eq!(relay.get(&format!("{path}/messages")).await.json()["total"], 0);
    let first = relay.publish("topics.life", "1").await;
    let last = relay.publish("topics.life", "2").await;
    let detail = relay.get(path).await.json();
    assert_eq!(detail["length"], 2);
    assert_eq!((detail["first_id"].as_str(), detail["last_id"].as_str()), (Some(&*first), Some(&*last)));
    assert!(detail["oldest_age_seconds"].as_u64().expect("an age") < 60);
    assert_eq!((&detail["given"], &detail["readers"]), (&json!(2), &json!(0)), "{detail}");
    assert!(detail["bytes"].as_u64().expect("a size") > 10, "{detail}");

    let updated = relay.send("PUT", path, &[JSON], br#"{"description":"new"}"#).await.json();
    assert_eq!((&updated["description"], &updated["retention_seconds"]), (&json!("new"), &Value::Null));
    assert_eq!(updated["created_at"], created["created_at"]);
    let deleted = relay.send("DELETE", path, &[], b"").await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(relay.get(path).await.status, 404);
    assert_eq!(relay.get(&format!("{path}/messages")).await.status, 404, "its messages went with it");
    assert_eq!(relay.send("DELETE", path, &[], b"").await.problem().code, Code::TopicNotFound);
    assert_eq!(relay.send("PUT", path, &[JSON], b"{}").await.problem().code, Code::TopicNotFound);
    relay.stop().await;
}

async fn the_live_readers_of_a_topic_are_counted(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("counted.a", "1").await;
    relay.publish("other", "1").await;
    let readers =
        async |topic: &str| relay.get(&format!("/api/v1/topics/{topic}")).await.json()["readers"].clone();
    let mut by_name = WsClient::connect(relay.address).await;
    by_name.subscribe("counted.a", "latest").await;
    let mut by_pattern = WsClient::connect(relay.address).await;
    by_pattern.ask(r#"{"type":"subscribe","topics":["counted.*"]}"#, "subscribed").await;
    // Who reads by a pattern counts twice until it has come to the newest message.
    eventually(Duration::from_secs(5), async || readers("counted.a").await == 2).await;
    assert_eq!(readers("other").await, 0);
    by_name.close().await;
    by_pattern.close().await;
    eventually(Duration::from_secs(5), async || readers("counted.a").await == 0).await;
    relay.stop().await;
}

async fn a_part_of_a_topic_is_changed_and_the_rest_stays(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let body = r#"{"topic_name":"part","description":"d","max_messages":1000,"max_bytes":100000,"when_full":"refuse","keep_until_acked":true,"idle_seconds":9,"compact_by":"k"}"#;
    let created = relay.post("/api/v1/topics", body).await.json();
    let kept = |topic: &Value| {
        [
            "description",
            "retention_seconds",
            "max_messages",
            "max_bytes",
            "when_full",
            "keep_until_acked",
            "idle_seconds",
            "compact_by",
        ]
        .map(|name| topic[name].clone())
    };
    let null = Value::Null;
    let key = json!("k");
    let first = [
        json!("d"),
        null.clone(),
        json!(1_000),
        json!(100_000),
        json!("refuse"),
        json!(true),
        json!(9),
        key.clone(),
    ];
    assert_eq!(kept(&created), first);
    let drops =
        [json!("d"), json!(60), json!(7), null.clone(), json!("drop_old"), json!(true), json!(9), key];
    let forgets = [
        json!("d"),
        json!(60),
        json!(7),
        null.clone(),
        json!("drop_old"),
        json!(false),
        null.clone(),
        null.clone(),
    ];
    for (body, expected) in [
        ("{}", first),
        (r#"{"max_bytes":null,"retention_seconds":60,"max_messages":7,"when_full":null}"#, drops.clone()),
        (r#"{"when_full":"drop_old"}"#, drops),
        (r#"{"keep_until_acked":false,"idle_seconds":null,"compact_by":null}"#, forgets),
    ] {
        let changed = relay.send("PATCH", "/api/v1/topics/part", &[JSON], body.as_bytes()).await;
        assert_eq!((changed.status, kept(&changed.json())), (200, expected.clone()), "{body}");
        assert_eq!(kept(&relay.get("/api/v1/topics/part").await.json()), expected, "{body}");
    }
    let refused = relay.send("PATCH", "/api/v1/topics/part", &[JSON], br#"{"max_messages":0}"#).await;
    assert_eq!(refused.problem().field.as_deref(), Some("max_messages"));
    let replaced = relay.send("PUT", "/api/v1/topics/part", &[JSON], br#"{"max_bytes":8}"#).await.json();
    let nothing = null.clone();
    let bytes =
        [null.clone(), null.clone(), nothing, json!(8), json!("drop_old"), json!(false), null.clone(), null];
    assert_eq!(kept(&replaced), bytes);
    let missing = relay.send("PATCH", "/api/v1/topics/none", &[JSON], b"{}").await;
    assert_eq!(missing.problem().code, Code::TopicNotFound);
    relay.stop().await;
}

/// Reads a list from its first page to its last; returns the names of each page.
async fn pages(relay: &TestRelay, first: &str) -> Vec<Vec<String>> {
    let (mut pages, mut path) = (Vec::new(), first.to_owned());
    loop {
        let page = relay.get(&path).await;
        let topics = page.json();
        let topics = topics.as_array().expect("a JSON list");
        pages.push(topics.iter().map(|it| it["topic_name"].as_str().expect("a name").to_owned()).collect());
        let Some(next) = page.next_page() else { return pages };
        next.clone_into(&mut path);
    }
}

async fn the_list_is_read_page_by_page(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for name in ["list.a", "list.b", "list.c", "list.d", "list.e"] {
        relay.publish(name, "1").await;
    }
    // Other tests may share the backend: names of this test are what is looked at.
    let pages = pages(&relay, "/api/v1/topics?limit=2").await;
    assert!(pages.iter().all(|page| page.len() <= 2));
    let mut names = pages.concat();
    names.retain(|name| name.starts_with("list."));
    assert_eq!(names, ["list.a", "list.b", "list.c", "list.d", "list.e"]);
    relay.stop().await;
}

async fn the_list_is_narrowed_to_a_pattern(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for name in ["match.a:1", "match.a:2", "match.b", "match.b:1", "match.b:2", "match.b:3", "match", "mat"] {
        relay.publish(name, "1").await;
    }
    let listed =
        async |selected: &str| pages(&relay, &format!("/api/v1/topics?limit=2&match={selected}")).await;
    assert_eq!(
        listed("match.*:*").await,
        [&["match.a:1", "match.a:2"][..], &["match.b:1", "match.b:2"], &["match.b:3"]]
    );
    assert_eq!(listed("match.*%3A1").await, [["match.a:1", "match.b:1"]]);
    assert_eq!(listed("match*b").await, [["match.b"]]);
    assert_eq!(listed("match").await, [["match"]], "a name is that topic");
    for none in ["match.c*", "match.c", "*match.no"] {
        assert_eq!(listed(none).await, [[""; 0]], "{none}");
    }
    let problem = relay.get("/api/v1/topics?match=match.").await.problem();
    assert!(problem.detail.contains("starts or ends with"), "{problem}");
    relay.stop().await;
}

async fn a_trim_removes_the_old_end(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(relay.publish("topics.trim", &n.to_string()).await);
    }
    let trim = |body: String| {
        let relay = &relay;
        async move { relay.post("/api/v1/topics/topics.trim/trim", body).await }
    };
    assert_eq!(trim(r#"{"keep":8}"#.to_owned()).await.text(), r#"{"removed":2}"#);
    assert_eq!(trim(format!(r#"{{"before":"{}"}}"#, ids[5])).await.text(), r#"{"removed":3}"#);
    assert_eq!(relay.get("/api/v1/topics/topics.trim").await.json()["first_id"], ids[5].as_str());
    assert_eq!(trim(r#"{"before":"-1h"}"#.to_owned()).await.text(), r#"{"removed":0}"#);
    for bad in [
        "{}",
        r#"{"keep":1,"before":"1-1"}"#,
        r#"{"keep":-1}"#,
        r#"{"keep":"1"}"#,
        r#"{"before":1}"#,
        r#"{"before":"latest"}"#,
        r#"{"before":"tomorrow"}"#,
    ] {
        assert_eq!(trim(bad.to_owned()).await.problem().code, Code::InvalidField, "{bad}");
    }
    assert_eq!(trim(r#"{"keep":0}"#.to_owned()).await.text(), r#"{"removed":5}"#);
    assert_eq!(relay.get("/api/v1/topics/topics.trim").await.json()["length"], 0);
    let none = relay.post("/api/v1/topics/topics.no/trim", r#"{"keep":0}"#).await;
    assert_eq!(none.problem().code, Code::TopicNotFound);
    relay.stop().await;
}

async fn a_message_is_deleted_by_itself(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(relay.publish("topics.one", &n.to_string()).await);
    }
    let path = |id: &str| format!("/api/v1/topics/topics.one/messages/{id}");
    assert_eq!(relay.send("DELETE", &path(&ids[1]), &[], b"").await.status, 204);
    for method in ["GET", "DELETE"] {
        let gone = relay.send(method, &path(&ids[1]), &[], b"").await;
        assert_eq!(gone.problem().code, Code::MessageNotFound, "{method}");
    }
    for after in [&ids[0], &ids[1]] {
        let page = relay.get(&format!("/api/v1/topics/topics.one/messages?after={after}")).await.json();
        assert!(page["gap"].is_null(), "it was taken out on purpose: {page}");
        assert_eq!((&page["messages"][0]["payload"], &page["total"]), (&2.into(), &2.into()));
    }
    assert_eq!(relay.send("DELETE", &path("x"), &[], b"").await.problem().code, Code::InvalidField);
    let unknown = relay.send("DELETE", &(path(&ids[2]) + "?force=1"), &[], b"").await;
    assert_eq!(unknown.status, 400);
    let none = relay.send("DELETE", "/api/v1/topics/topics.no/messages/1-0", &[], b"").await;
    assert_eq!(none.problem().code, Code::TopicNotFound);
    assert_eq!(relay.get("/api/v1/topics/topics.one").await.json()["length"], 3);
    relay.stop().await;
}

async fn a_topic_may_be_called_stats(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("stats", "1").await;
    let stats = relay.get("/api/v1/topics/stats").await.json();
    assert!(stats["total_topics"].as_u64().expect("a number") >= 1);
    assert!(stats["total_messages"].as_u64().expect("a number") >= 1);
    assert_eq!(relay.get("/api/v1/topics/stats/messages").await.json()["total"], 1);
    let updated = relay.send("PUT", "/api/v1/topics/stats", &[JSON], br#"{"description":"mine"}"#).await;
    assert_eq!(updated.json()["description"], "mine");
    assert_eq!(relay.send("DELETE", "/api/v1/topics/stats", &[], b"").await.status, 204);
    assert_eq!(relay.get("/api/v1/topics/stats/messages").await.status, 404);
    relay.stop().await;
}
