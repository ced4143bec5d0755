//! A relay as its clients reach it, through whatever stands in front: what a proxy holds back, cuts or leaves out, and what
//! to write into its settings.
//!
//! It must not know what the relay runs on. Each look is bounded in time.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use futures_util::future::join;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING};
use reqwest::{Client, RequestBuilder, Response};
use tidemill_proto::access::CallerSeen;
use tidemill_proto::health::Health;
use tidemill_proto::{Problem, Timestamp, TopicName};
use tidemill_tls::Inspected;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use url::Url;

use super::line::{Line, Outcome, Seen};
use super::socket;
use crate::cli::CliError;
use crate::cli::client::Reach;
use crate::cli::foreign;
use crate::clock::Clock;
use crate::server::ENDS_SOON;

/// The name of the line that says whether a relay is there.
pub(super) const RELAY: &str = "relay";

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(10);
/// How long the first event of a stream may take.
const FIRST_EVENT: Duration = Duration::from_secs(5);
/// Least bytes of a first event, whatever it was compressed with: what comes first of that is no event.
const EVENT_BYTES_MIN: usize = 32;
/// Pages that are large enough to be compressed, as far as the relay serves them.
const PAGES: [&str; 2] = ["openapi.json", "console/"];

const HANDS_ON: &str = "have the proxy hand on at once what comes: nginx `proxy_buffering off;`, and no `text/event-stream` in `gzip_types`; Caddy `flush_interval -1`; HAProxy no `http-response wait-for-body`; see docs/proxies.md";
const WAITS: &str = "have the proxy wait longer than 20 seconds for more of an answer: nginx `proxy_read_timeout 60s;`, HAProxy `timeout server 60s` and `timeout tunnel 1h`; see docs/proxies.md";
const UPGRADES: &str = "have the proxy pass upgrades on: nginx `proxy_http_version 1.1;`, `proxy_set_header Upgrade $http_upgrade;` and `proxy_set_header Connection $connection_upgrade;`; see docs/proxies.md";
const FORWARDS: &str = "have the proxy pass on `Host` and write `X-Forwarded-Proto` (nginx `proxy_set_header Host $http_host;`, `proxy_set_header X-Forwarded-Proto $scheme;`), and name it in TRUSTED_PROXIES; or set TIDEMILL_PUBLIC_URL";
const FORWARDS_ADDRESS: &str = "if that is the address of a proxy, have it write `X-Forwarded-For` (nginx `proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;`, HAProxy `option forwardfor`), and name it in TRUSTED_PROXIES: limits count by address";
const SAY_WHO: &str = "say who calls with --token, as who may read the topic of --topic";
const NAME_ANOTHER: &str =
    "name a topic with --topic that who calls may read, or say with --token who calls that may read it";
const IS_REFUSED: &str = "the token of --token (or TIDEMILL_TOKEN) is none of this relay, or is over: make a new one with `tidemill token new`";

/// What is looked at, and for how long.
pub(super) struct Outside<'a> {
    pub(super) reach: &'a Reach,
    /// A topic that may be followed; it need not be there.
    pub(super) topic: &'a TopicName,
    /// For how long connections are to stand on which nothing happens.
    pub(super) idle: Duration,
    /// Whether somebody has said that it runs.
    pub(super) is_named: bool,
    /// Where it is told what was looked at.
    pub(super) seen: &'a Seen,
}

