//! Draining on demand: the node lets go of its clients before it is stopped.
//!
//! It owns what a node tells of that, and that it is told to begin. It must not know how connections end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::Uri;
use parking_lot::Mutex;
use tidemill_proto::drain::{Drain, DrainStage};
use tidemill_proto::{Code, NodeId, Problem};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::routes::{Concern, Needs};
use super::unconditional::Unconditional;
use super::{Http, query};
use crate::access::{Verb, Who, changed};
use crate::relay::Failure;

/// How far the node is with letting go of its clients. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Draining(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Cancelled when the node is told to drain, or to stop.
    told: CancellationToken,
    /// How long it takes at most, from when it is told.
    lasts_max: OnceLock<Duration>,
    progress: Mutex<(DrainStage, Option<Instant>)>,
    /// Connections that were there before it began.
    connections: AtomicU64,
}

/// A connection that counts as long as it is there.
#[derive(Debug)]
pub struct CountedConnection(Draining);

impl Draining {
    /// Returns that of a node that serves; `told` is cancelled when it is to begin.
    #[must_use]
    pub fn new(told: CancellationToken) -> Self {
        let progress = Mutex::new((DrainStage::Serving, None));
        Self(Arc::new(Inner { told, lasts_max: OnceLock::new(), progress, connections: AtomicU64::new(0) }))
    }

    /// Says how long it takes at most, for who asks before the node notes it.
    pub fn lasts(&self, at_most: Duration) {
        // It is said once.
        let _ = self.0.lasts_max.set(at_most);
    }

    /// Tells the node to begin; returns whether nobody has before.
    #[expect(clippy::must_use_candidate, reason = "it begins, whoever wants to know whether it is new")]
    pub fn begin(&self) -> bool {
        let is_first = !self.is_told();
        if let (true, Some(lasts)) = (is_first, self.0.lasts_max.get()) {
            self.note(DrainStage::Notice, Instant::now() + *lasts);
        }
        self.0.told.cancel();
        is_first
    }

    /// Waits until the node is told to begin.
    pub async fn told(&self) {
        self.0.told.cancelled().await;
    }

    /// Returns whether the node was told to drain, or to stop.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.told.is_cancelled()
    }

    /// Returns what is cancelled when the node is told to begin.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.0.told
    }

    /// Notes how far the node is, and when it waits for nothing more.
    pub fn note(&self, stage: DrainStage, ends_at: Instant) {
        *self.0.progress.lock() = (stage, Some(ends_at));
    }

    /// Counts a connection until what is returned is dropped.
    #[must_use]
    pub fn count(&self) -> CountedConnection {
        self.0.connections.fetch_add(1, Ordering::AcqRel);
        CountedConnection(self.clone())
    }

    /// Returns how many connections are counted now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.0.connections.load(Ordering::Acquire)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Right(Verb::Admin), routes!(show, begin))
}

fn told(http: &Http) -> Drain {
    let draining = &http.0.draining;
    let (mut stage, ends_at) = *draining.0.progress.lock();
    // It is about to begin.
    if stage == DrainStage::Serving && draining.is_told() {
        stage = DrainStage::Notice;
    }
    let ends_in = ends_at.map(|at| at.saturating_duration_since(Instant::now()));
    let ends_in = if stage == DrainStage::Drained { Some(Duration::ZERO) } else { ends_in };
    Drain {
        node: http.0.node,
        stage,
        sessions: http.0.relay.sessions().count() as u64,
        connections: draining.connections(),
        ends_in_ms: ends_in.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// Tell how far this node is with draining
///
/// `stage` is `serving` before it is told to drain, and `drained` once it may be stopped.
#[utoipa::path(
    get, path = "/api/v1/admin/drain", tag = "operations", operation_id = "show_drain",
    responses((status = 200, body = Drain), Problems),
)]
pub(super) async fn show(
    State(http): State<Http>,
    Called(gate): Called,
    uri: Uri,
) -> Result<Json<Drain>, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.check_admin()?;
    Ok(Json(told(&http)))
}

/// Have this node let go of its clients
///
/// Its `/ready` answers 503 from now on. After `TIDEMILL_DRAIN_NOTICE_MS` all that is open is told to go on elsewhere, spread
/// over `TIDEMILL_DRAIN_SPREAD_MS`, and messages that connections work on are given back. The answer comes at once; ask again
/// with `GET` how far it is. The process goes on until it is stopped, and answers who comes still. There is no way back but a
/// restart.
#[utoipa::path(
    post, path = "/api/v1/admin/drain", tag = "operations", operation_id = "drain",
    params(("node" = Option<String>, Query, description = "The node that is meant: another one does not begin")),
    responses((status = 200, body = Drain), Problems),
)]
pub(super) async fn begin(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    request: Request,
) -> Result<Json<Drain>, Failure> {
    let [node] = query::parameters(request.uri(), ["node"])?;
    gate.check_admin()?;
    if let Some(meant) = node {
        let meant = NodeId::parse(&meant).map_err(|error| Problem::field("node", error))?;
        if meant != http.0.node {
            let detail = format!("it is another node that is meant; this one is `{}`", http.0.node);
            return Err(Problem::new(Code::Conflict, detail).into());
        }
    }
    if http.0.draining.begin() && *gate.caller().who() != Who::Anyone {
        changed!(gate.caller().who(), gate.origin(), "told to drain", node = %http.0.node);
    }
    Ok(Json(told(&http)))
}
