//! Passwords: what is right, what is stored, and how many at one time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::*;

/// Waits as long as it takes: the machine of a test may be slow.
const PATIENT: PasswordOptions = PasswordOptions {
    running_max: 2,
    waiting_max: 64,
    wait_max: Duration::from_mins(1),
    idle_max: Duration::from_mins(1),
};

fn passwords(options: PasswordOptions) -> Passwords {
    Passwords::new(options, TaskTracker::new())
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

/// A hash with parameters of one's own.
fn stored(parameters: &str) -> String {
    format!("$argon2id$v=19${parameters}$c29tZXNhbHRzb21lc2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
}

#[tokio::test]
async fn a_password_is_right_for_its_own_hash_alone() {
    let passwords = passwords(PATIENT);
    let right = secret("correct horse");
    let hash = passwords.hash(&NewPassword::parse(right.clone()).unwrap()).await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert!(hash.len() < STORED_LENGTH_MAX);
    assert_eq!(passwords.verify(Some(&hash), &right).await, Ok(true));
    for wrong in ["correct hors", "Correct horse", "correct horse ", "", "x"] {
        assert_eq!(passwords.verify(Some(&hash), &secret(wrong)).await, Ok(false), "{wrong}");
    }
    assert_eq!(passwords.verify(Some(&hash), &secret(&"x".repeat(1_025))).await, Ok(false));
    assert_eq!(passwords.verify(None, &right).await, Ok(false));
    let again = passwords.hash(&NewPassword::parse(right).unwrap()).await.unwrap();
    assert_ne!(hash, again, "each has a salt of its own");
}

/// What was made by another program, with other parameters, is read by its own.
#[tokio::test]
async fn the_parameters_of_the_stored_hash_count() {
    let passwords = passwords(PATIENT);
    // The reference implementation's test vector: argon2id, t=2, m=2^16, p=1, `password`, `somesalt`.
    let known = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    assert_eq!(passwords.verify(Some(known), &secret("password")).await, Ok(true));
    assert_eq!(passwords.verify(Some(known), &secret("passw0rd")).await, Ok(false));
}

#[tokio::test]
async fn a_stored_hash_cannot_ask_for_more_than_there_is() {
    let passwords = passwords(PATIENT);
    let more = "asks for more memory, passes or lanes than this relay gives";
    let cases = [
        (stored("m=65537,t=2,p=1"), more),
        (stored("m=4194304,t=2,p=1"), more),
        (stored("m=4294967295,t=2,p=1"), more),
        (stored("m=19456,t=9,p=1"), more),
        (stored("m=19456,t=4294967295,p=1"), more),
        (stored("m=19456,t=2,p=5"), more),
        (stored("m=4294967296,t=2,p=1"), "has parameters that Argon2 does not have"),
        (stored("m=1,t=2,p=1"), "has parameters that Argon2 does not have"),
        (stored("m=19456,t=0,p=1"), "has parameters that Argon2 does not have"),
        (stored("m=19456,t=2,p=1").replace("argon2id", "argon2i"), "is none of Argon2id, version 19"),
        (stored("m=19456,t=2,p=1").replace("argon2id", "argon2d"), "is none of Argon2id, version 19"),
        (stored("m=19456,t=2,p=1").replace("v=19", "v=16"), "is none of Argon2id, version 19"),
        ("$argon2id$v=19$m=19456,t=2,p=1".to_owned(), "has no salt or no hash"),
        (stored("m=19456,t=2,p=1") + &"A".repeat(300), "is too long"),
        ("$2b$12$abcdefghijklmnopqrstuv".to_owned(), "is no PHC string"),
        ("password".to_owned(), "is no PHC string"),
        (String::new(), "is no PHC string"),
    ];
    for (stored, rule) in cases {
        let refused = passwords.verify(Some(&stored), &secret("password")).await;
        assert_eq!(refused, Err(VerifyError::Stored(rule)), "{stored}");
    }
}

/// Every way of an answer takes a place for the work of one hash: that of no user, and of a hash that cannot
/// be used, too.
#[tokio::test]
async fn the_same_work_is_done_where_there_is_no_user() {
    let passwords =
        passwords(PasswordOptions { running_max: 0, waiting_max: 1, wait_max: Duration::ZERO, ..PATIENT });
    let known = stored("m=19456,t=2,p=1");
    for stored in [None, Some(known.as_str()), Some("nonsense")] {
        let busy = passwords.verify(stored, &secret("password")).await;
        assert_eq!(busy, Err(VerifyError::Busy(Busy)), "{stored:?}");
    }
    let nobody = PasswordHash::new(&passwords.nobody).unwrap();
    let params = Params::try_from(&nobody).unwrap();
    assert_eq!((params.m_cost(), params.t_cost(), params.p_cost()), (MEMORY_KIB, PASSES, LANES));
}

#[tokio::test]
async fn a_hundred_at_one_time_stay_within_the_bound() {
    let tracker = TaskTracker::new();
    let passwords = Passwords::new(PATIENT, tracker.clone());
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let calls = (0..100).map(|_| {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        let hash = Arc::clone(&passwords.nobody);
        passwords.run(move || {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let is_right = is_right(&hash, &secret("password"));
            running.fetch_sub(1, Ordering::SeqCst);
            is_right
        })
    });
    let outcomes = join_all(calls).await;
    assert_eq!(most.load(Ordering::SeqCst), 2);
    // Those that found neither a place to run nor one to wait.
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err(Busy)).count(), 34);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ok(false)).count(), 66);
    tracker.close();
    tracker.wait().await;
    assert_eq!(passwords.running.available_permits(), 2);
    assert_eq!(passwords.present.available_permits(), 66);
}

