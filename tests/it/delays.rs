//! Messages for later, from outside: over HTTP and WebSocket, from the command line, over several nodes, and in every
//! order of what may happen to them.

mod client;
mod commands;
mod http;
mod model;
#[cfg(feature = "valkey")]
mod nodes;
mod ws;

/// Makes a test of every property in memory and on Valkey; without a server for it, the ground has said so.
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
