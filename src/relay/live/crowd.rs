//! The readers of a feed, in rows, so that a large crowd is served by several threads, and nobody
//! waits long for a place.

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::task::yield_now;

use super::ring::Ring;
use super::round::Rounds;

/// Readers of a row: its lock and a thread are held while they are served, about 10 µs each.
const ROW_MAX: usize = 32;
/// Rows that are served by one task.
const ROWS_AT_ONCE: usize = 8;

/// One of the readers, as the feed sees it.
pub(super) trait Listener: fmt::Debug + Send + Sync {
    /// Takes what there is, or calls who does.
    fn ring(&self, rounds: &mut Rounds<'_>);
}

type Row = Mutex<Vec<Arc<dyn Listener>>>;

/// All readers of a feed.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    rows: Mutex<Vec<Arc<Row>>>,
}

/// The place of a reader.
#[derive(Debug)]
pub(super) struct Place(Arc<Row>);

impl Crowd {
    pub(super) fn enter(&self, listener: Arc<dyn Listener>) -> Place {
        let mut rows = self.rows.lock();
        // Who leaves makes room at any place; most have come and stay.
        for row in rows.iter().rev() {
            let Some(mut readers) = row.try_lock() else { continue };
            if readers.len() < ROW_MAX {
                readers.push(listener);
                drop(readers);
                return Place(row.clone());
            }
        }
        let row = Arc::new(Mutex::new(vec![listener]));
        rows.push(row.clone());
        Place(row)
    }

    pub(super) fn leave(&self, place: &Place, listener: &Arc<dyn Listener>) {
        let mut readers = place.0.lock();
        if let Some(at) = readers.iter().position(|other| Arc::ptr_eq(other, listener)) {
            readers.swap_remove(at);
        }
        let is_empty = readers.is_empty();
        drop(readers);
        if is_empty {
            self.rows.lock().retain(|row| !row.try_lock().is_some_and(|readers| readers.is_empty()));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.lock().iter().all(|row| row.lock().is_empty())
    }

    /// Returns the rows, in groups for one task each.
    pub(super) fn groups(&self) -> Vec<Group> {
        self.rows.lock().chunks(ROWS_AT_ONCE).map(|rows| Group(rows.to_vec())).collect()
    }
}

/// Some of the readers.
#[derive(Debug)]
pub(super) struct Group(Vec<Arc<Row>>);

impl Group {
    /// Tells them that there is something in the ring. Others go first after each row: what is published
    /// meanwhile comes along in the next round.
    pub(super) async fn ring(&self, ring: &RwLock<Ring>) {
        let mut rounds = Rounds::new(ring);
        for (at, row) in self.0.iter().enumerate() {
            if at > 0 {
                yield_now().await;
            }
            for reader in &*row.lock() {
                reader.ring(&mut rounds);
            }
        }
    }
}
