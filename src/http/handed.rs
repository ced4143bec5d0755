//! Answers that hand something over: what is not written to the client is given back.
//!
//! It must not know what is handed over.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tidemill_proto::{Code, Problem};

use crate::link::Hangup;
use crate::relay::{Deliveries, Failure, HeldLock};

/// What is given back when it is dropped.
pub(super) trait GivenBack: Send + Unpin {
    /// Says that it is about to be written; returns what gives it back where it is not.
    fn taken(self) -> Box<dyn FnOnce() + Send>;
}

impl GivenBack for Deliveries {
    fn taken(self) -> Box<dyn FnOnce() + Send> {
        let back = self.taken();
        Box::new(move || back.give())
    }
}

impl GivenBack for HeldLock {
    fn taken(self) -> Box<dyn FnOnce() + Send> {
        let back = self.taken();
        Box::new(move || {
            if let Some(back) = back {
                back.give();
            }
        })
    }
}

/// Waits for something as long as the client is there: one that has hung up gets nothing, and is told so, as it may read
/// still.
pub(super) async fn while_there<T>(
    hangup: Option<&Hangup>,
    waited: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let left = async {
        match hangup {
            Some(hangup) => hangup.wait().await,
            // Over HTTP/2 a request that is given up is dropped.
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = left => Err(hung_up()),
        done = waited => {
            let done = done?;
            if hangup.is_some_and(Hangup::is_left) { Err(hung_up()) } else { Ok(done) }
        }
    }
}

fn hung_up() -> Failure {
    Problem::new(Code::RequestTimeout, "the client has hung up").into()
}

/// An answer with something that is given back unless it was written.
pub(super) struct Handed<G> {
    text: Option<Bytes>,
    given: Option<G>,
    hangup: Option<Hangup>,
}

impl<G: GivenBack> Handed<G> {
    /// Returns the answer with this text.
    pub(super) const fn new(text: Bytes, given: G, hangup: Option<Hangup>) -> Self {
        Self { text: Some(text), given: Some(given), hangup }
    }
}

impl<G: GivenBack> HttpBody for Handed<G> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // Whoever takes it writes it, and only the connection knows how far that has come.
        let text = self.text.take();
        if let (Some(_), Some(given)) = (&text, self.given.take()) {
            let back = given.taken();
            if let Some(hangup) = &self.hangup {
                hangup.unless_written(back);
            }
        }
        Poll::Ready(text.map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }
}
