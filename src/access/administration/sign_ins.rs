//! Sign-ins: log-ins of users who show a provider of OpenID Connect who they are, and not the relay.
//!
//! What is known of a sign-in while the browser is away is kept for ten minutes, and is good once: by the text that
//! the provider sends back with the browser, and by another one that the browser has in a cookie, so that nobody
//! finishes in one browser what was begun in another. Who is let in for a device is asked first, on the relay's
//! page: a link alone must let no device in.
//!
//! It must not know how a provider is asked, nor over which transport a browser comes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tidemill_proto::access::LoggedIn;
use tidemill_proto::{Code, Problem, Timestamp};
use tokio::time::timeout;

use super::cookies::NewCookie;
use super::devices::WaitingDevice;
use super::log_ins::Pair;
use super::room::{Begun, make_room};
use super::users::check_user_name;
use super::{CHANGE_WAIT_MAX, Refused, check_room};
use crate::access::audit::{Origin, changed};
use crate::access::caller::{Caller, Who};
use crate::access::directory::Directory;
use crate::access::documents::{
    Aim, Hidden, Identity, SIGN_IN, SignIn, Stage, TokenHash, USER, User, edit, new_record, without_record,
};
use crate::access::jwt::IdToken;
use crate::access::oidc::{Known, Provider, SignInError};
use crate::access::records::{Kept, Records};
use crate::access::service::Access;
use crate::access::token::{NewToken, TokenId, TokenKind, TokenText};
use crate::storage::{Expected, RecordEdit};

/// How long a person has to sign in with the provider, and then to decide about a device.
const SIGN_IN_LIFE: Duration = Duration::from_mins(10);

/// Sign-ins under way at one time: whoever reaches the port can begin one, and each is a record. Nodes that begin
/// one at the same moment may be one each beyond it.
const SIGN_INS_MAX: usize = 1_000;

/// Longest part of a new user's name that is made of what the provider says, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Longest path to which a browser goes when it has signed in, in bytes.
const NEXT_BYTES_MAX: usize = 512;

/// What somebody signs in for.
#[derive(Clone, Copy, Debug)]
pub enum SignInFor<'a> {
    /// The tokens of a log-in.
    Tokens,
    /// To let the device of this short code in.
    Device(&'a str),
    /// A cookie, and then this path of the relay.
    Cookie(&'a str),
}

/// A browser on its way to a provider.
#[derive(Debug)]
pub struct Departure {
    /// Where it is sent.
    pub url: String,
    /// Under which name it keeps its mark, which no other sign-in has.
    pub mark_name: String,
    /// Its mark.
    pub mark: SecretString,
    /// How long it keeps that.
    pub life: Duration,
}

/// Somebody who has come back from a provider.
#[derive(Debug)]
pub enum SignedIn {
    /// A user, with the tokens of a log-in.
    Tokens(LoggedIn),
    /// A user who is to decide about a device, and what the decision is made with.
    Device(WaitingDevice, SecretString),
    /// A user, with a cookie, who goes on to this path.
    Cookie(NewCookie, String),
}

/// Returns the name under which a browser keeps the mark of a sign-in.
fn mark_name(id: TokenId) -> String {
    format!("tidemill_sign_in_{id}")
}

/// Returns the name under which the browser that brings a text back keeps its mark.
///
/// # Errors
/// The text belongs to no sign-in.
pub fn mark_name_of(state: &SecretString) -> Result<String, Box<Problem>> {
    let shown = TokenText::parse(TokenKind::SignIn, state.expose_secret()).map_err(|_| not_begun())?;
    Ok(mark_name(shown.id()))
}

fn not_begun() -> Box<Problem> {
    let rule =
        "belongs to no sign-in that this browser has begun: it is too old, or was used before; begin anew";
    Box::new(Problem::field("state", rule))
}

fn without(id: TokenId, kept: &Kept<SignIn>) -> RecordEdit {
    RecordEdit { expected: Expected::This(kept.bytes.clone()), ..without_record(SIGN_IN, id.as_str()) }
}

/// Returns the sign-in that a text names, if this browser has begun it.
fn begun<'a>(
    records: &'a Records,
    shown: &TokenText<'_>,
    mark: &TokenText<'_>,
    now: Timestamp,
) -> Option<&'a Kept<SignIn>> {
    let kept = records.sign_ins.get(&shown.id())?;
    let fits = |hash: &TokenHash, text: &TokenText<'_>| hash.bytes().is_some_and(|hash| text.matches(&hash));
    let is_it = fits(&kept.it.token, shown) && fits(&kept.it.browser, mark) && kept.it.expires_at > now;
    is_it.then_some(kept)
}

