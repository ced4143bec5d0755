//! Devices: programs that a user lets in elsewhere, with a code, by keyboard or phone.

use serde_json::{Value, json};
use tidemill::http::OwnUrl;
use tidemill::limits::{Network, TrustedProxies};
use tidemill::proto::Code;

use super::closed::{self, ROOT, close, send, token, user};
use crate::support::relay::{Answer, TestRelay, memory};

const NOTHING: Value = Value::Null;
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const GRANT: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
/// Devices that wait at one time.
const DEVICES_MAX: usize = 200;

async fn post(relay: &TestRelay, path: &str, form: &str) -> Answer {
    relay.send("POST", path, &[FORM], form.as_bytes()).await
}

/// Gives a device its codes: the long one, and the short one.
async fn codes(relay: &TestRelay, form: &str) -> (String, String) {
    let answer = post(relay, "/auth/device/code", form).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    let text = |field: &str| body[field].as_str().expect("a text").to_owned();
    assert!(text("verification_uri").ends_with("/auth/device"), "{body}");
    let complete = format!("{}?user_code={}", text("verification_uri"), text("user_code"));
    assert_eq!(text("verification_uri_complete"), complete);
    assert_eq!((&body["expires_in"], &body["interval"]), (&json!(600), &json!(5)));
    (text("device_code"), text("user_code"))
}

async fn ask(relay: &TestRelay, code: &str) -> Answer {
    post(relay, "/auth/device/token", &format!("{GRANT}&device_code={code}")).await
}

#[track_caller]
fn error(answer: &Answer) -> String {
    assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/json")), "{answer:?}");
    let body = answer.json();
    assert!(body["detail"].is_string() && body["error_description"] == body["detail"], "{body}");
    body["error"].as_str().expect("a word").to_owned()
}

async fn decide(relay: &TestRelay, code: &str, password: &str, decision: &str) -> Answer {
    let form = format!("user_code={code}&username=ann&password={password}&decision={decision}");
    post(relay, "/auth/device", &form).await
}

/// Returns how many devices have come so far, by the metrics.
async fn counted(relay: &TestRelay, step: &str) -> u64 {
    let (_, admin) = token(relay, ROOT, &["allow admin *"]).await;
    let metrics = send(relay, Some(&admin), "GET", "/metrics", &NOTHING).await;
    let start = format!("tidemill_devices_total{{step=\"{step}\"}} ");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(&start)).expect("it is counted");
    line.parse().expect("a number")
}

