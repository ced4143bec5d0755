//! What is another in settings that were read again.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::{Settings, known};

/// Settings that are taken over without a restart.
pub const TAKEN_OVER: [&str; 16] = [
    "allowed_origins",
    "trusted_hosts",
    "trusted_proxies",
    "limit_log_ins",
    "limit_anonymous_requests",
    "limit_address_requests",
    "limit_principal_requests",
    "limit_address_messages",
    "limit_principal_messages",
    "limit_topics",
    "limit_connections",
    "limit_kept_bytes",
    "limits_away",
    "limits_counted_max",
    "log_level",
    "slow_ms",
];

/// The values of all settings that were set, as they were written. `Debug` shows none.
#[derive(Clone, Debug, Default)]
pub struct Written(BTreeMap<&'static str, SecretString>);

impl Written {
    pub(super) fn new(values: impl Iterator<Item = (&'static str, String)>) -> Self {
        Self(values.map(|(id, text)| (id, text.into())).collect())
    }

    /// Returns the value of a setting, or its default.
    fn value(&self, id: &str) -> Option<&str> {
        let default = || known().iter().find(|setting| setting.id == id)?.default.as_deref();
        self.0.get(id).map(ExposeSecret::expose_secret).or_else(default)
    }

    /// Returns the names of the settings that have another value in `other`, in their order.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let ids = known().iter().map(|setting| setting.id);
        ids.filter(|id| self.value(id) != other.value(id)).collect()
    }

    /// Takes the value of a setting over from `other`.
    pub fn take_over(&mut self, id: &'static str, other: &Self) {
        match other.0.get(id) {
            Some(text) => self.0.insert(id, text.clone()),
            None => self.0.remove(id),
        };
    }
}

impl Settings {
    /// Returns the values of all settings that were set, as they were written.
    #[must_use]
    pub const fn written(&self) -> &Written {
        &self.written
    }
}
