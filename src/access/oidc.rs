//! Providers of OpenID Connect, with whom users sign in: where a browser is sent, and what comes of the code that it
//! brings back (authorization code with PKCE).
//!
//! What a provider says of itself is fetched when it is needed, and kept for a time. Its ID tokens are checked as
//! the JWTs of other issuers are. It must not know what is kept of a sign-in, nor who a user is.
//!
//! | file | owns |
//! |---|---|
//! | `provider` | a provider as the operator names it |

mod provider;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use oauth2::basic::{BasicErrorResponseType, BasicTokenType};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, ExtraTokenFields, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError,
    Scope, StandardErrorResponse, StandardRevocableToken, StandardTokenIntrospectionResponse,
    StandardTokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tidemill_proto::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fetch::{FetchError, FetchUrl, Fetcher};
use super::jwt::{Algorithm, IdToken, Issuer, Issuers, IssuersError, KeySource, Refusal};

pub use provider::{Provider, ProviderRule};

/// How long what a provider says of itself is kept.
const DISCOVERED_KEPT: Duration = Duration::from_mins(10);

/// How long a provider is not asked again that did not answer.
const FAILED_KEPT: Duration = Duration::from_secs(5);

/// How far the clock of a provider and this one may differ.
const LEEWAY: Duration = Duration::from_secs(10);

/// Why nobody has signed in.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignInError {
    /// The provider cannot be asked, or answers nothing that can be used.
    #[error("the provider cannot be asked")]
    Provider(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The provider does not take the code.
    #[error("the provider does not take the code: {0}")]
    Code(String),
    /// The provider has given no ID token, or one that is not to be taken.
    #[error("the provider's ID token is not to be taken: {0}")]
    Token(String),
}

impl SignInError {
    fn provider(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Provider(cause.into())
    }
}

/// What a provider says of itself (OpenID Connect Discovery section 3).
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Description {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<HashSet<String>>,
}

/// What stands beside the tokens of OAuth 2.0 in an answer.
#[derive(Debug, Serialize, Deserialize)]
struct Beside {
    id_token: Option<String>,
}

impl ExtraTokenFields for Beside {}

/// The library's client, with the fields of OpenID Connect.
type OidcClient = Client<
    StandardErrorResponse<BasicErrorResponseType>,
    StandardTokenResponse<Beside, BasicTokenType>,
    StandardTokenIntrospectionResponse<Beside, BasicTokenType>,
    StandardRevocableToken,
    StandardErrorResponse<oauth2::RevocationErrorResponseType>,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// A provider that can be asked.
#[derive(Debug)]
struct Discovered {
    description: Description,
    until: Instant,
    auth_url: AuthUrl,
    token_url: TokenUrl,
    token: Fetcher,
    issuers: Issuers,
    /// Ends what keeps the provider's keys fresh.
    _stop: tokio_util::sync::DropGuard,
}

/// One of the providers.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) provider: Provider,
    discovery: Fetcher,
    last: Mutex<Last>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// What came of asking a provider last.
#[derive(Debug, Default)]
struct Last {
    discovered: Option<Arc<Discovered>>,
    /// When it may be asked again after it did not answer.
    again: Option<Instant>,
}

/// Where a browser is sent, and what must be known when it comes back.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) url: String,
    pub(super) verifier: SecretString,
}

/// The providers of a relay.
#[derive(Debug, Default)]
pub(super) struct Providers(Vec<Known>);

impl Providers {
    /// Takes providers. None of them is asked yet.
    ///
    /// # Errors
    /// There are no certificates to check a provider by.
    pub(super) fn start(
        providers: Vec<Provider>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, FetchError> {
        let known = providers.into_iter().map(|provider| {
            let discovery = Fetcher::new(&provider.discovery)?;
            let (tracker, stop) = (tracker.clone(), stop.clone());
            Ok(Known { provider, discovery, last: Mutex::default(), tracker, stop })
        });
        known.collect::<Result<_, _>>().map(Self)
    }

    /// Returns the provider of a name.
    pub(super) fn get(&self, name: &str) -> Option<&Known> {
        self.0.iter().find(|known| known.provider.name == name)
    }

    /// Returns the names of all.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|known| known.provider.name.as_str())
    }
}

impl Known {
    /// Returns where a browser is sent that is to come back to this URL with this state.
    pub(super) async fn depart(
        &self,
        redirect: &str,
        state: &SecretString,
        nonce: &str,
    ) -> Result<Departure, SignInError> {
        let discovered = self.discovered().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let client = self.client(&discovered, redirect)?;
        let state = CsrfToken::new(state.expose_secret().to_owned());
        let request = client.authorize_url(|| state).set_pkce_challenge(challenge);
        let scopes = self.provider.scopes.iter().cloned().map(Scope::new);
        let (url, _) = request.add_scopes(scopes).add_extra_param("nonce", nonce.to_owned()).url();
        Ok(Departure { url: url.into(), verifier: verifier.secret().as_str().into() })
    }

