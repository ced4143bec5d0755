//! What the integration tests stand on: real servers, a faulty link, and waiting without sleeping.
//!
//! It must not know what is tested.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

#[cfg(feature = "valkey")]
pub(crate) mod cluster;
pub(crate) mod collector;
pub(crate) mod dice;
pub(crate) mod doors;
pub(crate) mod faulty;
pub(crate) mod ground;
pub(crate) mod http2;
pub(crate) mod length;
pub(crate) mod load;
pub(crate) mod pipe;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod resp;
pub(crate) mod roaming;
#[cfg(feature = "valkey")]
pub(crate) mod sentinel;
pub(crate) mod server;
#[cfg(feature = "valkey")]
pub(crate) mod shared;
pub(crate) mod signals;
pub(crate) mod tls;
pub(crate) mod watcher;
pub(crate) mod ws;

/// How often [`eventually`] and [`always`] look.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `probe` answers true.
///
/// # Panics
/// It does not within `timeout`.
pub(crate) async fn eventually<F, A>(timeout: Duration, mut probe: F)
where
    F: FnMut() -> A,
    A: Future<Output = bool>,
{
    let deadline = Instant::now() + timeout;
    while !probe().await {
        assert!(Instant::now() < deadline, "did not come true within {timeout:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Checks that `probe` answers true for as long as `during`.
///
/// # Panics
/// It does not.
pub(crate) async fn always<F, A>(during: Duration, mut probe: F)
where
    F: FnMut() -> A,
    A: Future<Output = bool>,
{
    let begin = Instant::now();
    while begin.elapsed() < during {
        assert!(probe().await, "no longer true after {:?}", begin.elapsed());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
