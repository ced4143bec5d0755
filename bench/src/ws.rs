//! WebSocket by hand: the handshake, frames out, frames in.
//!
//! A library would check and copy what a load generator only has to count; hundreds of thousands of
//! frames a second are to leave the relay most of the processor.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http;
use crate::mark::Template;
use crate::target::{Target, describe};

/// The path of the relay's WebSocket.
pub(crate) const PATH: &str = "/ws";
/// Largest frame in bytes that is read.
const FRAME_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest answer to the handshake in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bits of the first byte: the last fragment, and what extensions use.
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// The bit of the second byte that says that a mask follows.
const MASKED: u8 = 0x80;
/// Lengths that stand for one of 16 or 64 bits behind them.
const LENGTH_16: u8 = 0x7e;
const LENGTH_64: u8 = 0x7f;
/// A mask that changes nothing. Masks keep scripts in browsers from writing what a proxy takes for a
/// request; there is no script here, and the relay does the same work for any mask.
const MASK: [u8; 4] = [0; 4];

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Text = 1,
    /// Binary.
    Binary = 2,
    /// The end.
    Close = 8,
    /// A question whether the other side is there.
    Ping = 9,
    /// The answer.
    Pong = 10,
}

/// A frame in a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// What it carries.
    pub(crate) payload: &'a [u8],
    /// Bytes of all of it.
    pub(crate) bytes: usize,
}

/// Returns the frame of a server at the start of `bytes`; `None` if it is not whole.
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let kind = match first & !FIN {
        1 => Kind::Text,
        2 => Kind::Binary,
        8 => Kind::Close,
        9 => Kind::Ping,
        10 => Kind::Pong,
        other if other & RESERVED != 0 => return Err("a frame of an extension".to_owned()),
        _ => return Err("a frame in fragments".to_owned()),
    };
    if first & FIN == 0 || second & MASKED != 0 {
        return Err("a frame that no server should send".to_owned());
    }
    let (length, head) = match (second, rest) {
        (&LENGTH_16, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 4),
        (&LENGTH_64, rest) if rest.len() >= 8 => {
            (rest[..8].iter().fold(0, |length, byte| (length << 8) | u64::from(*byte)), 10)
        }
        (&(LENGTH_16 | LENGTH_64), _) => return Ok(None),
        (length, _) => (u64::from(*length), 2),
    };
    if length > FRAME_BYTES_MAX {
        return Err("a frame that is too large".to_owned());
    }
    let end = head + usize::try_from(length).unwrap_or(usize::MAX - 16);
    Ok(bytes.get(head..end).map(|payload| Frame { kind, payload, bytes: end }))
}

/// Returns a client's frame.
pub(crate) fn client_frame(kind: Kind, payload: &Template) -> Template {
    let mut out = Template::default();
    head(&mut out.bytes, kind, payload.bytes.len());
    out.append(payload);
    out
}

/// Appends a client's frame.
pub(crate) fn write(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    head(out, kind, payload.len());
    out.extend_from_slice(payload);
}

fn head(out: &mut Vec<u8>, kind: Kind, length: usize) {
    out.push(FIN | kind as u8);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..LENGTH_16), _) => out.push(MASKED | short),
        (_, Ok(long)) => {
            out.push(MASKED | LENGTH_16);
            out.extend_from_slice(&long.to_be_bytes());
        }
        _ => {
            out.push(MASKED | LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
}

/// Opens a WebSocket on a path, and returns it with the bytes that came after the handshake. `number` is the
/// connection's, among many.
pub(crate) async fn open(
    target: &Target,
    headers: &str,
    path: &str,
    binary: bool,
    number: usize,
) -> Result<(TcpStream, Vec<u8>), String> {
    let mut stream = target.connect(number).await?;
    let subprotocol = tidemill_proto::frame::BINARY_SUBPROTOCOL;
    let offer = if binary { format!("Sec-WebSocket-Protocol: {subprotocol}\r\n") } else { String::new() };
    // The key shows that a server knows WebSocket and no cache answers; 101 is enough of that here.
    let headers = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGlkZW1pbGwgbG9hZCAhIQ==\r\n{offer}{headers}"
    );
    let request = http::request(target, &headers, "GET", path);
    stream.write_all(&request).await.map_err(|error| describe("cannot send", &error))?;
    let mut answer = Vec::with_capacity(512);
    loop {
        if let Some(head) = http::head(&answer)? {
            if head.status != 101 {
                return Err(format!("no WebSocket: status {}", head.status));
            }
            answer.drain(..head.bytes);
            return Ok((stream, answer));
        }
        if answer.len() > HEAD_BYTES_MAX {
            return Err("an answer that is too large".to_owned());
        }
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err("the connection was closed".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(describe("cannot read", &error)),
        }
    }
}

/// Returns what a close frame says.
pub(crate) fn closed(payload: &[u8]) -> String {
    match payload {
        [a, b, ..] => format!("the relay closed the connection with {}", u16::from_be_bytes([*a, *b])),
        _ => "the relay closed the connection".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_once_they_are_whole() {
        for length in [0_usize, 125, 126, 65_535, 65_536] {
            let mut wire = vec![];
            head(&mut wire, Kind::Text, length);
            let masked = wire.len();
            // A server's frame is the same without the mask.
            wire[1] &= !MASKED;
            wire.truncate(masked - MASK.len());
            let head = wire.len();
            wire.resize(head + length, b'x');
            assert_eq!(frame(&wire[..wire.len() - 1]).expect("so far"), None, "{length}");
            wire.push(b'!');
            let read = frame(&wire).expect("a frame").expect("a whole one");
            assert_eq!((read.kind, read.payload.len(), read.bytes), (Kind::Text, length, head + length));
        }
        assert!(frame(&[0x01, 0x00]).is_err(), "fragments are not read");
        assert!(frame(&[0x81, 0x80]).is_err(), "servers do not mask");
    }

    #[test]
    fn a_clients_frame_is_masked() {
        let mut out = Vec::new();
        write(&mut out, Kind::Ping, b"hi");
        assert_eq!(out, [0x89, 0x82, 0, 0, 0, 0, b'h', b'i']);
    }
}
