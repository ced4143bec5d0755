//! Where frames end in the bytes that a client sends (RFC 6455 section 5.2), and how much of a message has
//! come that is not whole yet.
//!
//! The library takes frames apart, and does not tell what it holds while one is unfinished. It must not know
//! what is in a frame: only its head is looked at.

/// Longest head of a frame.
const HEAD_BYTES_MAX: usize = 14;

/// Follows the bytes of one connection.
#[derive(Debug, Default)]
pub(super) struct Meter {
    head: [u8; HEAD_BYTES_MAX],
    /// How much of a head has come.
    head_bytes: usize,
    /// How much of the payload behind a whole head is still to come.
    payload_left: u64,
    /// What has come of the frame that is under way.
    frame_bytes: u64,
    /// What has come of a message in frames that are whole; the last of them is still to come.
    fragments_bytes: u64,
    /// The largest of these frames: the library keeps the place that it had come to.
    fragment_bytes_max: u64,
    /// Whether a message has begun in frames that are whole.
    is_fragmented: bool,
}

impl Meter {
    /// Takes in bytes up to the end of a frame, and returns how many those were.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.payload_left == 0 {
            let Some(byte) = bytes.get(taken) else { break };
            self.head[self.head_bytes] = *byte;
            self.head_bytes += 1;
            taken += 1;
            if self.head_bytes == self.head_len() {
                self.payload_left = self.payload_len();
                if self.payload_left == 0 {
                    self.frame_bytes += taken as u64;
                    self.end_frame();
                    return taken;
                }
            }
        }
        let rest = (bytes.len() - taken) as u64;
        let payload = self.payload_left.min(rest);
        self.payload_left -= payload;
        // It is no more than what has come.
        taken += usize::try_from(payload).unwrap_or(bytes.len() - taken);
        self.frame_bytes += taken as u64;
        if payload > 0 && self.payload_left == 0 {
            self.end_frame();
        }
        taken
    }

    /// Returns what a message, or any frame, takes that is not whole.
    pub(super) fn unfinished_bytes(&self) -> u64 {
        self.fragments_bytes + self.frame_bytes.max(self.fragment_bytes_max)
    }

    /// Whether a message, or any frame, has begun and is not whole.
    pub(super) const fn is_unfinished(&self) -> bool {
        self.is_fragmented || self.frame_bytes > 0
    }

    fn end_frame(&mut self) {
        let (is_last, is_control) = (self.head[0] & 0x80 != 0, self.head[0] & 0x08 != 0);
        // Control frames stand between those of a message, and are no part of it.
        if !is_control {
            self.is_fragmented = !is_last;
            (self.fragments_bytes, self.fragment_bytes_max) = if is_last {
                (0, 0)
            } else {
                (self.fragments_bytes + self.frame_bytes, self.fragment_bytes_max.max(self.frame_bytes))
            };
        }
        (self.frame_bytes, self.head_bytes) = (0, 0);
    }

    /// Returns how long the head is, as far as that has come.
    const fn head_len(&self) -> usize {
        if self.head_bytes < 2 {
            return HEAD_BYTES_MAX;
        }
        let mask_bytes = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        mask_bytes
            + match self.head[1] & 0x7F {
                126 => 4,
                127 => 10,
                _ => 2,
            }
    }

    fn payload_len(&self) -> u64 {
        match self.head[1] & 0x7F {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => self.head[2..10].iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, payload_bytes: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        if let Ok(short @ 0..126) = u8::try_from(payload_bytes) {
            frame.push(mask | short);
        } else if let Ok(medium) = u16::try_from(payload_bytes) {
            frame.push(mask | 0x7E);
            frame.extend(medium.to_be_bytes());
        } else {
            frame.push(mask | 0x7F);
            frame.extend((payload_bytes as u64).to_be_bytes());
        }
        frame.resize(frame.len() + payload_bytes + if masked { 4 } else { 0 }, 0xFF);
        frame
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end_however_they_are_cut(
            frames in prop::collection::vec((0_usize..8, prop_oneof![0_usize..300, 65_000_usize..66_000], any::<bool>()), 1..6),
            cuts in prop::collection::vec(1_usize..5_000, 1..20),
        ) {
            // Text, its continuation, its end, a ping, a pong, a close, and whole messages.
            let firsts = [0x01, 0x00, 0x80, 0x89, 0x8A, 0x88, 0x81, 0x82];
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for (kind, payload_bytes, masked) in &frames {
                bytes.extend(frame(firsts[*kind], *payload_bytes, *masked));
                ends.push(bytes.len());
            }
            let (mut meter, mut at, mut found) = (Meter::default(), 0, Vec::new());
            for cut in cuts.iter().cycle() {
                let until = bytes.len().min(at + cut);
                while at < until {
                    at += meter.take(&bytes[at..until]);
                    if meter.frame_bytes == 0 {
                        found.push(at);
                    }
                }
                if at == bytes.len() {
                    break;
                }
            }
            prop_assert_eq!(found, ends);
        }
    }

    #[test]
    fn what_is_unfinished_is_known_at_every_byte() {
        let mut meter = Meter::default();
        let first = frame(0x01, 200, true);
        for (at, byte) in first.iter().enumerate() {
            assert_eq!(meter.take(&[*byte]), 1);
            let place = if at + 1 == first.len() { first.len() } else { 0 };
            assert_eq!(
                meter.unfinished_bytes(),
                (at + 1 + place) as u64,
                "whole, it is kept beside its place"
            );
            assert!(meter.is_unfinished());
        }
        let place = first.len() as u64;
        let held = 2 * place;
        meter.take(&frame(0x89, 5, true));
        assert_eq!(meter.unfinished_bytes(), held, "a ping between is no part of it");
        meter.take(&frame(0x00, 0, true));
        assert_eq!(meter.unfinished_bytes(), held + 6);
        let last = frame(0x80, 70_000, true);
        meter.take(&last[..40_000]);
        assert_eq!(meter.unfinished_bytes(), place + 6 + 40_000);
        assert_eq!(meter.take(&[&last[40_000..], b"\x81"].concat()), last.len() - 40_000);
        assert!(!meter.is_unfinished() && meter.unfinished_bytes() == 0);
    }
}
