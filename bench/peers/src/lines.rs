//! A connection that speaks in lines, some of which have bytes behind them: what beanstalkd and nats-server have in
//! common.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// A connection.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
    out: Vec<u8>,
}

impl Lines {
    pub(crate) async fn connect(server: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(server).await.map_err(|error| format!("cannot connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self { stream: BufReader::with_capacity(READ_BYTES, stream), line: Vec::new(), out: Vec::new() })
    }

    /// Adds what is to be sent.
    pub(crate) fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Sends what was added.
    pub(crate) async fn flush(&mut self) -> Result<(), String> {
        self.stream.get_mut().write_all(&self.out).await.map_err(|error| format!("cannot send: {error}"))?;
        self.out.clear();
        Ok(())
    }

    /// Returns the next line, without its end.
    pub(crate) async fn line(&mut self) -> Result<String, String> {
        self.line.clear();
        let read = self.stream.read_until(b'\n', &mut self.line).await;
        match read.map_err(|error| format!("cannot read: {error}"))? {
            0 => Err("the server closed the connection".to_owned()),
            _ => Ok(String::from_utf8_lossy(&self.line).trim_end().to_owned()),
        }
    }

    /// Returns so many bytes, behind which a line ends.
    pub(crate) async fn bytes(&mut self, count: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; count + 2];
        let read = self.stream.read_exact(&mut bytes).await;
        read.map_err(|error| format!("cannot read: {error}"))?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Whether something has come that was not taken.
    pub(crate) fn has_more(&self) -> bool {
        !self.stream.buffer().is_empty()
    }
}

/// Returns the payload of a job: its number, and letters behind it.
pub(crate) fn job(number: u64, bytes: usize) -> String {
    format!("{number:012}{:x<rest$}", "", rest = bytes.saturating_sub(12))
}

/// Which jobs were done.
#[derive(Debug)]
pub(crate) struct Jobs {
    seen: Vec<bool>,
    pub(crate) left: usize,
    pub(crate) repeated: usize,
}

impl Jobs {
    pub(crate) fn new(count: usize) -> Self {
        Self { seen: vec![false; count], left: count, repeated: 0 }
    }

    /// Notes that a job was done, by its payload.
    pub(crate) fn done(&mut self, payload: &[u8]) -> Result<(), String> {
        let number = std::str::from_utf8(payload.get(..12).unwrap_or_default()).ok();
        let number: Option<usize> = number.and_then(|digits| digits.parse().ok());
        let seen = number.and_then(|number| self.seen.get_mut(number)).ok_or("a job that nobody has made")?;
        if std::mem::replace(seen, true) {
            self.repeated += 1;
        } else {
            self.left -= 1;
        }
        Ok(())
    }
}
