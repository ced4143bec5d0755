//! The Valkey backend: messages are entries of streams, for any server that speaks the protocol.
//!
//! | file | owns |
//! |---|---|
//! | `routing` | the contract, answered by the shard of a topic or by all |
//! | `target`, `options` | which server, and the bounds |
//! | `keys`, `slots` | the name of everything in the server; its part of a cluster |
//! | `layout` | whether what a server has can be read by this release |
//! | `homes` | what tells which of several servers has something |
//! | `cluster` | several servers: which has what |
//! | `resolver`, `finding` | which server is dialled for a target; where that is not told by the target alone |
//! | `login` | as whom, and a password that changes |
//! | `connect`, `connection`, `supervised` | connections, and looking after them |
//! | `resp` | a connection of our own |
//! | `control` | the client library, supervised |
//! | `lanes` | appends: queueing, and when a pipeline is sent |
//! | `pipeline` | what lanes ask of whoever sends, and what comes back |
//! | `sending` | appends as requests, replies as outcomes |
//! | `durable`, `waits` | what messages can be beyond confirmed; waiting until they are on the disk, or with replicas |
//! | `messages`, `entry` | pages of messages; the form of an entry |
//! | `reads`, `facts` | asking for entries, and for what the server knows beside them |
//! | `info`, `replication` | what the server tells of itself, as text; what of its replication |
//! | `replica` | pages of history from a replica |
//! | `live` | tails and changes, for live readers |
//! | `doorbell`, `notice` | hints between nodes; one of them as text |
//! | `marker` | which of the topics of its name a stream is |
//! | `acked`, `losing` | what the server has confirmed; what of that it has lost |
//! | `topics`, `description`, `held` | topics; what is kept of how one is described; what its stream holds |
//! | `index` | what lists topics, buckets and series, and what is due in which of them |
//! | `refusing` | which topics refuse what has no room, as far as is known |
//! | `copying` | topics that are copied from one storage to another |
//! | `unfinished`, `misplaced` | what is not whole of a copy; what lives elsewhere by the settings |
//! | `trim`, `trimming` | removing what is asked for; when what a topic does not keep is removed |
//! | `sweep` | age retention |
//! | `schedules`, `recurring` | what waits for later, once, or again and again |
//! | `waiting_body`, `promoting` | the form in which it does; how it is published |
//! | `scripted` | scripts over a connection of our own |
//! | `access` | documents on who may do what |
//! | `records` | records of who is let in |
//! | `calls` | scripts over a connection of our own, many at a time |
//! | `work` | groups of consumers |
//! | `locks` | locks, and who waits for them |
//! | `leases` | what is kept alive together |
//! | `limits`, `tickets`, `nodes` | allowances, tickets, and which relays share the server |
//! | `takes`, `series` | limits of applications, and series of measurements |
//! | `scripts` | steps that must be one |
//! | `failure` | the server's errors, turned into the contract's |
//! | `health`, `rights`, `check` | what the server tells of itself; what its user lacks; the self-test |
//! | `warned` | what is said of several servers |
//!
//! # Two roads
//! Messages pass over connections of our own, one for each kind of work, so that none stands behind another's: `publish`
//! for appends alone, `read` for what live readers ask, `page` for what may be large, `work` for groups and indexes, and `doorbell`
//! for Pub/Sub. That is the data plane. Everything else (to make, describe, delete and trim topics, sweeps,
//! lists, counts, health, the self-test) goes over `change`, a client of the library: the control plane. A
//! node has these six connections to a server, one to a replica where it is to read from there, and one for each durability
//! beyond what the server confirms that was asked for. With its lanes and its doorbell they are a shard. A server that stands
//! alone is one shard, and so is each of several, or each primary of a cluster.
//!
//! **Invariant:** the client library is named by the control plane alone: `control`, `connect`, `topics`, `held`,
//! `trim`, `sweep`, `access`, `records`, `limits`, `tickets`, `nodes`, `health`, `check`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::NodeId;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use cluster::others::Others;
use cluster::places::Places;
use cluster::seat::Seat;
use connection::{Connection, Work};
use homes::Lives;
use supervised::Supervised;

use crate::clock::Clock;
use crate::storage::{Backend, Condition, StorageLimits, Unfit};

