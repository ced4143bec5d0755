//! Frames that ask for nothing: a client may send some of them, and one that sends a flood is asked to calm
//! down and hung up on.
//!
//! The library answers each of them, and bounds what it holds; this bounds what that costs. Requests, and
//! bodies with something in them, are no such frames: their work is bounded elsewhere, as over HTTP/1.1.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::streams::Streams;
use crate::server::socket::Socket;

/// Frames of this kind that may come at once, and in each second.
const BURST_MAX: u32 = 1_000;
const EACH_SECOND: u32 = 100;
/// Those that may come for each frame of an answer: a client gives room on the stream and on the connection,
/// and may do so in halves.
const FOR_EACH_ANSWERED: u32 = 4;

/// What a client begins with, before its first frame (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
/// Types of frames (section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// GOAWAY with `ENHANCE_YOUR_CALM`, behind whatever was asked for: any of it may have been done (sections 6.8
/// and 7).
const CALM_DOWN: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0x0b];

/// A connection whose frames are counted as they are read.
pub(super) struct Metered {
    socket: Socket,
    streams: Streams,
    frames: Frames,
    allowance: Allowance,
    is_flooded: bool,
}

/// How many more may come.
struct Allowance {
    left: u32,
    at: Instant,
}

/// Where the frames are in what is read.
struct Frames {
    /// Bytes that belong to the preface, or to a frame whose head was seen.
    skip: usize,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
}

impl Frames {
    const fn new() -> Self {
        Self { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], head_bytes: 0 }
    }

    /// Returns how many frames that ask for nothing begin in these bytes.
    fn count(&mut self, mut bytes: &[u8]) -> u32 {
        let mut count = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return count;
            }
            let taken = (HEAD_BYTES - self.head_bytes).min(bytes.len());
            self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(&bytes[..taken]);
            self.head_bytes += taken;
            bytes = &bytes[taken..];
            if self.head_bytes == HEAD_BYTES {
                let [high, middle, low, kind, ..] = self.head;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.head_bytes = 0;
                let asks = kind == HEADERS || (kind == DATA && self.skip > 0);
                count += u32::from(!asks);
            }
        }
    }
}

impl Allowance {
    fn new() -> Self {
        Self { left: BURST_MAX, at: Instant::now() }
    }

    /// Takes so many; returns whether there were.
    fn take(&mut self, count: u32, answered: u32) -> bool {
        if count == 0 && answered == 0 {
            return true;
        }
        let elapsed = self.at.elapsed();
        let earned =
            u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX).saturating_mul(EACH_SECOND) / 1_000;
        if earned > 0 {
            self.at += elapsed;
        }
        let answered = answered.saturating_mul(FOR_EACH_ANSWERED);
        self.left = self.left.saturating_add(earned).saturating_add(answered).min(BURST_MAX.max(answered));
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

impl Metered {
    pub(super) fn new(socket: Socket, streams: Streams) -> Self {
        let (frames, allowance) = (Frames::new(), Allowance::new());
        Self { socket, streams, frames, allowance, is_flooded: false }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_flooded {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        let count = this.frames.count(&buffer.filled()[before..]);
        if !this.allowance.take(count, this.streams.take_answered()) {
            tracing::debug!("a client sends a flood of frames that ask for nothing; it is hung up on");
            this.is_flooded = true;
            this.socket.say_last(&CALM_DOWN);
            // To the library this is the end of the connection.
            buffer.set_filled(before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("small").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + payload, 7);
        frame
    }

    #[test]
    fn frames_are_found_wherever_reads_end() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        assert_eq!(bytes.len(), PREFACE_BYTES);
        // SETTINGS, a request, its body, an empty body, PING, CONTINUATION, WINDOW_UPDATE, something unknown.
        for (kind, payload) in [(4, 12), (1, 300), (0, 70_000), (0, 0), (6, 8), (9, 0), (8, 4), (99, 2)] {
            bytes.extend(frame(kind, payload));
        }
        for piece in [1, 2, 8, 9, 10, 1_000, bytes.len()] {
            let mut frames = Frames::new();
            let count: u32 = bytes.chunks(piece).map(|piece| frames.count(piece)).sum();
            assert_eq!(count, 6, "in pieces of {piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_allowance_is_spent_and_comes_back() {
        let mut allowance = Allowance::new();
        assert!(allowance.take(BURST_MAX, 0));
        assert!(!allowance.take(1, 0), "a flood");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(allowance.take(EACH_SECOND, 0));
        assert!(!allowance.take(1, 0), "faster than they come back");
        assert!(allowance.take(FOR_EACH_ANSWERED * 5_000, 5_000), "who takes much says so");
        tokio::time::advance(Duration::from_hours(1)).await;
        assert!(!allowance.take(BURST_MAX + 1, 0), "no more at once however long it was quiet");
    }
}
