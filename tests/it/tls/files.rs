//! The files of the certificate and its key: what is wrong with them is told, and what is new is used.

use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use tidemill::clock::Clock;
use tidemill::proto::Timestamp;
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
        let is_sentence = error.contains(&format!("{}, which {says}", text(file)));
        assert!(says != "is not the key of the certificate" || is_sentence, "{error}");
        // Told before anything is started, too.
        let check = run(&[], &["doctor", "--tls-cert", text(certificate), "--tls-key", text(key)], "");
        assert_eq!(check.code, Some(1), "{check:?}");
        let is_failed = check.stdout.contains("✗ certificate: the relay would not start\n");
        assert!(is_failed && check.stdout.contains(error), "{check:?}");
    }
    for (given, flag, missing) in
        [("tls_cert", "--tls-cert", "tls_key"), ("tls_key", "--tls-key", "tls_cert")]
    {
        let ended = run(&[], &["serve", flag, text(&key)], "");
        assert_eq!(ended.error(2), format!("{given} (from flag {flag}) needs {missing} beside it"));
    }
}

/// Starts a relay with these papers, and returns it with the folder of its files.
fn start(papers: &Papers) -> (tempfile::TempDir, Relay) {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    papers.write(&certificate, &key);
    let relay = Relay::start(&[], &["--tls-cert", text(&certificate), "--tls-key", text(&key)]);
    (folder, relay)
}

#[tokio::test]
async fn the_end_of_a_certificate_is_told_where_it_is_near() {
    const DAY: u64 = 86_400_000;
    let now = Clock::system().now().as_millis() / 1_000 * 1_000;
    for (end, says) in [
        (now - DAY, Some("the certificate has expired")),
        (now + 13 * DAY, Some("the certificate expires soon")),
        (now + 15 * DAY, None),
    ] {
        let end = Timestamp::from_millis(end);
        let papers = Papers::until(end);
        let ended = spawn_blocking(move || {
            let (folder, relay) = start(&papers);
            let paths = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
            let flags = ["doctor", "--tls-cert", text(&paths[0]), "--tls-key", text(&paths[1])];
            (run(&[], &flags, ""), relay.stop().1)
        });
        let (check, log) = ended.await.unwrap();
        assert_eq!(check.code, Some(0), "{check:?}");
        let date = end.to_string();
        let line = check.lines().into_iter().find(|line| line.contains(" certificate: ")).expect("a line");
        assert!(line.starts_with(if says.is_some() { "! " } else { "✓ " }) && line.contains(&date), "{line}");
        let warnings: Vec<_> =
            log.lines().filter(|line| line.contains("WARN") && line.contains("certificate")).collect();
        match says {
            Some(says) => {
                assert!(matches!(warnings[..], [one] if one.contains(says) && one.contains(&date)), "{log}");
            }
            None => assert_eq!(warnings, [""; 0], "{log}"),
        }
    }
}

#[tokio::test]
async fn the_end_of_a_certificate_is_counted_and_told_again_when_it_is_replaced() {
    const DAY: u64 = 86_400_000;
    let now = Clock::system().now().as_millis() / 1_000 * 1_000;
    let [later, sooner] = [now + 90 * DAY, now + DAY].map(Timestamp::from_millis);
    let (before, after) = (Papers::until(later), Papers::until(sooner));
    let (folder, relay) = {
        let before = before.clone();
        spawn_blocking(move || start(&before)).await.unwrap()
    };
    let counted = async |papers: &Papers, end: Timestamp| {
        let client = Http2::connect(papers, relay.address(), WINDOW).await;
        let answer = client.send(Method::GET, "/metrics", &[], b"").await;
        let metrics = answer.text();
        let name = "tidemill_tls_certificate_expires_timestamp_seconds";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned);
        line.and_then(|value| value.parse::<u64>().ok()) == Some(end.as_millis() / 1_000)
    };
    assert!(counted(&before, later).await);
    after.write(&folder.path().join("cert.pem"), &folder.path().join("key.pem"));
    eventually(STUCK, || is_shown(&after, &relay)).await;
    eventually(STUCK, || counted(&after, sooner)).await;
    let (_, log) = spawn_blocking(move || relay.stop()).await.unwrap();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(matches!(warnings[..], [.., last] if last.contains(&sooner.to_string())), "{log}");
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
