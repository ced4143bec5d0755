//! The settings of a site that has pulsar-relay, as it has them.

use super::{SECRET, error, load};

#[test]
fn what_pulsar_relay_honours_and_we_do_not_is_said() {
    let pairs = [
        ("PULSAR_JWT_SECRET_KEY", SECRET),
        ("PULSAR_ALLOW_INSECURE_DEFAULTS", "true"),
        ("PULSAR_ALLOWED_ORIGINS", "https://a.example"),
        ("PULSAR_TRUSTED_HOSTS", "relay.example"),
        ("PULSAR_STORAGE_BACKEND", "memory"),
    ];
    let warnings = load(&[], &pairs).expect("valid settings").warnings.join("\n");
    assert!(warnings.contains("PULSAR_JWT_SECRET_KEY is ignored: tokens of log-ins are made by chance"));
    assert!(warnings.contains("PULSAR_ALLOW_INSECURE_DEFAULTS is ignored: there are no secrets by default"));
    assert!(!warnings.contains("TRUSTED_HOSTS") && !warnings.contains("ALLOWED_ORIGINS"));
    assert!(!warnings.contains("STORAGE_BACKEND") && !warnings.contains(SECRET));
}

#[test]
fn the_first_administrator_and_its_log_ins_are_set_as_in_pulsar_relay() {
    let pairs = [
        ("PULSAR_BOOTSTRAP_ADMIN_USERNAME", "root"),
        ("PULSAR_BOOTSTRAP_ADMIN_PASSWORD", "correct horse"),
        ("PULSAR_BOOTSTRAP_ADMIN_EMAIL", "root@example.com"),
        ("PULSAR_ACCESS_TOKEN_EXPIRE_MINUTES", "7"),
        ("PULSAR_REFRESH_TOKEN_TTL_DAYS", "2"),
    ];
    let settings = load(&[], &pairs).expect("valid settings");
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert_eq!(settings.source("admin_name").to_string(), "variable PULSAR_BOOTSTRAP_ADMIN_USERNAME");
    let first = settings.first_administrator().expect("it obeys the rules").expect("there is one");
    assert_eq!((first.name.as_str(), first.email.as_deref()), ("root", Some("root@example.com")));
    let lives = settings.access_options().expect("no issuers").log_ins;
    assert_eq!((lives.access.as_secs(), lives.refresh.as_secs()), (7 * 60, 2 * 86_400));
    // Ours wins.
    let own = [&pairs[..], &[("TIDEMILL_ADMIN_NAME", "ann")]].concat();
    assert_eq!(load(&[], &own).expect("valid settings").admin_name, "ann");
    let wrong = [pairs[0], pairs[1], ("PULSAR_BOOTSTRAP_ADMIN_EMAIL", "nowhere")];
    let text = error(&[], &wrong);
    assert!(
        text.starts_with("admin_email (from variable PULSAR_BOOTSTRAP_ADMIN_EMAIL) must be an address"),
        "{text}"
    );
    for (name, text) in [("ACCESS_TOKEN_EXPIRE_MINUTES", "0"), ("REFRESH_TOKEN_TTL_DAYS", "366")] {
        assert!(error(&[], &[(name, text)]).contains(name), "{name}");
    }
}
