//! JWTs of issuers that the operator has named.
//!
//! A token is verified at once with the keys that are here ([`Issuers::verify`]); where its key is not known,
//! its issuer is asked for its keys anew ([`Issuers::refresh`]), which takes time. What was verified is
//! remembered until it expires. An issuer's keys have one algorithm each, which the key says and never the
//! token, and a token says with `kid` which of them it means and nothing more: neither a path nor a URL
//! (`jku`, `jwk`, `x5u`) is taken from it.
//!
//! It must not know how a token is shown to the relay, nor what its grants mean: they are the texts of rules.
//!
//! | file | owns |
//! |---|---|
//! | `cache` | tokens that have been verified |
//! | `claims` | what a token's payload must say, and what it grants |
//! | `issuer` | an issuer as the operator names it |
//! | `keys` | the keys of one issuer: PEM, JWKS, secrets, and which of them a token is checked with |
//! | `parts` | the parts of a token, as they are written |
//! | `source` | where the keys of an issuer come from, and how they are kept fresh |

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tidemill_proto::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod cache;
mod claims;
mod issuer;
mod keys;
mod parts;
mod source;

pub use issuer::{Issuer, IssuerRule, KeySource};
pub(in crate::access) use keys::KeyPrint;
pub use keys::{Algorithm, KeyError};
pub use source::KeysError;

use super::fetch::FetchError;
use cache::Cache;
use claims::Expected;
use keys::{Checked, KeySet};
use parts::{Object, Parts};
use source::Source;

/// Largest token. Those of large issuers have two kilobytes; more is refused before any of it is read.
pub const JWT_BYTES_MAX: usize = 8 * 1024;

/// Most issuers of one relay.
const ISSUERS_MAX: usize = 16;

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who has issued it (`iss`).
    pub issuer: Arc<str>,
    /// Whom it speaks of (`sub`), within the issuer.
    pub subject: String,
    /// Its id (`jti`), if it has one.
    pub token_id: Option<String>,
    /// When it is no longer taken: `exp`, and the leeway of its issuer.
    pub expires_at: Timestamp,
    /// What it grants, as texts of rules: `allow publish orders.*`.
    pub grants: Vec<String>,
    /// The key that it is signed with.
    pub(in crate::access) key: KeyPrint,
}

/// What an ID token of OpenID Connect says.
#[derive(Debug)]
pub(in crate::access) struct IdToken {
    /// Whom it speaks of, within its issuer.
    pub(in crate::access) subject: String,
    payload: Object,
}

impl IdToken {
    /// Returns the text of a claim, where it is one that can stand for somebody.
    pub(in crate::access) fn text(&self, claim: &str) -> Option<String> {
        claims::name_in(&self.payload, claim).ok().flatten()
    }

    /// Returns whether a claim is `true`.
    pub(in crate::access) fn is(&self, claim: &str) -> bool {
        self.payload.get::<bool>(claim).is_ok_and(|value| value == Some(true))
    }
}

/// What is to be said of a token.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is right.
    Verified(Arc<Claims>),
    /// It is not to be taken.
    Refused(Refusal),
    /// It is signed with a key of this issuer that is not here: [`refresh`](Issuers::refresh), then verify
    /// again.
    UnknownKey(IssuerId),
}

/// One of the issuers that the operator has named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerId(usize);

/// Why a token is not taken. The texts say nothing that only the issuer knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is too large.
    #[error("the token has more than 8192 bytes")]
    TooLong,
    /// It is written in another form.
    #[error("the token is no JWT that is taken here: {0}")]
    Form(&'static str),
    /// Its algorithm is not that of a key of its issuer.
    #[error("the token's algorithm (`alg`) is not the one of its issuer's keys")]
    Algorithm,
    /// Nobody has named its issuer.
    #[error("the token's issuer (`iss`) `{0}` is not known to this relay; it must be named letter by letter")]
    Issuer(String),
    /// Its issuer has no such key, or cannot be asked for it now.
    #[error("the token's key (`kid`) is none that its issuer has told this relay")]
    Key,
    /// Somebody else has signed it, or it was changed.
    #[error("the token's signature does not fit")]
    Signature,
    /// Its time is over.
    #[error("the token has expired (`exp`)")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet (`nbf`)")]
    NotYet,
    /// It is meant for others.
    #[error("the token is meant for others: its `aud` has no name of this relay")]
    Audience,
    /// A claim is missing or wrong.
    #[error("the token's claim `{claim}` {rule}")]
    Claim {
        /// Which.
        claim: &'static str,
        /// What is wrong with it.
        rule: String,
    },
}

