//! The client of HTTP with which spans are sent. The one of the library follows redirects, which make another request of a
//! `POST`, and leaves out of its errors why a collector was not reached.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use parking_lot::Mutex;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;

/// Why the last request was not answered.
pub(super) type Why = Arc<Mutex<Option<String>>>;

/// The client; it waits in the thread that sends, as others want a runtime around them.
#[derive(Debug)]
pub(super) struct Posting {
    client: Client,
    why: Why,
}

impl Posting {
    /// Returns a client that waits so long for an answer, and where it says why there was none.
    pub(super) fn new(timeout: Duration) -> Result<(Self, Why), reqwest::Error> {
        let client = Client::builder().timeout(timeout).redirect(Policy::none()).build()?;
        let why = Why::default();
        Ok((Self { client, why: why.clone() }, why))
    }
}

#[async_trait]
impl HttpClient for Posting {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = request.try_into().and_then(|request| self.client.execute(request));
        let answer = answer.and_then(|mut answer| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = answer.status();
            *response.headers_mut() = std::mem::take(answer.headers_mut());
            *response.body_mut() = answer.bytes()?;
            Ok(response)
        });
        *self.why.lock() = answer.as_ref().err().map(innermost);
        Ok(answer?)
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
