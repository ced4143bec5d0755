//! One connection, from its listener to its end: the fast path first, then the HTTP library, then
//! whoever takes it over.
//!
//! It must not know what carries it, nor what is served.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{ConnectionPermit, Refusal, refused};
use super::doors::{Door, Doors};
use super::fast_path::{Exit, FastPath};
use super::handover::{Answer, Slot};
use super::http2::Http2;
use super::options::ServerOptions;
use super::socket::Socket;
use super::unread::lend;
use crate::http::{Http, head, surroundings};
use crate::limits::Peer;
use crate::link::{Handover, Hangup, Link, Protocol, Transport};
use crate::metrics::Metrics;

/// Least size of a connection's read buffer in bytes: what the HTTP library asks for.
const READ_BUFFER_BYTES_MIN: usize = 8 * 1024;

/// How long an answer waits for what is left of its request's body, before it says that the connection ends with it: most
/// bodies come right behind their heads.
const UNREAD_WAIT: Duration = Duration::from_millis(250);

/// What every connection is served with.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    builder: http1::Builder,
    router: Router,
    /// `None` where it is switched off.
    fast_path: Option<FastPath>,
    http2: Http2,
    metrics: Metrics,
    /// Time for a client to agree on what has to be agreed on before its first request.
    agree_timeout: Duration,
    write_timeout: Duration,
    doors: Doors,
    cut: CancellationToken,
    tracker: TaskTracker,
}

/// How the HTTP part of a connection ends.
enum End {
    Closed(hyper::Result<()>),
    /// An answer hands the connection over.
    HandedOver(Answer),
}

impl Connections {
    pub(super) fn new(
        options: &ServerOptions,
        (http, router): (Http, Router),
        metrics: Metrics,
        doors: Doors,
        cut: CancellationToken,
        tracker: TaskTracker,
    ) -> Self {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(options.header_timeout);
        // Who has closed its sending half still waits for what it has asked for.
        builder.half_close(true);
        // The edge refuses large heads with a problem document; the library's own limit, which says
        // only 431, lies well above.
        builder.max_buf_size((options.http.headers_bytes_max * 4).max(READ_BUFFER_BYTES_MIN * 8));
        let fast_path = options.fast_path.then(|| FastPath {
            http,
            header_timeout: options.header_timeout,
            write_timeout: options.write_timeout,
        });
        let http2 = Http2::new(options, router.clone(), cut.clone(), tracker.clone());
        let (agree_timeout, write_timeout) = (options.header_timeout, options.write_timeout);
        Self { builder, router, fast_path, http2, metrics, agree_timeout, write_timeout, doors, cut, tracker }
    }

    /// Serves a connection until one side ends it.
    pub(super) fn serve(
        &self,
        transport: Box<dyn Transport>,
        peer: Peer,
        permit: ConnectionPermit,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Self {
            builder,
            router,
            fast_path,
            http2,
            metrics,
            agree_timeout,
            write_timeout,
            doors,
            cut,
            tracker,
        } = self.clone();
        let Door { closed: draining, is_late, counted } = doors.enter();
        drop(doors);
        let own_cut = cut.child_token();
        async move {
            let _counted = counted;
            if let Err(error) = transport.tune() {
                tracing::debug!(%error, "cannot set what a connection needs of the kernel");
            }
            let agreed = tokio::select! {
                biased;
                agreed = agree(&*transport, agree_timeout) => agreed,
                () = draining.cancelled() => return,
            };
            match agreed {
                Ok(Protocol::Http1) => {}
                // In a box: it is large, and most connections are none of its kind.
                Ok(Protocol::Http2) => return Box::pin(http2.serve(transport, peer, permit, draining)).await,
                Err(error) => {
                    metrics.requests().handshake_failed();
                    tracing::debug!(%error, "a client and the relay did not come to terms");
                    let link = Link::new(transport, write_timeout, cut.clone(), permit);
                    cut.run_until_cancelled(link.close()).await;
                    return;
                }
            }
            let fast = async {
                match fast_path {
                    Some(fast_path) => fast_path.serve(&*transport, peer, &draining, is_late).await,
                    None => Ok(Exit::Leaves(Bytes::new())),
                }
            };
            let exit = tokio::select! {
                biased;
                exit = fast => exit,
                () = own_cut.cancelled() => return,
            };
            drop(own_cut);
            let arrived = match exit {
                Ok(Exit::Leaves(arrived)) => arrived,
                Ok(Exit::Closed) => return,
                Ok(Exit::Answered) => {
                    let link = Link::new(transport, write_timeout, cut.clone(), permit);
                    cut.run_until_cancelled(link.close()).await;
                    return;
                }
                Err(error) => return tracing::debug!(%error, "connection ended"),
            };
            let slot = Arc::new(Slot::default());
            let (transport, hangup) = Hangup::of(transport);
            let io = TokioIo::new(Socket::new(transport, arrived, write_timeout, permit, slot.clone()));
            let router = TowerToHyperService::new(router);
            let service =
                service_fn(|request| answer(&router, request, (peer, hangup.clone()), slot.clone(), is_late));
            let mut connection = builder.serve_connection(io, service);
            let end = tokio::select! {
                biased;
                end = end_of(&mut connection, &slot) => Some(end),
                () = draining.cancelled() => None,
            };
            let end = if let Some(end) = end {
                end
            } else {
                Pin::new(&mut connection).graceful_shutdown();
                tokio::select! {
                    biased;
                    end = end_of(&mut connection, &slot) => end,
                    () = cut.cancelled() => return,
                }
            };
            match end {
                End::Closed(Ok(())) => {}
                End::Closed(Err(error)) => tracing::debug!(%error, "connection ended"),
                End::HandedOver(answer) => {
                    let parts = connection.into_parts();
                    let (transport, rest, permit) = parts.io.into_inner().into_parts();
                    let arrived =
                        if rest.is_empty() { parts.read_buf } else { [parts.read_buf, rest].concat().into() };
                    let link = Link::new(transport, write_timeout, cut, permit);
                    // On a task of its own, which is as small as a live connection can be.
                    if let Some(serve) = answer.hand_over(link, arrived) {
                        tracker.spawn(serve);
                    }
                }
            }
        }
    }
}

