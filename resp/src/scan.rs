//! Finding out whether a reply is whole and in form, however it arrives: what was looked at once is not
//! looked at again.
//!
//! It keeps nothing of a reply but where it stands in it, so a reply can also be passed over whose bytes are
//! thrown away as they come. How large a reply may be is not its business: the caller knows what was asked.

use crate::Malformed;
use crate::head::{Head, Kind};

/// Deepest nesting of a reply. That to `HELLO` has four levels, that to a transaction that reads entries
/// five.
pub const DEPTH_MAX: usize = 8;
/// The end of a line.
const END: &[u8] = b"\r\n";

/// Where a scan stands in a reply.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Replies that are still missing in each array that has begun, the outermost first.
    missing: [usize; DEPTH_MAX],
    /// How many arrays have begun.
    depth: usize,
    /// Bytes that are still missing of a text, with the end of its line.
    text: usize,
    /// Bytes in which the end of the line was sought that comes next.
    searched: usize,
    /// Replies in arrays, as far as it is known that there are any.
    elements: usize,
    /// Those of the outermost array.
    outermost: usize,
    /// Whether the reply has come to its end.
    is_whole: bool,
}

/// What a scan has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes that need not be given again.
    pub taken: usize,
    /// Whether they are the end of the reply. Then what is given next is the next reply.
    pub is_whole: bool,
}

impl Scan {
    /// Goes on with what lies behind that which was taken before, as far as it is there, but not beyond the
    /// end of the reply.
    ///
    /// # Errors
    /// It is no reply. Then nothing can follow.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Step, Malformed> {
        if self.is_whole {
            *self = Self::default();
        }
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if self.text > 0 {
                taken += self.take_text(rest)?;
                if self.text > 0 {
                    return Ok(Step { taken, is_whole: false });
                }
            } else {
                let Some(head) = Head::read(rest, self.searched)? else {
                    self.searched = rest.len();
                    return Ok(Step { taken, is_whole: false });
                };
                self.searched = 0;
                taken += head.bytes;
                match head.kind {
                    Kind::Line | Kind::Elements(0) => self.check_push(head.sign)?,
                    Kind::Text(length) => {
                        self.text = length.checked_add(END.len()).ok_or(Malformed::Form)?;
                        continue;
                    }
                    Kind::Elements(elements) => {
                        self.check_push(head.sign)?;
                        self.begin(elements)?;
                        continue;
                    }
                }
            }
            if self.end() {
                self.is_whole = true;
                return Ok(Step { taken, is_whole: true });
            }
        }
    }

    /// Returns how many bytes are certainly missing.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.text
    }

    /// Returns how many replies there are in arrays, those included that have not come yet.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Returns how many replies of the outermost array have come.
    #[must_use]
    pub fn outermost_whole(&self) -> usize {
        if self.depth == 0 { self.outermost } else { self.outermost - self.missing[0] }
    }

    /// What the server sends unasked stands beside replies, never within one.
    fn check_push(&self, sign: u8) -> Result<(), Malformed> {
        if sign == b'>' && self.depth > 0 { Err(Malformed::Form) } else { Ok(()) }
    }

    fn begin(&mut self, elements: usize) -> Result<(), Malformed> {
        let missing = self.missing.get_mut(self.depth).ok_or(Malformed::TooDeep)?;
        *missing = elements;
        if self.depth == 0 {
            self.outermost = elements;
        }
        self.depth += 1;
        self.elements = self.elements.saturating_add(elements);
        Ok(())
    }

    /// Takes what is there of a text, and the end of its line when both its bytes are there.
    fn take_text(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let of_text = self.text.saturating_sub(END.len()).min(bytes.len());
        self.text -= of_text;
        if self.text > END.len() {
            return Ok(of_text);
        }
        match bytes.get(of_text..of_text + END.len()) {
            Some(end) if end == END => {
                self.text = 0;
                Ok(of_text + END.len())
            }
            Some(_) => Err(Malformed::Form),
            None => Ok(of_text),
        }
    }

    /// Ends a reply, and the arrays that end with it. Returns whether nothing is missing.
    fn end(&mut self) -> bool {
        while let Some(level) = self.depth.checked_sub(1) {
            self.missing[level] -= 1;
            if self.missing[level] > 0 {
                return false;
            }
            self.depth = level;
        }
        true
    }
}

/// Returns the length of the reply at the start of `bytes`; `None` if it is not whole.
///
/// # Errors
/// It is no reply.
pub fn extent(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Step { taken, is_whole } = Scan::default().advance(bytes)?;
    Ok(is_whole.then_some(taken))
}
