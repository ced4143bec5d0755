//! The handshake (RFC 6455 section 4.2): what an upgrade is, and which encoding was chosen.
//!
//! Which web pages may connect is decided before a request comes here. It must not know what happens on the
//! connection.

use axum::extract::Request;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use tidemill_proto::frame::{BEARER_SUBPROTOCOL, BINARY_SUBPROTOCOL};
use tidemill_proto::{Code, Problem};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::frames::Encoding;
use crate::access;
use crate::relay::Failure;

/// The one version of the protocol.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// Bytes of a handshake's key.
const KEY_BYTES: usize = 16;
/// Some clients make up keys from letters, and so leave bits behind the last byte.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// An upgrade that is agreed on.
#[derive(Debug)]
pub(super) struct Accepted {
    /// How frames are encoded.
    pub(super) encoding: Encoding,
    protocol: Option<&'static str>,
    accept: String,
}

/// Why there is no upgrade.
#[derive(Debug)]
pub(super) struct Refusal(Failure);

/// Checks a request for an upgrade.
///
/// # Errors
/// It is none.
pub(super) fn accept(request: &Request) -> Result<Accepted, Refusal> {
    if request.version() == Version::HTTP_2 {
        return Err(broken(
            "this connection speaks HTTP/2, and WebSockets are served over HTTP/1.1: connect with a WebSocket client, or offer `http/1.1` alone (ALPN)",
        ));
    }
    let headers = request.headers();
    let upgrades = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has_token(headers, &CONNECTION, "upgrade")
        && has_token(headers, &UPGRADE, "websocket");
    if !upgrades {
        return Err(broken("this path speaks WebSocket: connect to it with a WebSocket client"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(broken("`Sec-WebSocket-Version` must be 13"));
    }
    let key = key(headers).ok_or_else(|| broken("`Sec-WebSocket-Key` must be 16 bytes in base64, once"))?;
    let offers = |name| has_token(headers, &SEC_WEBSOCKET_PROTOCOL, name);
    let (encoding, protocol) = if offers(BINARY_SUBPROTOCOL) {
        (Encoding::Binary, Some(BINARY_SUBPROTOCOL))
    } else if offers(BEARER_SUBPROTOCOL) {
        (Encoding::Json, Some(BEARER_SUBPROTOCOL))
    } else {
        (Encoding::Json, None)
    };
    Ok(Accepted { encoding, protocol, accept: derive_accept_key(key.as_bytes()) })
}

/// Returns what a request says of who calls: `Authorization: Bearer`, or, from browsers, which cannot send that,
/// the subprotocol `bearer.<token>` beside `bearer`.
///
/// # Errors
/// It says it in a way that is none, or twice.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Box<Problem>> {
    let authorization = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    if let Some(token) = access::bearer(authorization)? {
        return Ok(Some(token));
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = protocols
        .flat_map(|value| value.split(','))
        .filter_map(|protocol| protocol.trim().strip_prefix(BEARER_SUBPROTOCOL)?.strip_prefix('.'));
    let token = tokens.next();
    if tokens.next().is_some() || token.is_some_and(str::is_empty) {
        let rule = "must have one protocol `bearer.` with a token or a JWT behind it";
        return Err(access::unauthenticated("Sec-WebSocket-Protocol", rule));
    }
    Ok(token)
}

/// Returns the key of a handshake, if there is one that is a key.
fn key(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none())?;
    let is_key = BASE64.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES);
    is_key.then_some(key)
}

/// Returns whether a header that holds a list has this token.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

fn broken(detail: &str) -> Refusal {
    Refusal(Problem::new(Code::InvalidRequest, detail).into())
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::try_from(self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        // Section 4.4: says which version would have done.
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, VERSION);
        response
    }
}
