//! What surrounds every request: its id, the checks that no handler should see fail, the problem
//! document of a failure, the log line and the counts.
//!
//! It must not know what any path does.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, IF_MATCH, IF_UNMODIFIED_SINCE, TRANSFER_ENCODING,
    UPGRADE,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tidemill_proto::{Code, Problem};
use tokio::time::Instant;

use super::failure::{AsItIs, Failed, PROBLEM_JSON, render};
use super::slow::Exchanged;
use super::unconditional::unheeded;
use super::{Http, cookies, cors, keys, operations, source, surroundings, traced};
use crate::access::{Act, Asked, Caller, Origin, RequestSource, Sender, SentCookie, Who};
use crate::chance::random;
use crate::relay::{Failing, Failure};
use crate::slow::{self, Found};

/// The header that carries the request id, both ways.
pub(super) const X_REQUEST_ID: &str = "x-request-id";

/// Longest request id that is taken over from a client.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Gives ids to requests that bring none: a prefix of this process and a counter.
#[derive(Debug)]
pub(super) struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self { prefix: format!("{:08x}-", random() >> 32), next: AtomicU64::new(1) }
    }

    /// Returns the client's own id, if it is fit to stand in logs, and else a new one.
    pub(super) fn choose(&self, own: Option<&[u8]>) -> HeaderValue {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        own.filter(|id| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(plain))
            .and_then(|id| HeaderValue::from_bytes(id).ok())
            .unwrap_or_else(|| self.give())
    }

    fn give(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = [&self.prefix, itoa::Buffer::new().format(number)].concat();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

/// What is told of a request once it is answered.
pub(super) struct Exchange<'a> {
    pub(super) id: &'a str,
    pub(super) method: &'a Method,
    pub(super) path: &'a (dyn fmt::Display + Sync),
    /// The pattern of the path.
    pub(super) route: &'a str,
    pub(super) started: Instant,
}

impl Exchange<'_> {
    /// Tells that a request was refused, if it was for who asked.
    pub(super) fn audit(&self, http: &Http, failed: &Failed, by: Option<&Who>, origin: &Origin) {
        let method = Some(self.method.as_str());
        let asked = Asked { by, origin, method, path: Some(self.path), session: None };
        http.0.entrance.audit().refused(failed.failure.problem(), asked);
    }

    /// Counts the request and tells the log. Returns how long it took.
    pub(super) fn close(&self, http: &Http, status: StatusCode, failed: Option<&Failed>) -> Duration {
        let Self { id, method, path, route, started } = self;
        let elapsed = started.elapsed();
        http.0.metrics.requests().answered(method.as_str(), route, status.as_u16(), elapsed);
        if let Some(failed) = failed {
            let Failed { failure, count, .. } = failed;
            http.0.relay.failure_log().tell(
                failure,
                Failing {
                    request_id: Some(id),
                    session: None,
                    method: Some(*method),
                    path: Some(*path),
                    count: Some(*count),
                },
            );
        }
        tracing::debug!(
            request_id = id,
            %method,
            %path,
            status = status.as_u16(),
            elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
        elapsed
    }
}

/// Waits for an answer; a panic on the way to it concerns this request alone.
pub(super) fn guarded<T>(answer: impl Future<Output = T>) -> impl Future<Output = Result<T, Failure>> {
    // No function that is `async`: it would hold the answer twice.
    AssertUnwindSafe(answer).catch_unwind().map(|answer| answer.map_err(|_| broken()))
}

/// Returns the failure of whoever has panicked over a request.
fn broken() -> Failure {
    Problem::new(Code::Internal, "the relay has failed; please report this").into()
}