impl Outside<'_> {
    /// Looks at everything, and tells each thing as soon as it is known.
    pub(super) async fn look(&self) -> Result<(), CliError> {
        if self.reach.base.scheme() == "https" {
            let (told, can_go_on) = self.certificate().await;
            self.tell(told)?;
            if !can_go_on {
                return Ok(());
            }
        } else {
            let detail = "not looked at: the address has no TLS, and programs and pages speak HTTP/1.1";
            self.tell([Line::pass("http/2", detail)])?;
        }
        let http = self.reach.builder()?.http1_only().build();
        let http = http.map_err(|cause| CliError::Failed("cannot start the HTTP client", cause.into()))?;
        let (told, health) = self.relay(&http).await;
        self.tell([told])?;
        let Some(health) = health else { return Ok(()) };
        self.tell(self.told(&http, &health).await)?;
        self.tell([self.compression(&http).await])?;
        self.tell([self.caller(&http).await])?;
        let socket = async { self.tell([self.socket(&http).await]) };
        let (events, socket) = join(self.events(&http), socket).await;
        events.and(socket)
    }

    fn tell(&self, lines: impl IntoIterator<Item = Line>) -> Result<(), CliError> {
        self.seen.tell(lines.into_iter().map(|line| if self.is_named { line } else { not_yet(line) }))
    }

    pub(super) fn get(&self, http: &Client, path: &str) -> RequestBuilder {
        http.get(self.reach.url(path))
    }

    /// Sends a request, within the time of one look.
    pub(super) async fn ask(&self, request: RequestBuilder) -> Result<Response, String> {
        match timeout(LOOK, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(root(&error.without_url())),
            Err(_) => Err(format!("no answer within {} s", LOOK.as_secs())),
        }
    }

    /// Returns the body of an answer, where it comes within the time of one look.
    pub(super) async fn whole(&self, response: Response) -> Option<Vec<u8>> {
        timeout(LOOK, response.bytes()).await.ok()?.ok().map(Into::into)
    }

    /// Looks at what a server with TLS shows; returns whether there is any use in going on.
    async fn certificate(&self) -> (Vec<Line>, bool) {
        const NAME: &str = "tls";
        let base = &self.reach.base;
        let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = base.port_or_known_default().unwrap_or(443);
        let inspected = async {
            let stream =
                TcpStream::connect((host, port)).await.map_err(|error| (RELAY, error.to_string()))?;
            let inspected = tidemill_tls::inspect(host, stream, self.reach.trust.roots()).await;
            inspected.map_err(|error| (NAME, error.to_string()))
        };
        let inspected = timeout(LOOK, inspected).await;
        let inspected =
            inspected.unwrap_or_else(|_| Err((NAME, format!("no session within {} s", LOOK.as_secs()))));
        let inspected = match inspected {
            Ok(inspected) => inspected,
            Err((name, error)) => {
                let advice = "look at the address, and whether a server with TLS listens there";
                return (vec![Line::fail(name, format!("{host}:{port}: {error}"), advice)], false);
            }
        };
        let line = told_of(&inspected, Clock::system().now());
        let can_go_on = inspected.refusal.is_none();
        let http2 = if inspected.is_http2 {
            Line::pass("http/2", "it is taken")
        } else {
            let advice = "over HTTP/1.1 a browser opens six streams of one site at most; have the proxy take HTTP/2 (nginx `listen 443 ssl http2;`, HAProxy `alpn h2,http/1.1`; Caddy and the relay itself do)";
            Line::warn("http/2", "it is not taken, HTTP/1.1 alone", advice)
        };
        (vec![line, http2], can_go_on)
    }

    /// Looks whether a relay is there; returns what it says of its health.
    async fn relay(&self, http: &Client) -> (Line, Option<Health>) {
        let name = self.reach.name();
        let begin = Instant::now();
        let response = match self.ask(self.get(http, "health")).await {
            Ok(response) => response,
            Err(error) => {
                let advice = "look at the address, and whether the relay and the proxy run";
                return (Line::fail(RELAY, format!("{name} cannot be reached ({error})"), advice), None);
            }
        };
        let took = begin.elapsed();
        let status = response.status().as_u16();
        let body = self.whole(response).await.unwrap_or_default();
        let Ok(health) = serde_json::from_slice::<Health>(&body) else {
            let detail = format!("what answers at {name} is no relay: {}", foreign::told(status, &body));
            let advice =
                "look at the address, and where the proxy sends requests: the relay has to be there, and run";
            return (Line::fail(RELAY, detail, advice), None);
        };
        let how = serde_json::to_value(health.status).ok();
        let how = how.as_ref().and_then(|how| how.as_str()).unwrap_or("unknown");
        let detail = format!("{name} answers in {} ms, and is {how}", took.as_millis());
        (Line::pass(RELAY, detail), Some(health))
    }

    /// Looks whether what is large comes compressed.
    async fn compression(&self, http: &Client) -> Line {
        const NAME: &str = "compression";
        for page in PAGES {
            let request = self.get(http, page).header(ACCEPT_ENCODING, "br, gzip").header(ACCEPT, "*/*");
            let Ok(response) = self.ask(request).await else { continue };
            if response.status() != 200 {
                continue;
            }
            let coding = response.headers().get(CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
            let Some(coding) = coding else {
                let advice = "the relay compresses for who asks: have the proxy pass `Accept-Encoding` on, and not decode answers";
                return Line::warn(NAME, format!("/{page} comes as it is"), advice);
            };
            return Line::pass(NAME, format!("/{page} comes compressed ({coding})"));
        }
        Line::pass(NAME, "not looked at: the relay serves neither its documents nor its console")
    }

    /// Looks whether the relay knows who calls and under which URL.
    async fn caller(&self, http: &Client) -> Line {
        const NAME: &str = "forwarding";
        let response = match self.ask(self.get(http, "api/v1/me")).await {
            Ok(response) => response,
            Err(error) => return Line::fail(NAME, error, "the relay answers other requests; try again"),
        };
        match response.status().as_u16() {
            status @ (401 | 403) => return self.not_let_in(NAME, status),
            200 => {}
            status => {
                let advice = "have the proxy pass all paths on, and the relay be as new as this command";
                return Line::fail(NAME, format!("/api/v1/me is answered with {status}"), advice);
            }
        }
        let body = timeout(LOOK, response.bytes()).await.ok().and_then(Result::ok).unwrap_or_default();
        let Ok(seen) = serde_json::from_slice::<CallerSeen>(&body) else {
            return Line::fail(
                NAME,
                "/api/v1/me is answered by something else",
                "have the proxy pass all paths on",
            );
        };
        let base = &self.reach.base;
        let is_own = Url::parse(&seen.url).is_ok_and(|url| url.origin() == base.origin());
        if !is_own {
            let here = base.origin().ascii_serialization();
            return Line::warn(
                NAME,
                format!("the relay takes {} for its URL, and not {here}", seen.url),
                FORWARDS,
            );
        }
        let Some(address) = seen.address else {
            return Line::pass(
                NAME,
                format!("the relay knows its URL; it sees {}, without an address", seen.caller),
            );
        };
        let detail = format!("the relay knows its URL, and sees {} at {address}", seen.caller);
        let is_here = own_address(base).is_some_and(|own| own == address);
        if is_here || !is_private(address) {
            Line::pass(NAME, detail)
        } else {
            Line::warn(NAME, detail, FORWARDS_ADDRESS)
        }
    }

    /// Says that somebody else has to ask: whoever calls is not let in (401), or may not do it (403).
    fn not_let_in(&self, name: &'static str, status: u16) -> Line {
        if !self.reach.is_said() {
            return Line::warn(name, "not looked at: the relay asks who calls", SAY_WHO);
        }
        if status == 401 {
            return Line::fail(name, "the relay does not let in who calls with this token", IS_REFUSED);
        }
        Line::warn(
            name,
            format!("not looked at: who calls may not read topic `{}`", self.topic),
            NAME_ANOTHER,
        )
    }

    /// Follows a topic: looks whether events come at once, and for how long the stream stands.
    async fn events(&self, http: &Client) -> Result<(), CliError> {
        const IDLE: &str = "idle";
        let (first, followed) = self.first_event(http).await;
        self.tell([first])?;
        let Some(mut response) = followed else { return Ok(()) };
        let stood = Instant::now();
        let end = async { while let Ok(Some(_)) = response.chunk().await {} };
        self.tell([if timeout(self.idle, end).await.is_ok() {
            let detail = format!("a silent stream was cut after {:.1} s", stood.elapsed().as_secs_f64());
            Line::fail(IDLE, detail, WAITS)
        } else {
            Line::pass(IDLE, format!("a silent stream was not cut within {} s", self.idle.as_secs()))
        }])
    }

    /// Follows a topic up to its first event; returns the stream where that came.
    async fn first_event(&self, http: &Client) -> (Line, Option<Response>) {
        const EVENTS: &str = "events";
        let path = format!("api/v1/topics/{}/messages", self.topic);
        // As a browser asks: a proxy that compresses a stream may hold it back.
        let request = self.get(http, &path).header(ACCEPT, "text/event-stream");
        let request = request.header(ACCEPT_ENCODING, "gzip, deflate, br");
        let begin = Instant::now();
        let held_back = || {
            let detail =
                format!("nothing of a stream came within {} s: it is held back", FIRST_EVENT.as_secs());
            (Line::fail(EVENTS, detail, HANDS_ON), None)
        };
        let mut response = match timeout(FIRST_EVENT, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return (Line::fail(EVENTS, root(&error.without_url()), HANDS_ON), None),
            Err(_) => return held_back(),
        };
        match response.status().as_u16() {
            200 => {}
            status @ (401 | 403) => return (self.not_let_in(EVENTS, status), None),
            status => {
                let body =
                    timeout(LOOK, response.bytes()).await.ok().and_then(Result::ok).unwrap_or_default();
                return (not_followed(EVENTS, status, &body), None);
            }
        }
        let event = async {
            let mut bytes = 0;
            while bytes < EVENT_BYTES_MIN {
                bytes += response.chunk().await.ok().flatten()?.len();
            }
            Some(())
        };
        match timeout(FIRST_EVENT.saturating_sub(begin.elapsed()), event).await {
            Ok(Some(())) => {}
            Ok(None) => return (Line::fail(EVENTS, "a stream ended before its first event", HANDS_ON), None),
            Err(_) => return held_back(),
        }
        let detail = format!("the first event of a stream came in {} ms", begin.elapsed().as_millis());
        (Line::pass(EVENTS, detail), Some(response))
    }

    /// Opens a WebSocket, and looks for how long it stands.
    async fn socket(&self, http: &Client) -> Line {
        const NAME: &str = "websocket";
        let begin = Instant::now();
        let opened = socket::open(self.get(http, "ws"));
        let mut socket = match timeout(LOOK, opened).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(socket::Refused::Status(status @ (401 | 403)))) => return self.not_let_in(NAME, status),
            Ok(Err(socket::Refused::Status(status))) => {
                return Line::fail(NAME, format!("the upgrade was answered with {status}"), UPGRADES);
            }
            Ok(Err(socket::Refused::Broken(error))) => return Line::fail(NAME, error, UPGRADES),
            Err(_) => {
                return Line::fail(NAME, format!("no upgrade within {} s", LOOK.as_secs()), UPGRADES);
            }
        };
        match timeout(LOOK, socket.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Line::fail(NAME, format!("a ping was not answered: {error}"), UPGRADES),
            Err(_) => {
                let detail = format!("a ping was not answered within {} s", LOOK.as_secs());
                return Line::fail(NAME, detail, UPGRADES);
            }
        }
        let took = begin.elapsed().as_millis();
        let stood = Instant::now();
        if timeout(self.idle, socket.ended()).await.is_ok() {
            let stood = stood.elapsed().as_secs_f64();
            return Line::fail(NAME, format!("a silent WebSocket was cut after {stood:.1} s"), WAITS);
        }
        let idle = self.idle.as_secs();
        Line::pass(NAME, format!("upgraded, and a ping answered, in {took} ms; not cut within {idle} s"))
    }
}

