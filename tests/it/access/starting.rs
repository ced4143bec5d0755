//! Which relays start, and whom they let in: the settings of access, on the real binary.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::closed::{self, ROOT, send};
use crate::support::eventually;
use crate::support::ground::Ground;
use crate::support::process::{Relay, run};
use crate::support::relay::try_send;
use crate::support::server::{Kind, Server};

const TOPICS: &str = "/api/v1/topics";
const ADMIN: (&str, &str) = ("TIDEMILL_ADMIN_PASSWORD", "correct horse");
const ISSUER: (&str, &str) =
    ("TIDEMILL_JWT_ISSUERS", "my-service;aud=tidemill;secret=0123456789abcdef0123456789abcdef");
const OPEN: (&str, &str) = ("TIDEMILL_ACCESS", "open");
const CLOSED: (&str, &str) = ("TIDEMILL_ACCESS", "closed");
const AUTO: (&str, &str) = ("TIDEMILL_ACCESS", "auto");

/// Returns the status with which a relay answers who says nothing of who calls.
async fn status(relay: &Relay) -> u16 {
    let mut address = relay.address();
    address.set_ip([127, 0, 0, 1].into());
    try_send(address, "GET", TOPICS, &[], b"").await.expect("an answer").status
}

#[tokio::test]
async fn a_relay_is_open_on_loopback_alone_unless_told() {
    let (loopback, everywhere) = ("127.0.0.1:0", "0.0.0.0:0");
    for (listen, variables, expected) in [
        (loopback, &[][..], 200),
        (loopback, &[AUTO], 200),
        (loopback, &[CLOSED, ISSUER], 401),
        (loopback, &[ADMIN], 401),
        (loopback, &[ISSUER], 401),
        (loopback, &[OPEN, ADMIN], 200),
        (everywhere, &[OPEN], 200),
        // What others reach by way of a proxy is no different.
        (loopback, &[("TRUSTED_PROXIES", "127.0.0.1"), ADMIN], 401),
        (loopback, &[("TRUSTED_HOSTS", "relay.example.com"), OPEN], 200),
        (loopback, &[("TRUSTED_HOSTS", "localhost,127.0.0.1")], 200),
        (loopback, &[("TIDEMILL_PUBLIC_URL", "http://localhost:8080")], 200),
        (everywhere, &[CLOSED, ADMIN], 401),
        (everywhere, &[ADMIN], 401),
        (everywhere, &[AUTO, ISSUER], 401),
    ] {
        let variables = variables.to_vec();
        let shown = format!("{listen} {variables:?}");
        let start = tokio::task::spawn_blocking(move || Relay::start_at(listen, &variables, &[]));
        let relay = start.await.expect("it starts");
        assert_eq!(status(&relay).await, expected, "{shown}");
    }
}

#[test]
fn told_to_listen_elsewhere_it_says_what_would_allow_it() {
    for variables in [&[][..], &[AUTO], &[("TIDEMILL_ADMIN_NAME", "root")]] {
        let ended = run(variables, &["serve", "--listen", "0.0.0.0:0", "--log-level", "error"], "");
        let error = ended.error(2);
        let from = if variables.contains(&AUTO) { "variable TIDEMILL_ACCESS" } else { "default" };
        assert!(
            error.starts_with(&format!(
                "access (from {from}) is auto, and at listen = 0.0.0.0:0 (from flag --listen) "
            )),
            "{error}"
        );
        for way in ["TIDEMILL_ADMIN_PASSWORD_FILE", "TIDEMILL_JWT_ISSUERS", "--access open"] {
            assert!(error.contains(way), "{error}");
        }
    }
}

/// What a compose file gives for a variable that nobody has set.
#[test]
fn what_is_empty_or_blank_never_leaves_a_relay_open() {
    for (name, value) in [
        ("TIDEMILL_ADMIN_PASSWORD", ""),
        ("TIDEMILL_ADMIN_PASSWORD_FILE", ""),
        ("TIDEMILL_ACCESS", ""),
        ("TIDEMILL_JWT_ISSUERS", ""),
        ("TIDEMILL_JWT_ISSUERS", " "),
        ("PULSAR_BOOTSTRAP_ADMIN_PASSWORD", ""),
    ] {
        for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
            let ended = run(&[(name, value)], &["serve", "--listen", listen], "");
            let error = ended.error(2);
            assert!(error.contains(&format!("(from variable {name}) ")), "{error}");
        }
    }
}

