//! A node that is killed: what it had in rooms leaves when its time is over, and that is told once.

#[cfg(feature = "valkey")]
mod valkey {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::{Instant, timeout};

    use crate::presence::ROOM;
    use crate::support::process::Relay;
    use crate::support::raw::Stream;
    use crate::support::server::{Kind, Server};
    use crate::support::watcher::{Form, Watcher};

    const TTL: Duration = Duration::from_secs(3);
    const CONNECTIONS: usize = 20;

    async fn start(server: &Server) -> Relay {
        let url = format!("redis://127.0.0.1:{}", server.port());
        let ttl = format!("--presence-ttl-ms={}", TTL.as_millis());
        let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*url)];
        Relay::ready_at("127.0.0.1:0", &variables, &[&ttl]).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_members_of_a_killed_node_leave_once_and_in_time() {
        let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
        let (killed, stays) = (start(&server).await, start(&server).await);
        let mut watchers = Vec::new();
        for form in Form::ALL {
            let mut watcher = Watcher::open(stays.address(), ROOM, form, "").await.expect("a watch");
            watcher.expect("synced").await;
            watchers.push(watcher);
        }
        let mut connections = Vec::new();
        for number in 0..CONNECTIONS {
            for (relay, name) in [(&killed, "killed"), (&stays, "stays")] {
                let path = format!("/api/v1/stream?topics=t&presence=lobby&member={name}-{number}");
                let stream = Stream::open(relay.address(), &path, "text/event-stream", "").await;
                connections.push(stream.expect("a stream"));
            }
        }
        for watcher in &mut watchers {
            for _ in 0..2 * CONNECTIONS {
                watcher.expect("joined").await;
            }
        }
        // It was there long enough to have said so again.
        tokio::time::sleep(TTL).await;
        let at = Instant::now();
        drop(killed);
        for watcher in &mut watchers {
            let mut left = Vec::new();
            for _ in 0..CONNECTIONS {
                let frame = watcher.expect("left").await;
                assert_eq!(frame.data["reason"], json!("expired"));
                left.push(frame.name().to_owned());
            }
            let late = at.elapsed();
            println!("the last of {CONNECTIONS} has left {late:?} after its node was killed");
            // What is promised, and what a busy machine adds.
            assert!(late < TTL + Duration::from_secs(1) + Duration::from_secs(2), "{late:?}");
            left.sort_unstable();
            left.dedup();
            assert_eq!(left.len(), CONNECTIONS, "each of them once");
            assert!(left.iter().all(|name| name.starts_with("killed-")), "{left:?}");
        }
        // Nothing more is told, and the others are there.
        for watcher in &mut watchers {
            let more = timeout(TTL, watcher.next()).await;
            assert!(more.is_err(), "{more:?}");
        }
    }
}
