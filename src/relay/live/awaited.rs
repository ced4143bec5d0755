//! Waiting for what a reader gets.

use super::item::{Item, TakeLimit};
use super::outlet::Outlet;
use super::pending::{Held, Pending};
use super::reader::LiveReader;

impl<O: Outlet> LiveReader<O> {
    /// Waits until there is something, and takes it. Waits for ever where nothing is read.
    ///
    /// While the storage cannot be read, it waits: the messages come when it is back.
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not returned is not taken, and a read of storage goes on.
    pub async fn next(&mut self, limit: TakeLimit) -> Vec<Item> {
        self.awaited(limit, None).await
    }

    /// Waits as [`next`](Self::next) does. What is taken counts in the budget of what is pending, as that of
    /// [`take`](Self::take) does; with it comes what has to be kept until it is written.
    ///
    /// # Cancel safety
    /// Cancel-safe, as that is.
    pub async fn next_counted(&mut self, limit: TakeLimit) -> (Vec<Item>, Option<Held>) {
        let pending = self.feeds.pending().clone();
        let items = self.awaited(limit, Some(pending)).await;
        (items, self.held())
    }

    async fn awaited(&mut self, limit: TakeLimit, pending: Option<Pending>) -> Vec<Item> {
        loop {
            let items = self.take_in(limit, pending.clone());
            if !items.is_empty() {
                return items;
            }
            self.woken().await;
        }
    }
}
