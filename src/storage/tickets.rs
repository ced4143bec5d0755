//! What the relay keeps of tickets, which open one stream or socket: a document that storage does not read, found by
//! an id and shown to be known by a hash.
//!
//! Tickets are many and live for a short time, so they are no documents that every node holds.

use std::time::Duration;

use bytes::Bytes;

/// Tickets of one maker: the oldest goes for a new one.
pub(crate) const TICKETS_PER_MAKER_MAX: usize = 1_000;
/// Tickets in all.
pub(crate) const TICKETS_MAX: usize = 100_000;

/// A ticket to be kept.
#[derive(Clone, Debug)]
pub struct NewTicket {
    /// Its id, letters and digits that were never an id before.
    pub id: Box<str>,
    /// The digest of who made it.
    pub maker: [u8; 16],
    /// The hash of its text.
    pub hash: [u8; 32],
    /// What it opens, and for whom.
    pub document: Bytes,
    /// How long it is kept until somebody opens something with it.
    pub opens_within: Duration,
}

/// Somebody wants to open something with a ticket.
#[derive(Clone, Debug)]
pub struct TicketClaim {
    /// Its id.
    pub id: Box<str>,
    /// The hash of the text that was shown.
    pub hash: [u8; 32],
    /// The digest of what is to be opened.
    pub place: [u8; 16],
    /// Whether that was opened before, and goes on.
    pub resumes: bool,
    /// Tells this claim from others; not 0.
    pub holder: u64,
    /// How long the ticket is kept from now on.
    pub kept_for: Duration,
}
