//! Retries of `tidemill publish` of one message, against a relay that fails as it is told.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::process::{Ended, Running, run};

/// A request as it came: idempotency key of the header, and body.
type Seen = (Option<String>, Value);

#[derive(Clone, Default)]
struct Stub {
    answers: Arc<Mutex<VecDeque<Response>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Answers with the next answer; when there are no more, with a failure that may pass.
async fn answer(State(stub): State<Stub>, headers: HeaderMap, body: Bytes) -> Response {
    let key = headers.get("idempotency-key").map(|key| key.to_str().expect("ASCII").to_owned());
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    stub.seen.lock().push((key, body));
    let next = stub.answers.lock().pop_front();
    next.unwrap_or_else(|| problem(503, "storage_unavailable", true))
}

fn problem(status: u16, code: &str, retryable: bool) -> Response {
    let body = json!({
        "type": format!("/problems#{code}"), "title": "t", "status": status, "detail": "the storage is away",
        "code": code, "retryable": retryable, "request_id": "r-1",
    });
    let status = StatusCode::from_u16(status).expect("a status");
    let headers = [("content-type", "application/problem+json"), ("retry-after", "0")];
    (status, headers, body.to_string()).into_response()
}

/// Returns the answer of a relay that is to be asked again after so many seconds.
fn limited(seconds: u64) -> Response {
    let mut response = problem(429, "rate_limited", true);
    response.headers_mut().insert("retry-after", seconds.into());
    response
}

fn published() -> Response {
    let body = json!({ "message_id": "5-0", "topic": "t", "timestamp": "2026-01-31T12:00:00Z" });
    (StatusCode::CREATED, axum::Json(body)).into_response()
}

/// Publishes to a stub that gives `answers`, and returns how that ended with what the stub saw.
async fn publish(answers: Vec<Response>, arguments: &[&str]) -> (Ended, Vec<Seen>) {
    let runs = |variables: &[(&str, &str)], arguments: &[&str]| run(variables, arguments, "");
    publish_with(answers, arguments, runs).await
}

/// The same, with what runs the command.
async fn publish_with(
    answers: Vec<Response>,
    arguments: &[&str],
    runs: impl FnOnce(&[(&str, &str)], &[&str]) -> Ended + Send + 'static,
) -> (Ended, Vec<Seen>) {
    let stub = Stub { answers: Arc::new(Mutex::new(answers.into())), ..Stub::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let router = Router::new().fallback(answer).with_state(stub.clone());
    let serve = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    tracker.spawn(async move { serve.await.expect("the stub serves") });

    let arguments: Vec<String> = ["publish", "t"].iter().chain(arguments).map(ToString::to_string).collect();
    let command = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        runs(&[("TIDEMILL_URL", &url)], &arguments)
    };
    let ended = tokio::task::spawn_blocking(command).await.expect("the command runs");
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    let seen = stub.seen.lock().clone();
    (ended, seen)
}

#[tokio::test]
async fn an_interrupt_says_the_key_where_the_message_may_be_kept() {
    let interrupted = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut trying = Running::start(variables, arguments);
        assert!(trying.note().contains("Ctrl-C ends it"));
        trying.interrupt();
        trying.end()
    };
    let mut kept = problem(504, "durability_not_reached", true);
    kept.headers_mut().insert("retry-after", 30_u64.into());
    let (ended, seen) = publish_with(vec![kept], &["{}"], interrupted).await;
    let key = seen[0].0.clone().expect("a key was made up");
    assert!(
        ended.error(130).contains(&format!("interrupted; to run it again, add --key {key}")),
        "{ended:?}"
    );
    let (ended, _) = publish_with(vec![limited(30)], &["{}"], interrupted).await;
    assert_eq!(ended.error(130).lines().last(), Some("interrupted"));
}

#[tokio::test]
async fn a_passing_failure_is_retried_under_the_same_key() {
    let answers = vec![
        problem(503, "overloaded", true),
        problem(504, "outcome_unknown", false),
        StatusCode::BAD_GATEWAY.into_response(),
        published(),
    ];
    let (ended, seen) = publish(answers, &["{}"]).await;
    assert_eq!(ended.lines(), ["5-0"]);
    assert_eq!(
        ended.stderr,
        "the storage is away (code overloaded, request id r-1); trying again for up to 60 s\n"
    );
    assert_eq!(seen.len(), 4);
    let key = seen[0].0.clone().expect("a key was made up");
    assert!(seen.iter().all(|(other, _)| other.as_ref() == Some(&key)), "{seen:?}");
}

