//! The HTTP edge: router, handlers, problem responses, metrics.
//!
//! It cuts requests into parts, hands them to `relay`, and writes answers. It must not know a backend
//! nor the storage contract; sockets are `server`'s, and a connection that has left HTTP is a `link`.

mod accept;
mod accounts;
mod administration;
mod all_groups;
mod body;
mod buckets;
mod bulk;
mod called;
mod claims;
mod console;
mod cookies;
mod copying;
mod cors;
mod counted;
mod description;
mod device_page;
mod devices;
mod documents;
mod drain;
mod encoding;
mod etag;
mod events;
mod exchange;
mod failure;
pub(crate) mod fast_path;
mod form;
mod groups;
mod handed;
pub(crate) mod head;
mod json;
mod keys;
mod leases;
mod lines;
mod linked;
mod live;
mod locks;
mod log_ins;
mod me;
mod media;
mod messages;
mod metadata;
mod names;
mod nodes;
mod operations;
mod own_url;
mod pages;
mod path;
mod payload;
mod poll;
mod presence;
mod publishing;
mod query;
mod reload;
mod resume;
mod routes;
mod runs;
mod schedules;
mod series;
mod sessions;
mod sign_ins;
mod signed_in_page;
mod slow;
mod source;
mod stream;
mod streamed;
pub(crate) mod surroundings;
mod takes;
mod tickets;
mod topics;
mod traced;
mod unconditional;
mod waiting;
mod watch;
mod watched;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, HeaderMap, StatusCode, Version};
use axum::middleware::from_fn_with_state;
use tidemill_proto::NodeId;
use tidemill_proto::limits::publish_bytes_max;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use utoipa::OpenApi as _;

use crate::access::{Access, WebRules};
use crate::budget;
use crate::features::{Feature, Features};
use crate::limits::Entrance;
use crate::metrics::Metrics;
use crate::relay::Relay;
pub(crate) use called::Known;
pub use drain::{CountedConnection, Draining};
pub use own_url::OwnUrl;
pub use reload::{ReloadAsked, ReloadError, Reloads};

use body::{BodyBudget, BodyLimit};
use exchange::RequestIds;
use waiting::Waiters;

/// Answers below this size stay plain: they would hardly get smaller.
const COMPRESSED_BYTES_MIN: u16 = 1024;

/// Largest body of a request that describes something, in bytes.
const SMALL_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Largest body of a request of a consumer, in bytes: a thousand receipts of the longest names, and a result.
const WORK_BODY_BYTES_MAX: u64 = 1024 * 1024;

/// What an operator may set about the HTTP edge.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Largest body of a bulk or NDJSON publish in bytes.
    pub body_bytes_max: usize,
    /// Bytes of bodies, of requests and of pages, that are held at one time.
    pub inflight_bytes_max: usize,
    /// Largest path and headers of a request in bytes.
    pub headers_bytes_max: usize,
    /// Time for a request's body to arrive.
    pub body_timeout: Duration,
    /// Bytes that a live stream holds at one time, about, in frames under way to its client.
    pub subscriber_bytes_max: usize,
    /// Most topics of one stream; at most [`STREAM_TOPICS_MAX`].
    pub stream_topics_max: usize,
    /// Time after which a stream that was silent shows that it is alive.
    pub ping_every: Duration,
    /// Whether documents for people and programs are served.
    pub serve_docs: bool,
    /// Whether the console is served.
    pub serve_console: bool,
    /// Whether metrics are served.
    pub serve_metrics: bool,
    /// What is served beside publishing and reading.
    pub features: Features,
    /// Under which URL others reach the relay.
    pub own_url: OwnUrl,
}

#[cfg(test)]
impl HttpOptions {
    /// Returns options with small limits, for tests.
    pub(crate) fn test() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            inflight_bytes_max: 1 << 20,
            headers_bytes_max: 8 << 10,
            body_timeout: Duration::from_secs(10),
            subscriber_bytes_max: 64 << 10,
            stream_topics_max: 10,
            ping_every: Duration::from_secs(15),
            serve_docs: false,
            serve_console: false,
            serve_metrics: false,
            features: Features::all(),
            own_url: OwnUrl::AsAsked { tls: false },
        }
    }
}

