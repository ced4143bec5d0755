//! The client of a relay that the commands share: where it is, time limits, problems.
//!
//! It must not know what a command wants from the relay.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tidemill_proto::{Code, Problem};
use url::Url;

use super::CliError;
use super::credentials::{self, TokenFlag};
use super::foreign;
use super::output::{Output, quoted};
use super::trust::{Trust, TrustFlags};
use crate::config::{Environment, URL_VARIABLE};
use tidemill_client::{Client as LiveClient, ClientError, ClientOptions, Encoding};

mod header;
mod lines;
mod reach;

use header::Header;
pub(super) use header::HeaderFlag;
pub(super) use lines::Lines;
pub(super) use reach::Reach;
use reach::parse;

/// Where a relay is, when nobody says.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";

const URL_HELP: &str = "The relay [env: TIDEMILL_URL] [default: http://127.0.0.1:8080]";

/// How long a request may take, from connecting to the last byte of the answer.
const REQUEST: Duration = Duration::from_mins(1);

/// Largest answer that is read: above any page, whatever the relay's limit on payloads.
const ANSWER_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Returns the URL that the variable or the default names.
#[cfg(feature = "bench")]
pub(super) fn url_or_default(environment: &Environment) -> &str {
    variable(environment).unwrap_or(URL_DEFAULT)
}

/// Returns the URL that the variable names.
pub(super) fn variable(environment: &Environment) -> Option<&str> {
    environment.get(URL_VARIABLE).map(String::as_str).filter(|url| !url.is_empty())
}

/// The flag that says where a relay is.
#[derive(Debug, clap::Args)]
pub(super) struct RelayFlags {
    /// The relay.
    #[arg(long, value_name = "URL", help = URL_HELP)]
    url: Option<String>,

    /// Headers of every request.
    #[command(flatten)]
    header: HeaderFlag,

    /// Who calls.
    #[command(flatten)]
    token: TokenFlag,

    /// Whom to trust.
    #[command(flatten)]
    trust: TrustFlags,
}