/// Has it that a relay is not there be no fault: nobody has said that it runs.
fn not_yet(line: Line) -> Line {
    if line.name != RELAY || line.outcome != Outcome::Fail {
        return line;
    }
    let advice = Some("this is TIDEMILL_PUBLIC_URL; once the relay runs, look again".to_owned());
    Line { outcome: Outcome::Warn, advice, ..line }
}

/// Says why a topic could not be followed: the relay has told so itself, or something else has answered.
fn not_followed(name: &'static str, status: u16, body: &[u8]) -> Line {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Line::fail(
            name,
            format!(
                "not looked at: the relay answers with {status} `{}`: {}",
                problem.code.as_str(),
                problem.detail
            ),
            "mend that first; what stands in front of the relay lets its answers through",
        ),
        Err(_) => Line::fail(name, foreign::told(status, body), "have the proxy pass all paths on"),
    }
}

/// Says how a certificate is.
fn told_of(inspected: &Inspected, now: Timestamp) -> Line {
    const NAME: &str = "tls";
    const RENEW: &str = "renew it, and look why that was not done by itself";
    let good_until =
        inspected.good_until.map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1_000)));
    if let Some(good_until) = good_until.filter(|good_until| *good_until < now) {
        return Line::fail(
            NAME,
            format!("the certificate has expired: clients refuse it since {good_until}"),
            RENEW,
        );
    }
    if let Some(refusal) = &inspected.refusal {
        let why = tidemill_tls::untrusted(refusal).unwrap_or_else(|| refusal.clone());
        let advice = if inspected.certificates == 1 && !why.contains("not valid for name") {
            "the server sends its own certificate alone: have it show the whole chain (`fullchain.pem`); or, if its authority is one of your own, name that with --ca-cert"
        } else {
            "have the server show a certificate for this name, of an authority that clients trust; or, if its authority is one of your own, name that with --ca-cert"
        };
        return Line::fail(NAME, format!("the certificate is not trusted: {why}"), advice);
    }
    let count = inspected.certificates;
    let chain =
        if count == 1 { "one certificate".to_owned() } else { format!("a chain of {count} certificates") };
    let Some(good_until) = good_until else {
        return Line::pass(NAME, format!("{chain}, trusted; until when is not told"));
    };
    let days = (good_until.as_millis() - now.as_millis()) / (24 * 60 * 60 * 1_000);
    let detail = format!("{chain}, trusted, good until {good_until}, for {days} more days");
    if good_until < now.saturating_add(ENDS_SOON) {
        Line::warn(NAME, detail, RENEW)
    } else {
        Line::pass(NAME, detail)
    }
}

