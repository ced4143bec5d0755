//! How users log in, and whose word is taken for who calls: the settings, and what they say.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::form::{secret, whole};
use super::{ACCESS, ConfigError, Settings};
use crate::access::{Issuer, LogInLives, Provider};

/// The settings of log-ins.
#[derive(Clone, Debug, clap::Args)]
pub struct LogInSettings {
    /// Minutes for which the access token of a log-in is good; clients of pulsar-relay refresh it five minutes
    /// before its end
    #[arg(long, value_name = "MINUTES", default_value = "10", help_heading = ACCESS)]
    #[arg(value_parser = whole::<u64>(1..=120))]
    pub access_token_expire_minutes: u64,

    /// Days for which the refresh token of a log-in is good, from when it was given out
    #[arg(long, value_name = "DAYS", default_value = "90", help_heading = ACCESS)]
    #[arg(value_parser = whole::<u64>(1..=365))]
    pub refresh_token_ttl_days: u64,

    /// Hours after which a browser that has logged in with a cookie logs in again
    ///
    /// At most 720.
    #[arg(long, value_name = "HOURS", default_value = "12", help_heading = ACCESS)]
    #[arg(value_parser = whole::<u64>(1..=720))]
    pub cookie_expire_hours: u64,

    /// Issuers whose JWTs are taken, with blanks or lines between them, as in
    /// `https://id.example/;aud=tidemill;jwks=https://id.example/keys`; also `file=PATH`, `key=JWK` and
    /// `secret=TEXT` in place of `jwks=`
    #[arg(long, value_name = "ISSUERS", help_heading = ACCESS, value_parser = secret())]
    pub jwt_issuers: Option<SecretString>,

    /// A file that holds the issuers of --jwt-issuers
    #[arg(long, value_name = "PATH", help_heading = ACCESS)]
    pub jwt_issuers_file: Option<PathBuf>,

    /// Providers of OpenID Connect with whom users sign in, with blanks or lines between them, as in
    /// `google;issuer=https://accounts.google.com;client_id=ID;client_secret=SECRET`. They need --public-url
    #[arg(long, value_name = "PROVIDERS", help_heading = ACCESS, value_parser = secret())]
    pub oidc_providers: Option<SecretString>,

    /// A file that holds the providers of --oidc-providers
    #[arg(long, value_name = "PATH", help_heading = ACCESS)]
    pub oidc_providers_file: Option<PathBuf>,
}

impl LogInSettings {
    /// Returns how long tokens are good.
    pub(super) fn lives(&self) -> LogInLives {
        LogInLives {
            access: Duration::from_mins(self.access_token_expire_minutes),
            refresh: Duration::from_hours(24 * self.refresh_token_ttl_days),
            cookie: Duration::from_hours(self.cookie_expire_hours),
        }
    }
}

impl Settings {
    /// Returns with whom users sign in.
    pub(super) fn providers(&self) -> Result<Vec<Provider>, ConfigError> {
        let Some(text) = &self.log_ins.oidc_providers else { return Ok(Vec::new()) };
        let hidden = |rule: &str| self.breaks("oidc_providers", rule);
        let providers =
            Provider::parse_all(text.expose_secret()).map_err(|rule| hidden(&rule.to_string()))?;
        if providers.is_empty() {
            return Err(hidden("names no provider: name one, or leave the setting out"));
        }
        if self.public_url.is_none() {
            return Err(hidden(
                "needs public_url, where providers send browsers back to: set TIDEMILL_PUBLIC_URL",
            ));
        }
        Ok(providers)
    }

    /// Returns whose JWTs are taken.
    pub(super) fn issuers(&self) -> Result<Vec<Issuer>, ConfigError> {
        let Some(text) = &self.log_ins.jwt_issuers else { return Ok(Vec::new()) };
        let hidden = |rule: &str| self.breaks("jwt_issuers", rule);
        let issuers = Issuer::parse_all(text.expose_secret()).map_err(|rule| hidden(&rule.to_string()))?;
        if issuers.is_empty() {
            return Err(hidden("names no issuer: name one, or leave the setting out"));
        }
        Ok(issuers)
    }
}