impl RelayFlags {
    /// Returns the URL that the flag, the variable or the default names, and which of them it was.
    fn resolve<'a>(&'a self, environment: &'a Environment) -> (&'a str, &'static str) {
        match (&self.url, variable(environment)) {
            (Some(url), _) => (url, "flag --url"),
            (None, Some(url)) => (url, "variable TIDEMILL_URL"),
            (None, None) => (URL_DEFAULT, "default"),
        }
    }

    /// Returns a client of the relay that the flag, the variable or the default names.
    pub(super) fn client(&self, environment: &Environment) -> Result<Client, CliError> {
        let (url, source) = self.resolve(environment);
        Client::new(url, source, self.headers(environment)?, self.trust.trust(environment)?)
    }

    /// Returns a client of the same relay for a user, who says with its password who calls.
    pub(super) fn client_as(
        &self,
        environment: &Environment,
        name: &str,
        password: &SecretString,
    ) -> Result<Client, CliError> {
        let (url, source) = self.resolve(environment);
        let mut headers = self.own_headers();
        headers.remove(AUTHORIZATION);
        credentials::add(&mut headers, &credentials::basic(name, password))?;
        Client::new(url, source, headers, self.trust.trust(environment)?)
    }

    /// Returns whether a flag or a variable says which relay is meant, or who calls it.
    pub(super) fn is_named(&self, environment: &Environment) -> Result<bool, CliError> {
        let is_named = self.url.is_some() || variable(environment).is_some() || self.token.is_given();
        Ok(is_named || self.token.token(environment)?.is_some())
    }

    /// Returns the flags that lead to the same relay again, as a shell reads them. A password is left out, and
    /// what a header says, unless a file says it: it may be a secret.
    pub(super) fn flags(&self) -> Vec<String> {
        let url = self.url.iter().map(|url| {
            let mut told = Url::parse(url).ok().filter(|url| url.password().is_some());
            let is_told = told.as_mut().is_some_and(|url| url.set_password(Some("PASSWORD")).is_ok());
            let told = told.filter(|_| is_told).map(String::from);
            format!("--url={}", quoted(told.as_deref().unwrap_or(url)))
        });
        let header = |header: &Header| match &header.file {
            Some(path) => format!("--header={}", quoted(&format!("@{path}"))),
            None => format!("--header={}", quoted(&format!("{}: …", header.name))),
        };
        let ca_cert = |path: &PathBuf| format!("--ca-cert={}", quoted(&path.display().to_string()));
        let trust = self.trust.ca_cert.iter().map(ca_cert);
        url.chain(self.header.header.iter().map(header)).chain(self.token.flag()).chain(trust).collect()
    }

    /// Returns what the flags that lead to the same relay again leave out, and where it goes.
    pub(super) fn hidden(&self) -> Option<String> {
        let has_password = |url: &String| Url::parse(url).is_ok_and(|url| url.password().is_some());
        let password = self.url.as_ref().is_some_and(has_password);
        let password = password.then_some("the password in place of `PASSWORD`");
        let is_hidden = |header: &Header| header.file.is_none();
        let values =
            self.header.header.iter().any(is_hidden).then_some("the values of headers in place of `…`");
        let token = self.token.is_hidden().then_some("the token in place of `…`");
        let hidden: Vec<_> = password.into_iter().chain(values).chain(token).collect();
        (!hidden.is_empty()).then(|| hidden.join(", and "))
    }

    /// Returns the headers of every request, with what says who calls.
    fn headers(&self, environment: &Environment) -> Result<HeaderMap, CliError> {
        let mut headers = self.own_headers();
        if let Some(token) = self.token.token(environment)? {
            credentials::add(&mut headers, &format!("Bearer {}", token.expose_secret()))?;
        }
        Ok(headers)
    }

    fn own_headers(&self) -> HeaderMap {
        self.header.headers()
    }

    /// Returns an error of a client that stays connected, with how to say who calls, where nothing does.
    pub(super) fn advised(&self, environment: &Environment, error: CliError) -> CliError {
        let is_unsaid = || self.client(environment).is_ok_and(|client| client.is_unsaid());
        match error {
            CliError::Link(ClientError::Refused(mut refusal))
                if refusal.code == Code::Unauthenticated && is_unsaid() =>
            {
                refusal.message = credentials::advised(&refusal.message, credentials::WAYS);
                CliError::Link(ClientError::Refused(refusal))
            }
            error => error,
        }
    }

    /// Returns a client that stays connected.
    pub(super) fn live_client(
        &self,
        environment: &Environment,
        encoding: Encoding,
    ) -> Result<LiveClient, CliError> {
        let (url, source) = self.resolve(environment);
        parse(url, source)?;
        let header = |header: &Header| {
            (header.name.to_string(), SecretString::from(header.value.to_str().unwrap_or_default()))
        };
        let roots_pem = match self.trust.trust(environment)? {
            Trust::Roots(pem) => Some(pem),
            Trust::System | Trust::Shown(_) => None,
        };
        // One that the flags give says who calls, too.
        let is_said = self.own_headers().contains_key(AUTHORIZATION);
        let options = ClientOptions {
            encoding,
            token: if is_said { None } else { self.token.token(environment)? },
            roots_pem,
            headers: self.header.header.iter().map(header).collect(),
            client_id: Some(concat!("tidemill/", env!("CARGO_PKG_VERSION")).to_owned()),
            ..ClientOptions::default()
        };
        Ok(LiveClient::new(url, options)?)
    }
}

/// The flags of most commands that speak to a relay.
#[derive(Debug, clap::Args)]
pub(super) struct Relay {
    /// Where it is.
    #[command(flatten)]
    pub(super) target: RelayFlags,

    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    pub(super) output: Output,
}

