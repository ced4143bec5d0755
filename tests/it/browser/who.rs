//! The console in a real browser: who is there, what cannot be sent, going where one is already, and what takes long.

use serde_json::{Value, json};

use super::console::Shown;
use crate::access::closed::user;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_logged_out_is_told_and_is_there_still() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.log_in("root").await;
    shown.at("#/access", "Make a token").await;
    shown.proxy.refuse(true);
    shown.proxy.cut();
    let out = "document.querySelector('.who button').click();";
    shown
        .does(&format!("{out} await shows('The relay does not answer'); await shows('Make a token');"))
        .await;
    assert_eq!(shown.tools.run("document.querySelector('.who .name').textContent").await, json!("root"));
    shown.proxy.refuse(false);
    // Once it is seen that the relay is back: a click asks once.
    shown.does("await until('it is well', () => document.querySelector('.link-state').hidden);").await;
    shown.does(&format!("{out} await shows('Or with a token'); await hides('Make a token');")).await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_header_can_carry_is_named() {
    let Some(mut shown) = Shown::open().await else { return };
    let cannot = "has a character that cannot be sent";
    shown
        .does(&format!(
            "await fill('Token', 'tm_→'); await press('Use the token'); await shows('The token {cannot}');"
        ))
        .await;
    shown.log_in("root").await;
    shown.at("#/topic/t/publish", "Publish a message").await;
    shown.does(&format!("await fill('Payload', '1'); await fill('Idempotency key', 'a→b'); await press('Publish'); await shows('The idempotency key {cannot}');")).await;
    shown.at("#/keys/b/k", "Make it").await;
    shown.does(&format!("await fill('Value', '1'); await fill('Content type', 'text/→'); await press('Make it'); await shows('The content type {cannot}');")).await;
    // Nothing of that was taken for a relay that is away.
    assert_eq!(shown.tools.run("document.querySelector('.link-state').hidden").await, json!(true));
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_called_anyone_is_one() {
    let Some(mut shown) = Shown::open().await else { return };
    for role in ["admin", "read"] {
        user(&shown.relay, "anyone", &[role]).await;
        shown.log_in("anyone").await;
        let there = shown.tools.run("document.querySelector('.who').innerText").await;
        let there = there.as_str().expect("a text");
        assert!(there.contains("anyone") && there.contains("Log out"), "{there}");
        shown.does("document.querySelector('.who button').click(); await shows('Or with a token');").await;
    }
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn going_where_one_is_looks_again_and_skipping_stays_there() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.log_in("root").await;
    shown.at("#/topics?match=or", "No topic").await;
    shown.publish("orders", r#""one""#).await;
    shown.does("await press('Search'); await shows('orders');").await;
    shown.at("#/topic/orders?after=earliest", r#""one""#).await;
    shown.publish("orders", r#""two""#).await;
    shown.does("await press('Go there'); await shows('\"two\"');").await;
    shown.asks("PUT", "/api/v1/keys/b/k1", json!(1)).await;
    shown.at("#/keys/b?prefix=k", "k1").await;
    shown.asks("PUT", "/api/v1/keys/b/k2", json!(1)).await;
    shown.does("await press('Search'); await shows('k2');").await;
    // The first thing that a keyboard reaches.
    shown.does("document.querySelector('.skip').click(); await shows('k2');").await;
    let found = shown.tools.run("[document.activeElement.id, location.hash]").await;
    assert_eq!(found, json!(["main", "#/keys/b?prefix=k"]));
    shown.does("await hides('There is no such page');").await;
    shown.close().await;
}

/// Has bounds of time take a fiftieth of that, and the answer to a trim come after a second.
const SOONER: &str = r"
    const until = AbortSignal.timeout.bind(AbortSignal);
    AbortSignal.timeout = milliseconds => until(milliseconds / 50);
    const asked = window.fetch;
    window.fetch = async (url, options) => {
      if (String(url).endsWith('/trim')) {
        await new Promise((done, failed) => {
          options.signal.addEventListener('abort', () => failed(options.signal.reason));
          setTimeout(done, 1_000);
        });
      }
      return asked(url, options);
    };";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_much_to_do_is_waited_for() {
    let Some(mut shown) = Shown::open().await else { return };
    for payload in ["1", "2"] {
        shown.publish("t", payload).await;
    }
    shown.log_in("root").await;
    shown.at("#/topic/t/settings", "Trim").await;
    shown.does(SOONER).await;
    shown.does("await fill('Messages that stay', '1'); await press('Trim'); await press('Trim it'); await shows('1 message removed.');").await;
    let about = shown.asks("GET", "/api/v1/topics/t", Value::Null).await;
    assert_eq!(about["length"], 1);
    shown.close().await;
}
