//! The cookie in a real browser that is logged in at a relay: pages of the relay use it, in every way that there is,
//! and pages of other ports and names try to, in every way that there is.
//!
//! For a browser all ports of a host are one site, so that `SameSite` stops none of them: each test makes sure that the
//! browser has sent the cookie there.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use axum::response::Html;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::developer::Tools;
use super::{find, open};
use crate::access::closed::{ROOT, close, send, user};
use crate::support::relay::{TestRelay, memory, web};

/// What a page of the relay does.
const OWN: &str = r"(async () => {
  const told = {};
  const json = { 'content-type': 'application/json' };
  const send = async (method, path, body) => (await fetch(path, { method, headers: json, body: body && JSON.stringify(body) })).status;
  told.before = await send('GET', '/auth/me');
  told.wrong = await send('POST', '/auth/cookie', { username: 'ann', password: 'wrong' });
  told.in = await send('POST', '/auth/cookie', { username: 'ann', password: 'correct horse' });
  told.read_by_scripts = document.cookie.includes('tidemill');
  told.me = await send('GET', '/auth/me');
  told.published = await send('POST', '/api/v1/topics/t/messages', 'by fetch');
  told.form = (await fetch('/api/v1/topics/t/messages', { method: 'POST', mode: 'no-cors', headers: { 'content-type': 'text/plain' }, body: 'by text' })).status;
  told.made = await send('POST', '/api/v1/topics', { topic_name: 'kept' });
  const events = new EventSource('/api/v1/topics/t/messages?after=earliest');
  told.event = await new Promise(done => { events.onmessage = event => done(JSON.parse(event.data).payload); events.onerror = () => done('failed'); });
  events.close();
  const socket = new WebSocket('ws://' + location.host + '/ws');
  told.socket = await new Promise(done => {
    socket.onopen = () => socket.send(JSON.stringify({ type: 'publish', topic: 't', payload: 'by socket' }));
    socket.onmessage = event => done(JSON.parse(event.data).type);
    socket.onerror = () => done('failed');
  });
  socket.close();
  return told;
})()";

/// What a page of somebody else does, to the relay that RELAY stands for.
const OTHER: &str = r"(async () => {
  const told = {};
  const relay = 'RELAY';
  const with_cookies = { credentials: 'include' };
  const type = (path, options) => fetch(relay + path, { ...with_cookies, ...options }).then(answer => answer.type, () => 'failed');
  const body = text => ({ method: 'POST', mode: 'no-cors', body: text });
  told.blind = [
    await type('/api/v1/topics/t/messages', body('evil')),
    await type('/api/v1/messages', body(JSON.stringify({ topic: 't', payload: 'evil' }))),
    await type('/api/v1/messages/bulk', body(JSON.stringify({ messages: [{ topic: 't', payload: 'evil' }] }))),
    await type('/api/v1/topics', body(JSON.stringify({ topic_name: 'evil' }))),
    await type('/auth/logout', body('')),
    await type('/auth/cookie', body(new URLSearchParams({ username: 'eve', password: 'correct horse' }))),
  ];
  told.asking = [
    await type('/auth/me', {}),
    await type('/api/v1/topics/t/messages', {}),
    await type('/api/v1/topics/t', { method: 'DELETE' }),
    await type('/api/v1/topics/t/messages', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '1' }),
  ];
  told.beacon = navigator.sendBeacon(relay + '/api/v1/topics/t/messages', 'evil');
  told.event = await new Promise(done => {
    const events = new EventSource(relay + '/api/v1/topics/t/messages?after=earliest', { withCredentials: true });
    events.onmessage = () => done('read');
    events.onerror = () => { events.close(); done('failed'); };
  });
  told.socket = await new Promise(done => {
    const socket = new WebSocket(relay.replace('http', 'ws') + '/ws');
    socket.onopen = () => done('open');
    socket.onerror = () => done('failed');
  });
  told.image = await new Promise(done => {
    const image = new Image();
    image.onload = () => done('read');
    image.onerror = () => done('failed');
    image.src = relay + '/api/v1/topics/t/messages';
  });
  told.script = await new Promise(done => {
    const script = document.createElement('script');
    script.onload = () => done('run');
    script.onerror = () => done('failed');
    script.src = relay + '/api/v1/topics/t/messages';
    document.head.append(script);
  });
  for (const [path, kind] of [['/api/v1/topics/t/messages', 'text/plain'], ['/auth/logout', 'application/x-www-form-urlencoded']]) {
    await new Promise(done => {
      const frame = document.createElement('iframe');
      frame.name = 'answer' + path.length;
      document.body.append(frame);
      frame.onload = done;
      const form = Object.assign(document.createElement('form'), { method: 'post', action: relay + path, enctype: kind, target: frame.name });
      form.append(Object.assign(document.createElement('input'), { name: 'evil', value: '1' }));
      document.body.append(form);
      form.submit();
    });
  }
  return told;
})()";