mod access;
mod acked;
mod buckets;
mod calls;
pub mod check;
mod cluster;
mod connect;
mod connection;
mod control;
mod copying;
mod description;
mod doorbell;
mod durable;
mod ending;
mod entry;
mod facts;
mod failure;
mod finding;
mod health;
mod held;
mod homes;
mod index;
mod info;
mod kept;
mod keys;
mod lanes;
mod latest;
mod layout;
mod leases;
mod limits;
mod live;
mod locks;
mod login;
mod losing;
mod marker;
mod messages;
mod misplaced;
mod new_topic;
mod nodes;
mod notice;
pub mod options;
mod pipeline;
mod promoting;
mod reads;
mod records;
mod recurring;
mod refusing;
mod replica;
mod replication;
pub mod resolver;
mod resp;
mod rights;
mod routing;
mod runs;
mod scanning;
mod schedules;
mod scheduling;
mod scripted;
mod scripts;
mod sending;
mod series;
mod slots;
mod slowlog;
mod supervised;
mod sweep;
mod takes;
pub mod target;
mod tickets;
mod topics;
mod trim;
mod trimming;
mod unfinished;
mod waiting_body;
mod waits;
mod warned;
mod work;

pub use login::{Login, PasswordFile};
pub use options::{DurabilityRule, KeyForm, Placed, ValkeyOptions};
pub use resolver::{Address, Resolver};
pub use target::{Target, TargetError};
pub use tidemill_tls::ClientIdentity;

/// How often it is looked whether a server has what this release cannot read: connections that are refused are tried again
/// as often.
const LOOKED_EVERY: Duration = Duration::from_millis(200);

/// The Valkey backend.
#[derive(Debug)]
pub struct Valkey {
    places: Arc<Places>,
    /// Within which time messages are removed of topics that say nothing of it.
    retention: Option<Duration>,
    tracker: TaskTracker,
    token: CancellationToken,
}

/// A shard: everything that a node has for one server.
#[derive(Debug)]
struct Shard {
    target: Target,
    /// What it knows of the others, where there are several.
    others: Option<Others>,
    options: ValkeyOptions,
    keys: keys::Keys,
    limits: StorageLimits,
    clock: Clock,
    sweep_interval: Duration,
    publish: Arc<Supervised<resp::RespConnection>>,
    change: Arc<control::Control>,
    indexes: Arc<index::Indexes>,
    read: reads::Reads,
    page: reads::Reads,
    /// Where pages may be read from a replica.
    replica: Option<replica::Replica>,
    lanes: lanes::Lanes,
    sender: Arc<sending::Sender>,
    /// Which topics refuse what has no room.
    refusing: Arc<refusing::Refusing>,
    /// When topics are trimmed behind what is acknowledged.
    acknowledged: trimming::Countdowns,
    calls: calls::Calls,
    waits: waits::Waits,
    doorbell: Arc<doorbell::Doorbell>,
    waiting: schedules::Waiting,
    kept_health: Mutex<Option<(Instant, Condition)>>,
    /// Whether the user may not ask for the server's settings.
    settings_refused: AtomicBool,
    /// How much is not whole of copies, as it was told last, and when.
    kept_unfinished: Mutex<Option<(Instant, u64)>>,
}

impl Valkey {
    /// Starts connecting as this node and returns at once: the server may come later.
    #[must_use]
    pub fn connect(node: NodeId, options: ValkeyOptions, limits: StorageLimits, clock: Clock) -> Arc<Self> {
        let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
        let found = |placed: &Placed| (placed.topics.clone(), finding::found(options.of_placed(placed)));
        let beside: Vec<_> = options.placed.iter().map(found).collect();
        let options = finding::found(options);
        for server in std::iter::once(&options).chain(beside.iter().map(|(_, options)| options)) {
            tracker.spawn(token.clone().run_until_cancelled_owned(finding::follow(server.clone())));
        }
        let retention = limits.retention;
        let places = Places::start(node, (options, beside), limits, clock, &tracker, &token);
        Arc::new(Self { places, retention, tracker, token })
    }

