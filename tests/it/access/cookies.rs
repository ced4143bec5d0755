//! Cookies: how a browser gets one, what is stronger, and what does not count.
//!
//! | file | owns |
//! |---|---|
//! | `pages` | for which pages a cookie counts, on every door |
//! | `over` | what ends what is open by a cookie, on every node |

mod over;
mod pages;

use serde_json::{Value, json};
use tidemill::http::OwnUrl;
use tidemill::limits::{Network, TrustedProxies};
use tidemill::proto::Code;

use super::closed::{self, JSON, ROOT, send, token, user};
use crate::support::process::Relay;
use crate::support::relay::{Answer, TestRelay, memory, try_send};
use crate::support::ws::WsClient;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const LOG_IN: &[u8] = b"username=ann&password=correct+horse";
/// The page of the relay itself, as requests of these tests ask it.
const OWN: (&str, &str) = ("origin", "http://localhost");
const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
/// One that may use the relay (`support::relay::options`).
const NAMED: (&str, &str) = ("origin", "https://allowed.example");
const EVIL: (&str, &str) = ("origin", "https://evil.example");
/// A page of the same host with another port: browsers send it the cookie.
const BESIDE: (&str, &str) = ("origin", "http://localhost:3000");
/// Returns the cookie that an answer sets: all of it, and what a browser sends of it.
fn set(answer: &Answer) -> (String, String) {
    let written = answer.header("set-cookie").expect("it sets a cookie").to_owned();
    let sent = written.split(';').next().expect("a name and a value").to_owned();
    (written, sent)
}

async fn log_in(relay: &TestRelay) -> String {
    let answer = relay.send("POST", "/auth/cookie", &[FORM, OWN], LOG_IN).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    set(&answer).1
}

/// Starts a closed relay where `ann` may administer.
async fn start() -> TestRelay {
    let relay = closed::start(memory()).await;
    user(&relay, "ann", &["admin"]).await;
    relay
}

async fn me(relay: &TestRelay, headers: &[(&str, &str)]) -> u16 {
    relay.send("GET", "/auth/me", headers, b"").await.status
}