impl Relay {
    /// Returns a client of the relay that the flag, the variable or the default names.
    pub(super) fn client(&self, environment: &Environment) -> Result<Client, CliError> {
        self.target.client(environment)
    }

    /// Returns a client of the relay that runs beside this process, where nobody names another: the
    /// check of a container finds its relay through the variable that the relay itself reads.
    pub(super) fn client_of_neighbour(&self, environment: &Environment) -> Result<Client, CliError> {
        let listen = environment.get("TIDEMILL_LISTEN").and_then(|text| text.parse::<SocketAddr>().ok());
        let is_named = self.target.url.is_some() || variable(environment).is_some();
        match listen {
            Some(address) if !is_named => {
                let shown = environment.get("TIDEMILL_TLS_CERT").filter(|path| !path.is_empty());
                let (scheme, trust) = match shown {
                    // The two have the same file, so that it takes neither a name nor an authority.
                    Some(path) => ("https", Trust::shown(&path.into(), "variable TIDEMILL_TLS_CERT")?),
                    None => ("http", Trust::System),
                };
                let url = format!("{scheme}://{}", reachable(address));
                Client::new(&url, "variable TIDEMILL_LISTEN", self.target.headers(environment)?, trust)
            }
            _ => self.client(environment),
        }
    }
}

/// Returns the address at which this machine reaches a listener: the loopback of one that listens on
/// every network.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// An answer of the relay that is no problem.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// The target of the header `Link` with `rel="next"`.
    pub(super) next: Option<String>,
    /// Whether it is the answer to an earlier request: nothing was kept for this one.
    pub(super) replayed: bool,
    /// All headers.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer, with what it takes to decide on a retry.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The error to print.
    pub(super) error: CliError,
    /// Whether the same request can succeed later. Where it may have had an effect, it does no harm
    /// under an idempotency key.
    pub(super) is_passing: bool,
    /// Whether the relay could not even be reached.
    pub(super) is_unreachable: bool,
    /// How long the relay asks to wait.
    pub(super) retry_after: Option<Duration>,
}

impl From<Refusal> for CliError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// A client of one relay.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    /// How to say who calls, where nothing does.
    unsaid: Option<&'static str>,
}

impl Client {
    /// Returns where the relay is, without what may be secret.
    pub(super) fn address(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    fn new(url: &str, source: &str, headers: HeaderMap, trust: Trust) -> Result<Self, CliError> {
        let reach = Reach::new(url, source, headers, trust)?;
        let is_said = reach.is_said();
        let builder = reach.builder()?.timeout(REQUEST);
        let http = builder
            .build()
            .map_err(|cause| CliError::Failed("cannot start the HTTP client", cause.into()))?;
        Ok(Self { http, base: reach.base, unsaid: (!is_said).then_some(credentials::WAYS) })
    }

    /// Returns the same client, of a command that takes a user's name and password, too.
    pub(super) fn or_as_user(self) -> Self {
        Self { unsaid: self.unsaid.map(|_| credentials::WAYS_WITH_USER), ..self }
    }

    /// Returns whether nothing says who calls.
    pub(super) const fn is_unsaid(&self) -> bool {
        self.unsaid.is_some()
    }

    /// Returns where the relay is, without a password that the URL may hold.
    pub(super) fn name(&self) -> String {
        reach::name(&self.base)
    }

    /// Returns a request for a path of the relay. The segments are encoded.
    pub(super) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        self.http.request(method, url)
    }

    /// Returns a request for a link that the relay gave, which must lead to the same relay.
    pub(super) fn follow(&self, link: &str) -> Result<RequestBuilder, CliError> {
        let url =
            self.base.join(link).map_err(|_| self.not_a_relay("its link to the next page is broken"))?;
        if url.origin() != self.base.origin() {
            return Err(self.not_a_relay("its link to the next page leads elsewhere"));
        }
        Ok(self.http.get(url))
    }