impl Access {
    /// Returns the names of the providers with whom users sign in. Where everybody is let in, nobody needs one.
    #[must_use]
    pub fn provider_names(&self) -> Vec<String> {
        if self.is_open() { Vec::new() } else { self.providers().names().map(str::to_owned).collect() }
    }

    fn provider(&self, name: &str) -> Result<&Known, Box<Problem>> {
        let known = (!self.is_open()).then(|| self.providers().get(name)).flatten();
        known.ok_or_else(|| {
            let detail =
                "there is no provider of this name; `/auth/oidc/providers` lists those that there are";
            Problem { field: Some("provider".to_owned()), ..Problem::new(Code::NotFound, detail) }.into()
        })
    }

    /// Begins a sign-in from this address. The provider sends the browser back to `redirect`.
    ///
    /// # Errors
    /// There is no such provider or device, the path is none, too many sign-ins are under way, the provider cannot be asked, or the
    /// storage did not do it.
    pub async fn begin_sign_in(
        &self,
        provider: &str,
        redirect: &str,
        wanted: SignInFor<'_>,
        from: Option<IpAddr>,
    ) -> Result<Departure, Refused> {
        let known = self.provider(provider)?;
        let aim = match wanted {
            SignInFor::Tokens => Aim::Tokens,
            SignInFor::Device(code) => Aim::Device(Hidden(self.waiting_device(code).await?.user_code)),
            SignInFor::Cookie(next) => Aim::Cookie(path_of("next", next)?),
        };
        let state = NewToken::make(TokenKind::SignIn);
        let (mark, nonce) = (NewToken::make(TokenKind::Browser), NewToken::make(TokenKind::SignIn));
        let nonce = nonce.text.expose_secret().to_owned();
        let departure = known.depart(redirect, &state.text, &nonce).await;
        let departure = departure.map_err(|error| failed(&known.provider, &error))?;
        let verifier = Hidden(departure.verifier.expose_secret().to_owned());
        let away = Stage::Away { provider: provider.to_owned(), verifier, nonce: Hidden(nonce) };
        self.keep_sign_in(&state, &mark, aim, from, away).await?;
        let mark_name = mark_name(state.id);
        Ok(Departure { url: departure.url, mark_name, mark: mark.text, life: SIGN_IN_LIFE })
    }

    async fn keep_sign_in(
        &self,
        token: &NewToken,
        mark: &NewToken,
        aim: Aim,
        from: Option<IpAddr>,
        stage: Stage,
    ) -> Result<(), Refused> {
        let now = self.clock().now();
        let too_many = || {
            Refused::from(Problem::new(Code::Overloaded, "too many begin sign-ins at once; sign in again"))
        };
        let sign_in = SignIn {
            token: TokenHash::of(&token.hash),
            browser: TokenHash::of(&mark.hash),
            aim,
            from,
            expires_at: now.saturating_add(SIGN_IN_LIFE),
            stage,
        };
        let _alone = timeout(CHANGE_WAIT_MAX, self.begin_alone()).await.map_err(|_| too_many())?;
        self.catch_up().await.map_err(Refused::Read)?;
        self.change_records(|held| {
            let sign_ins = &held.records.sign_ins;
            let (over, under_way): (Vec<_>, Vec<_>) =
                sign_ins.iter().partition(|(_, kept)| kept.it.expires_at <= now);
            let begun = |(id, kept): &(&TokenId, &Arc<Kept<SignIn>>)| Begun {
                id: **id,
                from: kept.it.from,
                expires_at: kept.it.expires_at,
            };
            let begun: Vec<_> = under_way.iter().map(begun).collect();
            let gives_way = make_room("sign-ins under way", SIGN_INS_MAX, &begun, from, now)?;
            let gives_way = gives_way.and_then(|id| sign_ins.get_key_value(&id));
            let mut edits: Vec<_> =
                over.into_iter().chain(gives_way).map(|(id, kept)| without(*id, kept)).collect();
            edits.push(new_record(SIGN_IN, token.id.as_str(), &sign_in));
            Ok((edits, ()))
        })
        .await
    }