#[tokio::test]
async fn a_browser_logs_in_with_a_form_or_json_and_gets_a_cookie_that_no_script_reads() {
    let relay = start().await;
    let body = json!({ "username": "ann", "password": "correct horse" }).to_string();
    for (kind, body) in [(FORM, LOG_IN), (JSON, body.as_bytes())] {
        let answer = relay.send("POST", "/auth/cookie", &[kind, SAME], body).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
        let (written, sent) = set(&answer);
        assert_eq!(written, format!("{sent}; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"));
        assert!(sent.starts_with("tidemill=tc_"), "{sent}");
        let told = answer.json();
        assert_eq!(told.as_object().map(serde_json::Map::len), Some(1), "{told}");
        let at: tidemill::proto::Timestamp =
            serde_json::from_value(told["expires_at"].clone()).expect("a time");
        let left = at.as_millis() - tidemill::clock::Clock::system().now().as_millis();
        assert!((43_100_000..=43_200_000).contains(&left), "{left}");
        let account = relay.send("GET", "/auth/me", &[("cookie", &sent)], b"").await.json();
        assert_eq!(account["username"], "ann");
        let secret = sent.split_once('=').expect("a value").1;
        let bearer = format!("Bearer {secret}");
        assert_eq!(me(&relay, &[("authorization", &bearer)]).await, 401, "it is no token");
    }
    let (_, token) = token(&relay, ROOT, &["allow read *"]).await;
    let as_cookie = token.replacen("Bearer ", "tidemill=", 1);
    assert_eq!(me(&relay, &[("cookie", &as_cookie)]).await, 401, "and a token is no cookie");

    for (headers, body, code) in [
        (&[FORM, OWN][..], "username=ann&password=wrong", Code::Unauthenticated),
        (&[FORM, OWN], "username=nobody&password=wrong", Code::Unauthenticated),
        (&[FORM, OWN], "username=ann", Code::InvalidField),
        (&[FORM, OWN], "username=ann&password=a&password=b", Code::InvalidField),
        (&[FORM, OWN], "username=ann&password=correct+horse&next=/", Code::InvalidField),
        (&[JSON, OWN], "[]", Code::InvalidField),
        (&[JSON, OWN], r#"{"username":"ann","password":1}"#, Code::InvalidField),
        (&[("content-type", "text/plain"), OWN], "username=ann", Code::UnsupportedMediaType),
        // Nobody logs a browser in from elsewhere.
        (&[FORM, EVIL], "username=ann&password=correct+horse", Code::OriginForbidden),
        (&[FORM, NAMED], "username=ann&password=correct+horse", Code::OriginForbidden),
        (&[FORM, BESIDE], "username=ann&password=correct+horse", Code::OriginForbidden),
        (
            &[FORM, ("sec-fetch-site", "same-site")],
            "username=ann&password=correct+horse",
            Code::OriginForbidden,
        ),
    ] {
        let answer = relay.send("POST", "/auth/cookie", headers, body.as_bytes()).await;
        assert_eq!(answer.problem().code, code, "{headers:?} {body}");
        assert_eq!(answer.header("set-cookie"), None);
    }
    relay.stop().await;
}

#[tokio::test]
async fn whatever_else_says_who_calls_is_stronger_than_the_cookie() {
    let relay = start().await;
    let cookie = log_in(&relay).await;
    let (_, narrow) = token(&relay, ROOT, &["allow publish,read t"]).await;
    let sent = ("cookie", &*cookie);
    let publish = async |headers: &[(&str, &str)], topic: &str| {
        let body = json!({ "topic": topic, "payload": 1 }).to_string();
        relay.send("POST", "/api/v1/messages", &[&[JSON], headers].concat(), body.as_bytes()).await.status
    };
    let by_token = ("authorization", &*narrow);
    assert_eq!(publish(&[sent, by_token], "t").await, 201, "with a token it may come from anywhere");
    assert_eq!(publish(&[sent, by_token, SAME], "u").await, 403, "and may do what the token may");
    for nonsense in ["Bearer x", "Bearer", "Basic", "x", ""] {
        assert_eq!(publish(&[sent, SAME, ("authorization", nonsense)], "t").await, 401, "{nonsense}");
    }
    let basic = relay.send("GET", "/api/v1/users", &[sent, EVIL, ("authorization", ROOT)], b"").await;
    assert_eq!(basic.status, 200);
    let ticket = send(&relay, Some(&narrow), "POST", "/api/v1/tickets", &json!({ "topics": ["t"] })).await;
    let ticket = ticket.json()["ticket"].as_str().expect("a text").to_owned();
    let path = format!("/api/v1/stream?topics=t&ticket={ticket}");
    assert_eq!(pages::read(&relay, &path, "text/event-stream", &[sent, NAMED]).await, pages::Fate::Done);
    let offered = format!("bearer, bearer.{}", narrow.trim_start_matches("Bearer "));
    let mut socket = WsClient::connect_with(relay.address, &[sent, ("sec-websocket-protocol", &offered)])
        .await
        .expect("it upgrades");
    socket.ask(json!({ "type": "publish", "topic": "t", "payload": 1 }).to_string(), "published").await;
    socket.ask(json!({ "type": "publish", "topic": "u", "payload": 1 }).to_string(), "error").await;
    relay.stop().await;
}

#[tokio::test]
async fn a_cookie_that_does_not_count_is_as_if_it_were_not_there() {
    let relay = TestRelay::start_with(memory(), |options| {
        closed::close(options);
        options.http.headers_bytes_max = 32 * 1024;
    })
    .await;
    user(&relay, "ann", &["admin"]).await;
    let public = json!({ "rules": ["allow read,publish public.*"] });
    assert_eq!(send(&relay, Some(ROOT), "PUT", "/api/v1/roles/anonymous", &public).await.status, 200);
    let [good, over] = [log_in(&relay).await, log_in(&relay).await];
    let out = relay.send("POST", "/auth/logout", &[("cookie", &over), SAME], b"").await;
    assert_eq!(
        (out.status, out.header("set-cookie")),
        (204, Some("tidemill=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"))
    );
    let publish = async |cookie: &str, topic: &str| {
        let body = json!({ "topic": topic, "payload": 1 }).to_string();
        relay.send("POST", "/api/v1/messages", &[JSON, SAME, ("cookie", cookie)], body.as_bytes()).await
    };
    assert_eq!(publish(&good, "private").await.status, 201);
    let value = good.split_once('=').expect("a value").1;
    let changed = format!("tidemill={}x", &value[..value.len() - 1]);
    let other_id = tidemill::access::NewToken::make(tidemill::access::TokenKind::Cookie);
    let unknown = format!("tidemill={}", secrecy::ExposeSecret::expose_secret(&other_id.text));
    let many = (0..500).map(|at| format!("c{at}=v; ")).collect::<Vec<_>>().concat();
    let huge = format!("tidemill={}", "x".repeat(20_000));
    for cookie in [
        over.clone(),
        changed,
        unknown,
        format!("{good}; {good}"),
        format!("{good}; tidemill=x"),
        format!("__Host-{good}"),
        good.to_uppercase(),
        "tidemill".to_owned(),
        "tidemill=".to_owned(),
        "tidemill=\"x\"".to_owned(),
        format!("tidemill={}", value.replace('_', "%5f")),
        ";;; = ; \t".to_owned(),
        many.clone(),
        huge,
    ] {
        let start = &cookie[..cookie.len().min(40)];
        assert_eq!(publish(&cookie, "public.a").await.status, 201, "{start}");
        assert_eq!(publish(&cookie, "private").await.problem().code, Code::Unauthenticated, "{start}");
        let page = relay.send("GET", "/api/v1/topics/public.a/messages", &[("cookie", &cookie)], b"").await;
        assert_eq!(page.status, 200, "{start}");
        let again = relay.send("POST", "/auth/cookie", &[FORM, SAME, ("cookie", &cookie)], LOG_IN).await;
        assert_eq!(again.status, 200, "who has an old one logs in anew: {start}");
    }
    let among = format!("{many}{good}; last=1");
    assert_eq!(publish(&among, "private").await.status, 201, "among hundreds of others");
    let split = [JSON, SAME, ("cookie", "a=b"), ("cookie", &*good)];
    let body = json!({ "topic": "private", "payload": 1 }).to_string();
    assert_eq!(relay.send("POST", "/api/v1/messages", &split, body.as_bytes()).await.status, 201);
    let endless = format!("{good}; x={}", "x".repeat(40_000));
    assert_eq!(publish(&endless, "private").await.problem().code, Code::HeadersTooLarge);
    relay.stop().await;
}

#[tokio::test]
async fn over_tls_the_cookie_is_bound_to_the_host() {
    let named = |url: &str| OwnUrl::Named(url.to_owned());
    for (own_url, page, is_encrypted) in [
        (OwnUrl::AsAsked { tls: true }, ("origin", "https://localhost"), true),
        (named("https://relay.example/base"), SAME, true),
        // The proxy calls the relay by another name than the browser does.
        (named("https://relay.example"), ("origin", "https://relay.example"), true),
        (named("http://relay.example:8080"), SAME, false),
        (OwnUrl::AsAsked { tls: false }, OWN, false),
    ] {
        let relay = TestRelay::start_with(memory(), |options| {
            closed::close(options);
            options.http.own_url = own_url.clone();
        })
        .await;
        user(&relay, "ann", &["read"]).await;
        let stranger = [FORM, ("origin", "http://relay.example:3000")];
        let refused = relay.send("POST", "/auth/cookie", &stranger, LOG_IN).await;
        assert_eq!(refused.problem().code, Code::OriginForbidden, "{own_url:?}");
        let answer = relay.send("POST", "/auth/cookie", &[FORM, page], LOG_IN).await;
        let (written, sent) = set(&answer);
        let expected = if is_encrypted { "__Host-tidemill=tc_" } else { "tidemill=tc_" };
        assert!(written.starts_with(expected), "{own_url:?} {written}");
        assert_eq!(written.ends_with("; Secure"), is_encrypted, "{own_url:?} {written}");
        let other = if is_encrypted { sent.replacen("__Host-", "", 1) } else { format!("__Host-{sent}") };
        for (cookie, expected) in [(&sent, 200), (&other, 401)] {
            assert_eq!(me(&relay, &[("cookie", cookie), page]).await, expected, "{own_url:?}");
        }
        let document = relay.get("/openapi.json").await.json();
        let scheme = &document["components"]["securitySchemes"]["cookie"];
        let name = if is_encrypted { "__Host-tidemill" } else { "tidemill" };
        assert_eq!(
            *scheme,
            json!({ "type": "apiKey", "in": "cookie", "name": name, "description": scheme["description"] })
        );
        relay.stop().await;
    }

    // A proxy that is trusted tells of the way to it, and nobody else does.
    let by_proxy = async |trusted: &str| {
        let relay = TestRelay::start_with(memory(), |options| {
            closed::close(options);
            options.proxies = TrustedProxies::new(Network::parse(trusted));
        })
        .await;
        user(&relay, "ann", &["read"]).await;
        let headers = [FORM, SAME, ("x-forwarded-proto", "https"), ("x-forwarded-for", "203.0.113.9")];
        let (written, _) = set(&relay.send("POST", "/auth/cookie", &headers, LOG_IN).await);
        relay.stop().await;
        written
    };
    assert!(by_proxy("127.0.0.1").await.starts_with("__Host-tidemill="));
    assert!(by_proxy("10.0.0.0/8").await.starts_with("tidemill="));
}

#[tokio::test]
async fn an_open_relay_gives_a_cookie_to_pages_that_know_no_other_way() {
    let relay = TestRelay::start(memory()).await;
    let cookie = log_in(&relay).await;
    let sent = ("cookie", &*cookie);
    assert_eq!(me(&relay, &[sent]).await, 200);
    let publish = relay.send("POST", "/api/v1/topics/t/messages", &[JSON, sent], b"1").await;
    assert_eq!(publish.status, 201, "it is not looked at");
    let out = relay.send("POST", "/auth/logout", &[sent], b"").await;
    assert_eq!((out.status, out.header("set-cookie").is_some()), (204, true));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_has_the_limit_of_all_log_ins_and_no_log_has_the_cookie() {
    let variables = [
        ("TIDEMILL_ADMIN_NAME", "ann"),
        ("TIDEMILL_ADMIN_PASSWORD", "correct horse"),
        ("TIDEMILL_LOG_FORMAT", "json"),
        ("LOG_LEVEL", "debug"),
        ("TIDEMILL_LIMIT_LOG_INS", "4"),
    ];
    let process = Relay::ready_at("127.0.0.1:0", &variables, &[]).await;
    let address = process.address();
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        try_send(address, method, path, headers, body).await.expect("it answers")
    };
    let made = ask("POST", "/auth/cookie", &[FORM, OWN, ("x-request-id", "id-7")], LOG_IN).await;
    let (_, cookie) = set(&made);
    let sent = ("cookie", &*cookie);
    assert_eq!(ask("POST", "/api/v1/topics/t/messages", &[JSON, OWN, sent], b"1").await.status, 201);
    assert_eq!(ask("POST", "/api/v1/topics/t/messages", &[JSON, sent], b"1").await.status, 403);
    let metrics = ask("GET", "/metrics", &[sent], b"").await;
    for line in [
        "tidemill_auth_cookies_total 1",
        "tidemill_auth_log_ins_total{outcome=\"accepted\"} 1",
        "tidemill_auth_refused_total{code=\"origin_forbidden\"} 1",
    ] {
        assert!(metrics.text().lines().any(|told| told == line), "{line} in {}", metrics.text());
    }
    assert_eq!(ask("POST", "/auth/logout", &[OWN, sent], b"").await.status, 204);
    for expected in [401, 401, 401, 429] {
        let guess = ask("POST", "/auth/cookie", &[FORM, OWN], b"username=ann&password=wrong").await;
        assert_eq!(guess.status, expected);
    }
    let (code, log) = spawn_stop(process).await;
    assert_eq!(code, Some(0));
    let value = cookie.split_once('=').expect("a value").1;
    let (id, secret) = (&value[3..19], &value[20..]);
    assert!(!log.contains(secret) && !metrics.text().contains(secret), "it is told");
    let events: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for message in ["cookie made", "logged out"] {
        let event = events.iter().find(|event| event["message"] == message).expect(message);
        assert_eq!((&event["log_in"], &event["by"]), (&json!(id), &json!("user \"ann\"")), "{event}");
    }
    let refused = events.iter().find(|event| event["message"] == "refused").expect("it is told");
    assert_eq!(refused["code"], "origin_forbidden", "{refused}");
}

async fn spawn_stop(process: Relay) -> (Option<i32>, String) {
    tokio::task::spawn_blocking(move || process.stop()).await.expect("no panic")
}
