//! The Valkey backend: messages are entries of streams, for any server that speaks the protocol.
//!
//! | file | owns |
//! |---|---|
//! | `target`, `options` | which server, and the bounds |
//! | `keys` | the name of everything in the server |
//! | `connect`, `line`, `role` | connections, and looking after them |
//! | `wire` | a connection of our own, for appends and doorbells |
//! | `lanes`, `sending` | appends: queueing, pipelines, outcomes |
//! | `messages`, `entry` | reading and trimming; the form of an entry |
//! | `live` | tails, news and doorbells, for live readers |
//! | `ring` | a ring of the doorbell as text |
//! | `topics` | descriptions and the index |
//! | `sweep` | age retention |
//! | `scripts` | steps that must be one |
//! | `failure` | the client library's errors, turned into the contract's |
//! | `health`, `check` | what the server tells of itself; the self-test |
//!
//! A node has four connections: `publish` for appends alone, `change` for everything else that changes
//! something, `read` for the rest, so that a large page never stands in front of a publish, and
//! `doorbell` for Pub/Sub. The first and the last are wires of our own, the others the client library's.
//!
//! **Invariant:** the client library is named in this room alone, and so is what goes over the wire.

use std::sync::Arc;
use std::time::Duration;

use glide::GlideClient;
use tidemill_proto::health::BackendHealth;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::storage::{StorageError, StorageLimits};

pub mod check;
mod connect;
mod entry;
mod failure;
mod health;
mod keys;
mod lanes;
mod line;
mod live;
mod messages;
pub mod options;
mod ring;
mod role;
mod scripts;
mod sending;
mod sweep;
pub mod target;
mod topics;
mod wire;

pub use options::{ClientIdentity, KeyForm, ValkeyOptions};
pub use target::{Target, TargetError};

/// Reads under way at the same time: enough to fill the connection, few enough that what they bring at
/// once (8 MiB each at the most, see `messages`) stays a bounded part of memory, here and in the
/// server's buffers.
const READS_MAX: usize = 32;

/// The Valkey backend.
#[derive(Debug)]
pub struct Valkey {
    target: Target,
    keys: keys::Keys,
    limits: StorageLimits,
    clock: Clock,
    sweep_interval: Duration,
    publish: Arc<role::Role<wire::Wire>>,
    change: Arc<role::Role<GlideClient>>,
    read: Arc<role::Role<GlideClient>>,
    lanes: lanes::Lanes,
    doorbell: Arc<live::Doorbell>,
    reads: Semaphore,
    timeout: Duration,
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
        let publish = Arc::new(role::Role::new("publish", &options));
        tracker.spawn(publish.clone().supervise(token.clone()));
        let change = Arc::new(role::Role::new("change", &options));
        let read = Arc::new(role::Role::new("read", &options));
        for role in [&change, &read] {
            tracker.spawn(role.clone().supervise(token.clone()));
        }
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
            lanes,
            doorbell,
            reads: Semaphore::new(READS_MAX),
            timeout: options.timeout,
            kept_health: Mutex::new(None),
            tracker,
            token,
        })
    }

    /// Waits until the connections stand; returns whether they did in time.
    pub async fn wait_until_ready(&self, within: Duration) -> bool {
        timeout(within, async {
            for mut up in [self.publish.watch(), self.change.watch(), self.read.watch()] {
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
        of(&self.publish).or_else(|| of(&self.change)).or_else(|| of(&self.read))
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

    /// Waits for a turn to read.
    async fn read_turn(&self) -> Result<SemaphorePermit<'_>, StorageError> {
        match timeout(self.timeout, self.reads.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed, so it is the time that has run out.
            Ok(Err(_)) | Err(_) => Err(StorageError::Overloaded),
        }
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        self.token.cancel();
    }
}
