//! An answer that comes line by line, for as long as there is something to tell.
//!
//! It must not know what the lines say.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response};
use tidemill_proto::Problem;
use tokio::time::timeout;

use super::{Client, Refusal, header, root};

/// What the relay is asked for.
const KIND: &str = "application/x-ndjson";
/// How long there may be nothing: a relay says at least every 15 seconds, unless it was set otherwise, that it is there.
const SILENCE: Duration = Duration::from_mins(2);
/// How long a whole answer may take: there is no end to it.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);
/// Longest line: above any value, whatever the relay's limit on them.
const LINE_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// The lines of an answer.
#[derive(Debug)]
pub(in crate::cli) struct Lines {
    response: Response,
    read: Vec<u8>,
    /// What of it was looked at.
    looked: usize,
}

impl Client {
    /// Sends a request for lines, and returns them when the relay begins to answer.
    pub(in crate::cli) async fn open(&self, request: RequestBuilder) -> Result<Lines, Refusal> {
        let request = request.header(ACCEPT, KIND).timeout(FOR_EVER);
        let response = match timeout(super::REQUEST, request.send()).await {
            Ok(response) => response.map_err(|cause| self.broken(cause))?,
            Err(_) => return Err(self.silent()),
        };
        let status = response.status().as_u16();
        let kind = header(&response, &CONTENT_TYPE).unwrap_or_default();
        if status == 200 && kind.starts_with(KIND) {
            return Ok(Lines { response, read: Vec::new(), looked: 0 });
        }
        let is_problem = kind.starts_with("application/problem+json");
        let retry_after = header(&response, &RETRY_AFTER).and_then(|text| text.parse().ok());
        let body = self.body(response).await?;
        let problem = if is_problem { serde_json::from_slice::<Problem>(&body).ok() } else { None };
        Err(self.refused(status, problem, retry_after, &body))
    }

    fn silent(&self) -> Refusal {
        let error = crate::cli::CliError::NoAnswer { url: self.name(), why: "it took too long".to_owned() };
        Refusal { error, is_passing: true, is_unreachable: false, retry_after: None }
    }
}

impl Lines {
    /// Returns the next line; `None` at the end.
    ///
    /// # Errors
    /// Why there will be none: the connection broke, nothing came for too long, or a line is longer than any is.
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            let end = self.read[self.looked..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end.map(|end| self.looked + end) {
                let mut line: Vec<u8> = self.read.drain(..=end).collect();
                line.pop();
                self.looked = 0;
                return Ok(Some(line));
            }
            self.looked = self.read.len();
            if self.looked > LINE_BYTES_MAX {
                return Err("a line is larger than 1 GiB".to_owned());
            }
            match timeout(SILENCE, self.response.chunk()).await {
                Err(_) => return Err("nothing came for too long".to_owned()),
                Ok(Err(cause)) => return Err(root(&cause.without_url())),
                // What is not a whole line was cut.
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(chunk))) => self.read.extend_from_slice(&chunk),
            }
        }
    }
}
