//! TLS over another transport.
//!
//! What it holds is two records at most of what the client has sent, one that is not whole and one that was
//! not read, and one that is sealed and could not be sent. All are given back when they are empty.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tidemill_tls::{PLAIN_BYTES_MAX, ProtocolError, RECORD_BYTES_MAX, ServerSession};

use super::transport::{Protocol, Transport};

/// What a client is told that does not begin with TLS but with a request.
const USE_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 47\r\nconnection: close\r\n\r\nThis port speaks TLS: write https:// for http.\n";

/// Up to so many bytes of several parts go into one record; a part that is longer has records of its own.
const GATHERED_BYTES_MAX: usize = 4 * 1024;

thread_local! {
    /// Where records are read to, and sealed: they do not stay.
    static RECORDS: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECORD_BYTES_MAX].into());
}

/// A connection with TLS.
pub struct Tls {
    inner: Box<dyn Transport>,
    state: Mutex<State>,
}

struct State {
    session: ServerSession,
    /// What has come and was not read, from `read` on.
    plain: Vec<u8>,
    read: usize,
    way: Way,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Nothing has come yet.
    New,
    /// Something that may be TLS has come.
    Open,
    /// The client has ended it.
    Over,
    /// It broke the rules: what comes is thrown away, until it hangs up.
    Failed,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn broken(error: ProtocolError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

impl State {
    /// Sends on what is held. Returns whether that was all.
    fn send(&mut self, inner: &dyn Transport) -> io::Result<bool> {
        while !self.session.outgoing().is_empty() {
            match inner.try_write(self.session.outgoing()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.session.note_sent(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes in what has arrived: what it says goes into `buffer`, and what has no room there stays. Returns
    /// how many bytes are in `buffer`.
    fn receive(&mut self, inner: &dyn Transport, arrived: &mut [u8], buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        let plain = &mut self.plain;
        let received = self.session.receive(arrived, |bytes| {
            let (direct, rest) = bytes.split_at(bytes.len().min(buffer.len() - count));
            buffer[count..count + direct.len()].copy_from_slice(direct);
            count += direct.len();
            plain.extend_from_slice(rest);
        });
        if received.is_err() {
            self.way = Way::Failed;
        } else if self.session.is_over() {
            self.way = Way::Over;
        }
        // What it answers by itself, above all when something is wrong.
        let sent = self.send(inner);
        received.map_err(broken)?;
        sent?;
        Ok(count)
    }

    /// Reads what was left over.
    fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.plain.len() - self.read);
        buffer[..count].copy_from_slice(&self.plain[self.read..self.read + count]);
        self.read += count;
        if self.read == self.plain.len() {
            self.read = 0;
            self.plain = Vec::new();
        }
        count
    }

    /// Seals bytes and sends them; what cannot be sent stays. Returns how many were taken.
    fn write(&mut self, inner: &dyn Transport, bytes: &[u8], records: &mut [u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PLAIN_BYTES_MAX)];
        let mut sealed = self.session.seal(bytes, records).map_err(broken)?;
        if self.send(inner)? {
            while !sealed.is_empty() {
                match inner.try_write(sealed) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(count) => sealed = &sealed[count..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        self.session.hold(sealed);
        Ok(bytes.len())
    }
}

impl Tls {
    /// Returns TLS over another transport.
    #[must_use]
    pub fn over(inner: Box<dyn Transport>, session: ServerSession) -> Self {
        let state = State { session, plain: Vec::new(), read: 0, way: Way::New };
        Self { inner, state: Mutex::new(state) }
    }

    /// Takes bytes, if it holds none.
    fn take(&self, write: impl FnOnce(&mut State, &mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let mut state = self.state.lock();
        if !state.session.is_agreed() {
            // To wait for the socket would not help.
            return Err(ErrorKind::NotConnected.into());
        }
        if !state.send(&*self.inner)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        RECORDS.with_borrow_mut(|records| write(&mut state, records))
    }

    /// Waits for the next bytes of a client that has not agreed on keys yet, and takes them in.
    fn poll_handshake(&self, cx: &mut Context<'_>, state: &mut State) -> Poll<io::Result<()>> {
        RECORDS.with_borrow_mut(|records| {
            let count = ready!(self.inner.poll_read(cx, records))?;
            let arrived = &mut records[..count];
            if arrived.is_empty() {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
            // The method of a request; TLS begins with a 22 (RFC 8446 section 5.1).
            if state.way == Way::New && arrived[0].is_ascii_alphabetic() {
                state.way = Way::Failed;
                // A fresh socket has room for this; a client that cannot take it is not waited for.
                let _ = self.inner.try_write(USE_HTTPS);
                return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, "a request without TLS")));
            }
            state.way = Way::Open;
            Poll::Ready(state.receive(&*self.inner, arrived, &mut []).map(drop))
        })
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // Its last word: without it the client could not tell the end from a cut.
        let _ = self.shut_down_write();
    }
}

impl Transport for Tls {
    fn poll_agreed(&self, cx: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        let mut state = self.state.lock();
        loop {
            if state.session.is_agreed() {
                let protocol = if state.session.is_http2() { Protocol::Http2 } else { Protocol::Http1 };
                return Poll::Ready(Ok(protocol));
            }
            while !state.send(&*self.inner)? {
                ready!(self.inner.poll_writable(cx))?;
            }
            ready!(self.poll_handshake(cx, &mut state))?;
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        if state.way == Way::Failed {
            return self.inner.try_read(buffer);
        }
        let count = state.take_plain(buffer);
        // Where there is no room, nothing more is taken in.
        if count > 0 || buffer.is_empty() || state.way == Way::Over {
            return Ok(count);
        }
        RECORDS.with_borrow_mut(|records| {
            loop {
                let arrived = self.inner.try_read(records)?;
                if arrived == 0 {
                    state.way = Way::Over;
                    return Ok(0);
                }
                let count = state.receive(&*self.inner, &mut records[..arrived], buffer)?;
                if count > 0 || state.way == Way::Over {
                    return Ok(count);
                }
            }
        })
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.take(|state, records| state.write(&*self.inner, bytes, records))
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut parts = parts.iter().filter(|part| !part.is_empty());
        let Some(first) = parts.next() else { return Ok(0) };
        if first.len() >= GATHERED_BYTES_MAX {
            return self.try_write(first);
        }
        self.take(|state, records| {
            let mut gathered = [0; GATHERED_BYTES_MAX];
            let mut count = 0;
            for part in std::iter::once(first).chain(parts) {
                let room = part.len().min(GATHERED_BYTES_MAX - count);
                gathered[count..count + room].copy_from_slice(&part[..room]);
                count += room;
            }
            state.write(&*self.inner, &gathered[..count], records)
        })
    }

    fn try_flush(&self) -> io::Result<bool> {
        Ok(self.state.lock().send(&*self.inner)? && self.inner.try_flush()?)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        if !state.plain.is_empty() || state.way == Way::Over {
            return Poll::Ready(Ok(()));
        }
        while !state.send(&*self.inner)? {
            if self.inner.poll_writable(cx)?.is_pending() {
                break;
            }
        }
        self.inner.poll_readable(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_writable(cx)
    }

    fn is_left(&self) -> bool {
        self.state.lock().way == Way::Over || self.inner.is_left()
    }

    fn shut_down_write(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        // Where keys are not agreed on, there is nothing to say.
        let _ = state.session.end();
        state.send(&*self.inner)?;
        self.inner.shut_down_write()
    }

    fn tune(&self) -> io::Result<()> {
        self.inner.tune()
    }
}
