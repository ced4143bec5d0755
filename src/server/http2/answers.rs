//! The body of an answer, as the library pulls it: in pieces that are small, so that what is held for a
//! client that gives no room is.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::streams::{Open, Streams, Watched};
use crate::link::PulledBytes;

/// Bytes of an answer that the library gets at once.
pub(super) const FRAME_BYTES_MAX: usize = 16 * 1024;

/// How much longer than a write may stand still a live stream is left to whoever writes it, who ends it by
/// then.
const LIVE_TIMES: u32 = 2;

/// Where an answer comes from.
pub(super) enum Source {
    /// A body that is there.
    Body(Body),
    /// A live stream.
    Live(PulledBytes),
}

/// The body of an answer.
pub(super) struct Answer {
    held: Arc<Mutex<Held>>,
    streams: Streams,
}

/// What an answer holds.
struct Held {
    /// `None` once it was taken away.
    content: Option<Content>,
    /// When the library was given something and has not asked for more since.
    given_at: Option<Instant>,
}

/// What is dropped when nobody takes an answer.
struct Content {
    source: Source,
    /// What is left of a piece that was large.
    rest: Bytes,
    _open: Arc<Open>,
}

impl Watched for Mutex<Held> {
    fn let_go(&self, now: Instant, write_timeout: Duration) -> bool {
        let taken = self.lock().take_if_stalled(now, write_timeout);
        // The lock is given back before what is taken is dropped.
        taken.is_some()
    }
}

impl Held {
    /// Returns everything, if the library has not asked for more within `write_timeout`.
    fn take_if_stalled(&mut self, now: Instant, write_timeout: Duration) -> Option<Content> {
        let patience = match self.content.as_ref()?.source {
            Source::Body(_) => write_timeout,
            Source::Live(_) => write_timeout * LIVE_TIMES,
        };
        if self.given_at? + patience > now {
            return None;
        }
        tracing::debug!("a client took nothing of an answer; it is cut");
        self.content.take()
    }
}

impl Answer {
    pub(super) fn new(source: Source, open: Arc<Open>, streams: &Streams) -> Self {
        let content = Some(Content { source, rest: Bytes::new(), _open: open });
        let held = Arc::new(Mutex::new(Held { content, given_at: None }));
        let watched: Arc<dyn Watched> = held.clone();
        streams.watch(Arc::downgrade(&watched));
        Self { held, streams: streams.clone() }
    }
}

impl Content {
    /// Returns the next piece, as it comes.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut self.source {
            Source::Live(bytes) => ready!(bytes.poll_next(cx)).map(|piece| piece.map(Frame::data)),
            Source::Body(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|piece| piece.map_err(io::Error::other))
            }
        };
        Poll::Ready(piece)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest.is_empty() {
            match ready!(self.poll_piece(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.len() <= FRAME_BYTES_MAX => {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(FRAME_BYTES_MAX));
        if self.rest.is_empty() {
            // An empty slice would keep the whole.
            self.rest = Bytes::new();
        }
        // A copy: a slice would keep the whole, and what it counts as, for as long as the client likes.
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&piece)))))
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut held = self.held.lock();
        let Some(content) = &mut held.content else {
            return Poll::Ready(Some(Err(ErrorKind::TimedOut.into())));
        };
        let polled = content.poll(cx);
        held.given_at = match &polled {
            Poll::Ready(Some(Ok(_))) => {
                self.streams.note_answered();
                Some(Instant::now())
            }
            Poll::Ready(Some(Err(_)) | None) | Poll::Pending => None,
        };
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.held.lock().content {
            Some(Content { source: Source::Body(body), rest, .. }) => rest.is_empty() && body.is_end_stream(),
            Some(Content { source: Source::Live(_), .. }) | None => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.held.lock().content {
            Some(Content { source: Source::Body(body), rest, .. }) if rest.is_empty() => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}