    /// Takes a sign-in that a text names, so that nobody can take it again.
    async fn take_sign_in(&self, text: &SecretString, mark: &SecretString) -> Result<SignIn, Refused> {
        let shown = TokenText::parse(TokenKind::SignIn, text.expose_secret()).map_err(|_| not_begun())?;
        let mark = TokenText::parse(TokenKind::Browser, mark.expose_secret()).map_err(|_| not_begun())?;
        let now = self.clock().now();
        self.catch_up().await.map_err(Refused::Read)?;
        self.change_records(|held| {
            let kept = begun(&held.records, &shown, &mark, now).ok_or_else(not_begun)?;
            Ok((vec![without(shown.id(), kept)], kept.it.clone()))
        })
        .await
    }

    /// Finishes a sign-in with what the provider has sent back. Whoever was not here before becomes a user.
    ///
    /// # Errors
    /// The browser has not begun it, the provider does not say who it is or cannot be asked, a user that is somebody
    /// else has the name, the user may not come in, or the storage did not do it.
    pub async fn finish_sign_in(
        &self,
        provider: &str,
        redirect: &str,
        code: &SecretString,
        state: &SecretString,
        mark: &SecretString,
        origin: &Origin,
    ) -> Result<SignedIn, Refused> {
        let known = self.provider(provider)?;
        let sign_in = self.take_sign_in(state, mark).await?;
        let Stage::Away { provider: begun_with, verifier, nonce } = sign_in.stage else {
            return Err(not_begun().into());
        };
        if begun_with != provider {
            return Err(not_begun().into());
        }
        let now = self.clock().now();
        let token = known.arrive(redirect, code, &verifier.0.into(), &nonce.0, now).await;
        let token = token.map_err(|error| failed(&known.provider, &error))?;
        let (name, series) = self.user_of(&known.provider, &token, now, origin).await?;
        let user_code = match sign_in.aim {
            Aim::Device(Hidden(code)) => code,
            Aim::Tokens => {
                let pair = Pair::new();
                self.change_records(|held| {
                    Ok((self.enter(&held.records, &name, series, std::slice::from_ref(&pair), now)?, ()))
                })
                .await?;
                changed!(Who::User(name.into()), origin, "signed in", provider, log_in = %pair.refresh.id);
                return Ok(SignedIn::Tokens(self.answer(&pair)));
            }
            Aim::Cookie(next) => {
                let token = NewToken::make(TokenKind::Cookie);
                self.change_records(|held| {
                    Ok((self.enter_browser(&held.records, &name, series, &token, now)?, ()))
                })
                .await?;
                changed!(Who::User(name.into()), origin, "signed in", provider, log_in = %token.id);
                return Ok(SignedIn::Cookie(self.cookie_of(token), next));
            }
        };
        let device = self.waiting_device(&user_code).await?;
        // A page that the same browser answers.
        let confirmation = NewToken::make(TokenKind::SignIn);
        let mark = TokenText::parse(TokenKind::Browser, mark.expose_secret()).map_err(|_| not_begun())?;
        let mark = NewToken { id: mark.id(), text: String::new().into(), hash: mark.hash() };
        let known = Stage::Known(name, series);
        self.keep_sign_in(&confirmation, &mark, Aim::Device(Hidden(user_code)), sign_in.from, known).await?;
        Ok(SignedIn::Device(device, confirmation.text))
    }