/// The most that [`HttpOptions::stream_topics_max`] can be: their cursors travel in one header.
pub const STREAM_TOPICS_MAX: usize = resume::TOPICS_MAX;

/// The HTTP edge of a node. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Http(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    relay: Relay,
    access: Access,
    entrance: Entrance,
    options: HttpOptions,
    /// Whose web pages may use the relay, and under which names it may be called.
    web: ArcSwap<Web>,
    metrics: Metrics,
    budget: BodyBudget,
    request_ids: RequestIds,
    node: NodeId,
    draining: Draining,
    waiters: Waiters,
    /// Written where there are settings that can be read again.
    reloads: OnceLock<Reloads>,
    started: Instant,
    /// Written once the router is there to generate it from.
    openapi: OnceLock<Bytes>,
    /// The methods of each path of the API.
    methods: OnceLock<HashMap<String, String>>,
}

/// What holds of web pages now.
#[derive(Debug)]
struct Web {
    rules: WebRules,
    /// The lines of an answer on the fast path, up to where the request id goes.
    fast_path_lines: String,
}

impl Web {
    fn new(rules: WebRules) -> Self {
        Self { fast_path_lines: surroundings::lines_of_json(&rules), rules }
    }
}

/// Compresses answers for clients that take them so. What comes live stays plain: it has no end that a
/// coder could wait for. So do values of keys, whose `ETag` stands for these bytes alone.
fn compression() -> CompressionLayer<impl Predicate> {
    let is_text = |_: StatusCode, _: Version, headers: &HeaderMap, extensions: &Extensions| {
        if extensions.get::<keys::Verbatim>().is_some() {
            return false;
        }
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is = |text: &str| kind.starts_with(text);
        is("application/json") || is("text/html") || is("text/css") || kind.contains("javascript")
    };
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(COMPRESSED_BYTES_MIN).and(is_text))
}

