//! Directories: read, changed, and read again.

use super::*;
use crate::access::Verb;
use crate::access::documents::edit;

fn documents(revision: u64, documents: &[(&str, &str)]) -> AccessDocuments {
    let document = |(name, text): &(&str, &str)| ((*name).into(), Bytes::copy_from_slice(text.as_bytes()));
    AccessDocuments { revision, documents: documents.iter().map(document).collect() }
}

const ANN: (&str, &str) = (
    "user/ann",
    r#"{"roles":["read","crew"],"created_at":"2026-01-01T00:00:00.000Z","is_active":true,"series":1,"id":1}"#,
);
const TOKEN_A: &str = "token/aaaaaaaaaaaaaaaa";
const CREW: (&str, &str) = ("role/crew", r#"{"rules":["allow publish {name}.*"]}"#);

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Returns an id of a token that is as good as any.
fn id(digit: impl std::fmt::Display) -> String {
    digit.to_string().repeat(16)
}

fn caller(directory: &Directory, digit: impl std::fmt::Display) -> Option<Caller> {
    let id = TokenId::parse(&id(digit)).expect("an id");
    directory.token(id).map(|known| known.caller.clone())
}

fn token(maker: &str) -> String {
    format!(
        r#"{{"name":"t","hash":"{ZEROS}","rules":["allow read *"],{maker}"created_at":"2026-01-01T00:00:00.000Z","expires_at":"2030-01-01T00:00:00.000Z"}}"#
    )
}

/// Returns whether somebody's rights are those of a directory.
fn is_current(directory: &Directory, caller: &Caller) -> bool {
    directory.principal(match caller.who() {
        Who::Token { id, .. } => id,
        Who::Anonymous => ANONYMOUS,
        who => who.name(),
    }) == Some(caller.clone())
}

#[test]
fn what_does_not_change_stays_the_same_caller() {
    let own = token(r#""maker":{"user":"ann"},"#);
    let before = Directory::read(documents(1, &[ANN, CREW, (TOKEN_A, &own)]), &Directory::default());
    let (ann, of_ann) = (before.user("ann").expect("ann").clone(), caller(&before, "a").expect("a"));
    assert!(
        ann.check_relay(Verb::Admin).is_err() && is_current(&before, &ann) && is_current(&before, &of_ann)
    );

    let same = Directory::read(documents(2, &[ANN, CREW, (TOKEN_A, &own), ("user/bob", ANN.1)]), &before);
    assert!(is_current(&same, &ann) && is_current(&same, &of_ann) && is_current(&same, &before.anonymous()));

    let other = ("role/crew", r#"{"rules":["allow publish *"]}"#);
    let changed = Directory::read(documents(3, &[ANN, other, (TOKEN_A, &own)]), &same);
    assert!(!is_current(&changed, &ann), "a role of hers has other rules");
    assert!(!is_current(&changed, &of_ann), "what its maker may is another thing");
    assert!(changed.user("ann").is_some() && caller(&changed, "a").is_some());

    let gone = Directory::read(documents(4, &[CREW, (TOKEN_A, &own)]), &changed);
    assert!(gone.user("ann").is_none() && caller(&gone, "a").is_none(), "a token goes with its maker");
    assert!(gone.tokens.contains_key(&*id("a")));
    let idle = (
        "user/ann",
        r#"{"roles":[],"created_at":"2026-01-01T00:00:00.000Z","is_active":false,"series":1,"id":1}"#,
    );
    assert!(Directory::read(documents(5, &[idle]), &gone).user("ann").is_none());
}

#[test]
fn makers_that_go_round_in_a_circle_make_nobody() {
    let (a, b) = (
        token(r#""maker":{"token":"bbbbbbbbbbbbbbbb"},"#),
        token(r#""maker":{"token":"aaaaaaaaaaaaaaaa"},"#),
    );
    let directory = Directory::read(
        documents(1, &[(TOKEN_A, &a), ("token/bbbbbbbbbbbbbbbb", &b)]),
        &Directory::default(),
    );
    assert!(caller(&directory, "a").is_none() && caller(&directory, "b").is_none());
    let chain: Vec<(String, String)> = (0..8)
        .map(|at| {
            let maker =
                if at == 0 { String::new() } else { format!(r#""maker":{{"token":"{}"}},"#, id(at - 1)) };
            (format!("token/{}", id(at)), token(&maker))
        })
        .collect();
    let chain: Vec<(&str, &str)> = chain.iter().map(|(id, text)| (&**id, &**text)).collect();
    let directory = Directory::read(documents(1, &chain), &Directory::default());
    let there: Vec<usize> = (0..8).filter(|at| caller(&directory, at).is_some()).collect();
    assert_eq!(there, [0, 1, 2, 3, 4]);
}

#[test]
fn what_cannot_be_read_lets_nobody_in() {
    let directory = Directory::read(
        documents(
            1,
            &[("user/ann", "{"), ("user/bob", "[]"), ("role/admin", "1"), ("other", "x"), ("a/b", "{}")],
        ),
        &Directory::default(),
    );
    assert!(directory.user("ann").is_none() && directory.user("bob").is_none());
    assert_eq!(directory.roles.len(), 4);
}

#[test]
fn edits_are_looked_at_before_they_are_made() {
    let admin =
        r#"{"roles":["admin"],"created_at":"2026-01-01T00:00:00.000Z","is_active":true,"series":1,"id":1}"#;
    let now = Timestamp::from_millis(1);
    let directory = Directory::read(documents(1, &[("user/ann", admin), CREW]), &Directory::default());
    assert!(directory.has_admin(now));
    let idle = AccessEdit { name: "user/ann".into(), document: Some(Bytes::from_static(ANN.1.as_bytes())) };
    assert!(!directory.edited(&[idle]).has_admin(now), "another role of hers");
    assert!(!directory.edited(&[edit::<User>(USER, "ann", None)]).has_admin(now));
    let none = Role { rules: Vec::new() };
    let emptied = directory.edited(&[edit(ROLE, "admin", Some(&none))]);
    assert!(!emptied.has_admin(now) && directory.has_admin(now));
    let again = emptied.edited(&[edit::<Role>(ROLE, "admin", None)]);
    assert!(again.has_admin(now), "what is ready-made comes back");
    assert!(!directory.edited(&[edit::<Role>(ROLE, "crew", None)]).roles.contains_key("crew"));
}