/// Runs one request through the router.
pub(super) async fn exchange(State(http): State<Http>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let own = request.headers().get(X_REQUEST_ID).map(HeaderValue::as_bytes);
    let id = http.0.request_ids.choose(own);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let Admitted { admitted, origin, cookie } = admit(&http, &request);
    let authorization = request.headers().get(AUTHORIZATION).cloned();
    let asked_from = http.origin(&request, id.to_str().unwrap_or_default());
    request.extensions_mut().insert(asked_from.clone());
    if let Some(cookie) = &cookie {
        request.extensions_mut().insert(cookie.clone());
    }
    let span = traced::begin(&method, route.as_ref().map(MatchedPath::as_str), request.headers());
    let mut found = Found::default();
    let mut response = match admitted {
        Err(failure) => failure.into_response(),
        Ok(Act::Preflight) => cors::preflight(request.headers()),
        Ok(Act::Probe | Act::Read | Act::Change | Act::Connect) => {
            let (answer, measured) = slow::measured(span.around(guarded(next.run(request)))).await;
            found = measured;
            answer.unwrap_or_else(Failure::into_response)
        }
    };
    let pattern = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let path = uri.path();
    let exchange = Exchange {
        id: id.to_str().unwrap_or_default(),
        method: &method,
        path: &path,
        route: pattern,
        started,
    };
    let failed = settle(&http, &mut response, &exchange);
    let answered = exchange.close(&http, response.status(), failed.as_ref());
    traced::end(span, response.status(), failed.as_ref());
    if let Some(failed) = &failed {
        let caller = http.who_shows(authorization.as_ref(), cookie.as_ref());
        exchange.audit(&http, failed, caller.as_ref().map(Caller::who), &asked_from);
    }
    surroundings::set(&http.0.web.load().rules, origin, response.headers_mut());
    response.headers_mut().insert(X_REQUEST_ID, id.clone());
    let status = response.status().as_u16();
    Exchanged { method, uri, route, id, authorization, cookie, started, answered, status, found }
        .follow(&http, response)
}

/// What is known of a request before its path is looked at.
struct Admitted {
    /// What it is about to do, if it may.
    admitted: Result<Act, Failure>,
    /// The origin whose pages may read the answer.
    origin: Option<HeaderValue>,
    /// The cookie of a log-in.
    cookie: Option<SentCookie>,
}

/// Checks a head.
fn admit(http: &Http, request: &Request) -> Admitted {
    let act = act(request);
    let asked = source::asked(request);
    let origin =
        http.0.web.load().rules.admitted(&asked).and_then(|origin| HeaderValue::from_bytes(origin).ok());
    let admitted = check_head(request, http.0.options.headers_bytes_max)
        .and_then(|()| Ok(check_page(http, request, &asked, act)?))
        .map(|()| act);
    let cookie = cookies::sent(http, request, &asked, act);
    Admitted { admitted, origin, cookie }
}

/// Checks that a request may do this, as far as web pages are concerned. A proxy that calls the relay by another name has
/// taken away which host its pages were of; those of the URL under which others reach the relay are its own.
fn check_page(
    http: &Http,
    request: &Request,
    asked: &RequestSource<'_>,
    act: Act,
) -> Result<(), Box<Problem>> {
    http.0.web.load().rules.check(asked, act).or_else(|problem| {
        let is_own = problem.code == Code::OriginForbidden
            && act != Act::Preflight
            && http.0.web.load().rules.sender(asked, &http.own_url(request)) == Sender::Own;
        if is_own { Ok(()) } else { Err(problem) }
    })
}

/// Marks requests at an address where no web page has anything to find: they are let in by any name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alone;

/// Returns what a request is about to do, as far as web pages are concerned.
fn act(request: &Request) -> Act {
    let method = request.method();
    if cors::is_preflight(method, request.headers()) {
        Act::Preflight
    } else if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        Act::Change
    } else if request.headers().contains_key(UPGRADE) {
        Act::Connect
    } else if operations::PROBES.contains(&request.uri().path())
        || request.extensions().get::<Alone>().is_some()
    {
        Act::Probe
    } else {
        Act::Read
    }
}

/// Returns how large a head counts: its path, and its headers by the lengths of name and value.
pub(super) fn head_bytes(path_bytes: usize, headers: impl Iterator<Item = (usize, usize)>) -> usize {
    path_bytes + headers.map(|(name, value)| name + value + ": \r\n".len()).sum::<usize>()
}

