//! R38: the relay is there before the server, and whatever happens, one connection for each kind of work is left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidemill::storage::Backend as _;
use tidemill::storage::valkey::{Address, KeyForm, Resolver, Target};
use tokio::time::Instant;

use super::Node;
use crate::support::ground::SOON;
use crate::support::proxy::Proxy;
use crate::support::resp::Connection;
use crate::support::server::{Kind, Server};
use crate::support::{always, eventually};

/// In what time a publish is refused, and in what time a relay is healthy once its server is there.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
const HEALTHY_WITHIN: Duration = Duration::from_secs(5);

/// How long to look for connections that should not be made: longer than the library's longest wait
/// between two attempts.
const QUIET: Duration = Duration::from_secs(4);

const NAMES: [&str; 6] = [
    "tidemill-change",
    "tidemill-doorbell",
    "tidemill-page",
    "tidemill-publish",
    "tidemill-read",
    "tidemill-work",
];

/// Returns how many connections of ours the server has, by name.
async fn connections(line: &mut Connection) -> BTreeMap<String, usize> {
    let list = line.command(&["CLIENT", "LIST"]).await.expect("the server answers").text();
    let names = list.split_whitespace().filter_map(|field| field.strip_prefix("name="));
    let mut counts = BTreeMap::new();
    for name in names.filter(|name| name.starts_with("tidemill")) {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

/// Waits until there is one connection for each kind of work, and nothing else connects.
async fn one_connection_for_each_work(line: &mut Connection, proxy: &Proxy) {
    let expected: BTreeMap<String, usize> = NAMES.iter().map(|name| ((*name).to_owned(), 1)).collect();
    let deadline = Instant::now() + SOON;
    loop {
        let found = connections(line).await;
        if found == expected && proxy.open() == NAMES.len() {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}, {} through the proxy", proxy.open());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_refused(node: &Node) {
    let began = Instant::now();
    let answer = node.publish("early", "1", None).await;
    assert!(began.elapsed() < REFUSED_WITHIN, "{:?}", began.elapsed());
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    let problem = answer.problem();
    assert_eq!((problem.code.as_str(), problem.retryable), ("storage_unavailable", true));
}

async fn says_that_it_has_no_server(node: &Node) {
    let health = node.relay.get("/health").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("degraded")), "{health:?}");
    assert_eq!(health.json()["backend"]["connected"], false, "{health:?}");
    let ready = node.relay.get("/ready").await;
    assert_eq!((ready.status, ready.json()["ready"].as_bool()), (503, Some(false)), "{ready:?}");
}

#[tokio::test]
async fn a_relay_waits_for_its_server_and_keeps_one_connection_for_each_work() {
    let Some(mut server) = Server::start(Kind::Valkey, &[]).await else { return };
    server.kill9();
    let proxy = Proxy::start(server.port()).await;
    proxy.refuse(true);
    let node = Node::start_with(proxy.port(), |_, _| {}).await;
    for _ in 0..20 {
        is_refused(&node).await;
        says_that_it_has_no_server(&node).await;
    }
    server.restart().await;
    proxy.refuse(false);
    let began = Instant::now();
    let healthy = async || node.relay.get("/health").await.json()["status"] == "healthy";
    eventually(HEALTHY_WITHIN, healthy).await;
    eprintln!("healthy {:?} after the server has come", began.elapsed());
    assert_eq!(node.publish("early", "1", None).await.status, 201);
    assert_eq!(node.relay.get("/ready").await.status, 200);
    let mut line = Connection::open(server.port()).await.unwrap();
    one_connection_for_each_work(&mut line, &proxy).await;

    for cut in 0..10 {
        proxy.cut();
        let began = Instant::now();
        eventually(HEALTHY_WITHIN, async || node.publish("cut", "1", None).await.status == 201).await;
        if cut == 0 {
            eprintln!("publishes {:?} after a cut", began.elapsed());
        }
    }
    one_connection_for_each_work(&mut line, &proxy).await;
    let accepted = proxy.accepted();
    always(QUIET, async || proxy.accepted() == accepted).await;
    node.stop().await;
    eventually(SOON, async || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_its_text_is_not() {
    let Some(server) = Server::start(Kind::Valkey, &["--requirepass", "right"]).await else { return };
    let node = Node::start_with(server.port(), |options, _| {
        let url = format!("redis://:h3cret@127.0.0.1:{}", server.port());
        options.target = Target::parse(&url).expect("the URL is right");
    })
    .await;
    let told = async || node.relay.get("/health").await.text().contains("WRONGPASS");
    eventually(SOON, told).await;
    is_refused(&node).await;
    assert!(!node.relay.get("/health").await.text().contains("h3cret"));
    assert!(!format!("{:?}", node.valkey).contains("h3cret"));
    node.stop().await;
}

#[tokio::test]
async fn a_refused_password_leaves_no_attempts_behind() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let proxy = Proxy::start(server.port()).await;
    // It was let in before there was a password, so it stays.
    let mut line = Connection::open(server.port()).await.unwrap();
    line.command(&["CONFIG", "SET", "requirepass", "not told to the relay"]).await.unwrap();
    let node = Node::start_with(proxy.port(), |_, _| {}).await;
    // One asks what the server is before the others come.
    eventually(SOON, async || proxy.accepted() >= 6).await;
    is_refused(&node).await;
    says_that_it_has_no_server(&node).await;
    let health = node.relay.get("/health").await;
    assert!(health.text().contains("NOAUTH"), "the health page tells why: {}", health.text());
    line.command(&["CONFIG", "SET", "requirepass", ""]).await.unwrap();
    let began = Instant::now();
    node.is_ready_within(HEALTHY_WITHIN).await;
    eprintln!("ready {:?} after the password was right", began.elapsed());
    assert_eq!(node.publish("password", "1", None).await.status, 201);
    one_connection_for_each_work(&mut line, &proxy).await;
    let accepted = proxy.accepted();
    always(QUIET, async || proxy.accepted() == accepted).await;
    node.stop().await;
    eventually(SOON, async || proxy.open() == 0).await;
}

#[tokio::test]
async fn topics_under_keys_of_the_other_form_are_told() {
    let Some(server) = Server::start(Kind::Valkey, &["--maxmemory-policy", "noeviction"]).await else {
        return;
    };
    let plain = Node::start(server.port()).await;
    let told = async |node: &Node| {
        let warnings = node.valkey.examine(false).await.expect("only strict nodes refuse");
        warnings
            .into_iter()
            .filter(|warning| warning.contains("TIDEMILL_VALKEY_KEY_FORM"))
            .collect::<Vec<_>>()
    };
    assert_eq!(plain.publish("seen", "1", None).await.status, 201);
    assert_eq!(told(&plain).await, [""; 0]);

    let braces = Node::start_with(server.port(), |options, _| options.key_form = KeyForm::Braces).await;
    braces.is_ready_within(SOON).await;
    let warnings = told(&braces).await;
    assert!(
        matches!(&warnings[..], [one] if one.contains("`stream:topic:seen` and not `stream:topic:{seen}`")),
        "{warnings:?}"
    );
    assert_eq!(braces.relay.get("/api/v1/topics/seen").await.status, 404);
    assert_eq!(told(&plain).await, [""; 0]);
    assert_eq!(braces.publish("other", "1", Some("k")).await.status, 201);
    assert_eq!(server.command(&["XLEN", "stream:topic:{other}"]).await.integer(), 1);
    assert_eq!(server.command(&["EXISTS", "idem:{other}:k"]).await.integer(), 1);
    let warnings = told(&plain).await;
    assert!(matches!(&warnings[..], [one] if one.contains("`stream:topic:{other}`")), "{warnings:?}");
    plain.stop().await;
    braces.stop().await;
}

/// Names a primary once a test knows one.
#[derive(Debug, Default)]
struct Elsewhere(Mutex<Option<u16>>);

#[async_trait]
impl Resolver for Elsewhere {
    async fn primary_of(&self, target: &Target) -> Result<Address, String> {
        assert_eq!(target.host, "watched.example");
        let port = *self.0.lock().unwrap();
        port.map(|port| Address { host: "127.0.0.1".to_owned(), port })
            .ok_or_else(|| "nobody is elected".to_owned())
    }
}

#[tokio::test]
async fn who_is_dialled_is_asked_at_every_attempt() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let elsewhere = Arc::new(Elsewhere::default());
    let resolver = elsewhere.clone();
    let node = Node::start_with(1, |options, _| {
        options.target = Target::parse("redis://watched.example").expect("a URL");
        options.resolver = resolver;
    })
    .await;
    let told = async || {
        let health = node.relay.get("/health").await.json();
        health["backend"]["warnings"].to_string().contains("address is not known: nobody is elected")
    };
    eventually(SOON, told).await;
    *elsewhere.0.lock().unwrap() = Some(server.port());
    node.is_ready_within(SOON).await;
    assert_eq!(node.publish("moved", "1", None).await.status, 201);
    let mut line = Connection::open(server.port()).await.expect("the server answers");
    assert!(connections(&mut line).await.len() >= 4, "the doorbell may be late");
    node.stop().await;
}
