//! Libraries that others wrote for event streams, as they are: what they make of a stream of ours.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::support::eventually;
use crate::support::relay::{STUCK, TestRelay, memory};

const PATH: &str = "/api/v1/topics/libraries/messages";

/// A library, and what runs it.
#[derive(Clone, Copy, Debug)]
enum Library {
    HttpxSse,
    EventSource,
    FetchEventSource,
}

impl Library {
    /// Installs it; `false` (with a line on standard error) where it cannot be had.
    fn is_there(self) -> bool {
        let (list, folder) = self.packages();
        let status = Command::new("scripts/packages").args([list, folder]).stdin(Stdio::null()).status();
        let is_there = status.is_ok_and(|status| status.success());
        if !is_there {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{self:?} cannot be installed: in CI a skipped test is a failure");
            eprintln!("skipped: {self:?} cannot be installed");
        }
        is_there
    }

    /// Returns the list that names it, and the folder that it is in, both within the repository, in whose root
    /// tests run.
    const fn packages(self) -> (&'static str, &'static str) {
        match self {
            Self::HttpxSse => ("tests/clients/packages.txt", "target/packages/clients-python"),
            Self::EventSource | Self::FetchEventSource => {
                ("tests/clients/package-lock.json", "target/packages/clients-node")
            }
        }
    }

    /// Reads a stream to its last message, and returns the events that a program gets.
    async fn read(self, url: String, last_event_id: Option<String>) -> Vec<Value> {
        let (_, folder) = self.packages();
        let mut command = match self {
            Self::HttpxSse => {
                // Without `venv` the packages lie in the folder itself.
                let own = Path::new(folder).join("bin/python");
                let mut command = Command::new(if own.is_file() { own } else { PathBuf::from("python3") });
                command.env("PYTHONPATH", folder).arg("tests/clients/events.py");
                command
            }
            Self::EventSource | Self::FetchEventSource => {
                let mut command = Command::new("node");
                command.env("PACKAGES", folder).arg("tests/clients/events.mjs");
                command.arg(match self {
                    Self::EventSource => "eventsource",
                    Self::FetchEventSource | Self::HttpxSse => "fetch-event-source",
                });
                command
            }
        };
        command.arg(url).args(last_event_id).stdin(Stdio::null());
        let output = spawn_blocking(move || command.output().expect("it runs")).await.expect("no panic");
        assert!(output.status.success(), "{self:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

/// These libraries hand on every block, also one without data, and programs read the data of each as JSON.
async fn every_block_is_read_and_resumed(library: Library) {
    if !spawn_blocking(move || library.is_there()).await.expect("no panic") {
        return;
    }
    let relay = TestRelay::start_with(memory(), |options| {
        // Signs of life come between the blocks, however short the silence.
        options.http.ping_every = Duration::from_millis(1);
    })
    .await;
    let url = format!("http://{}{PATH}", relay.address);
    let mut ids = Vec::new();
    for payload in ["{\n  \"a\": \"\u{e9}\\n\",\n\n\t\"b\": [1.10]\n}", "7"] {
        ids.push(relay.publish("libraries", payload).await);
    }
    let reading = library.read(format!("{url}?after=earliest"), None);
    let publishing = async {
        eventually(STUCK, || async { relay.sessions.count() == 1 }).await;
        relay.publish("libraries", "\"last\"").await
    };
    let (all, last) = tokio::join!(reading, publishing);
    ids.push(last);
    assert_eq!(all.len(), 4, "{library:?}: {all:?}");
    assert_eq!(all[0]["event"], "subscribed");
    assert!(all[0]["id"].as_str().is_some_and(|id| !id.is_empty()), "{library:?}: {all:?}");
    for (event, id) in all[1..].iter().zip(&ids) {
        assert_eq!((&event["event"], &event["id"]), (&json!("message"), &json!(id)), "{library:?}");
        let one = relay.get(&format!("{PATH}/{id}")).await;
        assert_eq!(event["data"], one.text(), "{library:?}: byte for byte, line breaks included");
    }

    let resumed = library.read(url, Some(ids[0].clone())).await;
    assert_eq!(resumed[0]["event"], "subscribed");
    assert_eq!(resumed[0]["id"], json!(ids[0]), "it knows where it is, also before the next message");
    let seen: Vec<_> = resumed[1..].iter().map(|event| event["id"].clone()).collect();
    assert_eq!(seen, [json!(ids[1]), json!(ids[2])], "{library:?}");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn httpx_sse_reads_every_block_and_resumes() {
    every_block_is_read_and_resumed(Library::HttpxSse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_of_node_read_every_block_and_resume() {
    // One after the other: they are installed into one folder.
    every_block_is_read_and_resumed(Library::EventSource).await;
    every_block_is_read_and_resumed(Library::FetchEventSource).await;
}
