//! The list of topics: which names a page looks at, which of them it shows, and where it ends.
//!
//! It asks nobody. A backend brings names, and the topics of those that were chosen, until the page is
//! there; it must not know how either is found.

use std::fmt;

use tidemill_proto::topics::Topic;
use tidemill_proto::{TopicName, TopicSelector};

/// A page of the topic list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicList {
    /// Topics in the order of their names (by byte).
    pub topics: Vec<Topic>,
    /// The name after which the next page starts; `None` if this one is the last.
    pub next: Option<TopicName>,
}

/// Which topics a list is to show, by their names.
#[derive(Clone, Copy, Default)]
pub struct Selection<'a> {
    selector: Option<&'a TopicSelector>,
    wanted: Option<&'a (dyn Fn(&TopicName) -> bool + Sync)>,
}

impl<'a> Selection<'a> {
    /// Returns the selection of those that a selector has; of all, where there is none.
    #[must_use]
    pub const fn of(selector: Option<&'a TopicSelector>) -> Self {
        Self { selector, wanted: None }
    }

    /// Returns those of them that are wanted.
    #[must_use]
    pub const fn wanted(self, wanted: &'a (dyn Fn(&TopicName) -> bool + Sync)) -> Self {
        Self { wanted: Some(wanted), ..self }
    }

    fn has(&self, name: &TopicName) -> bool {
        self.selector.is_none_or(|selector| selector.matches(name))
            && self.wanted.is_none_or(|wanted| wanted(name))
    }
}

impl fmt::Debug for Selection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selection").field("selector", &self.selector).finish_non_exhaustive()
    }
}

/// Names that one page looks at: a few milliseconds of work, however few of them are selected.
pub const LISTED_NAMES_MAX: usize = 10_000;

/// Names looked at in one step, once it has shown that most are not selected.
const STEP_NAMES: usize = 1_000;

/// A page that is being made.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    selection: Selection<'a>,
    limit: usize,
    /// The name after which to look on.
    after: Option<TopicName>,
    topics: Vec<Topic>,
    looked_at: usize,
    /// How many names were chosen last.
    chosen: usize,
    /// Whether some that were chosen are of topics that are gone.
    has_gone: bool,
    /// Whether a name is selected for which there was no room.
    has_more: bool,
    /// Whether no names follow those that were looked at.
    is_end: bool,
}

impl<'a> Listing<'a> {
    /// Begins a page of up to `limit` topics.
    pub(super) fn new(selection: Selection<'a>, after: Option<&TopicName>, limit: usize) -> Self {
        Self {
            selection,
            limit,
            after: after.cloned(),
            topics: Vec::new(),
            looked_at: 0,
            chosen: 0,
            has_gone: false,
            has_more: false,
            is_end: false,
        }
    }

