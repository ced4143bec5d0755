//! The console in a real browser: groups over all topics, what a topic has by now, and keys that another has changed.

use serde_json::{Value, json};

use super::console::Shown;

/// Has `/metrics` say that a group is unattended, which a sweep would tell after a while.
const UNATTENDED: &str = r"{
    const asked = window.fetch;
    window.fetch = async (url, ...rest) => {
      const response = await asked(url, ...rest);
      return String(url).endsWith('/metrics') ? new Response(`${await response.text()}\ntidemill_work_unattended_groups 1\n`) : response;
    };
}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_nobody_attends_to_are_found_from_the_overview() {
    let Some(mut shown) = Shown::open().await else { return };
    for topic in ["jobs", "mails"] {
        shown.asks("PUT", &format!("/api/v1/topics/{topic}/groups/workers"), json!({})).await;
    }
    shown.publish("mails", "1").await;
    shown.log_in("root").await;
    shown.at("#/nodes", "has answered").await;
    shown.does(UNATTENDED).await;
    shown.at("#/", "nobody has asked for them for a minute").await;
    shown.does("await press('Which groups'); await shows('mails'); await hides('jobs');").await;
    shown.does("await press('All groups'); await shows('jobs'); await shows('2 groups');").await;
    shown.does("await press('workers'); await shows('Gives messages out');").await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_of_a_topic_that_is_followed_says_what_it_has_by_now() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.log_in("root").await;
    shown.at("#/topic/t/live", "There is no such topic now").await;
    shown.does("await shows('Live; 0 came');").await;
    shown.publish("t", "1").await;
    shown.does("await shows('Live; 1 came'); await shows('1 message,'); await shows('1 live reader on this node'); await hides('There is no such topic now');").await;
    shown.publish("t", "2").await;
    shown.does("await shows('2 messages,');").await;
    // What is shown of a topic that is there is shown once it is.
    shown.at("#/topic/later", "There is no such topic now").await;
    shown.publish("later", r#""here it is""#).await;
    shown.does("await shows('here it is');").await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_told_when_it_ends_and_by_what_it_is_compacted() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.publish("t", "1").await;
    shown.log_in("root").await;
    shown.at("#/topic/t/settings", "What it keeps").await;
    shown.does("await fill('Ends after seconds without use', '3600'); await fill('Compacted by (a field of the metadata)', 'customer'); await press('Change it'); await shows('Changed.');").await;
    let about = shown.asks("GET", "/api/v1/topics/t", Value::Null).await;
    assert_eq!((&about["idle_seconds"], &about["compact_by"]), (&json!(3600), &json!("customer")));
    shown.does("await fill('Ends after seconds without use', ''); await fill('Compacted by (a field of the metadata)', ''); await press('Change it');").await;
    shown.does("await until('it is cleared', () => document.querySelector('.done'));").await;
    let about = shown.asks("GET", "/api/v1/topics/t", Value::Null).await;
    assert_eq!((&about["idle_seconds"], &about["compact_by"]), (&Value::Null, &Value::Null));
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_another_has_changed_can_be_loaded_anew() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.asks("PUT", "/api/v1/keys/b/k", json!("first")).await;
    shown.log_in("root").await;
    for refused in [
        "await fill('Value', '\"mine\"'); await press('Put it');",
        "await press('Delete it'); await until('it is asked', () => document.querySelector('dialog')); document.querySelector('dialog button[value=yes]').click();",
    ] {
        shown.at("#/keys/b/k", "Revision").await;
        shown.asks("PUT", "/api/v1/keys/b/k", json!("theirs")).await;
        shown.does(&format!("{refused} await shows('Another has changed it meanwhile');")).await;
        shown.does("await press('Load what is there now'); await hides('Another has changed it meanwhile'); await until('it is theirs', () => document.querySelector('textarea').value === '\"theirs\"');").await;
        shown.at("#/keys/b", "Changes").await;
        shown.asks("PUT", "/api/v1/keys/b/k", json!("first")).await;
    }
    shown.close().await;
}