/// Waits until it is agreed on with the client what it speaks, which most kinds of connection know at once.
async fn agree(transport: &dyn Transport, within: Duration) -> io::Result<Protocol> {
    let agreed = poll_fn(|cx| match transport.poll_agreed(cx) {
        Poll::Ready(agreed) => Poll::Ready(Some(agreed)),
        Poll::Pending => Poll::Ready(None),
    });
    if let Some(agreed) = agreed.await {
        return agreed;
    }
    timeout(within, poll_fn(|cx| transport.poll_agreed(cx)))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not agree in time")))
}

/// Serves requests until the connection ends or is handed over.
async fn end_of<C>(connection: &mut C, slot: &Slot) -> End
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    poll_fn(|cx| match Pin::new(&mut *connection).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(End::Closed(ended)),
        Poll::Pending => slot.take().map_or(Poll::Pending, |answer| Poll::Ready(End::HandedOver(answer))),
    })
    .await
}

/// Answers a request, after which the connection ends where it `is_last`; an answer that hands the connection over is
/// left on the slot.
async fn answer(
    router: &TowerToHyperService<Router>,
    mut request: Request<Incoming>,
    (peer, hangup): (Peer, Hangup),
    slot: Arc<Slot>,
    is_last: bool,
) -> Result<Response, std::convert::Infallible> {
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(hangup);
    let (version, has_body) = (request.version(), request.method() != Method::HEAD);
    let (request, unread) = lend(request);
    let mut response = router.call(request).await?;
    if let Some(handover) = response.extensions_mut().remove::<Handover>().filter(|_| has_body) {
        slot.leave(Answer::new(version, response, handover));
        return pending().await;
    }
    // What is still to come of the body stands before the next request.
    if is_last || !response.headers().contains_key(CONNECTION) && !unread.read_out(UNREAD_WAIT).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Refuses a connection with a problem document, without waiting for anything.
pub(super) fn refuse(transport: &dyn Transport, refusal: Refusal) {
    let problem = refused(refusal);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let seconds = problem.retry_after_seconds.unwrap_or(1);
    let retry_after = seconds.to_string();
    let answer = head::Answer {
        status: StatusCode::SERVICE_UNAVAILABLE,
        lines: &[
            ("\r\ncontent-type: application/problem+json\r\nretry-after: ", retry_after.as_bytes()),
            (surroundings::JSON_LINES, b""),
        ],
        now: None,
        closing: true,
        body: body.as_bytes(),
    }
    .to_bytes();
    // A fresh socket has room for this; a client that cannot take it is not waited for.
    let written = transport.try_write(&answer);
    // What has already arrived would reset the connection before the client reads the answer.
    let read = transport.try_read(&mut [0; 4096]);
    tracing::debug!(?refusal, written = written.is_ok(), read = read.is_ok(), "connection refused");
}
