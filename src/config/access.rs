//! What the settings say of who is let in.
//!
//! It must not know whom the storage knows.

use std::time::Duration;

use super::{AccessMode, ConfigError, Settings, Source};
use crate::access::{AccessOptions, FirstAdministrator, Mode, TrustedHosts};

impl Settings {
    /// Returns whether the relay listens where this machine alone reaches it.
    #[must_use]
    pub fn listens_on_loopback(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// Returns the setting that says that other machines reach the relay: by itself, or by way of a proxy.
    fn reached_from_elsewhere(&self) -> Option<&'static str> {
        let has_proxy = self.trusted_proxies.is_some();
        let has_name = self.trusted_hosts.as_ref().is_some_and(TrustedHosts::has_others);
        let has_url = self.public_url.as_ref().is_some_and(|url| !url.is_of_loopback());
        let all = [
            ("listen", !self.listens_on_loopback()),
            ("public_url", has_url),
            ("trusted_hosts", has_name),
            ("trusted_proxies", has_proxy),
        ];
        all.into_iter().find_map(|(setting, is_so)| is_so.then_some(setting))
    }

    /// Returns whether everybody who reaches the relay is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.access_options().is_ok_and(|options| options.mode == Mode::Open)
    }

    /// Returns who is let in.
    ///
    /// # Errors
    /// The issuers of JWTs are none.
    pub fn access_options(&self) -> Result<AccessOptions, ConfigError> {
        let issuers = self.issuers()?;
        let (mode, _) = self.decided();
        let log_ins = self.log_ins.lives();
        let stale_max = Duration::from_millis(self.access_stale_ms);
        Ok(AccessOptions { mode, stale_max, issuers, log_ins, providers: self.providers()? })
    }

    /// Returns whether everybody is let in, and the setting that decides it; `None` where none does.
    fn decided(&self) -> (Mode, Option<&'static str>) {
        match self.access {
            AccessMode::Open => (Mode::Open, Some("access")),
            AccessMode::Closed => (Mode::Closed, Some("access")),
            AccessMode::Auto if self.admin_password.is_some() => (Mode::Closed, Some("admin_password")),
            AccessMode::Auto if self.log_ins.jwt_issuers.is_some() => (Mode::Closed, Some("jwt_issuers")),
            AccessMode::Auto => match self.reached_from_elsewhere() {
                Some(setting) => (Mode::Closed, Some(setting)),
                None => (Mode::Open, None),
            },
        }
    }

    /// Says what decides who is let in: a setting with its source.
    #[must_use]
    pub fn access_because(&self) -> String {
        match self.decided() {
            (_, Some(setting)) => format!("{setting} (from {})", self.source(setting)),
            (_, None) => "default on loopback".to_owned(),
        }
    }

    /// Returns who administers the relay where nobody else may.
    ///
    /// # Errors
    /// The name, the password or the address breaks a rule.
    pub fn first_administrator(&self) -> Result<Option<FirstAdministrator>, ConfigError> {
        let Some(password) = &self.admin_password else { return Ok(None) };
        let parsed = FirstAdministrator::parse(&self.admin_name, password.clone());
        let parsed = parsed.and_then(|first| match &self.admin_email {
            Some(email) => first.with_email(email),
            None => Ok(first),
        });
        parsed.map(Some).map_err(|problem| {
            let (setting, start) = match problem.field.as_deref() {
                Some("name") => ("admin_name", "`name` "),
                Some("email") => ("admin_email", "`email` "),
                Some(_) | None => ("admin_password", "`password` "),
            };
            let rule = problem.detail.strip_prefix(start).unwrap_or(&problem.detail).to_owned();
            self.breaks(setting, rule)
        })
    }

    /// Returns what is wrong where nobody could administer a relay that other machines reach, or could ever come
    /// in, for a storage that knows nobody who may; `None` where that is right.
    #[must_use]
    pub fn nobody_may(&self) -> Option<ConfigError> {
        let is_set = self.admin_password.is_some() || self.log_ins.jwt_issuers.is_some();
        let is_in_memory = self.storage_backend == super::Backend::Memory;
        let has_provider = self.log_ins.oidc_providers.is_some();
        if self.access == AccessMode::Closed && is_in_memory && !is_set && !has_provider {
            let rule = "is closed, and nobody could ever come in: the relay knows nobody, and keeps in its memory whom it knows, where no command makes a user beside it: set a password for the first administrator (TIDEMILL_ADMIN_PASSWORD_FILE or TIDEMILL_ADMIN_PASSWORD); or name an issuer of JWTs (TIDEMILL_JWT_ISSUERS) or a provider of OpenID Connect (TIDEMILL_OIDC_PROVIDERS); or let everybody in with --access open";
            return Some(self.breaks("access", rule));
        }
        let reached = self.reached_from_elsewhere().filter(|_| self.access == AccessMode::Auto && !is_set)?;
        let reached = match reached {
            "listen" => format!("at listen = {} (from {})", self.listen, self.source("listen")),
            other => format!("by {other} (from {})", self.source(other)),
        };
        let in_storage = match self.storage_backend {
            super::Backend::Memory => "",
            super::Backend::Valkey => {
                ", or make one in the storage with `tidemill user add NAME --role admin`"
            }
        };
        let rule = format!(
            "is auto, and {reached} other machines reach the relay, which nobody may administer: set a password for the first administrator (TIDEMILL_ADMIN_PASSWORD_FILE or TIDEMILL_ADMIN_PASSWORD){in_storage}; or name an issuer of JWTs (TIDEMILL_JWT_ISSUERS); or let everybody in with --access open"
        );
        Some(self.breaks("access", rule))
    }

    /// Checks what is said of who is let in, and returns what has no effect, in sentences.
    pub(super) fn check_access(&self) -> Result<Vec<String>, ConfigError> {
        self.issuers()?;
        self.providers()?;
        self.first_administrator()?;
        let mut warnings = Vec::new();
        for setting in ["admin_name", "admin_email"] {
            let from = self.source(setting);
            if self.admin_password.is_none() && from != Source::Default {
                warnings.push(format!(
                    "{setting} (from {from}) has no effect: there is no admin_password beside it"
                ));
            }
        }
        if self.access == AccessMode::Open && !self.listens_on_loopback() {
            warnings.push(format!(
                "access (from {}) is open: whoever reaches {} may publish, read and delete",
                self.source("access"),
                self.listen
            ));
        }
        Ok(warnings)
    }
}
