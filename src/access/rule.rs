//! Rules: who may do what with what, as texts like `allow publish,read orders.*`.
//!
//! A rule names things by a pattern. One without a `/` is of topics, whose names cannot hold one; all others
//! begin with the kind of thing: `keys/flows/*`. So no rule for topics covers anything else by accident.
//! `{name}` in a pattern stands for the name of who asks, letter by letter.
//!
//! Deny wins over allow, whatever the order, and what no rule says is not allowed. It must not know who has
//! which rules.

mod reach;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidemill_proto::TopicName;
use tidemill_proto::pattern;

use super::Verb;

/// Longest pattern of a rule in bytes: the kind and the two longest names that a key has.
pub(super) const PATTERN_BYTES_MAX: usize = 600;
/// Most `*` in a pattern, as in those that are subscribed to.
pub(super) const STARS_MAX: usize = 8;

/// What stands for the name of who asks.
const NAME: &str = "{name}";

/// What rules can be about, besides topics.
const KINDS: [&str; 5] = [
    Kind::Key.as_str(),
    Kind::Lock.as_str(),
    Kind::Limit.as_str(),
    Kind::Presence.as_str(),
    Kind::Series.as_str(),
];

/// What a rule says about what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Effect {
    /// It may be done.
    Allow,
    /// It may not, whatever other rules say.
    Deny,
}

/// A rule: `allow|deny <verbs> <pattern>`. Cloning is cheap. It is shown, and read, as its text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    effect: Effect,
    verbs: Verbs,
    pattern: Arc<str>,
}

/// Some of the verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Verbs(u8);

/// Why a text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It has not three parts.
    #[error(
        "must be `allow` or `deny`, verbs with commas between them, and a pattern, as in `allow publish,read orders.*`"
    )]
    Form,
    /// There is no such verb.
    #[error("has the verb `{0}`; there are `publish`, `read`, `work`, `manage` and `admin`")]
    Verb(String),
    /// A verb is there twice.
    #[error("has the verb `{0}` twice")]
    Twice(&'static str),
    /// The pattern is too long.
    #[error("has a pattern of {0} bytes; it has 1 to {PATTERN_BYTES_MAX}")]
    TooLong(usize),
    /// The pattern has a character that no name has.
    #[error(
        "has the character {0:?} in its pattern; allowed are letters, digits, `_`, `-`, `.`, `:`, `*`, `{{name}}`, and `/` behind the kind of what is no topic"
    )]
    Character(char),
    /// The pattern has too many stars.
    #[error("has {0} times `*`; a pattern has it at most {STARS_MAX} times")]
    TooManyStars(usize),
    /// The pattern is of something that there is not.
    #[error(
        "is about `{0}/`; besides topics there are `keys/`, `locks/`, `limits/`, `presence/` and `series/`"
    )]
    Kind(String),
    /// The relay as a whole has no parts.
    #[error(
        "must have `*` as its pattern, because `admin` is about the relay as a whole; write other verbs in a rule of their own"
    )]
    Admin,
}

impl Verbs {
    const fn of(verb: Verb) -> Self {
        Self(1 << verb as u8)
    }

    const fn has(self, verb: Verb) -> bool {
        self.0 & Self::of(verb).0 != 0
    }

    fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.has(*verb))
    }
}

