//! The fast path: publishes of one message in their plainest form, answered without the HTTP library and
//! the router.
//!
//! A busy relay gets hardly anything else, and what surrounds such a request there costs more than the
//! publish itself (docs/performance.md). `server` reads the head; here it is decided whether the router
//! would do with the request just what is done here. Whatever is not eligible, and whatever has a mistake,
//! is left to the router: nothing has happened by then.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{CONNECTION, CONTENT_LENGTH};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::IntoResponse as _;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use tidemill_proto::slow::SlowKind;
use tidemill_proto::{Durability, TopicName};
use tokio::time::Instant;

use super::called::Known;
use super::exchange::{self, Exchange};
use super::media::{self, Media};
use super::publishing::{About, Form, Head, Said, published, read_message, scheduled};
use super::{Http, body, head, surroundings, traced};
use crate::access::{Act, Origin, RequestSource};
use crate::limits::{Asks, Peer};
use crate::relay::{Answered, Checked, IdempotencyKey};
use crate::slow::{self, Found, Operation, Times};

/// Largest body that takes the fast path, in bytes: what is held without being counted.
pub(crate) const BODY_BYTES_MAX: usize = body::FREE_BYTES;

const MESSAGES: &str = "/api/v1/messages";
const TOPICS: &str = "/api/v1/topics/";
/// The beginning of the line that carries the request id.
const REQUEST_ID: &str = "\r\nx-request-id: ";

/// Which path a request is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route<'a> {
    /// The body names the topic.
    Message,
    /// The path names the topic.
    Topic(&'a str),
}

/// A publish that is checked and can be answered.
pub(crate) struct Ready {
    known: Box<Known>,
    peer: Peer,
    route: &'static str,
    message: Checked,
    said: Said,
    request_id: HeaderValue,
    started: Instant,
}

/// The answer to a publish, with what is noted of it once it is written.
pub(crate) struct Written {
    /// The whole answer.
    pub(crate) answer: Vec<u8>,
    known: Box<Known>,
    route: &'static str,
    topic: TopicName,
    request_id: HeaderValue,
    status: StatusCode,
    started: Instant,
    /// When it was answered, from then on.
    answered: Duration,
    found: Found,
}

/// Returns the route of a request that may take the fast path.
pub(crate) fn route<'a>(request: &httparse::Request<'_, 'a>) -> Option<Route<'a>> {
    if request.method != Some("POST") {
        return None;
    }
    let path = request.path?;
    if path == MESSAGES {
        return Some(Route::Message);
    }
    let topic = path.strip_prefix(TOPICS)?.strip_suffix("/messages")?;
    Some(Route::Topic(topic))
}

/// Returns whether a header may stand beside those, because it changes nothing about a publish and its
/// answer: how the request is framed (read by `server`), and what browsers and libraries send unasked.
/// Whatever is not listed may mean something to the router, and goes there; so do requests of web pages,
/// which have `Origin` or `Sec-Fetch-Site`.
fn means_nothing(name: &str) -> bool {
    let is = |listed: &str| name.eq_ignore_ascii_case(listed);
    // By length first: nearly every request has several of these.
    match name.len() {
        6 => is("accept") || is("pragma"),
        10 => is("user-agent") || is("connection"),
        13 => is("cache-control"),
        14 => is("content-length"),
        15 => is("accept-encoding") || is("accept-language"),
        _ => false,
    }
}

/// The headers that have a meaning here.
#[derive(Default)]
struct Headers<'a> {
    host: Option<&'a [u8]>,
    content_type: Option<&'a str>,
    key: Option<IdempotencyKey>,
    durability: Option<Durability>,
    request_id: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
}

