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

/// Told where the user may not stop to listen.
const NO_LEAVING: &str = "the server's user may not stop to listen for changes of a topic (give it +unsubscribe): each time nobody reads a topic any more, the connection that listens is made anew";

/// Returns what the user lacks, in sentences.
pub(super) async fn lacking(options: &ValkeyOptions, keys: Keys) -> Result<Vec<&'static str>, String> {
    let mut lacking = Vec::new();
    if lacks_weights(options).await? {
        lacking.push(NO_WEIGHTS);
    }
    // Nobody need have this topic.
    if let Ok(topic) = TopicName::parse("tidemill-check") {
        let changes = keys.changes(&topic, options.target.database);
        if is_refused(options, "SUBSCRIBE", &changes).await? {
            lacking.push(NO_CHANGES);
        }
        if is_refused(options, "UNSUBSCRIBE", &changes).await? {
            lacking.push(NO_LEAVING);
        }
    }
    Ok(lacking)
}

async fn lacks_weights(options: &ValkeyOptions) -> Result<bool, String> {
    let opened = RespConnection::open(options, "tidemill-check").await;
    let (connection, driver, _) = opened.map_err(|error| error.to_string())?;
    let mut weight = Request::default();
    weight.add(&[b"MEMORY", b"USAGE", keys::LOOK.as_bytes()]);
    let replies = tokio::select! {
        biased;
        replies = connection.exchange(&weight, options.timeout) => replies.map_err(|error| error.to_string())?,
        reason = driver.drive() => return Err(reason),
    };
    Ok(replies.iter().find_map(|reply| reply.error()).is_some_and(|error| lacks_right(&error)))
}

/// Returns whether the user may not begin, or stop, to listen at a channel. Each has a connection of its own, which a refusal
/// ends.
async fn is_refused(options: &ValkeyOptions, command: &str, channel: &str) -> Result<bool, String> {
    let opened = RespConnection::open(options, "tidemill-check").await;
    let (connection, driver, _) = opened.map_err(|error| error.to_string())?;
    let channels = [channel];
    tokio::select! {
        biased;
        told = connection.subscribe(command, &channels, options.timeout) => {
            Ok(told.is_err_and(|error| lacks_right(&error)))
        }
        reason = driver.drive() => Err(reason),
    }
}