#[test]
fn a_closed_relay_in_which_nobody_could_ever_come_in_does_not_start() {
    for command in ["serve", "doctor"] {
        let ended = run(&[CLOSED], &[command, "--listen", "127.0.0.1:0"], "");
        let told = if command == "serve" { ended.error(2) } else { &ended.stdout };
        let start = "access (from variable TIDEMILL_ACCESS) is closed, and nobody could ever come in";
        assert!(told.contains(start) && ended.code != Some(0), "{ended:?}");
        for way in [
            "TIDEMILL_ADMIN_PASSWORD_FILE",
            "TIDEMILL_JWT_ISSUERS",
            "TIDEMILL_OIDC_PROVIDERS",
            "--access open",
        ] {
            assert!(told.contains(way), "{told}");
        }
    }
    let provider = "one;issuer=https://id.example;client_id=a;client_secret=s3cret";
    let variables =
        [CLOSED, ("TIDEMILL_PUBLIC_URL", "http://localhost:8080"), ("TIDEMILL_OIDC_PROVIDERS", provider)];
    drop(Relay::start(&variables, &[]));
}

#[test]
fn the_log_says_at_start_who_is_let_in_and_why() {
    for (listen, variables, access, because) in [
        ("127.0.0.1:0", &[][..], "open", "default on loopback"),
        ("127.0.0.1:0", &[OPEN, ADMIN], "open", "access (from variable TIDEMILL_ACCESS)"),
        ("127.0.0.1:0", &[CLOSED, ADMIN], "closed", "access (from variable TIDEMILL_ACCESS)"),
        ("127.0.0.1:0", &[ADMIN], "closed", "admin_password (from variable TIDEMILL_ADMIN_PASSWORD)"),
        ("0.0.0.0:0", &[ISSUER], "closed", "jwt_issuers (from variable TIDEMILL_JWT_ISSUERS)"),
    ] {
        let (_, log) = Relay::start_at(listen, variables, &["--log-format=json"]).stop();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let listening: Vec<_> = lines.filter(|line| line["message"] == "listening").collect();
        assert_eq!(listening.len(), 1, "{log}");
        assert_eq!((&listening[0]["access"], &listening[0]["decided_by"]), (&access.into(), &because.into()));
    }
}

