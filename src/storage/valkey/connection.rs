//! What a connection to the server must offer to be supervised. Ours is one, and a client of the library
//! (see `control`) is another.
//!
//! It knows how each is connected, asked whether the server is of use, and let go; not when.

use std::pin::Pin;
use std::time::Duration;

use super::connect::ConnectError;
use super::failure::Redirect;
use super::options::ValkeyOptions;
use super::replication::Replication;
use super::resolver::Address;
use super::resp::{Reply, Request, RespConnection};
use super::{keys, layout};

/// How long the key of a look is kept, should nobody look again.
const LOOK_KEPT_MS: &str = "60000";
/// What has to run beside a connection for as long as it is used; ends with the reason when that breaks.
pub(super) type Driving = Pin<Box<dyn Future<Output = String> + Send>>;

/// What a connection is for, which tells what its server must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Appends: a look also asks whether the server takes writes now.
    Writes,
    /// Anything else. A look changes nothing.
    Other,
    /// Reads from a replica. In a cluster, it gives what its primary has only to who says that this will do.
    Replica,
}

/// A connection that can be supervised.
pub(super) trait Connection: Sized + Send + Sync + 'static {
    /// Connects to the server under a name that `CLIENT LIST` shows, and tells where it is.
    fn connect(
        options: &ValkeyOptions,
        name: &'static str,
    ) -> impl Future<Output = Result<(Self, Driving, Address), ConnectError>> + Send;

    /// Asks the server what it is, what time it has and, where that is its work, whether it takes writes.
    fn look(
        &self,
        options: &ValkeyOptions,
        work: Work,
        within: Duration,
    ) -> impl Future<Output = Result<Look, String>> + Send;

    /// Asks for the layout of what the server has, after this one's was written where there is none and that is its work.
    /// `None` where it is not told, as for want of rights.
    fn layout(
        &self,
        options: &ValkeyOptions,
        work: Work,
        within: Duration,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, String>> + Send;

    /// Lets the connection go. What waits on it ends, now or at its own time.
    fn close(&self, reason: &str);
}

/// What a server says when it is looked at. An error reply, as for want of rights, shows that it is there.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// What it tells of its replication.
    pub(super) replication: Option<Result<Replication, String>>,
    /// The server's clock.
    pub(super) time_ms: Option<u64>,
    /// Why it takes no writes, where that was asked.
    pub(super) refusal: Option<String>,
}

impl Connection for RespConnection {
    async fn connect(
        options: &ValkeyOptions,
        name: &'static str,
    ) -> Result<(Self, Driving, Address), ConnectError> {
        let (connection, driver, address) = Self::open(options, &format!("tidemill-{name}")).await?;
        Ok((connection, Box::pin(driver.drive()), address))
    }

    async fn look(&self, options: &ValkeyOptions, work: Work, within: Duration) -> Result<Look, String> {
        let mut request = Request::default();
        request.add(&[b"INFO", b"replication"]).add(&[b"TIME"]);
        if work == Work::Writes {
            let key = keys::of_server(keys::LOOK, options.resolver.own_slot());
            request.add(&[b"SET", key.as_bytes(), b"1", b"PX", LOOK_KEPT_MS.as_bytes()]);
        }
        if work == Work::Replica {
            request.add(&[b"READONLY"]);
        }
        let replies = self.exchange(&request, within).await.map_err(|error| error.to_string())?;
        let mut replies = replies.iter();
        let replication = replies.next().map(|reply| match reply.error() {
            Some(text) => Err(text),
            None => Ok(Replication::read(reply.bytes().unwrap_or_default())),
        });
        let time_ms = match replies.next() {
            Some(Reply::Array(mut parts)) => {
                let mut number = || std::str::from_utf8(parts.next()?.bytes()?).ok()?.parse().ok();
                number().zip(number()).map(time_ms)
            }
            _ => None,
        };
        // What has just moved says nothing of the server.
        let refusal = replies.next().filter(|_| work == Work::Writes).and_then(|reply| reply.error());
        Ok(Look { replication, time_ms, refusal: refusal.filter(|text| Redirect::read(text).is_none()) })
    }

    async fn layout(
        &self,
        options: &ValkeyOptions,
        work: Work,
        within: Duration,
    ) -> Result<Option<Vec<u8>>, String> {
        let key = keys::of_server(keys::LAYOUT, options.resolver.own_slot());
        let mut request = Request::default();
        if work == Work::Writes && options.marks_layout {
            request.add(&[b"SET", key.as_bytes(), layout::written().as_bytes(), b"NX"]);
        }
        request.add(&[b"GET", key.as_bytes()]);
        let replies = self.exchange(&request, within).await.map_err(|error| error.to_string())?;
        let found = replies.iter().last().filter(|reply| reply.error().is_none());
        Ok(found.and_then(|reply| reply.bytes().map(<[u8]>::to_vec)))
    }

    fn close(&self, reason: &str) {
        Self::close(self, reason);
    }
}

/// Returns milliseconds for what `TIME` says.
pub(super) fn time_ms((seconds, micros): (u64, u64)) -> u64 {
    seconds.saturating_mul(1_000).saturating_add(micros / 1_000)
}
