//! Live streams: a response body that takes what its reader has for it when the connection has room.
//!
//! Nothing is queued: a client that reads slowly has one chunk of its own here, and the cursor of its
//! reader. It must not know how frames are written.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::unfold;
use tidemill_proto::{MessageId, Timestamp, TopicName};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::{Http, random};
use crate::relay::{self, Item, LiveReader};

/// Why a stream ends before its client does, in a sentence.
pub(super) const DRAINING: &str = "the relay is shutting down; resume from the cursors";

/// Most items of one chunk: enough that a chunk of small messages is worth its system call.
const CHUNK_ITEMS_MAX: usize = 256;

/// The share of what a subscriber may hold that one chunk takes: the connection holds as much again,
/// and history that is about to be written is there twice.
const CHUNK_SHARE: usize = 4;

/// How frames are written on a stream.
pub(super) trait Form: Send + 'static {
    /// The content type.
    const CONTENT_TYPE: HeaderValue;

    /// Returns what stands at the start of the stream, if anything does.
    fn greeting(&mut self) -> Option<Bytes>;

    /// Returns the frames of `items`, of which there is at least one.
    fn frames(&mut self, items: &[Item]) -> Bytes;

    /// Returns the frame that shows that the relay is there.
    fn ping(&mut self, now: Timestamp) -> Bytes;

    /// Returns the last frame, with the cursors to resume with.
    fn end(&mut self, reason: &str, cursors: Vec<(TopicName, Option<MessageId>)>) -> Bytes;
}

struct Stream<F> {
    http: Http,
    reader: LiveReader,
    form: F,
    greeting: Option<Bytes>,
    farewell: Pin<Box<Farewell>>,
    ping: Pin<Box<Sleep>>,
    sent_at: Instant,
}

/// Ready when this reader is to go, of those that go one by one while the relay drains.
#[derive(Debug)]
pub(super) struct Farewell {
    /// `None` once the node drains.
    draining: Option<Pin<Box<tokio_util::sync::WaitForCancellationFutureOwned>>>,
    spread: Duration,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Farewell {
    /// Returns the farewell of one reader: at a random moment in the first half of the drain time.
    pub(super) fn new(draining: &CancellationToken, drain: Duration) -> Self {
        let share = u32::try_from(random() % 512).unwrap_or_default();
        let draining = Some(Box::pin(draining.clone().cancelled_owned()));
        Self { draining, spread: drain / 1_024 * share, wait: None }
    }
}

impl Future for Farewell {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        if let Some(draining) = &mut self.draining {
            std::task::ready!(draining.as_mut().poll(cx));
            self.draining = None;
            self.wait = Some(Box::pin(sleep(self.spread)));
        }
        match &mut self.wait {
            Some(wait) => wait.as_mut().poll(cx),
            None => std::task::Poll::Ready(()),
        }
    }
}

/// Answers with everything that `reader` gets from now on.
pub(super) fn respond<F: Form>(http: &Http, reader: LiveReader, mut form: F) -> Response {
    let options = &http.0.options;
    let stream = Stream {
        greeting: form.greeting(),
        http: http.clone(),
        reader,
        form,
        farewell: Box::pin(Farewell::new(&http.0.draining, options.drain)),
        ping: Box::pin(sleep(options.ping_every)),
        sent_at: Instant::now(),
    };
    let chunks = unfold(Some(Box::new(stream)), async |stream| {
        let mut stream = stream?;
        let (chunk, ended) = stream.next_chunk().await;
        Some((Ok::<_, std::convert::Infallible>(chunk), (!ended).then_some(stream)))
    });
    let headers = [
        (CONTENT_TYPE, F::CONTENT_TYPE),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        (VARY, HeaderValue::from_static("accept")),
        // Some proxies hold back what comes in small pieces, unless told not to.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

impl<F: Form> Stream<F> {
    /// Returns what is to be sent next, and whether it is the end.
    async fn next_chunk(&mut self) -> (Bytes, bool) {
        if let Some(greeting) = self.greeting.take() {
            return (greeting, false);
        }
        let bytes = self.http.0.options.subscriber_bytes_max / CHUNK_SHARE;
        loop {
            tokio::select! {
                biased;
                () = &mut self.farewell => {
                    return (self.form.end(DRAINING, self.reader.cursors()), true);
                }
                items = self.reader.next(relay::Budget { items: CHUNK_ITEMS_MAX, bytes }) => {
                    self.sent_at = Instant::now();
                    let messages = items.iter().filter(|item| matches!(item, Item::Message(_))).count();
                    self.http.0.metrics.served(messages);
                    return (self.form.frames(&items), false);
                }
                () = &mut self.ping => {
                    let now = Instant::now();
                    let is_due = self.sent_at + self.http.0.options.ping_every <= now;
                    if is_due {
                        self.sent_at = now;
                    }
                    self.ping.as_mut().reset(self.sent_at + self.http.0.options.ping_every);
                    if is_due {
                        return (self.form.ping(self.http.0.relay.clock().now()), false);
                    }
                }
            }
        }
    }
}

/// Returns the frames of many items in one piece; those of one as they are, without a copy.
pub(super) fn join<'a>(items: &'a [Item], frame: impl Fn(&'a Item) -> std::borrow::Cow<'a, Bytes>) -> Bytes {
    if let [only] = items {
        return frame(only).into_owned();
    }
    let size = items.iter().map(|item| match item {
        Item::Message(message) => message.len_bytes(),
        Item::Gap(_) => 256,
    });
    let mut out = Vec::with_capacity(size.sum());
    for item in items {
        out.extend_from_slice(&frame(item));
    }
    out.into()
}
