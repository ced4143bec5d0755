//! Settings that a relay reads again while it runs, told by a command and by a signal.

use std::path::PathBuf;

use serde_json::{Value, json};
use tidemill::config::known;

use super::json as parsed;
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::process::{Relay, run};
use crate::support::raw::{RawConnection, status};
use crate::support::relay::try_send;
use crate::support::tls::Papers;

/// Has a relay let everybody in, whatever its file says.
const OPEN: [&str; 1] = ["--access=open"];

/// A relay with a file of settings.
struct Written {
    relay: Relay,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Written {
    fn start(text: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("tidemill.toml");
        std::fs::write(&path, text).expect("the folder is ours");
        let config = path.to_str().expect("UTF-8").to_owned();
        let arguments = [&["--config", &config], arguments].concat();
        Self { relay: Relay::start(&[], &arguments), path, _directory: directory }
    }

    /// Checks that settings of this text are refused, with this sentence, and that nothing is changed by them.
    #[track_caller]
    fn refuses(&self, text: &str, says: &str) {
        self.write(text);
        let ended = self.relay.run(&["reload"], "");
        let error = ended.error(1);
        for part in ["nothing was changed", "code invalid_request", says] {
            assert!(error.contains(part), "{text}: {part} in {error}");
        }
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.path, text).expect("the folder is ours");
    }

    /// Returns what `tidemill reload` tells.
    fn reload(&self) -> Value {
        let ended = self.relay.run(&["reload", "-o", "json"], "");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        parsed(ended.lines()[0])
    }

    /// Returns the status of a request over a connection of its own.
    async fn ask(&self, host: &str, headers: &str) -> (u16, String) {
        let mut connection = RawConnection::connect(self.relay.address()).await.expect("a connection");
        let request = format!("GET /api/v1/topics HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n");
        connection.send(request.as_bytes()).await.expect("it is taken");
        let head = connection.head().await.expect("a head");
        (status(&head), head)
    }
}