#[tokio::test]
async fn a_user_lets_a_device_in_and_it_has_a_pair_of_log_ins() {
    let relay = closed::start(memory()).await;
    user(&relay, "ann", &["read"]).await;
    let (device, code) = codes(&relay, "client_hint=a+%3Cb%3Ebox&pair=true").await;
    assert!(code.len() == 9 && code.chars().nth(4) == Some('-'), "{code}");
    assert_eq!(error(&ask(&relay, &device).await), "authorization_pending");
    assert_eq!(error(&ask(&relay, &device).await), "slow_down");

    // The person comes with the code in the address, or types it in small letters.
    let page = relay.get("/auth/device").await;
    assert!(page.status == 200 && page.text().contains("name=\"user_code\""));
    let typed = code.to_lowercase().replace('-', "");
    let page = relay.get(&format!("/auth/device?user_code={typed}")).await;
    assert!(page.text().contains(&code) && page.text().contains("a &lt;b&gt;box"), "{page:?}");
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"));
    for part in ["form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let wrong = decide(&relay, &code, "wrong+horse", "allow").await;
    assert!(wrong.status == 403 && wrong.text().contains(&code), "it can be tried again: {wrong:?}");
    let done = decide(&relay, &typed, "correct+horse", "allow").await;
    assert!(done.status == 200 && done.text().contains("is let in"), "{done:?}");
    assert_eq!(decide(&relay, &code, "correct+horse", "deny").await.status, 404, "it is decided");

    let (other, _) = codes(&relay, "").await;
    assert_ne!(other, device);
    let tokens = ask(&relay, &device).await;
    assert_eq!((tokens.status, tokens.header("cache-control")), (200, Some("no-store")));
    let tokens = tokens.json();
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().expect("a text"));
    let me = send(&relay, Some(&bearer), "GET", "/auth/me", &NOTHING).await.json();
    assert_eq!(me["username"], "ann");
    assert_ne!(tokens["refresh_token"], tokens["refresh_token_secondary"]);
    for field in ["refresh_token", "refresh_token_secondary"] {
        let body = json!({ "refresh_token": tokens[field] });
        let next = send(&relay, None, "POST", "/auth/token/refresh", &body).await;
        assert_eq!(next.status, 200, "{field} does not depend on the other");
    }
    assert_eq!(error(&ask(&relay, &device).await), "expired_token", "it is good once");
    for (step, count) in [("started", 2), ("not_started", 0), ("let_in", 1), ("refused", 0), ("logged_in", 1)]
    {
        assert_eq!(counted(&relay, step).await, count, "{step}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_user_refuses_a_device_and_one_alone_has_one_log_in() {
    let relay = closed::start(memory()).await;
    user(&relay, "ann", &["read"]).await;
    let ((refused, its), (let_in, other)) = (codes(&relay, "").await, codes(&relay, "pair=false").await);
    let done = decide(&relay, &its, "correct+horse", "deny").await;
    assert!(done.status == 200 && done.text().contains("is refused"), "{done:?}");
    assert_eq!(decide(&relay, &other, "correct+horse", "allow").await.status, 200);
    assert_eq!(error(&ask(&relay, &refused).await), "access_denied");
    assert_eq!(error(&ask(&relay, &refused).await), "expired_token");
    let tokens = ask(&relay, &let_in).await.json();
    assert!(tokens["refresh_token"].is_string() && tokens.get("refresh_token_secondary").is_none());
    assert_eq!(counted(&relay, "refused").await, 1);

    for code in ["", "td_", "ann", "tr_0123456789abcdef_0", &let_in[..60], &let_in.replace("td_", "tr_")] {
        assert_eq!(error(&ask(&relay, code).await), "expired_token", "{code}");
    }
    let form = "grant_type=password&device_code=x";
    assert_eq!(error(&post(&relay, "/auth/device/token", form).await), "unsupported_grant_type");
    for (path, form, field) in [
        ("/auth/device/token", GRANT, "device_code"),
        ("/auth/device/token", "device_code=x", "grant_type"),
        ("/auth/device/token", "device_cod=x", "device_cod"),
        ("/auth/device/code", "pair=maybe", "pair"),
        ("/auth/device/code", &format!("client_hint={}", "a".repeat(201)), "client_hint"),
        ("/auth/device", "user_code=BCDF-GHJK&username=ann&password=p&decision=x", "decision"),
        ("/auth/device", "user_code=BCDF-GHJK&username=ann&password=p", "decision"),
        ("/auth/device", "user_code=BCDF-GHJK&username=ann&decision=deny", "password"),
    ] {
        let problem = post(&relay, path, form).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)), "{form}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn who_guesses_a_code_learns_nothing_and_a_page_of_somebody_else_decides_nothing() {
    let relay = closed::start(memory()).await;
    user(&relay, "ann", &["read"]).await;
    let (device, code) = codes(&relay, "").await;
    for guess in ["BCDF-GHJK", "x", "%3Cscript%3E", "%00", &"B".repeat(2_000)] {
        let page = relay.get(&format!("/auth/device?user_code={guess}")).await;
        assert!(page.status == 404 && page.text().contains("name=\"user_code\""), "{guess}: {page:?}");
        assert!(!page.text().contains("<script>") && !page.text().contains(&code));
    }
    let wrong = decide(&relay, "BCDF-GHJK", "correct+horse", "allow").await;
    assert_eq!(wrong.status, 404);
    assert_eq!(decide(&relay, "BCDF-GHJK", "wrong+horse", "allow").await.status, 404);
    let form = format!("user_code={code}&username=ann&password=correct+horse&decision=allow");
    for headers in [
        &[FORM, ("origin", "https://evil.example")][..],
        &[FORM, ("sec-fetch-site", "cross-site")],
        &[("content-type", "text/plain")],
        &[("content-type", "application/json")],
    ] {
        let answer = relay.send("POST", "/auth/device", headers, form.as_bytes()).await;
        assert!(matches!(answer.status, 403 | 415), "{headers:?}: {answer:?}");
    }
    assert_eq!(error(&ask(&relay, &device).await), "authorization_pending");
    relay.stop().await;
}

#[tokio::test]
async fn a_flood_of_devices_is_bounded_and_counted_and_disturbs_nobody_else() {
    let relay = TestRelay::start_with(memory(), |options| {
        close(options);
        options.proxies = TrustedProxies::new(Network::parse("127.0.0.1"));
    })
    .await;
    user(&relay, "ann", &["read"]).await;
    let flood = (0..DEVICES_MAX + 20).map(|_| post(&relay, "/auth/device/code", ""));
    let answers = futures_util::future::join_all(flood).await;
    let started = answers.iter().filter(|answer| answer.status == 200).count();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert_eq!((started, refused.len()), (DEVICES_MAX, 20));
    assert!(refused.iter().all(|answer| answer.status == 503 && answer.problem().code == Code::Overloaded));
    let wait: u64 = refused[0].header("retry-after").expect("a time").parse().expect("seconds");
    assert!((500..=601).contains(&wait), "{wait} s, when the first is over");
    assert_eq!(counted(&relay, "started").await, DEVICES_MAX as u64);
    assert_eq!(counted(&relay, "not_started").await, 20);
    let log_in = post(&relay, "/auth/login", "username=ann&password=correct+horse").await;
    assert_eq!(log_in.status, 200);
    // Who comes from elsewhere gets a place.
    let elsewhere = [FORM, ("x-forwarded-for", "192.0.2.7")];
    assert_eq!(relay.send("POST", "/auth/device/code", &elsewhere, b"").await.status, 200);
    assert_eq!(post(&relay, "/auth/device/code", "").await.status, 503);
    relay.stop().await;
}

#[tokio::test]
async fn an_open_relay_lets_devices_in_at_once_and_keeps_nothing_of_them() {
    let storage = memory();
    let relay = TestRelay::start(storage.clone()).await;
    let (device, code) = codes(&relay, "pair=true").await;
    let page = relay.get(&format!("/auth/device?user_code={code}")).await;
    assert!(page.status == 200 && page.text().contains("lets everybody in"), "{page:?}");
    assert_eq!(decide(&relay, &code, "x", "allow").await.status, 200);
    assert!(ask(&relay, &device).await.json()["refresh_token_secondary"].is_string());
    let kept = storage.records.records(None).await.expect("an answer").expect("records");
    assert!(kept.records.is_empty(), "{kept:?}");
    relay.stop().await;
}

#[tokio::test]
async fn the_address_of_the_page_is_the_public_one_or_the_one_that_was_asked() {
    let asked = closed::start(memory()).await;
    let named = TestRelay::start_with(memory(), |options| {
        close(options);
        options.http.own_url = OwnUrl::Named("https://relay.example/base".to_owned());
    })
    .await;
    for (relay, expected) in
        [(&asked, "http://localhost/auth/device"), (&named, "https://relay.example/base/auth/device")]
    {
        let body = post(relay, "/auth/device/code", "").await.json();
        assert_eq!(body["verification_uri"], expected);
    }
    asked.stop().await;
    named.stop().await;
}
