//! Tests of who calls, and of what they may do.

use super::*;

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect(name)
}

fn code(caller: &Caller, verb: Verb, name: &str) -> Result<Permit, Code> {
    caller.check(verb, &topic(name)).map_err(|problem| problem.code)
}

fn token(rules: &[&str], maker: &Caller) -> Caller {
    Caller::of(Who::Token { id: "i".into(), name: "t".into() }, rules, Some(maker))
}

#[test]
fn users_may_do_what_rules_allow_and_with_their_own_what_none_denies() {
    let ann = Caller::of(Who::User("ann".into()), &["allow read a.*", "deny read,publish a.secret"], None);
    assert_eq!(code(&ann, Verb::Read, "a.x"), Ok(Permit::Granted));
    assert_eq!(code(&ann, Verb::Publish, "a.x"), Ok(Permit::IfOwner));
    assert_eq!(code(&ann, Verb::Manage, "b"), Ok(Permit::IfOwner));
    assert_eq!(code(&ann, Verb::Read, "a.secret"), Err(Code::Forbidden), "a rule denies it, whoever owns it");
    assert!(ann.check_relay(Verb::Admin).is_err());
}

#[test]
fn a_token_can_do_no_more_than_its_maker() {
    let ann = Caller::of(Who::User("ann".into()), &["allow read,publish a.*"], None);
    let wide = token(&["allow read,manage *"], &ann);
    assert_eq!(code(&wide, Verb::Read, "a.x"), Ok(Permit::Granted));
    assert_eq!(code(&wide, Verb::Read, "b"), Err(Code::Forbidden), "its maker may not");
    assert_eq!(code(&wide, Verb::Publish, "a.x"), Err(Code::Forbidden), "no rule of its own allows it");
    assert_eq!(code(&wide, Verb::Manage, "a.x"), Err(Code::Forbidden), "tokens own nothing");
    assert!(matches!(wide.rule_on(Verb::Read, Thing::Topic(&topic("b"))), Ruling::BeyondMaker(_)));
    let deeper = token(&["allow read *"], &wide);
    assert_eq!(code(&deeper, Verb::Read, "a.x"), Ok(Permit::Granted));
    assert_eq!(code(&deeper, Verb::Read, "b"), Err(Code::Forbidden));
    assert!(!deeper.may_with_every_topic(Verb::Read));
}

#[test]
fn things_that_are_no_topics_have_rules_of_their_own() {
    let ann = Caller::of(Who::User("ann".into()), &["allow read,publish *", "allow read keys/a/*"], None);
    let code = |result: Result<(), Box<Problem>>| result.map_err(|problem| problem.code);
    assert_eq!(code(ann.check_named(Verb::Read, Kind::Key, &["a", "k"])), Ok(()));
    assert_eq!(code(ann.check_each(Verb::Read, Kind::Key, &["a", ""])), Ok(()));
    assert_eq!(code(ann.check_each(Verb::Read, Kind::Key, &["a"])), Err(Code::Forbidden), "also of `ab`");
    assert_eq!(code(ann.check_named(Verb::Publish, Kind::Key, &["a", "k"])), Err(Code::Forbidden));
    assert_eq!(code(ann.check_named(Verb::Read, Kind::Lock, &["a"])), Err(Code::Forbidden));
    let wide = token(&["allow read keys/*"], &ann);
    assert_eq!(code(wide.check_named(Verb::Read, Kind::Key, &["a", "k"])), Ok(()));
    assert_eq!(code(wide.check_named(Verb::Read, Kind::Key, &["b", "k"])), Err(Code::Forbidden));
    assert_eq!(code(Caller::anyone().check_each(Verb::Manage, Kind::Key, &[""])), Ok(()));
}

#[test]
fn who_says_nothing_is_asked_who_it_is() {
    let nobody = Caller::of(Who::Anonymous, &["allow read public.*"], None);
    assert_eq!(code(&nobody, Verb::Read, "public.a"), Ok(Permit::Granted));
    assert_eq!(code(&nobody, Verb::Read, "a"), Err(Code::Unauthenticated));
    assert_eq!(nobody.check_relay(Verb::Admin).map_err(|problem| problem.code), Err(Code::Unauthenticated));
    assert_eq!(Caller::anyone(), Caller::anyone());
    assert_eq!(code(&Caller::anyone(), Verb::Manage, "a"), Ok(Permit::Granted));
}