impl Rule {
    /// Parses a rule.
    ///
    /// # Errors
    /// Tells the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let (Some(effect), Some(verbs), Some(pattern), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(RuleError::Form);
        };
        let effect = match effect {
            "allow" => Effect::Allow,
            "deny" => Effect::Deny,
            _ => return Err(RuleError::Form),
        };
        let mut known = Verbs::default();
        for word in verbs.split(',') {
            let verb = Verb::parse(word).ok_or_else(|| RuleError::Verb(word.to_owned()))?;
            if known.has(verb) {
                return Err(RuleError::Twice(verb.as_str()));
            }
            known.0 |= Verbs::of(verb).0;
        }
        check_pattern(pattern)?;
        if known.has(Verb::Admin) && (pattern != "*" || known != Verbs::of(Verb::Admin)) {
            return Err(RuleError::Admin);
        }
        Ok(Self { effect, verbs: known, pattern: pattern.into() })
    }

    /// Returns the pattern for who has this name; `None` if no thing's name can have that in it, so that the
    /// rule covers nothing.
    fn pattern_for(&self, name: &str) -> Option<Arc<str>> {
        if !self.pattern.contains(NAME) {
            return Some(self.pattern.clone());
        }
        let is_nameable = !name.is_empty() && name.chars().all(is_of_name);
        is_nameable.then(|| self.pattern.replace(NAME, name).into())
    }
}

/// Returns whether a character can stand in the name of a topic.
fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.' | ':')
}

fn check_pattern(pattern: &str) -> Result<(), RuleError> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(RuleError::TooLong(pattern.len()));
    }
    let stars = pattern.matches('*').count();
    if stars > STARS_MAX {
        return Err(RuleError::TooManyStars(stars));
    }
    let named = pattern.replace(NAME, "");
    let foreign = |character: &char| !is_of_name(*character) && !matches!(character, '*' | '/');
    if let Some(character) = named.chars().find(foreign) {
        return Err(RuleError::Character(character));
    }
    match pattern.split_once('/') {
        Some((kind, _)) if !KINDS.contains(&kind) => Err(RuleError::Kind(kind.to_owned())),
        Some((_, "")) => Err(RuleError::Form),
        Some(_) | None => Ok(()),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.effect {
            Effect::Allow => "allow ",
            Effect::Deny => "deny ",
        })?;
        for (at, verb) in self.verbs.iter().enumerate() {
            write!(f, "{}{verb}", if at > 0 { "," } else { "" })?;
        }
        write!(f, " {}", self.pattern)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        Self::parse(text)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Kinds of things that are no topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A key in a bucket: `keys/BUCKET/KEY`.
    Key,
    /// A lock: `locks/NAME`.
    Lock,
    /// A limit of an application: `limits/NAME`.
    Limit,
    /// A member of a room: `presence/ROOM/MEMBER`.
    Presence,
    /// A series: `series/NAME`.
    Series,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Key, Self::Lock, Self::Limit, Self::Presence, Self::Series];

    /// Returns what stands in front of the slash in rules.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "keys",
            Self::Lock => "locks",
            Self::Limit => "limits",
            Self::Presence => "presence",
            Self::Series => "series",
        }
    }
}

/// What a question to the rules is about.
#[derive(Clone, Copy, Debug)]
pub enum Thing<'a> {
    /// A topic.
    Topic(&'a TopicName),
    /// What is no topic, with its kind in front: `keys/flows/a`.
    Named(&'a str),
    /// All at once whose names match this pattern: `keys/flows/*`.
    Each(&'a str),
    /// The relay as a whole.
    Relay,
}

impl Thing<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Topic(topic) => topic.as_str(),
            Self::Named(name) | Self::Each(name) => name,
            // What is about the relay has the pattern `*`.
            Self::Relay => "",
        }
    }

    const fn is_of_topics(&self) -> bool {
        match self {
            Self::Topic(_) | Self::Relay => true,
            Self::Named(_) | Self::Each(_) => false,
        }
    }
}

