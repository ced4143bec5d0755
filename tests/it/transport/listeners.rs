//! Several listeners of one server: each is served alike, all share the caps, and all end together.

use std::net::SocketAddr;

use tidemill::clock::Clock;
use tidemill::server::{ServeError, Server, TcpListen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::ground::node;
use crate::support::pipe::{self, Taking};
use crate::support::relay::{Answer, STUCK, TestRelay, memory, options, read_to_end};

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";

/// Returns the addresses of a relay's listeners that have one.
fn addresses(relay: &TestRelay) -> Vec<SocketAddr> {
    relay.bound.iter().filter_map(|bound| bound.address).collect()
}

/// Opens a connection that is served, and stays.
async fn hold(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the relay listens");
    stream.write_all(HEALTH).await.expect("it reads");
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.expect("it answers");
    assert_eq!(&head, b"HTTP/1.1 200");
    stream
}

#[tokio::test]
async fn each_is_named_and_served_and_counted_with_the_others() {
    let (listener, dialer) = pipe::listener();
    let relay = TestRelay::start_with(memory(), |options| {
        options.listen.extend([TcpListen::at(FREE), listener]);
        options.connections_per_address_max = 3;
    })
    .await;
    let addresses = addresses(&relay);
    let urls: Vec<_> = relay.bound.iter().map(|bound| bound.url.clone()).collect();
    let named = |address: &SocketAddr| format!("http://{address}");
    assert_eq!(urls, [named(&addresses[0]), named(&addresses[1]), "memory://pipe".to_owned()]);

    let mut held = Vec::new();
    for address in &addresses {
        held.push(timeout(STUCK, hold(*address)).await.expect("it is served"));
    }
    let client = dialer.connect(Taking::ALL, |transport| transport).await;
    client.send(HEALTH);
    assert!(client.more().await.starts_with(b"HTTP/1.1 200 "));

    for address in &addresses {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(Answer::parse(&read_to_end(&mut stream).await).status, 503, "{address} is full");
    }
    let fourth = dialer.connect(Taking::ALL, |transport| transport).await;
    assert!(fourth.more().await.starts_with(b"HTTP/1.1 503 "));
    drop((held, client));
    relay.stop().await;
}

#[tokio::test]
async fn all_are_closed_when_the_server_stops() {
    let relay = TestRelay::start_with(memory(), |options| options.listen.push(TcpListen::at(FREE))).await;
    let addresses = addresses(&relay);
    assert_eq!(addresses.len(), 2);
    relay.stop().await;
    for address in addresses {
        assert!(TcpStream::connect(address).await.is_err(), "{address}");
    }
}

#[tokio::test]
async fn one_that_is_taken_is_named_and_the_others_are_given_back() {
    let taken = TcpListener::bind(FREE).await.unwrap();
    let other = TcpListener::bind(FREE).await.unwrap().local_addr().unwrap();
    let taken_at = taken.local_addr().unwrap();
    let mut options = options();
    options.listen = vec![TcpListen::at(other), TcpListen::at(taken_at)];
    match Server::with_storage(node(), options, memory(), Clock::system()).await {
        Err(ServeError::Listen { address, .. }) => assert_eq!(address, taken_at.to_string()),
        other => panic!("it listens: {other:?}"),
    }
    TcpListener::bind(other).await.expect("it is free again");
}
