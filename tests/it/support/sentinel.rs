//! A primary with replicas that real sentinels watch on this machine: made, hurt, failed over and ended.
//!
//! It must not know the relay, nor what is tested.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::eventually;
use super::resp::Reply;
use super::server::{Kind, Server};

/// The name by which sentinels know the primary.
pub(crate) const NAME: &str = "relay";
/// Sentinels, and how many of them must agree that the primary is gone.
const SENTINELS: usize = 3;
const QUORUM: &str = "2";
/// After which time a sentinel takes a server for gone.
const DOWN_AFTER_MS: &str = "1000";
/// How long a failover may take before another is begun.
const FAILOVER_MAX_MS: &str = "5000";
/// How long it may take until all know of each other, or of a new primary.
const SETTLES_WITHIN: Duration = Duration::from_secs(40);
/// How often to look for a new primary.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a server may take to tell what it is.
const TELLS_WITHIN: Duration = Duration::from_millis(500);

/// A primary, its replicas, and three sentinels. Servers are counted from 0, which is the first primary. Dropping it
/// kills them all.
#[derive(Debug)]
pub(crate) struct Sentinels {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
}

impl Sentinels {
    /// Starts them, and waits until all know of each other and the replicas are up to date.
    /// Returns `None` where there is no such server on this machine.
    pub(crate) async fn start(kind: Kind, replicas: usize) -> Option<Self> {
        Self::start_with(kind, replicas, &[], &[]).await
    }

    /// The same, with arguments for the servers and for the sentinels.
    pub(crate) async fn start_with(
        kind: Kind,
        replicas: usize,
        server: &[&str],
        sentinel: &[&str],
    ) -> Option<Self> {
        let arguments = [&["--repl-diskless-sync-delay", "0"], server].concat();
        let servers = join_all((0..=replicas).map(|_| Server::start(kind, &arguments))).await;
        let sentinels = join_all((0..SENTINELS).map(|_| Server::start_sentinel(kind, sentinel))).await;
        Self::watching(servers, sentinels).await
    }

    /// The same with TLS between all of them and for who asks them; `tls` names certificates and keys.
    pub(crate) async fn start_with_tls(kind: Kind, replicas: usize, tls: &[&str]) -> Option<Self> {
        let arguments = [&["--repl-diskless-sync-delay", "0"], tls].concat();
        let server = |_| Server::start_with_tls_beside(kind, &arguments);
        let servers = join_all((0..=replicas).map(server)).await;
        let sentinel = |_| Server::start_sentinel_with_tls_beside(kind, tls);
        let sentinels = join_all((0..SENTINELS).map(sentinel)).await;
        Self::watching(servers, sentinels).await
    }

    async fn watching(servers: Vec<Option<Server>>, sentinels: Vec<Option<Server>>) -> Option<Self> {
        let started = Self {
            servers: servers.into_iter().collect::<Option<_>>()?,
            sentinels: sentinels.into_iter().collect::<Option<_>>()?,
        };
        let port = started.servers[0].told_port().to_string();
        for replica in &started.servers[1..] {
            orders(replica, &["REPLICAOF", "127.0.0.1", &port]).await;
        }
        let is_fresh = async |replica: &Server| {
            let replication = replica.command(&["INFO", "replication"]).await.text();
            replication.lines().any(|line| line == "master_link_status:up")
        };
        for replica in &started.servers[1..] {
            eventually(SETTLES_WITHIN, async || is_fresh(replica).await).await;
        }
        for sentinel in &started.sentinels {
            orders(sentinel, &["SENTINEL", "MONITOR", NAME, "127.0.0.1", &port, QUORUM]).await;
            for (setting, value) in
                [("down-after-milliseconds", DOWN_AFTER_MS), ("failover-timeout", FAILOVER_MAX_MS)]
            {
                orders(sentinel, &["SENTINEL", "SET", NAME, setting, value]).await;
            }
        }
        started.settled().await;
        Some(started)
    }

    /// Waits until all sentinels know of each other and of the replicas.
    async fn settled(&self) {
        for sentinel in &self.sentinels {
            let count = async |of: &str| sentinel.command(&["SENTINEL", of, NAME]).await.array().len();
            eventually(SETTLES_WITHIN, async || {
                count("SENTINELS").await == SENTINELS - 1 && count("REPLICAS").await == self.servers.len() - 1
            })
            .await;
        }
    }

