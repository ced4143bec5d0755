//! Several servers in one URL, of which the one that is the primary is used; and a password that changes while the
//! relay runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidemill::storage::valkey::{PasswordFile, Target};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Node;
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::process::Relay;
use crate::support::relay::try_send;
use crate::support::resp::{Connection, Reply};
use crate::support::server::{Kind, Server};

/// In what time publishes work once there is a primary.
const BACK_WITHIN: Duration = Duration::from_secs(5);

async fn the_one_that_is_the_primary_is_used(kind: Kind) {
    let fast = ["--repl-diskless-sync-delay", "0"];
    let (Some(mut first), Some(second)) =
        (Server::start(kind, &fast).await, Server::start(kind, &fast).await)
    else {
        return;
    };
    let port = first.port().to_string();
    assert_eq!(second.command(&["REPLICAOF", "127.0.0.1", &port]).await.text(), "OK");
    let gone = Server::start(kind, &[]).await.expect("there is such a server").port();
    let url = format!("valkey://127.0.0.1:{gone},127.0.0.1:{},127.0.0.1:{port}", second.port());
    let node = Node::start_with(1, |options, _| {
        options.target = Target::parse(&url).expect("the URL is right");
    })
    .await;
    node.is_ready_within(SOON).await;
    let shown = async || node.relay.get("/health").await.json()["backend"]["port"].as_u64();
    eventually(SOON, async || shown().await == Some(u64::from(first.port()))).await;
    assert_eq!(node.publish("t", "1", None).await.status, 201);

    eventually(SOON, async || second.command(&["XLEN", "stream:topic:t"]).await.integer() == 1).await;

    // Nobody is the primary, and that is told.
    first.kill9();
    let told = async || node.relay.get("/health").await.text().contains("no server is the primary");
    eventually(SOON, told).await;
    let refused = node.publish("t", "2", None).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");

    assert_eq!(second.command(&["REPLICAOF", "NO", "ONE"]).await.text(), "OK");
    eventually(BACK_WITHIN, async || node.publish("t", "3", None).await.status == 201).await;
    eventually(SOON, async || shown().await == Some(u64::from(second.port()))).await;
    assert_eq!(second.command(&["XLEN", "stream:topic:t"]).await.integer(), 2);

    // Who comes back as a primary has nothing of what came since: nobody is told that there is one of two.
    first.restart().await;
    assert_eq!(node.publish("t", "4", None).await.status, 201);
    second.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    let told = async || node.relay.get("/health").await.text().contains("more than one server");
    eventually(SOON, told).await;
    let of = second.port().to_string();
    assert_eq!(first.command(&["REPLICAOF", "127.0.0.1", &of]).await.text(), "OK");
    eventually(BACK_WITHIN, async || node.publish("t", "5", None).await.status == 201).await;
    assert_eq!(second.command(&["XLEN", "stream:topic:t"]).await.integer(), 4);
    node.stop().await;
}

#[tokio::test]
async fn the_one_that_is_the_primary_of_valkey_is_used() {
    the_one_that_is_the_primary_is_used(Kind::Valkey).await;
}

#[tokio::test]
async fn the_one_that_is_the_primary_of_redis_is_used() {
    the_one_that_is_the_primary_is_used(Kind::Redis).await;
}

/// A name that hosted servers have for the primary, whichever that is: it moves while the relay runs, first with the
/// server of before as a replica that lets its connections live, then with one that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_moves_is_looked_up_again() {
    let fast = ["--repl-diskless-sync-delay", "0"];
    let (Some(first), Some(second)) =
        (Server::start(Kind::Valkey, &fast).await, Server::start(Kind::Valkey, &fast).await)
    else {
        return;
    };
    // Both have one port, at addresses of their own.
    let port = first.port();
    let beside = TcpListener::bind(("127.0.0.2", port)).await.expect("the address is ours");
    let to = second.port();
    let passing = TaskTracker::new().spawn(async move {
        let mut under_way = JoinSet::new();
        while let Ok((mut client, _)) = beside.accept().await {
            under_way.spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let hosts = tempfile::NamedTempFile::new().unwrap();
    let is_at = |address: &str| {
        std::fs::write(hosts.path(), format!("127.0.0.1 localhost\n{address} primary.test\n")).unwrap();
    };
    is_at("127.0.0.1");
    let url = format!("valkey://primary.test:{port}");
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)];
    let Some(relay) = Relay::start_with_hosts(hosts.path(), &variables) else { return };
    let publishes = async |payload: &str| {
        let json = [("content-type", "application/json")];
        let path = "/api/v1/topics/t/messages";
        let answer = try_send(relay.address(), "POST", path, &json, payload.as_bytes()).await;
        answer.is_some_and(|answer| answer.status == 201)
    };
    eventually(SOON, async || publishes("1").await).await;
    let first_port = port.to_string();
    assert_eq!(second.command(&["REPLICAOF", "127.0.0.1", &first_port]).await.text(), "OK");
    eventually(SOON, async || second.command(&["XLEN", "stream:topic:t"]).await.integer() == 1).await;

    assert_eq!(second.command(&["REPLICAOF", "NO", "ONE"]).await.text(), "OK");
    assert_eq!(first.command(&["REPLICAOF", "127.0.0.1", &to.to_string()]).await.text(), "OK");
    is_at("127.0.0.2");
    eventually(BACK_WITHIN, async || publishes("2").await).await;
    assert_eq!(second.command(&["XLEN", "stream:topic:t"]).await.integer(), 2);

    eventually(SOON, async || first.command(&["XLEN", "stream:topic:t"]).await.integer() == 2).await;
    assert_eq!(first.command(&["REPLICAOF", "NO", "ONE"]).await.text(), "OK");
    passing.abort();
    is_at("127.0.0.1");
    eventually(BACK_WITHIN, async || publishes("3").await).await;
    assert_eq!(first.command(&["XLEN", "stream:topic:t"]).await.integer(), 3);
}

