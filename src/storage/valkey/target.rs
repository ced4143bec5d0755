//! Where the Valkey server is and as whom to log in: the URL forms and their rules.
//!
//! It does no I/O and knows neither the client library nor settings. No error and no text of a
//! [`Target`] holds the password, or any part of a URL that could be one.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use secrecy::SecretString;

/// The port of a server when a URL names none.
pub const PORT_DEFAULT: u16 = 6379;
/// The port of a sentinel when a URL names none.
pub const SENTINEL_PORT_DEFAULT: u16 = 26_379;
/// Most hosts of a URL.
pub const HOSTS_MAX: usize = 16;

/// Longest name of what sentinels watch. They set no bound themselves.
const NAME_BYTES_MAX: usize = 128;

/// Longest host name (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// A server, with the login and the database to use there.
///
/// `Display` and `Debug` show it as a URL with `***` for the password.
#[derive(Clone)]
pub struct Target {
    /// A host name or an IP address; IPv6 without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The hosts and ports behind the first: of sentinels, where the target is watched by some, else of servers of
    /// which one is the primary.
    pub others: Vec<(String, u16)>,
    /// The name by which sentinels know the server; all hosts are theirs then.
    pub watched: Option<String>,
    /// The ACL user; `None` is the server's default user. Only present with a password.
    pub username: Option<String>,
    /// The password; `None` sends no `AUTH`.
    pub password: Option<SecretString>,
    /// Whether to speak TLS.
    pub tls: bool,
    /// The database index.
    pub database: u32,
}

/// Why a text does not name a server. The texts never repeat the input, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is no `://`.
    #[error("has no scheme; write `redis://host:6379`, or `rediss://host:6379` for TLS")]
    NoScheme,
    /// The scheme is another one.
    #[error(
        "has an unknown scheme; the schemes are redis, valkey, and with TLS rediss, valkeys, each with +sentinel behind it where sentinels tell where the server is"
    )]
    Scheme,
    /// Blanks or control characters.
    #[error("holds a blank or a control character; in a password, write it percent-encoded")]
    Blank,
    /// `?` or `#`, which have no meaning in these URLs.
    #[error("holds `{0}`, which has no meaning here; in a password, write `{1}`")]
    Reserved(char, &'static str),
    /// A slash that must belong to the password.
    #[error("has a `/` before its `@`; in a user name or password, write `%2F`")]
    Slash,
    /// A `%` without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("has a user name or password that is not percent-encoded UTF-8; write `%` itself as `%25`")]
    Encoding,
    /// A user name alone.
    #[error("has a user name but no password; a password alone is written `redis://:password@host`")]
    NoPassword,
    /// No host.
    #[error("has no host")]
    NoHost,
    /// The host is neither a name nor an address.
    #[error("has a host that is neither a name nor an address; an IPv6 address is written in brackets")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("has a port that is not a number from 1 to 65535")]
    Port,
    /// More hosts than are taken.
    #[error("has more than {HOSTS_MAX} hosts")]
    TooManyHosts,
    /// Sentinels, and no name to ask them for.
    #[error("names sentinels and not what they watch; write `valkey+sentinel://host:26379/name`")]
    NoName,
    /// The name is one that no sentinel takes.
    #[error(
        "has a name of what is watched that is not of up to {NAME_BYTES_MAX} letters, digits, `.`, `-` and `_`"
    )]
    Name,
    /// The path is not a database index.
    #[error("has a path that is not a database index; write `/0`, or leave it out")]
    Database,
}

impl Target {
    /// Parses `redis://`, `valkey://`, or with TLS `rediss://`, `valkeys://`, then
    /// `[[user]:password@]host[:port][,host[:port]…][/database]`; or, where sentinels tell where the server is, the
    /// same schemes with `+sentinel`, then `[[user]:password@]host[:port][,host[:port]…]/name[/database]`. The login is
    /// that of the server.
    ///
    /// User name and password are percent-decoded. The last `@` ends them, so that an `@` in a
    /// password needs no encoding.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        if url.chars().any(|character| character.is_control() || character.is_whitespace()) {
            return Err(TargetError::Blank);
        }
        let (scheme, rest) = url.split_once("://").ok_or(TargetError::NoScheme)?;
        let scheme = scheme.to_ascii_lowercase();
        let (scheme, is_watched) =
            scheme.strip_suffix("+sentinel").map_or((&*scheme, false), |scheme| (scheme, true));
        let tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(TargetError::Scheme),
        };
        for (character, encoded) in [('?', "%3F"), ('#', "%23")] {
            if rest.contains(character) {
                return Err(TargetError::Reserved(character, encoded));
            }
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('@') {
            return Err(TargetError::Slash);
        }
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        let mut hosts =
            parse_addresses(address, if is_watched { SENTINEL_PORT_DEFAULT } else { PORT_DEFAULT })?;
        let (host, port) = hosts.remove(0);
        let (username, password) = login.map_or(Ok((None, None)), parse_login)?;
        let (name, path) = if is_watched { path.split_once('/').unwrap_or((path, "")) } else { ("", path) };
        let watched = is_watched.then(|| parse_name(name)).transpose()?;
        let database = parse_database(path)?;
        Ok(Self { host, port, others: hosts, watched, username, password, tls, database })
    }

    /// Returns all hosts with their ports.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, u16)> {
        let others = self.others.iter().map(|(host, port)| (host.as_str(), *port));
        std::iter::once((self.host.as_str(), self.port)).chain(others)
    }

    /// Returns the target with the password shown as `***`: the same text as `Display`.
    #[must_use]
    pub fn redacted(&self) -> String {
        self.to_string()
    }
}

