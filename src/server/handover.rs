//! The way of a connection out of the HTTP library: the answer that hands it over waits here until
//! everything before it is written.
//!
//! The library has no word for this, so it rests on how the library behaves: it flushes when it has
//! nothing more to write, it writes nothing for a request whose answer is still pending, and what it
//! has read ahead it gives back. `tests/it/transport/handover.rs` holds it to that, and names its version.
//!
//! It owns that answer and its head. It must not know sockets.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::http::{HeaderValue, StatusCode, Version};
use axum::response::Response;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::http::head;
use crate::link::{Handover, Link, Taken};

/// Where the service of a connection leaves the answer that hands it over, and its socket leaves word
/// whether everything before is written.
#[derive(Default)]
pub(super) struct Slot {
    answer: Mutex<Option<Answer>>,
    /// Whether something was written that the HTTP library has not yet followed by a flush.
    unflushed: AtomicBool,
}

/// An answer that hands its connection over.
pub(super) struct Answer {
    /// In which version it was asked for.
    version: Version,
    response: Response,
    handover: Handover,
}

impl Slot {
    pub(super) fn leave(&self, answer: Answer) {
        *self.answer.lock() = Some(answer);
    }

    /// Takes the answer, once everything before it is written.
    pub(super) fn take(&self) -> Option<Answer> {
        if !self.is_flushed() {
            return None;
        }
        self.answer.lock().take()
    }

    /// Returns whether everything that was written was followed by a flush.
    pub(super) fn is_flushed(&self) -> bool {
        !self.unflushed.load(Ordering::Relaxed)
    }

    pub(super) fn note_written(&self) {
        self.unflushed.store(true, Ordering::Relaxed);
    }

    pub(super) fn note_flushed(&self) {
        self.unflushed.store(false, Ordering::Relaxed);
    }
}

impl Answer {
    pub(super) const fn new(version: Version, response: Response, handover: Handover) -> Self {
        Self { version, response, handover }
    }

    /// Writes the head, and returns what serves the connection from here on.
    pub(super) fn hand_over(
        mut self,
        link: Link,
        arrived: Bytes,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let status = self.response.status();
        let is_stream = status != StatusCode::SWITCHING_PROTOCOLS;
        let chunked = is_stream && self.version == Version::HTTP_11;
        let headers = self.response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        if is_stream {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if chunked {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut head = Vec::new();
        head::write(&mut head, self.version, status, headers);
        self.handover.serve(Taken { link, arrived, head, chunked })
    }
}
