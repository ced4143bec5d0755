//! What rules let be done with anything at all, and what they let be done together.
//!
//! Whoever was made by somebody may do what the rules of both allow. It is told here on the safe side: where it says
//! that nothing can be done, nothing can; where several rules deny all of it together, it still says that something can.
//! It must not know what there is.

use tidemill_proto::pattern;

use super::{Bound, Decision, Effect, Kind, Rule, Rules, Thing, Verbs};
use crate::access::Verb;

impl Rules {
    /// Returns whether there may be a topic with which all of these rules let this be done.
    pub(in crate::access) fn let_some_topic(all: &[&Self], verb: Verb) -> bool {
        let Some(first) = all.first() else { return true };
        let parts = first.bounds_of(verb, true).filter(|bound| bound.rule.effect == Effect::Allow);
        parts.into_iter().any(|part| all.iter().all(|rules| rules.let_some_of(verb, part)))
    }

    /// Returns what these rules allow and one of those surely does not: rules, each with such verbs alone.
    pub(in crate::access) fn beyond(&self, makers: &[&Self]) -> Vec<Rule> {
        let beyond = |part: &Bound| {
            let is_beyond = |verb: &Verb| makers.iter().any(|maker| !maker.let_some_of(*verb, part));
            let verbs = part.rule.verbs.iter().filter(is_beyond);
            let verbs = Verbs(verbs.fold(0, |verbs, verb| verbs | Verbs::of(verb).0));
            (verbs != Verbs::default()).then(|| Rule { verbs, ..part.rule.clone() })
        };
        let allowing = self.bounds.iter().filter(|bound| bound.rule.effect == Effect::Allow);
        allowing.filter_map(beyond).collect()
    }

    /// Returns whether the rules let this be done with anything at all of a kind.
    pub(in crate::access) fn allow_some_named(&self, verb: Verb, kind: Kind) -> bool {
        // The kind of a pattern is written out.
        let is_of_kind = |pattern: &str| pattern.split_once('/').is_some_and(|(of, _)| of == kind.as_str());
        self.bounds_of(verb, false)
            .any(|bound| bound.rule.effect == Effect::Allow && is_of_kind(&bound.pattern))
    }

    /// Returns the rules about this verb, of topics or of other things.
    fn bounds_of(&self, verb: Verb, is_of_topics: bool) -> impl Iterator<Item = &Bound> {
        let is_of = move |bound: &&Bound| bound.rule.verbs.has(verb) && bound.is_of_topics == is_of_topics;
        self.bounds.iter().filter(is_of)
    }

    /// Returns whether the rules may let this be done with something that a rule covers.
    fn let_some_of(&self, verb: Verb, part: &Bound) -> bool {
        if verb == Verb::Admin {
            return matches!(self.decide(verb, Thing::Relay), Decision::Allowed(_));
        }
        let mut is_allowed = false;
        for Bound { rule, pattern, .. } in self.bounds_of(verb, part.is_of_topics) {
            match rule.effect {
                // A `*` of the part is matched by one of the rule alone, so that this covers all that it stands for.
                Effect::Deny if pattern::matches(pattern, &part.pattern) => return false,
                Effect::Deny => {}
                Effect::Allow => is_allowed = is_allowed || meet(pattern, &part.pattern),
            }
        }
        is_allowed
    }
}

