//! The Valkey backend: messages are entries of streams, for any server that speaks the protocol.
//!
//! | file | owns |
//! |---|---|
//! | `target`, `options` | which server, and the bounds |
//! | `keys` | the name of everything in the server |
//! | `connect`, `line`, `role` | connections, and looking after them |
//! | `wire` | a connection of our own |
//! | `control` | the client library, as a role holds it |
//! | `lanes`, `sending` | appends: queueing, pipelines, outcomes |
//! | `messages`, `entry` | pages of messages; the form of an entry |
//! | `reads`, `facts` | asking for entries, and for what the server knows beside them |
//! | `live` | tails, news and doorbells, for live readers |
//! | `ring` | a ring of the doorbell as text |
//! | `topics`, `trim` | descriptions and the index; trims that are asked for |
//! | `sweep` | age retention |
//! | `scripts` | steps that must be one |
//! | `failure` | the server's errors, turned into the contract's |
//! | `health`, `check` | what the server tells of itself; the self-test |
//!
//! # Two roads
//! Messages pass over wires of our own, one for each role, so that none stands behind another's: `publish`
//! for appends alone, `read` for what live readers ask, `page` for what may be large, and `doorbell` for
//! Pub/Sub. That is the data plane. Everything else (to make, describe, delete and trim topics, sweeps,
//! lists, counts, health, the self-test) goes over `change`, a client of the library: the control plane. A
//! node has these five connections.
//!
//! **Invariant:** the client library is named by the control plane alone: `control`, `connect`, `topics`,
//! `trim`, `sweep`, `health`, `check`.

use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::health::BackendHealth;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use line::Work;

use crate::clock::Clock;
use crate::storage::StorageLimits;

pub mod check;
mod connect;
mod control;
mod entry;
mod facts;
mod failure;
mod health;
mod keys;
mod lanes;
mod line;
mod live;
mod messages;
pub mod options;
mod reads;
mod ring;
mod role;
mod scripts;
mod sending;
mod sweep;
pub mod target;
mod topics;
mod trim;
mod wire;

pub use options::{KeyForm, ValkeyOptions};
pub use target::{Target, TargetError};
pub use tidemill_tls::ClientIdentity;

/// The Valkey backend.
#[derive(Debug)]
pub struct Valkey {
    target: Target,
    keys: keys::Keys,
    limits: StorageLimits,
    clock: Clock,
    sweep_interval: Duration,
    publish: Arc<role::Role<wire::Wire>>,
    change: Arc<control::Control>,
    read: reads::Reads,
    page: reads::Reads,
    lanes: lanes::Lanes,
    doorbell: Arc<live::Doorbell>,
    kept_health: Mutex<Option<(Instant, BackendHealth)>>,
    tracker: TaskTracker,
    token: CancellationToken,
}

/// The server would not keep messages.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

impl Valkey {
    /// Starts connecting and returns at once: the server may come later.
    #[must_use]
    pub fn connect(options: ValkeyOptions, limits: StorageLimits, clock: Clock) -> Arc<Self> {
        let tracker = TaskTracker::new();
        let token = CancellationToken::new();
        let publish = Arc::new(role::Role::new("publish", Work::Writes, &options));
        let change = Arc::new(role::Role::new("change", Work::Other, &options));
        let read = Arc::new(role::Role::new("read", Work::Other, &options));
        let page = Arc::new(role::Role::new("page", Work::Other, &options));
        for role in [&publish, &read, &page] {
            tracker.spawn(role.clone().supervise(token.clone()));
        }
        tracker.spawn(change.clone().supervise(token.clone()));
        let (weights, asking) = (Arc::new(reads::Weights::new()), Arc::new(facts::Asking::new()));
        let reads = |role| reads::Reads::new(role, options.timeout, weights.clone(), asking.clone());
        let (read, page) = (reads(read), reads(page));
        let keys = keys::Keys::new(options.key_form);
        let doorbell = Arc::new(live::Doorbell::new(keys, options.target.database));
        tracker.spawn(doorbell.clone().keep(options.clone(), token.clone()));
        let creator = topics::Creator::new(change.clone(), keys, limits.topics_max);
        let sender =
            Arc::new(sending::Sender::new(publish.clone(), creator, doorbell.clone(), keys, &limits));
        let lanes = lanes::Lanes::start(&sender, &options, &tracker, &token);
        Arc::new(Self {
            target: options.target,
            keys,
            limits,
            clock,
            sweep_interval: options.sweep_interval,
            publish,
            change,
            read,
            page,
            lanes,
            doorbell,
            kept_health: Mutex::new(None),
            tracker,
            token,
        })
    }

    /// Waits until the connections stand; returns whether they did in time.
    pub async fn wait_until_ready(&self, within: Duration) -> bool {
        timeout(within, async {
            let (read, page) = (self.read.role(), self.page.role());
            for mut up in [self.publish.watch(), self.change.watch(), read.watch(), page.watch()] {
                // The sender lives in the role, so waiting cannot end without an answer.
                let _ = up.wait_for(|up| *up).await;
            }
        })
        .await
        .is_ok()
    }

    /// Returns why the backend cannot be used, if so.
    fn why_down(&self) -> Option<String> {
        fn of<L: line::Line>(role: &role::Role<L>) -> Option<String> {
            (!role.is_up()).then(|| role.last_error())
        }
        let (read, page) = (self.read.role(), self.page.role());
        of(&self.publish).or_else(|| of(&self.change)).or_else(|| of(read)).or_else(|| of(page))
    }

    /// Returns what the log should say about the server, or why it must not be used.
    ///
    /// # Errors
    /// In strict mode: the server can delete messages by itself, or could not be asked.
    pub async fn examine(&self, strict: bool) -> Result<Vec<String>, Unfit> {
        let info = match self.server_info().await {
            Ok(info) => info,
            Err(error) if strict => {
                return Err(Unfit(format!(
                    "strict: the server could not be examined: {}",
                    failure::causes_of(&error)
                )));
            }
            Err(error) => {
                return Ok(vec![format!("the server could not be examined: {}", failure::causes_of(&error))]);
            }
        };
        match info.eviction_policy() {
            Some("noeviction") => {}
            Some(policy) if strict => {
                return Err(Unfit(format!(
                    "strict: the server's maxmemory-policy is {policy}, which {}; set it to noeviction",
                    health::harm_of(policy)
                )));
            }
            None if strict => {
                return Err(Unfit("strict: the server does not tell its maxmemory-policy".to_owned()));
            }
            _ => {}
        }
        let mut warnings = info.warnings();
        match self.hidden_topic().await {
            Ok(None) => {}
            Ok(Some(topic)) => warnings.push(format!(
                "the server has topics that this node does not see, as their keys have the other form: `{}` and not `{}`; give all nodes the same TIDEMILL_VALKEY_KEY_FORM",
                self.keys.other().stream(&topic),
                self.keys.stream(&topic),
            )),
            Err(error) => warnings
                .push(format!("the server's keys could not be looked at: {}", failure::causes_of(&error))),
        }
        Ok(warnings)
    }

    /// Closes the connections. What is queued is answered as not sent.
    pub async fn close(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        self.token.cancel();
    }
}
