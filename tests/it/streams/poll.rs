//! Long-polls over several topics, in the shapes of today's clients and without their faults.

use serde_json::{Value, json};

use super::on_both_backends;
use super::wait::waiting;
use crate::support::ground::{Ground, append_numbers, topic};
use crate::support::relay::TestRelay;

async fn poll(relay: &TestRelay, body: Value) -> Value {
    let answer = relay.post("/messages/poll", body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn names(answer: &Value) -> Vec<String> {
    let name = |message: &Value| format!("{}:{}", message["topic"].as_str().unwrap(), message["payload"]);
    answer["messages"].as_array().expect("messages").iter().map(name).collect()
}

async fn an_answer_has_the_shape_that_clients_know(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let body = r#"{"topic":"poll","payload":{"a":1},"metadata":{"k":"v"}}"#;
    let first = relay.post("/api/v1/messages", body).await.json();
    let second = relay.publish("poll", r#"{"a":2}"#).await;
    let answer = poll(&relay, json!({"topics": ["poll"], "since": {"poll": "0-0"}, "timeout": 5})).await;
    let message = &answer["messages"][0];
    assert_eq!(message["stream_id"], first["message_id"]);
    assert_eq!(message["message_id"], first["message_id"]);
    assert_eq!(message["timestamp"], first["timestamp"]);
    let rest = (&message["topic"], &message["payload"], &message["metadata"]);
    assert_eq!(rest, (&json!("poll"), &json!({"a": 1}), &json!({"k": "v"})));
    assert_eq!(answer["messages"][1]["metadata"], json!({}), "clients look into it without asking");
    assert_eq!((&answer["has_more"], &answer["cursors"]), (&json!(false), &json!({"poll": second})));
    assert!(answer.get("gaps").is_none());
    relay.stop().await;
}

/// Fault 3 of the service that today's clients know.
async fn a_cursor_for_one_topic_says_nothing_about_another(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let (a, b) = (append_numbers(&ground.storage, &topic("a"), 3).await, topic("b"));
    append_numbers(&ground.storage, &b, 3).await;
    let body =
        json!({"topics": ["a", "b"], "since": {"a": a[0].to_string(), "elsewhere": "1-0"}, "timeout": 5});
    let answer = poll(&relay, body).await;
    assert_eq!(names(&answer), ["a:1", "a:2"], "nothing of `b` from before");
    let publish = async {
        waiting(&relay, 1).await;
        relay.publish("b", "3").await;
    };
    let (next, ()) =
        tokio::join!(poll(&relay, json!({"topics": ["a", "b"], "since": answer["cursors"]})), publish);
    assert_eq!(names(&next), ["b:3"]);
    relay.stop().await;
}

/// Fault 1: what comes between looking and waiting, and between two polls.
async fn nothing_is_lost_between_polls(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("a", "0").await;
    // The second topic does not exist yet, as when a client starts before anybody has published.
    let empty = poll(&relay, json!({"topics": ["a", "later"], "timeout": 1})).await;
    assert_eq!((names(&empty), &empty["has_more"]), (Vec::new(), &json!(false)), "from now on");
    relay.publish("later", "0").await;
    relay.publish("a", "1").await;
    // A poll answers as soon as it has something; the other message may come with the next one.
    let (mut got, mut since) = (Vec::new(), empty["cursors"].clone());
    for _ in 0..2 {
        let answer = poll(&relay, json!({"topics": ["later", "a"], "since": since, "timeout": 1})).await;
        got.extend(names(&answer));
        since = answer["cursors"].clone();
    }
    got.sort();
    assert_eq!(got, ["a:1", "later:0"]);
    relay.stop().await;
}

async fn a_topic_that_does_not_exist_yet_is_waited_for(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let publish = async {
        waiting(&relay, 1).await;
        relay.publish("later", "0").await;
    };
    let (answer, ()) = tokio::join!(poll(&relay, json!({"topics": ["later"], "since": null})), publish);
    assert_eq!(names(&answer), ["later:0"]);
    assert!(answer.get("gaps").is_none(), "{answer}");
    relay.stop().await;
}

async fn more_than_fits_is_said(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    append_numbers(&ground.storage, &topic("poll"), 1_500).await;
    let first = poll(&relay, json!({"topics": ["poll"], "since": {"poll": "earliest"}})).await;
    assert_eq!((names(&first).len(), &first["has_more"]), (1_000, &json!(true)));
    let rest = poll(&relay, json!({"topics": ["poll"], "since": first["cursors"]})).await;
    assert_eq!((names(&rest).len(), &rest["has_more"]), (500, &json!(false)));
    assert_eq!(names(&rest)[0], "poll:1000");
    relay.stop().await;
}

async fn who_waits_is_counted(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("a", "0").await;
    let look = async {
        waiting(&relay, 2).await;
        let stats = relay.get("/messages/poll/stats").await.json();
        let expected = json!({
            "active_waiters": 2, "subscribed_topics": 2, "topic_subscriber_counts": {"a": 2, "b": 1},
        });
        assert_eq!(stats, expected);
        relay.publish("a", "1").await;
    };
    let body = json!({"topics": ["a", "b", "a"]});
    tokio::join!(poll(&relay, body), relay.get("/api/v1/topics/a/messages?wait=30"), look);
    waiting(&relay, 0).await;
    relay.stop().await;
}

async fn what_is_wrong_is_named(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let many: Vec<_> = (0..21).map(|number| format!("t{number}")).collect();
    for (body, field) in [
        (json!({}), "topics"),
        (json!({"topics": []}), "topics"),
        (json!({"topics": "a"}), "topics"),
        (json!({"topics": [1]}), "topics"),
        (json!({"topics": ["no good"]}), "topics"),
        (json!({"topics": many}), "topics"),
        (json!({"topics": ["a"], "since": ["1-0"]}), "since"),
        (json!({"topics": ["a"], "since": {"a": 1}}), "since.a"),
        (json!({"topics": ["a"], "since": {"a": "$"}}), "since.a"),
        (json!({"topics": ["a"], "timeout": 0}), "timeout"),
        (json!({"topics": ["a"], "timeout": 61}), "timeout"),
        (json!({"topics": ["a"], "timeout": "61s"}), "timeout"),
        (json!({"topics": ["a"], "timeout": "soon"}), "timeout"),
        (json!({"topics": ["a"], "wait": 5}), "wait"),
    ] {
        let answer = relay.post("/messages/poll", body.to_string()).await;
        let problem = answer.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{body}");
    }
    relay.stop().await;
}

on_both_backends! {
    an_answer_has_the_shape_that_clients_know,
    a_cursor_for_one_topic_says_nothing_about_another,
    nothing_is_lost_between_polls,
    a_topic_that_does_not_exist_yet_is_waited_for,
    more_than_fits_is_said,
    who_waits_is_counted,
    what_is_wrong_is_named,
}