#[test]
fn told_of_a_name_or_a_proxy_by_which_others_come_it_says_so() {
    for (setting, variable, value) in [
        ("public_url", "TIDEMILL_PUBLIC_URL", "https://relay.example.com"),
        ("public_url", "TIDEMILL_PUBLIC_URL", "http://192.0.2.7:8080"),
        ("trusted_hosts", "TRUSTED_HOSTS", "localhost,relay.example.com"),
        ("trusted_hosts", "TRUSTED_HOSTS", "*"),
        ("trusted_proxies", "TRUSTED_PROXIES", "127.0.0.1"),
    ] {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--log-level", "error"];
        let ended = run(&[(variable, value)], &serve, "");
        let error = ended.error(2);
        let start =
            format!("access (from default) is auto, and by {setting} (from variable {variable}) other");
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn what_is_wrong_is_named_without_its_secret() {
    for (variables, expected) in [
        (
            &[("TIDEMILL_ACCESS", "ajar")][..],
            "access (from variable TIDEMILL_ACCESS): `ajar` is none of auto, open, closed",
        ),
        (
            &[("TIDEMILL_ADMIN_PASSWORD", "s3cret")],
            "admin_password (from variable TIDEMILL_ADMIN_PASSWORD) has 6 characters",
        ),
        (
            &[ADMIN, ("TIDEMILL_ADMIN_NAME", "a b")],
            "admin_name (from variable TIDEMILL_ADMIN_NAME) must be 1 to",
        ),
        (
            &[ADMIN, ("TIDEMILL_ADMIN_NAME", "anonymous")],
            "admin_name (from variable TIDEMILL_ADMIN_NAME) must not be",
        ),
        (
            &[("TIDEMILL_JWT_ISSUERS", "https://id.example/;key=s3cret")],
            "jwt_issuers (from variable TIDEMILL_JWT_ISSUERS) has no `aud`",
        ),
        (
            &[("TIDEMILL_OIDC_PROVIDERS", "one;issuer=https://id.example;client_secret=s3cret")],
            "oidc_providers (from variable TIDEMILL_OIDC_PROVIDERS) has no `client_id`",
        ),
        (
            &[("TIDEMILL_OIDC_PROVIDERS", "one;issuer=https://id.example;client_id=a;client_secret=s3cret")],
            "oidc_providers (from variable TIDEMILL_OIDC_PROVIDERS) needs public_url",
        ),
    ] {
        let ended = run(variables, &["serve", "--listen", "127.0.0.1:0"], "");
        let error = ended.error(2);
        assert!(error.starts_with(expected) && !error.contains("s3cret"), "{error}");
    }
}

/// Whoever opens a pipe waits for who writes to it, for ever.
#[test]
fn a_pipe_in_place_of_keys_is_refused_and_keeps_no_relay_from_stopping() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let pipe = |name: &str| {
        let path = folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.is_ok_and(|status| status.success()));
        path
    };
    let keys = pipe("keys.pem");
    let issuer = format!("https://id.example/;aud=tidemill;file={}", keys.display());
    let serve = ["serve", "--listen", "127.0.0.1:0", "--log-level", "error"];
    let ended = run(&[("TIDEMILL_JWT_ISSUERS", &issuer)], &serve, "");
    let error = ended.error(2);
    assert!(error.contains("is no regular file"), "{error}");

    let signer = crate::credentials::signer::Signer::curve("one");
    std::fs::remove_file(&keys).expect("it is ours");
    std::fs::write(&keys, &signer.verifies).expect("the folder is ours");
    let relay = Relay::start(&[("TIDEMILL_JWT_ISSUERS", &issuer)], &[]);
    std::fs::remove_file(&keys).expect("it is ours");
    pipe("keys.pem");
    // The file is looked at every five seconds.
    std::thread::sleep(Duration::from_secs(6));
    let began = tokio::time::Instant::now();
    assert_eq!(relay.stop().0, Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// A storage that comes back empty leaves nobody without a way in.
#[tokio::test]
async fn the_first_administrator_is_made_again_where_nobody_is_left() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let relay = closed::start(ground.storage.clone()).await;
    let ann = closed::user(&relay, "ann", &["read"]).await;
    let users = async |who: &str| send(&relay, Some(who), "GET", "/api/v1/users", &Value::Null).await;
    assert_eq!(users(ROOT).await.status, 200);
    ground.server().command(&["FLUSHALL"]).await;
    eventually(Duration::from_secs(2), async || users(&ann).await.status == 401).await;
    eventually(Duration::from_secs(10), async || users(ROOT).await.status == 200).await;
    assert_eq!(users(ROOT).await.json().as_array().map(Vec::len), Some(1), "and nobody else");
    assert_eq!(users(&ann).await.status, 401);
    relay.stop().await;
}

#[tokio::test]
async fn a_storage_that_knows_an_administrator_lets_a_relay_start() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let port = server.port().to_string();
    let valkey = [("STORAGE_BACKEND", "valkey"), ("VALKEY_PORT", &*port)];
    let everywhere = ["--listen", "0.0.0.0:0"];
    let serve = |variables: Vec<(&str, &str)>, arguments: &[&str]| {
        run(&variables, &[&["serve", "--log-level", "error"], arguments].concat(), "")
    };
    let refused = serve(valkey.to_vec(), &everywhere);
    assert!(refused.error(2).contains("tidemill user add NAME --role admin"), "{refused:?}");
    let check = |arguments: &[&str]| run(&valkey, &[&["doctor", "-o", "json"], arguments].concat(), "");
    let access = |stdout: &str| -> Value {
        let mut lines = stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.find(|line| line["name"] == "access").expect("it is checked")
    };
    let told = check(&everywhere);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert_eq!(access(&told.stdout)["outcome"], "fail");
    assert!(access(&told.stdout)["advice"].as_str().expect("advice").contains("--access open"));
    assert_eq!(access(&check(&[]).stdout)["outcome"], "pass", "on loopback");
    assert_eq!(access(&check(&["--access", "closed"]).stdout)["outcome"], "warn", "nobody yet");

    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let secret: PathBuf = folder.path().join("password");
    std::fs::write(&secret, "correct horse\n").expect("the folder is ours");
    let with_secret =
        [&valkey[..], &[("TIDEMILL_ADMIN_PASSWORD_FILE", secret.to_str().expect("UTF-8"))]].concat();
    let first = Relay::ready_at("127.0.0.1:0", &with_secret, &[]).await;
    assert_eq!(status(&first).await, 401);
    let (_, log) = first.stop();
    assert!(!log.contains("has no effect"), "it made somebody: {log}");
    let again = Relay::ready_at("127.0.0.1:0", &with_secret, &["--log-format=json"]).await;
    let (_, log) = again.stop();
    let told: Vec<_> = log.lines().filter(|line| line.contains("has no effect")).collect();
    assert!(
        matches!(told[..], [one] if one.contains("INFO") && one.contains("tidemill user password NAME")),
        "{log}"
    );
    let ended = run(&with_secret, &["doctor", "-o", "json"], "");
    let line = access(&ended.stdout);
    let detail = line["detail"].as_str().expect("a detail");
    let start = "admin_password (from variable TIDEMILL_ADMIN_PASSWORD_FILE) has no effect";
    assert!(detail.starts_with(start) && detail.contains("tidemill user password NAME"), "{detail}");
    let told = check(&everywhere);
    assert_eq!(access(&told.stdout)["outcome"], "pass", "{told:?}");
    let relay = Relay::ready_at("0.0.0.0:0", &valkey, &[]).await;
    assert_eq!(status(&relay).await, 401);
}
