//! A browser as its developer tools see it: where it is sent, and what a script comes to in the page that it shows.
//!
//! It must not know what is tested.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Browser;
use crate::support::relay::STUCK;

/// How often it is looked whether the browser has got so far.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The tools of one page.
pub(super) struct Tools {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last: u64,
}

impl Tools {
    /// Opens them for the page that the browser has opened.
    pub(super) async fn open(browser: &Browser) -> Self {
        let file = browser.profile.path().join("DevToolsActivePort");
        let opened = timeout(STUCK, async {
            let mut every = interval(LOOK_EVERY);
            loop {
                every.tick().await;
                // A port, and the path of the tools of the whole browser.
                let Ok(text) = std::fs::read_to_string(&file) else { continue };
                let Some((port, path)) = text.trim().split_once('\n') else { continue };
                let mut all = Self::connect(port, path).await;
                let told = all.ask("Target.getTargets", json!({})).await;
                let pages = told["targetInfos"].as_array().cloned().unwrap_or_default();
                let page = pages.iter().find(|page| page["type"] == "page");
                if let Some(id) = page.and_then(|page| page["targetId"].as_str()) {
                    break Self::connect(port, &format!("/devtools/page/{id}")).await;
                }
            }
        });
        opened.await.expect("it starts")
    }

    async fn connect(port: &str, path: &str) -> Self {
        let connected = connect_async(format!("ws://127.0.0.1:{port}{path}")).await;
        Self { socket: connected.expect("it has tools").0, last: 0 }
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let asked = json!({ "id": self.last, "method": method, "params": params });
        self.socket.send(Message::text(asked.to_string())).await.expect("it takes commands");
        let answer = timeout(STUCK, async {
            loop {
                let message = self.socket.next().await.expect("it runs").expect("it speaks");
                let Message::Text(text) = message else { continue };
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                if answer["id"] == self.last {
                    break answer;
                }
            }
        });
        answer.await.expect("it answers in time")["result"].take()
    }

    /// Returns what a script comes to, once that is there.
    pub(super) async fn run(&mut self, script: &str) -> Value {
        let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let mut told = self.ask("Runtime.evaluate", params).await;
        assert!(told.get("exceptionDetails").is_none(), "{told}");
        told["result"]["value"].take()
    }

    /// Has every page from now on run this script before its own.
    pub(super) async fn run_first(&mut self, script: &str) {
        self.ask("Page.enable", json!({})).await;
        self.ask("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).await;
    }

    /// Has the browser put into this folder what pages hand out as files.
    pub(super) async fn save_into(&mut self, folder: &std::path::Path) {
        let path = folder.to_str().expect("UTF-8");
        self.ask("Browser.setDownloadBehavior", json!({ "behavior": "allow", "downloadPath": path })).await;
    }

    /// Shows pages as on a screen of this width, to somebody who prefers this scheme of colours.
    pub(super) async fn emulate(&mut self, width: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", metrics).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", features).await;
    }

    /// Goes to a page, and waits until it is there.
    pub(super) async fn go(&mut self, url: &str) {
        // As somebody who types it.
        self.ask("Page.navigate", json!({ "url": url, "transitionType": "typed" })).await;
        self.is_at(url).await;
    }

    /// Waits until the browser shows a page.
    pub(super) async fn is_at(&mut self, url: &str) {
        self.comes_to("document.readyState + ' ' + location.href", &format!("complete {url}")).await;
    }

    /// Waits until a script comes to this text, on whatever page the browser is by then.
    pub(super) async fn comes_to(&mut self, script: &str, text: &str) {
        let there = async {
            let mut every = interval(LOOK_EVERY);
            while self.run(script).await != text {
                every.tick().await;
            }
        };
        timeout(STUCK, there).await.unwrap_or_else(|_| panic!("{script} comes to {text} in time"));
    }
}
