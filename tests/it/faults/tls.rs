//! TLS with a private authority and client certificates, the login of an ACL user, and databases, on
//! `redis-server`: not every build of Valkey speaks TLS.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tidemill::storage::valkey::{ClientIdentity, Target};
use tokio::task::spawn_blocking;

use super::Node;
use crate::support::eventually;
use crate::support::ground::{SOON, length, topic};
use crate::support::process::{Ended, run};
use crate::support::sentinel::Sentinels;
use crate::support::server::{Kind, Server};

const PASSWORD: &str = "s3cret/of@the:relay";
const PASSWORD_IN_URL: &str = "s3cret%2Fof%40the%3Arelay";

/// Certificates in a folder of their own.
#[derive(Debug)]
struct Papers(TempDir);

impl Papers {
    /// Makes two authorities, and from the first a certificate for a server and one for a client.
    fn make() -> Self {
        let papers = Self(tempfile::tempdir().expect("a temporary folder can be made"));
        let issuer = papers.authority("authority");
        papers.authority("stranger");
        for name in ["server", "client"] {
            let key = KeyPair::generate().expect("a key");
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let certificate =
                CertificateParams::new(names).expect("names").signed_by(&key, &issuer).expect("a signature");
            papers.write(&format!("{name}.crt"), &certificate.pem());
            papers.write(&format!("{name}.key"), &key.serialize_pem());
        }
        papers
    }

    fn authority(&self, name: &str) -> Issuer<'static, KeyPair> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("a signature");
        self.write(&format!("{name}.crt"), &certificate.pem());
        Issuer::new(params, key)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the folder is ours");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("it was written")
    }

    /// Starts a server that wants a client certificate and the login of a user.
    async fn server(&self) -> Option<Server> {
        let (certificate, key, authority) =
            (self.text("server.crt"), self.text("server.key"), self.text("authority.crt"));
        let password = format!(">{PASSWORD}");
        let arguments = [
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &authority],
            ["--tls-auth-clients", "yes"],
        ];
        let users = ["--user", "default", "off", "--user", "relay", "on", &password, "~*", "&*", "+@all"];
        Server::start_tls(Kind::Redis, &[&arguments.concat()[..], &users].concat()).await
    }
}

fn url(port: u16, password: &str, database: u32) -> String {
    format!("rediss://relay:{password}@127.0.0.1:{port}/{database}")
}

async fn node(papers: &Papers, port: u16, database: u32) -> Node {
    let node = Node::start_with(port, |options, _| {
        options.target = Target::parse(&url(port, PASSWORD_IN_URL, database)).expect("the URL is right");
        options.ca_pem = Some(papers.bytes("authority.crt"));
        options.client_identity = Some(ClientIdentity {
            certificate_pem: papers.bytes("client.crt"),
            key_pem: papers.bytes("client.key"),
        });
    })
    .await;
    node.is_ready_within(SOON).await;
    node
}

#[tokio::test]
async fn a_relay_speaks_tls_logs_in_and_keeps_to_its_database() {
    let papers = Papers::make();
    let Some(server) = papers.server().await else { return };
    let third = node(&papers, server.port(), 3).await;
    assert_eq!(third.publish("tls", "1", Some("key")).await.status, 201);
    assert_eq!(third.publish("tls", "1", Some("key")).await.header("idempotency-replayed"), Some("true"));
    assert_eq!(length(&third.storage, &topic("tls")).await, 1);
    let first = node(&papers, server.port(), 0).await;
    assert_eq!(first.relay.get("/api/v1/topics/tls").await.status, 404, "another database");
    for node in [first, third] {
        assert!(!node.relay.get("/health").await.text().contains("s3cret"));
        assert!(!format!("{:?}", node.valkey).contains("s3cret"));
        node.stop().await;
    }
}

/// Of several servers each is spoken to as the one would be.
#[tokio::test]
async fn a_primary_among_others_is_found_over_tls() {
    let papers = Papers::make();
    let Some(server) = papers.server().await else { return };
    let hosts = format!("127.0.0.1:1,127.0.0.1:{}", server.port());
    let of_all =
        url(server.port(), PASSWORD_IN_URL, 3).replace(&format!("127.0.0.1:{}", server.port()), &hosts);
    let node = Node::start_with(1, |options, _| {
        options.target = Target::parse(&of_all).expect("the URL is right");
        options.ca_pem = Some(papers.bytes("authority.crt"));
        options.client_identity = Some(ClientIdentity {
            certificate_pem: papers.bytes("client.crt"),
            key_pem: papers.bytes("client.key"),
        });
    })
    .await;
    node.is_ready_within(SOON).await;
    assert_eq!(node.publish("tls", "1", None).await.status, 201);
    node.stop().await;
}

