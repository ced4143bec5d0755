//! Takes of limits of applications over HTTP. One request each, sent once.

use reqwest::Method;
use tidemill_proto::LimitName;
use tidemill_proto::takes::{TakeAnswer, TakeRequest};

use crate::connection::Connector;
use crate::error::ClientError;
use crate::http::{Http, Request};

/// Takes of limits of applications, over HTTP. It keeps connections that it may use again; a clone shares them.
///
/// Each method is one request, sent once. One that ends as [`ClientError::NoAnswer`] may have been counted.
#[derive(Clone, Debug)]
pub struct LimitClient {
    http: Http,
}

impl LimitClient {
    pub(crate) fn new(connector: &Connector) -> Result<Self, ClientError> {
        Ok(Self { http: Http::new(&connector.address, &connector.options)? })
    }

    /// Takes the cost of every policy, or of none, and returns whether it was taken.
    ///
    /// # Errors
    /// As the relay refuses, or no answer. That a limit lets it not pass is no error.
    pub async fn take(&self, name: &LimitName, request: &TakeRequest) -> Result<TakeAnswer, ClientError> {
        self.ask(name, "take", request).await
    }

    /// Returns what a take would be answered, and takes nothing.
    ///
    /// # Errors
    /// As those of [`take`](Self::take).
    pub async fn peek(&self, name: &LimitName, request: &TakeRequest) -> Result<TakeAnswer, ClientError> {
        self.ask(name, "peek", request).await
    }

    /// Gives back what was taken and not used, at most a whole burst.
    ///
    /// # Errors
    /// As those of [`take`](Self::take).
    pub async fn refund(&self, name: &LimitName, request: &TakeRequest) -> Result<TakeAnswer, ClientError> {
        self.ask(name, "refund", request).await
    }

    async fn ask(
        &self,
        name: &LimitName,
        what: &str,
        request: &TakeRequest,
    ) -> Result<TakeAnswer, ClientError> {
        let path = ["api", "v1", "limits", name.as_str(), what];
        self.http.ask(Request::new(Method::POST, &path).json(request)?).await
    }
}