/// Checks what a proxy in front and this relay must read in the same way, and the size of the head.
fn check_head(request: &Request, headers_bytes_max: usize) -> Result<(), Failure> {
    let headers = request.headers();
    let uri_bytes = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let lengths = headers.iter().map(|(name, value)| (name.as_str().len(), value.len()));
    let head_bytes = head_bytes(uri_bytes, lengths);
    if head_bytes > headers_bytes_max {
        return Err(Problem::new(
            Code::HeadersTooLarge,
            format!(
                "path and headers have {head_bytes} bytes; at most {headers_bytes_max} are allowed (setting `TIDEMILL_HEADERS_BYTES_MAX`)"
            ),
        )
        .into());
    }
    // RFC 9112 section 3.2: exactly one `Host`, so that nobody routes by another one.
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(
            Problem::new(Code::InvalidRequest, "the request must have exactly one `Host` header").into()
        );
    }
    // RFC 9112 section 6.1: what is under another coding than `chunked` is not what it seems to be.
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        let detail = "`Transfer-Encoding` is taken as `chunked` alone; send what is compressed with `Content-Encoding`";
        return Err(Problem::new(Code::InvalidRequest, detail).into());
    }
    // RFC 9110 section 13.1: who says it must not have its change made where it does not hold.
    let changes = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    let is_heeded = |name: &HeaderName| *name == IF_MATCH && keys::heed_conditions(request);
    let named = [IF_MATCH, IF_UNMODIFIED_SINCE];
    if let Some(name) = named.iter().find(|name| headers.contains_key(*name) && !is_heeded(name))
        && changes
    {
        return Err(unheeded(if *name == IF_MATCH { "If-Match" } else { "If-Unmodified-Since" }));
    }
    // RFC 9113 section 8.3.1: `:authority` stands in its place, and both say the same where both are there.
    if request.version() == Version::HTTP_2 {
        let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let host = headers.get(HOST).map(HeaderValue::as_bytes);
        let differ = authority.zip(host).is_some_and(|(one, other)| !one.eq_ignore_ascii_case(other));
        if differ || authority.or(host).is_none() {
            return Err(Problem::new(
                Code::InvalidRequest,
                "the request must name one host, in `:authority`",
            )
            .into());
        }
    }
    Ok(())
}

/// Returns what a path takes instead of the method that it does not take.
fn not_allowed(http: &Http, route: &str) -> String {
    let methods = http.0.methods.get().and_then(|methods| methods.get(route));
    let takes = match methods {
        Some(methods) => format!("this path takes {methods}"),
        // It is no part of the API.
        None => "the header `Allow` lists the methods of this path".to_owned(),
    };
    let instead = match route {
        "/api/v1/messages" | "/api/v1/messages/bulk" => {
            ", to publish; messages are read with `GET /api/v1/topics/{topic}/messages`"
        }
        "/api/v1/topics/{topic}/messages" => {
            ": `GET` reads and `POST` publishes; messages are removed with `POST /api/v1/topics/{topic}/trim`"
        }
        "/api/v1/topics/{topic}" => "; messages are published and read at `/api/v1/topics/{topic}/messages`",
        "/api/v1/stream" => ", to read; publish with `POST /api/v1/topics/{topic}/messages`",
        _ => "",
    };
    format!("{takes}{instead}")
}

/// Returns why there is nothing at a path, as far as that is known.
fn nothing_at(http: &Http, path: &str) -> String {
    let options = &http.0.options;
    let nothing = "there is nothing at this path";
    match path {
        "/" | "/docs" | "/openapi.json" | "/asyncapi.json" | "/problems" if !options.serve_docs => {
            "this relay does not serve the documents of its API (setting `TIDEMILL_DOCS`)".to_owned()
        }
        "/console" | "/console/" if !options.serve_console => {
            "this relay does not serve the console (setting `TIDEMILL_CONSOLE`)".to_owned()
        }
        "/metrics" if !options.serve_metrics => {
            "this relay does not serve its metrics here (setting `TIDEMILL_METRICS`)".to_owned()
        }
        path if path.len() > 1 && path.ends_with('/') => {
            format!("{nothing}; paths have no `/` at their end: leave it out")
        }
        _ if options.serve_docs => format!("{nothing}; `/docs` lists the paths"),
        _ => nothing.to_owned(),
    }
}

/// Writes the problem document, where there is one, and returns the failure to log.
pub(super) fn settle(http: &Http, response: &mut Response, exchange: &Exchange<'_>) -> Option<Failed> {
    let request_id = exchange.id;
    if let Some(failed) = response.extensions_mut().remove::<Failed>() {
        if failed.unrendered {
            render(response, failed.failure.problem(), request_id);
        }
        return Some(failed);
    }
    let is_problem = response.headers().get(CONTENT_TYPE) == Some(&PROBLEM_JSON);
    if response.status().as_u16() < 400 || is_problem || response.extensions().get::<AsItIs>().is_some() {
        return None;
    }
    // The router and its libraries answer some errors on their own.
    let problem = match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(Code::MethodNotAllowed, not_allowed(http, exchange.route))
        }
        StatusCode::NOT_FOUND => Problem::new(Code::NotFound, nothing_at(http, &exchange.path.to_string())),
        // `/ready` answers with its own document.
        StatusCode::SERVICE_UNAVAILABLE => return None,
        _ => broken().problem().clone(),
    };
    response.headers_mut().remove(CONTENT_LENGTH);
    render(response, &problem, request_id);
    None
}
