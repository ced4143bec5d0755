//! Slots: in which part of a cluster a key lives (the cluster specification of Valkey, "Key distribution model" and
//! "Hash tags"): the CRC-16/XMODEM of the key modulo 16384, or of what stands in its first braces, if that is something.

use std::sync::OnceLock;

use super::cluster::map::SLOTS;

/// The table of CRC-16/XMODEM: polynomial 0x1021, from 0, nothing reflected.
const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "it is less than 256")]
        let mut sum = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) ^ TABLE[usize::from((sum >> 8) ^ u16::from(*byte))])
}

/// Returns the slot of a key.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let at = |bytes: &[u8], wanted: u8| bytes.iter().position(|byte| *byte == wanted);
    let tag = at(key, b'{').and_then(|open| {
        let rest = &key[open + 1..];
        at(rest, b'}').filter(|length| *length > 0).map(|length| &rest[..length])
    });
    slot_of_tag(tag.unwrap_or(key))
}

/// Returns the slot of all keys that have this in their first braces.
pub(super) fn slot_of_tag(tag: &[u8]) -> u16 {
    crc16(tag) % SLOTS
}

/// Returns a text that has its place in a slot: the smallest number that has. It is the same on every node.
pub(super) fn tag_of_slot(slot: u16) -> String {
    static TAGS: OnceLock<Box<[u32]>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let mut tags = vec![u32::MAX; usize::from(SLOTS)];
        let mut left = tags.len();
        for number in 0_u32.. {
            let tag = &mut tags[usize::from(slot_of_tag(itoa::Buffer::new().format(number).as_bytes()))];
            if *tag == u32::MAX {
                *tag = number;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        tags.into()
    });
    tags.get(usize::from(slot)).copied().unwrap_or(0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // As a server answers CLUSTER KEYSLOT.
        for (key, slot) in [("a", 15_495), ("b", 3_300), ("c", 7_365), ("d", 11_298), ("foo{b}", 3_300)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of_tag(b"bar"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of_tag(b"{bar"));
        assert_eq!(slot_of(b"foo{}{bar}"), slot_of_tag(b"foo{}{bar}"));
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
    }

    #[test]
    fn every_slot_has_a_text() {
        for slot in 0..SLOTS {
            assert_eq!(slot_of_tag(tag_of_slot(slot).as_bytes()), slot);
        }
    }
}
