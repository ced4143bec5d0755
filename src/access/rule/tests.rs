//! Tests of rules: how they are read, and what they decide.

use proptest::prelude::*;

use super::*;

fn rules(texts: &[&str], name: &str) -> Rules {
    let rules: Vec<Rule> = texts.iter().map(|text| Rule::parse(text).expect(text)).collect();
    Rules::of(&rules, name)
}

fn may(rules: &Rules, verb: Verb, topic: &str) -> bool {
    let topic = TopicName::parse(topic).expect(topic);
    matches!(rules.decide(verb, Thing::Topic(&topic)), Decision::Allowed(_))
}

#[test]
fn a_rule_is_read_and_shown_in_one_form() {
    for (text, shown) in [
        ("allow publish,read orders.*", "allow publish,read orders.*"),
        ("allow  read,publish  orders.*", "allow publish,read orders.*"),
        ("deny manage *", "deny manage *"),
        ("allow admin *", "allow admin *"),
        ("allow read {name}.*", "allow read {name}.*"),
        ("allow read keys/flows/*", "allow read keys/flows/*"),
        ("allow work presence/{name}", "allow work presence/{name}"),
    ] {
        let rule = Rule::parse(text).expect(text);
        assert_eq!(rule.to_string(), shown);
        assert_eq!(serde_json::from_str::<Rule>(&format!("{shown:?}")).expect("it is one"), rule);
    }
    let long = format!("allow read {}", "x".repeat(601));
    for (text, error) in [
        ("", RuleError::Form),
        ("allow read", RuleError::Form),
        ("allow read a b", RuleError::Form),
        ("Allow read a", RuleError::Form),
        ("permit read a", RuleError::Form),
        ("allow read\ta", RuleError::Form),
        ("allow  a", RuleError::Form),
        ("allow write a", RuleError::Verb("write".to_owned())),
        ("allow , a", RuleError::Verb(String::new())),
        ("allow * a", RuleError::Verb("*".to_owned())),
        ("allow read,read a", RuleError::Twice("read")),
        ("allow read a?", RuleError::Character('?')),
        ("allow read é", RuleError::Character('é')),
        ("allow read {nam}", RuleError::Character('{')),
        ("allow read {name", RuleError::Character('{')),
        ("allow read topics/a", RuleError::Kind("topics".to_owned())),
        ("allow read */a", RuleError::Kind("*".to_owned())),
        ("allow read /a", RuleError::Kind(String::new())),
        ("allow read keys/", RuleError::Form),
        ("allow read *********", RuleError::TooManyStars(9)),
        ("allow admin orders.*", RuleError::Admin),
        ("allow read,admin *", RuleError::Admin),
        (&*long, RuleError::TooLong(601)),
    ] {
        assert_eq!(Rule::parse(text), Err(error), "{text}");
    }
}

#[test]
fn deny_wins_and_nothing_said_is_no() {
    let rules = rules(&["allow read orders.*", "deny read,publish orders.secret.*", "allow read *.eu"], "n");
    assert!(may(&rules, Verb::Read, "orders.a") && may(&rules, Verb::Read, "x.eu"));
    assert!(!may(&rules, Verb::Read, "orders.secret.eu"), "whatever the order");
    assert!(!may(&rules, Verb::Read, "other") && !may(&rules, Verb::Publish, "orders.a"));
    assert!(!may(&rules, Verb::Read, "Orders.a"), "names have a case");
    assert!(!may(&Rules::default(), Verb::Read, "a"));
}

#[test]
fn rules_of_other_things_cover_no_topics_and_the_other_way_round() {
    let keys = rules(&["allow read keys/*", "allow read locks/a"], "n");
    assert!(!may(&keys, Verb::Read, "keys") && !may(&keys, Verb::Read, "a"));
    assert!(!keys.allow_some_topic(Verb::Read));
    let all = rules(&["allow read *", "deny read keys/*"], "n");
    assert!(all.allow_every_topic(Verb::Read) && !all.allow_every_topic(Verb::Publish));
    assert!(!rules(&["allow read *", "deny read a"], "n").allow_every_topic(Verb::Read));
    assert!(!rules(&["allow read a*"], "n").allow_every_topic(Verb::Read));
}

