//! Live reading over HTTP: server-sent events, lines of JSON and long-polls, on a real listener.

mod attach;
mod client;
mod crowd;
mod drain;
mod events;
mod first;
mod gaps;
mod latest;
mod libraries;
mod lines;
mod origins;
mod over;
mod patterns;
mod poll;
mod runs;
mod several;
mod slow;
mod starts;
mod wait;

/// Makes a test of every property in memory and on a Valkey server of its own.
macro_rules! on_both_backends {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(ground) = crate::support::ground::Ground::memory().await {
                    super::$name(&ground).await;
                }
            })+
        }

        #[cfg(feature = "valkey")]
        mod valkey {
            use crate::support::server::Kind;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(ground) = crate::support::ground::Ground::on(Kind::Valkey).await {
                    super::$name(&ground).await;
                }
            })+
        }
    };
}
pub(crate) use on_both_backends;

/// Returns the numbers of a range, one on each line.
fn numbered_lines(numbers: std::ops::Range<u64>) -> String {
    numbers.flat_map(|number| [number.to_string(), "\n".to_owned()]).collect()
}
