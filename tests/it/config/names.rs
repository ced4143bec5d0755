//! What settings are called in the environment: names of others, names that are nearly one, and names that
//! nobody wrote.

use tidemill::config::Backend;

use super::{error, file, load};

#[test]
fn unknown_names_get_the_nearest_known_one() {
    assert_eq!(
        error(&[], &[("TIDEMILL_LISTNE", "x")]),
        "variable TIDEMILL_LISTNE is not known; the nearest known one is TIDEMILL_LISTEN"
    );
    assert!(error(&[], &[("TIDEMILL_VALKEY_HOTS", "x")]).ends_with("is VALKEY_HOST"));
    let (_directory, path) = file("t.toml", "storage-backend = \"memory\"\n");
    assert_eq!(
        error(&["--config", &path], &[]),
        format!("key `storage-backend` of {path} is not known; the nearest known one is storage_backend")
    );
}

#[test]
fn names_of_others_are_read_with_our_prefix_too_and_the_most_particular_one_wins() {
    let names = ["TIDEMILL_LOG_LEVEL", "LOG_LEVEL", "PULSAR_LOG_LEVEL"];
    let levels = ["error", "warn", "debug"];
    for first in 0..names.len() {
        let pairs: Vec<_> = names.into_iter().zip(levels).skip(first).collect();
        let settings = load(&[], &pairs).expect("valid settings");
        assert_eq!(settings.log_level.as_str(), levels[first]);
        assert_eq!(settings.source("log_level").to_string(), format!("variable {}", names[first]));
        assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    }
    let pairs = [("TIDEMILL_STORAGE_BACKEND", "valkey"), ("TIDEMILL_VALKEY_URL", "redis://h:1")];
    let settings = load(&[], &pairs).expect("valid settings");
    assert_eq!(settings.storage_backend, Backend::Valkey);
    let (_directory, path) = file("password", "secret\n");
    let both = [("TIDEMILL_VALKEY_PASSWORD", "a"), ("TIDEMILL_VALKEY_PASSWORD_FILE", path.as_str())];
    assert!(error(&[], &both).contains("cannot be set together with"));
}

#[test]
fn what_is_nearly_a_name_is_warned_about() {
    let settings = load(&[], &[("STORAGE_BACKED", "valkey"), ("PATH", "/bin"), ("REDIS_HOST", "h")]);
    let warnings = settings.expect("valid settings").warnings;
    assert_eq!(warnings, ["variable STORAGE_BACKED is not read; if STORAGE_BACKEND is meant, write that"]);
}

#[test]
fn variables_that_nobody_wrote_do_no_harm() {
    let pairs = [
        ("TIDEMILL_PORT", "tcp://10.0.0.1:8080"),
        ("TIDEMILL_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("TIDEMILL_SERVICE_HOST", "10.0.0.1"),
        ("TIDEMILL_URL", "http://localhost:8080"),
        ("VALKEY_PORT", "tcp://10.0.0.2:6379"),
        ("TIDEMILL_VALKEY_PORT", "tcp://10.0.0.2:6379"),
        ("TIDEMILL_VALKEY_PORT_6379_TCP", "tcp://10.0.0.2:6379"),
        ("TIDEMILL_VALKEY_SERVICE_HOST", "10.0.0.2"),
        ("TIDEMILL_VALKEY_SERVICE_PORT_REDIS", "6379"),
        ("PULSAR_CONFIG_FILE", "another program's"),
        ("VALKEY_EXTRA", "another program's"),
    ];
    let settings = load(&[], &pairs).expect("valid settings");
    assert_eq!(settings.valkey_port, 6379);
    assert!(
        matches!(settings.warnings.as_slice(), [one, other] if one.contains("variable TIDEMILL_VALKEY_PORT is ignored") && other.contains("variable VALKEY_PORT is ignored")),
        "{:?}",
        settings.warnings
    );
}
