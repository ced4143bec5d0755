//! Which failures the log tells: during an outage every request fails in the same way.
//!
//! It must not know what was asked; those who log say that with [`Failing`].

use std::fmt;

use tracing::field::display;

use super::Failure;
use crate::thinned::Thinned;

/// What has failed, for the log.
#[derive(Clone, Copy, Default)]
pub struct Failing<'a> {
    /// The id of the request, where there was one.
    pub request_id: Option<&'a str>,
    /// The session, where there was one.
    pub session: Option<u64>,
    /// The method of the request.
    pub method: Option<&'a (dyn fmt::Display + Sync)>,
    /// The path of the request.
    pub path: Option<&'a (dyn fmt::Display + Sync)>,
    /// How many failed in the same way at once, where there were several.
    pub count: Option<usize>,
}

impl fmt::Debug for Failing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failing").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

/// Thins out failures for the log, by code and cause; causes carry numbers of their own at times, and those then
/// share one line.
#[derive(Debug, Default)]
pub struct FailureLog(Thinned);

impl FailureLog {
    /// Tells the log of a failure: as a warning where it is the relay's or its storage's, and at most
    /// one of a kind a second, so that one stands for many during an outage; the others for those who
    /// ask for more.
    pub fn tell(&self, failure: &Failure, failing: Failing<'_>) {
        let Failing { request_id, session, method, path, count } = failing;
        let (method, path) = (method.map(display), path.map(display));
        let problem = failure.problem();
        let code = problem.code.as_str();
        if problem.status < 500 {
            let detail = problem.detail.as_str();
            tracing::debug!(request_id, session, method, path, code, count, detail, "request refused");
            return;
        }
        let cause = failure.chain();
        let left_out = if failure.has_cause() {
            self.0.admit(format_args!("{code} {cause}"))
        } else {
            // Its own sentence may have an id, so that each would be a kind of its own.
            self.0.admit(format_args!("{code}"))
        };
        if let Some(left_out) = left_out {
            tracing::warn!(request_id, session, method, path, code, count, left_out, %cause, "request failed");
        } else {
            tracing::debug!(request_id, session, method, path, code, count, %cause, "request failed");
        }
    }
}
