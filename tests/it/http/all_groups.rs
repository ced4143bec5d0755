//! The list of the groups of all topics: in pages, in order, and only those that nobody attends to.

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::storage::Storage;

use super::on_every_backend;
use super::work::{claim, put, settle};
use crate::access::closed::{self, ROOT, log_in, send, token, user};
use crate::support::relay::{TestRelay, is_wrong, memory, memory_with};

on_every_backend![
    groups_of_all_topics_are_listed_in_pages,
    a_group_that_nobody_attends_to_is_told_from_the_others,
    who_may_work_on_a_topic_sees_its_groups,
];

const ALL: &str = "/api/v1/groups";

/// Follows the pages from a path; returns of each which groups it has, as `topic/group`.
async fn pages(relay: &TestRelay, who: Option<&str>, path: &str) -> Vec<Vec<String>> {
    let (mut pages, mut next) = (Vec::new(), Some(path.to_owned()));
    while let Some(path) = next {
        let answer = send(relay, who, "GET", &path, &Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let groups = answer.json();
        let name = |group: &Value| {
            let text = |field: &str| group[field].as_str().expect("a name").to_owned();
            format!("{}/{}", text("topic"), text("group"))
        };
        pages.push(groups.as_array().expect("a list").iter().map(name).collect());
        next = answer.next_page().map(str::to_owned);
        assert!(pages.len() < 100, "it ends");
    }
    pages
}

async fn groups_of_all_topics_are_listed_in_pages(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    assert_eq!(pages(&relay, None, ALL).await, [Vec::<String>::new()]);
    for topic in ["b", "a", "a.b", "lone"] {
        relay.publish(topic, "1").await;
    }
    for (topic, group) in [("b", "two"), ("b", "one"), ("a", "x"), ("a.b", "z"), ("a.b", "y"), ("a.b", "x")] {
        let path = format!("/api/v1/topics/{topic}/groups/{group}");
        assert_eq!(send(&relay, None, "PUT", &path, &json!({})).await.status, 201);
    }
    let all = ["a/x", "a.b/x", "a.b/y", "a.b/z", "b/one", "b/two"].map(str::to_owned);
    assert_eq!(pages(&relay, None, ALL).await, std::slice::from_ref(&all));
    for limit in 1..=6 {
        let pages = pages(&relay, None, &format!("{ALL}?limit={limit}")).await;
        assert_eq!(pages, all.chunks(limit).map(<[String]>::to_vec).collect::<Vec<_>>(), "{limit} a page");
    }
    for (after, rest) in [("a", 1), ("a/x", 1), ("a/a", 0), ("a.b/y", 3), ("a.b", 4), ("b/two", 6), ("b", 6)]
    {
        let pages = pages(&relay, None, &format!("{ALL}?after={after}")).await;
        assert_eq!(pages.concat(), all[rest..], "behind {after}");
    }
    // Each is as in the list of its topic.
    let first = async |path: &str| {
        let mut group = relay.get(path).await.json()[0].clone();
        // It grows from one look to the next.
        assert!(group["oldest_waiting_seconds"].take().is_number());
        group
    };
    assert_eq!(first(&format!("{ALL}?limit=1")).await, first("/api/v1/topics/a/groups").await);
    for (query, field, rule) in [
        ("limit=0", "limit", "must be"),
        ("after=/x", "after", "a topic name has"),
        ("after=a/b/c", "after", "must be a topic, or a topic and a group"),
        ("unattended=yes", "unattended", "must be `true` or `false`"),
    ] {
        is_wrong(&relay.get(&format!("{ALL}?{query}")).await, field, rule);
    }
    relay.stop().await;
}

async fn a_group_that_nobody_attends_to_is_told_from_the_others(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let unattended = format!("{ALL}?unattended=true");
    // One in which nothing waits is done.
    put(&relay, "idle", json!({})).await;
    assert_eq!(pages(&relay, None, &unattended).await.concat(), [""; 0]);
    for topic in ["left", "worked"] {
        put(&relay, topic, json!({})).await;
        relay.publish(topic, "1").await;
    }
    assert_eq!(pages(&relay, None, &unattended).await.concat(), ["left/workers", "worked/workers"]);
    let held = claim(&relay, "worked", json!({ "consumer": "c" })).await;
    assert_eq!(pages(&relay, None, &unattended).await.concat(), ["left/workers"], "somebody has asked");
    settle(&relay, "ack", json!({ "receipts": [held[0]["receipt"]] })).await;
    assert_eq!(pages(&relay, None, &unattended).await.concat(), ["left/workers"]);
    let all = pages(&relay, None, ALL).await.concat();
    assert_eq!(all, ["idle/workers", "left/workers", "worked/workers"]);
    // What says where the next page is keeps what was asked for.
    put(&relay, "left2", json!({})).await;
    relay.publish("left2", "1").await;
    let pages = pages(&relay, None, &format!("{ALL}?limit=1&unattended=true")).await;
    assert_eq!(pages, [["left/workers".to_owned()], ["left2/workers".to_owned()]]);
    relay.stop().await;
}

async fn who_may_work_on_a_topic_sees_its_groups(storage: Storage) {
    let relay = closed::start(storage).await;
    let maker = json!({ "rules": ["allow publish own"] });
    assert_eq!(send(&relay, Some(ROOT), "PUT", "/api/v1/roles/maker", &maker).await.status, 201);
    user(&relay, "ann", &["maker"]).await;
    let ann = log_in(&relay, "ann").await;
    let ops = token(&relay, ROOT, &["allow publish,read,work,manage *"]).await.1;
    for (topic, maker) in [("jobs.a", &ops), ("jobs.b", &ops), ("own", &ann), ("shop", &ops)] {
        let message = json!({ "topic": topic, "payload": 1 });
        assert_eq!(send(&relay, Some(maker), "POST", "/api/v1/messages", &message).await.status, 201);
        let path = format!("/api/v1/topics/{topic}/groups/workers");
        assert_eq!(send(&relay, Some(&ops), "PUT", &path, &json!({})).await.status, 201);
    }
    let worker = token(&relay, ROOT, &["allow work jobs.*", "deny work jobs.b"]).await.1;
    let reader = token(&relay, ROOT, &["allow publish,read,manage *"]).await.1;
    for (who, status) in [(None, 401), (Some(&*reader), 403)] {
        assert_eq!(send(&relay, who, "GET", ALL, &Value::Null).await.status, status, "{who:?}");
    }
    let seen = async |who: &str| pages(&relay, Some(who), ALL).await.concat();
    assert_eq!(seen(&worker).await, ["jobs.a/workers"]);
    // Of what belongs to others nothing is told, not even that it is there.
    assert_eq!(seen(&ann).await, ["own/workers"]);
    let one = pages(&relay, Some(&worker), &format!("{ALL}?limit=1")).await;
    assert_eq!(one, [["jobs.a/workers".to_owned()]]);
    assert_eq!(seen(&ops).await, ["jobs.a/workers", "jobs.b/workers", "own/workers", "shop/workers"]);
    relay.stop().await;
}

#[tokio::test]
async fn a_page_ends_where_it_has_looked_at_enough_topics() {
    let relay = TestRelay::start(memory_with(|options| options.limits.topics_max = 5_000)).await;
    let topics: Vec<_> =
        (0..2_500).map(|number| json!({ "topic": format!("t{number:04}"), "payload": 1 })).collect();
    for some in topics.chunks(500) {
        let sent = relay.post("/api/v1/messages/bulk", &json!({ "messages": some }).to_string()).await;
        assert_eq!(sent.json()["summary"]["rejected"], 0, "{sent:?}");
    }
    put(&relay, "t1500", json!({})).await;
    put(&relay, "z", json!({})).await;
    let pages = pages(&relay, None, ALL).await;
    let names: [&[&str]; 3] = [&[], &["t1500/workers"], &["z/workers"]];
    assert_eq!(pages, names);
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_without_groups_has_no_list_of_them() {
    let relay = TestRelay::without(memory(), tidemill::features::Feature::Groups).await;
    assert_eq!(relay.get(ALL).await.problem().code, Code::NotFound);
    relay.stop().await;
}
