//! A connection to a server as tests need it: a command, and its reply to keep.

use std::io;

use tidemill_resp::{Request, Scan};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A server's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Array(Vec<Reply>),
    Null,
}

impl Reply {
    fn of(reply: tidemill_resp::Reply<'_>) -> Self {
        use tidemill_resp::Reply as Read;

        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match reply {
            Read::Simple(bytes) => Self::Simple(text(bytes)),
            Read::Error(bytes) => Self::Error(text(bytes)),
            Read::Integer(number) => Self::Integer(number),
            Read::Bulk(bytes) => Self::Bulk(bytes.to_vec()),
            Read::Array(parts) => Self::Array(parts.map(Self::of).collect()),
            Read::Nil => Self::Null,
        }
    }

    /// Returns the text of a reply that may be a refusal.
    pub(crate) fn text_or_error(&self) -> String {
        if let Self::Error(text) = self { text.clone() } else { self.text() }
    }

    /// Returns the text of a simple or bulk reply.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Simple(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?} is not text"),
        }
    }

    pub(crate) fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("{other:?} is not a number"),
        }
    }

    pub(crate) fn array(&self) -> &[Reply] {
        match self {
            Self::Array(items) => items,
            other => panic!("{other:?} is not an array"),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Sends a command and returns the reply.
    pub(crate) async fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Reply> {
        let mut request = Request::default();
        let arguments: Vec<&[u8]> = arguments.iter().map(AsRef::as_ref).collect();
        self.stream.write_all(request.add(&arguments).bytes()).await?;
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
        let (mut scan, mut end) = (Scan::default(), 0);
        loop {
            let step = scan.advance(&self.read[end..]).map_err(invalid)?;
            end += step.taken;
            if step.is_whole {
                break;
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let reply = tidemill_resp::Reply::read(&self.read[..end]).map(Reply::of);
        self.read.drain(..end);
        reply.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}