    /// Lets the device in for which a user has signed in, or refuses it.
    ///
    /// # Errors
    /// The browser has not signed in for it, the device waits no longer, the user may no longer come in, or the
    /// storage did not do it.
    pub async fn decide_signed_in(
        &self,
        confirmation: &SecretString,
        mark: &SecretString,
        lets_in: bool,
        origin: &Origin,
    ) -> Result<(), Refused> {
        let SignIn { aim, stage, .. } = self.take_sign_in(confirmation, mark).await?;
        let (Stage::Known(name, series), Aim::Device(Hidden(user_code))) = (stage, aim) else {
            return Err(not_begun().into());
        };
        self.note_decision(&user_code, (&name, series), lets_in, origin).await
    }

    /// Returns the user that somebody is for a provider, and its series; makes it where there is none.
    async fn user_of(
        &self,
        provider: &Provider,
        token: &IdToken,
        now: Timestamp,
        origin: &Origin,
    ) -> Result<(String, u64), Refused> {
        let identity = Identity { issuer: provider.issuer.clone(), subject: token.subject.clone() };
        let (names, email) = (names(provider, token), email(token));
        let mut is_new = false;
        let storage = self.as_caller(Caller::anyone());
        let user = storage
            .change(|directory| {
                let found = sign_in_as(directory, provider, &identity, &names, email.as_deref(), now)?;
                is_new = !found.0.is_empty();
                Ok(found)
            })
            .await?;
        if is_new {
            changed!(Who::User(user.0.as_str().into()), origin, "user written", user = user.0, is_new);
        }
        Ok(user)
    }
}

/// Checks a path of the relay, to which somebody else may want to send a browser.
fn path_of(field: &str, text: &str) -> Result<String, Box<Problem>> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>');
    let is_path = text.starts_with('/') && !text.starts_with("//") && text.bytes().all(is_plain);
    if is_path && text.len() <= NEXT_BYTES_MAX {
        return Ok(text.to_owned());
    }
    let rule = format!("must be a path of this relay, as `/console`, of at most {NEXT_BYTES_MAX} bytes");
    Err(Problem::field(field, rule).into())
}

/// Finds the user of an identity, or the edit that makes it.
fn sign_in_as(
    directory: &Directory,
    provider: &Provider,
    identity: &Identity,
    names: &[String],
    email: Option<&str>,
    now: Timestamp,
) -> Result<(Vec<crate::storage::AccessEdit>, (String, u64)), Refused> {
    let mut users = directory.users.iter();
    if let Some((name, user)) = users.find(|(_, user)| user.identity.as_ref() == Some(identity)) {
        if !user.is_active {
            let detail = format!("the user `{name}` may not come in; ask an administrator of the relay");
            return Err(Problem::new(Code::Forbidden, detail).into());
        }
        return Ok((Vec::new(), (name.to_string(), user.series)));
    }
    check_room(directory)?;
    for name in names {
        match directory.users.get(name.as_str()) {
            None => {
                let known = |role: &&String| directory.roles.contains_key(role.as_str());
                let roles = provider.roles.iter().filter(known).cloned().collect();
                let (email, identity) = (email.map(str::to_owned), Some(identity.clone()));
                let user = User { roles, email, identity, ..User::new(now) };
                return Ok((vec![edit(USER, name, Some(&user))], (name.clone(), user.series)));
            }
            // Nobody becomes a user whom somebody else has made, by having its name elsewhere.
            Some(user) if user.identity.is_none() => break,
            Some(_) => {}
        }
    }
    let detail = format!(
        "a user that is somebody else has the name `{}` already; ask an administrator of the relay",
        names.first().map_or("", String::as_str)
    );
    Err(Problem::new(Code::Conflict, detail).into())
}

/// Returns the names that a new user may have, the best first.
fn names(provider: &Provider, token: &IdToken) -> Vec<String> {
    // An address that nobody has verified may be somebody else's.
    let said =
        |claim: &str| (claim != "email" || token.is("email_verified")).then(|| token.text(claim)).flatten();
    let said = said(&provider.username).or_else(|| said("preferred_username")).or_else(|| said("email"));
    let base = as_name(&said.unwrap_or_else(|| token.subject.clone()));
    let of_provider = format!("{base}-{}", provider.name);
    let names = [base, of_provider].into_iter();
    names.filter(|name| check_user_name("name", name).is_ok()).collect()
}

