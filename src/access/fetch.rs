//! Fetching a small document from a URL that an operator has set, or asking something there: the keys of an issuer,
//! what a provider says of itself, and its tokens.
//!
//! Whoever can change what such a URL leads to must not make the relay reach what it should not. So a URL is
//! `https`, or `http` to this machine; redirects are not followed; addresses are looked up here, checked, and
//! those that were checked are the ones that are connected to, past any proxy. Addresses by which the
//! machines of clouds tell their secrets are never reached, and this machine only by its own names. Time and
//! size are bounded.
//!
//! It must not know what is in the document.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use oauth2::{HttpRequest, HttpResponse};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, CACHE_CONTROL, HeaderMap};
use reqwest::redirect::Policy;
use url::{Host, Url};

/// How long a fetch may take, from the look-up of the name to the last byte.
const FETCH_MAX: Duration = Duration::from_secs(5);

/// Largest document. The keys of large issuers have some tens of kilobytes.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// A URL that may be fetched.
#[derive(Clone, PartialEq, Eq)]
pub struct FetchUrl(Url);

impl FetchUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// It is none, or none that may be fetched; the text says what to do.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "is no URL; write `https://host/path`")?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err("has a user, a password or a fragment; write `https://host/path`");
        }
        let is_here = match url.host() {
            Some(Host::Domain(name)) => is_local(name),
            Some(Host::Ipv4(ip)) => is_allowed_literal(ip.into())?,
            Some(Host::Ipv6(ip)) => is_allowed_literal(ip.into())?,
            None => return Err("has no host; write `https://host/path`"),
        };
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_here => Ok(Self(url)),
            "http" => Err("is not encrypted; write `https://`, `http://` is for this machine alone"),
            _ => Err("has another scheme; write `https://`"),
        }
    }
}

/// Returns whether an address that stands in a URL is this machine's.
fn is_allowed_literal(ip: IpAddr) -> Result<bool, &'static str> {
    match Reach::of(ip) {
        Reach::Never => Err("leads to an address that is never fetched from; name another host"),
        Reach::Here => Ok(true),
        Reach::There => Ok(false),
    }
}

impl fmt::Display for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FetchUrl({self})")
    }
}

/// Why a document was not fetched. Another time it may be.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The client cannot be set up, as where no certificates are found.
    #[error("no client can be set up: {0}")]
    Setup(String),
    /// It took too long.
    #[error("it took longer than 5 s")]
    TimedOut,
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Broken(String),
    /// The answer is no document.
    #[error("the answer has the status {0}; redirects are not followed")]
    Status(u16),
    /// The answer is too large.
    #[error("the answer is larger than 1 MiB")]
    TooLarge,
}

/// A document.
#[derive(Debug)]
pub struct Fetched {
    /// Its bytes.
    pub body: Vec<u8>,
    /// How long it may be kept, as it says itself.
    pub max_age: Option<Duration>,
}

/// What fetches one document.
#[derive(Clone, Debug)]
pub struct Fetcher {
    http: reqwest::Client,
    url: Url,
}

impl Fetcher {
    /// Sets up what fetches a document.
    ///
    /// # Errors
    /// There are no certificates to check the server by.
    pub fn new(url: &FetchUrl) -> Result<Self, FetchError> {
        let mut builder = reqwest::Client::builder()
            .timeout(FETCH_MAX)
            .redirect(Policy::none())
            // A proxy would look names up by itself.
            .no_proxy()
            .dns_resolver(CheckedNames)
            // A connection that waits for the next time, minutes later, is of no use.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")));
        if url.0.scheme() == "http" {
            // Without TLS no certificate is looked at: none need be loaded, and a container need not have
            // any.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|cause| FetchError::Setup(root(&cause)))?;
        Ok(Self { http, url: url.0.clone() })
    }

    /// Fetches the document.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self) -> Result<Fetched, FetchError> {
        let request = self.http.get(self.url.clone()).header(ACCEPT, "application/json");
        let answer = request.send().await.map_err(broken)?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(FetchError::Status(status));
        }
        let max_age = max_age(answer.headers());
        Ok(Fetched { body: whole(answer).await?, max_age })
    }

    /// Sends a request to the same URL, whatever URL it names, and returns the answer, whatever its status is.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(super) async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, FetchError> {
        let (head, body) = request.into_parts();
        let request = self.http.request(head.method, self.url.clone()).headers(head.headers).body(body);
        let answer = request.send().await.map_err(broken)?;
        let mut response = HttpResponse::new(Vec::new());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        *response.body_mut() = whole(answer).await?;
        Ok(response)
    }
}

