//! Cutting replies out of what was read, request by request.
//!
//! A request says what its replies may have at most. What passes that is either an error of the connection,
//! or, where the request allows for it, passed over: thrown away as it comes, so that it costs no memory,
//! and the connection stays in order.

use bytes::{Buf as _, BytesMut};

use crate::scan::Scan;
use crate::{Bounds, Malformed, Parts, Replies};

/// The sign of a message that answers no command.
const PUSH: u8 = b'>';
/// Most bytes of a message that nobody has asked for: the longest is a ring of the doorbell.
const PUSH_BYTES_MAX: usize = 64 * 1024;
/// Most elements of one.
const PUSH_ELEMENTS_MAX: usize = 1_024;

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Cut {
    /// Its replies.
    Replies(Replies),
    /// They passed the request's bounds, and were passed over.
    TooLarge {
        /// About how many elements the reply that did had within them: so many may be asked for.
        fitting: usize,
    },
}

/// Cuts replies out of what was read.
#[derive(Debug, Default)]
pub struct Cutter {
    /// Up to where the buffer holds whole replies, and what stands between them.
    at: usize,
    /// How many of these answer a command.
    count: usize,
    /// The elements of these.
    elements: usize,
    /// What begins at `at`, once it has begun.
    begun: Option<Begun>,
    scan: Scan,
    /// Once the bounds are passed: about how many elements fitted.
    passed: Option<usize>,
}

/// A reply, or a message that nobody has asked for, that has come in part.
#[derive(Clone, Copy, Debug)]
struct Begun {
    is_push: bool,
    /// Bytes in the buffer that the scan has taken.
    scanned: usize,
}

impl Cutter {
    /// Cuts the replies to `count` commands off the front of `read`, if they are whole. What the server
    /// sends unasked goes to `unasked`.
    ///
    /// # Errors
    /// What came is no reply, or too large a one. The connection is of no more use.
    pub fn cut(
        &mut self,
        read: &mut BytesMut,
        count: usize,
        bounds: &Bounds,
        unasked: &mut impl FnMut(Parts<'_>),
    ) -> Result<Option<Cut>, Malformed> {
        while self.count < count {
            let Some(whole) = self.next(read)? else {
                self.check(bounds)?;
                self.forget(read);
                return Ok(None);
            };
            if whole.is_push {
                self.hand_on(read, whole, unasked);
            } else {
                self.count += 1;
                self.elements = self.elements.saturating_add(self.scan.elements());
            }
            self.at += whole.scanned;
            self.check(bounds)?;
        }
        let Self { at, passed, .. } = std::mem::take(self);
        let bytes = read.split_to(at);
        Ok(Some(match passed {
            Some(fitting) => Cut::TooLarge { fitting },
            None => Cut::Replies(Replies::new(bytes.freeze(), count)),
        }))
    }

    /// Hands `unasked` what the server may send unasked. Anything else is an error.
    ///
    /// # Errors
    /// What came is no reply, or one that nobody has asked for. The connection is of no more use.
    pub fn pass_over(
        &mut self,
        read: &mut BytesMut,
        unasked: &mut impl FnMut(Parts<'_>),
    ) -> Result<(), Malformed> {
        loop {
            let Some(first) = read.get(self.at) else {
                read.clear();
                *self = Self::default();
                return Ok(());
            };
            if *first != PUSH {
                return Err(Malformed::Unasked);
            }
            let Some(whole) = self.next(read)? else {
                self.forget(read);
                return Ok(());
            };
            self.hand_on(read, whole, unasked);
            self.at += whole.scanned;
        }
    }

    /// Returns how many bytes behind those that were read are certainly still to come, and to be kept.
    #[must_use]
    pub fn wanted(&self) -> usize {
        if self.passed.is_some() { 0 } else { self.scan.wanted() }
    }

    /// Returns what begins at `at`, once it is whole.
    fn next(&mut self, read: &BytesMut) -> Result<Option<Begun>, Malformed> {
        let mut begun = match (self.begun, read.get(self.at)) {
            (Some(begun), _) => begun,
            (None, Some(first)) => Begun { is_push: *first == PUSH, scanned: 0 },
            (None, None) => return Ok(None),
        };
        let step = self.scan.advance(read.get(self.at + begun.scanned..).unwrap_or_default())?;
        begun.scanned += step.taken;
        if begun.is_push && (self.extent(begun) > PUSH_BYTES_MAX || self.scan.elements() > PUSH_ELEMENTS_MAX)
        {
            return Err(Malformed::TooLarge);
        }
        self.begun = (!step.is_whole).then_some(begun);
        Ok(step.is_whole.then_some(begun))
    }

    /// Returns how many bytes there will be at least of what has begun.
    fn extent(&self, begun: Begun) -> usize {
        begun.scanned.saturating_add(self.scan.wanted())
    }

    fn hand_on(&self, read: &BytesMut, whole: Begun, unasked: &mut impl FnMut(Parts<'_>)) {
        let bytes = read.get(self.at..self.at + whole.scanned).unwrap_or_default();
        if let Some(parts) = Parts::of_push(bytes) {
            unasked(parts);
        }
    }

    /// Checks what has come, and what is known to come, against the request's bounds.
    fn check(&mut self, bounds: &Bounds) -> Result<(), Malformed> {
        if self.passed.is_some() {
            return Ok(());
        }
        let (bytes, elements) = match self.begun {
            Some(begun) => (self.extent(begun), if begun.is_push { 0 } else { self.scan.elements() }),
            None => (0, 0),
        };
        let is_within = self.at.saturating_add(bytes) <= bounds.bytes
            && self.elements.saturating_add(elements) <= bounds.elements;
        match bounds.pass_over {
            _ if is_within => Ok(()),
            false => Err(Malformed::TooLarge),
            true => {
                self.passed = Some(self.scan.outermost_whole());
                Ok(())
            }
        }
    }

    /// Drops what nobody will need: messages that were handed on, so that they do not pile up in front of
    /// a reply; and what is passed over.
    fn forget(&mut self, read: &mut BytesMut) {
        if self.count > 0 && self.passed.is_none() {
            return;
        }
        read.advance(self.at);
        self.at = 0;
        if let Some(begun) = self.begun.as_mut().filter(|begun| self.passed.is_some() && !begun.is_push) {
            read.advance(begun.scanned);
            begun.scanned = 0;
        }
    }
}
