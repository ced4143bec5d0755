//! The way of a connection out of HTTP: the handler puts a handover into its answer, and `server`
//! writes the head of that answer and hands the connection over, instead of a body.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::live::Link;

type Served = Pin<Box<dyn Future<Output = ()> + Send>>;
type Serve = Box<dyn FnOnce(Taken) -> Served + Send>;

/// A connection as it is handed over.
#[derive(Debug)]
pub struct Taken {
    /// The connection.
    pub link: Link,
    /// What the client has sent behind its request.
    pub arrived: Bytes,
    /// The head of the answer, which is still to be written.
    pub head: Vec<u8>,
    /// Whether what follows the head is to be written in chunks (RFC 9112 section 7.1).
    pub chunked: bool,
}

/// Stands in the extensions of an answer whose connection is to be handed over.
#[derive(Clone)]
pub struct Handover(Arc<Mutex<Option<Serve>>>);

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").finish_non_exhaustive()
    }
}

impl Handover {
    /// Returns a handover to `serve`.
    pub fn to<F: Future<Output = ()> + Send + 'static>(
        serve: impl FnOnce(Taken) -> F + Send + 'static,
    ) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(|taken| Box::pin(serve(taken)))))))
    }

    /// Hands the connection over. Returns what serves it until its end; `None` the second time.
    #[must_use]
    pub fn serve(&self, taken: Taken) -> Option<impl Future<Output = ()> + Send + use<>> {
        let serve = self.0.lock().take()?;
        Some(serve(taken))
    }
}
