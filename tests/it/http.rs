//! The relay over HTTP, on a real listener. Bodies take a [`Storage`](tidemill::storage::Storage), so
//! that each property can be held against every backend.

mod bad_input;
mod bulk;
mod documents;
mod drain;
mod framing;
mod operations;
mod pages;
mod publish;
mod round_trip;
mod slow_clients;
mod topics;

/// Stamps properties for the memory backend.
macro_rules! on_memory {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(crate::support::relay::memory()).await;
                }
            )+
        }
    };
}
pub(crate) use on_memory;