#[tokio::test]
async fn a_publish_that_waits_for_a_limit_says_so_once() {
    let (ended, seen) = publish(vec![limited(1), limited(1), published()], &["{}"]).await;
    assert_eq!((ended.lines(), seen.len()), (vec!["5-0"], 3));
    let told = "waiting 1 s and trying again for up to 60 s; Ctrl-C ends it: the storage is away (code rate_limited, request id r-1)\n";
    assert_eq!(ended.stderr, told);
}

#[tokio::test]
async fn a_publish_that_is_refused_for_some_seconds_is_published_in_the_end() {
    let refusals = std::iter::repeat_with(|| problem(503, "storage_unavailable", true)).take(6);
    let (ended, seen) = publish(refusals.chain([published()]).collect(), &["{}"]).await;
    assert_eq!((ended.lines(), seen.len()), (vec!["5-0"], 7));
    assert!(seen.iter().all(|(key, _)| *key == seen[0].0), "{seen:?}");
}

#[tokio::test]
async fn a_publish_is_not_sent_again_before_the_relay_says() {
    let since = tokio::time::Instant::now();
    let (ended, seen) = publish(vec![limited(11), published()], &["{}"]).await;
    assert_eq!((ended.lines(), seen.len()), (vec!["5-0"], 2));
    assert!(since.elapsed() >= std::time::Duration::from_secs(11), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_publish_that_is_not_to_be_retried_is_sent_once() {
    for answer in [limited(1), problem(503, "overloaded", true), StatusCode::BAD_GATEWAY.into_response()] {
        let (ended, seen) = publish(vec![answer], &["{}", "--no-retry"]).await;
        assert!(!ended.error(1).is_empty());
        assert_eq!(seen.len(), 1);
    }
}

#[tokio::test]
async fn two_publishes_have_different_keys_unless_told() {
    let mut keys = Vec::new();
    for arguments in [&["1"][..], &["1"], &["1", "--key=mine"]] {
        let (ended, seen) = publish(vec![published()], arguments).await;
        assert_eq!(ended.code, Some(0));
        keys.push(seen[0].0.clone().expect("a key"));
    }
    assert_ne!(keys[0], keys[1]);
    assert_eq!(keys[2], "mine");
}

#[tokio::test]
async fn retries_end_and_a_final_failure_is_not_retried() {
    // A minute of them has a test of its own, beside the code.
    let (ended, seen) = publish(vec![problem(503, "overloaded", true), limited(61)], &["{}"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.ends_with("error: the storage is away (code rate_limited, request id r-1)\n"));
    assert_eq!(seen.len(), 2, "the relay says to come when it would be too late");

    let (ended, seen) = publish(vec![problem(413, "too_large", false)], &["{}"]).await;
    assert_eq!(ended.error(1), "the storage is away (code too_large, request id r-1)");
    assert_eq!(seen.len(), 1);
}

#[tokio::test]
async fn who_runs_again_what_may_be_kept_is_told_the_key() {
    let advice = |ended: &Ended, key: &str| {
        let error = ended.stderr.lines().last().expect("an error").to_owned();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            error.contains(&format!("; to run it again, add --key {key}, under which nothing is kept twice"))
        );
    };
    let codes = ["durability_not_reached", "outcome_unknown"];
    for code in codes {
        let (ended, seen) = publish(vec![problem(504, code, false)], &["{}", "--no-retry"]).await;
        advice(&ended, seen[0].0.as_deref().expect("a key was made up"));
        assert!(ended.error(1).contains(&format!("code {code}")), "{ended:?}");
    }
    let gone = StatusCode::GATEWAY_TIMEOUT.into_response();
    let (ended, _) = publish(vec![gone], &["{}", "--key=the key", "--no-retry"]).await;
    advice(&ended, "'the key'");
    // What came first may be kept, whatever comes then.
    let then = vec![problem(504, "outcome_unknown", false), problem(413, "too_large", false)];
    let (ended, seen) = publish(then, &["{}"]).await;
    advice(&ended, seen[1].0.as_deref().expect("a key was made up"));
    let (ended, _) = publish(vec![problem(504, codes[0], false)], &["{}", "--no-key", "--no-retry"]).await;
    assert!(ended.error(1).contains("it had no idempotency key: where it is run again"), "{ended:?}");
}