/// A connection of before there was a password: it was let in, so it stays.
#[derive(Debug)]
struct Line(Connection);

impl Line {
    async fn command(&mut self, command: &[&str]) -> Reply {
        self.0.command(command).await.expect("the server answers")
    }

    /// Returns how often connections have logged in by themselves.
    async fn log_ins(&mut self) -> u64 {
        let stats = self.command(&["INFO", "commandstats"]).await.text();
        let of_auth = stats.lines().find_map(|stat| stat.strip_prefix("cmdstat_auth:calls="));
        of_auth.and_then(|stat| stat.split(',').next()?.parse().ok()).unwrap_or(0)
    }

    /// Waits until connections have logged in so often.
    async fn until_log_ins(&mut self, count: u64) {
        let deadline = Instant::now() + SOON;
        while self.log_ins().await < count {
            assert!(Instant::now() < deadline, "connections do not log in again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the ids of the connections of relays, once there are as many as one has.
    async fn all_six(&mut self) -> BTreeSet<String> {
        let deadline = Instant::now() + SOON;
        loop {
            let list = self.command(&["CLIENT", "LIST"]).await.text();
            let lines = list.lines().filter(|line| line.contains("name=tidemill-"));
            let ids = lines.filter_map(|line| line.split(' ').next().map(str::to_owned));
            let ids: BTreeSet<_> = ids.collect();
            if ids.len() == 6 {
                return ids;
            }
            assert!(Instant::now() < deadline, "{list}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn a_password_that_changes_is_read_again(kind: Kind) {
    let Some(server) = Server::start(kind, &[]).await else { return };
    let mut line = Line(Connection::open(server.port()).await.unwrap());
    line.command(&["CONFIG", "SET", "requirepass", "h3cret 1"]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "h3cret 1").unwrap();
    let node = Node::start_with(server.port(), |options, _| {
        let file = PasswordFile::new(path.clone(), "of before".to_owned().into());
        options.password_file = Some(Arc::new(file));
    })
    .await;
    node.is_ready_within(SOON).await;
    let (all, logged_in) = (line.all_six().await, line.log_ins().await);

    // All connections log in again, and none is lost.
    line.command(&["CONFIG", "SET", "requirepass", "h3cret 2"]).await;
    std::fs::write(&path, "h3cret 2\n").unwrap();
    line.until_log_ins(logged_in + 6).await;
    assert_eq!(node.publish("t", "1", None).await.status, 201);
    assert_eq!(line.all_six().await, all);

    // So do those that come later; and a password that the server does not know yet harms nobody who is in.
    line.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    eventually(BACK_WITHIN, async || node.publish("t", "2", None).await.status == 201).await;
    let (others, logged_in) = (line.all_six().await, line.log_ins().await);
    assert!(others.is_disjoint(&all), "{others:?} {all:?}");
    std::fs::write(&path, "h3cret 3").unwrap();
    line.until_log_ins(logged_in + 6).await;
    assert_eq!(node.publish("t", "3", None).await.status, 201);
    assert_eq!(line.all_six().await, others);
    assert!(!node.relay.get("/health").await.text().contains("h3cret"));
    node.stop().await;
}

#[tokio::test]
async fn a_password_of_valkey_that_changes_is_read_again() {
    a_password_that_changes_is_read_again(Kind::Valkey).await;
}

#[tokio::test]
async fn a_password_of_redis_that_changes_is_read_again() {
    a_password_that_changes_is_read_again(Kind::Redis).await;
}
