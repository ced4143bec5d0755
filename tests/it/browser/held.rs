//! The console in a real browser: locks that are held, and rooms in which somebody is.

use serde_json::{Value, json};

use super::console::Shown;
use crate::access::closed::send;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_found_looked_at_and_taken_away() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.log_in("root").await;
    shown.at("#/locks", "No lock that you may read is held.").await;
    let held = json!({ "holder": "worker-7", "ttl": "1h" });
    let locked = shown.asks("POST", "/api/v1/locks/nightly", held).await;
    let guards = json!({ "holder": "worker-8", "ttl": "1h", "guards": { "topic": "orders" } });
    shown.asks("POST", "/api/v1/locks/nightly", guards).await;
    // More than stand on one page of the list.
    for number in 0..150 {
        shown
            .asks("POST", &format!("/api/v1/locks/l{number}"), json!({ "holder": "many", "ttl": "1h" }))
            .await;
    }
    shown.does("await press('Look again'); await shows('152 locks held'); await shows('worker-8');").await;
    // The fence tells since when: now, by the clock of this machine.
    let since = "Math.abs(Date.now() - new Date(document.querySelector('td time').dateTime)) < 600_000";
    assert_eq!(shown.tools.run(since).await, json!(true));
    // Of two of one name each leads to its own.
    let links = "[...document.querySelectorAll('td a')].filter(link => link.textContent === 'nightly').map(link => link.hash).sort()";
    let expected = json!(["#/locks/nightly", "#/locks/nightly?guards=topic%3Aorders"]);
    assert_eq!(shown.tools.run(links).await, expected);
    shown.at("#/locks/nightly?guards=topic%3Aorders", "Held by worker-8").await;
    shown.at("#/locks/nightly", "Held by worker-7").await;
    shown.does(&format!("await shows({}); await shows('Nobody.');", locked["fence"])).await;
    // Who waits stands there with for how long it is to hold it.
    let wait = json!({ "holder": "next", "ttl": "90s", "wait": "1m" });
    let waiting = send(&shown.relay, Some(&shown.root), "POST", "/api/v1/locks/nightly", &wait);
    let looks = shown.tools.run(
        "until('next waits', () => { dispatchEvent(new Event('hashchange')); return document.querySelector('main').innerText.includes('next') && document.querySelector('main').innerText.includes('90 s'); }).then(() => true)",
    );
    let released = async {
        assert_eq!(looks.await, json!(true));
        let token = json!({ "token": locked["token"] });
        let released =
            send(&shown.relay, Some(&shown.root), "POST", "/api/v1/locks/nightly/release", &token).await;
        assert_eq!(released.status, 204);
    };
    let (waited, ()) = tokio::join!(waiting, released);
    assert_eq!(waited.status, 201);
    shown.does("await press('Look again'); await shows('Held by next'); await press('Take it away');").await;
    // In the dialog, and then on the page.
    shown.does("await press('Take it away'); await shows('Nobody holds it.');").await;
    assert_eq!(shown.asks("GET", "/api/v1/locks/nightly", Value::Null).await.get("holder"), None);
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_are_found_and_led_to() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.log_in("root").await;
    shown.at("#/presence", "There is nobody in any room that you may read.").await;
    for place in ["lobby/ann", "lobby/bob"] {
        shown.asks("PUT", &format!("/api/v1/presence/{place}"), Value::Null).await;
    }
    for number in 0..101 {
        shown.asks("PUT", &format!("/api/v1/presence/room{number:03}/ann"), Value::Null).await;
    }
    shown.does("dispatchEvent(new Event('hashchange')); await press('lobby'); await shows('2 members'); await shows('bob');").await;
    shown.at("#/presence", "room098").await;
    shown.does("await hides('room099'); await press('Next page'); await shows('room100'); await hides('room098');").await;
    shown.close().await;
}
