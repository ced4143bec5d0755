//! The first line of a reply: what it is, and what follows.

use crate::Malformed;

/// Longest line: a number, a short text, or an error.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// What stands in front of the text of a verbatim string: its kind, and a colon.
pub(crate) const KIND_BYTES: usize = 4;

/// What follows the first line of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: the line is all.
    Line,
    /// So many bytes, and the end of a line.
    Text(usize),
    /// So many replies.
    Elements(usize),
}

/// The first line of a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    /// What stands in front: the kind of reply.
    pub(crate) sign: u8,
    pub(crate) kind: Kind,
    /// What stands between the first byte and the end of the line.
    pub(crate) text: &'a [u8],
    /// The bytes of the line with its end.
    pub(crate) bytes: usize,
}

impl<'a> Head<'a> {
    /// Reads the line at the start of `bytes`; `None` if its end is not there. The first `searched` bytes
    /// are known to hold no end of a line.
    #[inline]
    pub(crate) fn read(bytes: &'a [u8], searched: usize) -> Result<Option<Self>, Malformed> {
        let Some(sign) = bytes.first().copied() else { return Ok(None) };
        if !matches!(sign, b'+' | b'-' | b':' | b'$' | b'*' | b'_' | b'=' | b'%' | b'>') {
            return Err(Malformed::Form);
        }
        let within = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
        let Some(end) = end_of_line(within, sign, searched) else {
            return if within.len() == LINE_BYTES_MAX { Err(Malformed::LongLine) } else { Ok(None) };
        };
        let text = bytes.get(1..end).and_then(|text| text.strip_suffix(b"\r")).ok_or(Malformed::Form)?;
        let kind = match sign {
            b'+' | b'-' => Kind::Line,
            b':' => number(text).map(|_| Kind::Line)?,
            b'_' if text.is_empty() => Kind::Line,
            b'$' | b'*' if text == b"-1" => Kind::Line,
            b'$' => Kind::Text(length(text)?),
            b'=' => match length(text)? {
                0..KIND_BYTES => return Err(Malformed::Form),
                length => Kind::Text(length),
            },
            b'*' | b'>' => Kind::Elements(length(text)?),
            b'%' => Kind::Elements(length(text)?.checked_mul(2).ok_or(Malformed::Form)?),
            _ => return Err(Malformed::Form),
        };
        Ok(Some(Self { sign, kind, text, bytes: end + 1 }))
    }
}

/// Returns where the line ends.
#[inline]
fn end_of_line(bytes: &[u8], sign: u8, searched: usize) -> Option<usize> {
    /// Bytes within which the line of a length nearly always ends: looking at them one by one takes less
    /// than a search that is made for long texts.
    const NEAR: usize = 8;
    let near = if matches!(sign, b'$' | b'*') { bytes.len().min(NEAR) } else { 0 };
    if let Some(at) = bytes[..near].iter().position(|byte| *byte == b'\n') {
        return Some(at);
    }
    let from = searched.max(near).min(bytes.len());
    memchr::memchr(b'\n', &bytes[from..]).map(|at| from + at)
}

/// Reads a length.
fn length(text: &[u8]) -> Result<usize, Malformed> {
    usize::try_from(number(text)?).map_err(|_| Malformed::Form)
}

/// Reads a number: digits, and a minus where it is negative.
#[inline]
pub(crate) fn number(text: &[u8]) -> Result<i64, Malformed> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(Malformed::Form);
    }
    let mut number = 0_i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Malformed::Form);
        }
        let digit = i64::from(digit - b'0');
        // The smallest number has no positive counterpart, so it is counted downwards.
        number = number
            .checked_mul(10)
            .and_then(|number| number.checked_add(if negative { -digit } else { digit }))
            .ok_or(Malformed::Form)?;
    }
    Ok(number)
}