    /// Returns who has come back to this URL with this code.
    pub(super) async fn arrive(
        &self,
        redirect: &str,
        code: &SecretString,
        verifier: &SecretString,
        nonce: &str,
        now: Timestamp,
    ) -> Result<IdToken, SignInError> {
        let discovered = self.discovered().await?;
        let client = self.client(&discovered, redirect)?;
        let verifier = PkceCodeVerifier::new(verifier.expose_secret().to_owned());
        let code = AuthorizationCode::new(code.expose_secret().to_owned());
        let fetcher = discovered.token.clone();
        let ask = move |request| {
            let fetcher = fetcher.clone();
            async move { fetcher.exchange(request).await }
        };
        let answer = client.exchange_code(code).set_pkce_verifier(verifier).request_async(&ask).await;
        let answer = answer.map_err(|error| match error {
            RequestTokenError::ServerResponse(told) => SignInError::Code(short(told.error().as_ref())),
            RequestTokenError::Request(cause) => SignInError::provider(cause),
            RequestTokenError::Parse(cause, _) => SignInError::provider(cause.into_inner()),
            RequestTokenError::Other(cause) => SignInError::provider(cause),
        })?;
        let token = answer.extra_fields().id_token.as_deref();
        let token = token.ok_or_else(|| SignInError::Token("there is none".to_owned()))?;
        let refused = |refusal: Refusal| SignInError::Token(refusal.to_string());
        let token = discovered.issuers.check_id_token(token, now).await.map_err(refused)?;
        if token.text("nonce").as_deref() != Some(nonce) {
            return Err(SignInError::Token("its `nonce` is that of another sign-in".to_owned()));
        }
        // OpenID Connect Core section 3.1.3.7.
        if token.text("azp").is_some_and(|party| party != self.provider.client_id) {
            return Err(SignInError::Token("it is meant for others (`azp`)".to_owned()));
        }
        Ok(token)
    }

    fn client(&self, discovered: &Discovered, redirect: &str) -> Result<OidcClient, SignInError> {
        let supported = discovered.description.token_endpoint_auth_methods_supported.as_ref();
        // Where it says nothing it takes this one (OpenID Connect Discovery section 3).
        let is_basic = supported.is_none_or(|methods| methods.contains("client_secret_basic"));
        let id = ClientId::new(self.provider.client_id.clone());
        Ok(Client::new(id)
            .set_client_secret(ClientSecret::new(self.provider.client_secret.expose_secret().to_owned()))
            .set_auth_uri(discovered.auth_url.clone())
            .set_token_uri(discovered.token_url.clone())
            .set_auth_type(if is_basic { AuthType::BasicAuth } else { AuthType::RequestBody })
            .set_redirect_uri(RedirectUrl::new(redirect.to_owned()).map_err(SignInError::provider)?))
    }

    /// Returns what the provider says of itself, and asks it where that is not known, or old. All who come meanwhile
    /// wait for the same answer; where there is none, what it said before holds.
    async fn discovered(&self) -> Result<Arc<Discovered>, SignInError> {
        let mut last = self.last.lock().await;
        let now = Instant::now();
        if let Some(discovered) = last.discovered.as_ref().filter(|discovered| now < discovered.until) {
            return Ok(discovered.clone());
        }
        let asked = if last.again.is_some_and(|again| now < again) {
            Err(SignInError::provider("it did not answer a moment ago"))
        } else {
            self.discover().await
        };
        match asked {
            Ok(discovered) => {
                let discovered = Arc::new(discovered);
                *last = Last { discovered: Some(discovered.clone()), again: None };
                Ok(discovered)
            }
            Err(error) => {
                if last.again.is_none_or(|again| again <= now) {
                    last.again = Some(Instant::now() + FAILED_KEPT);
                }
                last.discovered.clone().ok_or(error)
            }
        }
    }

    async fn discover(&self) -> Result<Discovered, SignInError> {
        let document = self.discovery.fetch().await.map_err(SignInError::provider)?;
        self.open(serde_json::from_slice(&document.body).map_err(SignInError::provider)?)
    }

    fn open(&self, description: Description) -> Result<Discovered, SignInError> {
        if description.issuer != self.provider.issuer {
            return Err(SignInError::provider("it says that it is another issuer than the one that is set"));
        }
        let url = |text: &str| FetchUrl::parse(text).map_err(SignInError::provider);
        let (token, keys) = (url(&description.token_endpoint)?, url(&description.jwks_uri)?);
        url(&description.authorization_endpoint)?;
        let issuer = Issuer {
            name: self.provider.issuer.clone(),
            audiences: vec![self.provider.client_id.clone()],
            algorithms: Algorithm::PUBLIC.to_vec(),
            keys: KeySource::Url(keys),
            leeway: LEEWAY,
        };
        let stop = self.stop.child_token();
        let issuers = Issuers::start(vec![issuer], &self.tracker, &stop);
        Ok(Discovered {
            auth_url: AuthUrl::new(description.authorization_endpoint.clone())
                .map_err(SignInError::provider)?,
            token_url: TokenUrl::new(description.token_endpoint.clone()).map_err(SignInError::provider)?,
            token: Fetcher::new(&token).map_err(SignInError::provider)?,
            issuers: issuers.map_err(|error: IssuersError| SignInError::provider(error))?,
            until: Instant::now() + DISCOVERED_KEPT,
            description,
            _stop: stop.drop_guard(),
        })
    }
}

/// Returns a word of a provider as it may be repeated.
fn short(word: &str) -> String {
    word.chars().take(64).flat_map(char::escape_debug).collect()
}
