//! Which web pages may read from the relay.

use super::client::Coming;
use crate::support::relay::{TestRelay, memory, web};

const PATH: &str = "/api/v1/topics/origins/messages";

#[tokio::test]
async fn only_a_named_origin_may_read() {
    let origins = ["https://app.example.com", "http://localhost:8000"];
    let relay = TestRelay::start_with(memory(), |options| options.web = web(&origins)).await;
    relay.publish("origins", "1").await;
    for (origin, admitted) in [
        ("https://app.example.com", true),
        ("http://localhost:8000", true),
        ("http://app.example.com", false),
        ("https://app.example.com:443", false),
        ("https://app.example.com.evil.example", false),
        ("https://evil-app.example.com", false),
        ("https://APP.example.com", false),
        ("https://example.com", false),
        ("null", false),
        ("*", false),
        ("", false),
    ] {
        let page = relay.send("GET", PATH, &[("origin", origin)], b"").await;
        let expected = admitted.then_some(origin);
        assert_eq!(page.status, 200);
        assert_eq!(page.header("access-control-allow-origin"), expected, "{origin}");
        assert_eq!(page.header("access-control-allow-credentials"), None);
        let coming = Coming::events(relay.address, PATH, &[("origin", origin)]).await.unwrap();
        assert_eq!(coming.head.header("access-control-allow-origin"), expected, "{origin}");
        let varies = coming.head.headers.iter().any(|(name, value)| name == "vary" && value == "origin");
        assert!(varies, "a cache must not hand this answer to another page");
    }
    let twice = [("origin", "https://app.example.com"), ("origin", "https://evil.example")];
    assert_eq!(relay.send("GET", PATH, &twice, b"").await.header("access-control-allow-origin"), None);
    relay.stop().await;
}
