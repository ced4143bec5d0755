//! What a setting is called: as a flag, as a variable, in the file. Everything is derived from the
//! clap metadata of [`Settings`](super::Settings), so that no name is written twice.

use std::sync::LazyLock;

use clap::{Args as _, Command};

use super::Settings;

/// The prefix of variables that are ours alone: an unknown one is a mistake.
pub(super) const PREFIX: &str = "TIDEMILL_";

/// The prefix under which pulsar-relay reads the variables that both know.
pub(super) const PULSAR_PREFIX: &str = "PULSAR_";

/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "TIDEMILL_CONFIG";

/// The variable that names the relay to the commands that speak to one.
pub const URL_VARIABLE: &str = "TIDEMILL_URL";

/// The variable that names the certificates which those commands trust.
pub const CA_CERT_VARIABLE: &str = "TIDEMILL_CA_CERT";

/// The variable that holds the token with which those commands say who calls.
pub const TOKEN_VARIABLE: &str = "TIDEMILL_TOKEN";

/// The variable that names a file which holds that token.
pub const TOKEN_FILE_VARIABLE: &str = "TIDEMILL_TOKEN_FILE";

/// Variables with our prefix that are no settings.
pub(super) const BESIDE_SETTINGS: [&str; 5] =
    [CONFIG_VARIABLE, URL_VARIABLE, CA_CERT_VARIABLE, TOKEN_VARIABLE, TOKEN_FILE_VARIABLE];

/// Settings whose variables keep the names that other systems gave them, without our prefix.
const UNPREFIXED: [&str; 25] = [
    "access_token_expire_minutes",
    "refresh_token_ttl_days",
    "allowed_origins",
    "trusted_hosts",
    "trusted_proxies",
    "storage_backend",
    "valkey_url",
    "valkey_url_file",
    "redis_url",
    "redis_url_file",
    "valkey_host",
    "valkey_port",
    "valkey_username",
    "valkey_password",
    "valkey_password_file",
    "valkey_use_tls",
    "valkey_ca_path",
    "valkey_placement",
    "valkey_placement_file",
    "valkey_cluster",
    "valkey_read_from",
    "persistent_tier_retention",
    "max_messages_per_topic",
    "max_body_bytes",
    "log_level",
];

/// Settings that pulsar-relay calls otherwise, with what stands there behind its prefix.
const OF_PULSAR: [(&str, &str); 3] = [
    ("admin_name", "BOOTSTRAP_ADMIN_USERNAME"),
    ("admin_password", "BOOTSTRAP_ADMIN_PASSWORD"),
    ("admin_email", "BOOTSTRAP_ADMIN_EMAIL"),
];

/// Settings whose values are shown as `***`. Each has a companion `<id>_file`.
pub(super) const SECRETS: [&str; 8] = [
    "admin_password",
    "jwt_issuers",
    "oidc_providers",
    "valkey_url",
    "redis_url",
    "valkey_password",
    "valkey_sentinel_password",
    "valkey_placement",
];

/// How like a name must be to be offered: half of its letters. Less is a guess that misleads.
const LIKENESS_MIN: f64 = 0.5;
/// How like a foreign name must be to be warned about: a letter or two, so that what means something else is
/// left alone.
const NEARNESS_MIN: f64 = 0.82;

/// Settings whose names without our prefix are words that the environment of any program may have: a warning about
/// them would be noise.
const COMMON: [&str; 4] = ["console", "docs", "metrics", "strict"];

/// One setting, as the command line describes it.
#[derive(Debug)]
pub struct Setting {
    /// The name in the configuration file; the same word stands in the flag and the variable.
    pub id: &'static str,
    /// The flag, with its dashes.
    pub flag: String,
    /// The variable.
    pub variable: String,
    /// Whether the variable has a name that other systems gave it, without our prefix. It is also read with
    /// our prefix, and with that of pulsar-relay.
    pub is_shared: bool,
    /// Whether its value is never shown.
    pub is_secret: bool,
    /// The default, as it would be written; `None` where the setting may stay unset.
    pub default: Option<String>,
    /// What it is for, in a few words, without a stop at the end.
    pub help: String,
    /// The group it is shown in.
    pub heading: String,
    /// The words it may be, where it is a choice.
    pub choices: Vec<String>,
}

static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let mut command = Settings::augment_args(Command::new("tidemill"));
    command.build();
    let ours = |arg: &&clap::Arg| !matches!(arg.get_id().as_str(), "help" | "version");
    command.get_arguments().filter(ours).map(describe).collect()
});

