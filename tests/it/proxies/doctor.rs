//! `tidemill doctor --url`: what it says of a relay alone, and behind proxies that hold back, cut, and leave out.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tidemill::clock::Clock;
use tidemill::proto::Timestamp;
use tokio::task::spawn_blocking;

use super::Kind;
use crate::access::closed;
use crate::support::eventually;
use crate::support::process::{Ended, Relay, run};
use crate::support::relay::{STUCK, TestRelay, memory, try_send};
use crate::support::server::free_port;
use crate::support::tls::Papers;

/// Runs it, and returns what it says of each thing.
async fn doctor(url: &str, arguments: &[&str]) -> (Ended, Vec<Value>) {
    let mut all =
        vec!["doctor".to_owned(), "-o".to_owned(), "json".to_owned(), "--url".to_owned(), url.to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let run = spawn_blocking(move || run(&[], &all.iter().map(String::as_str).collect::<Vec<_>>(), ""));
    let ended = run.await.expect("no panic");
    let lines = ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (ended, lines)
}

async fn through(address: SocketAddr, arguments: &[&str]) -> (Ended, Vec<Value>) {
    doctor(&format!("http://{address}"), arguments).await
}

/// Checks how something is, and returns what is said of it.
fn is(lines: &[Value], name: &str, outcome: &str) -> String {
    let line =
        lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("no {name} in {lines:?}"));
    assert_eq!(line["outcome"], outcome, "{line}");
    if outcome != "pass" {
        assert!(line["advice"].is_string(), "{line}");
    }
    format!("{} {}", line["detail"].as_str().expect("a detail"), line["advice"].as_str().unwrap_or_default())
}

fn all_is_well(ended: &Ended, lines: &[Value]) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for name in ["http/2", "relay", "compression", "forwarding", "events", "idle", "websocket"] {
        is(lines, name, "pass");
    }
}

#[tokio::test]
async fn a_relay_alone_and_behind_the_proxies_of_the_document_is_well() {
    let relay = TestRelay::start(memory()).await;
    let (ended, lines) = through(relay.address, &["--idle", "1"]).await;
    all_is_well(&ended, &lines);
    assert!(is(&lines, "idle", "pass").contains("not cut within 1 s"));
    for kind in [Kind::Nginx, Kind::Caddy, Kind::Haproxy] {
        let Some(proxy) = kind.start(&kind.snippet(), relay.address).await else { continue };
        let (ended, lines) = through(proxy.address, &["--idle", "1"]).await;
        all_is_well(&ended, &lines);
    }
    relay.stop().await;
}

/// Returns settings of nginx that pass everything on, with more lines.
fn nginx(more: &str) -> String {
    format!(
        "map $http_upgrade $connection_upgrade {{ default upgrade; \"\" \"\"; }}
         server {{ listen 80; location / {{
             proxy_pass http://127.0.0.1:8080;
             proxy_http_version 1.1;
             proxy_set_header Host $http_host;
             proxy_set_header Upgrade $http_upgrade;
             proxy_set_header Connection $connection_upgrade;
             {more}
         }} }}"
    )
}

