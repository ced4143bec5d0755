//! What a node does by itself to know who may do what: it looks for changes, ends the sessions of who may not go on,
//! and tells when tokens were used.
//!
//! It must not know who shows what.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Access;
use crate::access::caller::{Caller, Who};
use crate::chance::random;

/// How often the storage is asked whether something has changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the storage is asked who holds the tickets that something is open with here.
const TICKETS_SEEN_EVERY: Duration = Duration::from_secs(3);
/// How often the storage is told when tokens were used.
const USES_KEPT_EVERY: Duration = Duration::from_mins(1);
/// Of how many tokens that is told at once.
const USES_KEPT_AT_ONCE: usize = 500;

impl Access {
    /// Tells the storage when tokens were used.
    async fn keep_uses(&self) {
        let mut edits = self.held().uses_to_keep();
        while !edits.is_empty() {
            let some = edits.split_off(edits.len().saturating_sub(USES_KEPT_AT_ONCE));
            if let Err(error) = self.0.records.change_records(random().max(1), some).await {
                tracing::debug!(%error, "it could not be kept when tokens were used last");
                return;
            }
        }
    }

    /// Ends the sessions of who may not go on as it is.
    pub(in crate::access) fn end_sessions(&self) {
        let held = self.0.held.load();
        let (now, is_fresh) = (self.0.clock.now(), self.is_fresh(Instant::now()));
        let is_over = |caller: &Caller| {
            !matches!(caller.who(), Who::Anyone)
                && (!is_fresh
                    || !held.is_current(caller, now)
                    || !self.is_signed(caller)
                    || caller.expires_at().is_some_and(|at| at <= now))
        };
        self.0.sessions.note_away(!is_fresh);
        let ended = self.0.sessions.end_of(is_over);
        if ended > 0 {
            tracing::info!(
                sessions = ended,
                "sessions ended, because their callers may not go on as they are"
            );
        }
    }

    pub(super) async fn watch(self) {
        let mut is_told = false;
        let (mut uses_kept, mut tickets_seen) = (Instant::now(), Instant::now());
        loop {
            match self.refreshed().await {
                Ok(_) => is_told = false,
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            error,
                            "who may do what cannot be looked up; what was known holds for a while"
                        );
                    }
                }
            }
            self.end_sessions();
            if tickets_seen.elapsed() >= TICKETS_SEEN_EVERY {
                tickets_seen = Instant::now();
                // What is not told now is told soon.
                let _ = self.look_at_tickets().await;
            }
            if uses_kept.elapsed() >= USES_KEPT_EVERY {
                uses_kept = Instant::now();
                self.keep_uses().await;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}
