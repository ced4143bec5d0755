//! Messages, over every transport.

use std::collections::HashMap;
use std::fmt;

use metrics::Counter;
use tidemill_proto::Code;

use super::registry::Registry;

const PUBLISHED: &str = "tidemill_messages_published_total";
const PUBLISHED_BYTES: &str = "tidemill_messages_published_bytes_total";
const DURABLE: &str = "tidemill_messages_durable_total";
const REJECTED: &str = "tidemill_messages_rejected_total";
const SERVED: &str = "tidemill_messages_served_total";

/// The counts of messages.
pub struct Messages {
    accepted: Counter,
    replayed: Counter,
    accepted_bytes: Counter,
    durable: Counter,
    served: Counter,
    rejected: HashMap<Code, Counter>,
}

impl Messages {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(
            PUBLISHED,
            &["result"],
            "Messages `accepted`, and `replayed` from their key",
        );
        registry.describe_counter(PUBLISHED_BYTES, &[], "Bytes of payload and metadata kept");
        registry.describe_counter(DURABLE, &[], "Messages that were as durable as was asked when they were answered, where that is more than `accepted`");
        registry.describe_counter(REJECTED, &["code"], "Messages refused, by the code of the problem");
        registry.describe_counter(SERVED, &[], "Messages served over HTTP: in pages, one by one, and live");
        let published = |result| registry.counter(PUBLISHED, &[("result", result)]);
        let rejected = |code: &Code| (*code, registry.counter(REJECTED, &[("code", code.as_str())]));
        Self {
            accepted: published("accepted"),
            replayed: published("replayed"),
            accepted_bytes: registry.counter(PUBLISHED_BYTES, &[]),
            durable: registry.counter(DURABLE, &[]),
            served: registry.counter(SERVED, &[]),
            rejected: Code::ALL.iter().map(rejected).collect(),
        }
    }

    /// Counts a message of so many bytes that was kept, or whose first answer was given again.
    pub fn published(&self, bytes: usize, replayed: bool) {
        if replayed {
            self.replayed.increment(1);
        } else {
            self.accepted.increment(1);
            self.accepted_bytes.increment(bytes as u64);
        }
    }

    /// Counts a message that was as durable as was asked.
    pub fn durable(&self) {
        self.durable.increment(1);
    }

    /// Counts a message that was refused.
    pub fn rejected(&self, code: Code) {
        if let Some(counter) = self.rejected.get(&code) {
            counter.increment(1);
        }
    }

    /// Counts messages that were served over HTTP.
    pub fn served(&self, messages: usize) {
        self.served.increment(messages as u64);
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}