/// Reads an answer to its end.
async fn whole(mut answer: reqwest::Response) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > DOCUMENT_BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn broken(cause: reqwest::Error) -> FetchError {
    if cause.is_timeout() { FetchError::TimedOut } else { FetchError::Broken(root(&cause)) }
}

/// Returns the innermost cause: the outer ones repeat the URL.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Returns what `Cache-Control` says of how long the answer may be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let mut directives = directives.flat_map(|value| value.split(',')).map(str::trim);
    let seconds = directives.find_map(|directive| {
        let (name, seconds) = directive.split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| seconds.trim_matches('"').parse().ok())?
    })?;
    Some(Duration::from_secs(seconds))
}

/// Looks names up and refuses those that lead where nothing may be fetched. What it returns is what is
/// connected to, so a name that leads elsewhere a moment later changes nothing.
struct CheckedNames;

impl Resolve for CheckedNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let name = name.as_str();
            // The port is put in by the caller.
            let addresses: Vec<_> = tokio::net::lookup_host((name, 0)).await?.collect();
            check_addresses(name, &addresses)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Why a name is not connected to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name `{name}` leads to {address}, which is never fetched from")]
struct Forbidden {
    name: String,
    address: IpAddr,
}

/// Checks all addresses of a name: one that is wrong says that the name is not to be trusted.
fn check_addresses(name: &str, addresses: &[SocketAddr]) -> Result<(), Forbidden> {
    let expected = if is_local(name) { Reach::Here } else { Reach::There };
    match addresses.iter().map(SocketAddr::ip).find(|ip| Reach::of(*ip) != expected) {
        Some(address) => Err(Forbidden { name: name.to_owned(), address }),
        None => Ok(()),
    }
}

/// Returns whether a name is one of this machine (RFC 6761).
fn is_local(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// To this machine.
    Here,
    /// To another.
    There,
    /// Where nothing is fetched from.
    Never,
}

/// Where clouds tell a machine its secrets, besides the addresses of the link (`169.254.0.0/16`,
/// `fe80::/10`).
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254),
];

impl Reach {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => match embedded(ip) {
                // No machine has its own name behind a translation.
                Some((inside, false)) if Self::of_v4(inside) == Self::Here => Self::Never,
                Some((inside, _)) => Self::of_v4(inside),
                None => Self::of_v6(ip),
            },
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [first, ..] = ip.octets();
        if ip.is_loopback() {
            Self::Here
        } else if first == 0 || first >= 224 || ip.is_link_local() || METADATA_V4.contains(&ip) {
            // "This network", multicast, reserved, broadcast: there is no server behind them.
            Self::Never
        } else {
            Self::There
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        if ip.is_loopback() {
            Self::Here
        } else if ip.is_unspecified()
            || ip.is_multicast()
            || ip.is_unicast_link_local()
            || METADATA_V6.contains(&ip)
        {
            Self::Never
        } else {
            Self::There
        }
    }
}

/// Returns the address of version 4 that one of version 6 stands for, and whether it is merely another way to
/// write it (`::ffff:a.b.c.d`), not one that is translated on its way (NAT64, 6to4, `::a.b.c.d`).
fn embedded(ip: Ipv6Addr) -> Option<(Ipv4Addr, bool)> {
    let bytes = ip.octets();
    let at = |index: usize| Ipv4Addr::new(bytes[index], bytes[index + 1], bytes[index + 2], bytes[index + 3]);
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return Some((mapped, true));
    }
    match ip.segments() {
        [0x0064, 0xff9b, ..] => Some((at(12), false)),
        [0x2002, ..] => Some((at(2), false)),
        // Not `::` and `::1`.
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => Some((at(12), false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