fn unchanged(others: usize) -> usize {
    known().len() - others
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_restart_is_taken_over_and_the_rest_is_named() {
    let written = Written::start("limit_address_messages = 0\ntrusted_hosts = \"one.example\"\n", &OPEN);
    assert_eq!(
        written.reload(),
        json!({"changed": [], "needs_restart": [], "unchanged": unchanged(0)}),
        "nothing is another"
    );
    assert_eq!(written.ask("two.example", "").await.0, 403);

    // Over a connection that is open already.
    let mut connection = RawConnection::connect(written.relay.address()).await.expect("a connection");
    let publish = async |connection: &mut RawConnection| {
        let sent = connection
            .exchange("POST", "/api/v1/topics/t/messages", "application/json", "1")
            .await
            .expect("an answer");
        sent.0
    };
    for _ in 0..5 {
        assert_eq!(publish(&mut connection).await, 201);
    }
    written.write(
        "limit_address_messages = 2\ntrusted_hosts = \"two.example\"\nallowed_origins = \"https://app.example\"\nlimit_kept_bytes = \"t=1GiB\"\ndrain_ms = 7\n",
    );
    assert_eq!(
        written.reload(),
        json!({
            "changed": ["allowed_origins", "trusted_hosts", "limit_address_messages", "limit_kept_bytes"],
            "needs_restart": ["drain_ms"],
            "unchanged": unchanged(5),
        })
    );
    let statuses =
        [publish(&mut connection).await, publish(&mut connection).await, publish(&mut connection).await];
    assert_eq!(statuses, [201, 201, 429]);
    assert_eq!(written.ask("one.example", "").await.0, 403);
    let (status, head) = written.ask("two.example", "origin: https://app.example\r\n").await;
    assert!(status == 200 && head.contains("access-control-allow-origin: https://app.example"), "{head}");
    let health = written.relay.run(&["health", "-o", "json"], "");
    assert_eq!(parsed(health.lines()[0])["kept"][0]["topics"], "t", "{health:?}");

    // What needs a restart is told until there was one.
    let text = written.relay.run(&["reload"], "");
    assert_eq!(
        text.lines(),
        ["drain_ms is another, and holds after a restart", &format!("{} settings as before", unchanged(1))]
    );
    written.write("limit_address_messages = 0\ntrusted_hosts = \"two.example\"\n");
    let told = written.reload();
    assert_eq!(told["changed"], json!(["allowed_origins", "limit_address_messages", "limit_kept_bytes"]));
    assert_eq!((&told["needs_restart"], publish(&mut connection).await), (&json!([]), 201));
    // There is no bound any more, and nothing tells of one.
    let metrics = try_send(written.relay.address(), "GET", "/metrics", &[], b"").await.expect("an answer");
    assert!(!metrics.text().contains("tidemill_kept_bytes{") && metrics.text().contains("tidemill_"));
    assert!(!metrics.text().contains("tidemill_kept_bytes_max{"), "{}", metrics.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_wrong_change_nothing() {
    let papers = Papers::make();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    papers.write(&certificate, &key);
    let tls = format!("tls_cert = \"{}\"\ntls_key = \"{}\"\n", certificate.display(), key.display());
    let written = Written::start(&tls, &OPEN);
    let ask = || {
        let trusted = certificate.with_file_name("trusted.pem");
        papers.write(&trusted, &certificate.with_file_name("unused.pem"));
        let arguments = ["reload", "-o", "json", "--ca-cert", trusted.to_str().expect("UTF-8")];
        let url = written.relay.url.replace("127.0.0.1", "localhost");
        run(&[("TIDEMILL_URL", &url)], &arguments, "")
    };
    written.write(&format!("{tls}limit_address_messages = 2\nlog_level = \"loud\"\ncolour = 1\n"));
    let error = ask();
    let error = error.error(1);
    for part in ["nothing was changed", "key `colour`", "log_level (from file", "code invalid_request"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    written.write(&format!("{tls}limit_address_messages = 2\n"));
    std::fs::write(&certificate, "nothing").expect("the folder is ours");
    let error = ask();
    assert!(error.error(1).contains("tls_cert (from file"), "{error:?}");
    papers.write(&certificate, &key);
    let told = ask();
    assert_eq!(parsed(told.lines()[0])["changed"], json!(["limit_address_messages"]), "{told:?}");
    let (_, log) = written.relay.stop();
    assert_eq!(log.matches("settings read again are wrong").count(), 2, "{log}");
}

#[test]
fn settings_with_which_no_relay_starts_change_nothing() {
    let written = Written::start("", &[]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let issuers = directory.path().join("issuers");
    let named = format!("jwt_issuers_file = \"{}\"\n", issuers.display());
    std::fs::write(&issuers, "my;aud=tidemill;secret=abc").expect("the folder is ours");
    let wrong = |text: &str, says: &str| {
        written.refuses(&format!("{text}limit_topics = 7\n"), says);
        let config = written.path.to_str().expect("UTF-8");
        let checked = run(&[], &["config", "check", "--config", config], "");
        assert!(checked.code == Some(2) && checked.stdout.contains(says), "{text}: {checked:?}");
    };
    wrong(&named, "jwt_issuers (from file");
    wrong(&named, "fewer than 32 bytes");
    std::fs::write(&issuers, "my;aud=tidemill;file=/nope").expect("the folder is ours");
    wrong(&named, "the file /nope cannot be read");
    for text in [
        "trusted_proxies = \"10.0.0.0/8\"\n",
        "trusted_hosts = \"relay.example\"\n",
        "public_url = \"https://relay.example\"\n",
    ] {
        wrong(text, "which nobody may administer");
    }
    wrong("access = \"closed\"\n", "nobody could ever come in");
    written.write("limit_topics = 7\n");
    assert_eq!(written.reload()["changed"], json!(["limit_topics"]));
    let (_, log) = written.relay.stop();
    assert!(log.contains("\"by\":\"anyone\"") && log.contains("\"changed\":\"limit_topics\""), "{log}");
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread")]
async fn whom_the_storage_knows_decides_whether_a_relay_starts_with_settings() {
    use crate::support::server::{Kind, Server};

    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("valkey://127.0.0.1:{}", server.port());
    let backend = ["--storage-backend=valkey", "--valkey-url", &url];
    let written = Written::start("", &backend);
    let proxies = "trusted_proxies = \"10.0.0.0/8\"\n";
    written.refuses(proxies, "which nobody may administer");
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*url)];
    run(&variables, &["user", "add", "ann", "--role", "admin", "--no-password"], "").lines();
    assert_eq!(written.reload()["needs_restart"], json!(["trusted_proxies"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_has_the_level_of_a_module_changed() {
    let written = Written::start("log_level = \"info\"\n", &OPEN);
    let reloads = async |count: usize| {
        let metrics = format!("tidemill_settings_reloads_total{{result=\"done\"}} {count}\n");
        let is_told = async || {
            let answer = try_send(written.relay.address(), "GET", "/metrics", &[], b"").await;
            answer.is_some_and(|answer| answer.text().contains(&metrics))
        };
        eventually(SOON, is_told).await;
    };
    for (at, levels) in ["warn", "warn,tidemill::server::reload=info", "error"].into_iter().enumerate() {
        written.write(&format!("log_level = \"{levels}\"\n"));
        written.relay.signal(rustix::process::Signal::HUP);
        reloads(at + 1).await;
    }
    let (code, log) = written.relay.stop();
    assert_eq!(code, Some(0));
    // Each is told by the levels that it has set.
    assert_eq!(log.matches("settings read again").count(), 1, "{log}");
    assert!(log.contains("\"by\":\"SIGHUP\""), "{log}");
}
