//! Requests over HTTP: sends one, and reads its answer or why there is none. It must not know what is asked for, nor
//! when to ask again.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_proto::{Code, Problem, content_type};
use url::{Host, Url};

use crate::connection::{SPEAKS_TLS, speaks_tls};
use crate::error::{ClientError, Refusal};
use crate::options::{Address, ClientOptions};

/// Under which a repeat finds what was done.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How long an answer may take beyond what was asked to be waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// What sends requests to one relay. It keeps connections that it may use again.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    base: Url,
    name: String,
    answer_bytes_max: usize,
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'a str, String)>,
    headers: Vec<(HeaderName, String)>,
    body: Option<Bytes>,
    wait: Duration,
}

/// The answer to a request that has succeeded.
#[derive(Debug)]
pub(crate) struct Answer {
    headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl<'a> Request<'a> {
    /// Returns a request for a path of these segments, which are not encoded.
    pub(crate) const fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self { method, path, query: Vec::new(), headers: Vec::new(), body: None, wait: Duration::ZERO }
    }

    pub(crate) fn query(mut self, name: &'a str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: Option<impl ToString>) -> Self {
        self.headers.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Adds the key under which a repeat finds what was done.
    pub(crate) fn key(self, key: Option<&str>) -> Self {
        self.header(IDEMPOTENCY_KEY, key)
    }

    /// Adds a body in JSON.
    pub(crate) fn json(self, body: &impl Serialize) -> Result<Self, ClientError> {
        let body = serde_json::to_vec(body).map_err(|cause| ClientError::Usage(cause.to_string()))?;
        Ok(self.body(content_type::JSON, body.into()))
    }

    /// Adds a body of a type.
    pub(crate) fn body(mut self, kind: &str, body: Bytes) -> Self {
        self.body = Some(body);
        self.header(CONTENT_TYPE, Some(kind))
    }

    /// Says how long the relay is asked to wait.
    pub(crate) const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Http {
    pub(crate) fn new(address: &Address, options: &ClientOptions) -> Result<Self, ClientError> {
        let Address { url: mut base, name, tls, .. } = address.clone();
        base.set_scheme(if tls { "https" } else { "http" })
            .map_err(|()| ClientError::Usage("the relay's URL cannot be used".to_owned()))?;
        if let Ok(mut path) = base.path_segments_mut() {
            // That of the WebSocket.
            path.pop();
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .default_headers(headers(options)?)
            .user_agent(options.client_id.as_deref().unwrap_or("tidemill-client"));
        let unusable = |cause: reqwest::Error| ClientError::Usage(root(&cause));
        if let Some(pem) = options.roots_pem.as_deref().filter(|_| tls) {
            let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(unusable)?;
            builder = builder.tls_certs_only(roots);
        } else if !tls {
            // Without TLS no certificate is looked at: none need be loaded.
            builder = builder.tls_certs_only([]);
        }
        let is_here = match base.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        if is_here {
            // A proxy would look for its own loopback.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(unusable)?;
        Ok(Self { client, base, name, answer_bytes_max: options.frame_bytes_max })
    }

    /// Sends a request, and reads its answer, which is JSON. One without a body is `null`.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, ClientError> {
        self.read(&self.send(request).await?)
    }

    /// Reads an answer that is JSON.
    pub(crate) fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, ClientError> {
        let body: &[u8] = if answer.body.is_empty() { b"null" } else { &answer.body };
        serde_json::from_slice(body).map_err(|cause| self.not_a_relay(cause.to_string()))
    }

    /// Sends a request, and returns its answer.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Answer, ClientError> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(request.path);
        }
        for (name, value) in &request.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut asked = self.client.request(request.method, url).timeout(request.wait + ANSWER);
        for (name, text) in request.headers {
            let broken = |_| ClientError::Usage(format!("the header {name} cannot be sent"));
            let value = HeaderValue::try_from(text).map_err(broken)?;
            asked = asked.header(name, value);
        }
        if let Some(body) = request.body {
            asked = asked.body(body);
        }
        let mut response = asked.send().await.map_err(|cause| self.broken(cause))?;
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let is_problem =
            header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/problem+json"));
        let retry_after = header(RETRY_AFTER).and_then(|text| text.parse().ok());
        let headers = std::mem::take(response.headers_mut());
        let body = self.body(response).await?;
        if (200..300).contains(&status) {
            return Ok(Answer { headers, body });
        }
        let problem = if is_problem { serde_json::from_slice::<Problem>(&body).ok() } else { None };
        Err(match problem {
            Some(mut problem) => {
                problem.retry_after_seconds = problem.retry_after_seconds.or(retry_after);
                ClientError::Refused(Refusal::from(problem))
            }
            None => self.foreign(status, &body, retry_after),
        })
    }

    /// Returns the error for an answer that is no problem document, as a proxy gives it in front of the relay.
    fn foreign(&self, status: u16, body: &[u8], retry_after_seconds: Option<u64>) -> ClientError {
        let passing = |code| {
            let message = format!("status {status} from {}", self.name);
            ClientError::Refused(Refusal { retry_after_seconds, ..Refusal::new(code, message) })
        };
        match status {
            429 => passing(Code::RateLimited),
            503 => passing(Code::Overloaded),
            502 | 504 => self.no_answer(format!("status {status}")),
            _ if speaks_tls(status, body) => self.not_a_relay(SPEAKS_TLS.to_owned()),
            _ => self.not_a_relay(format!("status {status}")),
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|cause| self.broken(cause))? {
            if body.len() + chunk.len() > self.answer_bytes_max {
                return Err(self.not_a_relay(format!("it is larger than {} bytes", self.answer_bytes_max)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn broken(&self, cause: reqwest::Error) -> ClientError {
        let is_away = cause.is_connect();
        let why = root(&cause.without_url());
        if is_away { ClientError::Away { url: self.name.clone(), why } } else { self.no_answer(why) }
    }

    pub(crate) fn no_answer(&self, why: String) -> ClientError {
        ClientError::NoAnswer { url: self.name.clone(), why }
    }

    pub(crate) fn not_a_relay(&self, what: String) -> ClientError {
        ClientError::NotARelay { url: self.name.clone(), what }
    }
}

/// Returns the headers of every request, with what says who calls.
fn headers(options: &ClientOptions) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &options.headers {
        let broken = || ClientError::Usage(format!("the header {name} cannot be sent"));
        let name = HeaderName::try_from(name).map_err(|_| broken())?;
        let mut value = HeaderValue::try_from(value.expose_secret()).map_err(|_| broken())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    if let Some(token) = options.token.as_ref().filter(|_| !headers.contains_key(AUTHORIZATION)) {
        let value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
        let mut value =
            value.map_err(|_| ClientError::Usage("the token cannot stand in a header".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// Returns the innermost cause of an error; what lies around it names layers of the library.
fn root(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
