//! Request bodies: how much is read, for how long, and how much of it is held at one time.
//!
//! It must not know what a body means, nor how it was compressed on its way.

use std::io::Read as _;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::HeaderMap;
use http_body_util::BodyExt as _;
use tidemill_proto::{Code, Problem};

use super::encoding::{self, Coding};
use crate::budget::{self, Hold, Spent};
use crate::relay::Failure;
use crate::slow;

/// Bodies up to this size are not counted: the connections bound them, and most publishes are small.
pub(super) const FREE_BYTES: usize = budget::FREE_BYTES;

/// Bytes that are decoded at one time, and by which a body grows.
const PIECE_BYTES: usize = 64 * 1024;

/// The bytes of bodies that a node holds at one time.
#[derive(Debug)]
pub(super) struct BodyBudget(pub(super) budget::Budget);

/// How much of a body is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimit {
    /// Most bytes.
    pub(super) bytes_max: u64,
    /// The setting that moves the limit, if there is one.
    pub(super) setting: Option<&'static str>,
    /// Time for all of it.
    pub(super) timeout: Duration,
    /// Whether one that was compressed is decoded. Where anybody may send one it is not: nobody makes the relay work
    /// or take memory who has not said who calls.
    pub(super) is_decoded: bool,
}

/// A body that has arrived. It counts against the budget until it is dropped.
#[derive(Debug)]
pub(super) struct Received {
    /// The bytes.
    pub(super) bytes: Bytes,
    _hold: Hold,
}

impl BodyBudget {
    /// Raises what `hold` holds to `bytes`.
    pub(super) fn raise(&self, hold: &mut Hold, bytes: u64) -> Result<(), Failure> {
        self.0.raise(hold, bytes).map_err(|Spent| {
            Problem::new(
                Code::Overloaded,
                "the relay holds as many bytes of bodies as it may (setting `TIDEMILL_INFLIGHT_BYTES_MAX`); nothing was changed, try again",
            )
            .into()
        })
    }

    /// Returns the bytes that `write` makes, which count against the budget for as long as anyone holds them.
    /// `about` as many count before they are made.
    pub(super) fn charge(&self, about: usize, write: impl FnOnce() -> Vec<u8>) -> Result<Bytes, Failure> {
        let mut hold = Hold::default();
        self.raise(&mut hold, about as u64)?;
        let bytes = write();
        self.raise(&mut hold, bytes.len() as u64)?;
        hold.lower(bytes.len() as u64);
        Ok(if hold.is_empty() { bytes.into() } else { Bytes::from_owner(Charged::new(bytes, hold)) })
    }

    /// Reads the body of a request with these headers, and decodes it.
    ///
    /// # Errors
    /// The body is too large, too slow, broken, compressed in another way, or there is no room for it now.
    pub(super) async fn receive(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: BodyLimit,
    ) -> Result<Received, Failure> {
        let coding = encoding::of(headers)?;
        if coding.is_some() && !limit.is_decoded {
            return Err(encoding::not_here());
        }
        let announced = body.size_hint().lower();
        if announced > limit.bytes_max {
            return Err(too_large(limit));
        }
        let mut hold = Hold::default();
        self.raise(&mut hold, announced)?;
        let bytes = tokio::time::timeout(limit.timeout, self.collect(body, announced, limit, &mut hold));
        match slow::awaited(bytes).await {
            Ok(bytes) => match coding {
                None => Ok(Received { bytes: bytes?, _hold: hold }),
                Some(coding) => self.decode(coding, &bytes?, limit).await,
            },
            Err(_) => Err(Problem::new(
                Code::RequestTimeout,
                format!(
                    "the body did not arrive within {} ms (setting `TIDEMILL_BODY_TIMEOUT_MS`)",
                    limit.timeout.as_millis()
                ),
            )
            .into()),
        }
    }