/// Checks a host that stands alone, and returns it without brackets.
///
/// # Errors
/// `NoHost`, `Host`.
pub fn parse_host(text: &str) -> Result<String, TargetError> {
    if text.is_empty() {
        return Err(TargetError::NoHost);
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().map(|_| inner.to_owned()).map_err(|_| TargetError::Host);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_name = text.len() <= HOST_BYTES_MAX && text.bytes().all(allowed);
    if is_name || text.parse::<IpAddr>().is_ok() { Ok(text.to_owned()) } else { Err(TargetError::Host) }
}

fn parse_addresses(text: &str, port_default: u16) -> Result<Vec<(String, u16)>, TargetError> {
    let addresses: Vec<_> =
        text.split(',').map(|address| parse_address(address, port_default)).collect::<Result<_, _>>()?;
    if addresses.len() > HOSTS_MAX { Err(TargetError::TooManyHosts) } else { Ok(addresses) }
}

fn parse_name(text: &str) -> Result<String, TargetError> {
    if text.is_empty() {
        return Err(TargetError::NoName);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_name = text.len() <= NAME_BYTES_MAX && text.bytes().all(allowed);
    if is_name { Ok(text.to_owned()) } else { Err(TargetError::Name) }
}

fn parse_address(text: &str, port_default: u16) -> Result<(String, u16), TargetError> {
    // A colon inside brackets belongs to an IPv6 address.
    let host_end = text.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match text[host_end..].find(':') {
        Some(colon) => (&text[..host_end + colon], Some(&text[host_end + colon + 1..])),
        None => (text, None),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err(TargetError::Host);
    }
    let host = parse_host(host)?;
    let port = match port {
        None => port_default,
        Some(text) => parse_digits(text).filter(|port| *port != 0).ok_or(TargetError::Port)?,
    };
    Ok((host, port))
}

fn parse_login(text: &str) -> Result<(Option<String>, Option<SecretString>), TargetError> {
    let (username, password) = match text.split_once(':') {
        Some((username, password)) => (decode(username)?, Some(decode(password)?)),
        None => (decode(text)?, None),
    };
    let username = Some(username).filter(|name| !name.is_empty());
    // With a user name, an empty password is one: the server has users that take any.
    let password = password.filter(|password| username.is_some() || !password.is_empty());
    if username.is_some() && password.is_none() {
        return Err(TargetError::NoPassword);
    }
    Ok((username, password.map(SecretString::from)))
}

fn parse_database(path: &str) -> Result<u32, TargetError> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() { Ok(0) } else { parse_digits(path).ok_or(TargetError::Database) }
}

/// Parses digits alone: no sign, which `str::parse` would take.
fn parse_digits<N: std::str::FromStr>(text: &str) -> Option<N> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn decode(text: &str) -> Result<String, TargetError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(TargetError::Encoding) };
        bytes.push(high * 16 + low);
    }
    String::from_utf8(bytes).map_err(|_| TargetError::Encoding)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "valkeys" } else { "valkey" })?;
        f.write_str(if self.watched.is_some() { "+sentinel://" } else { "://" })?;
        if self.password.is_some() {
            write!(f, "{}:***@", self.username.as_deref().unwrap_or(""))?;
        }
        for (at, (host, port)) in self.hosts().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
            write!(f, "{comma}{open}{host}{close}:{port}")?;
        }
        if let Some(name) = &self.watched {
            write!(f, "/{name}")?;
        }
        write!(f, "/{}", self.database)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn every_form_of_a_url_is_read() {
        let cases = [
            ("redis://localhost", "valkey://localhost:6379/0", None),
            ("valkey://localhost:7000", "valkey://localhost:7000/0", None),
            ("rediss://cache.example.com:6379/2", "valkeys://cache.example.com:6379/2", None),
            ("valkeys://h/15/", "valkeys://h:6379/15", None),
            ("REDIS://H/", "valkey://H:6379/0", None),
            ("redis://:pw@h", "valkey://:***@h:6379/0", Some("pw")),
            ("redis://user:pw@h", "valkey://user:***@h:6379/0", Some("pw")),
            ("redis://user:@h", "valkey://user:***@h:6379/0", Some("")),
            ("redis://@h", "valkey://h:6379/0", None),
            ("redis://:@h", "valkey://h:6379/0", None),
            ("redis://:p@ss:w%2Frd%25%C3%A9@h:1", "valkey://:***@h:1/0", Some("p@ss:w/rd%é")),
            ("redis://[::1]", "valkey://[::1]:6379/0", None),
            ("redis://:pw@[fe80::1]:7000/1", "valkey://:***@[fe80::1]:7000/1", Some("pw")),
            ("redis://10.0.0.3:65535", "valkey://10.0.0.3:65535/0", None),
            ("redis://valkey_1", "valkey://valkey_1:6379/0", None),
            ("valkey://a,b:7000/2", "valkey://a:6379,b:7000/2", None),
            ("redis://:p,w@a,[::1]:1", "valkey://:***@a:6379,[::1]:1/0", Some("p,w")),
            ("valkey+sentinel://a,b:7000/main", "valkey+sentinel://a:26379,b:7000/main/0", None),
            ("redis+sentinel://a/main/", "valkey+sentinel://a:26379/main/0", None),
            (
                "Rediss+Sentinel://user:pw@a:1,b:2/my_main.1/3",
                "valkeys+sentinel://user:***@a:1,b:2/my_main.1/3",
                Some("pw"),
            ),
        ];
        for (url, shown, password) in cases {
            let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(target.redacted(), shown, "{url}");
            assert_eq!(target.password.as_ref().map(ExposeSecret::expose_secret), password, "{url}");
        }
    }

    #[test]
    fn every_broken_url_names_its_rule_and_no_part_of_itself() {
        let cases = [
            ("", TargetError::NoScheme),
            ("localhost:6379", TargetError::NoScheme),
            ("http://h3cret", TargetError::Scheme),
            ("unix:///run/h3cret.sock", TargetError::Scheme),
            ("unix+sentinel://h3cret/main", TargetError::Scheme),
            ("redis+h3cret://h", TargetError::Scheme),
            ("redis://h3cret,", TargetError::NoHost),
            ("redis://,h3cret", TargetError::NoHost),
            ("valkey+sentinel://h3cret", TargetError::NoName),
            ("valkey+sentinel://h3cret/", TargetError::NoName),
            ("valkey+sentinel://h/h3cret!", TargetError::Name),
            ("valkey+sentinel://h/main/h3cret", TargetError::Database),
            ("valkey+sentinel://h/main/0/1", TargetError::Database),
            ("redis://h3 cret", TargetError::Blank),
            ("redis://h\n", TargetError::Blank),
            ("redis://h?db=h3cret", TargetError::Reserved('?', "%3F")),
            ("redis://:h3cret#1@h", TargetError::Reserved('#', "%23")),
            ("redis://:h3/cret@h", TargetError::Slash),
            ("redis://:h3cret%2@h", TargetError::Encoding),
            ("redis://:h3cret%zz@h", TargetError::Encoding),
            ("redis://:h3cret%ff@h", TargetError::Encoding),
            ("redis://h3cret@h", TargetError::NoPassword),
            ("redis://", TargetError::NoHost),
            ("redis:///0", TargetError::NoHost),
            ("redis://:h3cret@", TargetError::NoHost),
            ("redis://:6379", TargetError::NoHost),
            ("redis://::1", TargetError::Host),
            ("redis://[h3cret]", TargetError::Host),
            ("redis://[::1", TargetError::Host),
            ("redis://[::1]x:1", TargetError::Host),
            ("redis://h!", TargetError::Host),
            ("redis://h:", TargetError::Port),
            ("redis://h:h3cret", TargetError::Port),
            ("redis://h:0", TargetError::Port),
            ("redis://h:+1", TargetError::Port),
            ("redis://h:65536", TargetError::Port),
            ("redis://h/h3cret", TargetError::Database),
            ("redis://h/-1", TargetError::Database),
            ("redis://h/0/1", TargetError::Database),
        ];
        for (url, error) in cases {
            let found = Target::parse(url).expect_err(url);
            assert_eq!(found, error, "{url}");
            assert!(!format!("{found} {found:?}").contains("h3cret"), "{url}");
        }
        for (count, is_taken) in [(HOSTS_MAX, true), (HOSTS_MAX + 1, false)] {
            let url = format!("valkey://{}", vec!["h"; count].join(","));
            let refused = (!is_taken).then_some(TargetError::TooManyHosts);
            assert_eq!(Target::parse(&url).err(), refused, "{count} hosts");
        }
    }

    #[test]
    fn a_password_is_in_no_text() {
        let target = Target::parse("rediss://user:h3cret@h:1/2").expect("a valid URL");
        assert!(!format!("{target} {target:?} {target:#?}").contains("h3cret"));
    }
}