/// Returns every setting, in the order in which they are shown.
#[must_use]
pub fn known() -> &'static [Setting] {
    &SETTINGS
}

/// Returns what an argument is for, with all that is said of it, on one line.
fn help_of(arg: &clap::Arg) -> String {
    let said = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let paragraphs = said.split("\n\n").map(|one| one.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.map(|one| one.trim_end_matches('.').to_owned()).collect::<Vec<_>>().join(". ")
}

fn describe(arg: &clap::Arg) -> Setting {
    // The list is made once and lives as long as the process, so its few names may be leaked.
    let id: &'static str = String::leak(arg.get_id().as_str().to_owned());
    let unprefixed = UNPREFIXED.contains(&id);
    let upper = id.to_ascii_uppercase();
    let is_choice = !arg.is_hide_possible_values_set() && arg.get_num_args() != Some((0..=1).into());
    let choices = arg.get_possible_values();
    Setting {
        id,
        flag: format!("--{}", arg.get_long().unwrap_or(id)),
        variable: if unprefixed { upper } else { format!("{PREFIX}{upper}") },
        is_shared: unprefixed,
        is_secret: SECRETS.contains(&id),
        default: arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned()),
        help: help_of(arg),
        heading: arg.get_help_heading().unwrap_or_default().to_owned(),
        choices: if is_choice {
            choices.iter().map(|choice| choice.get_name().to_owned()).collect()
        } else {
            Vec::new()
        },
    }
}

impl Setting {
    /// Returns the names under which the variable is read, from the most particular one on.
    pub(super) fn variables(&self) -> impl Iterator<Item = String> + '_ {
        let prefixed = |prefix| self.is_shared.then(|| format!("{prefix}{}", self.variable));
        let of_pulsar = OF_PULSAR.iter().find(|(id, _)| *id == self.id);
        let of_pulsar = of_pulsar.map(|(_, name)| format!("{PULSAR_PREFIX}{name}"));
        let own = prefixed(PREFIX).into_iter().chain([self.variable.clone()]);
        own.chain(prefixed(PULSAR_PREFIX)).chain(of_pulsar)
    }
}

/// How many letters of a prefix may be otherwise for it to be taken for ours.
const PREFIX_LETTERS_MAX: usize = 2;

/// Returns the rest of a name whose prefix is nearly ours: a letter or two otherwise, or small ones. It is not what Kubernetes
/// writes for a service that is called so.
fn behind_nearly_our_prefix(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('_')?;
    let ours = PREFIX.trim_end_matches('_');
    let letters = strsim::damerau_levenshtein(&prefix.to_ascii_uppercase(), ours);
    let rest = rest.to_ascii_uppercase();
    let is_nearly = !name.starts_with(PREFIX) && letters <= PREFIX_LETTERS_MAX;
    (is_nearly && !is_link(rest.strip_prefix("VALKEY_").unwrap_or(&rest))).then_some(rest)
}

/// Returns whether the prefix of a name is nearly ours.
pub(super) fn is_nearly_ours(name: &str) -> bool {
    behind_nearly_our_prefix(name).is_some()
}

/// Returns the variable that is most likely meant by a name whose prefix is nearly ours, if one is called like the rest.
pub(super) fn meant_by_nearly_ours(name: &str) -> Option<String> {
    let rest = behind_nearly_our_prefix(name)?;
    let is_exact =
        |setting: &&Setting| setting.variables().any(|of| of.strip_prefix(PREFIX) == Some(rest.as_str()));
    let exact = known().iter().find(is_exact).map(|setting| setting.variable.clone());
    exact.or_else(|| nearest_variable(&format!("{PREFIX}{rest}")))
}

/// Returns the variable that `name` is nearly, if it has not our prefix and none reads it: one that has a letter or
/// two otherwise, or that of a setting whose variable has our prefix, without it. The latter letter by letter: such
/// names are general.
pub(super) fn nearly(name: &str) -> Option<String> {
    if name.starts_with(PREFIX) || known().iter().any(|setting| setting.variables().any(|of| of == name)) {
        return None;
    }
    let is_of_pulsar = name.starts_with(PULSAR_PREFIX);
    let bare = name.strip_prefix(PULSAR_PREFIX).unwrap_or(name).to_ascii_uppercase();
    let is_meant = |setting: &&Setting| setting.variable.strip_prefix(PREFIX) == Some(bare.as_str());
    let without_prefix = known().iter().find(is_meant);
    let is_told = |setting: &&Setting| is_of_pulsar || !COMMON.contains(&setting.id);
    if let Some(setting) = without_prefix.filter(is_told) {
        return Some(setting.variable.clone());
    }
    let shared = known().iter().filter(|setting| setting.is_shared);
    let likeness = |candidate: &str| strsim::normalized_damerau_levenshtein(candidate, &bare);
    let best = shared.map(|setting| (&setting.variable, likeness(&setting.variable)));
    let best = best.max_by(|(_, one), (_, other)| one.total_cmp(other));
    best.filter(|(_, likeness)| *likeness >= NEARNESS_MIN).map(|(variable, _)| variable.clone())
}

