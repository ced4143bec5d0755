//! A provider of OpenID Connect as the operator names it, in one text: what it is called here, and then what is
//! known of it.
//!
//! ```text
//! google;issuer=https://accounts.google.com;client_id=…;client_secret=…
//! uni;issuer=https://id.example/realms/uni;client_id=relay;client_secret=…;username=uid;roles=read;scopes=openid,uid
//! ```
//!
//! Several stand one behind the other, with blanks or lines between them; lines that begin with `#` are comments.
//! It must not know how a provider is asked.

use secrecy::SecretString;
use url::Url;

use crate::access::fetch::FetchUrl;
use crate::access::listed;

/// Longest name: it stands in paths and in names of users.
const NAME_BYTES_MAX: usize = 32;

/// Most providers of one relay.
const PROVIDERS_MAX: usize = 16;

/// A provider of OpenID Connect that users may sign in with.
#[derive(Clone, Debug)]
pub struct Provider {
    /// What it is called here.
    pub name: String,
    /// Its issuer, letter by letter.
    pub issuer: String,
    /// Where it describes itself.
    pub discovery: FetchUrl,
    /// What this relay is called there.
    pub client_id: String,
    /// With what this relay says that it is the one.
    pub client_secret: SecretString,
    /// What it is asked for.
    pub scopes: Vec<String>,
    /// The claim of which a new user's name is made.
    pub username: String,
    /// The roles of a new user.
    pub roles: Vec<String>,
}

/// Why a text names no provider: the end of a sentence that says what to do. It repeats no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProviderRule(String);

fn rule(text: impl Into<String>) -> ProviderRule {
    ProviderRule(text.into())
}

impl Provider {
    /// Parses the texts of providers, with blanks or lines between them, and comments.
    ///
    /// # Errors
    /// One of them is none, two have one name, or there are too many.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, ProviderRule> {
        let texts = listed::cut(text).map_err(rule)?;
        let providers = texts.into_iter().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        if providers.len() > PROVIDERS_MAX {
            return Err(rule(format!("names more than {PROVIDERS_MAX} providers; name fewer")));
        }
        for (at, provider) in providers.iter().enumerate() {
            if providers[..at].iter().any(|other| other.name == provider.name) {
                return Err(rule(format!("names `{}` twice; give one another name", provider.name)));
            }
        }
        Ok(providers)
    }

    /// Parses the text of one provider: its name, and behind it `;field=value`.
    ///
    /// # Errors
    /// A field is missing, unknown or wrong.
    fn parse(text: &str) -> Result<Self, ProviderRule> {
        let mut parts = text.split(';');
        let name = parts.next().unwrap_or_default();
        let is_of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_of_name) {
            let example = "google;issuer=https://accounts.google.com;client_id=…;client_secret=…";
            return Err(rule(format!(
                "does not begin with a name of small letters, digits and `-`; write `{example}`"
            )));
        }
        let [mut issuer, mut id, mut secret, mut scopes, mut username, mut roles] = [const { None }; 6];
        for part in parts {
            let (field, value) = part.split_once('=').unwrap_or((part, ""));
            let place = match field {
                "issuer" => &mut issuer,
                "client_id" => &mut id,
                "client_secret" => &mut secret,
                "scopes" => &mut scopes,
                "username" => &mut username,
                "roles" => &mut roles,
                _ => {
                    // Not what stands there: it may be the rest of a secret.
                    return Err(rule(format!(
                        "has a field for `{name}` that is none of issuer, client_id, client_secret, scopes, username, roles"
                    )));
                }
            };
            if value.is_empty() && field != "roles" {
                return Err(rule(format!("has `{field}` for `{name}`, which is empty")));
            }
            if place.replace(value).is_some() {
                return Err(rule(format!("has `{field}` for `{name}`, which is set twice; set it once")));
            }
        }
        let missing = |field: &str| rule(format!("has no `{field}` for `{name}`; write `{field}=…`"));
        let issuer = issuer.ok_or_else(|| missing("issuer"))?;
        let discovery = FetchUrl::parse(&discovery_of(issuer));
        let discovery = discovery.map_err(|what| rule(format!("has `issuer` for `{name}`, which {what}")))?;
        let list =
            |value: &str| value.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect();
        let scopes: Vec<String> = list(scopes.unwrap_or("openid,email,profile"));
        if !scopes.iter().any(|scope| scope == "openid") {
            return Err(rule(format!("has `scopes` for `{name}` without `openid`; add it")));
        }
        Ok(Self {
            name: name.to_owned(),
            issuer: issuer.to_owned(),
            discovery,
            client_id: id.ok_or_else(|| missing("client_id"))?.to_owned(),
            client_secret: secret.ok_or_else(|| missing("client_secret"))?.into(),
            scopes,
            username: username.unwrap_or("preferred_username").to_owned(),
            roles: list(roles.unwrap_or("read,write")),
        })
    }
}

