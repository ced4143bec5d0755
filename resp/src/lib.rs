//! The form in which Valkey and its likes are spoken to (RESP 2 and 3): commands as bytes, and replies in
//! bytes.
//!
//! It knows no command, does no I/O and starts no task; whoever has a connection uses it.
//!
//! | file | owns |
//! |---|---|
//! | `request` | commands as bytes, and what their replies may have at most |
//! | `head` | the first line of a reply |
//! | `scan` | finding out whether a reply is whole, however it arrives |
//! | `cut` | the replies to requests, cut out of what was read |
//! | `reply` | reading a reply in place |
//!
//! A reply is found to be whole and in form while it arrives, each byte looked at once; then it is read in
//! place, without an allocation. Of the forms of RESP 3 only those are known that the relay's commands can
//! be answered with; any other is an error, as is whatever passes a bound. No input is answered with a panic.

mod cut;
mod head;
mod reply;
mod request;
mod scan;

pub use cut::{Cut, Cutter};
pub use head::LINE_BYTES_MAX;
pub use reply::{Item, Parts, Replies, Reply, Walk};
pub use request::{Arguments, Bounds, Command, Request};
pub use scan::{DEPTH_MAX, Scan, Step, extent};

/// What the server sent is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It has no form that is known here.
    #[error("a reply in a form that no command of the relay has")]
    Form,
    /// Arrays lie in arrays, deeper than any command's reply.
    #[error("a reply that is nested deeper than {DEPTH_MAX} arrays")]
    TooDeep,
    /// A line has no end within the bound.
    #[error("a reply with a line of more than {LINE_BYTES_MAX} bytes")]
    LongLine,
    /// The replies to a request pass what it says they may have.
    #[error("a reply that is too large for what was asked")]
    TooLarge,
    /// There was no command that it could answer.
    #[error("a reply that nobody has asked for")]
    Unasked,
}

#[cfg(test)]
mod tests;
