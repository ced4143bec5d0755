//! How many log-ins there may be, and which of them give way.

use super::*;
use crate::access::directory::Directory;
use crate::access::documents::{USER, User, edit};
use crate::storage::{AccessDocuments, RecordChanges};

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

fn in_minutes(minutes: usize) -> Timestamp {
    NOW.saturating_add(Duration::from_mins(minutes.try_into().expect("few")))
}

fn log_in(user: &str, access_until: Timestamp, expires_at: Timestamp) -> LogIn {
    let hash = TokenHash::of(&[0; 32]);
    LogIn {
        user: user.to_owned(),
        series: 1,
        refresh: Some(RefreshHash { hash: hash.clone(), family: hash.clone() }),
        access: vec![AccessHash { hash, expires_at: access_until }],
        created_at: NOW,
        expires_at,
    }
}

/// The id of a log-in by its place.
fn id(at: usize) -> TokenId {
    TokenId::parse(&format!("{at:016}")).expect("digits")
}

/// Returns records of log-ins, which are called by their places.
fn records(log_ins: impl IntoIterator<Item = LogIn>) -> Records {
    let log_ins: Vec<_> = log_ins.into_iter().collect();
    let users = log_ins.iter().map(|log_in| {
        let edit = edit(USER, &log_in.user, Some(&User { series: 1, ..User::new(NOW) }));
        (edit.name, edit.document.expect("it is written"))
    });
    let documents = AccessDocuments { revision: 1, documents: users.collect() };
    let directory = Directory::read(documents, &Directory::default());
    let records = log_ins.iter().enumerate().map(|(at, log_in)| {
        let edit = put_record(LOG_IN, id(at).as_str(), log_in);
        (edit.name, edit.record)
    });
    let changes = RecordChanges { revision: 1, is_all: true, records: records.collect() };
    Records::default().after(&changes, &directory)
}

fn gone(records: &Records, user: &str) -> Result<Vec<usize>, Code> {
    gone_for(records, user, KeptBy::Program)
}

fn gone_for(records: &Records, user: &str, by: KeptBy) -> Result<Vec<usize>, Code> {
    let edits = make_room(records, user, by, 1, NOW).map_err(|problem| problem.code)?;
    assert!(edits.iter().all(|edit| edit.record.is_none()));
    let place = |edit: &RecordEdit| edit.name.replace("log_in/", "").parse().expect("a place");
    let mut places: Vec<usize> = edits.iter().map(place).collect();
    places.sort_unstable();
    Ok(places)
}

#[test]
fn those_that_are_over_go_and_of_a_user_with_too_many_the_one_that_was_refreshed_longest_ago() {
    let later = in_minutes(100);
    // A log-in whose user has another series is over, too.
    let ended = |before| {
        let created_at = NOW.saturating_sub(before);
        LogIn { series: 2, created_at, ..log_in("ann", later, later) }
    };
    let many = records([ended(UNKNOWN_KEPT), log_in("ann", later, later), ended(UNKNOWN_KEPT / 2)]);
    assert_eq!(gone(&many, "ann"), Ok(vec![0]));
    let few = records([log_in("ann", NOW, NOW), log_in("bob", NOW, NOW), log_in("ann", NOW, later)]);
    assert_eq!(gone(&few, "ann"), Ok(vec![0, 1]));
    // The one in the middle was refreshed last of all but one.
    let until = |at: usize| in_minutes(if at == 7 { 0 } else { at + 1 });
    let many = records((0..LOG_INS_PER_USER_MAX).map(|at| log_in("ann", until(at), later)));
    assert_eq!(gone(&many, "ann"), Ok(vec![7]));
    assert_eq!(gone(&many, "bob"), Ok(Vec::new()));
}

#[test]
fn what_programs_have_and_what_browsers_have_is_counted_apart() {
    let later = in_minutes(100);
    let browser = |until| LogIn { refresh: None, ..log_in("ann", until, until) };
    let many = records(
        (0..COOKIES_PER_USER_MAX)
            .map(|at| browser(in_minutes(at + 2)))
            .chain((0..LOG_INS_PER_USER_MAX - 1).map(|_| log_in("ann", in_minutes(1), later))),
    );
    assert_eq!(gone_for(&many, "ann", KeptBy::Browser), Ok(vec![0]), "the one that ends first");
    assert_eq!(gone_for(&many, "ann", KeptBy::Program), Ok(Vec::new()));
    assert_eq!(gone_for(&many, "bob", KeptBy::Browser), Ok(Vec::new()));
}

#[test]
fn where_there_are_as_many_as_may_be_a_user_gives_up_its_own_and_others_wait() {
    let later = in_minutes(100);
    let user = |at: usize| format!("u{}", at / 100);
    let full = records((0..LOG_INS_MAX).map(|at| log_in(&user(at), in_minutes(at % 100), later)));
    assert_eq!(gone(&full, "u3"), Ok(vec![300]));
    assert_eq!(gone(&full, "ann"), Err(Code::Overloaded));
    let bytes: usize = full.log_ins.values().map(|log_in| log_in.bytes.len()).sum();
    assert!(bytes < 4 * 1024 * 1024, "{bytes} bytes");
}
