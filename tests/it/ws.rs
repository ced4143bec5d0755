//! The relay over WebSocket, on a real listener: each property on the backends where it applies.

mod answered;
mod attach;
mod bad_input;
mod compat;
mod description;
mod drain;
mod fences;
mod handshake;
mod patterns;
mod schemas;
mod session;
mod slow;
mod unfinished;
mod work;

/// Makes a test of every property in memory and on Valkey; without a server for it, the ground has
/// said so.
macro_rules! on_both_backends {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            super::on_both_backends! { @on crate::support::ground::Ground::memory(); $($name),+ }
        }

        #[cfg(feature = "valkey")]
        mod valkey {
            use crate::support::server::Kind;

            super::on_both_backends! { @on crate::support::ground::Ground::on(Kind::Valkey); $($name),+ }
        }
    };
    (@on $ground:expr; $($name:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(ground) = $ground.await {
                    super::$name(ground.storage.clone()).await;
                }
            }
        )+
    };
}
use on_both_backends;
