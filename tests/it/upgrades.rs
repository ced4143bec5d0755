//! Releases beside each other on one storage: a relay that cannot read what a newer one has written says so, and stops.
//!
//! Two binaries are held against each other by `scripts/test-upgrade`.

use crate::support::eventually;
use crate::support::process::{Relay, run};
use crate::support::relay::{STUCK, try_send};
use crate::support::resp::Reply;
use crate::support::server::{Kind, Server};

const LAYOUT: &str = "tidemill:layout";

async fn start(url: &str) -> Relay {
    Relay::ready_at("127.0.0.1:0", &[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", url)], &[]).await
}

/// Returns what the server says, as text.
async fn said(server: &Server, command: &[&str]) -> String {
    match server.command(command).await {
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) => String::from_utf8(bytes).expect("UTF-8"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_storage_that_a_newer_release_has_written_is_not_read() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("valkey://127.0.0.1:{}", server.port());
    // Who only looks leaves nothing behind.
    let from = ["export", "--from", &url, "--output", "/dev/null"];
    assert_eq!(run(&[], &from, "").code, Some(0));
    assert_eq!(said(&server, &["EXISTS", LAYOUT]).await, "0");
    let relay = start(&url).await;
    assert_eq!(said(&server, &["GET", LAYOUT]).await, "1");
    let publish = async |relay: &Relay| {
        let headers = [("content-type", "application/json")];
        let answer = try_send(relay.address(), "POST", "/api/v1/topics/a/messages", &headers, b"1").await;
        answer.map(|answer| answer.status)
    };
    assert_eq!(publish(&relay).await, Some(201));
    let length = said(&server, &["XLEN", "stream:topic:a"]).await;
    server.command(&["SET", LAYOUT, "2"]).await;
    // One that starts now says why it does not.
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*url)];
    let (code, log) = {
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let ended = tokio::task::spawn_blocking(move || {
            let variables = variables.each_ref().map(|(name, value)| (&**name, &**value));
            run(&variables, &["serve", "--listen", "127.0.0.1:0"], "")
        });
        let ended = ended.await.expect("it ends");
        (ended.code, ended.stderr)
    };
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the layout `2`, and was written by a newer release"), "{log}");
    // So does one that runs, once it connects again; until then it goes on as it was.
    assert_eq!(publish(&relay).await, Some(201));
    let length_then = said(&server, &["XLEN", "stream:topic:a"]).await;
    assert_ne!(length, length_then);
    server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    eventually(STUCK, async || publish(&relay).await.is_none()).await;
    let (code, log) = relay.stop();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the layout `2`"), "{log}");
    assert_eq!(said(&server, &["XLEN", "stream:topic:a"]).await, length_then);
    // Nor is it copied or exported, and `doctor` says the same.
    for arguments in [&from[..], &["doctor"][..]] {
        let ended = run(&variables, arguments, "");
        assert_ne!(ended.code, Some(0), "{ended:?}");
        let told = [ended.stdout.as_str(), ended.stderr.as_str()].concat();
        assert!(told.contains("was written by a newer release"), "{arguments:?}: {ended:?}");
    }
    assert_eq!(said(&server, &["GET", LAYOUT]).await, "2");
}
