//! Validators: a reader that has an answer already is told that it is still the same (RFC 9110 sections 8.8
//! and 13.1.2).
//!
//! It must not know what is answered.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest as _, Sha256};
use tidemill_proto::Problem;

use crate::relay::Failure;

/// What an answer is known by: two with the same one are the same.
#[derive(Clone, Debug)]
pub(super) struct Validator(String);

impl Validator {
    /// Returns the validator of an answer that says what these bytes say. It is a weak one: the answer may be
    /// written in another way, or compressed, which a strong one would have to tell apart (section 8.8.3.3).
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        Self(format!("W/\"{}\"", digest(parts)))
    }

    /// Returns `response` with this validator, or, where the request says that its sender has it already,
    /// only that it is the same.
    pub(super) fn answer(self, request: &HeaderMap, mut response: Response) -> Response {
        let is_known = self.is_among(request);
        let headers = response.headers_mut();
        // It may be kept, by who has asked for it, and is asked for again each time: a message can be gone.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        if let Ok(value) = HeaderValue::try_from(self.0) {
            headers.insert(ETAG, value);
        }
        if is_known {
            headers.remove(CONTENT_TYPE);
            headers.remove(CONTENT_LENGTH);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::empty();
        }
        response
    }

    /// Returns whether the request names this validator. Of two that differ in their weakness alone the
    /// comparison makes no difference.
    fn is_among(&self, request: &HeaderMap) -> bool {
        let tag = |text: &str| text.trim().trim_start_matches("W/").to_owned();
        let own = tag(&self.0);
        let lists = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        // A tag of ours holds no comma.
        lists.flat_map(|list| list.split(',')).map(tag).any(|known| known == own || known == "*")
    }
}

/// Returns whether what a request makes must be new: its `If-None-Match` is `*` (RFC 9110 section 13.1.2).
///
/// # Errors
/// It is something else, which nothing that is made is known by.
pub(super) fn must_be_new(request: &HeaderMap) -> Result<bool, Failure> {
    match request.get(IF_NONE_MATCH) {
        None => Ok(false),
        Some(value) if value == "*" => Ok(true),
        Some(_) => {
            Err(Problem::field("if-none-match", "can only be `*` here: what is made is to be new").into())
        }
    }
}

/// Returns a digest that no two different lists of parts share.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    BASE64.encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_it_is_told_so() {
        let answer = |validator: &Validator, known: &[&str]| {
            let mut request = HeaderMap::new();
            for line in known {
                request.append(IF_NONE_MATCH, line.parse().expect("a value"));
            }
            validator.clone().answer(&request, Response::new(Body::from("x")))
        };
        let validator = Validator::of(&[b"a", b"b"]);
        assert_ne!(validator.0, Validator::of(&[b"ab", b""]).0);
        let strong = validator.0.strip_prefix("W/").expect("it is weak");
        for (known, status) in [
            (vec![], 200),
            (vec![validator.0.as_str()], 304),
            (vec!["\"other\"", strong], 304),
            (vec!["\"other\" , *"], 304),
            (vec!["\"other\""], 200),
        ] {
            let response = answer(&validator, &known);
            assert_eq!(response.status().as_u16(), status, "{known:?}");
            assert_eq!(response.headers()[ETAG], validator.0.as_str());
        }
    }
}
