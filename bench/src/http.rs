//! HTTP/1.1 by hand: one kept connection, whole requests written as bytes, and as little reading of
//! answers as it takes.
//!
//! No HTTP library: the load shares a machine with what it measures, and a request that was built once
//! and is sent again with one system call, its answer read with another, leaves the target most of the
//! processor. Heads are read by `httparse`.

use std::ops::Range;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::target::{Target, describe};

/// Largest answer in bytes, head and body.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of buffer that reading starts with.
const READ_BYTES: usize = 16 * 1024;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status.
    pub(crate) status: u16,
    /// Bytes of the head.
    pub(crate) bytes: usize,
    /// How the body ends.
    pub(crate) body: Body,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// After this many bytes.
    Length(usize),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// Returns the head at the start of `bytes`; `None` if it is not whole.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("the answer is not HTTP: {error}")),
    };
    let status = response.code.unwrap_or_default();
    let mut body = if matches!(status, 204 | 304) { Body::Length(0) } else { Body::Close };
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).unwrap_or_default();
            body = Body::Length(text.trim().parse().map_err(|_| "a length that is none".to_owned())?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            body = Body::Chunked;
        }
    }
    Ok(Some(Head { status, bytes: length, body }))
}

/// Takes the frame of chunks off a body that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// Bytes of the chunk that are still to come, with its line end.
    left: usize,
    /// Whether the last chunk has been seen.
    pub(crate) ended: bool,
}

impl Chunks {
    /// Calls `data` with each piece of the body in `bytes`, and returns how many bytes were used; the
    /// rest belongs in front of the next ones.
    pub(crate) fn take(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, String> {
        let mut at = 0;
        while at < bytes.len() && !self.ended {
            if self.left == 0 {
                let Some(end) = memchr::memmem::find(&bytes[at..], b"\r\n") else { break };
                let line = std::str::from_utf8(&bytes[at..at + end]).unwrap_or_default();
                let size = line.split(';').next().unwrap_or_default().trim();
                let size =
                    usize::from_str_radix(size, 16).map_err(|_| "a chunk without a size".to_owned())?;
                at += end + 2;
                self.ended = size == 0;
                self.left = if size == 0 { 0 } else { size.saturating_add(2) };
            } else {
                let here = self.left.min(bytes.len() - at);
                // The last two bytes are the line end, of which one may be here and one not.
                let line_end = 2_usize.saturating_sub(self.left - here).min(here);
                data(&bytes[at..at + here - line_end]);
                self.left -= here;
                at += here;
            }
        }
        Ok(at)
    }
}

/// An answer, in the connection's buffer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// The status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: &'a [u8],
}

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// What has been read; its length is its capacity.
    buffer: Vec<u8>,
    /// Bytes of it that hold something.
    filled: usize,
    unchunked: Vec<u8>,
}

impl Connection {
    /// Opens a connection.
    pub(crate) async fn open(target: &Target) -> Result<Self, String> {
        let stream = target.connect(0).await?;
        Ok(Self { stream, buffer: vec![0; READ_BYTES], filled: 0, unchunked: Vec::new() })
    }

    /// Sends a whole request and returns the answer. After an error the connection is of no use.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>, String> {
        self.stream.write_all(request).await.map_err(|error| describe("cannot send", &error))?;
        self.filled = 0;
        let head = loop {
            self.fill().await?;
            if let Some(head) = head(&self.buffer[..self.filled])? {
                break head;
            }
        };
        let status = head.status;
        let body: Range<usize> = match head.body {
            Body::Length(length) => {
                let end = head.bytes.saturating_add(length);
                while self.filled < end {
                    self.fill().await?;
                }
                head.bytes..end
            }
            Body::Chunked => {
                let (mut chunks, mut at) = (Chunks::default(), head.bytes);
                self.unchunked.clear();
                loop {
                    let unchunked = &mut self.unchunked;
                    at += chunks.take(&self.buffer[at..self.filled], |data| unchunked.extend(data))?;
                    if chunks.ended && self.filled >= at + 2 {
                        return Ok(Answer { status, body: &self.unchunked });
                    }
                    self.fill().await?;
                }
            }
            Body::Close => return Err("an answer without a length".to_owned()),
        };
        Ok(Answer { status, body: &self.buffer[body] })
    }

    async fn fill(&mut self) -> Result<(), String> {
        if self.filled == self.buffer.len() {
            if self.filled >= ANSWER_BYTES_MAX {
                return Err("an answer that is too large".to_owned());
            }
            self.buffer.resize(self.filled * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..]).await {
            Ok(0) => Err("the connection was closed".to_owned()),
            Ok(bytes) => {
                self.filled += bytes;
                Ok(())
            }
            Err(error) => Err(describe("cannot read", &error)),
        }
    }
}

/// Returns a request without a body.
pub(crate) fn request(target: &Target, headers: &str, method: &str, path: &str) -> Vec<u8> {
    format!("{method} {}{path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", target.base, target.host).into_bytes()
}

/// Asks once, over a connection of its own.
pub(crate) async fn ask(
    target: &Target,
    headers: &str,
    method: &str,
    path: &str,
) -> Result<(u16, Vec<u8>), String> {
    let mut connection = Connection::open(target).await?;
    let answer = connection.exchange(&request(target, headers, method, path)).await?;
    Ok((answer.status, answer.body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_how_the_body_ends() {
        let read = |text: &str| head(text.as_bytes()).expect("a head").expect("a whole one");
        let head_ = read("HTTP/1.1 201 Created\r\ncontent-length: 7\r\n\r\n{}");
        assert_eq!((head_.status, head_.body), (201, Body::Length(7)));
        assert_eq!(read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").body, Body::Chunked);
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n").body, Body::Length(0));
        assert_eq!(head(b"HTTP/1.1 200 OK\r\n").expect("so far"), None);
        assert!(head(b"SSH-2.0-OpenSSH\r\n").is_err());
    }

    #[test]
    fn chunks_are_joined_wherever_they_are_cut() {
        let wire = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
        for cut in 0..wire.len() {
            let (mut chunks, mut body, mut rest) = (Chunks::default(), Vec::new(), Vec::new());
            for part in [&wire[..cut], &wire[cut..]] {
                rest.extend_from_slice(part);
                let used = chunks.take(&rest, |data| body.extend_from_slice(data)).expect("chunks");
                rest.drain(..used);
            }
            assert_eq!((body.as_slice(), chunks.ended), (b"hello world".as_slice(), true), "cut at {cut}");
        }
    }
}
