//! Which servers have which topics, as `valkey_placement` says it.
//!
//! No error repeats a URL, which may hold a password.

use secrecy::ExposeSecret as _;
use tidemill_proto::TopicSelector;

use super::{ConfigError, InCluster, Settings};
use crate::storage::valkey::options::{PLACED_MAX, PLACED_TOPICS_MAX};
use crate::storage::valkey::target::Target;

/// The setting.
const PLACEMENT: &str = "valkey_placement";

/// A server beside the first, with what lives there.
pub(super) struct PlacedAt {
    pub(super) topics: Vec<TopicSelector>,
    pub(super) target: Target,
    /// Whether its URL has a password.
    pub(super) has_password: bool,
}

impl Settings {
    /// Returns how many servers there are beside that of the URL.
    #[must_use]
    pub fn servers_beside(&self) -> usize {
        let first = self.valkey_target().ok();
        first.and_then(|first| self.placement(&first).ok()).map_or(0, |beside| beside.len())
    }

    /// Returns the servers beside the first, in the order in which a name is held against what lives there.
    ///
    /// # Errors
    /// A part of the setting breaks a rule, or contradicts another one or another setting.
    pub(super) fn placement(&self, first: &Target) -> Result<Vec<PlacedAt>, ConfigError> {
        let Some(text) = &self.servers.valkey_placement else { return Ok(Vec::new()) };
        if self.servers.valkey_cluster == InCluster::True {
            return Err(ConfigError::relation(
                (PLACEMENT.to_owned(), self.source(PLACEMENT)),
                "is for servers that stand alone, and contradicts",
                ("valkey_cluster = true".to_owned(), self.source("valkey_cluster")),
            ));
        }
        let parts = text.expose_secret().split(';').map(str::trim).filter(|part| !part.is_empty());
        let mut all: Vec<PlacedAt> = Vec::new();
        for (number, part) in (1_usize..).zip(parts) {
            if all.len() == PLACED_MAX {
                return Err(self.breaks(PLACEMENT, format!("names more than {PLACED_MAX} servers")));
            }
            let wrong = |rule: String| self.breaks(PLACEMENT, format!("has a part {number} that {rule}"));
            let (topics, url) = part.split_once('=').ok_or_else(|| {
                wrong("has no `=`; write `eu.*=valkey://host:6379`, with `;` between servers".to_owned())
            })?;
            let mut selectors: Vec<TopicSelector> = Vec::new();
            for (place, text) in (1_usize..).zip(topics.split(',')) {
                let selector = TopicSelector::parse(text.trim()).map_err(|error| {
                    wrong(format!(
                        "has in front of its `=`, at place {place}, a name or pattern that {error}"
                    ))
                })?;
                let earlier = all.iter().flat_map(|placed| &placed.topics).chain(&selectors);
                if earlier.into_iter().any(|earlier| *earlier == selector) {
                    return Err(self.breaks(PLACEMENT, format!("has `{selector}` twice")));
                }
                selectors.push(selector);
            }
            let target = self.target_of_url(PLACEMENT, url.trim(), |rule| {
                let is_list = url.split_once(',').is_some_and(|(_, more)| more.contains('='));
                let between = if is_list { "; between servers stands `;`" } else { "" };
                wrong(format!("has a URL that {rule}{between}"))
            })?;
            if is_same(&target, first) {
                return Err(wrong(
                    "names the server and database that has everything else anyway; leave it out".to_owned(),
                ));
            }
            if let Some(other) = all.iter().position(|other| is_same(&target, &other.target)) {
                let other = other + 1;
                return Err(wrong(format!(
                    "names the server and database of part {other}; write all their names in one part, with commas"
                )));
            }
            let has_password = Target::parse(url.trim()).is_ok_and(|target| target.password.is_some());
            all.push(PlacedAt { topics: selectors, target, has_password });
        }
        if all.iter().map(|placed| placed.topics.len()).sum::<usize>() > PLACED_TOPICS_MAX {
            return Err(
                self.breaks(PLACEMENT, format!("has more than {PLACED_TOPICS_MAX} names and patterns"))
            );
        }
        Ok(all)
    }
}

/// Returns whether two targets are one server and database, as far as their texts tell.
fn is_same(one: &Target, other: &Target) -> bool {
    let is_there = |(host, port): (&str, u16)| {
        other.hosts().any(|(there, at)| port == at && host.eq_ignore_ascii_case(there))
    };
    one.watched == other.watched && one.database == other.database && one.hosts().any(is_there)
}
