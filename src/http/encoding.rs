//! Content codings of requests (RFC 9110 section 8.4): a body that was compressed on its way is what it was
//! before.
//!
//! Limits are those of the decoded bytes and are kept while they come: a small body can stand for any
//! number of them. A whole body is there before its first byte is decoded, so that nobody who sends
//! slowly holds a decoder. It must not know what a body means.

use std::io::{self, BufRead, Read};

use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, HeaderValue};
use tidemill_proto::{Code, Problem};

use crate::relay::Failure;

/// The codings that are decoded, as the header `Accept-Encoding` lists them.
pub(super) const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip, deflate, br, zstd");

/// The largest window of zstd, as a power of two: what RFC 9659 lets senders on the web use (8 MB). A larger
/// one would be memory that a few bytes of a head can take.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bytes that a decoder of brotli reads at one time.
const BROTLI_BUFFER_BYTES: usize = 4 * 1024;

/// How a body was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// Returns how the headers say that a body was compressed, if it was.
///
/// # Errors
/// It is a coding that is not known here, or there are several.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Coding>, Failure> {
    let mut found = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        let names = value.to_str().map_err(|_| unknown("in letters other than ASCII"))?;
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            let coding = match name {
                _ if is("identity") => continue,
                _ if is("gzip") || is("x-gzip") => Coding::Gzip,
                _ if is("deflate") => Coding::Deflate,
                _ if is("br") => Coding::Brotli,
                _ if is("zstd") => Coding::Zstd,
                _ => return Err(unknown(&format!("`{name}`"))),
            };
            if found.replace(coding).is_some() {
                return Err(unknown("several"));
            }
        }
    }
    Ok(found)
}

fn unknown(what: &str) -> Failure {
    let detail = format!(
        "the body's `Content-Encoding` is {what}; one of `gzip`, `deflate`, `br` and `zstd` is taken, or none"
    );
    Problem::new(Code::UnsupportedEncoding, detail).into()
}

/// Returns the failure of a body that was compressed where none is decoded.
pub(super) fn not_here() -> Failure {
    let detail = "the body is compressed, and this path takes it as it is: leave `Content-Encoding` out";
    Problem::new(Code::UnsupportedEncoding, detail).into()
}

/// Returns what a body is decoded with; reading ends with an error where it is not what it says.
pub(super) fn decoder<'a>(coding: Coding, body: &'a [u8]) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match coding {
        Coding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(body)),
        Coding::Deflate if has_zlib_head(body) => {
            Box::new(Whole(flate2::bufread::ZlibDecoder::new(body), |decoder| !decoder.get_ref().is_empty()))
        }
        // Some clients leave the head out, and browsers read that as well.
        Coding::Deflate => Box::new(Whole(flate2::bufread::DeflateDecoder::new(body), |decoder| {
            !decoder.get_ref().is_empty()
        })),
        Coding::Brotli => {
            let decoder = brotli_decompressor::Decompressor::new(body, BROTLI_BUFFER_BYTES);
            // Of what is left in its buffer it tells who reads on behind the end.
            Box::new(Whole(decoder, |decoder| {
                decoder.read(&mut [0]).is_err() || !decoder.get_ref().is_empty()
            }))
        }
        Coding::Zstd => Box::new(zstd_decoder(body)?),
    })
}

/// A decoder that reads to the end of its body: what would be left there unread is an error. The function tells
/// whether something is left.
struct Whole<R>(R, fn(&mut R) -> bool);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        if count == 0 && !buffer.is_empty() && (self.1)(&mut self.0) {
            let rule = "more follows behind the end of what was compressed";
            return Err(io::Error::new(io::ErrorKind::InvalidData, rule));
        }
        Ok(count)
    }
}

fn zstd_decoder<R: BufRead>(body: R) -> io::Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// Returns whether bytes start as those of RFC 1950 do (section 2.2).
fn has_zlib_head(body: &[u8]) -> bool {
    match body {
        [first, second, ..] => first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0,
        _ => false,
    }
}

/// Returns the failure of a body that is not what its head says.
pub(super) fn broken(error: &io::Error) -> Failure {
    let detail = format!("the body is not what `Content-Encoding` says: {error}");
    Problem::new(Code::InvalidRequest, detail).into()
}
