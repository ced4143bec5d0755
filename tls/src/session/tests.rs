//! Both sides in one process, with bytes that come in any pieces: what is agreed on, read and sealed, and that
//! nothing is held by who has nothing to do.

use std::io::{Read as _, Write as _};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

use super::*;
use crate::{IdentityError, ServerIdentity, ServerTls};

fn papers() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["tide.example".to_owned()]).expect("a certificate")
}

fn server(papers: &CertifiedKey<KeyPair>) -> ServerTls {
    let (certificate, key) = (papers.cert.pem(), papers.signing_key.serialize_pem());
    ServerTls::new(ServerIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("they fit"))
}

fn client(
    papers: &CertifiedKey<KeyPair>,
    version: &'static SupportedProtocolVersion,
    protocols: &[&[u8]],
) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(papers.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("tide.example").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a session")
}

/// Hands everything over that the client has to send, in pieces; returns what the server read.
fn hand_over(client: &mut ClientConnection, server: &mut ServerSession, piece: usize) -> Vec<u8> {
    let (mut records, mut plain) = (Vec::new(), Vec::new());
    while client.wants_write() {
        client.write_tls(&mut records).expect("a vector takes everything");
    }
    for bytes in records.chunks_mut(piece) {
        server.receive(bytes, |bytes| plain.extend_from_slice(bytes)).expect("well-formed records");
    }
    plain
}

/// Hands everything over that the server has to send; returns what the client read.
fn hand_back(server: &mut ServerSession, sealed: &[u8], client: &mut ClientConnection) -> Vec<u8> {
    let records = [server.outgoing(), sealed].concat();
    server.note_sent(server.outgoing().len());
    let (mut records, mut plain) = (&records[..], Vec::new());
    while !records.is_empty() {
        client.read_tls(&mut records).expect("room");
        let state = client.process_new_packets().expect("well-formed records");
        let mut read = vec![0; state.plaintext_bytes_to_read()];
        client.reader().read_exact(&mut read).expect("so many bytes");
        plain.extend(read);
    }
    plain
}

#[test]
fn bytes_go_both_ways_in_whatever_pieces_they_come() {
    let papers = papers();
    let server = server(&papers);
    for version in [&version::TLS12, &version::TLS13] {
        for (piece, protocol) in [(1, H2), (7, b"http/1.1"), (1_000, H2), (RECORD_BYTES_MAX, b"")] {
            let protocols = [protocol];
            let mut client = client(&papers, version, if protocol.is_empty() { &[] } else { &protocols });
            let mut session = server.session().expect("a session");
            while client.is_handshaking() || !session.is_agreed() {
                hand_over(&mut client, &mut session, piece);
                hand_back(&mut session, &[], &mut client);
            }
            assert_eq!(session.is_http2(), protocol == H2);
            let mut scratch = vec![0; RECORD_BYTES_MAX];
            for length in [1, 5_000, PLAIN_BYTES_MAX] {
                let text: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).expect("small")).collect();
                client.writer().write_all(&text).expect("room");
                assert_eq!(hand_over(&mut client, &mut session, piece), text);
                let sealed = session.seal(&text, &mut scratch).expect("keys").to_vec();
                assert_eq!(hand_back(&mut session, &sealed, &mut client), text);
                // Where there is no room to seal it in, it is kept to be sent.
                assert!(session.seal(&text, &mut []).expect("keys").is_empty());
                assert_eq!(hand_back(&mut session, &[], &mut client), text);
            }
            assert_eq!((session.partial.capacity(), session.outgoing.capacity()), (0, 0), "idle");
            session.end().expect("keys");
            hand_back(&mut session, &[], &mut client);
            client.send_close_notify();
            hand_over(&mut client, &mut session, piece);
            assert!(session.is_over());
        }
    }
}

#[test]
fn keys_are_changed_on_the_way() {
    let papers = papers();
    let server = server(&papers);
    let mut client = client(&papers, &version::TLS13, &[]);
    let mut session = server.session().expect("a session");
    while client.is_handshaking() || !session.is_agreed() {
        hand_over(&mut client, &mut session, 100);
        hand_back(&mut session, &[], &mut client);
    }
    let mut scratch = vec![0; RECORD_BYTES_MAX];
    for number in 0..5 {
        client.refresh_traffic_keys().expect("TLS 1.3");
        client.writer().write_all(&[number]).expect("room");
        assert_eq!(hand_over(&mut client, &mut session, 3), [number]);
        let sealed = session.seal(&[number], &mut scratch).expect("keys").to_vec();
        assert_eq!(hand_back(&mut session, &sealed, &mut client), [number]);
    }
}

#[test]
fn what_is_no_tls_ends_with_an_alert() {
    let server = server(&papers());
    for bytes in [&b"\x16\x03\x01\xff\xff"[..], b"\x17\x03\x03\x00\x01x", b"\x00\x00\x00\x00\x00"] {
        let mut session = server.session().expect("a session");
        session.receive(&mut bytes.to_vec(), |_| panic!("nothing is read")).expect_err("it is none");
        assert_eq!(session.outgoing().first(), Some(&21), "an alert");
        session.seal(b"x", &mut []).expect_err("there are no keys");
        session.end().expect_err("there are no keys");
    }
}

#[test]
fn a_hello_without_end_is_not_held() {
    let server = server(&papers());
    let mut session = server.session().expect("a session");
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0];
    record.resize(5 + 0x4000, 0);
    let refused = (0..8).any(|_| session.receive(&mut record.clone(), |_| {}).is_err());
    assert!(refused && session.partial.len() <= 2 * RECORD_BYTES_MAX);
}

#[test]
fn what_cannot_be_shown_is_told_apart() {
    let (papers, others) = (self::papers(), self::papers());
    let (certificate, key) = (papers.cert.pem(), papers.signing_key.serialize_pem());
    let other_key = others.signing_key.serialize_pem();
    let told = |certificate: &str, key: &str| {
        let refused = ServerIdentity::from_pem(certificate.as_bytes(), key.as_bytes());
        let error = refused.expect_err("it cannot be shown");
        assert!(!error.to_string().contains("MIG"), "nothing of a key is told");
        error
    };
    assert!(matches!(told("", &key), IdentityError::NoCertificate));
    assert!(matches!(told(&key, &key), IdentityError::NoCertificate));
    assert!(matches!(told(&certificate, ""), IdentityError::NoKey));
    assert!(matches!(told(&certificate, &certificate), IdentityError::NoKey));
    assert!(matches!(told(&certificate, &other_key), IdentityError::OtherKey));
    let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    assert!(matches!(told(garbage, &key), IdentityError::BadCertificate));
    let garbage = "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n";
    assert!(matches!(told(&certificate, garbage), IdentityError::BadKey));
}
