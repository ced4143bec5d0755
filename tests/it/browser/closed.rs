//! The example page and a closed relay: it asks for a token, follows with a ticket, resumes with the same, and tells
//! when its token is good no longer.

use serde_json::{Value, json};

use super::{Site, find, quake};
use crate::access::closed::{ROOT, close, send, token};
use crate::support::proxy::Proxy;
use crate::support::relay::{TestRelay, memory, web};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_follows_a_closed_relay_with_a_ticket() {
    let Some(binary) = find() else { return };
    let site = Site::listen().await;
    let relay = TestRelay::start_with(memory(), |options| {
        close(options);
        options.web = web(&[&site.origin]);
    })
    .await;
    let proxy = Proxy::start(relay.address.port()).await;
    let (_, publisher) = token(&relay, ROOT, &["allow publish quakes"]).await;
    let publish = async |from: u64, to: u64| {
        for mag in from..to {
            let payload: Value = serde_json::from_str(&quake(mag)).expect("JSON");
            let body = json!({ "topic": "quakes", "payload": payload });
            let answer = send(&relay, Some(&publisher), "POST", "/api/v1/messages", &body).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    };
    publish(0, 2).await;
    let page = site.open(binary, proxy.port());
    page.shows(|last| last["asks"] == true && last["rows"] == json!([])).await;

    let (id, reader) = token(&relay, ROOT, &["allow read quakes"]).await;
    page.tell(reader.replacen("Bearer", "use", 1));
    page.rows_are(0, 2).await;
    page.shows(|last| last["asks"] == false && last["state"] == "connected").await;
    proxy.refuse(true);
    proxy.cut();
    publish(2, 5).await;
    proxy.refuse(false);
    page.rows_are(0, 5).await;
    // Another ticket for the page that was loaded again.
    page.tell("reload");
    page.shows(|last| last["rows"] == json!([]) && last["state"] == "connected").await;
    publish(5, 6).await;
    page.rows_are(5, 6).await;

    let gone = send(&relay, Some(ROOT), "DELETE", &format!("/api/v1/tokens/{id}"), &Value::Null).await;
    assert_eq!(gone.status, 204);
    page.shows(|last| {
        last["asks"] == true && last["state"].as_str().is_some_and(|text| text.contains("refused"))
    })
    .await;
    page.close().await;
    relay.stop().await;
}
