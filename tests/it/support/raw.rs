//! A client that costs little: a socket, a buffer, and just as much of HTTP and WebSocket as a reader
//! needs.
//!
//! It must not know what is tested.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::relay::STUCK;
use super::ws::masked;

/// One connection.
#[derive(Debug)]
pub(crate) struct RawConnection {
    stream: TcpStream,
    /// What came.
    buffer: Vec<u8>,
    /// What of it was taken.
    taken: usize,
    /// How long to wait for anything.
    patience: Duration,
}

impl RawConnection {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_from(Ipv4Addr::LOCALHOST, address, STUCK).await
    }

    /// Connects from an address of this machine, and will wait so long for anything.
    pub(crate) async fn connect_from(from: Ipv4Addr, to: SocketAddr, patience: Duration) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if from != Ipv4Addr::LOCALHOST {
            socket.bind(SocketAddr::from((from, 0)))?;
        }
        let stream = timeout(patience, socket.connect(to)).await.expect("it connects in time")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new(), taken: 0, patience })
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(self.patience, self.stream.write_all(bytes)).await.expect("the relay reads in time")
    }

    /// Sends a request without a body, and returns the head of the answer.
    pub(crate) async fn ask(&mut self, path: &str, headers: &str) -> io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        self.send(request.as_bytes()).await?;
        self.head().await
    }

    /// Sends a request, and returns the answer's body, which must have a length, and its status.
    pub(crate) async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &str,
    ) -> io::Result<(u16, Vec<u8>)> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.send(request.as_bytes()).await?;
        let head = self.head().await?;
        let length = header(&head, "content-length").and_then(|text| text.parse().ok());
        let body = self.exactly(length.unwrap_or_else(|| panic!("no length in {head}"))).await?;
        Ok((status(&head), body))
    }

    /// Upgrades to a WebSocket.
    pub(crate) async fn upgrade(&mut self, protocol: Option<&str>) -> io::Result<()> {
        let mut headers = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n".to_owned();
        if let Some(protocol) = protocol {
            headers.extend(["sec-websocket-protocol: ", protocol, "\r\n"]);
        }
        let head = self.ask("/ws", &headers).await?;
        assert_eq!(status(&head), 101, "{head}");
        assert_eq!(header(&head, "sec-websocket-protocol"), protocol, "{head}");
        Ok(())
    }

    /// Sends a frame; `first` is its first byte.
    pub(crate) async fn send_frame(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        self.send(&masked(first, payload)).await
    }

    /// Returns the next frame: its first byte and its payload.
    pub(crate) async fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let head = self.exactly(2).await?;
        let length = match head[1] {
            126 => self.exactly(2).await?,
            127 => self.exactly(8).await?,
            short => vec![short],
        };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        Ok((head[0], self.exactly(length).await?))
    }

    /// Returns the head of an answer.
    pub(crate) async fn head(&mut self) -> io::Result<String> {
        let head = self.until(b"\r\n\r\n").await?;
        Ok(String::from_utf8(head).expect("a head in ASCII").to_ascii_lowercase())
    }

    /// Returns the next chunk of a body; empty at its end.
    pub(crate) async fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = self.until(b"\r\n").await?;
        let size = std::str::from_utf8(&size).expect("a size in ASCII");
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal");
        let chunk = self.exactly(size).await?;
        assert_eq!(self.exactly(2).await?, b"\r\n", "the end of a chunk");
        Ok(chunk)
    }

    /// Returns what comes before `end`, without it.
    async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        let mut looked_at = self.taken;
        loop {
            if let Some(at) = memmem::find(&self.buffer[looked_at..], end) {
                let part = self.buffer[self.taken..looked_at + at].to_vec();
                self.taken = looked_at + at + end.len();
                return Ok(part);
            }
            looked_at = self.taken.max(self.buffer.len().saturating_sub(end.len() - 1));
            looked_at -= self.fill().await?;
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() - self.taken < length {
            self.fill().await?;
        }
        let part = self.buffer[self.taken..self.taken + length].to_vec();
        self.taken += length;
        Ok(part)
    }

    /// Reads more, and returns by how much places in the buffer have moved to the front.
    async fn fill(&mut self) -> io::Result<usize> {
        let moved = std::mem::take(&mut self.taken);
        self.buffer.drain(..moved);
        self.buffer.reserve(4 * 1024);
        let read = self.stream.read_buf(&mut self.buffer);
        if timeout(self.patience, read).await.expect("something comes in time")? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(moved)
    }
}

/// A body that comes in chunks, cut where the frames in it end.
#[derive(Debug)]
pub(crate) struct Stream {
    connection: RawConnection,
    body: Vec<u8>,
    taken: usize,
}

impl Stream {
    /// Asks for a stream of this content type.
    pub(crate) async fn open(address: SocketAddr, path: &str, kind: &str, headers: &str) -> io::Result<Self> {
        Self::open_on(RawConnection::connect(address).await?, path, kind, headers).await
    }

    /// Asks for such a stream on a connection.
    pub(crate) async fn open_on(
        connection: RawConnection,
        path: &str,
        kind: &str,
        headers: &str,
    ) -> io::Result<Self> {
        match Self::try_open_on(connection, path, kind, headers).await? {
            Ok(stream) => Ok(stream),
            // Not now: whoever wants it comes again.
            Err(503) => Err(io::Error::other("503")),
            Err(status) => panic!("{path}: {status}"),
        }
    }

    /// Asks for such a stream on a connection; returns the status if it is refused.
    pub(crate) async fn try_open_on(
        mut connection: RawConnection,
        path: &str,
        kind: &str,
        headers: &str,
    ) -> io::Result<Result<Self, u16>> {
        let head = connection.ask(path, &format!("accept: {kind}\r\n{headers}")).await?;
        if status(&head) != 200 {
            return Ok(Err(status(&head)));
        }
        assert_eq!(header(&head, "content-type"), Some(kind), "{head}");
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
        Ok(Ok(Self { connection, body: Vec::new(), taken: 0 }))
    }

    /// Returns all that comes until the stream ends.
    pub(crate) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = self.body.split_off(std::mem::take(&mut self.taken));
        loop {
            let chunk = self.connection.chunk().await?;
            if chunk.is_empty() {
                return Ok(rest);
            }
            rest.extend_from_slice(&chunk);
        }
    }

    /// Returns what comes before `end`, without it.
    pub(crate) async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = memmem::find(&self.body[self.taken..], end) {
                let part = self.body[self.taken..self.taken + at].to_vec();
                self.taken += at + end.len();
                return Ok(part);
            }
            self.body.drain(..std::mem::take(&mut self.taken));
            let chunk = self.connection.chunk().await?;
            assert!(!chunk.is_empty(), "a stream does not end");
            self.body.extend_from_slice(&chunk);
        }
    }
}

pub(crate) fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no status: {head}"))
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
