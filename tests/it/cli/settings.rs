//! Settings as the commands show and use them.

use tidemill::config::known;

use super::json;
use crate::support::process::{Relay, run};

const SECRET: &str = "h3cret";

#[test]
fn config_show_tells_value_and_source_and_no_secret() {
    let variables = [
        ("VALKEY_URL", "redis://user:h3cret@example.com"),
        ("VALKEY_PASSWORD", SECRET),
        ("PULSAR_BOOTSTRAP_ADMIN_PASSWORD", SECRET),
        ("MAX_BODY_BYTES", "2MiB"),
    ];
    let arguments = ["config", "show", "--redis-url", "redis://:h3cret@example.com", "--drain-ms=7"];
    let text = run(&variables, &arguments, "");
    let lines = text.lines();
    assert_eq!(lines.len(), known().len() + 1);
    for (name, value, source) in [
        ("valkey_url", "***", "variable VALKEY_URL"),
        ("redis_url", "***", "flag --redis-url"),
        ("max_body_bytes", "2MiB", "variable MAX_BODY_BYTES"),
        ("drain_ms", "7", "flag --drain-ms"),
        ("topics_max", "250000", "default"),
        ("valkey_username", "-", "default"),
    ] {
        let words = |line: &&str| {
            line.split("  ").map(str::trim).filter(|word| !word.is_empty()).eq([name, value, source])
        };
        assert!(lines.iter().any(words), "{name} {value} {source}: {}", text.stdout);
    }
    assert!(text.stderr.contains("warning: PULSAR_BOOTSTRAP_ADMIN_PASSWORD is ignored"), "{}", text.stderr);
    let as_json = run(&variables, &[&arguments[..], &["-o", "json"]].concat(), "");
    assert_eq!(as_json.lines().iter().filter(|line| json(line)["value"] == "***").count(), 3);
    for ended in [text, as_json] {
        assert!(!format!("{ended:?}").contains(SECRET));
    }
}

#[test]
fn wrong_settings_end_every_command_that_reads_them_with_2() {
    for command in [&["serve"][..], &["config", "show"]] {
        let ended = run(&[("TIDEMILL_LISTNE", "x")], command, "");
        assert!(ended.error(2).ends_with("the nearest known one is TIDEMILL_LISTEN"));
    }
    let broken = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", "redis://:h3/cret@host")];
    let ended = run(&broken, &["serve"], "");
    if cfg!(feature = "valkey") {
        assert!(ended.error(2).starts_with("valkey_url (from variable VALKEY_URL) has a `/` before its `@`"));
    } else {
        assert!(ended.error(2).contains("no Valkey backend"));
    }
}

#[test]
fn config_init_writes_a_file_that_serve_takes_and_never_overwrites() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("tidemill.toml");
    let path = path.to_str().expect("UTF-8");
    assert_eq!(run(&[], &["config", "init", path], "").lines(), [""; 0]);
    let written = std::fs::read_to_string(path).expect("it was written");
    assert_eq!(run(&[], &["config", "init"], "").stdout, written);

    std::fs::write(path, format!("{written}\npersistent_tier_retention = 7200\n"))
        .expect("it can be changed");
    assert!(run(&[], &["config", "init", path], "").error(2).contains("exists already"));
    assert!(std::fs::read_to_string(path).expect("it is there").contains("= 7200"));
    let (_, greeting) = Relay::greeting(&[("TIDEMILL_CONFIG", path)]);
    assert!(greeting.contains("for 2 hours"), "{greeting}");
}

#[test]
fn serve_logs_what_it_ignores_without_its_value() {
    let relay = Relay::start(&[("PULSAR_JWT_SECRET_KEY", SECRET)], &["--log-format=text"]);
    let (code, log) = relay.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("WARN") && log.contains("this version has no access control"), "{log}");
    assert!(!log.contains(SECRET));
}

#[cfg(feature = "valkey")]
#[test]
fn the_help_of_check_lists_what_it_looks_at() {
    let help = run(&[], &["check", "--help"], "").stdout;
    for flag in ["--valkey-url ", "--valkey-ca-path", "--valkey-timeout-ms", "--valkey-key-form", "--config"]
    {
        assert!(help.contains(flag), "{flag} is not in {help}");
    }
    for flag in ["--listen", "--memory-full", "--ws-", "--drain-ms", "--publish-queue", "--strict"] {
        assert!(!help.contains(flag), "{flag} is in {help}");
    }
    // Taken all the same, as they stand in a file for both.
    let ended = run(&[("VALKEY_PORT", "1")], &["check", "--drain-ms=5"], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[cfg(feature = "valkey")]
#[test]
fn check_says_what_is_wrong_with_a_server_that_is_not_there() {
    let variables =
        [("VALKEY_URL", "redis://user:h3cret@127.0.0.1:1"), ("TIDEMILL_VALKEY_CONNECT_TIMEOUT_MS", "500")];
    let ended = run(&variables, &["check"], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.starts_with("✗ connect: valkey://user:***@127.0.0.1:1/0: "), "{ended:?}");
    assert!(ended.stdout.lines().count() > 1, "it says what to do");
    let ended = run(&variables, &["check", "-o", "json"], "");
    assert_eq!(json(ended.stdout.trim())["outcome"], "fail");
    assert!(!format!("{ended:?}").contains(SECRET));
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn check_passes_a_server_that_is_fit() {
    use crate::support::server::{Kind, Server};

    for kind in [Kind::Valkey, Kind::Redis] {
        let Some(server) = Server::start(kind, &[]).await else { continue };
        let port = server.port().to_string();
        let command = move || run(&[("VALKEY_HOST", "127.0.0.1"), ("VALKEY_PORT", &port)], &["check"], "");
        let ended = tokio::task::spawn_blocking(command).await.expect("the command runs");
        let lines = ended.lines();
        assert!(lines[0].starts_with("✓ connect: "), "{lines:?}");
        assert!(lines.iter().all(|line| !line.starts_with('✗')), "{lines:?}");
    }
}
