//! The control plane's connection: the client library, supervised.
//!
//! It serves everything that messages do not pass over: making, describing and deleting topics, trims,
//! sweeps, lists and counts, what the server tells of itself. It is the only file that reads an error of the
//! library, or turns one into the contract's.

use std::time::Duration;

use bytes::Bytes;
use glide::value::ValkeyServerError;
use glide::{GlideClient, GlideError, Pipeline, PipelineOptions, ValkeyValue};
use secrecy::ExposeSecret as _;
use tidemill_proto::MessageId;
use tokio::time::timeout;

use super::connect::{ConnectError, connect, dial, left, primary};
use super::connection::{Connection, Driving, Look, Work, time_ms};
use super::entry;
use super::failure::{Effect, Failure, of_reply, refuses_writes, unexpected};
use super::keys;
use super::login::keep_logged_in;
use super::options::ValkeyOptions;
use super::replication::Replication;
use super::resolver::Address;
use super::supervised::Supervised;
use crate::slow;
use crate::storage::StorageError;

/// After how long without an answer the port is tried beside the library's client, because a server that
/// is gone refuses at once while the library quietly tries to reconnect.
const PATIENCE: Duration = Duration::from_millis(500);

/// The connection of the control plane.
pub(super) type Control = Supervised<GlideClient>;

impl Connection for GlideClient {
    async fn connect(
        options: &ValkeyOptions,
        name: &'static str,
    ) -> Result<(Self, Driving, Address), ConnectError> {
        let (client, carrier, address) = connect(options, name).await?;
        // The library tells nobody when its connection breaks.
        let beside = beside(options.clone(), address.clone(), client.clone());
        let driving = async move {
            let _carrier = carrier;
            beside.await
        };
        Ok((client, Box::pin(driving), address))
    }

    async fn look(&self, options: &ValkeyOptions, _: Work, within: Duration) -> Result<Look, String> {
        let mut look = std::pin::pin!(look_with(self, within));
        if let Ok(outcome) = timeout(PATIENCE, &mut look).await {
            return outcome;
        }
        let dialled = match primary(options).await {
            Ok(address) => dial(options, &address).await,
            Err(error) => Err(error),
        };
        if let Err(error) = dialled {
            return Err(error.to_string());
        }
        look.await
    }

    async fn layout(
        &self,
        options: &ValkeyOptions,
        _: Work,
        within: Duration,
    ) -> Result<Option<Vec<u8>>, String> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("GET").arg(keys::of_server(keys::LAYOUT, options.resolver.own_slot()));
        let of_call = PipelineOptions::new().with_timeout(within);
        match timeout(within, self.exec(&pipeline, false, &of_call)).await {
            Ok(Ok(replies)) => Ok(replies.into_iter().next().and_then(bytes_of).map(|bytes| bytes.to_vec())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
        }
    }

    /// It ends with what carries it.
    fn close(&self, _: &str) {}
}

/// Follows the server's password, until another server is the primary.
async fn beside(options: ValkeyOptions, address: Address, client: GlideClient) -> String {
    let log_in = || log_in(options.clone(), client.clone());
    tokio::select! {
        () = options.resolver.left(&address) => left(&address),
        never = keep_logged_in(options.password_file.as_deref(), log_in) => match never {},
    }
}

/// Logs in again. Returns why the server refuses, if it does.
async fn log_in(options: ValkeyOptions, client: GlideClient) -> Option<String> {
    let login = options.login();
    let (_, password) = login.credentials().await?;
    let password = password.expose_secret().to_owned();
    match timeout(options.timeout, client.update_connection_password(Some(password), true)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} ms", options.timeout.as_millis())),
    }
}

async fn look_with(client: &GlideClient, within: Duration) -> Result<Look, String> {
    let mut pipeline = glide::pipe();
    pipeline.cmd("INFO").arg("replication").cmd("TIME");
    let options = PipelineOptions::new().with_timeout(within);
    // The library's own timeout does not cover waiting for its reconnecting.
    let mut replies = match timeout(within, client.exec(&pipeline, false, &options)).await {
        Ok(Ok(replies)) => replies.into_iter(),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {} ms", within.as_millis())),
    };
    let replication = replies.next().map(|reply| match reply {
        ValkeyValue::ServerError(error) => Err(reply_text(&error)),
        reply => Ok(Replication::read(&bytes_of(reply).unwrap_or_default())),
    });
    let time_ms = replies.next().and_then(read_time_ms);
    Ok(Look { replication, time_ms, refusal: None })
}

impl Control {
    /// Runs commands as one pipeline and returns a reply for each; an error reply of the server is
    /// [`ValkeyValue::ServerError`] in its place.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the commands may have run.
    pub(super) async fn run(
        &self,
        pipeline: &Pipeline,
        effect: Effect,
    ) -> Result<Vec<ValkeyValue>, StorageError> {
        let client = self.current()?;
        let mut up = self.status();
        let answer = tokio::select! {
            biased;
            answer = slow::served(self.answer(&client, pipeline)) => answer,
            // The library goes on trying to reach a server that is gone, for as long as the call may take.
            _ = up.wait_for(|up| !*up) => return Err(self.lost(effect)),
        };
        match answer {
            Ok(replies) => {
                let refuses = |reply: &ValkeyValue| matches!(reply, ValkeyValue::ServerError(error) if refuses_writes(&reply_text(error)));
                if replies.iter().any(refuses) {
                    self.suspect();
                }
                Ok(replies)
            }
            Err(error) => {
                if breaks_connection(&error) {
                    self.suspect();
                }
                Err(of_call(error, effect))
            }
        }
    }