#[tokio::test]
async fn a_proxy_that_holds_events_back_is_told_of_with_the_line_to_write() {
    let relay = TestRelay::start(memory()).await;
    // It hands on what it has where it has no more, and holds back what it compresses.
    let on = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;";
    if let Some(proxy) = Kind::Nginx.start(&nginx(on), relay.address).await {
        let (ended, lines) = through(proxy.address, &["--idle", "1"]).await;
        all_is_well(&ended, &lines);
    }
    let holds = nginx(&format!("{on} gzip on; gzip_types text/event-stream; gzip_min_length 0;"));
    if let Some(proxy) = Kind::Nginx.start(&holds, relay.address).await {
        let (ended, lines) = through(proxy.address, &["--idle", "1"]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let told = is(&lines, "events", "fail");
        assert!(told.contains("it is held back") && told.contains("`proxy_buffering off;`"), "{told}");
        is(&lines, "websocket", "pass");
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_proxy_that_cuts_silent_connections_is_told_of_with_how_soon() {
    let relay = TestRelay::start(memory()).await;
    let cuts = nginx("proxy_buffering off; proxy_read_timeout 2s;");
    if let Some(proxy) = Kind::Nginx.start(&cuts, relay.address).await {
        let (ended, lines) = through(proxy.address, &["--idle", "8"]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        is(&lines, "events", "pass");
        for name in ["idle", "websocket"] {
            let told = is(&lines, name, "fail");
            let seconds = told.split("was cut after ").nth(1).and_then(|rest| rest.split(' ').next());
            let seconds: f64 = seconds.expect("how soon").parse().expect("a number");
            assert!((1.0..6.0).contains(&seconds), "{told}");
            assert!(told.contains("`proxy_read_timeout 60s;`"), "{told}");
        }
    }
    relay.stop().await;
}

#[tokio::test]
async fn of_a_proxy_as_it_comes_it_is_told_what_it_leaves_out() {
    let relay = TestRelay::start(memory()).await;
    let alone = "server { listen 80; location / { proxy_set_header Accept-Encoding \"\"; proxy_pass http://127.0.0.1:8080; } }";
    if let Some(proxy) = Kind::Nginx.start(alone, relay.address).await {
        let (ended, lines) = through(proxy.address, &["--idle", "1"]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(is(&lines, "websocket", "fail").contains("`proxy_set_header Upgrade $http_upgrade;`"));
        assert!(is(&lines, "compression", "warn").contains("`Accept-Encoding`"));
        let told = is(&lines, "forwarding", "warn");
        assert!(told.contains(&relay.address.to_string()) && told.contains("TRUSTED_PROXIES"), "{told}");
    }
    relay.stop().await;
    // Nothing is behind it, and nothing is there.
    if let Some(proxy) = Kind::Nginx.start(alone, ([127, 0, 0, 1], free_port()).into()).await {
        let (ended, lines) = through(proxy.address, &[]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(is(&lines, "relay", "fail").contains("is no relay: status 502"), "{lines:?}");
    }
    let (ended, lines) = through(([127, 0, 0, 1], free_port()).into(), &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(is(&lines, "relay", "fail").contains("cannot be reached"), "{lines:?}");
}

#[tokio::test]
async fn a_closed_relay_is_looked_at_with_a_token() {
    let relay = closed::start(memory()).await;
    let (ended, lines) = through(relay.address, &["--idle", "1"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for name in ["forwarding", "events", "websocket"] {
        assert!(is(&lines, name, "warn").contains("--token"));
    }
    let root = closed::log_in(&relay, "root").await;
    let (_, token) = closed::token(&relay, &root, &["allow read till.*"]).await;
    let token = token.trim_start_matches("Bearer ");
    let (ended, lines) =
        through(relay.address, &["--idle", "1", "--token", token, "--topic", "till.7"]).await;
    all_is_well(&ended, &lines);
    assert!(is(&lines, "forwarding", "pass").contains("127.0.0.1"), "{lines:?}");
    // A token that is none is told, and one that may not read the topic is, too.
    let (ended, lines) = through(relay.address, &["--idle", "1", "--token", "none"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for name in ["forwarding", "events", "websocket"] {
        assert!(is(&lines, name, "fail").contains("does not let in"), "{lines:?}");
    }
    let (ended, lines) = through(relay.address, &["--idle", "1", "--token", token, "--topic", "other"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(is(&lines, "events", "warn").contains("may not read topic `other`"), "{lines:?}");
    relay.stop().await;
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn of_a_relay_whose_storage_is_away_it_is_told_what_was_not_looked_at() {
    use crate::support::server::{Kind as Servers, Server};

    let Some(server) = Server::start(Servers::Valkey, &[]).await else { return };
    let url = format!("valkey://127.0.0.1:{}", server.port());
    let start = move || Relay::start(&[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)], &[]);
    let relay = spawn_blocking(start).await.expect("no panic");
    spawn_blocking(move || drop(server)).await.expect("it ends");
    let ready =
        async || try_send(relay.address(), "GET", "/ready", &[], b"").await.map(|answer| answer.status);
    eventually(STUCK, async || ready().await == Some(503)).await;
    let (ended, lines) = through(relay.address(), &["--idle", "1"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    is(&lines, "storage", "fail");
    assert!(is(&lines, "work", "pass").contains("not looked at"), "{lines:?}");
    let events = is(&lines, "events", "fail");
    assert!(events.contains("503 `storage_unavailable`") && !events.contains("proxy pass"), "{events}");
    spawn_blocking(move || drop(relay)).await.expect("no panic");
}

#[tokio::test]
async fn the_end_of_a_certificate_and_who_is_not_trusted_are_told() {
    const DAY: Duration = Duration::from_hours(24);
    let now = Clock::system().now();
    let ago = Timestamp::from_millis(now.as_millis() - 1_000 * DAY.as_secs());
    for (end, outcome, says) in [
        (now.saturating_add(90 * DAY), "pass", "for 89 more days"),
        (now.saturating_add(7 * DAY), "warn", "more days"),
        (ago, "fail", "the certificate has expired"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        Papers::until(end).write(&certificate, &key);
        let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
        let (certificate, key) = (text(&certificate), text(&key));
        let files = certificate.clone();
        let start = move || Relay::start(&[("TIDEMILL_TLS_CERT", &*files), ("TIDEMILL_TLS_KEY", &*key)], &[]);
        let relay = spawn_blocking(start).await.expect("no panic");
        let port = relay.url.rsplit(':').next().expect("a port").trim_end_matches('/').to_owned();
        let url = format!("https://localhost:{port}");
        let (ended, lines) = doctor(&url, &["--idle", "1", "--ca-cert", &certificate]).await;
        assert!(is(&lines, "tls", outcome).contains(says), "{lines:?}");
        is(&lines, "http/2", "pass");
        assert_eq!(ended.code, Some(i32::from(outcome == "fail")), "{ended:?}");
        if outcome == "pass" {
            for name in ["relay", "events", "idle", "websocket"] {
                is(&lines, name, "pass");
            }
            let (ended, lines) = doctor(&url, &[]).await;
            assert_eq!(ended.code, Some(1), "{ended:?}");
            let told = is(&lines, "tls", "fail");
            assert!(
                told.contains("nobody who is trusted has signed it") && told.contains("fullchain.pem"),
                "{told}"
            );
        }
        spawn_blocking(move || drop(relay)).await.expect("no panic");
    }
}