    /// Returns what the next names to look at begin with.
    pub(super) fn prefix(&self) -> &'a str {
        self.selection.selector.map_or("", TopicSelector::prefix)
    }

    /// Returns the name after which the next names to look at come.
    pub(super) fn after(&self) -> Option<&TopicName> {
        self.after.as_ref()
    }

    /// Returns how many names to look at next. Fewer are taken for all that there are.
    pub(super) fn wanted(&self) -> usize {
        if let Some(TopicSelector::Topic(_)) = self.selection.selector {
            // Where it is, it is the first.
            return 1;
        }
        // One more than there is room for tells whether another page follows.
        let enough = (self.limit - self.topics.len()).saturating_add(1);
        let wanted = if self.looked_at == 0 { enough } else { enough.max(STEP_NAMES) };
        wanted.min(LISTED_NAMES_MAX - self.looked_at)
    }

    /// Takes the next names, and returns those whose topics the page may show.
    pub(super) fn choose(&mut self, names: Vec<TopicName>) -> Vec<TopicName> {
        self.is_end =
            names.len() < self.wanted() || matches!(self.selection.selector, Some(TopicSelector::Topic(_)));
        self.looked_at += names.len();
        let last = names.last().cloned();
        // Where topics are gone, more may be: so all of a step are looked up, not a page of them each time.
        let room = if self.has_gone { STEP_NAMES } else { self.limit - self.topics.len() };
        let selection = self.selection;
        let mut chosen: Vec<_> =
            names.into_iter().filter(|name| selection.has(name)).take(room.saturating_add(1)).collect();
        self.has_more = chosen.len() > room;
        chosen.truncate(room);
        let last = if self.has_more { chosen.last().cloned() } else { last };
        self.after = last.or_else(|| self.after.take());
        self.chosen = chosen.len();
        chosen
    }

    /// Adds the topics of chosen names, without those that are gone. Returns the page when it is there.
    pub(super) fn add(&mut self, topics: Vec<Topic>) -> Option<TopicList> {
        self.has_gone |= topics.len() < self.chosen;
        self.topics.extend(topics);
        if self.topics.len() > self.limit {
            self.topics.truncate(self.limit);
            self.has_more = true;
            self.after = self.topics.last().map(|topic| topic.topic_name.clone());
        }
        let is_last = self.is_end && !self.has_more;
        let is_full = self.topics.len() == self.limit && self.has_more;
        if !is_last && !is_full && self.looked_at < LISTED_NAMES_MAX {
            return None;
        }
        let next = if is_last { None } else { self.after.take() };
        Some(TopicList { topics: std::mem::take(&mut self.topics), next })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tidemill_proto::topics::WhenFull;

    use super::*;

    /// Names of topics, and whether their topics are there.
    type Names = BTreeMap<TopicName, bool>;

    fn name(text: &str) -> TopicName {
        TopicName::parse(text).expect(text)
    }

    fn topic(name: TopicName) -> Topic {
        Topic {
            topic_id: name.clone(),
            topic_name: name,
            owner_id: None,
            created_at: None,
            description: None,
            retention_seconds: None,
            max_messages: None,
            max_bytes: None,
            when_full: WhenFull::DropOld,
            keep_until_acked: false,
            idle_seconds: None,
            compact_by: None,
        }
    }

    /// Makes a page; returns it with the number of names looked at.
    fn page(
        names: &Names,
        selected: Option<&TopicSelector>,
        after: Option<&TopicName>,
        limit: usize,
    ) -> (TopicList, usize) {
        let mut listing = Listing::new(Selection::of(selected), after, limit);
        let mut looked_at = 0;
        loop {
            let rest = names.keys().filter(|name| {
                name.as_str().starts_with(listing.prefix())
                    && listing.after().is_none_or(|after| *name > after)
            });
            let seen: Vec<_> = rest.take(listing.wanted()).cloned().collect();
            looked_at += seen.len();
            let chosen = listing.choose(seen);
            let there = chosen.into_iter().filter(|name| names[name]).map(topic).collect();
            if let Some(list) = listing.add(there) {
                return (list, looked_at);
            }
        }
    }

    fn selector() -> impl Strategy<Value = Option<TopicSelector>> {
        let text = prop_oneof!["[ab]{0,2}[*]([ab.*]{0,3}[ab*])?", "[ab]([ab.]{0,2}[ab])?"];
        proptest::option::of(text.prop_map(|text| TopicSelector::parse(&text).expect("a selector")))
    }

    proptest! {
        #[test]
        fn pages_show_each_selected_topic_once_and_in_order(
            names in proptest::collection::btree_map("[ab]([ab.]{0,3}[ab])?", proptest::bool::weighted(0.8), 0..40),
            selected in selector(),
            limit in 1..6_usize,
        ) {
            let names: Names = names.into_iter().map(|(text, there)| (name(&text), there)).collect();
            let expected: Vec<_> = names
                .iter()
                .filter(|(name, there)| **there && selected.as_ref().is_none_or(|it| it.matches(name)))
                .map(|(name, _)| name.clone())
                .collect();
            let (mut shown, mut after) = (Vec::new(), None);
            loop {
                let (list, _) = page(&names, selected.as_ref(), after.as_ref(), limit);
                prop_assert!(list.topics.len() <= limit);
                shown.extend(list.topics.into_iter().map(|topic| topic.topic_name));
                let Some(next) = list.next else { break };
                prop_assert_eq!(shown.len() % limit, 0, "a page that is not the last is full");
                prop_assert!(after.as_ref() < Some(&next), "pages go forward");
                after = Some(next);
            }
            prop_assert_eq!(shown, expected);
        }
    }

    fn numbered(count: usize, there: bool) -> Names {
        (0..count).map(|number| (name(&format!("n{number:06}")), there)).collect()
    }

    #[test]
    fn a_page_ends_where_it_has_looked_at_enough_names() {
        let names = numbered(25_000, true);
        let selected = TopicSelector::parse("*24999").expect("a pattern");
        let mut after = None;
        let mut pages = Vec::new();
        loop {
            let (list, looked_at) = page(&names, Some(&selected), after.as_ref(), 10);
            pages.push((list.topics.len(), looked_at));
            let Some(next) = list.next else { break };
            after = Some(next);
        }
        assert_eq!(pages, [(0, LISTED_NAMES_MAX), (0, LISTED_NAMES_MAX), (1, 5_000)]);
    }

    #[test]
    fn few_names_are_looked_at_where_few_are_needed() {
        let names = numbered(5_000, true);
        for (text, limit, expected) in
            [("*", 10, 11), ("n0000*", 10, 11), ("n000007", 10, 1), ("none", 10, 0), ("n00409*", 100, 10)]
        {
            let selected = TopicSelector::parse(text).expect(text);
            assert_eq!(page(&names, Some(&selected), None, limit).1, expected, "{text}");
        }
        assert_eq!(page(&names, None, None, 100).1, 101);
    }

    #[test]
    fn topics_that_are_gone_empty_no_page() {
        let mut names = numbered(2_000, false);
        names.insert(name("z"), true);
        let (list, looked_at) = page(&names, None, None, 10);
        assert_eq!((list.topics.len(), list.next), (1, None));
        assert!(looked_at < 2_010, "{looked_at}");
    }
}
