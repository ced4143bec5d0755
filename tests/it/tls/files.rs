//! The files of the certificate and its key: what is wrong with them is told, and what is new is used.

use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use super::WINDOW;
use crate::support::http2::Http2;
use crate::support::process::{Relay, run};
use crate::support::relay::STUCK;
use crate::support::tls::Papers;
use crate::support::{always, eventually};

/// How long the files are left as they are, to see that nothing changes: longer than it takes to look.
const A_LOOK: Duration = Duration::from_millis(3_500);

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn what_is_wrong_is_told_by_setting_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    Papers::make().write(&certificate, &key);
    let other_key = path("other.pem");
    Papers::make().write(&path("unused.pem"), &other_key);
    let (missing, empty, garbage) = (path("missing.pem"), path("empty.pem"), path("garbage.pem"));
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").unwrap();
    let cases = [
        (&missing, &key, "tls_cert", "cannot be read"),
        (&certificate, &missing, "tls_key", "cannot be read"),
        (&empty, &key, "tls_cert", "no PEM block `-----BEGIN CERTIFICATE-----`"),
        (&key, &key, "tls_cert", "no PEM block `-----BEGIN CERTIFICATE-----`"),
        (&garbage, &key, "tls_cert", "cannot be read"),
        (&certificate, &empty, "tls_key", "no PEM block `-----BEGIN PRIVATE KEY-----`"),
        (&certificate, &certificate, "tls_key", "no PEM block `-----BEGIN PRIVATE KEY-----`"),
        (&certificate, &other_key, "tls_key", "is not the key of the certificate"),
    ];
    for (certificate, key, setting, says) in cases {
        let serve =
            ["serve", "--tls-cert", text(certificate), "--tls-key", text(key), "--listen", "127.0.0.1:0"];
        let ended = run(&[], &serve, "");
        let error = ended.error(2);
        let file = if setting == "tls_key" { key } else { certificate };
        assert!(error.starts_with(&format!("{setting} (from flag --tls-")), "{error}");
        assert!(error.contains(text(file)) && error.contains(says), "{error}");
    }
    for (given, flag, missing) in
        [("tls_cert", "--tls-cert", "tls_key"), ("tls_key", "--tls-key", "tls_cert")]
    {
        let ended = run(&[], &["serve", flag, text(&key)], "");
        assert_eq!(ended.error(2), format!("{given} (from flag {flag}) needs {missing} beside it"));
    }
}

/// Returns whether a client that trusts these papers can connect.
async fn is_shown(papers: &Papers, relay: &Relay) -> bool {
    let stream = TcpStream::connect(relay.address()).await.expect("the relay listens");
    papers.try_agree(stream, &[]).await.is_ok()
}

#[tokio::test]
async fn new_files_are_shown_to_new_connections_and_open_streams_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (before, after) = (Papers::make(), Papers::make());
    before.write(&certificate, &key);
    let variables =
        [("TIDEMILL_TLS_CERT", text(&certificate)), ("TIDEMILL_TLS_KEY", text(&key)), ("LOG_LEVEL", "info")];
    let variables = variables.map(|(name, value)| (name, value.to_owned()));
    let start = spawn_blocking(move || {
        Relay::start(&variables.each_ref().map(|(name, value)| (*name, value.as_str())), &[])
    });
    let relay = start.await.unwrap();
    assert!(relay.url.starts_with("https://"), "{}", relay.url);
    let client = Http2::connect(&before, relay.address(), WINDOW).await;
    let accept = ("accept", "text/event-stream");
    let response = client.ask(Method::GET, "/api/v1/topics/t/messages", &[accept], b"").await.unwrap();
    let mut stream = response.into_body();
    stream.until("subscribed").await;

    // Renewals write one file after the other: meanwhile the two do not fit together.
    let new_key = folder.path().join("new.pem");
    after.write(&certificate, &new_key);
    always(A_LOOK, || is_shown(&before, &relay)).await;
    std::fs::rename(&new_key, &key).unwrap();
    eventually(STUCK, || is_shown(&after, &relay)).await;
    assert!(!is_shown(&before, &relay).await);

    let publisher = Http2::connect(&after, relay.address(), WINDOW).await;
    let json = ("content-type", "application/json");
    let sent = publisher.send(Method::POST, "/api/v1/topics/t/messages", &[json], br#""after""#).await;
    assert_eq!(sent.status, 201);
    stream.until(r#""after""#).await;
    drop((client, publisher));
    let (code, log) = spawn_blocking(move || relay.stop()).await.unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(log.matches("the new certificate is not used").count(), 1, "{log}");
    assert_eq!(log.matches("the certificate was replaced").count(), 1, "{log}");
    assert!(!log.contains("PRIVATE KEY"));
}
