//! Settings: precedence, names, files, secrets, and what errors say.

use clap::{Args as _, Command, FromArgMatches as _};
use tidemill::config::{Backend, ConfigError, Environment, Flags, Settings, known, sample, show};

#[cfg(feature = "valkey")]
mod durability;
mod names;
#[cfg(feature = "valkey")]
mod placement;
mod pulsar;
#[cfg(feature = "valkey")]
mod sentinels;

const SECRET: &str = "h3cret";
const PROVIDER: &str = "one;issuer=https://id.example;client_id=relay;client_secret=secret";

const ISSUER: &str = "https://id.example/;aud=tidemill;jwks=https://id.example/keys";

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flags(arguments: &[&str]) -> Flags {
    let command = Flags::augment_args(Command::new("tidemill").no_binary_name(true));
    let matches = command.try_get_matches_from(arguments).expect("valid flags");
    Flags::from_arg_matches(&matches).expect("valid flags")
}

fn load(arguments: &[&str], pairs: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    Settings::load(&flags(arguments), &environment(pairs))
}

fn error(arguments: &[&str], pairs: &[(&str, &str)]) -> String {
    load(arguments, pairs).expect_err("the settings are wrong").to_string()
}

/// Flags, variables, and what the error says.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);

/// Writes a file and returns its path as text, with the directory that keeps it alive.
fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("a file in it");
    let path = path.to_str().expect("a path in UTF-8").to_owned();
    (directory, path)
}

#[test]
fn nothing_set_gives_the_documented_defaults() {
    let settings = load(&[], &[]).expect("defaults are valid");
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.storage_backend, Backend::Memory);
    assert_eq!(settings.max_messages_per_topic, 1_000_000);
    assert_eq!(settings.persistent_tier_retention, 86_400);
    assert!(settings.topic_auto_create);
    assert_eq!(settings.memory_bytes_max, 1 << 30);
    assert_eq!(settings.payload_bytes_max, tidemill::proto::limits::PAYLOAD_BYTES_DEFAULT);
    assert_eq!(settings.max_body_bytes, 32 << 20);
    assert_eq!(settings.worker_threads, None);
    assert!(settings.warnings.is_empty());
    assert!(show(&settings).iter().all(|shown| shown.source == "default"));
}

#[test]
fn a_flag_wins_over_a_variable_over_pulsars_over_the_file() {
    let (_directory, path) = file("t.toml", "max_messages_per_topic = 4\n");
    let flag = &["--config", &path, "--max-messages-per-topic", "1"][..];
    let (own, pulsar) = (("MAX_MESSAGES_PER_TOPIC", "2"), ("PULSAR_MAX_MESSAGES_PER_TOPIC", "3"));
    let config = &flag[..2];
    let from_file = format!("file {path}, key max_messages_per_topic");
    let cases: [(&[&str], &[_], u64, &str); 5] = [
        (flag, &[own, pulsar], 1, "flag --max-messages-per-topic"),
        (config, &[own, pulsar], 2, "variable MAX_MESSAGES_PER_TOPIC"),
        (config, &[pulsar], 3, "variable PULSAR_MAX_MESSAGES_PER_TOPIC"),
        (config, &[("MAX_MESSAGES_PER_TOPIC", "")], 4, &from_file),
        (&[], &[], 1_000_000, "default"),
    ];
    for (arguments, pairs, value, source) in cases {
        let settings = load(arguments, pairs).expect("valid settings");
        assert_eq!(settings.max_messages_per_topic, value, "{source}");
        assert_eq!(settings.source("max_messages_per_topic").to_string(), source);
    }
}

#[test]
fn the_file_is_found_by_variable_and_the_flag_wins() {
    let (_one, by_variable) = file("one.toml", "topics_max = 1\n");
    let (_other, by_flag) = file("other.toml", "topics_max = 2\n");
    let pairs = [("TIDEMILL_CONFIG", by_variable.as_str())];
    assert_eq!(load(&[], &pairs).expect("valid settings").topics_max, 1);
    assert_eq!(load(&["--config", &by_flag], &pairs).expect("valid settings").topics_max, 2);
}

