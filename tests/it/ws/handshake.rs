//! The upgrade: subprotocols, origins, and what is no upgrade.

use tidemill::proto::Code;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Error;

use crate::support::relay::{TestRelay, memory};
use crate::support::ws::WsClient;

const UPGRADE: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("connection", "upgrade"),
];

#[tokio::test]
async fn the_subprotocol_chooses_the_encoding() {
    let relay = TestRelay::start(memory()).await;
    for (offered, chosen) in [
        ("tidemill.bincode.v1", Some("tidemill.bincode.v1")),
        ("bearer, bearer.a.b.c", Some("bearer")),
        ("bearer, bearer.a.b.c, tidemill.bincode.v1", Some("tidemill.bincode.v1")),
    ] {
        let client = WsClient::connect_with(relay.address, &[("sec-websocket-protocol", offered)]).await;
        assert_eq!(client.expect("an upgrade").protocol.as_deref(), chosen, "{offered}");
    }
    assert_eq!(WsClient::connect(relay.address).await.protocol, None);
    relay.stop().await;
}

#[tokio::test]
async fn a_web_page_of_another_site_may_not_connect() {
    let relay = TestRelay::start(memory()).await;
    let own = format!("http://{}", relay.address);
    for (origins, allowed) in [
        (&[own.as_str()][..], true),
        (&["https://allowed.example"], true),
        (&["https://evil.example"], false),
        (&["http://allowed.example"], false),
        (&["https://allowed.example.evil.example"], false),
        (&["null"], false),
        (&[""], false),
        (&["https://allowed.example", "https://evil.example"], false),
    ] {
        let headers: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
        match WsClient::connect_with(relay.address, &headers).await {
            Ok(client) => {
                assert!(allowed, "{origins:?}");
                client.close().await;
            }
            Err(Error::Http(response)) => {
                assert_eq!((response.status().as_u16(), allowed), (403, false), "{origins:?}");
            }
            Err(other) => panic!("{origins:?}: {other}"),
        }
    }
    let mut headers = UPGRADE.to_vec();
    headers.push(("origin", "https://evil.example"));
    let refused = relay.send("GET", "/ws", &headers, b"").await;
    assert_eq!(refused.problem().code, Code::OriginForbidden);
    relay.stop().await;
}

#[tokio::test]
async fn what_is_no_upgrade_is_told_so() {
    let relay = TestRelay::start(memory()).await;
    for (method, without, with) in [
        ("GET", "upgrade", None),
        ("GET", "connection", None),
        ("GET", "sec-websocket-key", None),
        ("GET", "sec-websocket-version", None),
        ("GET", "sec-websocket-version", Some("8")),
        ("GET", "sec-websocket-key", Some("short")),
        ("GET", "sec-websocket-key", Some("")),
        // As long as a key, and none.
        ("GET", "sec-websocket-key", Some("!!!!!!!!!!!!!!!!!!!!!!!!")),
        ("GET", "sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ=")),
        ("GET", "sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZSE=")),
        ("GET", "sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZSEh")),
        ("GET", "sec-websocket-key", Some("dGhlIHNhbXBsZSBub25j====")),
        ("HEAD", "", None),
    ] {
        let mut headers = UPGRADE.to_vec();
        headers.retain(|(name, _)| *name != without);
        if let Some(value) = with {
            headers.push((without, value));
        }
        let answer = relay.send(method, "/ws", &headers, b"").await;
        assert_eq!(answer.status, 400, "{method} without {without}: {answer:?}");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        if method == "GET" {
            assert_eq!(answer.problem().code, Code::InvalidRequest);
        }
    }
    let twice = [&UPGRADE[..], &UPGRADE[2..3]].concat();
    assert_eq!(relay.send("GET", "/ws", &twice, b"").await.problem().code, Code::InvalidRequest);
    // Made of letters, so that bits are left behind the last byte.
    let letters = [("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAB==")];
    let letters = [&UPGRADE[..2], &letters, &UPGRADE[3..]].concat();
    let mut head = "GET /ws HTTP/1.1\r\nhost: relay\r\n".to_owned();
    for (name, value) in letters {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let mut stream = relay.connect().await;
    stream.write_all([&head, "\r\n"].concat().as_bytes()).await.expect("the relay reads");
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 101");
    assert_eq!(relay.post("/ws", "{}").await.problem().code, Code::MethodNotAllowed);
    relay.stop().await;
}

#[tokio::test]
async fn a_websocket_counts_as_a_connection_until_it_ends() {
    let relay = TestRelay::start_with(memory(), |options| options.connections_max = 2).await;
    let first = WsClient::connect(relay.address).await;
    let second = WsClient::connect(relay.address).await;
    assert_eq!(relay.get("/health").await.status, 503, "both places are taken");
    second.close().await;
    crate::support::eventually(std::time::Duration::from_secs(5), || async {
        relay.get("/health").await.status == 200
    })
    .await;
    first.close().await;
    relay.stop().await;
}
