//! Sending of one request: until it succeeds, fails for good, or was refused for too long. It must not know what is published.

use std::pin::pin;
use std::time::Duration;

use reqwest::RequestBuilder;
use tidemill_proto::{Code, IDEMPOTENCY_KEY_FIELD};
use tokio::time::Instant;

use super::CliError;
use super::keys::{KEYS_LEFT_OUT, Keys};
use super::output;
use crate::chance::jittered;
use crate::cli::client::{Answer, Client, Refusal};
use crate::cli::signals::stopped;

/// For how long a request is sent again that is refused for the moment: longer than a Valkey Cluster takes by default to
/// replace a primary.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_mins(1);

/// First wait between two attempts, beyond what the relay asks for; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// Where it stops to double.
const PAUSE_MAX: Duration = Duration::from_secs(4);

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

/// Sends a request until it succeeds, fails for good, or has been refused for too long. An unknown outcome is
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
    let (mut attempt, mut is_kept, mut refused_since) = (1, false, None);
    let mut stopped = pin!(stopped()?);
    loop {
        let request = || key.iter().fold(build(), |request, key| request.header(IDEMPOTENCY_KEY_FIELD, *key));
        let sending = async {
            if attempt == 1 && !is_sent_once {
                let is_absent = |refusal: &Refusal| refusal.is_unreachable;
                once_listening(is_absent, async || client.send(request()).await).await
            } else {
                client.send(request()).await
            }
        };
        let answer = tokio::select! {
            answer = sending => answer,
            // What is on its way may be kept.
            () = &mut stopped => return Err(kept(CliError::Interrupted, key)),
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
        if !refusal.is_passing || is_absent || is_sent_once {
            return Err(failed(refusal.error));
        }
        let refused_for = refused_since.get_or_insert_with(Instant::now).elapsed();
        let Some(pause) = pause(attempt, refusal.retry_after, refused_for) else {
            return Err(failed(refusal.error));
        };
        if attempt == 1 {
            eprintln!("{}", waits(&refusal.error, pause));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut stopped => return Err(if is_kept { kept(CliError::Interrupted, key) } else { CliError::Interrupted }),
        }
        attempt += 1;
    }
}

/// Returns what is told of a failure that may pass: for how long it is tried again, and how long is waited first, where
/// that is worth a word.
pub(super) fn waits(error: &impl std::fmt::Display, pause: Duration) -> String {
    let most = GIVE_UP_AFTER.as_secs();
    match pause.as_secs() {
        0 => format!("{error}; trying again for up to {most} s"),
        seconds => {
            format!("waiting {seconds} s and trying again for up to {most} s; Ctrl-C ends it: {error}")
        }
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

/// Returns how long to wait after the attempt with this number, not less than the relay asks for; `None` where the request
/// is given up, as it has been refused for that long or would be then.
fn pause(attempt: u32, asked: Option<Duration>, refused_for: Duration) -> Option<Duration> {
    let left = GIVE_UP_AFTER.saturating_sub(refused_for);
    let asked = asked.unwrap_or_default();
    if left.is_zero() || asked > left {
        return None;
    }
    let more = PAUSE_FIRST.saturating_mul(1 << (attempt - 1).min(16)).min(PAUSE_MAX);
    // The last attempt is when it would be given up.
    Some((asked + jittered(more)).min(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns when a request is sent again that is refused each time, and asked to wait so long.
    fn sent_again(asked: Option<Duration>) -> Vec<Duration> {
        let (mut waited, mut at) = (Duration::ZERO, Vec::new());
        for attempt in 1.. {
            let Some(pause) = pause(attempt, asked, waited) else { break };
            assert!(pause >= asked.unwrap_or_default(), "not before the relay says: {pause:?}");
            waited += pause;
            at.push(waited);
        }
        at
    }

    #[test]
    fn what_is_refused_is_sent_again_until_a_minute_has_passed() {
        let at = sent_again(None);
        assert!((17..40).contains(&at.len()), "{at:?}");
        assert!(at[0] <= PAUSE_FIRST && at[4] <= Duration::from_secs(8), "it comes soon at first: {at:?}");
        assert!(at.windows(2).all(|two| two[1].abs_diff(two[0]) <= PAUSE_MAX), "{at:?}");
        assert_eq!(at.last(), Some(&GIVE_UP_AFTER));
        let told = sent_again(Some(Duration::from_secs(10)));
        assert!((4..=6).contains(&told.len()) && *told.last().expect("some") <= GIVE_UP_AFTER, "{told:?}");
        assert!(sent_again(Some(GIVE_UP_AFTER + Duration::from_secs(1))).is_empty(), "it would be too late");
    }
}
