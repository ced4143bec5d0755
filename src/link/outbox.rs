//! Bytes on their way to a transport: this one's own, those that many connections share, and behind them
//! more of its own.

use std::any::Any;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};

/// Bytes of an empty outbox that are kept for what comes next.
const KEPT_BYTES_MAX: usize = 1024;
/// From so many bytes on, what is shared is not copied behind what waits already.
const SHARED_BYTES_MIN: usize = 4 * 1024;

/// What is still to be written to a connection.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Its own bytes in front of the shared ones.
    front: Vec<u8>,
    shared: Bytes,
    own: Vec<u8>,
    /// How much of `front` is written, or where nothing is left before it, of `own`.
    written: usize,
    /// Whether the transport holds some of what was written.
    is_held: bool,
    /// What is kept until everything is written.
    kept: Option<Arc<dyn Any + Send + Sync>>,
}

impl Outbox {
    /// Returns whether everything is on its way to the client: written, and sent on by the transport.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.is_empty() && !self.is_held
    }

    /// Returns whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many bytes are still to be written. What the transport holds is not counted: it has
    /// its own bound.
    #[must_use]
    pub fn len(&self) -> usize {
        self.front.len() + self.shared.len() + self.own.len() - self.written
    }

    /// Adds bytes that others write too: without a copy, if nothing waits before them, or they are many and
    /// none of the kind do.
    pub fn push_shared(&mut self, bytes: &Bytes) {
        if self.is_empty() {
            self.shared = bytes.clone();
        } else if self.shared.is_empty() && self.front.is_empty() && bytes.len() >= SHARED_BYTES_MIN {
            self.front = std::mem::take(&mut self.own);
            self.shared = bytes.clone();
        } else {
            self.own.extend_from_slice(bytes);
        }
    }

    /// Keeps something until everything that is in here now is written, beside what is kept already.
    pub fn keep(&mut self, kept: Arc<dyn Any + Send + Sync>) {
        self.kept = Some(match self.kept.take() {
            Some(earlier) => Arc::new((earlier, kept)),
            None => kept,
        });
    }

    /// Returns where more bytes may be appended.
    pub fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    pub(super) fn parts(&self) -> [IoSlice<'_>; 3] {
        let (front, own) = if self.front.is_empty() && self.shared.is_empty() {
            (&self.front[..], &self.own[self.written..])
        } else {
            (&self.front[self.written..], &self.own[..])
        };
        [IoSlice::new(front), IoSlice::new(&self.shared), IoSlice::new(own)]
    }

    pub(super) fn advance(&mut self, mut count: usize) {
        if !self.front.is_empty() {
            let front = count.min(self.front.len() - self.written);
            self.written += front;
            count -= front;
            if self.written < self.front.len() {
                return;
            }
            self.written = 0;
            self.front = Vec::new();
        }
        let shared = count.min(self.shared.len());
        self.shared.advance(shared);
        if !self.shared.is_empty() {
            return;
        }
        // An empty slice of them would keep the whole.
        self.shared = Bytes::new();
        self.written += count - shared;
        if self.written == self.own.len() {
            self.written = 0;
            self.own.clear();
            self.own.shrink_to(KEPT_BYTES_MAX);
            self.kept = None;
        }
    }

    /// Notes whether the transport has sent on everything that was written.
    pub(super) fn note_flushed(&mut self, is_flushed: bool) {
        self.is_held = !is_flushed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(outbox: &Outbox) -> String {
        outbox.parts().iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        let mut outbox = Outbox::default();
        outbox.push_shared(&Bytes::from_static(b"abc"));
        outbox.own().extend_from_slice(b"def");
        outbox.push_shared(&Bytes::from_static(b"ghi"));
        assert_eq!((text(&outbox).as_str(), outbox.len()), ("abcdefghi", 9));
        for (count, rest) in [(2, "cdefghi"), (3, "fghi"), (1, "ghi"), (3, "")] {
            outbox.advance(count);
            assert_eq!((text(&outbox).as_str(), outbox.len()), (rest, rest.len()));
        }
        assert!(outbox.is_empty());
        outbox.own().push(b'x');
        outbox.push_shared(&Bytes::from_static(b"y"));
        assert_eq!(text(&outbox), "xy");
    }

    #[test]
    fn what_the_transport_holds_is_not_free_and_not_written_again() {
        let mut outbox = Outbox::default();
        outbox.own().extend_from_slice(b"abc");
        outbox.advance(3);
        outbox.note_flushed(false);
        assert!(outbox.is_empty() && !outbox.is_sent());
        outbox.push_shared(&Bytes::from_static(b"def"));
        assert_eq!(text(&outbox), "def");
        outbox.advance(3);
        assert!(!outbox.is_sent());
        outbox.note_flushed(true);
        assert!(outbox.is_sent());
    }

    #[test]
    fn what_is_shared_and_large_is_not_copied_behind_its_own_beginning() {
        let large = Bytes::from(vec![b'x'; SHARED_BYTES_MIN]);
        let mut outbox = Outbox::default();
        let kept = Arc::new(());
        outbox.keep(kept.clone());
        outbox.own().extend_from_slice(b"head");
        outbox.push_shared(&large);
        outbox.own().extend_from_slice(b"tail");
        outbox.push_shared(&large);
        assert_eq!(outbox.parts()[1].as_ptr(), large.as_ptr());
        let mut all = [b"head".as_slice(), &large, b"tail", &large].concat();
        for count in [1, 2, 1, 5, SHARED_BYTES_MIN - 5, 3, 2, SHARED_BYTES_MIN - 1] {
            assert_eq!((text(&outbox).as_bytes(), outbox.len()), (&*all, all.len()));
            all.drain(..count);
            outbox.advance(count);
            assert!(outbox.is_empty() == all.is_empty());
            assert_eq!(Arc::strong_count(&kept), if all.is_empty() { 1 } else { 2 });
        }
        // Across all parts at once.
        outbox.own().extend_from_slice(b"head");
        outbox.push_shared(&large);
        outbox.own().extend_from_slice(b"tail");
        outbox.advance(8 + large.len());
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_was_large_is_given_back() {
        let mut outbox = Outbox::default();
        outbox.own().resize(1 << 20, 0);
        outbox.advance(1 << 20);
        assert!(outbox.is_empty() && outbox.own().capacity() <= KEPT_BYTES_MAX);
    }
}