#[tokio::test]
async fn whoever_leaves_gives_no_place_away_while_the_work_goes_on() {
    let tracker = TaskTracker::new();
    let options =
        PasswordOptions { running_max: 1, waiting_max: 1, wait_max: Duration::from_millis(20), ..PATIENT };
    let passwords = Passwords::new(options, tracker.clone());
    let (go, wait) = mpsc::channel::<()>();
    let (tx, mut begun) = tokio::sync::mpsc::channel(1);
    let wait = Arc::new(Mutex::new(wait));
    // One that has an idle processor, and one behind it that has its turn after others.
    for _ in 0..2 {
        let (tx, wait) = (tx.clone(), wait.clone());
        let mut blocked = Box::pin(passwords.run(move || {
            let _ = tx.try_send(());
            let _ = wait.lock().recv();
        }));
        tokio::select! {
            _ = &mut blocked => panic!("the work has not ended"),
            begun = begun.recv() => begun.unwrap(),
        }
        drop(blocked);
    }
    assert_eq!(passwords.run(|| ()).await, Err(Busy), "the place is taken, and the wait is bounded");
    tracker.close();
    assert!(!tracker.is_empty(), "whoever drains waits for the work");
    drop(go);
    tracker.wait().await;
    assert_eq!(passwords.run(|| 7).await, Ok(7));
}

#[tokio::test]
async fn whoever_hashes_gives_way_to_the_others() {
    let niceness = || rustix::process::getpriority_process(None).unwrap();
    let policy = || thread_priority::unix::thread_schedule_policy().unwrap();
    let (here, before) = (niceness(), policy());
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    assert_eq!(passwords(PATIENT).run(policy).await, Ok(idle));
    assert_eq!((niceness(), policy()), (here, before), "that of one thread alone has changed");
}

/// Processors may be busy for as long as they like: who logs in does not wait for them.
#[tokio::test]
async fn what_gets_no_time_is_done_a_second_time() {
    let tracker = TaskTracker::new();
    let options = PasswordOptions { idle_max: Duration::from_millis(20), ..PATIENT };
    let passwords = Passwords::new(options, tracker.clone());
    let (go, wait) = mpsc::channel::<()>();
    let (wait, niceness) = (Mutex::new(wait), || rustix::process::getpriority_process(None).unwrap());
    let here = niceness();
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let done = passwords.run(move || {
        if thread_priority::unix::thread_schedule_policy() == Ok(idle) {
            let _ = wait.lock().recv();
        }
        niceness()
    });
    // The kernel's highest number.
    assert_eq!(done.await, Ok((here + NICENESS).min(19)));
    assert_eq!(passwords.idle.available_permits(), 1, "the first one still has its place");
    drop(go);
    tracker.close();
    tracker.wait().await;
    assert_eq!(passwords.running.available_permits(), 2);
}

#[test]
fn new_passwords_obey_the_rules() {
    let parse = |text: &str| NewPassword::parse(secret(text)).map(drop);
    assert_eq!(parse("1234567"), Err(PasswordRule::TooShort(7)));
    assert_eq!(parse(""), Err(PasswordRule::TooShort(0)));
    assert_eq!(parse("12345678"), Ok(()));
    assert_eq!(parse("éééé"), Err(PasswordRule::TooShort(4)), "characters count, as people count them");
    assert_eq!(parse("éééééééé"), Ok(()));
    assert_eq!(parse(&"x".repeat(1_024)), Ok(()));
    assert_eq!(parse(&"x".repeat(1_025)), Err(PasswordRule::TooLong(1_025)));
    let told = PasswordRule::TooShort(7).to_string();
    assert!(told.contains("`password`") && told.contains("at least 8"), "{told}");
    let told = PasswordRule::TooLong(2_000).to_string();
    assert!(told.contains("`password`") && told.contains("at most 1024"), "{told}");
    let shown = format!("{:?}", NewPassword::parse(secret("12345678")));
    assert!(!shown.contains("12345678"), "{shown}");
}