    /// Returns what a server has said that refuses the login, a right that connecting needs, or the database: to go on
    /// trying does not help. `None` where none does.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let shards = self.shards();
        let mut why: Vec<_> = shards.iter().filter_map(|shard| shard.why_down()).collect();
        if shards.is_empty() {
            why.push(self.places.last_error());
        }
        why.into_iter().find(|why| failure::refuses_connecting(why))
    }

    /// Returns all shards that there are.
    fn shards(&self) -> Vec<Arc<Shard>> {
        self.places.current().shards.clone()
    }
}

/// Does something at the shard of what it is about, or at any, and again where that is found to live at another by then.
macro_rules! at {
    ($self:expr, $what:expr, $shard:ident => $operation:expr) => {
        at!(in $self.places.tries(Some($self.places.home_of($what))), $shard => $operation)
    };
    ($self:expr, $shard:ident => $operation:expr) => {
        at!(in $self.places.tries(None), $shard => $operation)
    };
    (in $tries:expr, $shard:ident => $operation:expr) => {{
        let mut tries = $tries;
        loop {
            let $shard = match tries.shard() {
                Ok(shard) => shard,
                Err(error) => break Err(error),
            };
            match $operation {
                Err(error) => {
                    if !tries.again(&error).await {
                        break Err(error);
                    }
                }
                done => break done,
            }
        }
    }};
}
use at;

impl Shard {
    fn connect(
        node: NodeId,
        options: ValkeyOptions,
        others: Option<Others>,
        limits: StorageLimits,
        clock: Clock,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Self {
        let publish = Arc::new(Supervised::new("publish", Work::Writes, &options));
        let change = Arc::new(Supervised::new("change", Work::Other, &options));
        let read = Arc::new(Supervised::new("read", Work::Other, &options));
        let page = Arc::new(Supervised::new("page", Work::Other, &options));
        let work = Arc::new(Supervised::new("work", Work::Other, &options));
        for connection in [&publish, &read, &page, &work] {
            tracker.spawn(connection.clone().supervise(token.clone()));
        }
        tracker.spawn(change.clone().supervise(token.clone()));
        let (weights, asking) = (Arc::new(reads::Weights::new()), Arc::new(facts::Asking::new()));
        let reads =
            |connection| reads::Reads::new(connection, options.timeout, weights.clone(), asking.clone());
        let replica = options.reads_replicas.then(|| replica_of(&read, &options, &weights, tracker, token));
        let (read, page) = (reads(read), reads(page));
        let keys = keys::Keys::new(options.key_form);
        let seat = others.as_ref().and_then(Others::seat).cloned();
        let doorbell = Arc::new(doorbell::Doorbell::new(node, keys, options.target.database, seat.clone()));
        tracker.spawn(doorbell.clone().keep(options.clone(), token.clone()));
        let indexes = Arc::new(index::Indexes::new(&work, others.as_ref(), keys));
        let (max, bell) = (limits.topics_max, doorbell.clone());
        let creator = topics::Creator::new(change.clone(), indexes.clone(), bell, keys, max);
        let window = limits.idempotency_window;
        let (bell, time) = (doorbell.clone(), clock.clone());
        let sender = sending::Sender::new(publish.clone(), creator, bell, keys, time, window, seat);
        let losing = losing::Losing::new(publish.clone(), doorbell.clone(), keys, sender.acked());
        tracker.spawn(token.clone().run_until_cancelled_owned(losing.watch()));
        let (refusing, sender) = (sender.refusing(), Arc::new(sender));
        let lanes = lanes::Lanes::start(&sender, &options, tracker, token);
        let calls = calls::Calls::start(work, options.timeout, tracker, token);
        let waits = waits::Waits::new(publish.clone(), &options, tracker, token);
        Self {
            target: options.target.clone(),
            others,
            keys,
            limits,
            clock,
            sweep_interval: options.sweep_interval,
            options,
            publish,
            change,
            indexes,
            read,
            page,
            replica,
            lanes,
            sender,
            refusing,
            acknowledged: trimming::Countdowns::new(),
            calls,
            waits,
            doorbell,
            waiting: schedules::Waiting::new(),
            kept_health: Mutex::new(None),
            settings_refused: AtomicBool::new(false),
            kept_unfinished: Mutex::new(None),
        }
    }

    /// Waits until the connections stand, but for that to a replica.
    async fn ready(&self) {
        let (read, page, work) = (self.read.connection(), self.page.connection(), self.calls.connection());
        let of_changes = self.change.status();
        for mut up in [self.publish.status(), of_changes, read.status(), page.status(), work.status()] {
            // The sender lives as long as the shard, so waiting cannot end without an answer.
            let _ = up.wait_for(|up| *up).await;
        }
    }

    /// Returns why the server cannot be used, if so.
    fn why_down(&self) -> Option<String> {
        fn of<C: Connection>(connection: &Supervised<C>) -> Option<String> {
            (!connection.is_up()).then(|| connection.last_error())
        }
        let (read, page, work) = (self.read.connection(), self.page.connection(), self.calls.connection());
        let of_ours = || of(read).or_else(|| of(page)).or_else(|| of(work));
        of(&self.publish).or_else(|| of(&self.change)).or_else(of_ours)
    }

    /// Returns how often connections to the server were lost.
    fn losses(&self) -> u64 {
        let (read, page) = (self.read.connection().losses(), self.page.connection().losses());
        let work = self.calls.connection().losses();
        self.publish.losses() + self.change.losses() + read + page + work
    }

    fn is_up(&self) -> bool {
        self.why_down().is_none()
    }

    /// Returns where it is served now, in a cluster.
    fn seat(&self) -> Option<&Arc<Seat>> {
        self.others.as_ref().and_then(Others::seat)
    }

    /// Returns a slot that it has, in a cluster.
    fn own_slot(&self) -> Option<u16> {
        self.seat().and_then(|seat| seat.own_slot())
    }

    /// Returns what it is called where there are several: where its server is.
    fn name(&self) -> Option<String> {
        self.others.as_ref().map(|_| self.options.place())
    }

    /// Whether something lives at it.
    fn has(&self, what: &impl Lives) -> bool {
        self.others.as_ref().is_none_or(|others| others.is_own(what))
    }

    /// Whether it is served at an address.
    fn is_at(&self, address: &Address) -> bool {
        self.seat().is_some_and(|seat| *seat.address() == *address)
    }
}

/// Returns what reads from a replica of the primary behind a connection.
fn replica_of(
    primary: &Arc<Supervised<resp::RespConnection>>,
    options: &ValkeyOptions,
    weights: &Arc<reads::Weights>,
    tracker: &TaskTracker,
    token: &CancellationToken,
) -> replica::Replica {
    let replicas = Arc::new(replica::Replicas::of(primary.clone()));
    let options = ValkeyOptions { resolver: replicas.clone(), ..options.clone() };
    let connection = Arc::new(Supervised::new("replica", Work::Replica, &options));
    tracker.spawn(connection.clone().supervise(token.clone()));
    let asking = Arc::new(facts::Asking::new());
    replica::Replica::new(reads::Reads::new(connection, options.timeout, weights.clone(), asking), replicas)
}

#[async_trait]
impl Backend for Valkey {
    async fn ready(&self, within: Duration) -> bool {
        let all = async {
            self.places.found().await;
            for shard in self.shards() {
                shard.ready().await;
            }
        };
        timeout(within, all).await.is_ok()
    }