/// Returns the variable that is most like `name`, if one is like it at all.
pub(super) fn nearest_variable(name: &str) -> Option<String> {
    let names = known().iter().map(|setting| setting.variable.as_str()).chain(BESIDE_SETTINGS);
    // The prefix is in every name, so it says nothing about which one was meant.
    let bare = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    nearest(names, |candidate| strsim::normalized_damerau_levenshtein(&bare(candidate), &bare(name)))
}

/// Returns the key that is most like `key`, if one is like it at all.
pub(super) fn nearest_key(key: &str) -> Option<String> {
    let key = key.to_ascii_lowercase();
    nearest(known().iter().map(|setting| setting.id), |candidate| {
        strsim::normalized_damerau_levenshtein(candidate, &key)
    })
}

/// Returns the one of these that is most like `name`, if one is like it at all.
pub(super) fn nearest_of<'a>(names: impl Iterator<Item = &'a str>, name: &str) -> Option<String> {
    nearest(names, |candidate| strsim::normalized_damerau_levenshtein(candidate, name))
}

fn nearest<'a>(names: impl Iterator<Item = &'a str>, likeness: impl Fn(&str) -> f64) -> Option<String> {
    let scored = names.map(|name| (name, likeness(name)));
    let best = scored.max_by(|(_, one), (_, other)| one.total_cmp(other));
    best.filter(|(_, likeness)| *likeness >= LIKENESS_MIN).map(|(name, _)| name.to_owned())
}

/// Returns whether a variable has the prefix of pulsar-relay, and nothing reads it or says why not.
pub(super) fn is_unknown_of_pulsar(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PULSAR_PREFIX) else { return false };
    let is_read = known().iter().any(|setting| setting.variables().any(|of| of == name));
    !is_read && ignored_by_us(name).is_none() && !is_link(rest)
}

/// Returns whether Kubernetes makes this variable by itself for a service called `tidemill`, or `tidemill-valkey`
/// (`TIDEMILL_SERVICE_HOST`, `TIDEMILL_PORT_8080_TCP_ADDR`, …). Nobody wrote it, so it is no mistake.
pub(super) fn is_service_link(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    is_link(rest.strip_prefix("VALKEY_").unwrap_or(rest))
}

/// Returns whether what stands behind a service's name is what Kubernetes writes there.
fn is_link(rest: &str) -> bool {
    let port = rest.strip_prefix("PORT").map(|port| port.strip_prefix('_').unwrap_or(port));
    let is_port = port.is_some_and(|port| port.is_empty() || port.starts_with(|c: char| c.is_ascii_digit()));
    is_port || rest == "SERVICE_HOST" || rest.starts_with("SERVICE_PORT")
}

