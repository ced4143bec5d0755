//! The locks and flags of live reading. They are the usual ones; in a test, whoever comes to one lets
//! other threads go first, if the test runs its threads in an order of its own.
//!
//! It must not know what is locked.

use std::pin::Pin;

use tokio_util::task::{AbortOnDropHandle, TaskTracker};

#[cfg(not(test))]
pub(super) use parking_lot::{Mutex, RwLock};
#[cfg(not(test))]
pub(super) use std::sync::atomic::AtomicBool;

#[cfg(test)]
pub(super) use switched::{AtomicBool, Mutex, RwLock, in_any_order};

/// A future that somebody drives.
type Driven<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Has a future driven by a task of its own until it is dropped: what it holds on its way, as the turn of a
/// connection, is not kept from others by somebody who does not come back to it for a while.
///
/// # Panics
/// As the future does.
pub(super) fn driven<T: Send + 'static>(tracker: &TaskTracker, future: Driven<T>) -> Driven<T> {
    #[cfg(test)]
    if switched::is_switched() {
        return future;
    }
    let task = AbortOnDropHandle::new(tracker.spawn(future));
    Box::pin(async move {
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and with it everybody who waits.
                Err(_) => std::future::pending().await,
            },
        }
    })
}

#[cfg(test)]
mod switched {
    use std::cell::Cell;
    use std::sync::atomic::Ordering;

    use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    thread_local! {
        static IN_ANY_ORDER: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs what runs its threads in an order of its own, on this thread of the system.
    pub(in crate::relay::live) fn in_any_order<T>(run: impl FnOnce() -> T) -> T {
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                IN_ANY_ORDER.set(false);
            }
        }
        let _reset = Reset;
        IN_ANY_ORDER.set(true);
        run()
    }

    pub(super) fn is_switched() -> bool {
        // What is dropped by a fault goes on as it is.
        IN_ANY_ORDER.get() && !std::thread::panicking()
    }

    /// Lets others go first, if the order is so. Shuttle knows no time: this is its plain switch.
    fn switch() {
        if is_switched() {
            shuttle::thread::sleep(std::time::Duration::ZERO);
        }
    }

    /// Takes a lock; nobody else can have it for ever.
    fn taken<G>(lock: impl Fn() -> G, try_lock: impl Fn() -> Option<G>) -> G {
        switch();
        while is_switched() {
            if let Some(guard) = try_lock() {
                return guard;
            }
            // Only others can open it.
            shuttle::thread::yield_now();
        }
        lock()
    }

    #[derive(Debug, Default)]
    pub(in crate::relay::live) struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::relay::live) const fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        pub(in crate::relay::live) fn lock(&self) -> MutexGuard<'_, T> {
            taken(|| self.0.lock(), || self.0.try_lock())
        }

        pub(in crate::relay::live) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            switch();
            self.0.try_lock()
        }
    }

    #[derive(Debug, Default)]
    pub(in crate::relay::live) struct RwLock<T>(parking_lot::RwLock<T>);

    impl<T> RwLock<T> {
        pub(in crate::relay::live) const fn new(value: T) -> Self {
            Self(parking_lot::RwLock::new(value))
        }

        pub(in crate::relay::live) fn read(&self) -> RwLockReadGuard<'_, T> {
            taken(|| self.0.read(), || self.0.try_read())
        }

        pub(in crate::relay::live) fn write(&self) -> RwLockWriteGuard<'_, T> {
            taken(|| self.0.write(), || self.0.try_write())
        }
    }

    #[derive(Debug, Default)]
    pub(in crate::relay::live) struct AtomicBool(std::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub(in crate::relay::live) const fn new(value: bool) -> Self {
            Self(std::sync::atomic::AtomicBool::new(value))
        }

        pub(in crate::relay::live) fn load(&self, order: Ordering) -> bool {
            switch();
            self.0.load(order)
        }

        pub(in crate::relay::live) fn store(&self, value: bool, order: Ordering) {
            switch();
            self.0.store(value, order);
        }

        pub(in crate::relay::live) fn swap(&self, value: bool, order: Ordering) -> bool {
            switch();
            self.0.swap(value, order)
        }
    }
}