/// Returns whether there may be a text that both patterns match.
pub(super) fn meet(one: &str, other: &str) -> bool {
    let Some((one_start, one_rest)) = one.split_once('*') else { return pattern::matches(other, one) };
    let Some((other_start, other_rest)) = other.split_once('*') else { return pattern::matches(one, other) };
    let end = |rest: &str| rest.rsplit_once('*').map_or(rest.len(), |(_, end)| end.len());
    let (one_end, other_end) = (&one[one.len() - end(one_rest)..], &other[other.len() - end(other_rest)..]);
    // Between a start and an end that fit both there is room for all that stands between stars.
    let starts = one_start.starts_with(other_start) || other_start.starts_with(one_start);
    starts && (one_end.ends_with(other_end) || other_end.ends_with(one_end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidemill_proto::TopicName;

    use super::*;

    fn rules(texts: &[&str]) -> Rules {
        let rules: Vec<Rule> = texts.iter().map(|text| Rule::parse(text).expect(text)).collect();
        Rules::of(&rules, "n")
    }

    #[test]
    fn what_a_maker_surely_may_not_is_told_by_rule_and_verb() {
        let maker =
            rules(&["allow publish,read orders.*", "deny publish orders.audit.*", "allow read keys/a"]);
        for (rule, beyond) in [
            ("allow read orders.eu", &[][..]),
            ("allow read *", &[]),
            ("allow read *.eu", &[]),
            ("allow publish,read,manage orders.*", &["allow manage orders.*"]),
            ("allow publish,read payroll.*", &["allow publish,read payroll.*"]),
            ("allow publish,read orders.audit.eu*", &["allow publish orders.audit.eu*"]),
            ("allow publish orders.a*", &[]),
            ("allow admin *", &["allow admin *"]),
            ("allow read keys/*", &[]),
            ("allow read keys/b", &["allow read keys/b"]),
            ("deny read payroll.*", &[]),
        ] {
            let told: Vec<_> = rules(&[rule]).beyond(&[&maker]).iter().map(ToString::to_string).collect();
            assert_eq!(told, beyond, "{rule}");
        }
        let admin = rules(&["allow admin *"]);
        assert!(rules(&["allow admin *"]).beyond(&[&admin]).is_empty());
        assert_eq!(rules(&["allow admin *"]).beyond(&[&admin, &maker]).len(), 1, "all of them must");
        assert!(rules(&["allow manage *"]).beyond(&[]).is_empty(), "on a relay that is open to everybody");
    }

    #[test]
    fn rules_together_let_be_done_what_each_of_them_does() {
        let (wide, orders) = (rules(&["allow read,publish *"]), rules(&["allow read orders.*"]));
        assert!(Rules::let_some_topic(&[&wide, &orders], Verb::Read));
        assert!(!Rules::let_some_topic(&[&wide, &orders], Verb::Publish));
        assert!(!Rules::let_some_topic(&[&rules(&["allow read payroll"]), &orders], Verb::Read));
        assert!(!Rules::let_some_topic(&[&rules(&["allow read a", "deny read *"])], Verb::Read));
        assert!(!Rules::let_some_topic(&[&rules(&["allow read keys/*"])], Verb::Read), "keys are no topics");
    }

    #[test]
    fn what_is_no_topic_is_told_by_its_kind() {
        let of = rules(&["allow work,read limits/mail.*", "allow read *", "deny read locks/*"]);
        assert!(of.allow_some_named(Verb::Work, Kind::Limit) && of.allow_some_named(Verb::Read, Kind::Limit));
        assert!(
            !of.allow_some_named(Verb::Manage, Kind::Limit) && !of.allow_some_named(Verb::Read, Kind::Lock)
        );
        assert!(!of.allow_some_named(Verb::Read, Kind::Key), "topics are no keys");
    }

    proptest! {
        #[test]
        fn what_is_told_to_be_nothing_is_nothing(
            texts in prop::collection::vec(("(allow|deny)", "[ab*]{1,4}"), 1..4),
            own in "[ab*]{1,4}",
            topic in "[ab]{1,5}",
        ) {
            let texts: Vec<_> = texts.iter().map(|(effect, pattern)| format!("{effect} read {pattern}")).collect();
            let maker = rules(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let token = rules(&[&*format!("allow read {own}")]);
            let topic = TopicName::parse(&topic).expect("a name");
            let may = |rules: &Rules| {
                matches!(rules.decide(Verb::Read, Thing::Topic(&topic)), Decision::Allowed(_))
            };
            let both = may(&maker) && may(&token);
            prop_assert!(!both || token.beyond(&[&maker]).is_empty());
            prop_assert!(!both || Rules::let_some_topic(&[&token, &maker], Verb::Read));
        }

        #[test]
        fn patterns_meet_where_a_text_matches_both(
            one in "[ab*]{1,5}", other in "[ab*]{1,5}",
        ) {
            // Long enough for all letters of both.
            let texts = (1..=10_u32).flat_map(|len| (0..1_u32 << len).map(move |bits| (len, bits)));
            let mut texts = texts.map(|(len, bits)| {
                (0..len).map(|at| if bits >> at & 1 == 0 { 'a' } else { 'b' }).collect::<String>()
            });
            let both = texts.any(|text| pattern::matches(&one, &text) && pattern::matches(&other, &text));
            // Nothing has the empty name, which both may match.
            let is_empty = pattern::matches(&one, "") && pattern::matches(&other, "");
            prop_assert_eq!(meet(&one, &other), both || is_empty);
        }
    }
}