    /// Decodes a body that has arrived, as far as it may be large.
    async fn decode(&self, coding: Coding, encoded: &[u8], limit: BodyLimit) -> Result<Received, Failure> {
        let mut decoder = encoding::decoder(coding, encoded).map_err(|error| encoding::broken(&error))?;
        let (mut all, mut hold) = (Growing::default(), Hold::default());
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = decoder.read(&mut piece).map_err(|error| encoding::broken(&error))?;
            if count == 0 {
                return Ok(Received { bytes: all.into_bytes(), _hold: hold });
            }
            all.take(&piece[..count], limit, |bytes| self.raise(&mut hold, bytes))?;
            // Decoding takes a while, and others wait for this thread.
            tokio::task::yield_now().await;
        }
    }

    async fn collect(
        &self,
        mut body: Body,
        announced: u64,
        limit: BodyLimit,
        hold: &mut Hold,
    ) -> Result<Bytes, Failure> {
        let Some(first) = next_data(&mut body).await? else { return Ok(Bytes::new()) };
        if first.len() as u64 > limit.bytes_max {
            return Err(too_large(limit));
        }
        if body.is_end_stream() {
            // The whole body came in one piece, as nearly all do: it is not copied.
            return Ok(first);
        }
        let mut all = Growing::with_place(announced);
        let mut next = Some(first);
        while let Some(data) = next {
            all.take(&data, limit, |bytes| self.raise(hold, bytes))?;
            // The connection reads on into the place of what has been taken.
            drop(data);
            next = next_data(&mut body).await?;
        }
        Ok(all.into_bytes())
    }
}

/// A body of unknown size that grows by pieces of one size: a place that grew as a whole would leave all its earlier
/// places behind, of sizes that few others can use. What counts is the place that it has, used or not.
#[derive(Default)]
struct Growing {
    pieces: Vec<Vec<u8>>,
    len: usize,
    place: usize,
}

impl Growing {
    /// Returns an empty body that is announced to have so many bytes.
    fn with_place(announced: u64) -> Self {
        let place = usize::try_from(announced).unwrap_or(0);
        Self { pieces: vec![Vec::with_capacity(place)], len: 0, place }
    }

    fn take(
        &mut self,
        data: &[u8],
        limit: BodyLimit,
        raise: impl FnOnce(u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let len = self.len + data.len();
        if len as u64 > limit.bytes_max {
            return Err(too_large(limit));
        }
        let room = self.pieces.last().map_or(0, |last| last.capacity() - last.len());
        let (here, rest) = data.split_at(room.min(data.len()));
        // Most bodies are small and come at once.
        let least = if self.len == 0 { 0 } else { PIECE_BYTES };
        let size = if rest.is_empty() { 0 } else { rest.len().max(least) };
        raise((self.place + size) as u64)?;
        self.place += size;
        if let Some(last) = self.pieces.last_mut() {
            last.extend_from_slice(here);
        }
        if !rest.is_empty() {
            let mut piece = Vec::with_capacity(size);
            piece.extend_from_slice(rest);
            self.pieces.push(piece);
        }
        self.len = len;
        Ok(())
    }

    fn into_bytes(mut self) -> Bytes {
        if self.pieces.len() <= 1 {
            return self.pieces.pop().unwrap_or_default().into();
        }
        let mut whole = Vec::with_capacity(self.len);
        for piece in self.pieces {
            whole.extend_from_slice(&piece);
        }
        whole.into()
    }
}

/// Bytes with the part of the budget that they take.
#[derive(Debug)]
pub(super) struct Charged<B> {
    bytes: B,
    _hold: Hold,
}

impl<B> Charged<B> {
    pub(super) const fn new(bytes: B, hold: Hold) -> Self {
        Self { bytes, _hold: hold }
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Charged<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

async fn next_data(body: &mut Body) -> Result<Option<Bytes>, Failure> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                // Trailers say nothing that the relay reads.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(_)) => {
                return Err(Problem::new(
                    Code::InvalidRequest,
                    "the body ended early or its framing is broken",
                )
                .into());
            }
        }
    }
}

fn too_large(limit: BodyLimit) -> Failure {
    let BodyLimit { bytes_max, setting, .. } = limit;
    let setting = setting.map(|name| format!(" (setting `{name}`)")).unwrap_or_default();
    Problem::new(
        Code::TooLarge,
        format!("the body is larger than {bytes_max} bytes, the most that this path takes{setting}"),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_as_long_as_anyone_holds_it() {
        let budget = BodyBudget(budget::Budget::new(64 * 1024));
        let mut hold = Hold::default();
        budget.raise(&mut hold, 50 * 1024).expect("there is room");
        let refused = budget.charge(20 * 1024, || unreachable!("there is no room"));
        assert_eq!(refused.expect_err("there is no room").code(), Code::Overloaded);
        let refused = budget.charge(0, || vec![0; 20 * 1024]).expect_err("there is no room");
        assert_eq!(refused.code(), Code::Overloaded);
        drop(hold);
        let bytes = budget.charge(30 * 1024, || vec![0; 20 * 1024]).expect("there is room again");
        assert_eq!(budget.0.held_bytes(), 20 * 1024);
        drop(bytes);
        assert_eq!(budget.0.held_bytes(), 0);
    }
}