    /// Sends a request and returns the answer, if it is no problem.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer, Refusal> {
        self.ask(request, &[]).await
    }

    /// Sends a request and returns the answer, if it is no problem, or has a status that is an answer
    /// to the question that was asked.
    pub(super) async fn ask(&self, request: RequestBuilder, answers: &[u16]) -> Result<Answer, Refusal> {
        let response = request.send().await.map_err(|cause| self.broken(cause))?;
        let status = response.status().as_u16();
        let next = next_link(&response);
        let replayed = response.headers().contains_key("idempotency-replayed");
        let is_problem =
            header(&response, &CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/problem+json"));
        let retry_after = header(&response, &RETRY_AFTER).and_then(|text| text.parse().ok());
        let headers = response.headers().clone();
        let body = self.body(response).await?;
        if (200..300).contains(&status) || (answers.contains(&status) && !is_problem) {
            return Ok(Answer { status, next, replayed, headers, body });
        }
        let problem = if is_problem { serde_json::from_slice::<Problem>(&body).ok() } else { None };
        Err(self.refused(status, problem, retry_after, &body))
    }

    fn refused(
        &self,
        status: u16,
        problem: Option<Problem>,
        retry_after: Option<u64>,
        body: &[u8],
    ) -> Refusal {
        let gateway = matches!(status, 429 | 502..=504);
        let (error, is_passing) = match problem {
            Some(mut problem) => {
                if let (Code::Unauthenticated, Some(ways)) = (problem.code, self.unsaid) {
                    problem.detail = credentials::advised(&problem.detail, ways);
                }
                let is_passing = problem.retryable || problem.code == Code::OutcomeUnknown;
                (CliError::Problem(Box::new(problem)), is_passing)
            }
            None => (self.not_a_relay(&foreign::told(status, body)), gateway),
        };
        let retry_after = retry_after.map(Duration::from_secs);
        Refusal { error, is_passing, is_unreachable: false, retry_after }
    }

    /// Reads an answer as the type that the wire contract says it is.
    pub(super) fn read<'a, T: Deserialize<'a>>(&self, answer: &'a Answer) -> Result<T, CliError> {
        serde_json::from_slice(&answer.body).map_err(|cause| self.not_a_relay(&cause.to_string()))
    }

    /// Reads a part of an answer.
    pub(super) fn read_part<'a, T: Deserialize<'a>>(&self, json: &'a str) -> Result<T, CliError> {
        serde_json::from_str(json).map_err(|cause| self.not_a_relay(&cause.to_string()))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Refusal> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|cause| self.broken(cause))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let error = self.not_a_relay("it is larger than 1 GiB");
                return Err(Refusal { error, is_passing: false, is_unreachable: false, retry_after: None });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn broken(&self, cause: reqwest::Error) -> Refusal {
        let is_unreachable = cause.is_connect();
        let (url, why) = (self.name(), root(&cause.without_url()));
        let is_plain = self.base.scheme() == "https" && foreign::is_not_tls(&why);
        let why = if is_plain { "it speaks no TLS: write http://".to_owned() } else { why };
        let error =
            if is_unreachable { CliError::unreachable(url, why) } else { CliError::NoAnswer { url, why } };
        Refusal { error, is_passing: true, is_unreachable, retry_after: None }
    }

    /// Returns the error of an answer that does not tell what a key is.
    pub(super) fn no_key(&self) -> CliError {
        self.not_a_relay("it has not the headers of a key")
    }

    fn not_a_relay(&self, what: &str) -> CliError {
        CliError::NotARelay { url: self.name(), what: what.to_owned() }
    }
}

fn header<'a>(response: &'a Response, name: &reqwest::header::HeaderName) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
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

fn next_link(response: &Response) -> Option<String> {
    let links = header(response, &reqwest::header::LINK)?;
    let is_next = |link: &&str| link.contains("rel=\"next\"") || link.contains("rel=next");
    let link = links.split(", <").find(is_next)?.trim_start_matches('<');
    link.split_once('>').map(|(target, _)| target.to_owned())
}
