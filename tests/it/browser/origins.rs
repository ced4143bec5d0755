//! Pages of two origins in a real browser: one that may use the relay, and does so in every way there is,
//! and one that may not, and changes nothing.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::RawQuery;
use axum::response::Html;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{find, open};
use crate::support::eventually;
use crate::support::relay::{STUCK, TestRelay, memory, web};

/// Does what a page can do with `fetch`, and tells what came of it.
const ALLOWED: &str = r"<!doctype html><script>
const relay = new URLSearchParams(location.search).get('relay');
const json = { 'content-type': 'application/json' };
const path = relay + '/api/v1/topics/shared/messages';
const send = (method, url, body, headers) =>
  fetch(url, { method, headers: { ...json, ...headers }, body: JSON.stringify(body) });
// Reads a live stream until `count` texts that `pattern` finds have come.
const follow = async (url, headers, pattern, count) => {
  const stop = new AbortController();
  const reader = (await fetch(url, { headers, signal: stop.signal })).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  while ([...text.matchAll(pattern)].length < count) text += (await reader.read()).value;
  stop.abort();
  return [...text.matchAll(pattern)].map(found => JSON.parse(found[1]));
};
const all = async () => {
  const told = {};
  const key = { 'idempotency-key': 'once', 'x-request-id': 'mine' };
  const first = await send('POST', path, 0, key);
  const again = await send('POST', path, 0, key);
  told.published = [first.status, first.headers.get('x-request-id'), first.headers.get('idempotency-replayed'), again.headers.get('idempotency-replayed')];
  const bulk = { messages: [1, 2].map(payload => ({ topic: 'shared', payload })) };
  told.bulk = (await send('POST', relay + '/api/v1/messages/bulk', bulk)).status;
  told.created = (await send('POST', relay + '/api/v1/topics', { topic_name: 'other' })).headers.get('location');
  told.updated = (await send('PUT', relay + '/api/v1/topics/other', { description: 'd' })).status;
  const topics = [];
  let url = '/api/v1/topics?limit=1';
  while (url) {
    const page = await fetch(relay + url);
    topics.push(...(await page.json()).map(topic => topic.topic_name));
    url = page.headers.get('link')?.match(/<(.*)>/)[1];
  }
  told.topics = topics;
  told.deleted = (await fetch(relay + '/api/v1/topics/other', { method: 'DELETE' })).status;
  told.refused = (await (await send('POST', relay + '/api/v1/topics', {})).json()).code;
  const id = (await first.json()).message_id;
  const events = { accept: 'text/event-stream', 'last-event-id': id };
  told.events = (await follow(path, events, /^data: (\{.message_id.*)$/gm, 2)).map(message => message.payload);
  const lines = { accept: 'application/x-ndjson' };
  told.lines = (await follow(path + '?after=' + id, lines, /^(\{.type.:.message.*)$/gm, 2)).map(message => message.payload);
  const socket = new WebSocket(relay.replace('http', 'ws') + '/ws');
  told.socket = await new Promise(done => { socket.onopen = () => done('open'); socket.onerror = () => done('refused'); });
  return told;
};
all().catch(error => ({ error: String(error) })).then(told => fetch('/told?page=allowed', { method: 'POST', body: JSON.stringify(told) }));
</script>
<iframe src='FRAME'></iframe>";

/// Sends what a browser lets any page send without asking first.
const OTHER: &str = r"<!doctype html><script>
const relay = new URLSearchParams(location.search).get('relay');
const blindly = (url, body) => fetch(relay + url, { method: 'POST', mode: 'no-cors', body }).then(answer => answer.type, () => 'failed');
const asking = (url, options) => fetch(relay + url, options).then(answer => answer.status, () => 'failed');
const all = async () => {
  const told = {};
  told.blind = [
    await blindly('/api/v1/messages', JSON.stringify({ topic: 'shared', payload: 'evil' })),
    await blindly('/api/v1/messages/bulk', JSON.stringify({ messages: [{ topic: 'shared', payload: 'evil' }] })),
    await blindly('/api/v1/topics/shared/messages', 'evil'),
    await blindly('/api/v1/topics', JSON.stringify({ topic_name: 'evil' })),
    await blindly('/api/v1/topics/shared/trim', JSON.stringify({ keep: 0 })),
  ];
  told.asking = [
    await asking('/api/v1/topics/shared', { method: 'DELETE' }),
    await asking('/api/v1/topics/shared/messages', {}),
    await asking('/api/v1/messages', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' }),
  ];
  const socket = new WebSocket(relay.replace('http', 'ws') + '/ws');
  told.socket = await new Promise(done => { socket.onopen = () => done('open'); socket.onerror = () => done('refused'); });
  return told;
};
all().catch(error => ({ error: String(error) })).then(told => fetch('/told?page=other', { method: 'POST', body: JSON.stringify(told) }));
</script>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_may_does_everything_and_another_changes_nothing() {
    let Some(binary) = find() else { return };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let origin = format!("http://127.0.0.1:{port}");
    let relay = TestRelay::start_with(memory(), |options| options.web = web(&[&origin])).await;
    let query = format!("?relay=http://127.0.0.1:{}", relay.address.port());

    let told = Arc::new(Mutex::new(json!({})));
    // The same server under another name: another origin.
    let allowed = ALLOWED.replace("FRAME", &format!("http://localhost:{port}/other{query}"));
    let reports = told.clone();
    let report = async move |RawQuery(query): RawQuery, body: String| {
        let page = query.and_then(|query| query.strip_prefix("page=").map(str::to_owned));
        let page = page.expect("the page says which it is");
        let report: Value = serde_json::from_str(&body).expect("JSON");
        reports.lock().expect("nobody panics with the lock")[page] = report;
    };
    let router = Router::new()
        .route("/", get(async move || Html(allowed)))
        .route("/other", get(async || Html(OTHER)))
        .route("/told", post(report));
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let serving = axum::serve(listener, router).into_future();
    tracker.spawn(stop.clone().run_until_cancelled_owned(serving));

    let browser = open(binary, &format!("{origin}/{query}"), &[]);
    let both =
        || told.lock().expect("nobody panics with the lock").as_object().map_or(0, serde_json::Map::len);
    eventually(STUCK, async || both() == 2).await;
    let told = told.lock().expect("nobody panics with the lock").clone();
    assert_eq!(
        told["allowed"],
        json!({
            "published": [201, "mine", null, "true"],
            "bulk": 207,
            "created": "/api/v1/topics/other",
            "updated": 200,
            "topics": ["other", "shared"],
            "deleted": 204,
            "refused": "invalid_field",
            "events": [1, 2],
            "lines": [1, 2],
            "socket": "open",
        })
    );
    assert_eq!(
        told["other"],
        json!({
            "blind": ["opaque", "opaque", "opaque", "opaque", "opaque"],
            "asking": ["failed", "failed", "failed"],
            "socket": "refused",
        })
    );
    let page = relay.get("/api/v1/topics/shared/messages?order=asc").await.json();
    assert_eq!((&page["total"], &page["messages"][0]["payload"]), (&json!(3), &json!(0)), "{page}");
    assert_eq!(relay.get("/api/v1/topics/evil").await.status, 404);

    drop(browser);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    relay.stop().await;
}
