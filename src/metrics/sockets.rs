//! WebSockets.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use metrics::{Counter, Gauge};

use super::registry::Registry;

const SENT: &str = "tidemill_ws_messages_sent_total";
const GAPS: &str = "tidemill_ws_gaps_sent_total";
const ENDED: &str = "tidemill_ws_ended_total";

/// How a WebSocket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client has closed it.
    Client,
    /// The client broke the protocol.
    Protocol,
    /// The client gave no sign of life.
    Silent,
    /// A message of the client did not arrive whole.
    Late,
    /// There was no room for what the client sent.
    Overloaded,
    /// The client took nothing.
    Slow,
    /// The connection was gone.
    Lost,
    /// The node stopped.
    Drained,
    /// The session was ended by the relay.
    Ended,
}

impl Ending {
    const ALL: [Self; 9] = [
        Self::Client,
        Self::Protocol,
        Self::Silent,
        Self::Late,
        Self::Overloaded,
        Self::Slow,
        Self::Lost,
        Self::Drained,
        Self::Ended,
    ];

    /// Returns the value of the label `how`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Protocol => "protocol",
            Self::Silent => "silent",
            Self::Late => "late",
            Self::Overloaded => "overloaded",
            Self::Slow => "slow",
            Self::Lost => "lost",
            Self::Drained => "drained",
            Self::Ended => "ended",
        }
    }
}

/// The counts of all WebSockets of a node.
pub struct Sockets {
    open: AtomicU32,
    open_gauge: Gauge,
    sent: Counter,
    gaps: Counter,
    ended: [Counter; Ending::ALL.len()],
}

impl Sockets {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(SENT, &[], "Messages written to WebSockets");
        registry.describe_counter(GAPS, &[], "Gaps told to readers on WebSockets");
        registry.describe_counter(ENDED, &["how"], "WebSockets that ended: by the `client`, for a broken `protocol`, `silent`, `late` with a message, `overloaded`, `slow`, `lost`, `drained`, or `ended` by the relay");
        Self {
            open: AtomicU32::new(0),
            open_gauge: registry
                .gauge("tidemill_ws_sessions", "WebSockets open now; they count as connections, too"),
            sent: registry.counter(SENT, &[]),
            gaps: registry.counter(GAPS, &[]),
            ended: Ending::ALL.map(|ending| registry.counter(ENDED, &[("how", ending.as_str())])),
        }
    }

    /// Counts a WebSocket that has begun.
    pub fn opened(&self) {
        self.open_gauge.set(self.open.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// Counts a WebSocket that has ended.
    pub fn ended(&self, how: Ending) {
        self.open_gauge.set(self.open.fetch_sub(1, Ordering::Relaxed) - 1);
        for (ending, counter) in Ending::ALL.into_iter().zip(&self.ended) {
            if ending == how {
                counter.increment(1);
            }
        }
    }

    /// Counts what was written.
    pub fn sent(&self, messages: u64, gaps: u64) {
        self.sent.increment(messages);
        if gaps > 0 {
            self.gaps.increment(gaps);
        }
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets").finish_non_exhaustive()
    }
}
