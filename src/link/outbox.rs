//! Bytes on their way to a transport: those that many connections share, and after them this one's own.

use std::io::IoSlice;

use bytes::{Buf as _, Bytes};

/// Bytes of an empty outbox that are kept for what comes next.
const KEPT_BYTES_MAX: usize = 1024;

/// What is still to be written to a connection.
#[derive(Debug, Default)]
pub struct Outbox {
    shared: Bytes,
    own: Vec<u8>,
    /// How much of `own` is written.
    written: usize,
    /// Whether the transport holds some of what was written.
    is_held: bool,
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
        self.shared.len() + self.own.len() - self.written
    }

    /// Adds bytes that others write too: without a copy, if nothing waits before them.
    pub fn push_shared(&mut self, bytes: &Bytes) {
        if self.is_empty() {
            self.shared = bytes.clone();
        } else {
            self.own.extend_from_slice(bytes);
        }
    }

    /// Returns where more bytes may be appended.
    pub fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    pub(super) fn parts(&self) -> [IoSlice<'_>; 2] {
        [IoSlice::new(&self.shared), IoSlice::new(&self.own[self.written..])]
    }

    pub(super) fn advance(&mut self, count: usize) {
        let shared = count.min(self.shared.len());
        self.shared.advance(shared);
        self.written += count - shared;
        if self.shared.is_empty() {
            // An empty slice of them would keep the whole.
            self.shared = Bytes::new();
        }
        if self.written == self.own.len() {
            self.written = 0;
            self.own.clear();
            self.own.shrink_to(KEPT_BYTES_MAX);
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
    fn what_was_large_is_given_back() {
        let mut outbox = Outbox::default();
        outbox.own().resize(1 << 20, 0);
        outbox.advance(1 << 20);
        assert!(outbox.is_empty() && outbox.own().capacity() <= KEPT_BYTES_MAX);
    }
}
