//! Whether a relay can start with its settings: what their files hold, and who would be let in. It is asked at the start,
//! before settings are taken over, and by who looks for what is wrong.
//!
//! It must not know how a relay is put together.

use tidemill_proto::Timestamp;

use super::certificate::{Certificate, CertificateError, is_ending};
use crate::access::{Issuers, IssuersError, has_administrator};
use crate::clock::Clock;
use crate::config::{Backend, ConfigError, Faults, Settings};
use crate::storage::AccessStore;

pub(super) const NOBODY_YET: &str = "no user of this relay may administer it; start it with TIDEMILL_ADMIN_PASSWORD_FILE, or, where it keeps messages in Valkey, make one with `tidemill user add NAME --role admin` and the settings of the relay";

/// Who may administer a relay that does not let everybody in.
pub(super) enum Standing {
    /// An administrator in the storage.
    Somebody,
    /// Nobody, which the settings do not allow.
    Nobody(ConfigError),
    /// Nobody in the storage, as the settings want it.
    NobodyYet,
    /// The storage does not tell.
    Unknown,
}

/// Asks the storage whom it knows.
pub(super) async fn standing(settings: &Settings, access: &dyn AccessStore, now: Timestamp) -> Standing {
    match has_administrator(access, now).await {
        Ok(true) => Standing::Somebody,
        Ok(false) => settings.nobody_may().map_or(Standing::NobodyYet, Standing::Nobody),
        Err(_) => Standing::Unknown,
    }
}

/// Looks at settings of which each is right by itself: what their files hold, and who would be let in. Nothing is
/// connected to, and whom a server knows is not asked. What should be looked at is added to their warnings.
///
/// # Errors
/// No relay starts with them.
pub fn check(mut settings: Settings) -> Result<Settings, Faults> {
    let (mut errors, mut warnings) = (Vec::new(), std::mem::take(&mut settings.warnings));
    match explain_certificate(&settings) {
        Ok(told) => warnings.extend(told.and_then(Result::err)),
        Err(error) => errors.push(error),
    }
    errors.extend(check_issuers(&settings).err());
    #[cfg(feature = "valkey")]
    if settings.is_about_a_server() {
        errors.extend(settings.valkey_options().err());
    }
    let is_in_memory = settings.storage_backend == Backend::Memory;
    if is_in_memory && !settings.is_open() && settings.admin_password.is_none() {
        match settings.nobody_may() {
            Some(error) => errors.push(error),
            None => warnings.push(NOBODY_YET.to_owned()),
        }
    }
    if !errors.is_empty() {
        return Err(Faults { errors, warnings });
    }
    settings.warnings = warnings;
    Ok(settings)
}

/// Reads the keys of the issuers that the settings name, but for those behind URLs, and returns how many issuers
/// there are.
///
/// # Errors
/// The relay would not start.
pub fn check_issuers(settings: &Settings) -> Result<usize, ConfigError> {
    let issuers = settings.access_options()?.issuers;
    let count = issuers.len();
    Issuers::open(issuers).map_err(|error| wrong_issuers(settings, &error))?;
    Ok(count)
}

/// Returns what is wrong with the issuers or providers that these settings name.
pub(super) fn wrong_issuers(settings: &Settings, error: &IssuersError) -> ConfigError {
    let setting = match error {
        IssuersError::Provider(_) => "oidc_providers",
        IssuersError::TooMany | IssuersError::Twice(_) | IssuersError::Keys { .. } => "jwt_issuers",
    };
    let rule = format!("cannot be used: {}", sentence(error));
    ConfigError::Hidden { setting, from: settings.source(setting), rule }
}

/// Returns the certificate that the settings name, if they do.
pub(super) fn certificate(settings: &Settings) -> Result<Option<Certificate>, ConfigError> {
    // One is not set without the other.
    let (Some(certificate), Some(key)) = (&settings.tls_cert, &settings.tls_key) else { return Ok(None) };
    let opened = Certificate::open(certificate.clone(), key.clone());
    opened.map(Some).map_err(|error| wrong_certificate(settings, error))
}

/// Returns what is wrong with the certificate that these settings name.
pub(super) fn wrong_certificate(settings: &Settings, error: CertificateError) -> ConfigError {
    let setting = if error.is_of_key() { "tls_key" } else { "tls_cert" };
    let from = settings.source(setting);
    match error {
        CertificateError::Unreadable { path, cause, .. } => {
            ConfigError::Unreadable { what: format!("{setting} (from {from}):"), path, cause }
        }
        CertificateError::Unfit { path, cause } => {
            let rule = format!("names {}, which {cause}", path.display());
            ConfigError::Hidden { setting, from, rule }
        }
    }
}

/// Says until when the certificate of these settings is good, if they name one.
///
/// # Errors
/// The relay would not start; or a sentence on what its operator should look at.
pub fn explain_certificate(settings: &Settings) -> Result<Option<Result<String, String>>, ConfigError> {
    let Some(certificate) = certificate(settings)? else { return Ok(None) };
    let Some(good_until) = certificate.good_until() else {
        return Ok(Some(Err("it does not say until when it is good".to_owned())));
    };
    Ok(Some(match is_ending(good_until, Clock::system().now()) {
        Some(warning) => Err(warning),
        None => Ok(format!("it fits its key, and is good until {good_until}")),
    }))
}

/// Returns the text of an error with those of its causes.
pub(super) fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
