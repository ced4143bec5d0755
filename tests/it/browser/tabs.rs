//! Many pages with a live stream each, of one origin in one browser: over HTTP/2 all of them get what comes.
//! A browser opens six connections to a host over HTTP/1.1, and the seventh page hangs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::RawQuery;
use axum::response::Html;
use axum::routing::get;
use tidemill::server::{TcpListen, TlsListen};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{find, open};
use crate::support::relay::{STUCK, TestRelay, memory, web};
use crate::support::tls::Papers;
use crate::support::{always, eventually};

/// Pages that follow the topic.
const PAGES: usize = 8;
/// Connections that a browser opens to one host over HTTP/1.1.
const HTTP_1_MAX: usize = 6;

/// Follows the topic, and tells of each message.
const PAGE: &str = r"<!doctype html><script>
const said = new URLSearchParams(location.search);
const events = new EventSource(said.get('relay') + '/api/v1/topics/tabs/messages?after=earliest');
events.onmessage = event => fetch('/got?' + said.get('page') + '-' + JSON.parse(event.data).payload);
</script>";

/// Opens as many pages as there are, in frames of one.
fn all_pages(relay: &str) -> String {
    let page = |number| format!("<iframe src='/page?page={number}&relay={relay}'></iframe>");
    format!("<!doctype html>{}", (0..PAGES).map(page).collect::<String>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seventh_page_does_not_hang_over_http_2() {
    let Some(binary) = find() else { return };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let origin = format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port());
    let papers = Papers::make();
    let relay = TestRelay::start_with(memory(), |options| {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        options.listen.push(TlsListen::over(TcpListen::at(free), papers.server()));
        options.web = web(&[&origin]);
    })
    .await;
    let urls: Vec<_> = relay.bound.iter().map(|bound| bound.url.clone()).collect();

    let got = Arc::new(Mutex::new(BTreeSet::new()));
    let note = got.clone();
    let (plain, secured) = (all_pages(&urls[0]), all_pages(&urls[1]));
    let router = Router::new()
        .route("/plain", get(async move || Html(plain)))
        .route("/secured", get(async move || Html(secured)))
        .route("/page", get(async || Html(PAGE)))
        .route(
            "/got",
            get(async move |RawQuery(query): RawQuery| {
                note.lock().expect("nobody panics with the lock").insert(query.unwrap_or_default());
            }),
        );
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    tracker.spawn(stop.clone().run_until_cancelled_owned(axum::serve(listener, router).into_future()));

    relay.publish("tabs", "1").await;
    let has = |page: usize, payload: u32| {
        got.lock().expect("nobody panics with the lock").contains(&format!("{page}-{payload}"))
    };
    let count = |payload| (0..PAGES).filter(|page| has(*page, payload)).count();
    let trusting = ["--ignore-certificate-errors"];
    let browser = open(binary.clone(), &format!("{origin}/secured"), &trusting);
    eventually(STUCK, || async { count(1) == PAGES }).await;
    relay.publish("tabs", "2").await;
    eventually(STUCK, || async { count(2) == PAGES }).await;
    drop(browser);

    got.lock().expect("nobody panics with the lock").clear();
    let browser = open(binary, &format!("{origin}/plain"), &trusting);
    eventually(STUCK, || async { count(1) == HTTP_1_MAX }).await;
    always(Duration::from_secs(1), || async { count(1) == HTTP_1_MAX }).await;
    drop(browser);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    relay.stop().await;
}
