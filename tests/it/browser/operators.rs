//! The console in a real browser: what somebody sees who runs a relay, and what who may not does not.

use std::time::Duration;

use serde_json::{Value, json};

use super::console::Shown;
use crate::access::closed::user;
use crate::support::relay::memory;

/// Has `/health` say what it says of a storage in trouble, and `/metrics` count a hundred a second of everything that counts
/// here as something, and of what is counted elsewhere already.
const TROUBLE: &str = r#"
    const asked = window.fetch;
    const health = told => ({
      ...told,
      kept: [{ topics: 'orders.*', bytes: 2048, bytes_max: 1024, is_reached: true }, { topics: 'calm', bytes: 1, bytes_max: 1024, is_reached: false }],
      backend: { ...told.backend, taken_over: 3, servers: [
        { address: 'one:6379', connected: true, accepts_writes: true, memory_used_bytes: 1048576, memory_limit_bytes: 2097152 },
        { address: 'two:6379', connected: true, accepts_writes: true, memory_used_bytes: 1024, memory_limit_bytes: null } ] },
    });
    const metrics = () => {
      const count = Math.round(performance.now() / 10);
      return [
        'tidemill_messages_published_total{result="accepted"} 5', `tidemill_messages_published_total{result="replayed"} ${count}`,
        'tidemill_messages_served_total 7', `tidemill_ws_messages_sent_total ${count}`,
        `tidemill_messages_rejected_total{code="storage_unavailable"} ${count}`,
        `tidemill_http_requests_total{method="POST",route="/api/v1/topics/{topic}/messages",status="503"} ${count}`,
        'tidemill_http_requests_total{method="GET",route="/api/v1/topics",status="503"} 3',
      ].join('\n');
    };
    window.fetch = async (url, options) => {
      const response = await asked(url, options);
      if (String(url).endsWith('/health')) return Response.json(health(await response.json()));
      return String(url).endsWith('/metrics') ? new Response(metrics()) : response;
    };"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overview_says_what_stands_in_the_way_and_counts_everything_once() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.log_in("root").await;
    shown.at("#/nodes", "has answered").await;
    shown.does(TROUBLE).await;
    shown.at("#/", "The topics of orders.* keep the 1.0 KiB that they may").await;
    shown.does("await shows('3 of topics and buckets are a part of a copy'); await hides('calm');").await;
    shown
        .does("await shows('1.0 MiB of 2.0 MiB'); await shows('Of several, only the one that looked last');")
        .await;
    let figures = "[...document.querySelectorAll('.figure')].map(figure => figure.textContent)";
    shown
        .does(&format!("await until('it is plotted', () => {figures}[1] !== '–' && {figures}[1] !== '0');"))
        .await;
    let told = shown.tools.run(figures).await;
    let figure = |at: usize| told[at].as_str().and_then(|text| text.parse::<f64>().ok()).expect("a number");
    assert!(figure(0) < 1.0, "what is given again was published once: {told}");
    assert!((50.0..150.0).contains(&figure(1)), "to WebSockets, too: {told}");
    assert!((50.0..150.0).contains(&figure(4)), "each refusal once: {told}");
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_says_how_far_it_is_and_until_when() {
    let shown = Shown::open_on(memory(), |options| options.drain_notice = Duration::from_secs(4));
    let Some(mut shown) = shown.await else { return };
    shown.log_in("root").await;
    shown.at("#/sessions", "which has answered").await;
    shown.asks("POST", "/api/v1/admin/drain", Value::Null).await;
    shown.does("await shows('it says that it is not ready'); await shows('at the latest');").await;
    shown.does("await shows('has drained, and can be stopped');").await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_took_long_has_its_request_and_its_answer() {
    let shown = Shown::open_on(memory(), |options| options.relay.slow_after = Duration::from_millis(1));
    let Some(mut shown) = shown.await else { return };
    shown.log_in("root").await;
    shown.at("#/slow", "which has answered").await;
    // So much takes more than a millisecond.
    let many = vec![json!({ "topic": "t", "payload": "x".repeat(1_000) }); 1_000];
    shown.asks("POST", "/api/v1/messages/bulk", json!({ "messages": many })).await;
    shown.does("await shows('Request'); await shows('POST /api/v1/messages/bulk');").await;
    let list = shown.asks("GET", "/api/v1/admin/slow", Value::Null).await;
    let noted = list["operations"].as_array().expect("a list");
    let noted = noted.iter().find(|each| each["operation"] == "POST /api/v1/messages/bulk");
    let id = noted.and_then(|each| each["request_id"].as_str()).expect("an id");
    shown.does(&format!("await shows('{id}'); await shows('Status');")).await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_for_administrators_say_which_they_are_and_show_nothing_empty() {
    let Some(mut shown) = Shown::open().await else { return };
    user(&shown.relay, "ann", &["read"]).await;
    shown.publish("t", "1").await;
    shown.asks("PUT", "/api/v1/topics/t/groups/workers", json!({})).await;
    shown.log_in("ann").await;
    shown.does("await shows('Administrators see more'); await hides('Live readers');").await;
    for (page, heading) in
        [("nodes", "Nodes"), ("sessions", "Sessions"), ("slow", "Slow"), ("group/t/workers", "workers")]
    {
        shown.at(&format!("#/{page}"), heading).await;
        shown.does("await shows('forbidden');").await;
    }
    shown.at("#/access", "Administrators see this").await;
    assert_eq!(shown.tools.run("document.querySelectorAll('main .error').length").await, json!(0));
    shown.close().await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_damaged_is_told_and_can_be_put_anew() {
    use crate::conformance::damage;
    use crate::support::ground::Ground;
    use crate::support::server::Kind;

    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let Some(mut shown) = Shown::open_on(ground.storage.clone(), |_| {}).await else { return };
    shown.asks("PUT", "/api/v1/buckets/b", json!({ "history": 4 })).await;
    for value in ["one", "two"] {
        shown.asks("PUT", "/api/v1/keys/b/k", json!(value)).await;
    }
    shown.asks("PUT", "/api/v1/keys/b/other", json!(1)).await;
    for key in ["k", "other"] {
        damage(ground.server(), "bucket:{keys/b}:values", key, "7").await;
    }
    shown.log_in("root").await;
    shown.at("#/keys/b", "The value is damaged, so it is not shown").await;
    shown.at("#/keys/b/k", "It can be put anew, or deleted").await;
    shown.does("await shows('damaged'); await press('Show them'); await shows('\"one\"');").await;
    shown.does("await press('Put it'); await shows('There is no new value');").await;
    shown.does("await fill('Value', '4'); await press('Put it'); await hides('It can be put anew');").await;
    assert_eq!(shown.asks("GET", "/api/v1/keys/b/k", Value::Null).await, json!(4));
    shown.at("#/keys/b/other", "It can be put anew, or deleted").await;
    shown.does("await press('Delete it'); await press('Delete it'); await shows('Make a key');").await;
    let left = shown.asks("GET", "/api/v1/keys/b", Value::Null).await;
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
    shown.close().await;
}