impl<'a> Headers<'a> {
    /// Returns what the headers say, unless one is there twice, is no text, or may mean more than is
    /// known here.
    fn read(headers: &[httparse::Header<'a>]) -> Option<Self> {
        let mut read = Self::default();
        for header in headers {
            let is_new = if header.name.eq_ignore_ascii_case("host") {
                read.host.replace(header.value).is_none()
            } else if header.name.eq_ignore_ascii_case("content-type") {
                let text = std::str::from_utf8(header.value).ok().filter(|text| text.is_ascii())?;
                read.content_type.replace(text).is_none()
            } else if header.name.eq_ignore_ascii_case("idempotency-key") {
                read.key.replace(IdempotencyKey::parse(header.name, header.value).ok()?).is_none()
            } else if header.name.eq_ignore_ascii_case("tidemill-durability") {
                let text = std::str::from_utf8(header.value).ok()?;
                read.durability.replace(Durability::parse(text).ok()?).is_none()
            } else if header.name.eq_ignore_ascii_case("x-request-id") {
                read.request_id.replace(header.value).is_none()
            } else if header.name.eq_ignore_ascii_case("authorization") {
                read.authorization.replace(header.value).is_none()
            } else if means_nothing(header.name) {
                true
            } else {
                return None;
            };
            if !is_new {
                return None;
            }
        }
        Some(read)
    }
}

impl Http {
    /// Returns the publish that a request asks for; `None` if the router has to see it. `known` is who sent the last
    /// one over its connection.
    pub(crate) fn read_eligible(
        &self,
        route: Route<'_>,
        request: &httparse::Request<'_, '_>,
        body: &[u8],
        peer: Peer,
        known: &mut Option<Box<Known>>,
    ) -> Option<Box<Ready>> {
        // Whoever panics over a request leaves it to the router, which answers for that.
        catch_unwind(AssertUnwindSafe(|| self.try_read(route, request, body, peer, known)))
            .unwrap_or_default()
    }

    fn try_read(
        &self,
        route: Route<'_>,
        request: &httparse::Request<'_, '_>,
        body: &[u8],
        peer: Peer,
        known: &mut Option<Box<Known>>,
    ) -> Option<Box<Ready>> {
        let started = Instant::now();
        let lengths = request.headers.iter().map(|header| (header.name.len(), header.value.len()));
        let path_bytes = request.path.unwrap_or_default().len();
        if exchange::head_bytes(path_bytes, lengths) > self.0.options.headers_bytes_max {
            return None;
        }
        let Headers { host, content_type, key, durability, request_id, authorization } =
            Headers::read(request.headers)?;
        self.0.web.load().rules.check(&RequestSource::of(host), Act::Change).ok()?;
        let body = Bytes::copy_from_slice(body);
        let content_type = content_type?;
        media::check_charset(content_type).ok()?;
        let media = media::named(content_type);
        let said = Said::of_durability(durability.is_some());
        let (route, form) = match route {
            Route::Message if matches!(media, Media::Json(_)) && durability.is_none() => {
                (MESSAGES, Form::Described(None))
            }
            Route::Topic(topic)
                if media != Media::Ndjson && body.len() <= self.0.relay.options().payload_bytes_max =>
            {
                let topic = TopicName::parse(topic).ok()?;
                (
                    "/api/v1/topics/{topic}/messages",
                    Form::Payload(topic, media, About { durability, ..About::default() }),
                )
            }
            Route::Message | Route::Topic(_) => return None,
        };
        let known = self.called_at_once(authorization, peer, known, started)?;
        // Who has to be looked up first goes through the router.
        let message =
            read_message(&known.gate, &self.0.budget, Head { form, key, expected_last: None }, &body)
                .now_or_never()?
                .ok()?;
        let request_id = self.0.request_ids.choose(request_id);
        Some(Box::new(Ready { known, peer, route, message, said, request_id, started }))
    }