/// Returns the address that this machine has towards a host. Nothing is sent.
fn own_address(base: &Url) -> Option<IpAddr> {
    let host = base.host_str()?.trim_matches(['[', ']']);
    let to = (host, base.port_or_known_default()?);
    ["0.0.0.0:0", "[::]:0"].into_iter().find_map(|any| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

/// Whether an address is one that only machines beside each other have.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Returns the innermost cause of an error.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_before_it_comes() {
        const DAY: i64 = 24 * 60 * 60;
        let now = Timestamp::from_millis(1_770_000_000_000);
        let told = |days: i64, refusal: Option<&str>| {
            let good_until = (now.as_millis() / 1_000).checked_add_signed(days * DAY);
            let refusal = refusal.map(str::to_owned);
            told_of(&Inspected { good_until, certificates: 2, refusal, is_http2: true }, now)
        };
        // As the relay itself warns, and as the alert does.
        let line = told(15, None);
        assert_eq!(line.outcome, Outcome::Pass, "{line:?}");
        assert!(line.detail.ends_with(", for 15 more days"), "{line:?}");
        assert_eq!(told(13, None).outcome, Outcome::Warn);
        let expired = told(-1, Some("invalid peer certificate: certificate expired"));
        assert_eq!(expired.outcome, Outcome::Fail);
        assert!(expired.detail.starts_with("the certificate has expired"), "{expired:?}");
        let untrusted = told(100, Some("invalid peer certificate: UnknownIssuer"));
        assert_eq!(untrusted.detail, "the certificate is not trusted: nobody who is trusted has signed it");
    }

    #[test]
    fn addresses_of_machines_beside_each_other_are_private() {
        let is = |text: &str| is_private(text.parse().expect("an address"));
        for text in
            ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.7.7", "::1", "fd00::1", "::ffff:10.0.0.1"]
        {
            assert!(is(text), "{text}");
        }
        for text in ["192.0.2.1", "8.8.8.8", "2001:db8::1"] {
            assert!(!is(text), "{text}");
        }
    }
}
