//! Audit: what is told of who did what, and of who was let in and who was not, as events of the target
//! `tidemill::audit`, so that they can be kept apart.
//!
//! Each has who it was (`by`, or `user` for log-ins), the `address` that it came from, and the id of the request.
//! None has a secret, nor a name that nobody has: that may be a password in the wrong place. Refusals are thinned
//! out, changes and log-ins never are: each has had a right behind it.
//!
//! It must not know what was asked for beyond the words that it is told.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tidemill_proto::{Code, Problem};
use tracing::field::display;

use super::caller::Who;
use crate::metrics::Metrics;
use crate::thinned::Thinned;

/// The target of every event; `changed!` spells it, too.
const TARGET: &str = "tidemill::audit";

/// Where a request comes from, for what is told of it. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    address: Option<IpAddr>,
    request_id: Option<Arc<str>>,
}

impl Origin {
    /// Returns where a request comes from that has this id.
    #[must_use]
    pub fn new(address: Option<IpAddr>, request_id: &str) -> Self {
        Self { address, request_id: Some(request_id.into()) }
    }

    /// Returns the address.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Returns the id of the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}

/// Tells of a change, with what it was: `changed!(who, origin, "user written", user = name)`.
macro_rules! changed {
    ($who:expr, $origin:expr, $what:literal, $($fields:tt)+) => {
        tracing::info!(
            target: "tidemill::audit",
            by = %$who,
            address = $origin.address().map(tracing::field::display),
            request_id = $origin.request_id(),
            $($fields)+,
            $what
        )
    };
}

pub(crate) use changed;

/// What was asked for by who is refused.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Who asked, as far as is known.
    pub by: Option<&'a Who>,
    /// Where it came from.
    pub origin: &'a Origin,
    /// The method of the request, where it was one.
    pub method: Option<&'a str>,
    /// The path of the request, without its query.
    pub path: Option<&'a (dyn fmt::Display + Sync)>,
    /// The session, where it was a frame of one.
    pub session: Option<u64>,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("by", &self.by).finish_non_exhaustive()
    }
}

/// Tells of log-ins and refusals, and counts them. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    metrics: Metrics,
    refusals: Thinned,
    log_ins: Thinned,
}

impl Audit {
    /// Returns what counts in these metrics.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Inner { metrics, refusals: Thinned::default(), log_ins: Thinned::default() }))
    }

    /// Tells that a user has logged in with its password.
    pub fn logged_in(&self, who: &Who, origin: &Origin) {
        self.0.metrics.auth().log_in(true);
        let (address, request_id) = (origin.address.map(display), origin.request_id());
        tracing::info!(target: TARGET, by = %who, address, request_id, "logged in");
    }

    /// Tells that somebody was not let in with a password; `user` is there only where there is such a user.
    pub fn log_in_refused(&self, user: Option<&str>, origin: &Origin, problem: &Problem) {
        self.0.metrics.auth().log_in(false);
        let (address, request_id) = (origin.address.map(display), origin.request_id());
        let code = problem.code.as_str();
        let kind = format_args!("{code} {user:?} {:?}", origin.address);
        if let Some(left_out) = self.0.log_ins.admit(kind) {
            tracing::warn!(target: TARGET, user, address, request_id, code, left_out, "log-in refused");
        }
    }

    /// Tells that something was refused, if it is for who asked, and not for what.
    pub fn refused(&self, problem: &Problem, asked: Asked<'_>) {
        if !is_about_who(problem.code) {
            return;
        }
        let Asked { by, origin, method, path, session } = asked;
        let code = problem.code.as_str();
        self.0.metrics.auth().refused(code);
        let (address, request_id) = (origin.address.map(display), origin.request_id());
        let kind = format_args!("{code} {by:?} {:?}", origin.address);
        if let Some(left_out) = self.0.refusals.admit(kind) {
            let (by, path, detail) = (by.map(display), path.map(display), problem.detail.as_str());
            tracing::warn!(target: TARGET, by, address, request_id, session, method, path, code, left_out, detail, "refused");
        }
    }
}

/// Returns whether who has this problem is refused for who it is, or where it comes from.
const fn is_about_who(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated
            | Code::Forbidden
            | Code::RateLimited
            | Code::OriginForbidden
            | Code::HostForbidden
    )
}