impl Http {
    /// Returns the edge of `relay`, whose callers come in by `entrance`. Once `leaving` is
    /// cancelled, which a caller may do as well, the node says that it is not ready.
    #[must_use]
    pub fn new(
        relay: Relay,
        entrance: Entrance,
        options: HttpOptions,
        web: WebRules,
        metrics: Metrics,
        node: NodeId,
        leaving: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            relay,
            access: entrance.access().clone(),
            entrance,
            metrics,
            budget: BodyBudget(budget::Budget::new(options.inflight_bytes_max)),
            options,
            web: ArcSwap::from_pointee(Web::new(web)),
            request_ids: RequestIds::new(),
            node,
            draining: Draining::new(leaving),
            waiters: Waiters::default(),
            reloads: OnceLock::new(),
            started: Instant::now(),
            openapi: OnceLock::new(),
            methods: OnceLock::new(),
        }))
    }

    /// Returns the service that answers requests; `beside` are the routes of other edges, which get the
    /// same surroundings: request ids, problem documents, counts.
    ///
    /// # Panics
    /// Never: no two routes collide.
    pub fn router(&self, beside: Router) -> Router {
        let options = &self.0.options;
        let concerns = vec![
            messages::routes(),
            bulk::routes(),
            pages::routes(),
            payload::routes(),
            live::routes(),
            poll::routes(),
            topics::routes(),
            groups::routes(options.features.has(Feature::Groups)),
            all_groups::routes(options.features.has(Feature::Groups)),
            claims::routes(options.features.has(Feature::Groups)),
            schedules::routes(options.features.has(Feature::Delays)),
            keys::routes(options.features.has(Feature::Keys)),
            buckets::routes(options.features.has(Feature::Keys)),
            takes::routes(options.features.has(Feature::Limits)),
            series::routes(options.features.has(Feature::Series)),
            runs::routes(),
            presence::routes(options.features.has(Feature::Presence)),
            locks::routes(options.features.has(Feature::Locks)),
            leases::routes(options.features.has(Feature::Locks)),
            log_ins::routes(),
            devices::routes(),
            sign_ins::routes(),
            accounts::routes(),
            administration::routes(),
            tickets::routes(),
            copying::routes(),
            reload::routes(),
            me::routes(),
            drain::routes(),
            sessions::routes(),
            nodes::routes(),
            slow::routes(),
            operations::routes(),
            operations::metrics_routes(options.serve_metrics),
            documents::routes(options.serve_docs),
            console::routes(options.serve_console),
        ];
        let (handlers, openapi) = routes::assemble(documents::Api::openapi(), concerns);
        self.0.methods.get_or_init(|| routes::methods(&openapi));
        self.0.openapi.get_or_init(|| {
            description::complete(&openapi, cookies::usual_log_in_name(&options.own_url)).to_string().into()
        });
        handlers
            .with_state(self.clone())
            .merge(beside)
            .layer(from_fn_with_state(self.clone(), counted::count))
            .layer(compression())
            .layer(from_fn_with_state(self.clone(), exchange::exchange))
    }

    /// Returns the service that answers at the address of the metrics alone.
    pub fn metrics_router(&self) -> Router {
        operations::metrics_alone()
            .with_state(self.clone())
            .layer(from_fn_with_state(self.clone(), counted::count))
            .layer(compression())
            .layer(from_fn_with_state(self.clone(), exchange::exchange))
            .layer(axum::Extension(exchange::Alone))
    }

    /// Returns how far the node is with letting go of its clients.
    #[must_use]
    pub fn draining(&self) -> &Draining {
        &self.0.draining
    }

    /// Has the settings read again there, whenever that is asked for.
    pub fn reload_by(&self, reloads: Reloads) {
        // There is one who reads them.
        let _ = self.0.reloads.set(reloads);
    }

    /// Lets web pages in by these rules from now on.
    pub fn admit_pages(&self, rules: WebRules) {
        self.0.web.store(Arc::new(Web::new(rules)));
    }

    /// Returns where callers come in.
    #[must_use]
    pub fn entrance(&self) -> &Entrance {
        &self.0.entrance
    }

    /// Returns the budget of what clients have sent and what is answered, for the edges beside this one.
    #[must_use]
    pub fn budget(&self) -> &budget::Budget {
        &self.0.budget.0
    }

    fn payload_limit(&self) -> BodyLimit {
        BodyLimit {
            bytes_max: publish_bytes_max(self.0.relay.options().payload_bytes_max) as u64,
            setting: Some("TIDEMILL_PAYLOAD_BYTES_MAX"),
            timeout: self.0.options.body_timeout,
            is_decoded: true,
        }
    }

    /// Returns the limit of a body that is the value of a key.
    fn value_limit(&self) -> BodyLimit {
        let bytes_max = self.0.relay.options().value_bytes_max as u64;
        BodyLimit { bytes_max, setting: Some("TIDEMILL_VALUE_BYTES_MAX"), ..self.payload_limit() }
    }

    fn bulk_limit(&self) -> BodyLimit {
        let bytes_max = self.0.options.body_bytes_max as u64;
        BodyLimit { bytes_max, setting: Some("MAX_BODY_BYTES"), ..self.payload_limit() }
    }

    /// Returns the limit of what consumers say: receipts, with a result.
    fn work_limit(&self) -> BodyLimit {
        BodyLimit { bytes_max: WORK_BODY_BYTES_MAX, setting: None, ..self.payload_limit() }
    }

    fn small_limit(&self) -> BodyLimit {
        BodyLimit { bytes_max: SMALL_BODY_BYTES_MAX, setting: None, ..self.payload_limit() }
    }

    /// Returns the limit where anybody may send a body, who need not say who calls.
    fn anybody_limit(&self) -> BodyLimit {
        BodyLimit { is_decoded: false, ..self.small_limit() }
    }
}
