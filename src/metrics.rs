//! What is counted, and how Prometheus reads it.
//!
//! Whoever has something to count is handed a [`Metrics`]; what it counts must not be known here beyond
//! a name and a number.
//!
//! | file | owns |
//! |---|---|
//! | `messages` | messages published, refused and served, over every transport |
//! | `schedules` | messages for later |
//! | `keys` | keys of buckets |
//! | `requests` | HTTP requests and connections |
//! | `sockets` | WebSockets |
//! | `devices` | devices that want to be let in |
//! | `readers` | live readers, by what carries them |
//! | `auth` | log-ins, and what was refused for who asked |
//! | `limits` | what limits refuse |
//! | `takes` | limits of applications |
//! | `presence` | members of rooms |
//! | `series` | points of series |
//! | `copies` | steps of copies |
//! | `slow` | what took long |
//! | `node` | readiness, and how the backend is |
//! | `work` | what consumers claim and settle |
//! | `traces` | spans |
//! | `registry` | how counts are described and registered |
//!
//! **Invariant:** labels are bounded: methods, patterns of routes, statuses, codes of problems and kinds
//! of endings. No topic, no address and no text that a client made ever becomes a label.

mod auth;
mod copies;
mod devices;
mod keys;
mod leases;
mod limits;
mod locks;
mod messages;
mod node;
mod presence;
mod readers;
mod registry;
mod requests;
mod schedules;
mod series;
mod slow;
mod sockets;
mod takes;
mod traces;
mod work;

use std::fmt;
use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use registry::Registry;
use requests::DURATION_BUCKETS;

pub use auth::Auth;
pub use copies::Copies;
pub use devices::{DeviceStep, Devices};
pub use keys::Keys;
pub use leases::Leases;
pub use limits::Limits;
pub use locks::Locks;
pub use messages::Messages;
pub use node::{Node, WorkSwept};
pub use presence::Presence;
pub use readers::{CountedReader, Readers, Transport};
pub use registry::{Description, Kind};
pub use requests::Requests;
pub use schedules::Schedules;
pub use series::Series;
pub use slow::Slow;
pub use sockets::{Ending, Sockets};
pub use takes::Takes;
pub use traces::Traces;
pub use work::Work;

/// The counts of one node. Cloning is cheap.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: Arc<PrometheusRecorder>,
    registry: Registry,
    handle: PrometheusHandle,
    messages: Messages,
    schedules: Schedules,
    keys: Keys,
    requests: Requests,
    sockets: Sockets,
    devices: Devices,
    readers: Readers,
    node: Node,
    limits: Limits,
    takes: Takes,
    series: Series,
    slow: Slow,
    copies: Copies,
    traces: Traces,
    auth: Auth,
    work: Work,
    locks: Locks,
    presence: Presence,
    leases: Leases,
}

impl Metrics {
    /// Returns counts that start at zero.
    ///
    /// # Panics
    /// Never: the buckets are a constant that is not empty.
    #[must_use]
    pub fn new() -> Self {
        let builder =
            PrometheusBuilder::new().set_buckets(&DURATION_BUCKETS).expect("there is at least one bucket");
        let recorder = Arc::new(builder.build_recorder());
        let registry = Registry::new(recorder.clone());
        // In the order of the document.
        Self(Arc::new(Inner {
            messages: Messages::new(&registry.about("Messages")),
            readers: Readers::new(&registry.about("Live readers")),
            sockets: Sockets::new(&registry.about("WebSockets")),
            requests: Requests::new(registry.about("Requests and connections")),
            slow: Slow::new(&registry.about("Requests and connections")),
            node: Node::new(registry.about("The node, its backend and its topics")),
            schedules: Schedules::new(&registry.about("Messages for later")),
            work: Work::new(&registry.about("Work")),
            keys: Keys::new(&registry.about("Keys")),
            presence: Presence::new(&registry.about("Presence")),
            leases: Leases::new(&registry.about("Leases")),
            locks: Locks::new(&registry.about("Locks")),
            takes: Takes::new(registry.about("Limits of applications")),
            series: Series::new(&registry.about("Series")),
            auth: Auth::new(registry.about("Who calls")),
            devices: Devices::new(&registry.about("Devices")),
            limits: Limits::new(registry.about("Limits of callers")),
            copies: Copies::new(&registry.about("Copies")),
            traces: Traces::new(&registry.about("Traces")),
            registry,
            handle: recorder.handle(),
            recorder,
        }))
    }

    /// Returns the recorder, for libraries that count through the `metrics` macros.
    #[must_use]
    pub fn recorder(&self) -> Arc<PrometheusRecorder> {
        Arc::clone(&self.0.recorder)
    }

    /// Folds samples into their histograms; without it they pile up until somebody reads them.
    pub fn upkeep(&self) {
        self.0.handle.run_upkeep();
    }

    /// Returns what each count is, in the order of their document.
    #[must_use]
    pub fn described(&self) -> Vec<Description> {
        self.0.registry.described()
    }

    /// Returns the counts in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.registry.without_withdrawn(self.0.handle.render())
    }

    /// Returns the counts of messages.
    #[must_use]
    pub fn messages(&self) -> &Messages {
        &self.0.messages
    }

    /// Returns the counts of messages for later.
    #[must_use]
    pub fn schedules(&self) -> &Schedules {
        &self.0.schedules
    }

    /// Returns the counts of keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Returns the counts of HTTP requests and connections.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.0.requests
    }

    /// Returns the counts of devices that want to be let in.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.0.devices
    }

    /// Returns the counts of live readers.
    #[must_use]
    pub fn readers(&self) -> &Readers {
        &self.0.readers
    }

    /// Returns the counts of spans.
    #[must_use]
    pub fn traces(&self) -> &Traces {
        &self.0.traces
    }

    /// Returns what is told of the node and its backend.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// Returns the counts of log-ins and refusals.
    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.0.auth
    }

    /// Returns the counts of limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Returns the counts of limits of applications.
    #[must_use]
    pub fn takes(&self) -> &Takes {
        &self.0.takes
    }

    /// Returns the counts of what took long.
    #[must_use]
    pub fn slow(&self) -> &Slow {
        &self.0.slow
    }

    /// Returns the counts of series.
    #[must_use]
    pub fn series(&self) -> &Series {
        &self.0.series
    }

    /// Returns the counts of copies.
    #[must_use]
    pub fn copies(&self) -> &Copies {
        &self.0.copies
    }

    /// Returns the counts of work.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.0.work
    }

    /// Returns the counts of locks.
    #[must_use]
    pub fn locks(&self) -> &Locks {
        &self.0.locks
    }

    /// Returns the counts of members of rooms.
    #[must_use]
    pub fn presence(&self) -> &Presence {
        &self.0.presence
    }

    /// Returns the counts of leases.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.0.leases
    }

    /// Returns the counts of WebSockets.
    #[must_use]
    pub fn sockets(&self) -> &Sockets {
        &self.0.sockets
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
