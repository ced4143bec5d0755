//! What an operator may set about who is let in.
//!
//! It must not know what comes of it.

use std::time::Duration;

use super::jwt::Issuer;
use super::oidc::Provider;

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whoever reaches the port may do everything.
    Open,
    /// Everybody does what its rules allow.
    Closed,
}

impl Mode {
    /// Returns the word that stands for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// What an operator may set about who is let in.
#[derive(Clone, Debug)]
pub struct AccessOptions {
    /// Who is let in.
    pub mode: Mode,
    /// How long rights hold while the storage cannot be asked.
    pub stale_max: Duration,
    /// Whose JWTs are taken.
    pub issuers: Vec<Issuer>,
    /// How long the tokens of a log-in are good.
    pub log_ins: LogInLives,
    /// With whom users sign in.
    pub providers: Vec<Provider>,
}

/// How long the tokens of a log-in are good.
#[derive(Clone, Copy, Debug)]
pub struct LogInLives {
    /// An access token.
    pub access: Duration,
    /// A refresh token, from when it was given out.
    pub refresh: Duration,
    /// The cookie of a browser.
    pub cookie: Duration,
}

impl Default for LogInLives {
    fn default() -> Self {
        Self {
            access: Duration::from_mins(10),
            refresh: Duration::from_hours(90 * 24),
            cookie: Duration::from_hours(12),
        }
    }
}

impl AccessOptions {
    /// Returns what lets everybody in.
    #[must_use]
    pub fn open() -> Self {
        Self {
            mode: Mode::Open,
            stale_max: Duration::from_mins(1),
            issuers: Vec::new(),
            log_ins: LogInLives::default(),
            providers: Vec::new(),
        }
    }
}
