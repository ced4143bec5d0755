//! An issuer as the operator names it, in one text: its name, and then what is known of it.
//!
//! ```text
//! https://issuer.example/;aud=tidemill;jwks=https://issuer.example/.well-known/jwks.json
//! https://issuer.example/;aud=tidemill,relay;file=/etc/tidemill/issuer.pem;alg=ES256;leeway=5
//! my-service;aud=tidemill;secret=…;alg=HS256
//! ```
//!
//! Several stand one behind the other, with blanks or lines between them; lines that begin with `#` are comments.
//! It must not know how keys are read,
//! nor where the text was set.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::keys::Algorithm;
use crate::access::fetch::FetchUrl;
use crate::access::listed;

/// Longest leeway: a token is not taken for longer than this beyond its time.
const LEEWAY_MAX_SECONDS: u64 = 30;

/// Leeway where nobody sets it: clocks that are kept by NTP differ by less.
const LEEWAY_DEFAULT: Duration = Duration::from_secs(10);

/// Longest name of an issuer.
const NAME_BYTES_MAX: usize = 512;

/// An issuer of JWTs that are taken.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// What stands in its tokens' `iss`, letter by letter.
    pub name: String,
    /// What must stand in its tokens' `aud`: one of these.
    pub audiences: Vec<String>,
    /// How it signs: keys of other algorithms are not taken.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are.
    pub keys: KeySource,
    /// How far its clock and this one may differ.
    pub leeway: Duration,
}

/// Where the keys of an issuer are. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// They are here: a secret, a JWK or a set of them, or PEM.
    Text(SecretString),
    /// In a file, in one of these forms.
    File(PathBuf),
    /// Behind a URL, as a set of JWKs.
    Url(FetchUrl),
}

/// Why a text names no issuer: the end of a sentence that says what to do. It repeats no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IssuerRule(String);

fn rule(text: impl Into<String>) -> IssuerRule {
    IssuerRule(text.into())
}

impl Issuer {
    /// Parses the texts of issuers, with blanks or lines between them, and comments.
    ///
    /// # Errors
    /// One of them is none.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, IssuerRule> {
        listed::cut(text).map_err(rule)?.into_iter().map(Self::parse).collect()
    }

    /// Parses the text of one issuer: its name, and behind it `;field=value`.
    ///
    /// # Errors
    /// A field is missing, unknown or wrong.
    pub fn parse(text: &str) -> Result<Self, IssuerRule> {
        let mut parts = text.split(';');
        let name = parts.next().unwrap_or_default();
        if name.is_empty()
            || name.len() > NAME_BYTES_MAX
            || name.contains('=')
            || name.contains(char::is_whitespace)
        {
            return Err(rule(
                "does not begin with an issuer; write `https://issuer.example/;aud=tidemill;jwks=https://…`",
            ));
        }
        let (mut audiences, mut algorithms, mut keys, mut leeway) = (None, None, None, None);
        for part in parts {
            let (field, value) = part.split_once('=').unwrap_or((part, ""));
            let wrong = |what: &str| rule(format!("has `{field}` for `{name}`, which {what}"));
            if value.is_empty()
                && matches!(field, "aud" | "alg" | "jwks" | "file" | "key" | "secret" | "leeway")
            {
                return Err(wrong("is empty"));
            }
            let is_first = match field {
                "aud" => audiences.replace(list(value).map(str::to_owned).collect::<Vec<_>>()).is_none(),
                "alg" => {
                    let read = list(value).map(Algorithm::parse).collect::<Option<Vec<_>>>();
                    let read = read.ok_or_else(|| wrong("is none of HS256, RS256, ES256, EdDSA"))?;
                    algorithms.replace(read).is_none()
                }
                "jwks" => {
                    let url = FetchUrl::parse(value).map_err(wrong)?;
                    keys.replace((field.to_owned(), KeySource::Url(url))).is_none()
                }
                "file" => keys.replace((field.to_owned(), KeySource::File(PathBuf::from(value)))).is_none(),
                "key" | "secret" => {
                    let text = KeySource::Text(SecretString::from(value));
                    keys.replace((field.to_owned(), text)).is_none()
                }
                "leeway" => {
                    let seconds = value.parse().ok().filter(|seconds| *seconds <= LEEWAY_MAX_SECONDS);
                    let seconds = seconds.ok_or_else(|| wrong("is no number of seconds up to 30"))?;
                    leeway.replace(Duration::from_secs(seconds)).is_none()
                }
                _ => {
                    // Not what stands there: it may be the rest of a secret.
                    return Err(rule(format!(
                        "has a field for `{name}` that is none of aud, alg, jwks, file, key, secret, leeway"
                    )));
                }
            };
            if !is_first {
                return Err(wrong("is set twice, or beside another place of the keys; set one"));
            }
        }
        let audiences = audiences.filter(|names| !names.is_empty());
        let audiences =
            audiences.ok_or_else(|| rule(format!("has no `aud` for `{name}`; write `aud=tidemill`")))?;
        let (field, keys) = keys.ok_or_else(|| {
            rule(format!(
                "has no keys for `{name}`; write `jwks=https://…`, `file=PATH`, `key=JWK` or `secret=TEXT`"
            ))
        })?;
        let default = if field == "secret" { vec![Algorithm::Hs256] } else { Algorithm::PUBLIC.to_vec() };
        let issuer = Self {
            name: name.to_owned(),
            audiences,
            algorithms: algorithms.unwrap_or(default),
            keys,
            leeway: leeway.unwrap_or(LEEWAY_DEFAULT),
        };
        issuer.check(&field)?;
        Ok(issuer)
    }

    /// Checks what must hold between the fields.
    fn check(&self, field: &str) -> Result<(), IssuerRule> {
        let name = &self.name;
        let is_secret = self.algorithms.contains(&Algorithm::Hs256);
        if is_secret && self.algorithms.len() > 1 {
            // Whoever has the public key of such an issuer would try it as its secret.
            return Err(rule(format!(
                "has `alg` for `{name}`, which has HS256 beside others; an issuer has a secret or public keys"
            )));
        }
        match field {
            "jwks" if is_secret => Err(rule(format!(
                "has `alg=HS256` for `{name}`, whose keys are behind a URL; a secret stands in a file"
            ))),
            "secret" if !is_secret => {
                Err(rule(format!("has `secret` for `{name}`, which signs with public keys; leave out `alg`")))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the items of a list with commas.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests;
