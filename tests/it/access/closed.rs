//! A closed relay, with somebody who administers it.

use serde_json::{Value, json};
use tidemill::access::{AccessOptions, FirstAdministrator, Mode};
use tidemill::server::ServerOptions;
use tidemill::storage::Storage;

use crate::support::relay::{Answer, TestRelay};

/// `Basic` credentials of `root`, whose password is `correct horse`.
pub(crate) const ROOT: &str = "Basic cm9vdDpjb3JyZWN0IGhvcnNl";

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// Says what makes a relay a closed one, with the administrator `root`.
pub(crate) fn close(options: &mut ServerOptions) {
    options.access = AccessOptions { mode: Mode::Closed, ..AccessOptions::open() };
    let first = FirstAdministrator::parse("root", "correct horse".into());
    options.first_administrator = Some(first.expect("a name and a password"));
}

/// Starts a closed relay.
pub(crate) async fn start(storage: Storage) -> TestRelay {
    TestRelay::start_with(storage, close).await
}

/// Sends a request as somebody.
pub(crate) async fn send(
    relay: &TestRelay,
    who: Option<&str>,
    method: &str,
    path: &str,
    body: &Value,
) -> Answer {
    let authorization = who.map(|who| ("authorization", who));
    let headers: Vec<_> = [JSON].into_iter().chain(authorization).collect();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    relay.send(method, path, &headers, body.as_bytes()).await
}

/// Makes a token, and returns its id and the header that shows it.
pub(crate) async fn token(relay: &TestRelay, who: &str, rules: &[&str]) -> (String, String) {
    let answer =
        send(relay, Some(who), "POST", "/api/v1/tokens", &json!({ "name": "t", "rules": rules })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let made = answer.json();
    let text = |field: &str| made[field].as_str().expect("a text").to_owned();
    (text("token_id"), format!("Bearer {}", text("token")))
}

/// Logs a user in that [`user`] has made, and returns the header that shows the access token.
pub(crate) async fn log_in(relay: &TestRelay, name: &str) -> String {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let form = format!("username={name}&password=correct+horse");
    let answer = relay.send("POST", "/auth/login", &headers, form.as_bytes()).await.json();
    format!("Bearer {}", answer["access_token"].as_str().expect("an access token"))
}

/// Makes a user with a password, and returns the header that shows it.
pub(crate) async fn user(relay: &TestRelay, name: &str, roles: &[&str]) -> String {
    use base64::Engine as _;

    let body = json!({ "password": "correct horse", "roles": roles });
    let answer = send(relay, Some(ROOT), "PUT", &format!("/api/v1/users/{name}"), &body).await;
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{name}:correct horse"));
    format!("Basic {text}")
}
