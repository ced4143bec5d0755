//! Live readers, by what carries them.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use metrics::Gauge;

use super::registry::Registry;

const READERS: &str = "tidemill_live_readers";

/// What carries messages to a live reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket that reads at least one topic.
    WebSocket,
    /// Server-sent events.
    Events,
    /// Lines of JSON.
    Lines,
    /// An answer that is waited for.
    Poll,
}

impl Transport {
    const ALL: [Self; 4] = [Self::WebSocket, Self::Events, Self::Lines, Self::Poll];

    /// Returns the value of the label `transport`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Events => "events",
            Self::Lines => "lines",
            Self::Poll => "poll",
        }
    }
}

/// The counts of live readers.
pub struct Readers([Count; Transport::ALL.len()]);

struct Count {
    transport: Transport,
    now: AtomicU32,
    gauge: Gauge,
}

/// One live reader, counted until it is dropped.
#[derive(Debug)]
pub struct CountedReader<'a>(&'a Readers, Transport);

impl Readers {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_gauge(
            READERS,
            &["transport"],
            "Live readers now, by `websocket`, `events`, `lines` and `poll`",
        );
        Self(Transport::ALL.map(|transport| Count {
            transport,
            now: AtomicU32::new(0),
            gauge: registry.labelled_gauge(READERS, &[("transport", transport.as_str())]),
        }))
    }

    /// Counts a reader until what is returned is dropped.
    #[must_use]
    pub fn enter(&self, transport: Transport) -> CountedReader<'_> {
        for count in self.of(transport) {
            count.gauge.set(count.now.fetch_add(1, Ordering::Relaxed) + 1);
        }
        CountedReader(self, transport)
    }

    fn of(&self, transport: Transport) -> impl Iterator<Item = &Count> {
        self.0.iter().filter(move |count| count.transport == transport)
    }
}

impl Drop for CountedReader<'_> {
    fn drop(&mut self) {
        for count in self.0.of(self.1) {
            count.gauge.set(count.now.fetch_sub(1, Ordering::Relaxed) - 1);
        }
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}
