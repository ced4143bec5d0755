//! Where bytes arrive: one place for each thread, since they do not stay.

use std::cell::RefCell;

/// Bytes that are read from a connection at once.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    static ARRIVALS: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Lends the place where bytes arrive on this thread: 16 KiB.
///
/// # Panics
/// `take` asks for it again.
pub fn with_arrivals<T>(take: impl FnOnce(&mut [u8]) -> T) -> T {
    ARRIVALS.with_borrow_mut(|arrivals| take(arrivals))
}