    /// Publishes, and returns the whole answer, and who has called. `closing` tells the client that the connection
    /// ends with it.
    pub(crate) async fn answer_eligible(&self, ready: Box<Ready>, closing: bool) -> Written {
        let Ready { known, peer: Peer(peer), route, message, said, request_id, started } = *ready;
        let topic = message.topic().clone();
        let path = Path { route, topic: &topic };
        let exchange = Exchange {
            id: request_id.to_str().unwrap_or_default(),
            method: &Method::POST,
            path: &path,
            route,
            started,
        };
        self.0.metrics.requests().fast_path();
        let gate = &known.gate;
        let publish = async {
            gate.admit_request(Asks::Publish).await?;
            self.publish(gate, message).await
        };
        let span = traced::begin_publish(route);
        let (answer, found) = slow::measured(span.around(exchange::guarded(publish))).await;
        let (status, answered, answer) = match answer.flatten() {
            Ok(Answered::Published(appended, durability)) => {
                let answered = exchange.close(self, StatusCode::CREATED, None);
                traced::end(span, StatusCode::CREATED, None);
                let body = published(&topic, &appended, durability);
                let answer = self.taken(StatusCode::CREATED, exchange.id, appended.replayed, closing, &body);
                (StatusCode::CREATED, answered, answer)
            }
            Ok(Answered::Scheduled(later)) => {
                let answered = exchange.close(self, StatusCode::ACCEPTED, None);
                traced::end(span, StatusCode::ACCEPTED, None);
                let body = scheduled(&topic, &later);
                let answer = self.taken(StatusCode::ACCEPTED, exchange.id, later.replayed, closing, &body);
                (StatusCode::ACCEPTED, answered, answer)
            }
            Err(failure) => {
                let mut response = said.named(failure).into_response();
                let failed = exchange::settle(self, &mut response, &exchange);
                let answered = exchange.close(self, response.status(), failed.as_ref());
                traced::end(span, response.status(), failed.as_ref());
                if let Some(failed) = &failed {
                    let origin = Origin::new(peer, exchange.id);
                    exchange.audit(self, failed, Some(gate.caller().who()), &origin);
                }
                surroundings::set(&self.0.web.load().rules, None, response.headers_mut());
                let (mut parts, body) = response.into_parts();
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                // The answer says these itself.
                parts.headers.remove(CONTENT_LENGTH);
                let closing = parts.headers.remove(CONNECTION).is_some() || closing;
                let starts: Vec<_> = parts.headers.keys().map(|name| format!("\r\n{name}: ")).collect();
                let values = parts.headers.values().map(HeaderValue::as_bytes);
                let mut lines: Vec<_> = starts.iter().map(String::as_str).zip(values).collect();
                lines.push((REQUEST_ID, request_id.as_bytes()));
                (parts.status, answered, self.answer(parts.status, &lines, closing, &body))
            }
        };
        Written { answer, known, route, topic, request_id, status, started, answered, found }
    }

    /// Notes a publish whose client has accepted the answer now, if it took long. Returns who has called.
    pub(crate) fn written(&self, written: Written, now: Instant) -> Box<Known> {
        let Written { known, route, topic, request_id, status, started, answered, found, .. } = written;
        let total = now.saturating_duration_since(started);
        let slow = self.0.relay.slow();
        if slow.is_slow(total) {
            let operation = Operation {
                kind: SlowKind::Publish,
                operation: format!("POST {route}"),
                topic: Some(topic),
                caller: Some(known.gate.caller().who().to_string()),
                request_id: request_id.to_str().ok().map(str::to_owned),
                status: Some(status.as_u16()),
            };
            let (now, write) = (self.0.relay.clock().now(), Some(total.saturating_sub(answered)));
            slow.keep(operation, Times { now, total, spent: found.spent, write });
        }
        known
    }

    fn taken(
        &self,
        status: StatusCode,
        request_id: &str,
        replayed: bool,
        closing: bool,
        body: &[u8],
    ) -> Vec<u8> {
        let web = self.0.web.load();
        let lines: [(&str, &[u8]); 2] =
            [(&web.fast_path_lines, request_id.as_bytes()), ("\r\nidempotency-replayed: true", b"")];
        let lines = if replayed { &lines[..] } else { &lines[..1] };
        self.answer(status, lines, closing, body)
    }

    fn answer(&self, status: StatusCode, lines: &[(&str, &[u8])], closing: bool, body: &[u8]) -> Vec<u8> {
        head::Answer { status, lines, now: Some(self.0.relay.clock().now()), closing, body }.to_bytes()
    }
}

/// The path of a request, for the log.
struct Path<'a> {
    route: &'static str,
    topic: &'a TopicName,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.route {
            MESSAGES => f.write_str(MESSAGES),
            _ => write!(f, "{TOPICS}{}/messages", self.topic.as_str()),
        }
    }
}
