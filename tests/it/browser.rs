//! Web pages in a real browser. First the example page: a headless Chromium that loses its connection and loads the page
//! again, and still shows every message once.
//!
//! The browser is driven by a page of this test's own: it holds the example in a frame, tells what the
//! frame shows, and loads the frame again when it is told to.

mod board;
mod closed;
pub(crate) mod console;
mod cookies;
mod developer;
mod held;
mod lately;
mod operators;
mod origins;
mod tabs;
mod told;
mod typed;
mod ways;
mod who;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::response::Html;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, TestRelay, memory, web};

/// Reports the frame's rows, newest first, and does what the answer says.
const DRIVER: &str = r"<!doctype html><iframe id=frame src='/earthquakes.html?QUERY'></iframe><script>
setInterval(async () => {
  const page = frame.contentDocument;
  const rows = [...page.querySelectorAll('#rows tr')].map(row => row.className + ' ' + row.cells[1].textContent);
  const text = id => page.querySelector(id)?.textContent;
  const asks = page.querySelector('#access')?.hidden === false;
  const shown = { rows, state: text('#state'), count: text('#count'), asks };
  const answer = await fetch('/shown', { method: 'POST', body: JSON.stringify(shown) });
  const [command, value] = (await answer.text()).split(' ');
  if (command === 'reload') frame.contentWindow.location.reload();
  if (command === 'use') {
    page.querySelector('#token').value = value;
    page.querySelector('#access').requestSubmit();
  }
}, 50);
</script>";

/// A browser with a profile of its own; dropping it ends it.
struct Browser {
    process: Child,
    profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the browser, or `None` (with a line on standard error) where there is none.
fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()));
    if found.is_none() {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "chromium is not found: in CI a skipped test is a failure");
        eprintln!("skipped: chromium is not on the PATH");
    }
    found
}

fn open(binary: PathBuf, url: &str, flags: &[&str]) -> Browser {
    let profile = tempfile::tempdir().expect("a temporary folder can be made");
    let process = Command::new(binary)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--no-proxy-server", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(flags)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser starts");
    Browser { process, profile }
}

/// What the driver and the test tell each other.
#[derive(Debug, Default)]
struct Shown {
    last: Value,
    commands: VecDeque<String>,
}

/// The example page in a browser, driven by a page around it.
struct Driven {
    shown: Arc<Mutex<Shown>>,
    browser: Browser,
    stop: CancellationToken,
    tracker: TaskTracker,
}

/// Where the two pages will be.
struct Site {
    listener: TcpListener,
    origin: String,
}

impl Site {
    async fn listen() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let origin = format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port());
        Self { listener, origin }
    }

    /// Opens the example for a relay at this port.
    fn open(self, binary: PathBuf, relay_port: u16) -> Driven {
        let shown = Arc::new(Mutex::new(Shown::default()));
        let driver = DRIVER.replace("QUERY", &format!("relay=http://127.0.0.1:{relay_port}&topic=quakes"));
        let page = include_str!("../../examples/earthquakes.html");
        let reports = shown.clone();
        let report = async move |body: String| -> String {
            let mut shown = reports.lock().expect("nobody panics with the lock");
            shown.last = serde_json::from_str(&body).expect("JSON");
            shown.commands.pop_front().unwrap_or_default()
        };
        let router = Router::new()
            .route("/", get(async move || Html(driver)))
            .route("/earthquakes.html", get(async move || Html(page)))
            .route("/shown", post(report));
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let serving = axum::serve(self.listener, router).into_future();
        tracker.spawn(stop.clone().run_until_cancelled_owned(serving));
        let browser = open(binary, &format!("{}/", self.origin), &[]);
        Driven { shown, browser, stop, tracker }
    }
}

impl Driven {
    /// Waits until the page shows this.
    async fn shows(&self, is_it: impl Fn(&Value) -> bool) {
        eventually(STUCK, || async { is_it(&self.shown.lock().expect("nobody panics with the lock").last) })
            .await;
    }

    /// Waits until the page shows the messages from one number to another, oldest first, of all that it counted.
    async fn rows_are(&self, from: u64, to: u64) {
        let expected: Vec<_> = (from..to).rev().map(|mag| format!("message {mag}")).collect();
        let (expected, count) = (json!(expected), to.to_string());
        self.shows(|last| last["rows"] == expected && last["count"] == count).await;
    }

    fn tell(&self, command: impl Into<String>) {
        self.shown.lock().expect("nobody panics with the lock").commands.push_back(command.into());
    }

    async fn close(self) {
        drop(self.browser);
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Returns a message of this number, as the example expects it.
fn quake(mag: u64) -> String {
    format!(r#"{{"time":1517363399650,"mag":{mag},"place":"<b>x"}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_every_message_once_through_cuts_and_reloads() {
    let Some(binary) = find() else { return };
    let site = Site::listen().await;
    let relay = TestRelay::start_with(memory(), |options| options.web = web(&[&site.origin])).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let publish = async |from: u64, to: u64| {
        for mag in from..to {
            relay.publish("quakes", &quake(mag)).await;
        }
    };
    publish(0, 3).await;
    let page = site.open(binary, proxy.port());
    page.rows_are(0, 3).await;
    publish(3, 5).await;
    page.rows_are(0, 5).await;
    // The browser comes back by itself, with the header.
    proxy.refuse(true);
    proxy.cut();
    publish(5, 8).await;
    proxy.refuse(false);
    page.rows_are(0, 8).await;
    // A page that was loaded again has its rows from then on, and misses and repeats none.
    proxy.refuse(true);
    proxy.cut();
    publish(8, 10).await;
    page.tell("reload");
    page.shows(|last| last["rows"] == json!([])).await;
    proxy.refuse(false);
    page.rows_are(8, 10).await;
    publish(10, 12).await;
    page.rows_are(8, 12).await;
    page.close().await;
    relay.stop().await;
}
