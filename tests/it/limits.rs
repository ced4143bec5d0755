//! How much may be done in a time: on every door, over all nodes, behind proxies, and while the storage does not
//! tell.
//!
//! | file | owns |
//! |---|---|
//! | `doors` | what is counted on each door, and what who is refused is told |
//! | `addresses` | whose address counts, and what strangers make up |
//! | `kept` | how many bytes topics may keep together |
//! | `nodes` | several nodes on one storage, and a storage that does not tell |

mod addresses;
mod doors;
mod kept;
mod nodes;

use serde_json::{Value, json};
use tidemill::limits::{LimitOptions, Network, TrustedProxies};
use tidemill::proto::Code;
use tidemill::server::ServerOptions;

use crate::access::closed::close;
use crate::support::relay::{Answer, TestRelay};

/// Says what makes a relay a closed one with these limits, in front of which a proxy may stand on this machine.
fn limit(options: &mut ServerOptions, limits: LimitOptions) {
    close(options);
    options.limits = limits;
    options.proxies = TrustedProxies::new(Network::parse("127.0.0.0/8"));
}

/// Sends a request that a proxy passes on from this address.
async fn send_from(
    relay: &TestRelay,
    from: &str,
    who: Option<&str>,
    (method, path): (&str, &str),
    body: &Value,
) -> Answer {
    let who = who.map(|who| ("authorization", who));
    let headers: Vec<_> =
        [("content-type", "application/json"), ("x-forwarded-for", from)].into_iter().chain(who).collect();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    relay.send(method, path, &headers, body.as_bytes()).await
}

/// Checks that an answer refuses at a limit of so many in a minute, and tells when there is something again.
fn is_refused_at(answer: &Answer, name: &str, amount: u32) {
    assert_eq!(answer.status, 429, "{answer:?}");
    let problem = answer.problem();
    assert_eq!((problem.code, problem.retryable), (Code::RateLimited, true));
    let seconds = problem.retry_after_seconds.expect("it says when");
    // A node that counts by itself counts in larger parts of a minute.
    assert!((1..=70).contains(&seconds), "{seconds}");
    assert_eq!(answer.header("retry-after"), Some(&*seconds.to_string()));
    assert_eq!(answer.header("ratelimit"), Some(&*format!("\"{name}\";r=0;t={seconds}")));
    assert_eq!(answer.header("ratelimit-policy"), Some(&*format!("\"{name}\";q={amount};w=60")));
    assert!(problem.detail.contains("TIDEMILL_LIMIT_"), "it names the setting: {}", problem.detail);
}

fn message() -> Value {
    json!({ "topic": "t", "payload": 1 })
}
