//! How many log-ins there may be, and which of them give way.

use std::time::Duration;

use super::*;
use crate::storage::AccessDocuments;

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

fn in_minutes(minutes: usize) -> Timestamp {
    NOW.saturating_add(Duration::from_mins(minutes.try_into().expect("few")))
}

fn log_in(user: &str, access_until: Timestamp, expires_at: Timestamp) -> LogIn {
    let hash = TokenHash::of(&[0; 32]);
    LogIn {
        user: user.to_owned(),
        refresh: hash.clone(),
        family: hash.clone(),
        access: vec![AccessHash { hash, expires_at: access_until }],
        created_at: NOW,
        expires_at,
    }
}

/// Returns a directory with log-ins, which are called by their places.
fn directory(log_ins: impl IntoIterator<Item = LogIn>) -> Directory {
    let named = log_ins.into_iter().enumerate();
    let documents = named.map(|(at, log_in)| {
        let edit = edit(LOG_IN, &at.to_string(), Some(&log_in));
        (edit.name, edit.document.expect("it is written"))
    });
    Directory::read(AccessDocuments { revision: 1, documents: documents.collect() }, &Directory::default())
}

fn gone(directory: &Directory, user: &str) -> Result<Vec<String>, Code> {
    let edits = make_room(directory, user, NOW).map_err(|problem| problem.code)?;
    let mut names: Vec<_> = edits.iter().map(|edit| edit.name.replace("log_in/", "")).collect();
    assert!(edits.iter().all(|edit| edit.document.is_none()));
    names.sort_by_key(|name| name.parse::<usize>().expect("a place"));
    Ok(names)
}

#[test]
fn those_that_are_over_go_and_of_a_user_with_too_many_the_one_that_was_refreshed_longest_ago() {
    let later = in_minutes(100);
    let few = directory([log_in("ann", NOW, NOW), log_in("bob", NOW, NOW), log_in("ann", NOW, later)]);
    assert_eq!(gone(&few, "ann"), Ok(vec!["0".to_owned(), "1".to_owned()]));
    // The one in the middle was refreshed last of all but one.
    let until = |at: usize| in_minutes(if at == 7 { 0 } else { at + 1 });
    let many = directory((0..LOG_INS_PER_USER_MAX).map(|at| log_in("ann", until(at), later)));
    assert_eq!(gone(&many, "ann"), Ok(vec!["7".to_owned()]));
    assert_eq!(gone(&many, "bob"), Ok(Vec::new()));
}

#[test]
fn where_there_are_as_many_as_may_be_a_user_gives_up_its_own_and_others_wait() {
    let later = in_minutes(100);
    let user = |at: usize| format!("u{}", at / 100);
    let full = directory((0..LOG_INS_MAX).map(|at| log_in(&user(at), in_minutes(at % 100), later)));
    assert_eq!(gone(&full, "u3"), Ok(vec!["300".to_owned()]));
    assert_eq!(gone(&full, "ann"), Err(Code::Overloaded));
    assert!(full.bytes < 4 * 1024 * 1024, "{} bytes", full.bytes);
}
