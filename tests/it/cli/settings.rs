//! Settings as the commands show and use them.

use tidemill::config::known;

use super::json;
use crate::support::process::{Relay, Running, run};

const SECRET: &str = "h3cret";

#[test]
fn config_show_tells_value_and_source_and_no_secret() {
    let variables = [
        ("VALKEY_URL", "redis://:h3cret@host:1"),
        ("VALKEY_PASSWORD", SECRET),
        ("PULSAR_JWT_SECRET_KEY", SECRET),
        ("MAX_BODY_BYTES", "2MiB"),
    ];
    let arguments = ["config", "show", "--redis-url", "redis://example.com", "--drain-ms=7"];
    let text = run(&variables, &arguments, "");
    let lines = text.lines();
    assert_eq!(lines.len(), known().len() + 1);
    for (name, value, source) in [
        (
            "valkey_url",
            if cfg!(feature = "valkey") { "valkey://:***@host:1/0" } else { "***" },
            "variable VALKEY_URL",
        ),
        ("redis_url", "redis://example.com", "flag --redis-url"),
        ("valkey_password", "***", "variable VALKEY_PASSWORD"),
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
    assert!(text.stderr.contains("warning: PULSAR_JWT_SECRET_KEY is ignored"), "{}", text.stderr);
    let as_json = run(&variables, &[&arguments[..], &["-o", "json"]].concat(), "");
    assert_eq!(as_json.lines().iter().filter(|line| json(line)["value"] == "***").count(), 1);
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
    assert!(log.contains("WARN") && log.contains("there is no key to sign them with"), "{log}");
    assert!(!log.contains(SECRET));
}

#[cfg(feature = "valkey")]
#[test]
fn the_help_of_doctor_lists_what_it_looks_at() {
    let help = run(&[], &["doctor", "--help"], "").stdout;
    for flag in ["--valkey-url ", "--valkey-ca-path", "--valkey-timeout-ms", "--valkey-key-form", "--config"]
    {
        assert!(help.contains(flag), "{flag} is not in {help}");
    }
    for flag in ["--listen", "--memory-full", "--ws-", "--drain-ms", "--publish-queue", "--strict"] {
        assert!(!help.contains(flag), "{flag} is in {help}");
    }
    // Taken all the same, as they stand in a file for both.
    let ended = run(&[("VALKEY_PORT", "1")], &["doctor", "--drain-ms=5"], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[cfg(feature = "valkey")]
#[test]
fn doctor_says_what_is_wrong_with_a_server_that_is_not_there() {
    let variables =
        [("VALKEY_URL", "redis://user:h3cret@127.0.0.1:1"), ("TIDEMILL_VALKEY_CONNECT_TIMEOUT_MS", "500")];
    let ended = run(&variables, &["doctor"], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.starts_with("✗ connect: valkey://user:***@127.0.0.1:1/0: "), "{ended:?}");
    assert!(ended.stdout.lines().count() > 1, "it says what to do");
    let ended = run(&variables, &["doctor", "-o", "json"], "");
    assert_eq!(json(ended.stdout.lines().next().expect("a line"))["outcome"], "fail");
    assert!(!format!("{ended:?}").contains(SECRET));
}

#[test]
fn doctor_takes_the_relay_of_the_variable_and_tells_each_thing_as_soon_as_it_is_known() {
    let relay = Relay::start(&[], &[]);
    // Far longer than a test may take.
    let mut running = Running::start(&[("TIDEMILL_URL", &relay.url)], &["doctor", "--idle", "3600"]);
    let mut told = Vec::new();
    while told.last().is_none_or(|line: &String| !line.is_empty() && !line.contains("the first event")) {
        told.push(running.line());
    }
    assert!(told.last().is_some_and(|line| line.starts_with("✓ events: ")), "{told:?}");
    let address = relay.address().to_string();
    assert!(told.iter().any(|line| line.starts_with("✓ relay: ") && line.contains(&address)), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("backend")), "it looks at the relay alone: {told:?}");
    // The flag is stronger.
    let ended = run(&[("TIDEMILL_URL", &relay.url)], &["doctor", "--url", "http://127.0.0.1:1"], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn doctor_says_that_memory_has_no_server_and_whether_the_relay_would_start() {
    let elsewhere = ("VALKEY_URL", "redis://user:h3cret@127.0.0.1:1");
    let memory = ("STORAGE_BACKEND", "memory");
    // So that it does not depend on the machine whether there are files enough.
    let few = ("TIDEMILL_CONNECTIONS_MAX", "10");
    for (variables, from) in [
        (&[][..], "because nothing says otherwise"),
        (&[memory], "from variable STORAGE_BACKEND"),
        (&[memory, elsewhere], "from variable STORAGE_BACKEND"),
    ] {
        let ended = run(&[variables, &[few]].concat(), &["doctor"], "");
        let lines = ended.lines();
        let backend =
            format!("✓ backend: messages are kept in the memory of the relay ({from}), and are gone");
        assert!(lines[0].starts_with(&backend) && lines[0].contains("there is no server"), "{lines:?}");
        assert!(lines[1].contains("STORAGE_BACKEND=valkey"), "{lines:?}");
        assert!(lines[2].starts_with("✓ access: everybody who reaches"), "{lines:?}");
        assert!(lines[3].starts_with("✓ open files: "), "{lines:?}");
        assert_eq!(lines[4..], ["this relay can start; it has no server to be looked at"]);
    }
    // Nobody could administer it.
    let ended = run(&[memory, few], &["doctor", "--listen", "0.0.0.0:0", "-o", "json"], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let outcomes = ended.stdout.lines().map(|line| json(line)["outcome"].clone());
    assert_eq!(outcomes.collect::<Vec<_>>(), ["pass", "fail", "pass"]);
    // Where files are few, it says which limit to raise.
    let ended = run(&[memory, ("TIDEMILL_CONNECTIONS_MAX", "1000000000")], &["doctor"], "");
    let is_told = |line: &&str| line.starts_with("! open files: ") || line.contains("there is no limit");
    assert!(ended.lines().iter().any(is_told), "{ended:?}");
    // Nobody may administer it yet.
    let provider = "one;issuer=https://id.example;client_id=a;client_secret=b";
    let variables =
        [memory, ("TIDEMILL_PUBLIC_URL", "http://localhost:8080"), ("TIDEMILL_OIDC_PROVIDERS", provider)];
    let ended = run(&variables, &["doctor", "--access", "closed"], "");
    let last = *ended.lines().last().expect("a verdict");
    assert!(last.starts_with("this relay can start; ") && last.ends_with("should be looked at"), "{ended:?}");
}

#[test]
fn doctor_fails_where_the_keys_of_an_issuer_cannot_be_used() {
    let issuers = "TIDEMILL_JWT_ISSUERS";
    let secret = "a;aud=b;secret=0123456789abcdef0123456789abcdef";
    for (value, says) in [
        ("a;aud=b;file=/nope.pem", Some("the file /nope.pem cannot be read: No such file")),
        ("a;aud=b;secret=short", Some("the secret has fewer than 32 bytes")),
        (&format!("{secret} {secret}"), Some("is named twice")),
        (secret, None),
        // Away, as an issuer may be when a relay starts.
        ("a;aud=b;jwks=http://127.0.0.1:1/keys", None),
    ] {
        let ended = run(&[(issuers, value)], &["doctor"], "");
        let Some(says) = says else {
            assert!(ended.lines().iter().any(|line| line.starts_with("✓ issuers: 1 ")), "{ended:?}");
            continue;
        };
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains("✗ issuers: the relay would not start\n"), "{ended:?}");
        assert!(ended.stdout.contains(says), "{ended:?}");
        let serve = run(&[(issuers, value)], &["serve", "--listen", "127.0.0.1:0"], "");
        let error = serve.stderr.lines().last().expect("it says why");
        let named = "error: jwt_issuers (from variable TIDEMILL_JWT_ISSUERS) cannot be used";
        assert!(serve.code == Some(2) && error.starts_with(named) && error.contains(says), "{serve:?}");
    }
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn doctor_passes_a_server_that_is_fit() {
    use crate::support::server::{Kind, Server};

    for kind in [Kind::Valkey, Kind::Redis] {
        let Some(server) = Server::start(kind, &[]).await else { continue };
        let port = server.port().to_string();
        let command = move || run(&[("VALKEY_HOST", "127.0.0.1"), ("VALKEY_PORT", &port)], &["doctor"], "");
        let ended = tokio::task::spawn_blocking(command).await.expect("the command runs");
        let lines = ended.lines();
        assert!(lines[0].starts_with("✓ connect: "), "{lines:?}");
        assert!(lines.iter().all(|line| !line.starts_with('✗')), "{lines:?}");
    }
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn doctor_says_what_a_server_keeps_and_which_of_its_hosts_is_away() {
    use crate::support::server::{Kind, Server, free_port};

    for (settings, says) in [
        (&["--save", "", "--appendonly", "no"][..], "! persistence: nothing is kept on disk"),
        (&["--save", "60 1", "--appendonly", "no"], "! persistence: append-only file is off"),
        (
            &["--appendonly", "yes", "--appendfsync", "no"],
            "! persistence: append-only file is on, and appendfsync is no",
        ),
        (
            &["--appendonly", "yes", "--appendfsync", "everysec"],
            "✓ persistence: append-only file is on, and appendfsync is everysec",
        ),
    ] {
        let Some(server) = Server::start(Kind::Valkey, settings).await else { return };
        let (port, gone) = (server.port(), free_port());
        let url = format!("valkey://127.0.0.1:{port},127.0.0.1:{gone}");
        let command = move || run(&[("VALKEY_URL", &url)], &["doctor"], "");
        let ended = tokio::task::spawn_blocking(command).await.expect("the command runs");
        let lines = ended.lines();
        assert!(lines.iter().any(|line| line.starts_with(says)), "{says}: {lines:?}");
        let hosts = format!("! hosts: 127.0.0.1:{port} is a primary; 127.0.0.1:{gone} cannot be used: ");
        assert!(lines.iter().any(|line| line.starts_with(&hosts)), "{lines:?}");
        tokio::task::spawn_blocking(move || drop(server)).await.expect("it ends");
    }
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn doctor_says_what_a_server_needs_that_is_full_or_drops_messages_or_has_no_replica() {
    use crate::support::server::{Kind, Server};

    for (settings, strict, code, says) in [
        (&["--maxmemory", "200kb"][..], "false", 1, "✗ memory: "),
        (&["--maxmemory", "200kb"], "false", 1, "raise maxmemory"),
        (&["--min-replicas-to-write", "1"], "false", 1, "min-replicas-to-write"),
        (&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"], "false", 0, "! eviction: "),
        (&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"], "true", 1, "✗ eviction: "),
    ] {
        let Some(server) = Server::start(Kind::Valkey, settings).await else { return };
        let port = server.port().to_string();
        let command = move || {
            let to = [("VALKEY_HOST", "127.0.0.1"), ("VALKEY_PORT", &*port), ("TIDEMILL_STRICT", strict)];
            run(&to, &["doctor"], "")
        };
        let ended = tokio::task::spawn_blocking(command).await.expect("the command runs");
        assert_eq!(ended.code, Some(code), "{settings:?}: {ended:?}");
        assert!(ended.stdout.contains(says), "{settings:?}: {ended:?}");
        assert!(!ended.stdout.contains("must be Valkey"), "{settings:?}: {ended:?}");
        tokio::task::spawn_blocking(move || drop(server)).await.expect("it ends");
    }
}

#[test]
fn a_value_without_quotes_in_the_file_is_answered_with_quotes() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("t.toml");
    for (text, part) in [
        ("log_level = info\n", "(a text stands in quotes: log_level = \"…\")"),
        ("# a comment\nlisten = 0.0.0.0:80\n", "line 2: not TOML: "),
        ("valkey_password = h3cret\n", "valkey_password = \"…\""),
    ] {
        std::fs::write(&path, text).expect("the folder is ours");
        let ended = run(&[("TIDEMILL_CONFIG", path.to_str().expect("UTF-8"))], &["config", "show"], "");
        let error = ended.error(2);
        assert!(error.contains(part) && error.contains("in quotes") && !error.contains(SECRET), "{error}");
    }
}

#[cfg(feature = "valkey")]
#[test]
fn a_server_that_is_named_and_not_used_is_warned_about() {
    let url = ("VALKEY_URL", "redis://:h3cret@127.0.0.1:1");
    for (variables, is_told) in [
        (&[url][..], true),
        (&[("VALKEY_HOST", "cache")], true),
        (&[url, ("STORAGE_BACKEND", "memory")], false),
        (&[], false),
    ] {
        let (code, log) = Relay::start(variables, &["--log-format=json"]).stop();
        assert_eq!(code, Some(0));
        let lines: Vec<_> = log.lines().map(json).collect();
        let named = variables.first().map(|(name, _)| name.to_lowercase()).unwrap_or_default();
        let is_warning = |line: &serde_json::Value| {
            let text = line["message"].as_str().unwrap_or_default();
            line["level"] == "WARN" && text.contains("STORAGE_BACKEND=valkey") && text.contains(&named)
        };
        assert_eq!(lines.iter().any(is_warning), is_told, "{log}");
        assert!(!log.contains(SECRET));
        let listening: Vec<_> = lines.iter().filter(|line| line["message"] == "listening").collect();
        assert_eq!(listening.len(), 1, "{log}");
        assert!(listening[0].to_string().contains("\"backend\":\"memory\""), "{log}");
    }
}

#[cfg(feature = "valkey")]
#[test]
fn the_commands_of_the_machine_reach_a_relay_that_has_a_name() {
    let relay = Relay::start(&[("TRUSTED_HOSTS", "relay.example.com"), ("TIDEMILL_ACCESS", "open")], &[]);
    relay.run(&["publish", "t", "1"], "").lines();
    assert_eq!(relay.run(&["health"], "").code, Some(0));
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn check_has_a_sentence_for_each_way_of_being_wrong() {
    use crate::support::server::{Kind, Server};

    let Some(server) = Server::start(Kind::Redis, &[]).await else { return };
    tokio::task::spawn_blocking(move || {
        let relay = Relay::start(&[], &[]);
        let port = server.port();
        for (url, part) in [
            (format!("redis://127.0.0.1:{port}/9999"), "has no database of this number"),
            ("redis://nowhere.invalid".to_owned(), "no address is known for this host name"),
            (format!("redis://{}", relay.address()), "does not speak the protocol of Valkey"),
            ("redis://127.0.0.1:1".to_owned(), "nothing listens there"),
        ] {
            let variables = [("VALKEY_URL", url.as_str()), ("TIDEMILL_VALKEY_CONNECT_TIMEOUT_MS", "2000")];
            let ended = run(&variables, &["doctor"], "");
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stdout.contains(part), "{part:?} is not in {ended:?}");
        }
        let url = format!("redis://127.0.0.1:{port}");
        let ended = run(&[("VALKEY_URL", &url)], &["doctor"], "");
        let last = *ended.lines().last().expect("a verdict");
        assert!(last.starts_with("this server can carry a relay"), "{ended:?}");
    })
    .await
    .expect("the commands run");
}

#[test]
fn config_check_says_all_that_is_wrong_and_connects_to_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("tidemill.toml");
    std::fs::write(&path, "colour = 1\ndrain_ms = -1\nsweep = [1]\n").expect("it can be written");
    let variables = [
        ("TIDEMILL_LISTNE", "x"),
        ("MAX_BODY_BYTES", "1MB"),
        ("TIDEMILL_STRICT", "maybe"),
        ("VALKEY_PASSWORD", SECRET),
        ("PULSAR_JWT_SECRET_KEY", SECRET),
    ];
    let config = path.to_str().expect("UTF-8");
    let arguments = ["config", "check", "--config", config];
    let ended = run(&variables, &arguments, "");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let lines: Vec<_> = ended.stdout.lines().collect();
    for part in [
        "✗ variable TIDEMILL_LISTNE is not known; the nearest known one is TIDEMILL_LISTEN",
        "✗ key `colour` of",
        "✗ key `sweep` of",
        "✗ max_body_bytes (from variable MAX_BODY_BYTES): `1MB` is not a size",
        "✗ drain_ms (from file",
        "✗ strict (from variable TIDEMILL_STRICT): `maybe` is not a boolean",
        "! PULSAR_JWT_SECRET_KEY is ignored",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(part)), "{part}: {}", ended.stdout);
    }
    assert_eq!(lines.len(), 7, "{}", ended.stdout);
    assert!(!format!("{ended:?}").contains(SECRET));
    let ended = run(&variables, &[&arguments[..], &["-o", "json"]].concat(), "");
    let wrong = ended.stdout.lines().filter(|line| json(line)["outcome"] == "fail").count();
    assert_eq!(wrong, 6, "{ended:?}");

    // Variables of OpenTelemetry are looked at beside what is wrong otherwise, each of them.
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("TIDEMILL_STRICT", "maybe"),
    ];
    let wrong = run(&traced, &["config", "check"], "");
    let lines: Vec<_> = wrong.stdout.lines().collect();
    assert!(wrong.code == Some(2) && lines.len() == traced.len(), "{wrong:?}");
    for (name, _) in &traced[..4] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("✗ {name} "))), "{name}: {wrong:?}");
    }
    // A level for a module that is none of the relay's.
    let levels = [("LOG_LEVEL", "info,tidemill::storag=debug,tidemill::storage::valkey=debug")];
    let right = run(&levels, &["config", "check"], "");
    let told = "! log_level (from variable LOG_LEVEL) has a level for `tidemill::storag`, which logs nothing; the nearest that does is `tidemill::storage`";
    assert_eq!((right.lines()[0], right.lines().len()), (told, 2), "{right:?}");

    // What files hold, and who would be let in.
    let key = ("TIDEMILL_TLS_KEY", config);
    let wrong = run(&[("TIDEMILL_TLS_CERT", config), key], &["config", "check"], "");
    assert!(wrong.code == Some(2) && wrong.stdout.starts_with("✗ tls_cert (from variable"), "{wrong:?}");
    let wrong = run(&[], &["config", "check", "--listen", "0.0.0.0:8080"], "");
    assert!(wrong.code == Some(2) && wrong.stdout.contains("which nobody may administer"), "{wrong:?}");

    let right = run(&[], &["config", "check"], "");
    assert_eq!((right.code, right.lines()), (Some(0), vec!["a relay can start with these settings"]));
    // Nothing is there.
    let right = run(
        &[("STORAGE_BACKEND", "memory"), ("VALKEY_URL", "redis://localhost:1"), ("LOGLEVEL", "info")],
        &["config", "check"],
        "",
    );
    assert_eq!(right.code, Some(0), "{right:?}");
    assert!(right.lines()[0].starts_with("! variable LOGLEVEL is not read"), "{right:?}");
    assert!(right.lines()[1].ends_with("what is marked `!` should be looked at"), "{right:?}");
}