    /// Waits for the replies; has the connection looked at where they do not come soon.
    async fn answer(
        &self,
        client: &GlideClient,
        pipeline: &Pipeline,
    ) -> Result<Vec<ValkeyValue>, GlideError> {
        let options = PipelineOptions::new().with_timeout(self.timeout());
        let mut call = std::pin::pin!(client.exec(pipeline, false, &options));
        if let Ok(answer) = timeout(PATIENCE, &mut call).await {
            return answer;
        }
        self.suspect();
        call.await
    }

    /// Returns the error of a call whose connection is no longer of use.
    fn lost(&self, effect: Effect) -> StorageError {
        let cause = self.down().into();
        match effect {
            Effect::Read => StorageError::Unavailable(cause),
            Effect::Write => StorageError::Indeterminate(cause),
        }
    }

    /// Runs one command and returns its reply.
    ///
    /// # Cancel safety
    /// Not cancel-safe, like [`run`](Self::run).
    pub(super) async fn run_one(
        &self,
        pipeline: &Pipeline,
        effect: Effect,
    ) -> Result<ValkeyValue, StorageError> {
        let mut replies = self.run(pipeline, effect).await?;
        let reply = replies.pop().ok_or_else(|| unexpected("a command", effect))?;
        checked(reply)
    }
}

/// Whether an error of a whole call makes its connection suspect.
fn breaks_connection(error: &GlideError) -> bool {
    match error {
        GlideError::Request(_)
        | GlideError::ExecAbort(_)
        | GlideError::Configuration(_)
        | GlideError::CircuitBreaker(_) => false,
        // The library's list is open; what it may add is taken for the worst.
        _ => true,
    }
}

/// Returns the contract's error for an error of a whole call.
///
/// The library's errors are texts. What matters is whether the bytes may be on their way: a write whose
/// connection broke or whose time ran out may have happened.
fn of_call(error: GlideError, effect: Effect) -> StorageError {
    let unsent = match &error {
        GlideError::Request(text) => {
            text.contains("maximum inflight requests") || text.contains("Connection in recovery")
        }
        GlideError::Configuration(_) | GlideError::CircuitBreaker(_) | GlideError::ExecAbort(_) => true,
        GlideError::Connection(_) => effect == Effect::Read,
        // Timeouts, and what the library may add to its open list.
        _ => false,
    };
    let cause = Failure::Library(Box::new(error)).into();
    if unsent { StorageError::Unavailable(cause) } else { StorageError::Indeterminate(cause) }
}

/// Returns the text of the server's error reply.
pub(super) fn reply_text(error: &ValkeyServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.err_code()),
        None => error.err_code().to_owned(),
    }
}

/// Returns the reply, or the contract's error where it is an error reply.
pub(super) fn checked(reply: ValkeyValue) -> Result<ValkeyValue, StorageError> {
    match reply {
        ValkeyValue::ServerError(error) => Err(of_reply(reply_text(&error))),
        other => Ok(other),
    }
}

/// Returns the names in a reply to `XINFO GROUPS`.
pub(super) fn group_names(reply: ValkeyValue) -> impl Iterator<Item = Bytes> {
    let groups = match reply {
        ValkeyValue::Array(groups) => groups,
        _ => Vec::new(),
    };
    groups.into_iter().filter_map(|group| match group {
        ValkeyValue::Map(pairs) => {
            let mut pairs = pairs.into_iter().map(|(field, value)| (bytes_of(field), value));
            let name = pairs.find(|(field, _)| field.as_deref() == Some(&b"name"[..]));
            name.and_then(|(_, name)| bytes_of(name))
        }
        // In the protocol before, the name comes first.
        ValkeyValue::Array(parts) => parts.into_iter().nth(1).and_then(bytes_of),
        _ => None,
    })
}

/// Returns the names and values of a reply, which is a list of both in the protocol before.
pub(super) fn pairs(reply: ValkeyValue) -> Vec<(ValkeyValue, ValkeyValue)> {
    match reply {
        ValkeyValue::Map(pairs) => pairs,
        ValkeyValue::Array(items) => {
            let mut items = items.into_iter();
            std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns the bytes of a reply that is a string or a number.
pub(super) fn bytes_of(value: ValkeyValue) -> Option<Bytes> {
    match value {
        ValkeyValue::BulkString(bytes) => Some(bytes),
        ValkeyValue::SimpleString(text) | ValkeyValue::VerbatimString { text, .. } => Some(Bytes::from(text)),
        ValkeyValue::Okay => Some(Bytes::from_static(b"OK")),
        ValkeyValue::Int(number) => Some(Bytes::from(number.to_string())),
        _ => None,
    }
}

/// Reads an entry id.
pub(super) fn read_id(value: &ValkeyValue) -> Option<MessageId> {
    match value {
        ValkeyValue::BulkString(bytes) => entry::read_id(bytes),
        ValkeyValue::SimpleString(text) => entry::read_id(text.as_bytes()),
        _ => None,
    }
}

/// Reads the reply to `TIME` as milliseconds.
pub(super) fn read_time_ms(reply: ValkeyValue) -> Option<u64> {
    let ValkeyValue::Array(parts) = reply else { return None };
    let number = |part: ValkeyValue| std::str::from_utf8(&bytes_of(part)?).ok()?.parse::<u64>().ok();
    let mut parts = parts.into_iter().map(number);
    Some(time_ms((parts.next()??, parts.next()??)))
}
