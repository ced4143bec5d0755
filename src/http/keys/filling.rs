//! Keys that are read by who would fill them, and the header by which it does: `Tidemill-Fill`.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse as _, Response};
use tidemill_proto::{BucketName, Code, KeyName, Problem};

use super::{condition, read_value_of};
use crate::http::Http;
use crate::http::handed::while_there;
use crate::link::Hangup;
use crate::relay::{
    Failure, FillDraft, FillToken, Gate, KeyCondition, KeyToFill, KeysMade, fill_token_text, parse_fill,
    parse_fill_token,
};

const FILL: HeaderName = HeaderName::from_static("tidemill-fill");
/// What it is called in problems.
const FIELD: &str = "Tidemill-Fill";

/// Returns how a key is to be filled, if who reads it says so; `beside` says whether `revision`, `view` and `fallback` are
/// there.
///
/// # Errors
/// One of the parameters is wrong, or does not fit another.
pub(super) fn asked(
    method: &Method,
    fill: Option<&str>,
    wait: Option<&str>,
    beside: [bool; 3],
) -> Result<Option<FillDraft>, Failure> {
    let Some(fill) = fill else {
        return match wait {
            Some(_) => Err(Problem::field("wait", "is for who fills the key; it belongs to `fill`").into()),
            None => Ok(None),
        };
    };
    if beside.contains(&true) {
        let rule = "is of the current value; leave `revision`, `view` and `fallback` out";
        return Err(Problem::field("fill", rule).into());
    }
    if *method == Method::HEAD {
        return Err(Problem::field("fill", "is for who reads the value; ask with `GET`").into());
    }
    parse_fill(fill, wait).map(Some)
}

/// Answers who would fill a key: with its value, or its token, or both.
///
/// # Errors
/// As the gate's.
pub(super) async fn read(
    http: &Http,
    gate: &Gate,
    bucket: &BucketName,
    key: &KeyName,
    draft: FillDraft,
    head: &Parts,
) -> Result<Response, Failure> {
    let known = condition::known(&head.headers)?;
    let hangup = head.extensions.get::<Hangup>().cloned();
    let metrics = http.0.metrics.keys();
    let asking = gate.key_to_fill(bucket, key, draft);
    let found = while_there(hangup.as_ref(), asking).await.inspect_err(|failure| {
        if failure.code() == Code::Filling {
            metrics.read(false);
        }
    })?;
    let (token, entry) = match found {
        KeyToFill::Found(entry) => return read_value_of(http, gate, bucket, entry, known),
        KeyToFill::Granted { token, stale } => (token, stale),
    };
    metrics.fill_granted();
    let mut response = match entry {
        // What is damaged is as good as none to who fills it.
        Some(entry) if entry.is_sound() => read_value_of(http, gate, bucket, entry, known)?,
        Some(_) | None => {
            metrics.read(false);
            let detail = format!(
                "bucket `{bucket}` has no key `{key}`: put it, with the header `{FIELD}` as this answer has it"
            );
            Failure::from(Problem::new(Code::KeyNotFound, detail)).into_response()
        }
    };
    response.headers_mut().insert(FILL, text_of(token));
    Ok(response)
}

fn text_of(token: FillToken) -> HeaderValue {
    HeaderValue::try_from(fill_token_text(token)).expect("hexadecimal digits can stand in a header")
}

/// Returns the condition of a put, which is that its token counts where it shows one.
///
/// # Errors
/// The header is no token, is there twice, or beside another condition.
pub(super) fn condition(headers: &HeaderMap, other: KeyCondition) -> Result<KeyCondition, Failure> {
    let mut tokens = headers.get_all(FILL).iter();
    let token = match (tokens.next(), tokens.next()) {
        (None, _) => return Ok(other),
        (Some(token), None) => parse_fill_token(FIELD, token.to_str().unwrap_or_default().trim())?,
        (Some(_), Some(_)) => return Err(Problem::field(FIELD, "is there twice").into()),
    };
    if other != KeyCondition::Anything {
        let rule = "stands beside `If-Match` or `If-None-Match`; a change has one condition";
        return Err(Problem::field(FIELD, rule).into());
    }
    Ok(token)
}

/// Counts what came of a put that has shown a token.
pub(super) fn counted(
    http: &Http,
    condition: KeyCondition,
    made: Result<KeysMade, Failure>,
) -> Result<KeysMade, Failure> {
    if matches!(condition, KeyCondition::Filling(_)) {
        match &made {
            Ok(made) if !made.replayed => http.0.metrics.keys().filled(true),
            Err(failure) if failure.code() == Code::FillLost => http.0.metrics.keys().filled(false),
            Ok(_) | Err(_) => {}
        }
    }
    made
}