#[test]
fn every_setting_can_be_set_by_flag_variable_and_file() {
    for setting in known() {
        let value = example(setting.id, setting.default.as_deref());
        // The companion of a secret is opened, and a certificate may stand alone until it is used.
        let (_directory, value) = if setting.id.ends_with("_file") {
            let text = match setting.id {
                "jwt_issuers_file" => ISSUER,
                "oidc_providers_file" => PROVIDER,
                _ => "redis://localhost",
            };
            let (directory, path) = file("secret", &format!("{text}\n"));
            (Some(directory), path)
        } else {
            (None, value)
        };
        let (_toml, path) =
            file("t.toml", &format!("{} = {}\n", setting.id, toml::Value::String(value.clone())));
        // Neither is of use without the other.
        let beside: &[&str] = match setting.id {
            "tls_cert" => &["--tls-key=text"],
            "tls_key" => &["--tls-cert=text"],
            "oidc_providers" | "oidc_providers_file" => &["--public-url=https://relay.example"],
            _ => &[],
        };
        let sources = [
            (format!("{}={value}", setting.flag), format!("flag {}", setting.flag)),
            (format!("--config={path}"), format!("file {path}, key {}", setting.id)),
        ];
        for (argument, source) in sources {
            let arguments = [beside, &[&argument]].concat();
            let settings = load(&arguments, &[]).unwrap_or_else(|error| panic!("{argument}: {error}"));
            assert_eq!(settings.source(setting.id).to_string(), source);
        }
        let mut variables = vec![setting.variable.clone()];
        let prefixes = setting.is_shared.then_some(["PULSAR_", "TIDEMILL_"]);
        variables
            .extend(prefixes.into_iter().flatten().map(|prefix| format!("{prefix}{}", setting.variable)));
        for variable in variables {
            let settings =
                load(beside, &[(&variable, &value)]).unwrap_or_else(|error| panic!("{variable}: {error}"));
            assert_eq!(settings.source(setting.id).to_string(), format!("variable {variable}"));
        }
    }
}

fn example(id: &str, default: Option<&str>) -> String {
    match (id, default) {
        ("valkey_url" | "redis_url", _) => "redis://localhost".to_owned(),
        ("metrics_listen", _) => "127.0.0.1:0".to_owned(),
        ("admin_password", _) => "correct horse".to_owned(),
        ("admin_email", _) => "ann@example.com".to_owned(),
        ("oidc_providers", _) => PROVIDER.to_owned(),
        ("jwt_issuers", _) => ISSUER.to_owned(),
        ("worker_threads", _) => "2".to_owned(),
        ("drain_spread_ms", _) => "5000".to_owned(),
        ("public_url", _) => "https://relay.example".to_owned(),
        ("allowed_origins", _) => "https://app.example".to_owned(),
        ("durability_topics", _) => "orders.*=accepted".to_owned(),
        ("limit_kept_bytes", _) => "acme.*=10GiB".to_owned(),
        ("trusted_proxies", _) => "10.0.0.0/8".to_owned(),
        ("trusted_hosts", _) => "relay.example".to_owned(),
        (_, default) => default.unwrap_or("text").to_owned(),
    }
}

