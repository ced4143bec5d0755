//! The relay over HTTP, on a real listener. Bodies take a [`Storage`](tidemill::storage::Storage), so
//! that each property can be held against every backend.

mod all_groups;
mod bad_input;
mod bulk;
mod conditional;
mod documents;
mod drain;
mod durations;
mod encodings;
mod fast_path;
mod framing;
mod half_close;
mod handed;
mod letters;
mod locks;
mod nodes;
mod operations;
mod ordering;
mod pages;
mod payload;
mod publish;
mod round_trip;
mod several;
mod slow_clients;
mod topics;
mod uniqueness;
mod unread;
mod web_pages;
mod work;

/// Makes a test of every property on each backend; without a server for it, the ground has said so.
macro_rules! on_every_backend {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            super::on_every_backend! { @on crate::support::ground::Ground::memory(); $($name),+ }
        }

        #[cfg(feature = "valkey")]
        mod valkey {
            use crate::support::server::Kind;

            super::on_every_backend! { @on crate::support::ground::Ground::on(Kind::Valkey); $($name),+ }
        }

        #[cfg(feature = "valkey")]
        mod redis {
            use crate::support::server::Kind;

            super::on_every_backend! { @on crate::support::ground::Ground::on(Kind::Redis); $($name),+ }
        }
    };
    (@on $ground:expr; $($name:ident),+) => {
        $(
            #[tokio::test]
            async fn $name() {
                if let Some(ground) = $ground.await {
                    super::$name(ground.storage.clone()).await;
                }
            }
        )+
    };
}
use on_every_backend;

/// Returns the numbers from 0, one on each line.
fn numbered_lines(count: u64) -> String {
    (0..count).flat_map(|number| [number.to_string(), "\n".to_owned()]).collect()
}
