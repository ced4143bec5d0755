//! How a relay is reached: its URL, what goes with every request, and who is trusted.
//!
//! It must not know what is asked.

use std::time::Duration;

use reqwest::ClientBuilder;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use url::{Host, Url};

use crate::cli::CliError;
use crate::cli::trust::Trust;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Paths of a relay that stand in an address which somebody copied.
const OWN_PATHS: [&str; 5] = ["/ws", "/docs", "/health", "/ready", "/metrics"];

/// How a relay is reached.
#[derive(Debug)]
pub(in crate::cli) struct Reach {
    /// Where it is.
    pub(in crate::cli) base: Url,
    headers: HeaderMap,
    /// Who is trusted there.
    pub(in crate::cli) trust: Trust,
}

impl Reach {
    /// Returns how a relay is reached at a URL, which `source` names.
    pub(in crate::cli) fn new(
        url: &str,
        source: &str,
        headers: HeaderMap,
        trust: Trust,
    ) -> Result<Self, CliError> {
        Ok(Self { base: parse(url, source)?, headers, trust })
    }

    /// Returns where the relay is, without a password that the URL may hold.
    pub(in crate::cli) fn name(&self) -> String {
        name(&self.base)
    }

    /// Returns the URL of a path of the relay, which has no `/` in front.
    pub(in crate::cli) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        url
    }

    /// Returns whether something says who calls.
    pub(in crate::cli) fn is_said(&self) -> bool {
        self.headers.contains_key(AUTHORIZATION) || !self.base.username().is_empty()
    }

    /// Returns what a client is built with.
    pub(in crate::cli) fn builder(&self) -> Result<ClientBuilder, CliError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .default_headers(self.headers.clone())
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")));
        if self.base.scheme() == "http" {
            // Without TLS no certificate is looked at: none need be loaded, and a container need not have any.
            builder = builder.tls_certs_only([]);
        } else {
            builder = self.trust.clone().apply(builder)?;
        }
        let is_here = match self.base.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        // A proxy would look for its own loopback.
        Ok(if is_here { builder.no_proxy() } else { builder })
    }
}

/// Returns a URL without who calls.
pub(super) fn name(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.as_str().trim_end_matches('/').to_owned()
}

/// Parses the URL of a relay.
pub(super) fn parse(url: &str, source: &str) -> Result<Url, CliError> {
    let usage = |rule: &str| CliError::Usage(format!("the relay's URL (from {source}) {rule}"));
    let url = Url::parse(url).map_err(|_| usage("is not one; write http://host:port"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(usage("does not start with http:// or https://; write http://host:port"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(usage("has a query or a fragment; write http://host:port"));
    }
    // Any other can be that of a proxy, below which the relay is.
    let path = url.path().trim_end_matches('/');
    if OWN_PATHS.contains(&path) || path.starts_with("/api/v1") {
        return Err(usage(
            "has a path of the relay's; the URL is that of the relay, without it: write http://host:port",
        ));
    }
    Ok(url)
}
