//! The board of progress: a page that watches keys, and shows what there is through cuts and restarts of the relay.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tidemill::server::TcpListen;
use tidemill::storage::Storage;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{find, open};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, TestRelay, memory, web};

/// Reports what the frame shows.
const DRIVER: &str = r"<!doctype html><iframe id=frame src='/progress.html?QUERY'></iframe><script>
setInterval(async () => {
  const page = frame.contentDocument;
  const text = id => page.querySelector(id)?.textContent;
  const bar = row => row.querySelector('progress');
  const rows = [...page.querySelectorAll('#rows tr')].map(row => [
    row.cells[0].textContent, row.cells[1].textContent,
    bar(row) ? bar(row).value + '/' + bar(row).max : '',
    row.cells[3].textContent, row.cells[4].textContent]);
  const shown = { rows, state: text('#state'), summary: text('#summary') };
  await fetch('/shown', { method: 'POST', body: JSON.stringify(shown) });
}, 50);
</script>";

async fn put(relay: &TestRelay, agent: &str, value: &Value) {
    let path = format!("/api/v1/keys/progress/{agent}");
    let headers = [("content-type", "application/json")];
    let answer = relay.send("PUT", &path, &headers, value.to_string().as_bytes()).await;
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
}

async fn start(storage: &Storage, origin: &str, port: u16) -> TestRelay {
    TestRelay::start_with(storage.clone(), |options| {
        options.listen = vec![TcpListen::at(SocketAddr::from(([127, 0, 0, 1], port)))];
        options.web = web(&[origin]);
        options.drain = Duration::from_millis(300);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_board_shows_what_there_is_through_cuts_and_restarts() {
    let Some(binary) = find() else { return };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let origin = format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port());
    let storage = memory();
    let relay = start(&storage, &origin, 0).await;
    let proxy = Proxy::start(relay.address.port()).await;
    put(&relay, "b", &json!({ "state": "running", "done": 3, "total": 10, "since": "2018-01-31T01:49:59Z" }))
        .await;
    put(&relay, "a", &json!({ "state": "waiting", "note": "<b>x" })).await;
    put(&relay, "c", &json!("idle")).await;

    let told = Arc::new(Mutex::new(Value::Null));
    let reports = told.clone();
    let report = async move |body: String| {
        *reports.lock().expect("nobody panics with the lock") = serde_json::from_str(&body).expect("JSON");
    };
    let driver = DRIVER.replace("QUERY", &format!("relay=http://127.0.0.1:{}", proxy.port()));
    let router = Router::new()
        .route("/", get(async move || Html(driver)))
        .route("/progress.html", get(async || Html(include_str!("../../../examples/progress.html"))))
        .route("/shown", post(report));
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let serving = axum::serve(listener, router).into_future();
    tracker.spawn(stop.clone().run_until_cancelled_owned(serving));
    let browser = open(binary, &format!("{origin}/"), &[]);

    let shows = async |is_it: &dyn Fn(&Value) -> bool| {
        eventually(STUCK, || async { is_it(&told.lock().expect("nobody panics with the lock")) }).await;
    };
    let has = |agents: &[(&str, &str, &str)]| {
        let expected: Vec<_> = agents.iter().map(|(key, state, bar)| json!([key, state, bar])).collect();
        move |last: &Value| {
            let rows = last["rows"].as_array().map_or(&[][..], Vec::as_slice);
            let rows: Vec<_> = rows.iter().map(|row| json!([row[0], row[1], row[2]])).collect();
            rows == expected && last["state"] == "connected"
        }
    };
    shows(&has(&[("a", "waiting", ""), ("b", "running", "3/10"), ("c", "idle", "")])).await;
    let first = told.lock().expect("nobody panics with the lock").clone();
    assert_eq!(first["rows"][1][3], "2018-01-31 01:49:59", "{first}");
    assert_eq!(first["rows"][0][4], "<b>x", "what was put is no markup: {first}");
    assert_eq!(first["summary"], "1 idle, 1 running, 1 waiting");
    put(&relay, "b", &json!({ "state": "running", "done": 4, "total": 10 })).await;
    relay.send("DELETE", "/api/v1/keys/progress/c", &[], b"").await;
    shows(&has(&[("a", "waiting", ""), ("b", "running", "4/10")])).await;
    // Its connection is cut, and what happens meanwhile is not lost.
    proxy.refuse(true);
    proxy.cut();
    shows(&|last| last["state"] == "connecting again").await;
    put(&relay, "a", &json!({ "state": "done", "done": 5, "total": 5 })).await;
    put(&relay, "d", &json!({ "state": "running", "done": 0, "total": 2 })).await;
    proxy.refuse(false);
    shows(&has(&[("a", "done", "5/5"), ("b", "running", "4/10"), ("d", "running", "0/2")])).await;
    // The relay is started anew.
    let port = relay.address.port();
    relay.stop().await;
    shows(&|last| last["state"] == "connecting again").await;
    let relay = start(&storage, &origin, port).await;
    relay.send("DELETE", "/api/v1/keys/progress/b", &[], b"").await;
    shows(&has(&[("a", "done", "5/5"), ("d", "running", "0/2")])).await;
    // Everything was lost, and is another bucket.
    relay.send("DELETE", "/api/v1/buckets/progress", &[], b"").await;
    put(&relay, "new", &json!({ "state": "running" })).await;
    shows(&has(&[("new", "running", "")])).await;
    drop(browser);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    relay.stop().await;
}
