//! The encodings of a message that transports have asked for, each made once and kept for all.
//!
//! It must not know which there are: each transport has its own.

use std::sync::OnceLock;

use bytes::Bytes;
use tidemill_proto::MessageEncoding;

/// Encodings that have a place in the message itself: as many as transports have today. A fourth of one
/// message costs it an allocation.
const PLACES: usize = 3;

/// What is kept of one message. An encoding has the first place that no other had taken before it, and
/// keeps it, so that whoever looks for one comes to it before a free place.
#[derive(Debug, Default)]
pub(super) struct Encodings {
    places: [OnceLock<Kept>; PLACES],
    more: OnceLock<Box<Encodings>>,
}

#[derive(Debug)]
struct Kept {
    encoding: &'static MessageEncoding,
    bytes: Bytes,
}

impl Encodings {
    /// Returns the bytes of an encoding; `write` is asked for them once.
    pub(super) fn get(&self, encoding: &'static MessageEncoding, write: impl Fn() -> Bytes) -> &Bytes {
        let mut encodings = self;
        loop {
            for place in &encodings.places {
                let kept = place.get_or_init(|| Kept { encoding, bytes: write() });
                if kept.encoding.name == encoding.name {
                    return &kept.bytes;
                }
            }
            encodings = encodings.more.get_or_init(Box::default);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static ALL: [MessageEncoding; PLACES + 2] = [named("a"), named("b"), named("c"), named("d"), named("e")];

    const fn named(name: &'static str) -> MessageEncoding {
        MessageEncoding { name, write: |_, _| {} }
    }

    #[test]
    fn each_encoding_is_written_once_for_all_threads() {
        let encodings = Encodings::default();
        let written: [AtomicUsize; ALL.len()] = Default::default();
        std::thread::scope(|scope| {
            for first in 0..8 {
                let (encodings, written) = (&encodings, &written);
                scope.spawn(move || {
                    for turn in 0..2 * ALL.len() {
                        let at = (first + turn) % ALL.len();
                        let bytes = encodings.get(&ALL[at], || {
                            written[at].fetch_add(1, Ordering::Relaxed);
                            Bytes::from_static(ALL[at].name.as_bytes())
                        });
                        assert_eq!(bytes, ALL[at].name.as_bytes());
                    }
                });
            }
        });
        assert!(written.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{written:?}");
    }
}
