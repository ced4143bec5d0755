//! Watching keys: a snapshot, `synced`, and every change from there on, as events or lines.
//!
//! Where the log was trimmed past the cursor of who watches, or the bucket is another one, `reset` comes and a snapshot
//! anew. It must not know how a snapshot and the changes fit together: `relay` does.

use std::borrow::Cow;
use std::io;

use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::FutureExt as _;
use tidemill_proto::{BucketName, KeyName, Problem};
use tokio::time::{Duration, sleep};

use super::Http;
use super::accept::Wanted;
use super::live::{EventId, Text, event_id};
use super::stream::{self, Ended, Stream, Until};
use super::watched::{Encoding, Watched};
use crate::link::Link;
use crate::relay::{
    Failure, Gate, KeyWatch, SNAPSHOT_RETRY, SNAPSHOTS_MAX, SnapshotPart, TOO_FAST, TakeLimit, WatchScope,
    parse_id, parse_prefix,
};

/// Changes that are taken at once behind a snapshot.
const CHANGES_MAX: usize = 256;

/// Answers with the keys of a bucket as they are, and as they change.
///
/// # Errors
/// A parameter is wrong, the caller may not read the keys, as many topics are read live as may be, or the storage did not
/// answer.
pub(super) async fn follow(
    http: &Http,
    gate: &Gate,
    wanted: Wanted,
    bucket: &BucketName,
    headers: &HeaderMap,
    [prefix, key]: [Text<'_>; 2],
    named: EventId<'_>,
) -> Result<Response, Failure> {
    let watch = gate.watch_keys(bucket, scope(prefix, key)?)?;
    respond(http, gate, watch, wanted, headers, named).await
}

/// Answers with what is watched.
///
/// # Errors
/// The id of the last event is none, as many topics are read live as may be, or the storage did not answer.
pub(super) async fn respond(
    http: &Http,
    gate: &Gate,
    mut watch: KeyWatch<Stream>,
    wanted: Wanted,
    headers: &HeaderMap,
    named: EventId<'_>,
) -> Result<Response, Failure> {
    let resumed = event_id(headers, named)?;
    let resumed = resumed.map(|(field, id)| parse_id(field, &id)).transpose()?;
    match resumed {
        Some(after) => watch.resume(after).await?,
        None => watch.begin().await?,
    }
    gate.enter_room().await?;
    let encoding = match wanted {
        Wanted::Lines => Encoding::lines(watch.kind()),
        Wanted::Events | Wanted::Page => Encoding::events(watch.kind()),
    };
    let form = Watched::new(encoding, watch.scope().clone());
    let writer = Writer { http: http.clone(), watch, encoding };
    let is_resumed = resumed.is_some();
    Ok(stream::hand_over(http, form, Until::Gap, move |stream| writer.serve(stream, is_resumed)))
}

/// Returns which keys are meant.
///
/// # Errors
/// Both parameters are there, or one is no name, or no begin of one.
fn scope(prefix: Text<'_>, key: Text<'_>) -> Result<WatchScope, Failure> {
    match (prefix, key) {
        (Some(_), Some(_)) => {
            Err(Problem::field("key", "cannot stand beside `prefix`; write one of them").into())
        }
        (None, Some(key)) => {
            let key = KeyName::parse(&key).map_err(|error| Problem::field("key", error))?;
            Ok(WatchScope::Key(key))
        }
        (prefix, None) => {
            parse_prefix("prefix", prefix.as_deref().unwrap_or_default()).map(WatchScope::Prefix)
        }
    }
}

/// What writes the stream of a watch.
struct Writer {
    http: Http,
    watch: KeyWatch<Stream>,
    encoding: Encoding,
}

/// How a snapshot ends.
enum Taken {
    /// It is written, and what comes next are changes.
    Whole,
    /// The log was trimmed, or is another one.
    Torn,
    /// The stream is over, for this reason.
    Over(Cow<'static, str>),
}

impl Writer {
    async fn serve(self, stream: Stream, is_resumed: bool) {
        match self.write_until_the_end(stream, is_resumed).await {
            Ok(link) => link.close().await,
            Err(error) => tracing::debug!(%error, "a watch was ended by its client"),
        }
    }

    /// Writes everything. From then on the session is over, however long the client keeps the connection.
    async fn write_until_the_end(mut self, stream: Stream, is_resumed: bool) -> io::Result<Link> {
        let http = self.http.clone();
        let _counted = http.0.metrics.readers().enter(self.encoding.transport());
        self.write(stream, is_resumed).await
    }

    /// Writes until the node drains, or the client goes.
    ///
    /// # Errors
    /// The client has hung up, or does not read.
    async fn write(&mut self, mut stream: Stream, mut is_resumed: bool) -> io::Result<Link> {
        stream.put(self.encoding.greeting());
        let (mut has_begun, mut torn) = (true, 0);
        loop {
            if !std::mem::take(&mut is_resumed) {
                match self.write_snapshot(&mut stream, has_begun).await? {
                    Taken::Whole => {
                        torn = 0;
                        stream.anew();
                    }
                    Taken::Torn if torn < SNAPSHOTS_MAX => {
                        torn += 1;
                        has_begun = false;
                        stream.put(self.encoding.reset());
                        continue;
                    }
                    Taken::Torn => {
                        return stream.write_last(TOO_FAST, stream::cursors_of(self.watch.reader())).await;
                    }
                    Taken::Over(reason) => {
                        return stream.write_last(&reason, stream::cursors_of(self.watch.reader())).await;
                    }
                }
            }
            has_begun = false;
            let (back, ended) = stream.write_messages(self.watch.reader()).await?;
            stream = back;
            match ended {
                Ended::Gap => stream.put(self.encoding.reset()),
                Ended::Over(reason) => {
                    return stream.write_last(&reason, stream::cursors_of(self.watch.reader())).await;
                }
            }
        }
    }

    /// Writes what there is, and what has changed meanwhile.
    ///
    /// # Errors
    /// The client has hung up, or does not read.
    async fn write_snapshot(&mut self, stream: &mut Stream, has_begun: bool) -> io::Result<Taken> {
        let mut farewell = Box::pin(self.watch.reader().farewell());
        if !has_begun {
            let mut wait = SNAPSHOT_RETRY[0];
            while let Err(failure) = self.watch.begin().await {
                if let Some(over) = wait_on(&failure, &mut wait, &mut farewell).await {
                    return Ok(over);
                }
            }
        }
        let limit = TakeLimit { items: CHANGES_MAX, bytes: stream.bytes_max() };
        let mut wait = SNAPSHOT_RETRY[0];
        loop {
            stream.flush().await?;
            if let Some(leave) = farewell.as_mut().now_or_never() {
                return Ok(Taken::Over(leave.reason().into()));
            }
            let part = tokio::select! {
                part = self.watch.next_part(limit) => part,
                leave = &mut farewell => return Ok(Taken::Over(leave.reason().into())),
            };
            let mut out = Vec::new();
            let _held = match part {
                Ok(SnapshotPart::Page(entries, held)) => {
                    for entry in &entries {
                        self.encoding.entry(entry, &mut out);
                    }
                    held
                }
                Ok(SnapshotPart::Changes(changes)) => {
                    for message in &changes {
                        self.encoding.change(message, &mut out);
                    }
                    None
                }
                Ok(SnapshotPart::Torn) => return Ok(Taken::Torn),
                Ok(SnapshotPart::Whole) => {
                    stream.put(self.encoding.synced(self.watch.cursor()));
                    return Ok(Taken::Whole);
                }
                Err(failure) => match wait_on(&failure, &mut wait, &mut farewell).await {
                    Some(over) => return Ok(over),
                    None => continue,
                },
            };
            stream.put(out.into());
            stream.flush().await?;
        }
    }
}

/// Waits before the storage is asked again; returns with what the stream is over where it need not be.
async fn wait_on(
    failure: &Failure,
    wait: &mut Duration,
    farewell: &mut (impl Future<Output = crate::access::Leave> + Unpin),
) -> Option<Taken> {
    if !failure.problem().retryable {
        return Some(Taken::Over(failure.problem().detail.clone().into()));
    }
    let until = *wait;
    *wait = (until * 2).min(SNAPSHOT_RETRY[1]);
    tokio::select! {
        () = sleep(until) => None,
        leave = farewell => Some(Taken::Over(leave.reason().into())),
    }
}