/// Returns where an issuer describes itself (OpenID Connect Discovery section 4).
fn discovery_of(issuer: &str) -> String {
    // What has a query is no issuer; it is refused as a URL with one behind its path is.
    let has_more = Url::parse(issuer).is_ok_and(|url| url.query().is_some());
    let issuer = issuer.strip_suffix('/').unwrap_or(issuer);
    if has_more { String::new() } else { format!("{issuer}/.well-known/openid-configuration") }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const GOOD: &str = "one;issuer=https://id.example/;client_id=relay;client_secret=s=cret";

    #[test]
    fn a_provider_is_read_with_what_is_left_out() {
        let more = format!(
            "{GOOD}\n two;issuer=http://127.0.0.1:1/x;client_id=a;client_secret=b;scopes=openid,uid;username=uid;roles="
        );
        let [one, two] = Provider::parse_all(&more).unwrap().try_into().unwrap();
        assert_eq!((one.name.as_str(), one.issuer.as_str()), ("one", "https://id.example/"));
        assert_eq!(one.discovery.to_string(), "https://id.example/.well-known/openid-configuration");
        assert_eq!(one.client_secret.expose_secret(), "s=cret");
        assert_eq!(one.scopes, ["openid", "email", "profile"]);
        assert_eq!((one.username.as_str(), one.roles.len()), ("preferred_username", 2));
        assert_eq!(two.discovery.to_string(), "http://127.0.0.1:1/x/.well-known/openid-configuration");
        assert_eq!((two.scopes.len(), two.username.as_str(), two.roles.len()), (2, "uid", 0));
        assert!(!format!("{one:?}").contains("s=cret"));
        assert!(Provider::parse_all(" \n").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_without_secrets() {
        let many: String = (0..17).map(|at| GOOD.replace("one", &format!("p{at}")) + " ").collect();
        for (text, part) in [
            ("One;issuer=https://id.example", "does not begin with a name"),
            (";issuer=https://id.example", "does not begin with a name"),
            ("one;client_id=a;client_secret=b", "no `issuer`"),
            ("one;issuer=https://id.example;client_secret=b", "no `client_id`"),
            ("one;issuer=https://id.example;client_id=a", "no `client_secret`"),
            ("one;issuer=http://id.example;client_id=a;client_secret=b", "is not encrypted"),
            ("one;issuer=https://id.example?x;client_id=a;client_secret=b", "is no URL"),
            ("one;issuer=https://169.254.169.254;client_id=a;client_secret=b", "never fetched"),
            ("one;issuer=https://id.example;client_id=;client_secret=b", "which is empty"),
            ("one;issuer=https://id.example;client_id=a;client_secret=b;scopes=email", "without `openid`"),
            ("one;issuer=https://id.example;client_id=a;client_secret=b;client_id=c", "set twice"),
            ("one;issuer=https://id.example;client_id=a;client_secret=se;cret", "none of issuer"),
            (&format!("{GOOD} {GOOD}"), "names `one` twice"),
            (&many, "more than 16"),
        ] {
            let told = Provider::parse_all(text).unwrap_err().to_string();
            let tells = ["s=cret", "`cret", "=b"].iter().any(|secret| told.contains(secret));
            assert!(told.contains(part) && !tells, "{text}: {told}");
        }
    }
}
