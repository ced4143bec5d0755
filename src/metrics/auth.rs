//! Who was let in, and who was refused.

use std::fmt;

use metrics::Counter;

use super::registry::Registry;

const LOG_INS: &str = "tidemill_auth_log_ins_total";
const COOKIES: &str = "tidemill_auth_cookies_total";
const REFUSED: &str = "tidemill_auth_refused_total";

/// The counts of log-ins and refusals.
pub struct Auth {
    registry: Registry,
    accepted: Counter,
    refused: Counter,
    cookies: Counter,
}

impl Auth {
    pub(super) fn new(registry: Registry) -> Self {
        registry.describe_counter(LOG_INS, &["outcome"], "Log-ins with a password, `accepted` and `refused`");
        registry.describe_counter(COOKIES, &[], "Log-ins that browsers keep in a cookie");
        registry.describe_counter(
            REFUSED,
            &["code"],
            "Requests and frames refused for who asked, by the code of the problem",
        );
        Self {
            accepted: registry.counter(LOG_INS, &[("outcome", "accepted")]),
            refused: registry.counter(LOG_INS, &[("outcome", "refused")]),
            cookies: registry.counter(COOKIES, &[]),
            registry,
        }
    }

    /// Counts a log-in with a password.
    pub fn log_in(&self, is_accepted: bool) {
        let counted = if is_accepted { &self.accepted } else { &self.refused };
        counted.increment(1);
    }

    /// Counts a log-in that a browser keeps in a cookie.
    pub fn cookie(&self) {
        self.cookies.increment(1);
    }

    /// Counts what was refused with this code, which is one of a few.
    pub fn refused(&self, code: &'static str) {
        self.registry.counter(REFUSED, &[("code", code)]).increment(1);
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}
