//! A relay as a side of a copy, over HTTP. One request for each step.

use std::time::Duration;

use reqwest::Method;
use tidemill_proto::copy::{
    COPY_VERSION, CopyRead, CopyReadAnswer, CopyReadRequest, CopyTold, CopyWrite, CopyWriteRequest,
};
use tidemill_proto::limits::COPY_STEP_SECONDS_MAX;

use crate::connection::Connector;
use crate::error::ClientError;
use crate::http::{Http, Request};

/// The paths.
const READ: &[&str] = &["api", "v1", "admin", "copy", "read"];
const WRITE: &[&str] = &["api", "v1", "admin", "copy", "write"];

/// Steps of a copy, over HTTP. It keeps connections that it may use again; a clone shares them.
///
/// Each method is one request, sent once. Who calls it must be allowed to administer the relay.
#[derive(Clone, Debug)]
pub struct CopyClient {
    http: Http,
}

impl CopyClient {
    pub(crate) fn new(connector: &Connector) -> Result<Self, ClientError> {
        Ok(Self { http: Http::new(&connector.address, &connector.options)? })
    }

    /// Asks what is there.
    ///
    /// # Errors
    /// As the relay refuses, or no answer.
    pub async fn read(&self, read: &CopyRead) -> Result<CopyTold, ClientError> {
        let request = CopyReadRequest { version: COPY_VERSION, read: read.clone() };
        let answer: CopyReadAnswer = self.http.ask(post(READ).json(&request)?).await?;
        if answer.version != COPY_VERSION {
            let what = format!("its form of copies is {}, and not {COPY_VERSION}", answer.version);
            return Err(self.http.not_a_relay(what));
        }
        Ok(answer.told)
    }

    /// Has something done.
    ///
    /// # Errors
    /// As the relay refuses, or no answer: then it may be done or not, and done again it does no harm.
    pub async fn write(&self, write: CopyWrite) -> Result<(), ClientError> {
        let request = CopyWriteRequest { version: COPY_VERSION, write };
        self.http.send(post(WRITE).json(&request)?).await.map(drop)
    }
}

fn post(path: &'static [&'static str]) -> Request<'static> {
    Request::new(Method::POST, path).wait(Duration::from_secs(COPY_STEP_SECONDS_MAX))
}