/// Returns a text as a name: what a name has not becomes `-`.
fn as_name(text: &str) -> String {
    let letter = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' | '.' | '@' => letter,
        _ => '-',
    };
    text.chars().take(NAME_BYTES_MAX).map(letter).collect()
}

fn email(token: &IdToken) -> Option<String> {
    token.text("email").filter(|email| token.is("email_verified") && super::users::is_email(email))
}

/// Returns the problem of a sign-in that has failed with the provider, and tells the log.
fn failed(provider: &Provider, error: &SignInError) -> Refused {
    let name = provider.name.as_str();
    match error {
        SignInError::Provider(cause) => {
            tracing::warn!(provider = name, %cause, "a provider cannot be asked");
            let detail = format!("the provider `{name}` cannot be asked now; sign in again");
            Problem::new(Code::ProviderUnavailable, detail).into()
        }
        SignInError::Code(_) | SignInError::Token(_) => {
            tracing::info!(provider = name, %error, "nobody has signed in");
            Problem::field("code", format_args!("lets nobody in: {error}; sign in again")).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_says_becomes_a_name() {
        for (text, name) in [
            ("ann", "ann"),
            ("Ann Smith", "Ann-Smith"),
            ("ann@example.com", "ann@example.com"),
            ("änn/../x", "-nn-..-x"),
            ("a\u{202e}b", "a-b"),
        ] {
            assert_eq!(as_name(text), name);
        }
        assert_eq!(as_name(&"x".repeat(200)).len(), NAME_BYTES_MAX);
    }

    fn provider() -> Provider {
        let text = "one;issuer=https://id.example;client_id=a;client_secret=b;roles=read,none";
        Provider::parse_all(text).expect("a provider").remove(0)
    }

    fn identity(subject: &str) -> Identity {
        Identity { issuer: "https://id.example".to_owned(), subject: subject.to_owned() }
    }

    fn directory(users: &[(&str, Option<Identity>, bool)]) -> Directory {
        let documents = users.iter().map(|(name, identity, is_active)| {
            let user = User {
                identity: identity.clone(),
                is_active: *is_active,
                ..User::new(Timestamp::from_millis(1))
            };
            let edit = edit(USER, name, Some(&user));
            (edit.name, edit.document.expect("it is written"))
        });
        let documents = crate::storage::AccessDocuments { revision: 1, documents: documents.collect() };
        Directory::read(documents, &Directory::default())
    }

    fn comes_in_as(users: &[(&str, Option<Identity>, bool)], subject: &str) -> Result<(String, usize), Code> {
        let names = ["ann".to_owned(), "ann-one".to_owned()];
        let now = Timestamp::from_millis(1);
        match sign_in_as(&directory(users), &provider(), &identity(subject), &names, None, now) {
            Ok((edits, (name, _))) => Ok((name, edits.len())),
            Err(Refused::Problem(problem)) => Err(problem.code),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_becomes_somebody_else() {
        let ann = ("ann", Some(identity("1")), true);
        assert_eq!(comes_in_as(&[], "1"), Ok(("ann".to_owned(), 1)));
        assert_eq!(comes_in_as(std::slice::from_ref(&ann), "1"), Ok(("ann".to_owned(), 0)));
        assert_eq!(
            comes_in_as(&[("renamed", Some(identity("1")), true)], "1"),
            Ok(("renamed".to_owned(), 0))
        );
        assert_eq!(comes_in_as(std::slice::from_ref(&ann), "2"), Ok(("ann-one".to_owned(), 1)));
        let other = ("ann-one", Some(identity("3")), true);
        assert_eq!(comes_in_as(&[ann.clone(), other], "2"), Err(Code::Conflict));
        assert_eq!(comes_in_as(&[("ann", None, true)], "1"), Err(Code::Conflict), "a user with a password");
        assert_eq!(comes_in_as(&[ann, ("ann-one", None, true)], "2"), Err(Code::Conflict));
        assert_eq!(comes_in_as(&[("ann", Some(identity("1")), false)], "1"), Err(Code::Forbidden));
    }
}