impl Refusal {
    fn claim(claim: &'static str, rule: impl Into<String>) -> Self {
        Self::Claim { claim, rule: rule.into() }
    }

    /// Returns a word for the reason, of which there are few.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Form(_) => "form",
            Self::Algorithm => "algorithm",
            Self::Issuer(_) => "issuer",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Audience => "audience",
            Self::Claim { .. } => "claim",
        }
    }
}

/// Why the issuers that the operator has named cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum IssuersError {
    /// There are too many.
    #[error("there are more than 16 issuers; name fewer")]
    TooMany,
    /// No provider can be asked.
    #[error("no provider of OpenID Connect can be asked")]
    Provider(#[source] FetchError),
    /// Two have the same name, so that a token could mean either.
    #[error("the issuer `{0}` is named twice; name it once, with all of its keys")]
    Twice(String),
    /// The keys of one cannot be had.
    #[error("the keys of the issuer `{issuer}` cannot be used")]
    Keys {
        /// Which.
        issuer: String,
        /// Why.
        #[source]
        cause: KeysError,
    },
}

/// How it stands with the keys of an issuer.
#[derive(Clone, Debug)]
pub struct KeysState {
    /// The issuer.
    pub issuer: Arc<str>,
    /// How many keys are known.
    pub keys: usize,
    /// Why they could not be had the last time, in a sentence; those that were known stay.
    pub failure: Option<String>,
}