    async fn examine(&self, strict: bool) -> Result<Vec<String>, Unfit> {
        let shards = self.shards();
        let (mut warnings, mut known) = (Vec::new(), HashMap::new());
        for shard in &shards {
            let name = shard.name();
            let said = shard.examine(strict).await;
            let of_it = |unfit: Unfit| match &name {
                Some(name) => Unfit::new(format!("{name}: {unfit}")),
                None => unfit,
            };
            warnings.extend(said.map_err(of_it)?.into_iter().map(|warning| (name.clone(), warning)));
            if let (Some(name), Ok(Some(identity))) = (name, shard.identity().await)
                && let Some(other) = known.insert(identity, name.clone())
            {
                return Err(Unfit::new(format!("{other} and {name} {}", health::ONE_SERVER)));
            }
        }
        Ok(warned::by_server(shards.len(), warnings))
    }

    async fn unreadable(&self) -> Unfit {
        loop {
            let down = self.shards().into_iter().find_map(|shard| {
                let why = shard.why_down().filter(|why| layout::is_newer(why))?;
                Some(shard.name().map_or_else(|| why.clone(), |name| format!("{name}: {why}")))
            });
            if let Some(why) = down {
                return Unfit::new(why);
            }
            sleep(LOOKED_EVERY).await;
        }
    }

    async fn close(&self) {
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
