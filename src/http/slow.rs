//! What took long on the node and at its servers: told to who administers the relay, and noted of each request.
//!
//! A request is measured from its head to its answer, or to where the client has accepted that, where it is large enough
//! that it may have to wait for the client. It must not know what a request does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, State};
use axum::http::{HeaderValue, Method, Uri};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tidemill_proto::TopicName;
use tidemill_proto::limits::{SLOW_PAGE_DEFAULT, SLOW_PAGE_MAX};
use tidemill_proto::slow::{SlowKind, SlowList};
use tokio::time::Instant;
use utoipa_axum::routes;

use super::body::FREE_BYTES;
use super::called::Called;
use super::counted::Counted;
use super::failure::Problems;
use super::routes::{Concern, Needs};
use super::{Http, query};
use crate::access::{SentCookie, Verb};
use crate::relay::Failure;
use crate::slow::{Found, Operation, Times};

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Right(Verb::Admin), routes!(list))
}

/// List what took long
///
/// Publishes, reads and commands of this node past the threshold (`TIDEMILL_SLOW_MS`), the newest first, with the parts of
/// their time; and what each server has noted by itself (`SLOWLOG`). No payload stands in it.
#[utoipa::path(
    get, path = "/api/v1/admin/slow", tag = "operations", operation_id = "list_slow",
    params(
        ("limit" = Option<usize>, Query, description = "How many at most of the node, and of each server, 1 to 256; 50 unless told"),
    ),
    responses((status = 200, body = SlowList), Problems),
)]
pub(super) async fn list(
    State(http): State<Http>,
    Called(gate): Called,
    uri: Uri,
) -> Result<Json<SlowList>, Failure> {
    gate.check_admin()?;
    let [limit] = query::parameters(&uri, ["limit"])?;
    let limit = query::limit(limit.as_deref(), SLOW_PAGE_DEFAULT, SLOW_PAGE_MAX)?;
    let relay = &http.0.relay;
    let servers = relay.slow_commands(limit).await;
    Ok(Json(SlowList {
        node: http.0.node,
        threshold_ms: u64::try_from(relay.slow().threshold().as_millis()).unwrap_or(u64::MAX),
        count: relay.slow().counts().iter().sum(),
        operations: relay.slow().newest(limit),
        servers,
    }))
}

/// Returns what a request does, as far as it is noted where it takes long. Log-ins are not: it is meant to take long to
/// try a password.
fn kind_of(method: &Method, route: &str) -> Option<SlowKind> {
    match (method.as_str(), route) {
        ("POST", "/api/v1/messages" | "/api/v1/messages/bulk" | "/api/v1/topics/{topic}/messages") => {
            Some(SlowKind::Publish)
        }
        ("POST", "/messages/poll") => Some(SlowKind::Read),
        (_, route) if !route.starts_with("/api/v1/") => None,
        ("GET" | "HEAD", _) => Some(SlowKind::Read),
        _ => Some(SlowKind::Command),
    }
}

/// Returns the topic that a path names.
fn topic_of(route: &str, path: &str) -> Option<TopicName> {
    let mut parts = route.split('/').zip(path.split('/'));
    let (_, topic) = parts.find(|(pattern, _)| *pattern == "{topic}")?;
    TopicName::parse(topic).ok()
}

/// A request that was answered.
pub(super) struct Exchanged {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) route: Option<MatchedPath>,
    pub(super) id: HeaderValue,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) cookie: Option<SentCookie>,
    pub(super) started: Instant,
    /// When it was answered, from then on.
    pub(super) answered: Duration,
    pub(super) status: u16,
    pub(super) found: Found,
}

impl Exchanged {
    /// Notes it, if it took long until now.
    fn end(&self, http: &Http, write: Option<Duration>) {
        let spent = self.found.spent;
        let total = (self.answered + write.unwrap_or_default()).saturating_sub(spent.waited);
        let slow = http.0.relay.slow();
        if !slow.is_slow(total) {
            return;
        }
        let route = self.route.as_ref().map_or("", MatchedPath::as_str);
        let Some(kind) = kind_of(&self.method, route) else { return };
        let topic = self.found.topic.clone().or_else(|| topic_of(route, self.uri.path()));
        let caller = http.who_shows(self.authorization.as_ref(), self.cookie.as_ref());
        let operation = Operation {
            kind,
            operation: format!("{} {route}", self.method),
            topic,
            caller: caller.map(|caller| caller.who().to_string()),
            request_id: self.id.to_str().ok().map(str::to_owned),
            status: Some(self.status),
        };
        slow.keep(operation, Times { now: http.0.relay.clock().now(), total, spent, write });
    }

    /// Notes it, if it took long: at once, or once the client has accepted the answer.
    pub(super) fn follow(self, http: &Http, response: Response) -> Response {
        let is_page = response.extensions().get::<Counted>().is_some();
        let bytes = response.body().size_hint().exact();
        let may_wait = bytes.map_or(is_page, |bytes| bytes > FREE_BYTES as u64);
        if !may_wait || http.0.relay.slow().threshold().is_zero() {
            self.end(http, None);
            return response;
        }
        let writing = Writing { http: http.clone(), exchanged: self };
        response.map(|body| Body::new(Followed { body, writing: Arc::new(writing) }))
    }
}

/// An answer on its way, as long as any of it is there.
struct Writing {
    http: Http,
    exchanged: Exchanged,
}

impl Drop for Writing {
    fn drop(&mut self) {
        let Self { http, exchanged } = self;
        let write = exchanged.started.elapsed().saturating_sub(exchanged.answered);
        exchanged.end(http, Some(write));
    }
}

/// Bytes of an answer.
struct Piece {
    bytes: Bytes,
    _writing: Arc<Writing>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body whose bytes are followed until they are gone.
struct Followed {
    body: Body,
    writing: Arc<Writing>,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, writing } = self.get_mut();
        let followed = |bytes| Bytes::from_owner(Piece { bytes, _writing: writing.clone() });
        Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| Ok(frame?.map_data(followed))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_does_is_told_by_its_route() {
        let kind = |method: &str, route| kind_of(&method.parse().expect("a method"), route);
        assert_eq!(kind("POST", "/api/v1/messages"), Some(SlowKind::Publish));
        assert_eq!(kind("POST", "/api/v1/topics/{topic}/messages"), Some(SlowKind::Publish));
        assert_eq!(kind("GET", "/api/v1/topics/{topic}/messages"), Some(SlowKind::Read));
        assert_eq!(kind("POST", "/messages/poll"), Some(SlowKind::Read));
        assert_eq!(kind("PUT", "/api/v1/keys/{bucket}/{key}"), Some(SlowKind::Command));
        for (method, route) in
            [("POST", "/auth/login"), ("GET", "/health"), ("GET", "/console/"), ("GET", "")]
        {
            assert_eq!(kind(method, route), None, "{route}");
        }
        let topic =
            |path| topic_of("/api/v1/topics/{topic}/groups/{group}", path).map(|topic| topic.to_string());
        assert_eq!(topic("/api/v1/topics/orders/groups/g").as_deref(), Some("orders"));
        assert_eq!(topic("/api/v1/topics/a%20b/groups/g"), None);
        assert_eq!(topic_of("/api/v1/topics", "/api/v1/topics"), None);
    }
}