#[test]
fn values_are_checked_whatever_their_source() {
    let (_directory, path) = file("t.toml", "drain_ms = -1\n");
    let config = ["--config", path.as_str()];
    let cases: [Case; 13] = [
        (
            &[],
            &[("MAX_MESSAGES_PER_TOPIC", "0")],
            &[
                "max_messages_per_topic (from variable MAX_MESSAGES_PER_TOPIC)",
                "`0` is not a whole number from 1 to ",
            ],
        ),
        (
            &[],
            &[("STORAGE_BACKEND", "mongo")],
            &["storage_backend (from variable STORAGE_BACKEND)", "`mongo` is none of memory, valkey"],
        ),
        (
            &[],
            &[("PULSAR_LOG_LEVEL", "loud")],
            &["log_level (from variable PULSAR_LOG_LEVEL)", "error, warn, info"],
        ),
        (&[], &[("VALKEY_USE_TLS", "maybe")], &["`maybe` is not a boolean; write true or false"]),
        (&[], &[("MAX_BODY_BYTES", "1MB")], &["`1MB` is not a size", "32MiB"]),
        (&[], &[("TIDEMILL_LISTEN", "8080")], &["`8080` is not an address and port"]),
        (&[], &[("VALKEY_PORT", "70000")], &["`70000` is not a whole number from 1 to 65535"]),
        (
            &[],
            &[("MAX_MESSAGES_PER_TOPIC", "abc")],
            &["`abc` is not a whole number from 1 to 9223372036854775807"],
        ),
        (&[], &[("TIDEMILL_WS_TOPICS_MAX", "1.5")], &["`1.5` is not a whole number from 1 to 1000000000"]),
        (&[], &[("TIDEMILL_VALKEY_DATABASE", "one")], &["`one` is not a whole number from 0 to 4294967295"]),
        (&[], &[("TIDEMILL_DRAIN_MS", "10s")], &["`10s` is not a whole number from 0 to 86400000"]),
        (&config, &[], &["drain_ms (from file", "key drain_ms): `-1`"]),
        (
            &["--headers-bytes-max=1KiB"],
            &[],
            &["headers_bytes_max (from flag --headers-bytes-max): `1KiB` is less than 8KiB"],
        ),
    ];
    for (arguments, pairs, parts) in cases {
        let text = error(arguments, pairs);
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
}

#[test]
fn booleans_are_read_as_people_write_them() {
    for (text, value) in
        [("true", true), ("1", true), ("yes", true), ("on", true), ("TRUE", true), ("0", false)]
    {
        let settings = load(&[], &[("VALKEY_USE_TLS", text)]).expect("a boolean");
        assert_eq!(settings.valkey_use_tls, value, "{text}");
    }
    assert!(load(&["--strict"], &[]).expect("a flag alone").strict);
    assert!(!load(&["--topic-auto-create=false"], &[]).expect("a flag with a value").topic_auto_create);
}

#[test]
fn choices_are_read_in_any_case_and_with_pythons_names() {
    let settings = load(&[], &[("PULSAR_LOG_LEVEL", "WARNING"), ("TIDEMILL_MEMORY_FULL", "Refuse")]);
    assert_eq!(settings.expect("valid settings").log_level.as_str(), "warn");
}

#[test]
fn a_broken_file_is_told_by_line_and_without_its_text() {
    let (_directory, path) = file("t.toml", &format!("topics_max = 1\nvalkey_password = \"{SECRET}\n"));
    let text = error(&["--config", &path], &[]);
    assert!(text.contains(&path) && text.contains("line 2") && !text.contains(SECRET), "{text}");
    let (_directory, path) = file("t.toml", &format!("valkey_password = {SECRET}\n"));
    let text = error(&["--config", &path], &[]);
    assert!(text.contains("line 1") && !text.contains(SECRET), "{text}");
    let (_directory, path) = file("t.toml", "drain_ms = [1]\n");
    assert!(error(&["--config", &path], &[]).contains("key `drain_ms`"));
    assert!(
        error(&["--config", "/does/not/exist"], &[])
            .contains("configuration file /does/not/exist cannot be read")
    );
}

#[test]
fn sections_are_told_to_go() {
    for (text, section) in [
        ("[server]\nlisten = \"127.0.0.1:1\"\n", "server"),
        ("[listen]\nport = 1\n", "listen"),
        ("[[relay]]\nstrict = true\n", "relay"),
    ] {
        let (_directory, path) = file("t.toml", text);
        let expected =
            format!("`[{section}]` in {path}: settings stand at the top level, without `[{section}]`");
        assert_eq!(error(&["--config", &path], &[]), expected);
    }
    let (_directory, path) = file("t.toml", "colour = 1\n");
    let text = error(&["--config", &path], &[]);
    assert!(text.ends_with("is not known; `tidemill config show` lists those that are"), "{text}");
}

#[cfg(feature = "valkey")]
#[test]
fn files_without_the_wanted_pem_block_are_told_by_their_setting() {
    let block = |label| format!("-----BEGIN {label}-----\r\nAAAA\r\n-----END {label}-----\r\n");
    let (_one, certificate) = file("certificate", &block("CERTIFICATE"));
    let (_two, key) = file("key", &block("PRIVATE KEY"));
    let options = |ca: &str, certificate: &str, key: &str| {
        let variables = [
            ("VALKEY_URL", "rediss://h"),
            ("VALKEY_CA_PATH", ca),
            ("TIDEMILL_VALKEY_CLIENT_CERT_PATH", certificate),
            ("TIDEMILL_VALKEY_CLIENT_KEY_PATH", key),
        ];
        let settings = load(&[], &variables).expect("valid settings");
        settings.valkey_options().map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(options(&certificate, &certificate, &key), Ok(()));
    for (ca, certificate, key, name, wrong) in [
        (&key, &certificate, &key, "valkey_ca_path (from variable VALKEY_CA_PATH)", &key),
        (&certificate, &key, &key, "valkey_client_cert_path", &key),
        (&certificate, &certificate, &certificate, "valkey_client_key_path", &certificate),
    ] {
        let error = options(ca, certificate, key).expect_err("the file is the wrong one");
        assert!(error.starts_with(name), "{error}");
        let rule = format!("names {wrong}, which has no PEM block `-----BEGIN ");
        assert!(error.contains(&rule), "{error}");
    }
}

#[test]
fn a_default_gives_way_to_what_was_set_and_two_set_values_contradict() {
    let settings =
        load(&[], &[("MAX_BODY_BYTES", "64KiB"), ("TIDEMILL_CONNECTIONS_MAX", "10")]).expect("valid");
    assert_eq!((settings.payload_bytes_max, settings.connections_per_address_max), (64 << 10, 10));
    let shown = show(&settings).into_iter().find(|shown| shown.name == "payload_bytes_max").expect("shown");
    assert_eq!(
        (shown.value.as_deref(), shown.source.as_str()),
        (Some("65536"), "default, lowered to max_body_bytes")
    );
    assert_eq!(
        error(&["--payload-bytes-max=2MiB"], &[("MAX_BODY_BYTES", "1MiB")]),
        "payload_bytes_max = 2097152 (from flag --payload-bytes-max) is more than max_body_bytes = 1048576 (from variable MAX_BODY_BYTES)"
    );
    let text = error(
        &[
            "--payload-bytes-max=1GiB",
            "--max-body-bytes=1GiB",
            "--inflight-bytes-max=1GiB",
            "--publish-queue-bytes-max=1GiB",
        ],
        &[],
    );
    assert!(text.contains("more than 512MiB"), "{text}");
}

#[test]
fn secrets_are_read_from_files_and_only_one_of_two() {
    let (_directory, path) = file("password", &format!("{SECRET}\n"));
    for name in ["VALKEY_PASSWORD_FILE", "PULSAR_VALKEY_PASSWORD_FILE"] {
        let settings = load(&[], &[(name, &path)]).expect("valid settings");
        let password = settings.valkey_password.as_ref().map(secrecy::ExposeSecret::expose_secret);
        assert_eq!(password, Some(SECRET), "the newline at the end is gone");
        assert_eq!(settings.source("valkey_password").to_string(), format!("variable {name}"));
    }
    let both = error(&[], &[("VALKEY_PASSWORD", SECRET), ("VALKEY_PASSWORD_FILE", &path)]);
    assert!(both.contains("VALKEY_PASSWORD") && both.contains("cannot be set together with"), "{both}");
    let settings =
        load(&["--valkey-password=flag"], &[("VALKEY_PASSWORD_FILE", &path)]).expect("the flag wins");
    assert_eq!(settings.source("valkey_password").to_string(), "flag --valkey-password");
    let text = error(&[], &[("VALKEY_URL_FILE", "/does/not/exist")]);
    assert!(text.contains("valkey_url_file (from variable VALKEY_URL_FILE)"), "{text}");
    let (_directory, empty) = file("empty", "\n");
    assert!(error(&[], &[("VALKEY_PASSWORD_FILE", &empty)]).contains("names an empty file"));
}

#[test]
fn secrets_are_in_no_text() {
    let url = format!("redis://user:{SECRET}@localhost");
    let pairs = [("VALKEY_URL", url.as_str()), ("REDIS_URL", &url), ("VALKEY_PASSWORD", SECRET)];
    let arguments = flags(&[&format!("--valkey-password={SECRET}"), &format!("--redis-url={url}")]);
    let settings = Settings::load(&arguments, &environment(&pairs)).expect("valid settings");
    let shown = show(&settings);
    let json = serde_json::to_string(&shown).expect("JSON");
    let texts = format!("{arguments:?} {settings:?} {settings:#?} {shown:?} {json}");
    assert!(!texts.contains(SECRET), "{texts}");
    // Of a URL the password alone is hidden.
    let hidden = if cfg!(feature = "valkey") { 1 } else { 3 };
    assert_eq!(shown.iter().filter(|shown| shown.value.as_deref() == Some("***")).count(), hidden);
    for broken in ["h3cret", "redis://:h3cret@", "redis://:h3/cret@h", "redis://h:h3cret"] {
        let pairs = [("VALKEY_URL", broken), ("STORAGE_BACKEND", "valkey")];
        if cfg!(feature = "valkey") {
            let error = load(&[], &pairs).expect_err(broken);
            assert!(!format!("{error} {error:?}").contains("h3"), "{error}");
            assert!(error.to_string().starts_with("valkey_url (from variable VALKEY_URL) has "), "{error}");
        }
    }
}

#[test]
fn the_sample_file_names_every_setting_at_its_default() {
    let sample = sample();
    let (_directory, as_written) = file("t.toml", &sample);
    let settings = load(&["--config", &as_written], &[]).expect("the sample is valid");
    assert!(settings.origins.is_empty());

    let uncommented: String = sample
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (_directory, path) = file("t.toml", &uncommented);
    let settings = load(&["--config", &path], &[]).expect("the sample, uncommented, is valid");
    let defaults = Settings::default();
    for (shown, default) in show(&settings).into_iter().zip(show(&defaults)) {
        assert_eq!(shown.value, default.value, "{}", shown.name);
        let line = format!("#{} = ", shown.name);
        assert!(sample.contains(&line), "{line}");
        assert!(sample.contains(shown.variable), "{}", shown.variable);
        let is_set = default.value.is_some();
        assert_eq!(shown.source != "default", is_set, "{}", shown.name);
    }
    assert!(sample.lines().all(|line| line.len() <= 100));
}

#[cfg(feature = "valkey")]
#[test]
fn the_server_is_named_by_valkey_url_then_redis_url_then_host_and_port() {
    let valkey = ("VALKEY_URL", "rediss://:a@one:1/1");
    let redis = ("REDIS_URL", "redis://two");
    let host = ("VALKEY_HOST", "three");
    let port = ("PULSAR_VALKEY_PORT", "3");
    let tls = ("VALKEY_USE_TLS", "true");
    let password = ("VALKEY_PASSWORD", SECRET);
    let user = ("VALKEY_USERNAME", "user");
    let cases: [(&[_], &str); 9] = [
        (&[valkey, redis, host, port], "valkeys://:***@one:1/1"),
        (&[redis, host, port], "valkey://two:6379/0"),
        (&[host, port], "valkey://three:3/0"),
        (&[host, tls, user, password, ("TIDEMILL_VALKEY_DATABASE", "4")], "valkeys://user:***@three:6379/4"),
        (&[("VALKEY_HOST", "::1")], "valkey://[::1]:6379/0"),
        (&[("VALKEY_HOST", "[::1]")], "valkey://[::1]:6379/0"),
        (&[redis, user, password], "valkey://user:***@two:6379/0"),
        (&[valkey, user, password], "valkeys://:***@one:1/1"),
        (&[], "valkey://localhost:6379/0"),
    ];
    for (pairs, shown) in cases {
        let settings = load(&[], pairs).expect("valid settings");
        assert_eq!(settings.valkey_options().expect("a server").target.redacted(), shown);
    }
}

#[cfg(feature = "valkey")]
#[test]
fn contradictions_about_the_server_are_errors_and_the_rest_is_said() {
    let backend = ("STORAGE_BACKEND", "valkey");
    let plain = ("VALKEY_URL", "redis://one");
    let text = error(&[], &[backend, plain, ("VALKEY_USE_TLS", "1")]);
    assert!(text.contains("valkey_use_tls = true") && text.contains("contradicts the scheme"), "{text}");
    assert!(error(&[], &[backend, ("VALKEY_USERNAME", "user")]).contains("needs valkey_password beside it"));
    assert!(
        error(&[], &[backend, ("VALKEY_HOST", "a/b")])
            .contains("valkey_host (from variable VALKEY_HOST) has a host")
    );

    let pairs = [backend, plain, ("VALKEY_HOST", "two"), ("VALKEY_CA_PATH", "ca.pem")];
    let warnings = load(&[], &pairs).expect("valid settings").warnings.join("\n");
    assert!(
        warnings.contains("valkey_host (from variable VALKEY_HOST) has no effect: valkey_url"),
        "{warnings}"
    );
    assert!(warnings.contains("valkey_ca_path") && warnings.contains("does not use TLS"), "{warnings}");
}

#[cfg(feature = "valkey")]
#[test]
fn certificates_are_read_and_come_in_pairs() {
    let block = |label| format!("-----BEGIN {label}-----\ncertificate\n-----END {label}-----\n");
    let text = ["CERTIFICATE", "PRIVATE KEY"].map(block).concat();
    let (_directory, pem) = file("a.pem", &text);
    let settings = load(&["--valkey-use-tls", "--valkey-ca-path", &pem], &[]).expect("valid settings");
    assert_eq!(settings.valkey_options().expect("readable").ca_pem.as_deref(), Some(text.as_bytes()));
    let pair = ["--valkey-client-cert-path", &pem, "--valkey-client-key-path", &pem];
    let options = load(&pair, &[]).expect("valid settings").valkey_options().expect("readable");
    assert!(!format!("{options:?}").contains("99, 101"), "a private key is in no text");
    let alone = load(&pair[..2], &[]).expect("valid settings").valkey_options().expect_err("half a pair");
    assert!(alone.to_string().contains("needs valkey_client_key_path"));
    let missing = load(&["--valkey-ca-path=/does/not/exist"], &[]).expect("valid settings");
    let text = missing.valkey_options().expect_err("no such file").to_string();
    assert!(text.contains("valkey_ca_path (from flag --valkey-ca-path)"), "{text}");
}

#[cfg(not(feature = "valkey"))]
#[test]
fn a_build_without_the_backend_says_so() {
    assert!(error(&["--storage-backend=valkey"], &[]).contains("no Valkey backend"));
}

#[test]
fn help_names_every_setting_with_variable_and_default() {
    let help = Flags::augment_args(Command::new("tidemill").term_width(0)).render_long_help().to_string();
    for setting in known() {
        assert!(help.contains(&setting.flag), "{}", setting.flag);
        assert!(help.contains(&format!("[env: {}]", setting.variable)), "{}", setting.variable);
        if let Some(default) = &setting.default {
            assert!(help.contains(&format!("[default: {default}]")), "{}: {default}", setting.id);
        }
    }
    assert!(help.contains("[env: TIDEMILL_CONFIG]"));
}