    /// Returns the addresses of the sentinels, as they stand in a URL.
    pub(crate) fn addresses(&self) -> String {
        let addresses = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.told_port()));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Returns a URL that a relay is given.
    pub(crate) fn url(&self) -> String {
        format!("valkey+sentinel://{}/{NAME}", self.addresses())
    }

    pub(crate) fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    pub(crate) fn server_mut(&mut self, index: usize) -> &mut Server {
        &mut self.servers[index]
    }

    pub(crate) fn sentinel(&self, index: usize) -> &Server {
        &self.sentinels[index]
    }

    /// Returns the port of the primary, as a sentinel tells it, if that tells one.
    pub(crate) async fn told_by(&self, sentinel: usize) -> Option<u16> {
        let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        let told = self.sentinels[sentinel].try_command(&asked, TELLS_WITHIN).await?;
        match told {
            Reply::Array(address) => address[1].text().parse().ok(),
            _ => None,
        }
    }

    /// Returns the server that most of the sentinels take for the primary, if it is one.
    pub(crate) async fn primary(&self) -> Option<usize> {
        let told = join_all((0..SENTINELS).map(|sentinel| self.told_by(sentinel))).await;
        let votes = |server: &Server| told.iter().filter(|port| **port == Some(server.told_port())).count();
        let index = self.servers.iter().position(|server| votes(server) * 2 > SENTINELS)?;
        let role = self.servers[index].try_command(&["ROLE"], TELLS_WITHIN).await?;
        (role.array()[0].text() == "master").then_some(index)
    }

    /// Waits until another server than this one is the primary, and returns which.
    ///
    /// # Panics
    /// None is.
    pub(crate) async fn promoted(&self, not: usize) -> usize {
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            match self.primary().await {
                Some(index) if index != not => return index,
                told => assert!(Instant::now() < deadline, "no other primary, but {told:?}"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Has a sentinel replace the primary, and returns the server that is it then.
    pub(crate) async fn failover(&self) -> usize {
        self.failover_by(0).await
    }

    /// The same, by one of them.
    pub(crate) async fn failover_by(&self, sentinel: usize) -> usize {
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            let before = self.primary().await;
            let answer =
                self.sentinels[sentinel].command(&["SENTINEL", "FAILOVER", NAME]).await.text_or_error();
            match before {
                Some(index) if answer == "OK" => return self.promoted(index).await,
                // One before is not over.
                _ => assert!(Instant::now() < deadline, "no failover: {answer}"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Sends a server a command that it must take.
async fn orders(server: &Server, command: &[&str]) {
    assert_eq!(server.command(command).await, Reply::Simple("OK".to_owned()), "{command:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn are_sentinels(kind: Kind) {
        let began = Instant::now();
        let Some(mut sentinels) = Sentinels::start(kind, 2).await else { return };
        eprintln!("formed in {:?}", began.elapsed());
        assert_eq!(sentinels.primary().await, Some(0));
        assert_eq!(sentinels.url().matches("127.0.0.1:").count(), SENTINELS);
        assert_eq!(sentinels.server(0).command(&["SET", "key", "kept"]).await.text(), "OK");

        // A sentinel that is frozen meanwhile tells of the old primary for a moment.
        sentinels.sentinel(2).sigstop();
        let began = Instant::now();
        let second = sentinels.failover().await;
        eprintln!("failed over in {:?}", began.elapsed());
        assert_ne!(second, 0);
        assert_eq!(sentinels.told_by(2).await, None);
        sentinels.sentinel(2).sigcont();
        let port = sentinels.server(second).port();
        eventually(SETTLES_WITHIN, async || sentinels.told_by(2).await == Some(port)).await;
        assert_eq!(sentinels.server(second).command(&["GET", "key"]).await.text(), "kept");

        let began = Instant::now();
        sentinels.server_mut(second).kill9();
        let third = sentinels.promoted(second).await;
        eprintln!("promoted {:?} after the primary was killed", began.elapsed());
        assert_eq!(sentinels.server(third).command(&["GET", "key"]).await.text(), "kept");
        sentinels.server_mut(second).restart().await;
        let demoted = async || {
            let role = sentinels.server(second).command(&["ROLE"]).await;
            role.array()[0].text() == "slave"
        };
        eventually(SETTLES_WITHIN, demoted).await;
    }

    #[tokio::test]
    async fn sentinels_of_valkey_watch_a_primary() {
        are_sentinels(Kind::Valkey).await;
    }

    #[tokio::test]
    async fn sentinels_of_redis_watch_a_primary() {
        are_sentinels(Kind::Redis).await;
    }
}
