//! What settings are called in the environment: names of others, names that are nearly one, and names that
//! nobody wrote.

use tidemill::config::Backend;

use super::{ISSUER, PROVIDER, SECRET, error, file, load};

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
fn a_prefix_that_is_nearly_ours_is_warned_about() {
    let pairs = [
        ("TIDEMIL_DRAIN_MS", "5"),
        ("TIDMILL_LOG_LEVEL", "debug"),
        ("TIDEMILLL_COLOUR_OF_THE_SEA", "blue"),
        ("tidemill_listen", "x"),
        ("TIDEMIL_URL", "http://h"),
        // What Kubernetes writes for a service that is called so, and another word.
        ("TIDEMILL2_SERVICE_HOST", "10.0.0.1"),
        ("TIDEMILL2_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("WINDMILL_LISTEN", "x"),
    ];
    let warnings = load(&[], &pairs).expect("valid settings").warnings;
    let unread = |name, meant| format!("variable {name} is not read; if {meant} is meant, write that");
    let expected = [
        "variable TIDEMILLL_COLOUR_OF_THE_SEA is not read: no setting is called so; `tidemill config show` lists those that are".to_owned(),
        unread("TIDEMIL_DRAIN_MS", "TIDEMILL_DRAIN_MS"),
        unread("TIDEMIL_URL", "TIDEMILL_URL"),
        unread("TIDMILL_LOG_LEVEL", "LOG_LEVEL"),
        unread("tidemill_listen", "TIDEMILL_LISTEN"),
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn a_relay_that_would_be_open_by_a_mistyped_prefix_does_not_start() {
    for (name, meant) in [
        ("TIDEMIL_ACCESS", "TIDEMILL_ACCESS"),
        ("TIDMILL_ADMIN_PASSWORD", "TIDEMILL_ADMIN_PASSWORD"),
        ("TIDEMILLL_ADMIN_PASWORD", "TIDEMILL_ADMIN_PASSWORD"),
        ("TIDEMIL_ADMIN_PASSWORD_FILE", "TIDEMILL_ADMIN_PASSWORD_FILE"),
        ("TIDEMLIL_JWT_ISSUERS", "TIDEMILL_JWT_ISSUERS"),
        ("tidemill_oidc_providers", "TIDEMILL_OIDC_PROVIDERS"),
        ("TIDEMIL_CONFIG", "TIDEMILL_CONFIG"),
    ] {
        let expected = format!("variable {name} is not known; the nearest known one is {meant}");
        assert_eq!(error(&[], &[(name, SECRET)]), expected);
    }
    // Where the right one says it, too, nothing is open by that.
    let pairs = [("TIDEMIL_ADMIN_PASSWORD", SECRET), ("TIDEMILL_ADMIN_PASSWORD", "correct horse")];
    let settings = load(&[], &pairs).expect("valid settings");
    assert!(settings.admin_password.is_some() && settings.warnings.len() == 1, "{:?}", settings.warnings);
    assert!(
        load(&["--access", "open"], &[("TIDEMIL_ACCESS", "closed")]).expect("the flag says it").is_open()
    );
}

#[test]
fn a_setting_without_its_prefix_and_unknown_names_of_pulsar_are_warned_about() {
    let pairs = [
        ("ACCESS", "closed"),
        ("ADMIN_PASSWORD", SECRET),
        ("PULSAR_ADMIN_PASSWORD", SECRET),
        ("PULSAR_CONFIG_FILE", "another program's"),
        ("METRICS", "a word of everybody"),
    ];
    let settings = load(&[], &pairs).expect("valid settings");
    let unread = |name, meant| format!("variable {name} is not read; if {meant} is meant, write that");
    let expected = [
        unread("ACCESS", "TIDEMILL_ACCESS"),
        unread("ADMIN_PASSWORD", "TIDEMILL_ADMIN_PASSWORD"),
        unread("PULSAR_ADMIN_PASSWORD", "TIDEMILL_ADMIN_PASSWORD"),
        "variable PULSAR_CONFIG_FILE is not read: no setting is called so; `tidemill config show` lists those that are".to_owned(),
    ];
    assert_eq!(settings.warnings, expected);
    assert!(settings.admin_password.is_none());
}

/// Variables of what can close a relay.
const CLOSING: [&str; 8] = [
    "TIDEMILL_ACCESS",
    "TIDEMILL_ADMIN_PASSWORD",
    "TIDEMILL_ADMIN_PASSWORD_FILE",
    "TIDEMILL_JWT_ISSUERS",
    "TIDEMILL_JWT_ISSUERS_FILE",
    "TIDEMILL_OIDC_PROVIDERS",
    "TIDEMILL_OIDC_PROVIDERS_FILE",
    "PULSAR_BOOTSTRAP_ADMIN_PASSWORD",
];

#[test]
fn what_is_to_close_a_relay_and_is_empty_is_an_error() {
    for name in CLOSING {
        let text = error(&[], &[(name, "")]);
        assert!(text.contains(&format!("(from variable {name}) is set and empty")), "{text}");
        assert!(text.contains("give the variable a value, or unset it"), "{text}");
    }
    let settings = load(&["--access", "open"], &[("TIDEMILL_ACCESS", "")]).expect("the flag says it");
    assert!(settings.is_open());
    // What closes nothing may be empty.
    let others = [("TIDEMILL_ADMIN_EMAIL", ""), ("TIDEMILL_TLS_CERT", ""), ("LOG_LEVEL", "")];
    assert!(load(&[], &others).expect("valid settings").warnings.is_empty());
}

#[test]
fn lists_that_name_nobody_are_errors_and_comments_are_none() {
    let blank = ("TIDEMILL_JWT_ISSUERS", " ");
    assert!(error(&[], &[blank]).starts_with("jwt_issuers (from variable TIDEMILL_JWT_ISSUERS) names no"));
    let url = ("TIDEMILL_PUBLIC_URL", "http://localhost:8080");
    let text = error(&[], &[url, ("TIDEMILL_OIDC_PROVIDERS", "\n")]);
    assert!(text.starts_with("oidc_providers (from variable TIDEMILL_OIDC_PROVIDERS) names no"), "{text}");
    for (variable, one) in [("TIDEMILL_JWT_ISSUERS", ISSUER), ("TIDEMILL_OIDC_PROVIDERS", PROVIDER)] {
        let file_variable = format!("{variable}_FILE");
        let (_directory, path) = file("list", &format!("# ours; and theirs\n  # more\n{one}\n"));
        let settings = load(&[], &[url, (&file_variable, &path)]).expect("comments are none");
        let options = settings.access_options().expect("they are read");
        assert_eq!(options.issuers.len() + options.providers.len(), 1, "{variable}");
        let (_directory, path) = file("list", "# nobody yet\n");
        assert!(error(&[], &[url, (&file_variable, &path)]).contains(" names no "), "{variable}");
        let with_blank = one.replacen(';', "; ", 1);
        let text = error(&[], &[url, (variable, &with_blank)]);
        assert!(text.contains(") has a blank beside a `;`") && text.contains("without blanks"), "{text}");
    }
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
        ("PULSAR_PORT", "tcp://10.0.0.3:8080"),
        ("PULSAR_SERVICE_HOST", "10.0.0.3"),
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
