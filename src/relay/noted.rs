//! What callers do over a connection that stays, and what is noted of it where it takes long.
//!
//! It must not know what is done.

use std::time::Duration;

use tidemill_proto::TopicName;
use tidemill_proto::slow::SlowKind;

use super::Gate;
use crate::slow::{Operation, Spent, Times};

impl Gate {
    /// Notes an operation of this caller, if it took long.
    pub fn note_slow(
        &self,
        kind: SlowKind,
        operation: &'static str,
        topic: Option<&TopicName>,
        total: Duration,
        spent: Spent,
    ) {
        let relay = self.relay();
        if !relay.slow.is_slow(total) {
            return;
        }
        let operation = Operation {
            kind,
            operation: operation.to_owned(),
            topic: topic.cloned(),
            caller: Some(self.caller().who().to_string()),
            request_id: None,
            status: None,
        };
        relay.slow.keep(operation, Times { now: relay.clock.now(), total, spent, write: None });
    }
}