/// A variable that pulsar-relay honours and this version does not, with what that means.
pub(super) fn ignored_by_us(name: &str) -> Option<&'static str> {
    const KEY: &str =
        "tokens of log-ins are made by chance and kept as hashes, so there is no key to sign them with";
    const DEFAULTS: &str = "there are no secrets by default; TIDEMILL_ACCESS=open lets everybody in";
    const USERS: &str =
        "this version counts no sockets by user; TIDEMILL_CONNECTIONS_PER_ADDRESS_MAX bounds connections";
    const IDLE: &str =
        "a client that only listens stays connected; TIDEMILL_WS_PING_INTERVAL_MS finds those that are gone";
    match name.strip_prefix(PULSAR_PREFIX)? {
        "JWT_SECRET_KEY" => Some(KEY),
        "ALLOW_INSECURE_DEFAULTS" => Some(DEFAULTS),
        "WS_MAX_PER_USER" => Some(USERS),
        "WS_IDLE_SECONDS" => Some(IDLE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_field() {
        let find = |id: &str| known().iter().find(|setting| setting.id == id).expect("a known setting");
        assert_eq!(find("drain_ms").variable, "TIDEMILL_DRAIN_MS");
        assert_eq!(find("drain_ms").flag, "--drain-ms");
        assert_eq!(find("max_body_bytes").variable, "MAX_BODY_BYTES");
        assert_eq!(find("memory_full").choices, ["trim", "refuse"]);
        assert!(find("topic_auto_create").choices.is_empty());
        for id in UNPREFIXED {
            find(id);
        }
        for (id, _) in OF_PULSAR {
            find(id);
        }
        for id in COMMON {
            find(id);
        }
        for id in SECRETS {
            assert!(find(id).is_secret);
            find(&format!("{id}_file"));
        }
        for setting in known() {
            assert!(!setting.help.is_empty() && !setting.heading.is_empty(), "{}", setting.id);
        }
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        for (name, nearest) in [
            ("TIDEMILL_LISTNE", "TIDEMILL_LISTEN"),
            ("TIDEMILL_VALKEY_ULR", "VALKEY_URL"),
            ("TIDEMILL_MEMORY_MAX_BYTES", "TIDEMILL_MEMORY_BYTES_MAX"),
            ("TIDEMILL_CONF", "TIDEMILL_CONFIG"),
        ] {
            assert_eq!(nearest_variable(name).as_deref(), Some(nearest), "{name}");
        }
        assert_eq!(nearest_key("storage-backend").as_deref(), Some("storage_backend"));
        assert_eq!(nearest_key("LISTEN").as_deref(), Some("listen"));
        assert_eq!(nearest_key("server"), None, "`strict` is not what was meant");
        assert_eq!(nearest_variable("TIDEMILL_FAVOURITE_COLOUR"), None);
    }

    #[test]
    fn what_is_nearly_a_name_is_told_from_what_is_another() {
        for (name, meant) in [
            ("STORAGE_BACKED", "STORAGE_BACKEND"),
            ("STORAGEBACKEND", "STORAGE_BACKEND"),
            ("storage_backend", "STORAGE_BACKEND"),
            ("MAX_MESSAGE_PER_TOPIC", "MAX_MESSAGES_PER_TOPIC"),
            ("VALKEY_PASSWD", "VALKEY_PASSWORD"),
            ("VALKEY_URI", "VALKEY_URL"),
            ("LOGLEVEL", "LOG_LEVEL"),
            ("PULSAR_LOG_LEVL", "LOG_LEVEL"),
            ("ALLOWED_ORIGIN", "ALLOWED_ORIGINS"),
            ("ADMIN_PASSWORD", "TIDEMILL_ADMIN_PASSWORD"),
            ("ADMIN_PASSWORD_FILE", "TIDEMILL_ADMIN_PASSWORD_FILE"),
            ("ACCESS", "TIDEMILL_ACCESS"),
            ("LISTEN", "TIDEMILL_LISTEN"),
            ("JWT_ISSUERS", "TIDEMILL_JWT_ISSUERS"),
            ("LIMIT_LOG_INS", "TIDEMILL_LIMIT_LOG_INS"),
            ("TLS_CERT", "TIDEMILL_TLS_CERT"),
            ("PULSAR_ADMIN_PASSWORD", "TIDEMILL_ADMIN_PASSWORD"),
            ("PULSAR_DOCS", "TIDEMILL_DOCS"),
        ] {
            assert_eq!(nearly(name).as_deref(), Some(meant), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "LOG_LEVEL",
            "TIDEMILL_LOG_LEVEL",
            "PULSAR_LOG_LEVEL",
            "TIDEMILL_LOG_LEVL",
            "REDIS_HOST",
            "REDIS_PORT",
            "REDIS_PASSWORD",
            "VALKEY_PORT_6379_TCP",
            "VALKEY_SERVICE_HOST",
            "VALKEY_EXTRA_FLAGS",
            "RUST_LOG",
            "LOG_FILE",
            "MAX_CONNECTIONS",
            "DOCS",
            "METRICS",
            "STRICT",
            "ADMIN_PASSWORDS",
            "URL",
        ] {
            assert_eq!(nearly(name), None, "{name}");
        }
    }

    #[test]
    fn service_links_are_told_from_mistakes() {
        for name in [
            "TIDEMILL_PORT",
            "TIDEMILL_PORT_8080_TCP",
            "TIDEMILL_PORT_8080_TCP_ADDR",
            "TIDEMILL_SERVICE_HOST",
            "TIDEMILL_SERVICE_PORT",
            "TIDEMILL_SERVICE_PORT_HTTP",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        for name in ["TIDEMILL_PORTS", "TIDEMILL_SERVICE", "TIDEMILL_LISTEN", "VALKEY_PORT"] {
            assert!(!is_service_link(name), "{name}");
        }
    }
}