/// Whose JWTs are taken. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Issuers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    others: Vec<Arc<Source>>,
    verified: Arc<Cache>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Issuers {
    /// Starts with the keys that stand in settings and files. Those behind URLs are fetched meanwhile, and
    /// all are kept fresh until `stop`, by tasks on `tracker`.
    ///
    /// # Errors
    /// There are too many issuers, two of one name, or one whose keys cannot be read. A URL that cannot be
    /// fetched now is no error: it may be later.
    pub fn start(
        issuers: Vec<Issuer>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, IssuersError> {
        let (others, verified) = Self::read(issuers)?;
        for source in &others {
            source.keep_fresh(tracker, stop);
        }
        let (tracker, stop) = (tracker.clone(), stop.clone());
        Ok(Self(Arc::new(Inner { others, verified, tracker, stop })))
    }

    /// Reads the keys that stand in settings and files, to see whether a relay can start with them.
    ///
    /// # Errors
    /// As those of [`start`](Self::start).
    pub fn open(issuers: Vec<Issuer>) -> Result<(), IssuersError> {
        Self::read(issuers).map(drop)
    }

    fn read(issuers: Vec<Issuer>) -> Result<(Vec<Arc<Source>>, Arc<Cache>), IssuersError> {
        if issuers.len() > ISSUERS_MAX {
            return Err(IssuersError::TooMany);
        }
        let verified = Arc::new(Cache::default());
        let mut others: Vec<Arc<Source>> = Vec::new();
        for issuer in issuers {
            let name = issuer.name.clone();
            if others.iter().any(|other| *other.issuer().name == name) {
                return Err(IssuersError::Twice(name));
            }
            let source = Source::open(issuer, Arc::clone(&verified));
            others.push(Arc::new(source.map_err(|cause| IssuersError::Keys { issuer: name, cause })?));
        }
        Ok((others, verified))
    }

    /// Says at once what is to be said of a token.
    #[must_use]
    pub fn verify(&self, token: &str, now: Timestamp) -> Verdict {
        if token.len() > JWT_BYTES_MAX {
            return Verdict::Refused(Refusal::TooLong);
        }
        let digest = Sha256::digest(token.as_bytes()).into();
        if let Some(claims) = self.0.verified.get(&digest, now) {
            return Verdict::Verified(claims);
        }
        // Before the keys are looked at: what is verified with keys that are replaced meanwhile is not
        // remembered.
        let generation = self.0.verified.generation();
        match self.judge(token, now) {
            Ok(Judged::Right(claims)) => {
                let claims = Arc::new(claims);
                self.0.verified.insert(digest, &claims, generation);
                Verdict::Verified(claims)
            }
            Ok(Judged::UnknownKey(issuer)) => Verdict::UnknownKey(issuer),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    /// Says what is to be said of a token, and asks its issuer where its key is not known.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn check(&self, token: &str, now: Timestamp) -> Result<Arc<Claims>, Refusal> {
        let verdict = match self.verify(token, now) {
            Verdict::UnknownKey(issuer) => {
                self.refresh(issuer).await;
                self.verify(token, now)
            }
            verdict => verdict,
        };
        match verdict {
            Verdict::Verified(claims) => Ok(claims),
            Verdict::Refused(refusal) => Err(refusal),
            Verdict::UnknownKey(_) => Err(Refusal::Key),
        }
    }

    /// Says what an ID token says, which is checked as other tokens are.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(super) async fn check_id_token(&self, token: &str, now: Timestamp) -> Result<IdToken, Refusal> {
        let claims = self.check(token, now).await?;
        Ok(IdToken { subject: claims.subject.clone(), payload: Parts::read(token)?.payload })
    }

    /// Asks an issuer for its keys, unless it was asked a moment ago: a URL is fetched at most once a minute,
    /// a file read at most every few seconds. Whoever comes while it is being asked waits for the same
    /// answer, for at most as long as a fetch may take.
    pub async fn refresh(&self, issuer: IssuerId) {
        if let Some(source) = self.0.others.get(issuer.0) {
            source.refresh(&self.0.tracker, &self.0.stop).await;
        }
    }

    /// Returns whether an issuer has a key now, as far as is known here.
    pub(super) fn has_key(&self, issuer: &str, key: KeyPrint) -> bool {
        let source = self.0.others.iter().find(|source| source.issuer().name == issuer);
        source.is_some_and(|source| source.keys().has(key))
    }

    /// Returns how it stands with the keys of each issuer.
    #[must_use]
    pub fn states(&self) -> Vec<KeysState> {
        self.0.others.iter().map(|source| source.state()).collect()
    }

    /// Returns whether nobody's JWTs are taken.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.0.others.is_empty()
    }

    /// Returns how often keys have changed, and with them what a token is worth.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.verified.generation().0
    }

    fn judge(&self, token: &str, now: Timestamp) -> Result<Judged, Refusal> {
        let parts = Parts::read(token)?;
        let issuer = claims::issuer(&parts)?;
        let (at, source) = (self.0.others.iter().enumerate())
            .find(|(_, source)| source.issuer().name == issuer)
            .ok_or_else(|| Refusal::Issuer(claims::repeated(&issuer)))?;
        let known = source.issuer();
        let Some(key) = check_signature(&source.keys(), &parts, &known.algorithms)? else {
            return Ok(Judged::UnknownKey(IssuerId(at)));
        };
        let expected = Expected { audiences: &known.audiences, leeway: known.leeway, now };
        let times = claims::check(&parts, &expected)?;
        let claims = Claims {
            issuer: Arc::clone(source.name()),
            subject: times.subject,
            token_id: times.token_id,
            expires_at: times.expires_at,
            grants: claims::grants(&parts)?,
            key,
        };
        Ok(Judged::Right(claims))
    }
}

enum Judged {
    Right(Claims),
    UnknownKey(IssuerId),
}

/// Checks a token's signature, and returns the key that fits; `None` if the one that it names is not here.
fn check_signature(
    keys: &KeySet,
    parts: &Parts<'_>,
    algorithms: &[Algorithm],
) -> Result<Option<KeyPrint>, Refusal> {
    let algorithm = Algorithm::parse(&parts.algorithm).filter(|algorithm| algorithms.contains(algorithm));
    match keys.check(parts, algorithm.ok_or(Refusal::Algorithm)?) {
        Checked::Fits(key) => Ok(Some(key)),
        Checked::Differs => Err(Refusal::Signature),
        Checked::OtherAlgorithm => Err(Refusal::Algorithm),
        Checked::Unnamed => Err(Refusal::Form("it names no key (`kid`), and its issuer has several")),
        Checked::Unknown => Ok(None),
    }
}

#[cfg(test)]
mod tests;