/// The sentinels, what they watch, and what is told between them.
#[tokio::test]
async fn a_primary_that_sentinels_watch_is_found_and_followed_over_tls() {
    let papers = Papers::make();
    let (certificate, key, authority) =
        (papers.text("server.crt"), papers.text("server.key"), papers.text("authority.crt"));
    let tls = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &authority];
    let Some(mut sentinels) = Sentinels::start_with_tls(Kind::Redis, 1, &tls).await else { return };
    let url = sentinels.url().replace("valkey+sentinel", "rediss+sentinel");
    let start = async |authority: &str| {
        Node::start_with(1, |options, _| {
            options.target = Target::parse(&url).expect("the URL is right");
            options.sentinel_tls = true;
            options.ca_pem = Some(papers.bytes(authority));
            options.client_identity = Some(ClientIdentity {
                certificate_pem: papers.bytes("client.crt"),
                key_pem: papers.bytes("client.key"),
            });
        })
        .await
    };
    let node = start("authority.crt").await;
    node.is_ready_within(SOON).await;
    assert_eq!(node.publish("tls", "1", None).await.status, 201);
    assert_eq!(sentinels.server(0).command(&["XLEN", "stream:topic:tls"]).await.integer(), 1);

    sentinels.server_mut(0).kill9();
    let now = sentinels.promoted(0).await;
    eventually(SOON, async || node.publish("tls", "2", None).await.status == 201).await;
    assert_eq!(sentinels.server(now).command(&["XLEN", "stream:topic:tls"]).await.integer(), 2);
    node.stop().await;

    // Who has a certificate from elsewhere is no sentinel.
    let node = start("stranger.crt").await;
    let told = async || node.relay.get("/health").await.text().to_lowercase().contains("certificate");
    eventually(SOON, told).await;
    assert_eq!(node.relay.get("/ready").await.status, 503);
    node.stop().await;
}

#[tokio::test]
async fn without_the_right_papers_no_connection_stands() {
    let papers = Papers::make();
    let Some(server) = papers.server().await else { return };
    for (authority, shows_its_own) in [("stranger", true), ("authority", false)] {
        let node = Node::start_with(server.port(), |options, _| {
            options.target =
                Target::parse(&url(server.port(), PASSWORD_IN_URL, 0)).expect("the URL is right");
            options.ca_pem = Some(papers.bytes(&format!("{authority}.crt")));
            options.client_identity = shows_its_own.then(|| ClientIdentity {
                certificate_pem: papers.bytes("client.crt"),
                key_pem: papers.bytes("client.key"),
            });
        })
        .await;
        // Of the connections, publishing is told of first.
        let told = async || node.relay.get("/health").await.text().to_lowercase().contains("certificate");
        eventually(SOON, told).await;
        assert_eq!(node.relay.get("/ready").await.status, 503);
        assert_eq!(node.publish("tls", "1", None).await.status, 503);
        node.stop().await;
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_knows_is_one_line_of_a_client() {
    let papers = Papers::make();
    let Some(server) = papers.server().await else { return };
    let url = format!("https://localhost:{}", server.port());
    for command in ["read", "tail"] {
        let url = url.clone();
        let ended =
            spawn_blocking(move || run(&[("TIDEMILL_URL", &url)], &[command, "t"], "")).await.unwrap();
        assert!(ended.error(1).contains("ertificate"), "{ended:?}");
    }
}

/// Runs `tidemill doctor` with these papers.
async fn check(papers: &Papers, url: String, authority: &str, client: Option<&str>) -> Ended {
    let path = |name: &str, kind: &str| -> String {
        Path::new(&papers.text(&format!("{name}.{kind}"))).display().to_string()
    };
    let mut variables = vec![("VALKEY_URL", url), ("VALKEY_CA_PATH", path(authority, "crt"))];
    if let Some(client) = client {
        variables.push(("TIDEMILL_VALKEY_CLIENT_CERT_PATH", path(client, "crt")));
        variables.push(("TIDEMILL_VALKEY_CLIENT_KEY_PATH", path(client, "key")));
    }
    spawn_blocking(move || {
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        run(&variables, &["doctor"], "")
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn check_tells_what_is_wrong_with_certificates_and_logins() {
    let papers = Papers::make();
    let Some(server) = papers.server().await else { return };
    let port = server.port();
    let right = check(&papers, url(port, PASSWORD_IN_URL, 3), "authority", Some("client")).await;
    assert!(right.lines()[0].starts_with("✓ connect"), "{right:?}");

    let wrong = url(port, "wr0ng", 3);
    for (authority, client, url, advice) in [
        ("stranger", Some("client"), url(port, PASSWORD_IN_URL, 3), "VALKEY_CA_PATH"),
        ("authority", None, url(port, PASSWORD_IN_URL, 3), "TIDEMILL_VALKEY_CLIENT_CERT_PATH"),
        ("authority", Some("client"), wrong, "VALKEY_PASSWORD"),
    ] {
        let ended = check(&papers, url, authority, client).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.starts_with("✗ connect"), "{ended:?}");
        assert!(ended.stdout.contains(advice), "{ended:?}");
        assert_eq!(ended.stderr, "", "no library says it again");
        assert!(!format!("{ended:?}").contains("s3cret") && !format!("{ended:?}").contains("wr0ng"));
    }
}
