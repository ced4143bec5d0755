//! In which slot of a cluster a key lives. It asks nobody: the rule is that of the
//! [cluster specification](https://valkey.io/topics/cluster-spec/), in its parts "Key distribution model" and "Hash tags".

use std::sync::OnceLock;

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;

/// The checksum of the specification, CRC16/XMODEM, byte by byte: what the byte that leaves it adds.
const ADDED: [u16; 256] = {
    let mut added = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let mut sum = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
            bit += 1;
        }
        added[byte as usize] = sum;
        byte += 1;
    }
    added
};

/// Returns the slot of a key.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    slot_of_tag(tag_of(key))
}

/// Returns the slot of all keys that have this between their first braces.
pub(super) fn slot_of_tag(tag: &[u8]) -> u16 {
    sum_of(tag) % SLOTS
}

/// Returns a text that has its place in a slot: the smallest number that has. It is the same on every node.
pub(super) fn tag_of_slot(slot: u16) -> String {
    static TAGS: OnceLock<Box<[u32]>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let mut tags = vec![u32::MAX; usize::from(SLOTS)];
        let mut left = tags.len();
        for number in 0_u32.. {
            let tag = &mut tags[usize::from(slot_of_tag(number.to_string().as_bytes()))];
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

/// Returns what stands between the first `{` and the next `}`, or the whole key where that is nothing.
fn tag_of(key: &[u8]) -> &[u8] {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        behind.iter().position(|byte| *byte == b'}').map(|close| &behind[..close])
    });
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

fn sum_of(text: &[u8]) -> u16 {
    text.iter().fold(0, |sum, byte| {
        let [first, second] = sum.to_be_bytes();
        u16::from_be_bytes([second, 0]) ^ ADDED[usize::from(first ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_specification() {
        assert_eq!(sum_of(b"123456789"), 0x31C3);
        assert_eq!((sum_of(b""), sum_of(b"\x01"), sum_of(b"\xff\x00")), (0, 0x1021, 0x03FF));
    }

    #[test]
    fn slots_are_those_that_servers_tell() {
        // As `CLUSTER KEYSLOT` answers.
        for (key, slot) in [("foo", 12_182), ("bar", 5_061), ("hello", 866), ("somekey", 11_058)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"foo{hello}"), 866);
        assert_eq!(slot_of("stream:topic:{foo}".as_bytes()), slot_of(b"idem:{foo}:{bar}"));
    }

    #[test]
    fn what_stands_in_the_first_braces_decides_where_it_is_something() {
        for (key, tag) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
            ("foo}{bar", "foo}{bar"),
            ("}{a}", "a"),
            ("{}", "{}"),
            ("", ""),
        ] {
            assert_eq!(tag_of(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }

    #[test]
    fn every_slot_has_a_text() {
        for slot in 0..SLOTS {
            assert_eq!(slot_of(tag_of_slot(slot).as_bytes()), slot);
        }
    }
}
