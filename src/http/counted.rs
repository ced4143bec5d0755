//! What answers hold until their clients have taken them: each is counted in the budget of bodies, whoever has
//! written it.
//!
//! Live streams have their own bounds. It must not know what an answer says.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use tidemill_proto::{Code, Problem};

use super::Http;
use super::body::{Charged, FREE_BYTES};
use crate::budget::Hold;
use crate::relay::Failure;

/// Marks an answer whose body was counted before it was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted;

/// A body that counts until its bytes are gone.
struct Held {
    body: Body,
    hold: Option<Hold>,
}

/// Counts what one request is answered, as long as it is no stream.
pub(super) async fn count(State(http): State<Http>, request: Request, next: Next) -> Response {
    let is_safe = request.method().is_safe();
    let response = next.run(request).await;
    let has_no_effect = is_safe || response.status().is_client_error();
    let bytes = response.body().size_hint().exact().filter(|bytes| *bytes > FREE_BYTES as u64);
    let Some(bytes) = bytes.filter(|_| response.extensions().get::<Counted>().is_none()) else {
        return response;
    };
    let mut hold = Hold::default();
    match http.0.budget.raise(&mut hold, bytes) {
        Ok(()) => response.map(|body| Body::new(Held { body, hold: Some(hold) })),
        Err(failure) if has_no_effect => failure.into_response(),
        // What was asked for has been done.
        Err(_) => unanswered().into_response(),
    }
}

fn unanswered() -> Failure {
    let detail = "it was done, and there is no room now for the answer (setting `TIDEMILL_INFLIGHT_BYTES_MAX`); ask for less of it with `Prefer: return=minimal`, or again under the same idempotency key";
    Problem::new(Code::OutcomeUnknown, detail).into()
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, hold } = self.get_mut();
        // The bytes are there until they are written, and longer than this.
        let held = |bytes| match hold.take() {
            Some(hold) => Bytes::from_owner(Charged::new(bytes, hold)),
            None => bytes,
        };
        Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| Ok(frame?.map_data(held))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
