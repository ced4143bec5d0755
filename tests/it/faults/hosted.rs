//! Servers of others, on which a relay may not do everything: what it lacks is told at start, and gone around.

use tidemill::storage::Backend as _;
use tidemill::storage::valkey::Target;

use super::Node;
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::process::run;
use crate::support::raw::Stream;
use crate::support::server::{Kind, Server};

/// What providers of servers take from their users.
const TAKEN: [&str; 9] =
    ["relay", "on", ">h3cret", "~*", "&tidemill:doorbell", "+@all", "-@admin", "-@dangerous", "+info"];

async fn a_user_with_few_rights_goes_around_what_it_lacks(kind: Kind) {
    let Some(server) = Server::start(kind, &["--maxmemory-policy", "noeviction"]).await else { return };
    let give = async |more: &[&str]| {
        let user = ["ACL", "SETUSER"];
        assert_eq!(server.command(&[&user[..], &TAKEN, more].concat()).await.text(), "OK");
    };
    give(&["-memory|usage"]).await;
    let url = format!("redis://relay:h3cret@127.0.0.1:{}", server.port());
    let node = Node::start_with(1, |options, _| {
        options.target = Target::parse(&url).expect("the URL is right");
    })
    .await;
    node.is_ready_within(SOON).await;
    let told = node.valkey.examine(false).await.expect("only strict nodes refuse").join("\n");
    for right in ["&__keyspace@*__:stream:topic:*", "+memory|usage"] {
        assert!(told.contains(right), "{told}");
    }
    assert!(!told.contains("h3cret"));

    // Live readers get what relays publish, and what others add, at once or a little later.
    assert_eq!(node.publish("t", "1", Some("key")).await.status, 201);
    let path = "/api/v1/topics/t/messages?after=earliest";
    let mut stream = Stream::open(node.relay.address, path, "application/x-ndjson", "").await.unwrap();
    let mut next = async |payload: &str| loop {
        let line = String::from_utf8(stream.until(b"\n").await.expect("a line")).unwrap();
        if line.contains(&format!("\"payload\":{payload}")) {
            return;
        }
        assert!(!line.contains("payload"), "{line}");
    };
    next("1").await;
    server.command(&["XADD", "stream:topic:t", "*", "payload", "2"]).await.text();
    next("2").await;
    let other = Node::start(server.port()).await;
    assert_eq!(other.publish("t", "3", None).await.status, 201);
    next("3").await;

    // The doorbell stays, without what it may not have.
    let id = async || {
        let list = server.command(&["CLIENT", "LIST"]).await.text();
        let line =
            list.lines().find(|line| line.contains("tidemill-doorbell") && line.contains("user=relay"));
        line.and_then(|line| line.split(' ').next()).map(str::to_owned)
    };
    let mut seen = id().await;
    for _ in 0..2 {
        assert_eq!(node.publish("t", "4", None).await.status, 201);
        next("4").await;
        let now = id().await;
        assert!(seen.is_none() || now == seen, "{seen:?} {now:?}");
        seen = now;
    }
    node.stop().await;
    other.stop().await;

    // With these two rights there is nothing to tell, and the check passes.
    give(&["+memory|usage", "&__keyspace@*__:*"]).await;
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*url)];
    let ended = run(&variables, &["doctor"], "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // The library asks for it when it connects.
    give(&["-info"]).await;
    let ended = run(&variables, &["doctor"], "");
    assert!(ended.code == Some(1) && ended.stdout.contains("+info"), "{ended:?}");
    eventually(SOON, async || id().await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_valkey_with_few_rights_goes_around_what_it_lacks() {
    a_user_with_few_rights_goes_around_what_it_lacks(Kind::Valkey).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_redis_with_few_rights_goes_around_what_it_lacks() {
    a_user_with_few_rights_goes_around_what_it_lacks(Kind::Redis).await;
}