/// What rules say about a question.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// This rule allows it, and none denies it.
    Allowed(&'a Rule),
    /// This rule denies it.
    Denied(&'a Rule),
    /// No rule says anything.
    Unsaid,
}

/// The rules of somebody, with the name put in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    bounds: Vec<Bound>,
    /// What they let be done with every topic that there can be: every request asks.
    every_topic: Verbs,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bound {
    rule: Rule,
    pattern: Arc<str>,
    /// Whether it is of topics, or of the relay as a whole: every request asks.
    is_of_topics: bool,
}

impl Bound {
    fn new(rule: Rule, pattern: Arc<str>) -> Self {
        let is_of_topics = !pattern.contains('/');
        Self { rule, pattern, is_of_topics }
    }
}

impl Rules {
    /// No rules, by which nothing is allowed.
    pub(super) const NONE: Self = Self { bounds: Vec::new(), every_topic: Verbs(0) };

    /// Returns the rules of who has this name.
    pub fn of<'a>(rules: impl IntoIterator<Item = &'a Rule>, name: &str) -> Self {
        let bind = |rule: &Rule| Some(Bound::new(rule.clone(), rule.pattern_for(name)?));
        Self::bound(rules.into_iter().filter_map(bind).collect())
    }

    fn bound(bounds: Vec<Bound>) -> Self {
        let of_topics =
            |verb: Verb| bounds.iter().filter(move |bound| bound.rule.verbs.has(verb) && bound.is_of_topics);
        let is_of_every = |verb: &Verb| {
            of_topics(*verb).all(|bound| bound.rule.effect == Effect::Allow)
                && of_topics(*verb).any(|bound| bound.pattern.bytes().all(|byte| byte == b'*'))
        };
        let every_topic = Verb::ALL.into_iter().filter(is_of_every);
        let every_topic = Verbs(every_topic.fold(0, |verbs, verb| verbs | Verbs::of(verb).0));
        Self { bounds, every_topic }
    }

    /// Returns whether there are none.
    pub(super) fn are_none(&self) -> bool {
        self.bounds.is_empty()
    }

    /// Returns the rules, as they were written.
    pub(super) fn texts(&self) -> Vec<Rule> {
        self.bounds.iter().map(|bound| bound.rule.clone()).collect()
    }

    /// Returns what the rules say.
    #[must_use]
    pub fn decide(&self, verb: Verb, thing: Thing<'_>) -> Decision<'_> {
        let name = thing.as_str();
        let mut allowed = None;
        for Bound { rule, pattern, is_of_topics } in &self.bounds {
            let is_of_kind = rule.verbs.has(verb) && *is_of_topics == thing.is_of_topics();
            // A `*` of what is asked is matched by one of the rule alone, so that a rule allows all that it stands for;
            // one that denies any of it denies all.
            let covers = || match (thing, rule.effect) {
                (Thing::Each(each), Effect::Deny) => reach::meet(pattern, each),
                _ => pattern::matches(pattern, name),
            };
            if !is_of_kind || !covers() {
                continue;
            }
            match rule.effect {
                Effect::Deny => return Decision::Denied(rule),
                Effect::Allow => allowed = allowed.or(Some(rule)),
            }
        }
        allowed.map_or(Decision::Unsaid, Decision::Allowed)
    }

    /// Returns whether the rules let this be done with every topic there can be.
    #[must_use]
    pub const fn allow_every_topic(&self, verb: Verb) -> bool {
        self.every_topic.has(verb)
    }

    /// Returns whether the rules let this be done with any topic at all.
    #[must_use]
    pub fn allow_some_topic(&self, verb: Verb) -> bool {
        let allows = |bound: &Bound| {
            bound.rule.effect == Effect::Allow && bound.rule.verbs.has(verb) && bound.is_of_topics
        };
        self.bounds.iter().any(allows)
    }

    /// Returns what the rules say of reading topics, and nothing else: the same for all of which they say the same.
    pub(super) fn reading(&self) -> Self {
        let of_topics =
            self.bounds.iter().filter(|bound| bound.rule.verbs.has(Verb::Read) && bound.is_of_topics);
        let alone = |bound: &Bound| {
            let pattern = bound.pattern.clone();
            let rule = Rule { verbs: Verbs::of(Verb::Read), pattern: pattern.clone(), ..bound.rule.clone() };
            Bound::new(rule, pattern)
        };
        Self::bound(of_topics.map(alone).collect())
    }
}

#[cfg(test)]
mod tests;
