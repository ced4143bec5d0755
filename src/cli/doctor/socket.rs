//! A WebSocket as far as it takes to see that one stands: the upgrade, a ping, and its end (RFC 6455).
//!
//! It must not know what is said over it.

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{CONNECTION, HeaderName, UPGRADE};
use reqwest::{RequestBuilder, StatusCode, Upgraded};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::chance::random;

/// The opcodes of a ping, of its answer, and of the end.
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const CLOSE: u8 = 0x8;
/// Most bytes of a frame that are read: nothing was asked for that has more.
const FRAME_BYTES_MAX: u64 = 1024 * 1024;

/// Why there is no WebSocket.
pub(super) enum Refused {
    /// This was the answer.
    Status(u16),
    /// There was none.
    Broken(String),
}

/// A WebSocket that is open.
pub(super) struct Socket(Upgraded);

/// Opens one with a request for its path.
pub(super) async fn open(request: RequestBuilder) -> Result<Socket, Refused> {
    let broken = |error: reqwest::Error| Refused::Broken(error.without_url().to_string());
    let key = BASE64_STANDARD.encode((u128::from(random()) << 64 | u128::from(random())).to_be_bytes());
    let request = request
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(HeaderName::from_static("sec-websocket-version"), "13")
        .header(HeaderName::from_static("sec-websocket-key"), key);
    let response = request.send().await.map_err(broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refused::Status(response.status().as_u16()));
    }
    response.upgrade().await.map(Socket).map_err(broken)
}

impl Socket {
    /// Sends a ping, and waits for the answer.
    pub(super) async fn ping(&mut self) -> io::Result<()> {
        self.send(PING, &[]).await?;
        loop {
            match self.frame().await? {
                (PONG, _) => return Ok(()),
                (CLOSE, _) => return Err(io::ErrorKind::ConnectionAborted.into()),
                _ => {}
            }
        }
    }

    /// Waits until it ends; meanwhile it gives signs of life where it is asked for some.
    pub(super) async fn ended(&mut self) {
        loop {
            let goes_on = match self.frame().await {
                Ok((CLOSE, _)) | Err(_) => false,
                Ok((PING, payload)) => self.send(PONG, &payload).await.is_ok(),
                Ok(_) => true,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Sends a frame of at most 125 bytes.
    async fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mask = u32::try_from(random() >> 32).unwrap_or_default().to_be_bytes();
        let length = u8::try_from(payload.len()).unwrap_or(u8::MAX);
        let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let frame: Vec<u8> = [0x80 | opcode, 0x80 | length].into_iter().chain(mask).chain(masked).collect();
        self.0.write_all(&frame).await?;
        self.0.flush().await
    }

    /// Reads a frame, and returns its opcode; of those that may be asked to come back, what stands in it.
    async fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).await?;
        let length = match head[1] & 0x7f {
            126 => u64::from(self.0.read_u16().await?),
            127 => self.0.read_u64().await?,
            length => u64::from(length),
        };
        if length > FRAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = Vec::new();
        (&mut self.0).take(length).read_to_end(&mut payload).await?;
        if (payload.len() as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Frames of control have 125 bytes at the most.
        payload.truncate(125);
        Ok((head[0] & 0x0f, payload))
    }
}
