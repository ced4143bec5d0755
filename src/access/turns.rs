//! Who comes with a ticket waits for others of this node who come with the same one, so that what the storage is told
//! and what is noted here have one order.
//!
//! It must not know what a ticket opens.

use tokio::sync::{Mutex, MutexGuard};

use super::token::TokenId;

/// Tickets with which somebody can come at one time: some share a place, and wait for each other too.
const AT_ONCE: usize = 64;

/// The places of those who come.
#[derive(Debug)]
pub(super) struct Turns([Mutex<()>; AT_ONCE]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Turns {
    /// Waits until nobody else comes with this ticket.
    pub(super) async fn of(&self, ticket: TokenId) -> MutexGuard<'_, ()> {
        // A digit has five bits.
        let number =
            ticket.as_str().bytes().rev().take(2).fold(0, |number, digit| number * 32 + usize::from(digit));
        self.0[number % AT_ONCE].lock().await
    }
}
