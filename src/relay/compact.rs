//! Names and numbers in few bytes, for cursors of many topics that travel in a header.

use sha2::{Digest as _, Sha256};
use tidemill_proto::TopicName;

/// Bytes that stand for a topic's name: so many that no other name has them.
pub(crate) const TAG_BYTES: usize = 8;

/// Stands for the name of a topic where that would take too many bytes.
pub(crate) type Tag = [u8; TAG_BYTES];

/// Returns what stands for a name: the first bytes of its digest.
pub(crate) fn tag(topic: &TopicName) -> Tag {
    let digest = Sha256::digest(topic.as_str());
    std::array::from_fn(|at| digest[at])
}

/// Appends a number, seven bits a byte, the lowest first.
pub(crate) fn write_varint(number: u64, out: &mut Vec<u8>) {
    let mut rest = number;
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Takes a number from the front; `None` if there is none.
pub(crate) fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        // The tenth byte has one bit of the 64 left.
        if at == 9 && part > 1 {
            return None;
        }
        number |= part << (7 * at);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
