//! What is left of a request's body once the request is answered: it is read and dropped, as far as it is small.
//!
//! A request can be refused before its body has come, and its client sends the body all the same. The HTTP library
//! ends what nobody reads to its end: over HTTP/1.1 the connection, and over HTTP/2 the stream, of which it soon knows
//! nothing more; whatever still comes for it counts against the connection, which ends after a hundred such frames, with
//! all that is open on it. (In `h2` 0.4: `maybe_cancel`, `DEFAULT_RESET_STREAM_MAX`, `too_many_internal_resets`.)
//!
//! What is read here is dropped piece by piece, so that there is nothing to be counted in a budget: what has arrived
//! and was not read is bounded by the windows of the connection, or by its buffer. It must not know what is served.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::header::EXPECT;
use axum::http::{Request, Version};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::timeout;

/// Most bytes that are read of what is left: a body that is much larger costs less when it is cut off.
const BYTES_MAX: u64 = 1024 * 1024;

/// What a request has left of its body.
#[derive(Default)]
enum Left {
    /// Nothing: it was read to its end.
    #[default]
    Nothing,
    /// Nothing that can be read: it has ended early, or its framing is broken.
    Broken,
    /// The rest of it.
    Rest(Incoming),
}

/// The body of a request that is served. What nobody has read of it goes back when it is dropped.
pub(super) struct Lent {
    /// `None` once it has come to its end.
    body: Option<Incoming>,
    /// Where the rest goes; `None` where there is nothing to read at all.
    left: Option<Arc<Mutex<Left>>>,
    /// Whether the client waits for a word before it sends the body, and has had none: who reads it gives the word.
    is_held_back: bool,
}

/// Where the rest of a body goes.
pub(super) struct Unread(Option<Arc<Mutex<Left>>>);

/// Returns a request as it is served, and where the rest of its body goes meanwhile.
pub(super) fn lend(request: Request<Incoming>) -> (Request<Lent>, Unread) {
    let left = (!request.body().is_end_stream()).then(Arc::default);
    let unread = Unread(left.clone());
    let is_held_back = request.version() < Version::HTTP_2 && request.headers().contains_key(EXPECT);
    (request.map(|body| Lent { body: Some(body), left, is_held_back }), unread)
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_held_back = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        if let (Some(Err(_)), Some(left)) = (&frame, &self.left) {
            *left.lock() = Left::Broken;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(left)) = (self.body.take(), &self.left)
            && !body.is_end_stream()
        {
            *left.lock() = if self.is_held_back { Left::Broken } else { Left::Rest(body) };
        }
    }
}

impl Unread {
    /// Returns whether anything is left.
    pub(super) fn is_there(&self) -> bool {
        self.0.as_ref().is_some_and(|left| matches!(*left.lock(), Left::Rest(_)))
    }

    /// Reads and drops what is left, within this time; returns whether all of it has come. Where not, what still comes
    /// is read by nobody.
    ///
    /// # Cancel safety
    /// Not cancel-safe: what is left then is read by nobody.
    pub(super) async fn read_out(self, within: Duration) -> bool {
        let left = self.0.map_or(Left::Nothing, |left| std::mem::take(&mut *left.lock()));
        match left {
            Left::Nothing => true,
            Left::Broken => false,
            Left::Rest(body) if body.size_hint().lower() > BYTES_MAX => false,
            Left::Rest(body) => timeout(within, read_to_end(body)).await.unwrap_or(false),
        }
    }
}

/// Reads a body that is not too large, and returns whether it came to its end.
async fn read_to_end(mut body: Incoming) -> bool {
    let mut room = BYTES_MAX;
    loop {
        let bytes = match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return true,
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return false,
        };
        match room.checked_sub(bytes as u64) {
            Some(rest) => room = rest,
            None => return false,
        }
    }
}
