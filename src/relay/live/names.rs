//! The names of topics that a pattern covers, as they come. Hints tell of them at once, and can be lost; the
//! backend's list tells of all, now and then.
//!
//! It must not know feeds.

use std::collections::HashSet;

use tidemill_proto::{TopicName, TopicPattern};
use tokio::sync::Notify;

use super::primitives::Mutex;
use crate::access::{ReadScope, Within};

/// Names that were heard and not taken yet. Past it the list tells them.
const HEARD_MAX: usize = 4_096;

/// What is known of the names that a pattern covers.
#[derive(Debug)]
pub(super) struct Names {
    pattern: TopicPattern,
    /// Which of the topics its readers may read.
    scope: ReadScope,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    known: HashSet<TopicName>,
    heard: Vec<TopicName>,
    is_list_due: bool,
    /// Whether the list was looked at once. Before that, nobody can tell a topic that is new from an old one that
    /// has news.
    is_open: bool,
}

impl Names {
    /// Returns none yet. Nothing is heard before the list was looked at.
    pub(super) fn new(pattern: TopicPattern, scope: ReadScope) -> Self {
        Self { pattern, scope, state: Mutex::default(), wake: Notify::new() }
    }

    /// Hears from now on, and has the list looked at again for what has come meanwhile: whatever is new from here
    /// on was made since.
    pub(super) fn open(&self) {
        self.state.lock().is_open = true;
        self.list_soon();
    }

    /// Returns whether a topic may be among those that are covered.
    fn may_cover(&self, topic: &TopicName) -> bool {
        self.pattern.matches(topic) && self.scope.has(topic) != Within::No
    }

    pub(super) fn scope(&self) -> &ReadScope {
        &self.scope
    }

    pub(super) fn pattern(&self) -> &TopicPattern {
        &self.pattern
    }

    /// Hears that there may be a topic of this name.
    pub(super) fn hear(&self, topic: &TopicName) {
        if !self.may_cover(topic) {
            return;
        }
        let mut state = self.state.lock();
        if !state.is_open || state.known.contains(topic) {
            return;
        }
        if state.heard.len() < HEARD_MAX {
            state.known.insert(topic.clone());
            state.heard.push(topic.clone());
        } else {
            state.is_list_due = true;
        }
        self.wake.notify_one();
    }

    /// Has the list looked at: hints were lost.
    pub(super) fn list_soon(&self) {
        self.state.lock().is_list_due = true;
        self.wake.notify_one();
    }

    /// Returns those of the names that are new and match, and knows them from now on.
    pub(super) fn learn(&self, names: Vec<TopicName>) -> Vec<TopicName> {
        let mut state = self.state.lock();
        let is_new = |name: &TopicName| self.may_cover(name) && state.known.insert(name.clone());
        names.into_iter().filter(is_new).collect()
    }

    /// Forgets a name whose topic is not there: if it is made, it is new.
    pub(super) fn forget(&self, topic: &TopicName) {
        self.state.lock().known.remove(topic);
    }

    /// Takes what was heard, and whether the list is to be looked at.
    pub(super) fn take(&self) -> (Vec<TopicName>, bool) {
        let mut state = self.state.lock();
        (std::mem::take(&mut state.heard), std::mem::take(&mut state.is_list_due))
    }

    /// Waits until there is something to take.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TopicName {
        TopicName::parse(text).expect("a name")
    }

    #[test]
    fn a_name_is_new_once_until_it_is_forgotten() {
        let names = Names::new(TopicPattern::parse("a.*").expect("a pattern"), ReadScope::everything());
        names.hear(&name("a.1"));
        assert_eq!(names.take(), (Vec::new(), false), "it may be an old one");
        names.open();
        assert_eq!(names.take(), (Vec::new(), true), "or one that has come meanwhile");
        for text in ["a.1", "b.1", "a.2", "a.1"] {
            names.hear(&name(text));
        }
        assert_eq!(names.take(), (vec![name("a.1"), name("a.2")], false));
        assert_eq!(names.learn(vec![name("a.2"), name("a.3"), name("c")]), [name("a.3")]);
        names.hear(&name("a.3"));
        assert_eq!(names.take(), (Vec::new(), false));
        names.forget(&name("a.3"));
        names.hear(&name("a.3"));
        assert_eq!(names.take(), (vec![name("a.3")], false));
    }

    #[test]
    fn what_is_heard_is_bounded_and_the_list_tells_the_rest() {
        let names = Names::new(TopicPattern::parse("*").expect("a pattern"), ReadScope::everything());
        names.open();
        names.take();
        for number in 0..HEARD_MAX + 2 {
            names.hear(&name(&number.to_string()));
        }
        let (heard, is_list_due) = names.take();
        assert_eq!((heard.len(), is_list_due), (HEARD_MAX, true));
        assert_eq!(names.learn(vec![name(&HEARD_MAX.to_string()), name("0")]).len(), 1);
    }
}
