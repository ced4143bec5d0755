//! The console in a real browser: what went wrong is told where it did, and what stands there is what there is.

use serde_json::{Value, json};
use tidemill::features::{Feature, Features};

use super::console::Shown;
use crate::access::closed::user;
use crate::support::relay::memory;

/// Has the answers to some paths be others, as `window.other` makes them of what the relay has said.
const OTHERWISE: &str = r"{
    const asked = window.fetch;
    window.fetch = async (url, ...rest) => {
      const response = await asked(url, ...rest);
      const other = window.other?.(String(url), response.ok ? await response.clone().text() : null);
      return other === undefined ? response : new Response(other, { status: 200, headers: response.headers });
    };
}";

/// Has a JSON answer to a path have these members, too.
async fn told_with(shown: &mut Shown, path: &str, members: &Value) {
    let script = format!(
        "window.other = (url, text) => (url.includes({}) && text ? JSON.stringify({{ ...JSON.parse(text), ...{members} }}) : undefined);",
        json!(path)
    );
    shown.does(&script).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_is_no_text_is_shown_as_numbers_and_one_that_is_gone_is_told() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.asks("POST", "/api/v1/messages", json!({ "topic": "t", "payload_base64": "AP/+QQ==" })).await;
    shown.log_in("root").await;
    shown.at("#/topic/t", "base64").await;
    shown.does("await press('As it was kept'); await shows('000000  00 ff fe 41'); await shows('Download (4 B)');").await;
    shown.publish("t", r#"{"a":1}"#).await;
    shown.at("#/topic/t?after=0-0", "\"a\": 1").await;
    let page = shown.asks("GET", "/api/v1/topics/t/messages", Value::Null).await;
    let id = page["messages"][0]["message_id"].as_str().expect("an id");
    // The newest stands last.
    shown.does("[...document.querySelectorAll('.message button')].filter(each => each.textContent === 'As it was kept').at(-1).click(); await shows('{\"a\":1}');").await;
    shown.at("#/topic/t", "\"a\": 1").await;
    shown.asks("DELETE", &format!("/api/v1/topics/t/messages/{id}"), Value::Null).await;
    shown.does("await press('As it was kept'); await shows('message_not_found');").await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_says_what_it_keeps_and_one_that_is_not_there_can_be_made() {
    let Some(mut shown) = Shown::open().await else { return };
    let keeps = json!({ "history": 4, "ttl": 100_000, "adaptive_ttl": { "min": "30s", "max": "90s" } });
    shown.asks("PUT", "/api/v1/buckets/b", keeps).await;
    for value in ["first", "second"] {
        shown.asks("PUT", "/api/v1/keys/b/k", json!(value)).await;
    }
    shown.log_in("root").await;
    shown.at("#/keys", "Revisions kept of a key").await;
    // What is set is shown as it is, not about.
    shown.does("await shows('100,000 s'); await hides('Earlier values');").await;
    shown.at("#/keys/b", "Revisions kept of a key").await;
    shown.does("await shows('30 s to 90 s'); await shows('100,000 s'); await hides('Earlier values');").await;
    shown.at("#/keys/b/k", "Put it").await;
    shown
        .does("await hides('first'); await press('Show them'); await shows('\"first\"'); await shows('\"second\"');")
        .await;
    shown.at("#/keys/none", "It is made with its first key").await;
    shown.does("await fill('Make a key, or go to one', 'k'); await press('Go'); await shows('There is no such key now');").await;
    shown.does("await fill('Value', '1'); await press('Make it'); await shows('Revision');").await;
    assert_eq!(shown.asks("GET", "/api/v1/keys/none/k", Value::Null).await, json!(1));
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feature_that_is_off_is_told_and_nothing_is_offered_to_be_made() {
    let shown = Shown::open_on(memory(), |options| {
        let features = Features::all().without(Feature::Keys);
        (options.relay.features, options.http.features) = (features, features);
    });
    let Some(mut shown) = shown.await else { return };
    shown.log_in("root").await;
    shown.at("#/keys/b/k", "not_found").await;
    shown.does("await hides('Make it');").await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_says_what_it_has_lost_and_why_it_ended() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.asks("PUT", "/api/v1/keys/b/k", json!(1)).await;
    shown.log_in("root").await;
    shown.at("#/keys/b", "Changes").await;
    shown.does("await press('Watch'); await shows('Watching; 0 changes came');").await;
    shown.asks("PUT", "/api/v1/keys/b/k", json!(2)).await;
    shown.does("await shows('Watching; 1 changes came');").await;
    // Another bucket of that name: what it has is no change.
    shown.asks("DELETE", "/api/v1/buckets/b", Value::Null).await;
    for key in ["one", "two", "three"] {
        shown.asks("PUT", &format!("/api/v1/keys/b/{key}"), json!(3)).await;
    }
    shown.does("await shows('Changes were lost here');").await;
    shown.asks("PUT", "/api/v1/keys/b/last", json!(4)).await;
    shown.does("await shows('last  put');").await;
    let open = shown.asks("GET", "/api/v1/admin/sessions", Value::Null).await;
    let watch = open["sessions"].as_array().expect("a list").iter().find(|each| each["kind"] == "watch");
    let watch = watch.or(open["sessions"].get(0)).expect("it is open")["session"].clone();
    shown
        .asks("DELETE", &format!("/api/v1/admin/sessions/{}", watch.as_str().expect("an id")), Value::Null)
        .await;
    shown.does("await shows('The relay has ended it (');").await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_messages_goes_on_where_the_relay_says_and_tells_its_age() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.publish("t", "1").await;
    shown.log_in("root").await;
    shown.tools.run(OTHERWISE).await;
    told_with(&mut shown, "/messages?", &json!({ "messages": [], "next_cursor": "5-0", "age_ms": 1500 }))
        .await;
    shown.at("#/topic/t?after=earliest", "what was here has expired").await;
    shown.does("await shows('Newer'); await shows('1,500 ms behind');").await;
    shown.at("#/topic/t", "Older").await;
    shown.does("window.other = null; await press('The oldest'); await hides('has expired');").await;
    shown.close().await;
}

/// Makes dead letters of a group: of all messages of a topic that it has not been given.
async fn die(shown: &Shown, topic: &str, group: &str, count: usize) {
    let mut left = count;
    while left > 0 {
        let claim = json!({ "consumer": "c", "max": left.min(50) });
        let claimed =
            shown.asks("POST", &format!("/api/v1/topics/{topic}/groups/{group}/claim"), claim).await;
        let messages = claimed["messages"].as_array().expect("a list");
        assert!(!messages.is_empty(), "{claimed}");
        left -= messages.len();
        let receipts: Vec<_> = messages.iter().map(|message| &message["receipt"]).collect();
        let body = json!({ "receipts": receipts, "reason": format!("of {group}") });
        shown.asks("POST", "/api/v1/work/reject", body).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_found_among_those_of_others_and_what_became_of_them_is_told() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.publish("few", r#""one""#).await;
    let many = vec![json!({ "topic": "many", "payload": "x" }); 120];
    shown.asks("POST", "/api/v1/messages/bulk", json!({ "messages": many })).await;
    for topic in ["few", "many"] {
        let settings = json!({ "dead_letter": "letters", "max_in_flight": 50 });
        shown.asks("PUT", &format!("/api/v1/topics/{topic}/groups/g"), settings).await;
    }
    die(&shown, "few", "g", 1).await;
    die(&shown, "many", "g", 120).await;
    shown.log_in("root").await;
    // More than a page of another group's lie before it.
    shown.at("#/group/few/g", "of g").await;
    shown.does("await shows('1 dead letter'); await press('letters'); await shows('As it was kept');").await;
    shown.at("#/group/many/g", "120 dead letters").await;
    let rows = "document.querySelectorAll('tbody tr td.act').length";
    assert_eq!(shown.tools.run(rows).await, json!(100));
    shown.does(&format!("await press('More'); await until('all', () => {rows} === 120);")).await;
    shown.does("await press('Delete'); await shows('1 dead letter is deleted.'); await shows('119 dead letters');").await;
    // One that another has brought back meanwhile.
    let first = "document.querySelector('td code').textContent";
    let id = shown.tools.run(first).await;
    shown.asks("POST", "/api/v1/topics/many/groups/g/redrive", json!({ "ids": [id] })).await;
    shown
        .does("await press('Work on it again'); await shows('0 messages wait again; 1 is no dead letter of this group.');")
        .await;
    shown.does("await press('Work on all again'); await shows('118 messages wait again.'); await shows('There is none.');").await;
    shown.does("await hides('Delete all');").await;
    // Why nothing more is given out.
    let claim = json!({ "consumer": "c", "max": 50 });
    shown.asks("POST", "/api/v1/topics/many/groups/g/claim", claim).await;
    shown.does("await shows('Consumers have the 50 messages that they may have together');").await;
    shown
        .asks(
            "PATCH",
            "/api/v1/topics/many/groups/g",
            json!({ "max_in_flight": null, "per_consumer_max": 50, "max_run": "36h" }),
        )
        .await;
    shown.does("await shows('Each consumer that has messages has the 50'); await shows('36 h'); await shows('1 s, 2 s, 4 s');").await;
    // A name that would mean a folder in a path asks for nothing.
    shown
        .does(
            "await fill('Message id', '..'); await press('What became of it'); await shows('.. is no name');",
        )
        .await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_cannot_be_described_is_a_topic_all_the_same() {
    let Some(mut shown) = Shown::open().await else { return };
    user(&shown.relay, "ann", &["read"]).await;
    shown
        .asks("POST", "/api/v1/topics", json!({ "topic_name": "stats", "description": "of the shop" }))
        .await;
    for topic in ["stats", "z"] {
        shown.publish(topic, r#""one""#).await;
    }
    shown.log_in("ann").await;
    shown.at("#/topics", "stats").await;
    shown.does("await until('it is counted', () => [...document.querySelectorAll('tr')].some(row => row.cells[0].innerText === 'z' && row.cells[1].innerText === '1'));").await;
    shown.at("#/topic/stats", r#""one""#).await;
    shown.does("await shows('of the shop'); location.hash = '#/'; await shows('Administrators see more'); document.querySelector('.who button').click(); await shows('Or with a token');").await;
    shown.log_in("root").await;
    shown.at("#/topic/stats/live", "Live; 0 came").await;
    shown.at("#/topic/stats/publish", "Publish a message").await;
    shown.does("await fill('Payload', '2'); await press('Publish'); await shows('Kept as');").await;
    shown.at("#/topic/stats/settings", "What it keeps").await;
    shown
        .does("await fill('Messages that are kept', '7'); await press('Change it'); await shows('Changed.');")
        .await;
    let listed = shown.asks("GET", "/api/v1/topics?match=stats", Value::Null).await;
    assert_eq!((&listed[0]["max_messages"], &listed[0]["description"]), (&json!(7), &json!("of the shop")));
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_another_has_changed_stay_so_and_a_reason_is_typed() {
    let Some(mut shown) = Shown::open().await else { return };
    let made = json!({ "topic_name": "t", "description": "one\ntwo", "max_messages": 5 });
    shown.asks("POST", "/api/v1/topics", made).await;
    shown.log_in("root").await;
    shown.at("#/topic/t/settings", "What it keeps").await;
    shown.asks("PATCH", "/api/v1/topics/t", json!({ "max_messages": 9, "when_full": "refuse" })).await;
    shown.does("await press('Change it'); await shows('Nothing was changed');").await;
    shown.does("await fill('Seconds for which messages are kept', '60'); await press('Change it'); await shows('Changed.');").await;
    let about = shown.asks("GET", "/api/v1/topics/t", Value::Null).await;
    let found =
        (&about["description"], &about["max_messages"], &about["when_full"], &about["retention_seconds"]);
    assert_eq!(found, (&json!("one\ntwo"), &json!(9), &json!("refuse"), &json!(60)));
    // What there is stands in the form now, and can be changed in turn.
    shown.does("await fill('Messages that are kept', ''); await fill('Description', 'three\\nfour'); await press('Change it');").await;
    shown.does("await shows('Changed.');").await;
    let about = shown.asks("GET", "/api/v1/topics/t", Value::Null).await;
    let found = (&about["description"], &about["max_messages"], &about["retention_seconds"]);
    assert_eq!(found, (&json!("three\nfour"), &Value::Null, &json!(60)));
    shown
        .does("await fill('Why it is cancelled', 'out of budget'); await press('Cancel'); await press('Cancel it'); await shows('cancelled: out of budget');")
        .await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_good_is_told_beside_what_stood_there() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.publish("t", "1").await;
    shown.asks("PUT", "/api/v1/topics/t/groups/workers", json!({})).await;
    shown.log_in("root").await;
    shown.at("#/group/t/workers", "Gives messages out").await;
    shown.asks("DELETE", "/api/v1/topics/t/groups/workers", Value::Null).await;
    shown.does("await shows('group_not_found'); await shows('What stands here may be old.'); await shows('Gives messages out');").await;
    shown.asks("PUT", "/api/v1/topics/t/groups/workers", json!({})).await;
    shown.does("await hides('may be old'); await hides('group_not_found');").await;
    shown.close().await;
}

/// Logs in with a token that has this rule.
async fn by_token(shown: &mut Shown, rule: &str) {
    let made = shown.asks("POST", "/api/v1/tokens", json!({ "name": "t", "rules": [rule] })).await;
    let script = format!(
        "await fill('Token', {}); await press('Use the token'); await shows('Overview');",
        made["token"]
    );
    shown.does(&script).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_a_topic_does_what_else_it_may() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.publish("t", "1").await;
    by_token(&mut shown, "allow publish t").await;
    shown.at("#/topic/t/publish", "Publish a message").await;
    shown.does("await shows('shown to who may read it'); await fill('Payload', '2'); await press('Publish'); await shows('Kept as');").await;
    shown.at("#/topic/t", "forbidden").await;
    shown.does("location.hash = '#/'; await shows('Administrators see more'); document.querySelector('.who button').click(); await shows('Or with a token');").await;
    by_token(&mut shown, "allow manage t").await;
    shown.at("#/topic/t/settings", "Trim").await;
    shown.does("await fill('Messages that stay', '1'); await press('Trim'); await press('Trim it'); await shows('1 message removed.');").await;
    shown.close().await;
}
