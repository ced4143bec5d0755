//! A connection that speaks HTTP/2: all of it goes through the library, to the same router.
//!
//! Whatever a client has under way here counts where it would count over HTTP/1.1: each request is one more
//! connection to admission, and a live stream is written like any other, to a transport that the library
//! pulls from. It must not know what is served.
//!
//! | file | owns |
//! |---|---|
//! | `streams` | what is under way on a connection, and when nothing is |
//! | `answers` | the bodies of answers, a frame at a time |
//! | `frames` | how many frames a client sends that ask for nothing |

mod answers;
mod frames;
mod streams;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{ConnectionPermit, Others, Refusal, refused};
use super::options::ServerOptions;
use super::socket::Socket;
use super::unread::{Unread, lend};
use crate::http::surroundings;
use crate::limits::Peer;
use crate::link::{Handover, Link, Taken, Transport, pulled};
use answers::{Answer, FRAME_BYTES_MAX, Source};
use frames::Metered;
use streams::Streams;

/// Requests under way on one connection.
const STREAMS_MAX: u32 = 100;
/// Bytes that a client may send of bodies that nobody has asked for yet: on one stream, and on all.
const WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of one stream that the library keeps for a client that gives no room.
const SEND_BUFFER_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Streams that a client has taken back before they were looked at: past it the connection ends.
const TAKEN_BACK_MAX: usize = 20;
/// Streams that the relay has ended because of what the client did, as to open more than it may, and that it
/// still remembers: past it the connection ends.
const ENDED_MAX: usize = 100;
/// Time without a sign of life of the client after which the relay asks for one, and time for the answer.
const ASK_AFTER: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How often a connection is looked at, at most and at least.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(5)];
/// Time for what is left of a body whose request is answered: past it its stream is ended.
const UNREAD_WITHIN: Duration = Duration::from_secs(5);
/// Time for a client to hang up that was told that nothing more is taken, where nothing is under way.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Runs what the library has to run, as long as connections may.
#[derive(Clone, Debug)]
struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        drop(self.tracker.spawn(self.cut.clone().run_until_cancelled_owned(task)));
    }
}

/// What every connection is served with.
#[derive(Clone, Debug)]
pub(super) struct Http2 {
    builder: http2::Builder<Tasks>,
    router: Router,
    /// How long a connection is kept on which nothing is under way.
    idle_timeout: Duration,
    write_timeout: Duration,
    unread_timeout: Duration,
    look_every: Duration,
    tasks: Tasks,
}

impl Http2 {
    pub(super) fn new(
        options: &ServerOptions,
        router: Router,
        cut: CancellationToken,
        tracker: TaskTracker,
    ) -> Self {
        let tasks = Tasks { tracker, cut };
        let mut builder = http2::Builder::new(tasks.clone());
        // The edge refuses large heads with a problem document; the library's own limit lies well above.
        let head_bytes_max = u32::try_from(options.http.headers_bytes_max * 4).unwrap_or(u32::MAX);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(head_bytes_max)
            .max_pending_accept_reset_streams(TAKEN_BACK_MAX)
            .max_local_error_reset_streams(ENDED_MAX)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .keep_alive_interval(ASK_AFTER)
            .keep_alive_timeout(ANSWER_WITHIN);
        let (idle_timeout, write_timeout) = (options.header_timeout, options.write_timeout);
        let [least, most] = LOOK_EVERY;
        let look_every = (idle_timeout.min(write_timeout) / 4).clamp(least, most);
        let unread_timeout = UNREAD_WITHIN.min(options.http.body_timeout);
        Self { builder, router, idle_timeout, write_timeout, unread_timeout, look_every, tasks }
    }

    /// Serves a connection until one side ends it.
    pub(super) async fn serve(
        self,
        transport: Box<dyn Transport>,
        peer: Peer,
        permit: ConnectionPermit,
        draining: CancellationToken,
    ) {
        let streams = Streams::new(self.write_timeout);
        let requests = Arc::new(Requests {
            router: TowerToHyperService::new(self.router),
            peer,
            write_timeout: self.write_timeout,
            unread_timeout: self.unread_timeout,
            tasks: self.tasks.clone(),
            others: permit.others(),
            streams: streams.clone(),
        });
        let socket = Socket::new(transport, Bytes::new(), self.write_timeout, permit, Arc::default());
        let io = TokioIo::new(Metered::new(socket, streams.clone()));
        let service = service_fn(move |request| requests.clone().answer(request));
        let mut connection = pin!(self.builder.serve_connection(io, service));
        let mut look = interval(self.look_every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaves_until = None;
        let mut is_leaving = false;
        loop {
            tokio::select! {
                biased;
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = self.tasks.cut.cancelled() => return,
                () = draining.cancelled(), if !is_leaving => {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                now = look.tick() => {
                    let idle_since = streams.look(now);
                    let is_idle = idle_since.is_some_and(|since| since + self.idle_timeout <= now);
                    if is_idle && !is_leaving {
                        is_leaving = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    if idle_since.is_none() || !is_leaving {
                        leaves_until = None;
                    } else if *leaves_until.get_or_insert(now + LEAVE_WITHIN) <= now {
                        return tracing::debug!("a client with nothing under way did not hang up");
                    }
                }
            }
        }
    }
}

/// Answers the requests of one connection.
struct Requests {
    router: TowerToHyperService<Router>,
    peer: Peer,
    write_timeout: Duration,
    unread_timeout: Duration,
    tasks: Tasks,
    others: Others,
    streams: Streams,
}

impl Requests {
    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Response, Infallible> {
        request.extensions_mut().insert(self.peer);
        let has_body = request.method() != Method::HEAD;
        let (request, unread) = lend(request);
        let permit = match self.others.admit() {
            Ok(permit) => permit,
            Err(refusal) => {
                drop(request);
                self.read_out(unread, ());
                return Ok(full(refusal));
            }
        };
        let open = Arc::new(self.streams.enter(permit));
        let mut response = self.router.call(request).await?;
        self.read_out(unread, open.clone());
        let handover = response.extensions_mut().remove::<Handover>().filter(|_| has_body);
        let (mut head, body) = response.into_parts();
        let source = match handover {
            None => Source::Body(body),
            Some(handover) => {
                head.headers.remove(CONTENT_LENGTH);
                let (transport, bytes) = pulled();
                let link = Link::new(Box::new(transport), self.write_timeout, self.tasks.cut.clone(), ());
                let taken = Taken { link, arrived: Bytes::new(), head: Vec::new(), chunked: false };
                if let Some(serve) = handover.serve(taken) {
                    self.tasks.tracker.spawn(serve);
                }
                Source::Live(bytes)
            }
        };
        let body = Answer::new(source, open, &self.streams);
        Ok(Response::from_parts(head, Body::new(body)))
    }

    /// Reads beside the answer what is left of its request's body. It counts as a request until then: its stream is
    /// open, for the client too.
    fn read_out(&self, unread: Unread, open: impl Send + 'static) {
        if unread.is_there() {
            let read = unread.read_out(self.unread_timeout);
            self.tasks.execute(async move {
                read.await;
                drop(open);
            });
        }
    }
}

/// Returns the answer to a request for which there is no room, which nobody looks at.
fn full(refusal: Refusal) -> Response {
    let problem = refused(refusal);
    let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(RETRY_AFTER, HeaderValue::from(problem.retry_after_seconds.unwrap_or(1)));
    for (name, value) in surroundings::JSON_LINES.lines().filter_map(|line| line.split_once(": ")) {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
