//! Sending of one request: until it succeeds, fails for good, or was sent often enough. It must not know what is published.

use std::time::Duration;

use reqwest::RequestBuilder;
use tidemill_proto::{Code, IDEMPOTENCY_KEY_FIELD};
use tokio::time::Instant;

use super::CliError;
use super::keys::{KEYS_LEFT_OUT, Keys};
use super::output;
use crate::cli::client::{Answer, Client, Refusal};

/// Most times that a request is sent.
const ATTEMPTS_MAX: u32 = 6;

/// Longest wait between two attempts, whatever the relay asks for.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// First wait between two attempts, where the relay asks for none; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// How long a relay that cannot be reached is waited for: it may just be starting.
const STARTING: Duration = Duration::from_secs(2);

/// Wait between two looks for it.
const STARTING_PAUSE: Duration = Duration::from_millis(100);

/// Returns whether a message may be kept although this came.
fn may_be_kept(refusal: &Refusal) -> bool {
    match &refusal.error {
        CliError::Problem(problem) => {
            matches!(problem.code, Code::OutcomeUnknown | Code::DurabilityNotReached)
        }
        CliError::NoAnswer { .. } => true,
        // A gateway in front of the relay has given up.
        CliError::NotARelay { .. } => refusal.is_passing,
        _ => false,
    }
}

/// Returns why a message was not published that may be kept all the same, and how to run it again.
fn kept(error: CliError, key: Option<&str>) -> CliError {
    let how = match key {
        Some(key) => format!(
            "to run it again, add --key {}, under which nothing is kept twice as long as the relay remembers it",
            output::quoted(key)
        ),
        None => "it had no idempotency key: where it is run again, the message may be there twice".to_owned(),
    };
    CliError::Kept(Box::new(error), how)
}

/// Sends a request until it succeeds, fails for good, or has been sent often enough. An unknown outcome is
/// retried, too. The first failure is told: waiting in silence looks like hanging. Returns how often it was sent, too.
pub(super) async fn send(
    client: &Client,
    build: impl Fn() -> RequestBuilder,
    keys: Keys<'_>,
    is_sent_once: bool,
) -> Result<(Answer, u32), CliError> {
    let (mut key, is_optional) = match keys {
        Keys::None => (None, false),
        Keys::Own(key) => (Some(key), false),
        Keys::MadeUp(key) => (Some(key), true),
    };
    let (mut attempt, mut is_kept) = (1, false);
    loop {
        let request = || key.iter().fold(build(), |request, key| request.header(IDEMPOTENCY_KEY_FIELD, *key));
        let answer = if attempt == 1 && !is_sent_once {
            once_listening(|refusal: &Refusal| refusal.is_unreachable, async || client.send(request()).await)
                .await
        } else {
            client.send(request()).await
        };
        let refusal = match answer {
            Ok(answer) => return Ok((answer, attempt)),
            Err(refusal) => refusal,
        };
        is_kept |= may_be_kept(&refusal);
        let failed = |error| if is_kept { kept(error, key) } else { error };
        if is_about_key(&refusal.error) {
            if !is_optional {
                return Err(failed(refusal.error));
            }
            eprintln!("{KEYS_LEFT_OUT}");
            key = None;
            continue;
        }
        let is_absent = refusal.is_unreachable && attempt == 1;
        if !refusal.is_passing || is_absent || is_sent_once || attempt == ATTEMPTS_MAX {
            return Err(failed(refusal.error));
        }
        let pause = pause(attempt, refusal.retry_after);
        if attempt == 1 {
            eprintln!("{}", waits(&refusal.error, pause));
        }
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

/// Returns what is told of a failure that may pass, and for how long is waited, where that is worth a word.
pub(super) fn waits(error: &impl std::fmt::Display, pause: Duration) -> String {
    let times = u64::from(ATTEMPTS_MAX - 1);
    match pause.as_secs() {
        0 => format!("{error}; trying again"),
        seconds => format!(
            "waiting {seconds} s and trying again, {times} times in about {} s; Ctrl-C ends it: {error}",
            times * seconds
        ),
    }
}

/// Tries for a moment, as long as there is no relay: it may just be starting. Longer would look like hanging, where
/// the URL is wrong.
pub(super) async fn once_listening<T, E>(
    is_absent: impl Fn(&E) -> bool,
    attempt: impl AsyncFn() -> Result<T, E>,
) -> Result<T, E> {
    let give_up_at = Instant::now() + STARTING;
    loop {
        match attempt().await {
            Err(error) if is_absent(&error) && Instant::now() < give_up_at => {
                tokio::time::sleep(STARTING_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Returns whether a refusal is about the idempotency key alone.
fn is_about_key(error: &CliError) -> bool {
    matches!(error, CliError::Problem(problem)
        if problem.code == Code::StorageFull && problem.field.as_deref() == Some(IDEMPOTENCY_KEY_FIELD))
}

/// Returns how long to wait after the attempt with this number.
fn pause(attempt: u32, asked: Option<Duration>) -> Duration {
    asked.unwrap_or(PAUSE_FIRST * 2_u32.pow(attempt - 1)).min(PAUSE_MAX)
}
