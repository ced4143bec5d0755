//! What servers have noted as slow by themselves (`SLOWLOG`).
//!
//! Of what a command was given only its first key is told, where it is one of a relay: anything else may be a payload, or a
//! secret of another program.

use std::time::Duration;

use futures_util::future::join_all;
use glide::ValkeyValue;
use tidemill_proto::Timestamp;
use tidemill_proto::slow::{SlowCommand, SlowServer};
use tokio::time::timeout;

use super::Shard;
use super::control::bytes_of;
use super::failure::{Effect, causes_of, lacks_right};
use crate::slow::millis;

/// How long a server may take to tell.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Most bytes of a key that are told.
const KEY_BYTES_MAX: usize = 128;
/// Most bytes of another text.
const TEXT_BYTES_MAX: usize = 64;
/// What keys of relays begin with.
const OWN: [&[u8]; 13] = [
    b"stream:topic:",
    b"meta:topic:",
    b"last:topic:",
    b"idem:{",
    b"deleted:{",
    b"group:{",
    b"groups:{",
    b"schedule:{",
    b"bucket:{",
    b"lock:{",
    b"latest:{",
    b"lease:{",
    b"tidemill:",
];
/// Commands whose keys stand behind how many there are.
const OF_SCRIPTS: [&[u8]; 6] = [b"EVAL", b"EVALSHA", b"EVAL_RO", b"EVALSHA_RO", b"FCALL", b"FCALL_RO"];
/// Told where the server's user may not ask.
const REFUSED: &str = "the server's user may not ask (give it +slowlog|get)";

/// Asks each server, all at the same time.
pub(super) async fn of_all(shards: &[std::sync::Arc<Shard>], limit: usize) -> Vec<SlowServer> {
    join_all(shards.iter().map(|shard| shard.slow_commands(limit))).await
}

impl Shard {
    async fn slow_commands(&self, limit: usize) -> SlowServer {
        let server = self.options.place();
        let mut pipeline = glide::pipe();
        pipeline.cmd("SLOWLOG").arg("GET").arg(limit.to_string());
        let asked = self.change.run_one(&pipeline, Effect::Read);
        let told = match timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(ValkeyValue::Array(entries))) => Ok(entries.into_iter().filter_map(read).collect()),
            Ok(Ok(_)) => Err("it answers in an unknown form".to_owned()),
            Ok(Err(error)) if lacks_right(&causes_of(&error)) => Err(REFUSED.to_owned()),
            Ok(Err(error)) => Err(causes_of(&error)),
            Err(_) => Err(format!("no answer within {} ms", ANSWER_WITHIN.as_millis())),
        };
        match told {
            Ok(commands) => SlowServer { server, commands, refusal: None },
            Err(refusal) => SlowServer { server, commands: Vec::new(), refusal: Some(refusal) },
        }
    }
}

/// Reads an entry: its number, when it was, how many microseconds it took, what was given, from where, and by whom.
fn read(entry: ValkeyValue) -> Option<SlowCommand> {
    let ValkeyValue::Array(parts) = entry else { return None };
    let mut parts = parts.into_iter();
    let number = |part: Option<ValkeyValue>| match part {
        Some(ValkeyValue::Int(number)) => u64::try_from(number).ok(),
        _ => None,
    };
    let text = |part: Option<ValkeyValue>| {
        let bytes = bytes_of(part?)?;
        (!bytes.is_empty()).then(|| cut(&bytes, TEXT_BYTES_MAX))
    };
    let (_, seconds, us) = (parts.next(), number(parts.next())?, number(parts.next())?);
    let Some(ValkeyValue::Array(given)) = parts.next() else { return None };
    let given: Vec<_> = given.into_iter().map(|argument| bytes_of(argument).unwrap_or_default()).collect();
    let name = given.first()?.to_ascii_uppercase();
    let at = if OF_SCRIPTS.contains(&&*name) { 3 } else { 1 };
    let is_own = |key: &&bytes::Bytes| OWN.iter().any(|own| key.starts_with(own));
    Some(SlowCommand {
        at: Timestamp::from_millis(seconds.saturating_mul(1_000)),
        took_ms: millis(Duration::from_micros(us)),
        command: cut(&name, TEXT_BYTES_MAX),
        key: given.get(at).filter(is_own).map(|key| cut(key, KEY_BYTES_MAX)),
        address: text(parts.next()),
        client: text(parts.next()),
    })
}

fn cut(bytes: &[u8], max: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(given: &[&str]) -> ValkeyValue {
        let text = |text: &str| ValkeyValue::BulkString(bytes::Bytes::from(text.to_owned()));
        let given = given.iter().map(|argument| text(argument)).collect();
        let (number, us) = (ValkeyValue::Int(7), ValkeyValue::Int(12_345));
        let at = ValkeyValue::Int(1_770_000_000);
        ValkeyValue::Array(vec![number, at, us, ValkeyValue::Array(given), text("10.0.0.7:4711"), text("")])
    }

    #[test]
    fn of_what_was_given_only_a_key_of_a_relay_is_told() {
        let told = |given: &[&str]| {
            let command = read(entry(given)).expect("it is one");
            assert_eq!((command.took_ms, command.at.as_millis()), (12.345, 1_770_000_000_000));
            assert_eq!((command.address.as_deref(), command.client), (Some("10.0.0.7:4711"), None));
            (command.command, command.key)
        };
        let own = Some("stream:topic:orders".to_owned());
        assert_eq!(
            told(&["xadd", "stream:topic:orders", "*", "payload", "secret"]),
            ("XADD".to_owned(), own.clone())
        );
        assert_eq!(told(&["EVALSHA", "0af1", "2", "stream:topic:orders", "x"]), ("EVALSHA".to_owned(), own));
        assert_eq!(told(&["SET", "session:7", "secret"]), ("SET".to_owned(), None));
        assert_eq!(told(&["AUTH", "secret"]), ("AUTH".to_owned(), None));
        assert_eq!(told(&["PING"]), ("PING".to_owned(), None));
        let long = format!("bucket:{{{}", "k".repeat(1_000));
        assert_eq!(told(&["GET", &long]).1.map(|key| key.len()), Some(KEY_BYTES_MAX));
        assert_eq!(read(ValkeyValue::Int(1)), None);
    }
}
