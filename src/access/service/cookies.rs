//! Who shows a cookie. One that is not good is as if it were not there.
//!
//! It must not know for which requests a cookie counts.

use tidemill_proto::Timestamp;

use super::{Access, Found};
use crate::access::caller::Caller;
use crate::access::held::Held;
use crate::access::token::{TokenKind, TokenText};

impl Access {
    /// Tells who shows a cookie that this node does not know.
    pub(super) async fn identify_by_cookie(&self, text: &str) -> Caller {
        // Another node may have made it a moment ago. Where the storage does not tell, nobody has.
        let _ = self.catch_up().await;
        let (held, now) = (self.held(), self.clock().now());
        by_cookie(&held, text, now).unwrap_or_else(|| nobody(&held)).caller
    }
}

/// Tells who shows a cookie, as far as is held; `None` where no such log-in is.
pub(super) fn by_cookie(held: &Held, text: &str, now: Timestamp) -> Option<Found> {
    let Ok(token) = TokenText::parse(TokenKind::Cookie, text) else { return Some(nobody(held)) };
    let known = held.records.log_in(token.id())?;
    let until = known.good_until(&token).filter(|until| *until > now);
    Some(
        until
            .map_or_else(|| nobody(held), |until| Found { caller: known.caller.clone(), until: Some(until) }),
    )
}

fn nobody(held: &Held) -> Found {
    Found { caller: held.directory.anonymous(), until: None }
}