/// Pages of somebody else, on a port of its own, that tell which cookies they got.
struct Other {
    port: u16,
    cookies: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Other {
    async fn serve() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let cookies = Arc::new(Mutex::new(Vec::new()));
        let seen = cookies.clone();
        let page = async move |headers: HeaderMap| {
            let cookie = headers.get("cookie").and_then(|value| value.to_str().ok()).unwrap_or_default();
            seen.lock().expect("nobody panics with the lock").push(cookie.to_owned());
            Html("<!doctype html><body>")
        };
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let serving = axum::serve(listener, Router::new().fallback(page)).into_future();
        tracker.spawn(stop.clone().run_until_cancelled_owned(serving));
        Self { port, cookies, stop, tracker }
    }

    fn has_seen_the_cookie(&self) -> bool {
        self.cookies
            .lock()
            .expect("nobody panics with the lock")
            .iter()
            .any(|all| all.contains("tidemill=tc_"))
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_the_relay_use_the_cookie_and_no_others_do() {
    let Some(binary) = find() else { return };
    let other = Other::serve().await;
    // One of the others may use the relay, and yet not in somebody's name.
    let named = format!("http://named.localhost:{}", other.port);
    let relay = TestRelay::start_with(memory(), |options| {
        close(options);
        options.web = web(&[&named]);
    })
    .await;
    for name in ["ann", "eve"] {
        user(&relay, name, &["admin"]).await;
    }
    let public = json!({ "rules": ["allow read public"] });
    assert_eq!(send(&relay, Some(ROOT), "PUT", "/api/v1/roles/anonymous", &public).await.status, 200);
    let url = format!("http://127.0.0.1:{}", relay.address.port());
    let browser = open(binary, "about:blank", &[]);
    let mut tools = Tools::open(&browser).await;

    let probe = format!("{url}/health");
    tools.go(&probe).await;
    assert_eq!(
        tools.run(OWN).await,
        json!({
            "before": 401, "wrong": 401, "in": 200, "read_by_scripts": false, "me": 200,
            "published": 201, "form": 201, "made": 201, "event": "by fetch", "socket": "published",
        })
    );
    let state = r"(async () => {
      const payloads = (await (await fetch('/api/v1/topics/t/messages?order=asc')).json()).messages.map(message => message.payload);
      const topics = (await (await fetch('/api/v1/topics')).json()).map(topic => topic.topic_name);
      const me = (await (await fetch('/auth/me')).json()).username;
      return { payloads, topics, me };
    })()";
    let before = tools.run(state).await;
    assert_eq!(before["me"], "ann", "{before}");

    // Another port of the host, to which the cookie goes, too; another site, and one that may use the relay.
    for (page, has_cookie) in [
        (format!("http://127.0.0.1:{}", other.port), true),
        (format!("http://localhost:{}", other.port), false),
        (named, false),
    ] {
        other.cookies.lock().expect("nobody panics with the lock").clear();
        tools.go(&format!("{page}/")).await;
        assert_eq!(other.has_seen_the_cookie(), has_cookie, "{page}");
        let told = tools.run(&OTHER.replace("RELAY", &url)).await;
        let may = !has_cookie && page.contains("named");
        assert_eq!(told["blind"], json!(vec!["opaque"; 6]), "{page}");
        // Without being told that it may send cookies along, no page reads what comes of it.
        assert_eq!(told["asking"], json!(vec!["failed"; 4]), "{page}");
        for way in ["event", "image", "script"] {
            assert_eq!(told[way], "failed", "{page} {way}");
        }
        // A page that may use the relay connects, as nobody.
        assert_eq!(told["socket"], if may { "open" } else { "failed" }, "{page}");
        tools.go(&probe).await;
        assert_eq!(tools.run(state).await, before, "{page}");
    }

    let out = "fetch('/auth/logout', { method: 'POST' }).then(answer => answer.status)";
    assert_eq!(tools.run(out).await, 204);
    assert_eq!(tools.run("fetch('/auth/me').then(answer => answer.status)").await, 401);
    tools.go(&format!("http://127.0.0.1:{}/", other.port)).await;
    let last = other.cookies.lock().expect("nobody panics with the lock").last().cloned();
    assert_eq!(last.as_deref(), Some(""), "the browser has forgotten it");
    drop(browser);
    other.stop().await;
    relay.stop().await;
}
