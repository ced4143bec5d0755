//! What a node holds: sessions and uses of tokens go on where what they are of does.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::access::documents::{
    AccessHash, LOG_IN, LogIn, RefreshHash, TOKEN, Token, TokenHash, USER, User, edit, without_token,
};
use crate::access::token::{NewToken, TokenKind, TokenText};
use crate::storage::AccessEdit;

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

#[expect(clippy::unnecessary_wraps, reason = "so it is told")]
fn documents(revision: u64, edits: &[AccessEdit]) -> Option<AccessDocuments> {
    let there = edits.iter().filter_map(|edit| Some((edit.name.clone(), edit.document.clone()?)));
    Some(AccessDocuments { revision, documents: there.collect() })
}

#[expect(clippy::unnecessary_wraps, reason = "so it is told")]
fn changes(revision: u64, is_all: bool, edits: Vec<RecordEdit>) -> Option<RecordChanges> {
    let records = edits.into_iter().map(|edit| (edit.name, edit.record)).collect();
    Some(RecordChanges { revision, is_all, records })
}

fn user(name: &str, series: u64, roles: &[&str]) -> AccessEdit {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    edit(USER, name, Some(&User { roles, series, id: 1, ..User::new(NOW) }))
}

/// A log-in of a user, with the access token that it has.
fn log_in(user: &str, series: u64) -> (NewToken, RecordEdit) {
    let token = NewToken::make(TokenKind::Access);
    let hash = TokenHash::of(&token.hash);
    let record = LogIn {
        user: user.to_owned(),
        series,
        refresh: Some(RefreshHash { hash: hash.clone(), family: hash.clone() }),
        access: vec![AccessHash { hash, expires_at: NOW.saturating_add(Duration::from_secs(1)) }],
        created_at: NOW,
        expires_at: NOW,
    };
    let edit = put_record(LOG_IN, token.id.as_str(), &record);
    (token, edit)
}

fn caller(held: &Held, token: &NewToken) -> Option<Caller> {
    use secrecy::ExposeSecret as _;

    let known = held.records.log_in(token.id)?;
    let text = TokenText::parse(TokenKind::Access, token.text.expose_secret()).expect("it was made");
    known.good_until(&text).map(|_| known.caller.clone())
}

#[test]
fn a_log_in_goes_on_for_as_long_as_its_user_and_its_record_do() {
    let ((one, its), (two, of_bob)) = (log_in("ann", 1), log_in("bob", 1));
    let users = |ann: &AccessEdit| documents(1, &[ann.clone(), user("bob", 1, &["write"])]);
    let held = Held::default().after(users(&user("ann", 1, &["read"])), None);
    let held = held.after(None, changes(1, true, vec![its, of_bob.clone()]));
    let (ann, bob) = (caller(&held, &one).expect("ann"), caller(&held, &two).expect("bob"));
    assert!(held.is_current(&ann, NOW) && held.is_current(&bob, NOW));
    assert!(!held.is_current(&ann, NOW.saturating_add(Duration::from_secs(1))), "the token has expired");

    // What others do changes nothing, told alone or with all.
    let (three, other) = log_in("ann", 1);
    let more = held.after(None, changes(2, false, vec![other]));
    assert!(more.is_current(&ann, NOW) && more.is_current(&bob, NOW) && caller(&more, &three).is_some());
    assert!(Arc::ptr_eq(&more.directory, &held.directory), "the documents are not read again");
    let all = held.after(None, changes(3, true, vec![of_bob]));
    assert!(!all.is_current(&ann, NOW) && caller(&all, &one).is_none() && all.is_current(&bob, NOW));

    let gone = more.after(None, changes(4, false, vec![without_record(LOG_IN, one.id.as_str())]));
    assert!(!gone.is_current(&ann, NOW) && gone.is_current(&bob, NOW));
    let same = more.after(users(&user("ann", 1, &["read"])), None);
    assert!(same.is_current(&ann, NOW) && same.is_current(&bob, NOW), "the users are the same");
    for other in [user("ann", 1, &["write"]), user("ann", 2, &["read"]), user("dan", 1, &["read"])] {
        let changed = more.after(users(&other), None);
        assert!(!changed.is_current(&ann, NOW) && changed.is_current(&bob, NOW), "{other:?}");
    }
    // A new password ends them, and other rights do not.
    let ended = more.after(users(&user("ann", 2, &["read"])), None);
    assert!(caller(&ended, &one).is_none() && caller(&ended, &three).is_none());
    let changed = more.after(users(&user("ann", 1, &["write"])), None);
    assert!(caller(&changed, &one).is_some());
    // Who comes to know of a user later than of its log-in lets it in then.
    let early = Held::default().after(None, changes(5, true, vec![log_in("dan", 1).1]));
    let (later, its) = log_in("dan", 1);
    let early = early.after(None, changes(6, false, vec![its]));
    assert!(caller(&early, &later).is_none());
    assert!(caller(&early.after(documents(7, &[user("dan", 1, &[])]), None), &later).is_some());
}

#[test]
fn records_that_cannot_be_read_let_nobody_in() {
    let held = Held::default().after(documents(1, &[user("ann", 1, &[])]), None);
    let (token, its) = log_in("ann", 1);
    let broken = RecordEdit { record: Some(Bytes::from_static(b"{")), ..its.clone() };
    let unknown = RecordEdit { name: "other/0123456789abcdef".into(), ..its.clone() };
    let strange = RecordEdit { name: "log_in/x".into(), ..its.clone() };
    let held = held.after(None, changes(1, true, vec![its, unknown, strange]));
    assert!(caller(&held, &token).is_some() && held.records.log_ins.len() == 1);
    let held = held.after(None, changes(2, false, vec![broken]));
    assert!(caller(&held, &token).is_none() && held.records.log_ins.is_empty());
}

#[test]
fn uses_are_kept_to_the_minute_and_once_in_it() {
    let id = NewToken::make(TokenKind::Token).id;
    let token = Token {
        name: "t".to_owned(),
        hash: TokenHash::of(&[0; 32]),
        rules: Vec::new(),
        maker: None,
        created_at: NOW,
        expires_at: None,
    };
    let there = [edit(TOKEN, id.as_str(), Some(&token))];
    let before = Held::default().after(documents(1, &there), None);
    let known = before.directory.token(id).expect("it is there");
    assert_eq!((before.last_use(id.as_str()), before.uses_to_keep().len()), (None, 0));
    let minute = |minute: u64| Timestamp::from_millis(minute * 60_000);
    known.note_use(minute(7).saturating_add(Duration::from_secs(59)));
    assert_eq!(before.last_use(id.as_str()), Some(minute(7)));
    let after = before.after(documents(2, &there), changes(1, true, before.uses_to_keep()));
    assert_eq!((after.last_use(id.as_str()), after.uses_to_keep().len()), (Some(minute(7)), 0));
    known.note_use(minute(8));
    assert_eq!(after.uses_to_keep().len(), 1, "who goes on noting what was read before is heard");
    let elsewhere = put_record(USED, id.as_str(), &minute(9));
    let told = after.after(None, changes(2, false, vec![elsewhere]));
    assert_eq!(told.uses_to_keep().len(), 0, "another node saw it later");
    let gone = told.after(documents(3, &[without_token(id.as_str())]), None);
    let [RecordEdit { record: None, .. }] = &gone.uses_to_keep()[..] else { panic!("{gone:?}") };
}
