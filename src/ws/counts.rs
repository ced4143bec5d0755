//! What is counted. Labels are bounded: outcomes, codes of problems and kinds of endings.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder, SharedString};
use tidemill_proto::Code;

use crate::relay::Failure;

const METADATA: Metadata<'static> = Metadata::new("tidemill", Level::INFO, None);

/// The counts of all connections of a node. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Counts(Arc<Inner>);

struct Inner {
    open: AtomicU32,
    open_gauge: Gauge,
    sent: Counter,
    gaps: Counter,
    accepted: Counter,
    replayed: Counter,
    accepted_bytes: Counter,
    rejected: HashMap<Code, Counter>,
    ended: HashMap<&'static str, Counter>,
}

/// The kinds of endings.
pub(super) const ENDINGS: [&str; 6] = ["client", "protocol", "silent", "slow", "lost", "drained"];

impl Counts {
    pub(super) fn new(recorder: &dyn Recorder) -> Self {
        let describe = |name: &'static str, text| {
            recorder.describe_counter(name.into(), None, SharedString::const_str(text));
        };
        describe("tidemill_ws_messages_sent_total", "Messages written to WebSockets");
        describe("tidemill_ws_gaps_sent_total", "Gaps told to readers on WebSockets");
        describe("tidemill_ws_ended_total", "WebSockets that ended, by how");
        let text = SharedString::const_str("WebSockets open now");
        recorder.describe_gauge("tidemill_ws_sessions".into(), None, text);
        let counter =
            |name, labels: Vec<Label>| recorder.register_counter(&Key::from_parts(name, labels), &METADATA);
        let labelled = |name, label, value| counter(name, vec![Label::from_static_parts(label, value)]);
        // The recorder gives the same counter for the same name: publishes count together, however
        // they came.
        let published = |result| labelled("tidemill_messages_published_total", "result", result);
        let rejected =
            |code: &Code| (*code, labelled("tidemill_messages_rejected_total", "code", code.as_str()));
        Self(Arc::new(Inner {
            open: AtomicU32::new(0),
            open_gauge: recorder.register_gauge(&Key::from_static_name("tidemill_ws_sessions"), &METADATA),
            sent: counter("tidemill_ws_messages_sent_total", Vec::new()),
            gaps: counter("tidemill_ws_gaps_sent_total", Vec::new()),
            accepted: published("accepted"),
            replayed: published("replayed"),
            accepted_bytes: counter("tidemill_messages_published_bytes_total", Vec::new()),
            rejected: Code::ALL.iter().map(rejected).collect(),
            ended: ENDINGS
                .into_iter()
                .map(|how| (how, labelled("tidemill_ws_ended_total", "how", how)))
                .collect(),
        }))
    }

    pub(super) fn opened(&self) {
        self.0.open_gauge.set(self.0.open.fetch_add(1, Ordering::Relaxed) + 1);
    }

    pub(super) fn ended(&self, how: &'static str) {
        self.0.open_gauge.set(self.0.open.fetch_sub(1, Ordering::Relaxed) - 1);
        if let Some(counter) = self.0.ended.get(how) {
            counter.increment(1);
        }
    }

    pub(super) fn sent(&self, messages: u64, gaps: u64) {
        self.0.sent.increment(messages);
        if gaps > 0 {
            self.0.gaps.increment(gaps);
        }
    }

    pub(super) fn published(&self, bytes: usize, replayed: bool) {
        if replayed {
            self.0.replayed.increment(1);
        } else {
            self.0.accepted.increment(1);
            self.0.accepted_bytes.increment(bytes as u64);
        }
    }

    pub(super) fn rejected(&self, failure: &Failure) {
        if let Some(counter) = self.0.rejected.get(&failure.code()) {
            counter.increment(1);
        }
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").finish_non_exhaustive()
    }
}
