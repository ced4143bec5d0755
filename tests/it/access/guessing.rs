//! Passwords that are guessed: how long it takes tells nothing, and a storm of guesses takes no more than its share.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::limits::{Limit, LimitOptions};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use super::closed::{self, ROOT, send, user};
use crate::support::length::{pick, tell};
use crate::support::process::Relay;
use crate::support::relay::{TestRelay, memory, try_send};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// What one hash takes, as the documents say.
const HASH_BYTES: u64 = 19 * 1024 * 1024;
/// Hashes that are made at one time: of two passwords, each twice where processors have no time to spare.
const RUNNING_MAX: u64 = 4;

/// Returns how likely it is that one of the first takes longer than one of the second, as far as these tell: a half
/// where both are alike, 1 or 0 where every one of them differs.
fn longer(first: &[Duration], second: &[Duration]) -> f64 {
    let pairs = first.iter().flat_map(|one| second.iter().map(move |other| one.cmp(other)));
    let weights = pairs.map(|order| match order {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    });
    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    let count = (first.len() * second.len()) as f64;
    weights.sum::<f64>() / count
}

async fn guess(relay: &TestRelay, form: &str) -> Duration {
    let began = Instant::now();
    let answer = relay.send("POST", "/auth/login", &[FORM], form.as_bytes()).await;
    assert_eq!(answer.status, 401, "{form}: {answer:?}");
    began.elapsed()
}

#[tokio::test]
async fn how_long_it_takes_does_not_tell_whether_there_is_a_user() {
    let relay = closed::start(memory()).await;
    user(&relay, "ann", &["read"]).await;
    user(&relay, "idle", &["read"]).await;
    let put = async |name: &str, body: Value| {
        let path = format!("/api/v1/users/{name}");
        assert!(send(&relay, Some(ROOT), "PUT", &path, &body).await.status < 300, "{name}");
    };
    put("idle", json!({ "is_active": false })).await;
    put("bare", json!({ "roles": ["read"] })).await;
    let known = "username=ann&password=wrong+horse";
    let others = [
        ("nobody", "username=nobody&password=wrong+horse"),
        ("idle", "username=idle&password=wrong+horse"),
        ("who has no password", "username=bare&password=wrong+horse"),
        ("a name that none can be", "username=%00&password=wrong+horse"),
        ("the right password of nobody", "username=nobody&password=correct+horse"),
    ];
    let rounds = pick(40, 400);
    let (mut of_known, mut of_others) = (Vec::new(), vec![Vec::new(); others.len()]);
    guess(&relay, known).await;
    for _ in 0..rounds {
        // In turn, so that whatever else the machine does weighs on all of them.
        of_known.push(guess(&relay, known).await);
        for ((_, form), times) in others.iter().zip(&mut of_others) {
            times.push(guess(&relay, form).await);
        }
    }
    for ((name, _), times) in others.iter().zip(&of_others) {
        let likely = longer(&of_known, times);
        tell(format_args!("a wrong password of a user takes longer than of {name} in {likely:.2} of pairs"));
        // Where both take as long it is a half, give or take 0.07 with forty rounds; where no hash is made for one of
        // them it is 1, and where a second one is made 0.
        assert!((0.2..=0.8).contains(&likely), "{name}: {likely}");
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_log_ins_takes_its_share_of_memory_and_no_more() {
    let variables = [("TIDEMILL_ADMIN_PASSWORD", "correct horse"), ("TIDEMILL_LIMIT_LOG_INS", "0")];
    let relay = spawn_blocking(move || Relay::start(&variables, &[])).await.expect("it starts");
    let address = relay.address();
    let form = b"username=admin&password=wrong+horse";
    let log_in =
        async || try_send(address, "POST", "/auth/login", &[FORM], form).await.expect("an answer").status;
    assert_eq!(log_in().await, 401);
    let before = relay.resident_bytes();
    let storm = pick(200, 1_000);
    let mut guesses = JoinSet::new();
    for _ in 0..storm {
        guesses.spawn(async move {
            let answer = try_send(address, "POST", "/auth/login", &[FORM], form).await.expect("an answer");
            let says_when = answer.header("retry-after").is_some();
            (answer.status, says_when)
        });
    }
    // Meanwhile others are served, and memory is looked at.
    let (mut most, mut slowest) = (0, Duration::ZERO);
    let mut refused = 0;
    while !guesses.is_empty() {
        let began = Instant::now();
        let health = try_send(address, "GET", "/health", &[], b"").await.expect("an answer");
        assert_eq!(health.status, 200);
        slowest = slowest.max(began.elapsed());
        most = most.max(relay.resident_bytes());
        while let Some(done) = guesses.try_join_next() {
            match done.expect("it does not panic") {
                (401, _) => {}
                (503, true) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        tokio::task::yield_now().await;
    }
    assert!(refused > 0, "as many as there may be wait, and the others are told to come again");
    let grown = most.saturating_sub(before);
    tell(format_args!(
        "{storm} log-ins at once: {} MiB more, {refused} refused, others waited {slowest:?} at most",
        grown >> 20
    ));
    // Beside the hashes, the connections of the storm.
    assert!(grown < RUNNING_MAX * HASH_BYTES + 32 * 1024 * 1024, "{grown} bytes more");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(log_in().await, 401, "and log-ins are served again");
}

#[tokio::test]
async fn who_guesses_is_told_to_wait_whatever_is_guessed() {
    const AMOUNT: u32 = 6;

    let relay = TestRelay::start_with(memory(), |options| {
        closed::close(options);
        options.limits = LimitOptions::none().with(Limit::LogIns, AMOUNT);
    })
    .await;
    // Of one user and of many; the count is that of the address.
    for at in 0..AMOUNT {
        let name = if at % 2 == 0 { "root".to_owned() } else { format!("user-{at}") };
        let form = format!("username={name}&password=guess-{at}");
        assert_eq!(relay.send("POST", "/auth/login", &[FORM], form.as_bytes()).await.status, 401);
    }
    let began = Instant::now();
    for form in ["username=root&password=correct+horse", "username=nobody&password=x"] {
        let answer = relay.send("POST", "/auth/login", &[FORM], form.as_bytes()).await;
        assert_eq!(answer.status, 429, "the right one, too: {answer:?}");
        assert!(answer.header("retry-after").is_some() && answer.header("ratelimit").is_some());
    }
    let basic = send(&relay, Some(ROOT), "GET", "/api/v1/users", &Value::Null).await;
    assert_eq!(basic.status, 429);
    assert!(began.elapsed() < Duration::from_secs(1), "nothing is hashed for who is refused");
    relay.stop().await;
}
