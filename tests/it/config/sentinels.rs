//! Settings of sentinels, and of passwords that are read again.

use tidemill::config::Settings;
use tidemill::storage::valkey::ValkeyOptions;

use super::{SECRET, error, file, load};

const VALKEY: (&str, &str) = ("STORAGE_BACKEND", "valkey");
const WATCHED: (&str, &str) = ("VALKEY_URL", "valkeys+sentinel://:pw@a,b:7000/main/2");

fn options(pairs: &[(&str, &str)]) -> (Settings, ValkeyOptions) {
    let settings = load(&[], &[&[VALKEY], pairs].concat()).expect("the settings are right");
    let options = settings.valkey_options().expect("the settings are right");
    (settings, options)
}

#[test]
fn sentinels_have_a_login_and_tls_of_their_own() {
    let (settings, plain) = options(&[WATCHED]);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert_eq!(plain.target.to_string(), "valkeys+sentinel://:***@a:26379,b:7000/main/2");
    assert!(plain.sentinel_tls && plain.sentinel_login.password.is_none() && plain.password_file.is_none());
    assert!(plain.sentinel_login.username.is_none() && plain.sentinel_login.file.is_none());

    let (_folder, path) = file("password", "h3cret\n");
    let (settings, own) = options(&[
        WATCHED,
        ("TIDEMILL_VALKEY_SENTINEL_USERNAME", "watcher"),
        ("TIDEMILL_VALKEY_SENTINEL_PASSWORD_FILE", &path),
        ("TIDEMILL_VALKEY_SENTINEL_USE_TLS", "false"),
        ("VALKEY_CA_PATH", ""),
    ]);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert_eq!(own.sentinel_login.username.as_deref(), Some("watcher"));
    assert!(own.sentinel_login.file.is_some() && !own.sentinel_tls);
    assert!(!format!("{own:?} {settings:?}").contains(SECRET));

    let alone = error(&[], &[VALKEY, WATCHED, ("TIDEMILL_VALKEY_SENTINEL_USERNAME", "watcher")]);
    assert!(
        alone.contains("valkey_sentinel_username") && alone.contains("valkey_sentinel_password"),
        "{alone}"
    );
    let plain = ("VALKEY_URL", "valkey://a");
    let unused = ("TIDEMILL_VALKEY_SENTINEL_USE_TLS", "true");
    let settings = load(&[], &[VALKEY, plain, unused]).expect("it harms nothing");
    let warnings = settings.warnings.join("\n");
    assert!(warnings.contains("valkey_sentinel_use_tls") && warnings.contains("has no effect"), "{warnings}");
}

#[test]
fn a_password_that_stood_in_a_file_is_read_there_again() {
    let (_folder, path) = file("password", "h3cret\n");
    let in_file = ("VALKEY_PASSWORD_FILE", &*path);
    for (pairs, is_read_again) in [
        (&[in_file][..], true),
        (&[in_file, ("VALKEY_URL", "valkey://a,b")], true),
        (&[in_file, ("VALKEY_URL", "valkey+sentinel://a/main")], true),
        // What a stronger source says stays.
        (&[in_file, ("VALKEY_URL", "valkey://:pw@a")], false),
        (&[("VALKEY_PASSWORD", "pw")], false),
        (&[], false),
    ] {
        let (_, options) = options(pairs);
        assert_eq!(options.password_file.is_some(), is_read_again, "{pairs:?}");
        assert!(!format!("{options:?}").contains(SECRET));
    }
}