#[test]
fn things_are_asked_about_one_by_one_and_all_at_once() {
    let rules =
        rules(&["allow read keys/flows/*", "allow read keys/x/a*", "deny read keys/flows/secret.*"], "n");
    for (thing, expected) in [
        (Thing::Named("keys/flows/a"), true),
        (Thing::Named("keys/flows/secret.a"), false),
        (Thing::Named("keys/flow/a"), false),
        (Thing::Named("locks/flows/a"), false),
        (Thing::Each("keys/flows/a*"), true),
        (Thing::Each("keys/flows/*"), false),
        (Thing::Each("keys/flows/s*"), false),
        (Thing::Each("keys/flows/secret.x*"), false),
        (Thing::Each("keys/x/ab*"), true),
        (Thing::Each("keys/x/*"), false),
        (Thing::Each("keys/*"), false),
    ] {
        let decision = rules.decide(Verb::Read, thing);
        assert_eq!(matches!(decision, Decision::Allowed(_)), expected, "{thing:?}");
    }
}

#[test]
fn a_name_stands_for_itself_and_never_for_more() {
    let texts = ["allow read {name}.*", "allow publish in.{name}"];
    assert!(may(&rules(&texts, "ann"), Verb::Read, "ann.x"));
    assert!(may(&rules(&texts, "ann"), Verb::Publish, "in.ann"));
    assert!(!may(&rules(&texts, "ann"), Verb::Read, "anna.x"));
    for name in ["*", "a*", "", "a/b", "a b", "é", "{name}"] {
        let rules = rules(&texts, name);
        assert!(!rules.allow_some_topic(Verb::Read) && !rules.allow_some_topic(Verb::Publish), "{name}");
    }
}

#[test]
fn the_relay_as_a_whole_is_the_business_of_its_own_verb() {
    let admin = rules(&["allow admin *"], "n");
    assert!(matches!(admin.decide(Verb::Admin, Thing::Relay), Decision::Allowed(_)));
    assert!(matches!(admin.decide(Verb::Read, Thing::Relay), Decision::Unsaid));
    assert!(!may(&admin, Verb::Read, "a"));
    let most = rules(&["allow publish,read,work,manage *"], "n");
    assert!(matches!(most.decide(Verb::Admin, Thing::Relay), Decision::Unsaid));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_fall_over(text in ".{0,60}|(allow|deny) [a-z,]{0,12} [a-z*/{}.]{0,20}") {
        if let Ok(rule) = Rule::parse(&text) {
            prop_assert_eq!(Rule::parse(&rule.to_string()), Ok(rule));
        }
    }

    #[test]
    fn a_name_is_put_in_letter_by_letter(name in "[ab*{}/. \u{e9}-]{0,3}", topic in "[ab.-]{1,6}", around in "[ab*.]{0,2}") {
        let pattern = format!("{around}{{name}}{around}");
        let rules = rules(&[&*format!("allow read {pattern}")], &name);
        // Who cannot be the name of a topic has none by such a rule.
        let is_nameable = !name.is_empty() && name.chars().all(is_of_name);
        let written = format!("{around}{name}{around}");
        let expected = is_nameable && naive(written.as_bytes(), topic.as_bytes());
        if TopicName::parse(&topic).is_ok() {
            prop_assert_eq!(may(&rules, Verb::Read, &topic), expected);
        }
    }

    #[test]
    fn a_decision_is_that_of_each_rule_by_itself(
        said in prop::collection::vec((any::<bool>(), "[ab*]{1,4}"), 0..6),
        topic in "[ab]{1,4}",
    ) {
        let texts: Vec<String> = said.iter()
            .map(|(allows, pattern)| format!("{} read {pattern}", if *allows { "allow" } else { "deny" }))
            .collect();
        let rules = rules(&texts.iter().map(String::as_str).collect::<Vec<_>>(), "n");
        let covers = |pattern: &String| naive(pattern.as_bytes(), topic.as_bytes());
        let denied = said.iter().any(|(allows, pattern)| !allows && covers(pattern));
        let allowed = said.iter().any(|(allows, pattern)| *allows && covers(pattern));
        prop_assert_eq!(may(&rules, Verb::Read, &topic), allowed && !denied);
        if rules.allow_every_topic(Verb::Read) {
            prop_assert!(may(&rules, Verb::Read, &topic));
        }
    }
}

/// The matcher, tried out in every way.
fn naive(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
        Some((first, rest)) => {
            text.split_first().is_some_and(|(own, text)| own == first && naive(rest, text))
        }
    }
}
