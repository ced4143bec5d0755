//! What a server tells of its replication: the part of `INFO` on it, read once with each look.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::info;
use super::resolver::Address;

/// What a server has told of its replication.
#[derive(Debug)]
pub(super) struct Replication {
    /// Whether it is a replica.
    pub(super) is_replica: bool,
    /// Which history of writes it has, where it tells that: another one from when a replica is promoted.
    pub(super) history: Option<Arc<str>>,
    /// The replicas that follow it. One that is still given what there is does not yet.
    pub(super) replicas: Vec<Address>,
    /// Of a replica that follows: how long ago it had heard from its primary, at most.
    pub(super) heard: Option<Duration>,
    /// When it was told.
    pub(super) at: Instant,
}

impl Replication {
    /// Reads what was told just now.
    pub(super) fn read(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let field = |name| info::field(&text, name);
        let is_replica = field("role") == Some("slave");
        let is_following = is_replica && field("master_link_status") == Some("up");
        let heard = field("master_last_io_seconds_ago").filter(|_| is_following);
        // What is told is whole seconds, rounded down.
        let heard = heard.and_then(|seconds| seconds.parse::<u64>().ok()?.checked_add(1));
        Self {
            is_replica,
            history: field("master_replid").map(Into::into),
            replicas: text.lines().filter_map(|line| following(line.trim_end())).collect(),
            heard: heard.map(Duration::from_secs),
            at: Instant::now(),
        }
    }

    /// Returns how many replicas follow.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.replicas.len()).unwrap_or(u32::MAX)
    }
}

/// Reads a line that tells of a replica, if it follows.
fn following(line: &str) -> Option<Address> {
    let (name, told) = line.split_once(':')?;
    name.strip_prefix("slave")?.parse::<u32>().ok()?;
    let field =
        |wanted: &str| told.split(',').find_map(|field| field.strip_prefix(wanted)?.strip_prefix('='));
    let is_following = field("state") == Some("online");
    let address = Address { host: field("ip")?.to_owned(), port: field("port")?.parse().ok()? };
    is_following.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_tells_the_replicas_that_follow_it() {
        let told = Replication::read(
            b"# Replication\r\nrole:master\r\nconnected_slaves:3\r\n\
            slave0:ip=127.0.0.1,port=7001,state=online,offset=14,lag=0\r\n\
            slave1:ip=::1,port=7002,state=online,offset=14,lag=1,type=replica\r\n\
            slave2:ip=10.0.0.3,port=7003,state=wait_bgsave,offset=0,lag=0\r\n\
            slave_repl_offset:9\r\nmaster_replid:0af1\r\n",
        );
        let replicas: Vec<String> = told.replicas.iter().map(ToString::to_string).collect();
        assert_eq!(replicas, ["127.0.0.1:7001", "[::1]:7002"]);
        assert_eq!((told.is_replica, told.history.as_deref(), told.count()), (false, Some("0af1"), 2));
        let told = Replication::read(b"role:slave\r\nslave_read_only:1\r\n");
        assert_eq!((told.is_replica, told.history, told.replicas.len()), (true, None, 0));
    }

    #[test]
    fn a_replica_tells_when_it_heard_of_its_primary() {
        let of = |link: &str, ago: &str| {
            let text =
                format!("role:slave\r\nmaster_link_status:{link}\r\nmaster_last_io_seconds_ago:{ago}\r\n");
            Replication::read(text.as_bytes()).heard
        };
        assert_eq!(of("up", "3"), Some(Duration::from_secs(4)));
        assert_eq!(of("down", "3"), None);
        assert_eq!(of("up", "-1"), None);
        assert_eq!(Replication::read(b"role:master\r\n").heard, None);
    }
}
