//! Where the URLs of issuers and providers may lead, and what a provider may answer in place of what it says of itself.

use std::time::Duration;

use tidemill::access::{Issuer, Provider};
use tidemill::proto::Code;
use tokio::time::Instant;

use super::ISSUER;
use super::key_server::{Answer, KeyServer, ok};
use crate::access::closed::close;
use crate::support::relay::{TestRelay, memory};

/// A provider of log-ins is asked in the same way, for what it says of itself: what is no answer signs nobody in, and
/// leads nowhere.
#[tokio::test]
async fn a_provider_that_answers_with_something_else_is_not_believed() {
    let elsewhere = KeyServer::start(ok("{}")).await;
    let redirect = |status: &str| {
        let head = format!(
            "HTTP/1.1 {status}\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            elsewhere.url()
        );
        Answer::Bytes(head.into_bytes())
    };
    let too_large = format!("{{\"issuer\": \"x\", \"more\": \"{}\"}}", "x".repeat(2 * 1024 * 1024));
    for (name, answer) in [
        ("nonsense", ok("nonsense")),
        ("nothing", ok("")),
        ("a list", ok("[]")),
        ("an empty object", ok("{}")),
        ("a page", ok("<html></html>")),
        ("too much", ok(&too_large)),
        ("endless", Answer::Endless),
        ("moved", redirect("301 Moved Permanently")),
        ("found", redirect("302 Found")),
        ("elsewhere", redirect("307 Temporary Redirect")),
        ("an error", Answer::Bytes(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec())),
        ("half", Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{".to_vec())),
        ("no HTTP", Answer::Bytes(b"\x16\x03\x01garbage\r\n\r\n".to_vec())),
        ("silence", Answer::Silence),
    ] {
        let server = KeyServer::start(answer).await;
        let provider = format!("one;issuer=http://{};client_id=relay;client_secret=s", server.address);
        let relay = TestRelay::start_with(memory(), |options| {
            close(options);
            options.access.providers = Provider::parse_all(&provider).unwrap();
        })
        .await;
        let began = Instant::now();
        let (answer, health) = tokio::join!(relay.get("/auth/oidc/one/login"), relay.get("/health"));
        assert_eq!((answer.status, answer.problem().code), (502, Code::ProviderUnavailable), "{name}");
        assert!(began.elapsed() < Duration::from_secs(9), "{name}: {:?}", began.elapsed());
        assert!(answer.header("location").is_none() && answer.header("set-cookie").is_none(), "{name}");
        assert_eq!(health.status, 200, "{name}: others are served");
        relay.stop().await;
    }
    assert_eq!(elsewhere.asked(), 0, "a redirect is not followed");
}

/// What an operator writes, and what a provider says of itself, may not lead where machines tell their secrets.
#[tokio::test]
async fn nothing_leads_where_machines_tell_their_secrets() {
    const HOSTS: [&str; 16] = [
        "169.254.169.254",
        "169.254.170.2",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "168.63.129.16",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "169.254.43518",
        "0.0.0.0",
        "[::]",
        "224.0.0.1",
    ];
    for host in HOSTS {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}/latest/meta-data");
            let issuer = format!("{ISSUER};aud=tidemill;jwks={url}");
            assert!(Issuer::parse_all(&issuer).is_err(), "{url}");
            let provider = format!("one;issuer={url};client_id=relay;client_secret=s");
            assert!(Provider::parse_all(&provider).is_err(), "{url}");
        }
        // A provider that is right but for this.
        for field in ["token_endpoint", "jwks_uri"] {
            let server = KeyServer::start(Answer::Silence).await;
            let issuer = format!("http://{}", server.address);
            let mut description = serde_json::json!({
                "issuer": issuer, "authorization_endpoint": format!("{issuer}/auth"),
                "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys"),
            });
            description[field] = format!("http://{host}/latest").into();
            server.answers(ok(&description.to_string()));
            let provider = format!("one;issuer={issuer};client_id=relay;client_secret=s");
            let relay = TestRelay::start_with(memory(), |options| {
                close(options);
                options.access.providers = Provider::parse_all(&provider).unwrap();
            })
            .await;
            let answer = relay.get("/auth/oidc/one/login").await;
            assert_eq!(
                (answer.status, answer.problem().code),
                (502, Code::ProviderUnavailable),
                "{field} {host}"
            );
            relay.stop().await;
        }
    }
}
