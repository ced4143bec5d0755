//! Lines: what a role keeps connected. A client of the library is one, and the wire is another.
//!
//! It knows how each is connected, asked whether the server is of use, and let go; not when.

use std::future;
use std::pin::Pin;
use std::time::Duration;

use glide::{GlideClient, PipelineOptions, ValkeyValue};
use tokio::time::timeout;

use super::connect::{ConnectError, connect, dial};
use super::entry::bytes_of;
use super::failure::reply_text;
use super::keys;
use super::options::ValkeyOptions;
use super::wire::{Reply, Request, Wire};

/// How long the key of a look is kept, should nobody look again.
const LOOK_KEPT_MS: &str = "60000";
/// After how long without an answer the port is tried beside the library's client, because a server that
/// is gone refuses at once while the library quietly tries to reconnect.
const PATIENCE: Duration = Duration::from_millis(500);

/// What has to run beside a line for as long as it is used; ends with the reason when the line breaks.
pub(super) type Carry = Pin<Box<dyn Future<Output = String> + Send>>;

/// A connection that a role can keep.
pub(super) trait Line: Sized + Send + Sync + 'static {
    /// Connects to the server under a name that `CLIENT LIST` shows.
    fn connect(
        options: &ValkeyOptions,
        name: &'static str,
    ) -> impl Future<Output = Result<(Self, Carry), ConnectError>> + Send;

    /// Asks the server what it is, what time it has and, where appends go, whether it takes writes.
    fn look(
        &self,
        options: &ValkeyOptions,
        within: Duration,
    ) -> impl Future<Output = Result<Look, String>> + Send;

    /// Lets the line go. What waits on it ends, now or at its own time.
    fn close(&self, reason: &str);
}

/// What a server says when it is looked at. An error reply, as for want of rights, shows that it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The part of `INFO` on replication.
    pub(super) replication: Option<Result<Vec<u8>, String>>,
    /// The server's clock.
    pub(super) time_ms: Option<u64>,
    /// Why it takes no writes, where that was asked.
    pub(super) refusal: Option<String>,
}

impl Line for GlideClient {
    async fn connect(options: &ValkeyOptions, name: &'static str) -> Result<(Self, Carry), ConnectError> {
        // The library carries its connections itself, and tells nobody when one breaks.
        Ok((connect(options, name).await?, Box::pin(future::pending())))
    }

    async fn look(&self, options: &ValkeyOptions, within: Duration) -> Result<Look, String> {
        let mut look = std::pin::pin!(look_with(self, within));
        if let Ok(outcome) = timeout(PATIENCE, &mut look).await {
            return outcome;
        }
        if let Err(error) = dial(options).await {
            return Err(error.to_string());
        }
        look.await
    }

    /// A client that is dropped ends by itself.
    fn close(&self, _: &str) {}
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
        reply => Ok(bytes_of(reply).unwrap_or_default().to_vec()),
    });
    let time_ms = replies.next().and_then(read_time_ms);
    Ok(Look { replication, time_ms, refusal: None })
}

impl Line for Wire {
    async fn connect(options: &ValkeyOptions, name: &'static str) -> Result<(Self, Carry), ConnectError> {
        let (wire, carrier) = Self::open(options, &format!("tidemill-{name}")).await?;
        Ok((wire, Box::pin(carrier.carry())))
    }

    async fn look(&self, _: &ValkeyOptions, within: Duration) -> Result<Look, String> {
        let mut request = Request::default();
        request.add(&[b"INFO", b"replication"]).add(&[b"TIME"]);
        request.add(&[b"SET", keys::LOOK.as_bytes(), b"1", b"PX", LOOK_KEPT_MS.as_bytes()]);
        let replies = self.exchange(&request, within).await.map_err(|error| error.to_string())?;
        let mut replies = replies.iter();
        let replication = replies.next().map(|reply| match reply.error() {
            Some(text) => Err(text),
            None => Ok(reply.bytes().unwrap_or_default().to_vec()),
        });
        let time_ms = match replies.next() {
            Some(Reply::Array(mut parts)) => {
                let mut number = || std::str::from_utf8(parts.next()?.bytes()?).ok()?.parse().ok();
                number().zip(number()).map(time_ms)
            }
            _ => None,
        };
        Ok(Look { replication, time_ms, refusal: replies.next().and_then(|reply| reply.error()) })
    }

    fn close(&self, reason: &str) {
        Self::close(self, reason);
    }
}

/// Reads the library's reply to `TIME` as milliseconds.
pub(super) fn read_time_ms(reply: ValkeyValue) -> Option<u64> {
    let ValkeyValue::Array(parts) = reply else { return None };
    let number = |part: ValkeyValue| std::str::from_utf8(&bytes_of(part)?).ok()?.parse::<u64>().ok();
    let mut parts = parts.into_iter().map(number);
    Some(time_ms((parts.next()??, parts.next()??)))
}

/// Returns milliseconds for what `TIME` says.
fn time_ms((seconds, micros): (u64, u64)) -> u64 {
    seconds.saturating_mul(1_000).saturating_add(micros / 1_000)
}
