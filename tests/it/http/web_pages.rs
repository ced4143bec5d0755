//! Web pages of other sites, as browsers send their requests: what changes something is refused, whatever
//! path it takes, and nothing has happened then.

use tidemill::access::{TrustedHosts, WebRules};
use tidemill::proto::Code;
use tidemill::storage::Storage;

use super::on_every_backend;
use crate::support::process::Relay;
use crate::support::relay::{Answer, TestRelay, memory, try_send, web};

const EVIL: &str = "https://evil.example";
const APP: &str = "https://app.example";

/// A request for every path that changes something or that is asked by a method that may.
const WRITES: &[(&str, &str, &str, &str)] = &[
    ("POST", "/api/v1/messages", "application/json", r#"{"topic":"kept","payload":"evil"}"#),
    ("POST", "/api/v1/messages", "text/plain", r#"{"topic":"kept","payload":"evil"}"#),
    ("POST", "/api/v1/messages", "", r#"{"topic":"kept","payload":"evil"}"#),
    ("POST", "/api/v1/messages/bulk", "application/json", r#"{"messages":[{"topic":"kept","payload":1}]}"#),
    ("POST", "/api/v1/topics/kept/messages", "application/json", "1"),
    ("POST", "/api/v1/topics/kept/messages", "text/plain", "evil"),
    ("POST", "/api/v1/topics/kept/messages", "", "evil"),
    ("POST", "/api/v1/topics/kept/messages", "application/x-ndjson", "1\n2\n"),
    ("POST", "/api/v1/topics", "application/json", r#"{"topic_name":"made"}"#),
    ("PUT", "/api/v1/topics/kept", "application/json", r#"{"description":"evil"}"#),
    ("DELETE", "/api/v1/topics/kept", "", ""),
    ("POST", "/api/v1/topics/kept/trim", "application/json", r#"{"keep":0}"#),
    ("PUT", "/api/v1/topics/stats", "application/json", r#"{"description":"evil"}"#),
    ("DELETE", "/api/v1/topics/stats", "", ""),
    ("POST", "/messages/poll", "application/json", r#"{"topics":["kept"],"timeout":1}"#),
    ("POST", "/nowhere", "application/json", "{}"),
    ("PATCH", "/api/v1/topics/kept", "application/json", "{}"),
    ("POST", "/health", "", ""),
];

async fn pages_of_other_sites_change_nothing(storage: Storage) {
    let relay = TestRelay::start_with(storage, |options| options.web = web(&[APP])).await;
    for topic in ["kept", "stats"] {
        relay.publish(topic, "0").await;
    }
    let from: [&[(&str, &str)]; 6] = [
        &[("origin", EVIL)],
        &[("origin", "null")],
        &[("origin", EVIL), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", "http://localhost:1")],
        &[("origin", APP), ("origin", EVIL)],
    ];
    for (method, path, kind, body) in WRITES {
        for headers in from {
            let mut headers = headers.to_vec();
            if !kind.is_empty() {
                headers.push(("content-type", kind));
            }
            let answer = relay.send(method, path, &headers, body.as_bytes()).await;
            assert_eq!(answer.status, 403, "{method} {path} {headers:?}: {answer:?}");
            assert_eq!(answer.problem().code, Code::OriginForbidden);
            assert!(answer.problem().detail.contains("`ALLOWED_ORIGINS`"));
        }
    }
    for topic in ["kept", "stats"] {
        let detail = relay.get(&format!("/api/v1/topics?cursor={}", &topic[..3])).await.json();
        assert!(detail.to_string().contains(topic) && !detail.to_string().contains("evil"), "{detail}");
        let page = relay.get(&format!("/api/v1/topics/{topic}/messages")).await.json();
        assert_eq!(page["total"], 1, "{page}");
    }
    assert_eq!(relay.get("/api/v1/topics/made").await.status, 404);
    relay.stop().await;
}

async fn pages_that_may_and_programs_do_as_they_did(storage: Storage) {
    let relay = TestRelay::start_with(storage, |options| options.web = web(&[APP])).await;
    let from: [&[(&str, &str)]; 6] = [
        &[],
        &[("origin", APP)],
        &[("origin", "http://localhost")],
        // As a browser sends it to a proxy that leaves the port out.
        &[("origin", "http://localhost:8443")],
        &[("sec-fetch-site", "same-origin"), ("origin", "null")],
        &[("sec-fetch-site", "none")],
    ];
    for headers in from {
        for (path, body) in
            [("/api/v1/messages", r#"{"topic":"kept","payload":1}"#), ("/api/v1/topics/kept/messages", "1")]
        {
            let headers = [headers, &[("content-type", "application/json")]].concat();
            let answer = relay.send("POST", path, &headers, body.as_bytes()).await;
            assert_eq!(answer.status, 201, "{headers:?} {answer:?}");
        }
        let page = relay.send("GET", "/api/v1/topics/kept/messages", headers, b"").await;
        assert_eq!(page.status, 200);
    }
    relay.stop().await;
}

async fn a_command_says_that_it_is_json(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("kept", "0").await;
    for (method, path, kind, body) in WRITES.iter().filter(|(_, path, kind, _)| {
        *kind == "application/json" && !path.ends_with("/messages") && *path != "/nowhere"
    }) {
        if *method == "PATCH" {
            continue;
        }
        for wrong in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "+json"] {
            let headers = if wrong.is_empty() { vec![] } else { vec![("content-type", wrong)] };
            let answer = relay.send(method, path, &headers, body.as_bytes()).await;
            assert_eq!(answer.status, 415, "{method} {path} {wrong}: {answer:?}");
            assert_eq!(answer.problem().code, Code::UnsupportedMediaType, "{kind}");
            assert!(answer.problem().detail.contains("application/json"));
        }
    }
    let one = relay.send("POST", "/api/v1/messages", &[], br#"{"topic":"kept","payload":"evil"}"#).await;
    assert_eq!(one.status, 415, "{one:?}");
    assert_eq!(relay.get("/api/v1/topics/kept").await.json()["length"], 1);
    relay.stop().await;
}

async fn a_relay_is_called_by_its_names(storage: Storage) {
    let loopback = |options: &mut tidemill::server::ServerOptions| {
        options.web = WebRules::new([], TrustedHosts::Loopback);
    };
    let relay = TestRelay::start_with(storage, loopback).await;
    let ask = async |method: &str, path: &str, host: &str, more: &str| {
        let body = r#"{"topic":"kept","payload":1}"#;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Answer::parse(&relay.raw(request.as_bytes()).await)
    };
    let rebound = "origin: http://evil.example:8080\r\nsec-fetch-site: same-origin\r\n";
    for more in ["", rebound, "te: trailers\r\n"] {
        for host in ["127.0.0.1:8080", "localhost", "[::1]:8080"] {
            assert_eq!(ask("POST", "/api/v1/messages", host, more).await.status, 201, "{host} {more}");
        }
        for path in ["/api/v1/messages", "/api/v1/topics/kept/messages", "/api/v1/topics/kept"] {
            for method in ["POST", "GET", "DELETE", "OPTIONS"] {
                for (host, status, code) in [
                    ("evil.example:8080", 403, Code::HostForbidden),
                    ("192.0.2.1", 403, Code::HostForbidden),
                    ("no host", 400, Code::InvalidRequest),
                    ("", 400, Code::InvalidRequest),
                    ("evil.example/", 400, Code::InvalidRequest),
                ] {
                    let answer = ask(method, path, host, more).await;
                    assert_eq!(answer.status, status, "{method} {path} at {host} {more}: {answer:?}");
                    assert_eq!(answer.problem().code, code);
                }
            }
        }
    }
    for path in ["/health", "/ready"] {
        assert_eq!(ask("GET", path, "10.0.0.7:8080", "").await.status, 200, "probes call by address");
        assert_eq!(ask("GET", path, "no host", "").await.status, 400);
    }
    let refused = ask("GET", "/api/v1/topics", "relay.example", "").await.problem();
    assert!(refused.detail.contains("`TRUSTED_HOSTS`"), "{}", refused.detail);
    let absolute =
        b"GET http://evil.example/api/v1/topics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(Answer::parse(&relay.raw(absolute).await).status, 403, "the address wins over `Host`");
    assert_eq!(relay.get("/api/v1/topics/kept").await.json()["length"], 9);
    relay.stop().await;
}

on_every_backend![
    pages_of_other_sites_change_nothing,
    pages_that_may_and_programs_do_as_they_did,
    a_command_says_that_it_is_json,
    a_relay_is_called_by_its_names,
];

#[tokio::test]
async fn preflights_are_answered_for_those_who_may() {
    let relay = TestRelay::start_with(memory(), |options| options.web = web(&[APP])).await;
    let asks = [
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,idempotency-key,last-event-id,tidemill-meta-a"),
    ];
    for path in ["/api/v1/messages", "/api/v1/topics/t/messages", "/api/v1/stream", "/nowhere"] {
        let answer = relay.send("OPTIONS", path, &[&[("origin", APP)], &asks[..]].concat(), b"").await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path} {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
        assert_eq!(
            answer.header("access-control-allow-methods"),
            Some("GET, HEAD, POST, PUT, PATCH, DELETE")
        );
        assert_eq!(answer.header("access-control-allow-headers"), Some(asks[1].1));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert!(answer.header("access-control-max-age").is_some());
        let vary: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "vary").collect();
        for name in ["origin", "access-control-request-method", "access-control-request-headers"] {
            assert!(vary.iter().any(|(_, value)| value.contains(name)), "{vary:?}");
        }
        for origin in [EVIL, "http://localhost", "null"] {
            let answer = relay.send("OPTIONS", path, &[&[("origin", origin)], &asks[..]].concat(), b"").await;
            assert_eq!(answer.problem().code, Code::OriginForbidden, "{origin}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        }
    }
    let plain = relay.send("OPTIONS", "/api/v1/messages", &[("origin", APP)], b"").await;
    assert_eq!(plain.problem().code, Code::MethodNotAllowed, "it asks for no method");
    relay.stop().await;
}

/// Every kind of answer, on either path.
#[tokio::test]
async fn every_answer_says_what_browsers_and_caches_may_do() {
    for origins in [&[][..], &[APP]] {
        let relay = TestRelay::start_with(memory(), |options| options.web = web(origins)).await;
        relay.publish("t", "1").await;
        let json = ("content-type", "application/json");
        for (method, path, headers, body, is_json) in [
            ("POST", "/api/v1/messages", &[json][..], r#"{"topic":"t","payload":1}"#, true),
            ("POST", "/api/v1/messages", &[json, ("te", "trailers")], r#"{"topic":"t","payload":1}"#, true),
            ("POST", "/api/v1/messages", &[json], "{", true),
            ("POST", "/api/v1/messages/bulk", &[json], r#"{"messages":[{"topic":"t","payload":1}]}"#, true),
            ("GET", "/api/v1/topics/t/messages", &[], "", true),
            ("GET", "/api/v1/topics/none/messages", &[], "", true),
            ("GET", "/api/v1/topics", &[("origin", APP)], "", true),
            ("GET", "/api/v1/topics/stats", &[], "", true),
            ("GET", "/health", &[], "", true),
            ("GET", "/openapi.json", &[], "", true),
            ("GET", "/asyncapi.json", &[], "", true),
            ("GET", "/nowhere", &[], "", true),
            ("GET", "/ws", &[], "", true),
            ("GET", "/problems", &[], "", false),
            ("GET", "/docs/", &[], "", false),
            ("GET", "/metrics", &[], "", false),
            ("DELETE", "/api/v1/topics/t", &[], "", false),
        ] {
            let answer = relay.send(method, path, headers, body.as_bytes()).await;
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path} {answer:?}");
            assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
            assert_eq!(answer.header("cache-control"), is_json.then_some("no-store"), "{path} {answer:?}");
            let varies = answer.headers.iter().any(|(name, value)| name == "vary" && value == "origin");
            assert_eq!(varies, !origins.is_empty(), "{path}");
        }
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_process_on_loopback_answers_to_loopback_names_unless_told() {
    const PATH: &str = "/api/v1/topics";
    let status = async |relay: &Relay, host: &str| {
        let request = format!("GET {PATH} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let mut stream = tokio::net::TcpStream::connect(relay.address()).await.expect("it listens");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("it reads");
        Answer::parse(&crate::support::relay::read_to_end(&mut stream).await).status
    };
    for (listen, setting, host, expected) in [
        ("127.0.0.1:0", None, "localhost", 200),
        ("127.0.0.1:0", None, "evil.example", 403),
        ("0.0.0.0:0", None, "evil.example", 200),
        ("127.0.0.1:0", Some("relay.example,localhost"), "relay.example", 200),
        ("127.0.0.1:0", Some("relay.example,localhost"), "evil.example", 403),
        ("127.0.0.1:0", Some("*"), "evil.example", 200),
        ("0.0.0.0:0", Some("relay.example"), "evil.example", 403),
    ] {
        let hosts = setting.iter().map(|value| ("TRUSTED_HOSTS", *value));
        let variables: Vec<_> = hosts.chain([("TIDEMILL_ACCESS", "open")]).collect();
        let relay = Relay::ready_at(listen, &variables, &[]).await;
        assert_eq!(status(&relay, host).await, expected, "{listen} {setting:?} {host}");
        let ready = try_send(relay.address(), "GET", "/ready", &[], b"").await.expect("an answer");
        assert_eq!(ready.status, 200, "probes call by any name");
    }
}
