//! What the server's user may not do although the relay can do without it: found at start, and told.
//!
//! What it cannot do without is found by `check`, which tries everything.

use tidemill_proto::TopicName;

use super::failure::lacks_right;
use super::keys::{self, Keys};
use super::options::ValkeyOptions;
use super::resp::{Request, RespConnection};

/// Told where the user may not listen for changes of topics.
pub(super) const NO_CHANGES: &str = "the server's user may not listen for changes of topics (give it &__keyspace@*__:stream:topic:*): what other programs add to them is found by looking, once a second";
/// Told where the user may not ask for weights.
const NO_WEIGHTS: &str = "the server's user may not ask what keys weigh (give it +memory|usage): topics that are to keep a number of bytes, and keys, are refused or not kept within their bounds";

/// Returns what the user lacks, in sentences.
pub(super) async fn lacking(options: &ValkeyOptions, keys: Keys) -> Result<Vec<&'static str>, String> {
    let opened = RespConnection::open(options, "tidemill-check").await;
    let (connection, driver, _) = opened.map_err(|error| error.to_string())?;
    tokio::select! {
        biased;
        lacking = ask(&connection, options, keys) => lacking,
        reason = driver.drive() => Err(reason),
    }
}

async fn ask(
    connection: &RespConnection,
    options: &ValkeyOptions,
    keys: Keys,
) -> Result<Vec<&'static str>, String> {
    let mut lacking = Vec::new();
    let mut weight = Request::default();
    weight.add(&[b"MEMORY", b"USAGE", keys::LOOK.as_bytes()]);
    let replies = connection.exchange(&weight, options.timeout).await.map_err(|error| error.to_string())?;
    if replies.iter().find_map(|reply| reply.error()).is_some_and(|error| lacks_right(&error)) {
        lacking.push(NO_WEIGHTS);
    }
    // Last, because a refusal ends the connection. Nobody need have this topic.
    if let Ok(topic) = TopicName::parse("tidemill-check") {
        let changes = keys.changes(&topic, options.target.database);
        match connection.subscribe("SUBSCRIBE", &[changes], options.timeout).await {
            Err(error) if lacks_right(&error) => lacking.push(NO_CHANGES),
            _ => {}
        }
    }
    Ok(lacking)
}
