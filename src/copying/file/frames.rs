//! The bytes of an export: one frame of zstd for each record, behind a head that zstd skips.
//!
//! A head is a skippable frame (RFC 8878 section 3.1.2) with the length of the frame behind it, the number of the record,
//! and the CRC-32 of the frame and of the head itself. Every byte of a file is covered by one of both, and `zstd -d` reads
//! the records as lines of text.
//!
//! It must not know what a record says.

use std::io::{self, BufRead as _, BufReader, Read};

use super::FileError;

/// Bytes of a head.
pub(super) const HEAD_BYTES: usize = 28;
/// What a head begins with: one of the sixteen numbers of skippable frames, and how many bytes are behind it.
const MAGIC: [u8; 8] = [0x54, 0x2a, 0x4d, 0x18, 20, 0, 0, 0];
/// How hard it is tried to make records small: what zstd takes by itself.
const LEVEL: i32 = 3;
/// Longest text of a record: a page of a few of the largest messages or values, with their history, in base64.
pub(super) const RECORD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which it is, from 0 on.
    pub(super) record: u64,
    /// Where it begins.
    pub(super) at: u64,
}

impl Place {
    pub(super) fn damaged(self) -> FileError {
        FileError::Damaged { record: self.record, at: self.at }
    }

    pub(super) fn odd(self, why: impl Into<String>) -> FileError {
        FileError::Odd { record: self.record, at: self.at, why: why.into() }
    }
}

/// Compresses the text of a record.
pub(super) fn pack(text: &[u8]) -> io::Result<Vec<u8>> {
    if text.len() > RECORD_BYTES_MAX {
        return Err(io::Error::other("a page is larger than a record of the file can be"));
    }
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    compressor.compress(text)
}

/// Returns the head of a frame.
pub(super) fn head(record: u64, frame: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    // A frame is hardly longer than its text, which is shorter than this.
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    head[8..12].copy_from_slice(&length.to_le_bytes());
    head[12..20].copy_from_slice(&record.to_le_bytes());
    head[20..24].copy_from_slice(&crc32fast::hash(frame).to_le_bytes());
    let own = crc32fast::hash(&head[..24]);
    head[24..].copy_from_slice(&own.to_le_bytes());
    head
}

/// Reads the frame at a place, with its head; `None` where nothing is there any more.
pub(super) fn read(from: &mut impl Read, place: Place) -> Result<Option<Vec<u8>>, FileError> {
    let cut_off = FileError::CutOff { records: place.record, at: place.at };
    let mut found = Vec::with_capacity(HEAD_BYTES);
    from.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut found)?;
    if found.is_empty() {
        return Ok(None);
    }
    if !found.starts_with(&MAGIC[..found.len().min(MAGIC.len())]) {
        return Err(if place.at == 0 { FileError::NotAnExport } else { place.damaged() });
    }
    if found.len() < HEAD_BYTES {
        return Err(cut_off);
    }
    let number = |at: usize| {
        let bytes = found.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    let is_whole = number(24) == crc32fast::hash(&found[..24]) && found[12..20] == place.record.to_le_bytes();
    if !is_whole {
        return Err(place.damaged());
    }
    let (length, sum) = (u64::from(number(8)), number(20));
    let mut frame = Vec::new();
    from.by_ref().take(length).read_to_end(&mut frame)?;
    if (frame.len() as u64) < length {
        return Err(cut_off);
    }
    if crc32fast::hash(&frame) != sum {
        return Err(place.damaged());
    }
    Ok(Some(frame))
}

/// Returns the first line of a frame, without its end.
pub(super) fn first_line(frame: &[u8], place: Place) -> Result<Vec<u8>, FileError> {
    let mut line = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(|_| place.damaged())?;
    let mut text = BufReader::new(decoder.take(RECORD_BYTES_MAX as u64));
    text.read_until(b'\n', &mut line).map_err(|_| place.damaged())?;
    if line.pop() != Some(b'\n') {
        return Err(place.odd("it is no line of text"));
    }
    Ok(line)
}

/// Returns the lines of a frame behind the first.
pub(super) fn rest(frame: &[u8], place: Place) -> Result<Vec<u8>, FileError> {
    let mut text = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(|_| place.damaged())?;
    let read = decoder.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut text);
    if read.map_err(|_| place.damaged())? > RECORD_BYTES_MAX {
        return Err(place.odd("it is larger than a record can be"));
    }
    let first =
        text.iter().position(|byte| *byte == b'\n').ok_or_else(|| place.odd("it is no line of text"))?;
    text.drain(..=first);
    Ok(text)
}
