//! Which servers are checked, and what of all keys each has.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use tidemill_proto::{BucketName, TopicName, TopicSelector};

use super::hosts;
use super::report::{CheckReport, Outcome};
use crate::chance::random;
use crate::storage::valkey::cluster::asking::{map_at, mode_of};
use crate::storage::valkey::cluster::map::SlotMap;
use crate::storage::valkey::cluster::seat::channels;
use crate::storage::valkey::health::ONE_SERVER;
use crate::storage::valkey::homes::{Home, Homes, Lives};
use crate::storage::valkey::slots::SLOTS;
use crate::storage::valkey::{ValkeyOptions, finding, keys};

/// What the name of the probe's topic starts with. A random number follows, so that two probes do not
/// meet: process ids are all alike in containers.
const NAME_PREFIX: &str = "tidemill-check-";
/// Names that are tried for one that lives at a server; a thousand of them are enough for one of a hundred primaries.
const NAMES_TRIED: usize = 100_000;

/// A server that is checked.
pub(super) struct Server {
    /// What it is called beside others.
    pub(super) name: String,
    pub(super) options: ValkeyOptions,
    /// In a cluster, what it has.
    slots: Option<Vec<RangeInclusive<u16>>>,
    /// Where topics are placed on it, or beside it: how that is told, and which it is.
    placed: Option<(Homes, Home)>,
}

impl Server {
    /// Whether something lives there.
    pub(super) fn has(&self, what: &(impl Lives + ?Sized)) -> bool {
        let slot = || what.slot();
        self.slots.as_ref().is_none_or(|slots| slots.iter().any(|range| range.contains(&slot())))
    }

    /// Whether it is a primary of a cluster.
    pub(super) fn is_of_a_cluster(&self) -> bool {
        self.slots.is_some()
    }

    /// Whether topics are placed on it, or beside it.
    pub(super) fn is_placed(&self) -> bool {
        self.placed.is_some()
    }

    /// Whether topics that are named so may live there.
    pub(super) fn may_have(&self, topics: &TopicSelector) -> bool {
        match (&self.placed, topics) {
            (None, TopicSelector::Topic(topic)) => self.has(topic),
            (None, TopicSelector::Pattern(_)) => true,
            (Some((homes, home)), TopicSelector::Topic(topic)) => homes.of(topic) == *home,
            (Some((homes, home)), TopicSelector::Pattern(_)) => homes.may_have(*home, topics.prefix()),
        }
    }

    /// Returns the name of a topic that lives there and that nobody has.
    pub(super) fn topic(&self, fits: impl Fn(&TopicName) -> bool) -> Option<TopicName> {
        let names = std::iter::repeat_with(|| format!("{NAME_PREFIX}{:016x}", random())).take(NAMES_TRIED);
        let mut topics = names.filter_map(|name| TopicName::parse(&name).ok());
        topics.find(|topic| self.has(topic) && fits(topic))
    }

    /// The same, wherever its part of the index is.
    pub(super) fn any_topic(&self) -> TopicName {
        self.topic(|_| true).expect("letters, digits and dashes name a topic, and a primary has a slot")
    }

    /// Returns the name of a bucket that lives there and that nobody has.
    pub(super) fn any_bucket(&self) -> BucketName {
        let names = std::iter::repeat_with(|| format!("{NAME_PREFIX}{:016x}", random())).take(NAMES_TRIED);
        let mut buckets = names.filter_map(|name| BucketName::parse(&name).ok());
        buckets.find(|bucket| self.has(bucket)).expect("such names are those of buckets, too")
    }

    /// Returns how the doorbell is listened to there, how it is rung, and its channel, if the server has one.
    pub(super) fn doorbell(&self) -> Option<(&'static str, &'static str, String)> {
        let Some(slots) = &self.slots else {
            return Some(("SUBSCRIBE", "PUBLISH", keys::DOORBELL.to_owned()));
        };
        let mut channels = channels();
        let (_, channel) = channels.find(|(slot, _)| slots.iter().any(|range| range.contains(slot)))?;
        Some(("SSUBSCRIBE", "SPUBLISH", channel.to_string()))
    }
}

/// Returns the servers of these options, with what is to be said of them together.
pub(super) async fn of(options: &ValkeyOptions) -> (CheckReport, Vec<Server>) {
    let mut report = CheckReport { lines: Vec::new() };
    let one = |options: ValkeyOptions, placed| {
        let options = finding::found(options);
        Server { name: options.place(), options, slots: None, placed }
    };
    if !options.placed.is_empty() {
        let homes = Homes::ByName(options.placed.iter().map(|placed| placed.topics.clone()).collect());
        let all = std::iter::once(options.clone())
            .chain(options.placed.iter().map(|placed| options.of_placed(placed)));
        let servers: Vec<Server> =
            (0..).zip(all).map(|(home, options)| one(options, Some((homes.clone(), home)))).collect();
        let each = options.placed.iter().zip(&servers[1..]).map(|(placed, server)| {
            let topics: Vec<_> = placed.topics.iter().map(|topics| format!("`{topics}`")).collect();
            format!("{} at {}", topics.join(", "), server.name)
        });
        let each: Vec<_> = each.collect();
        let detail = format!("{}, everything else at {}", each.join("; "), servers[0].name);
        report.add("placement", Outcome::Pass, detail, None);
        return (report, servers);
    }
    let first = one(options.clone(), None);
    if options.cluster == Some(false) {
        return (report, vec![first]);
    }
    // What cannot be reached is told where that is tried again.
    let Ok((is_cluster, address)) = mode_of(&first.options).await else { return (report, vec![first]) };
    if !is_cluster {
        if options.cluster == Some(true) {
            let advice = "set VALKEY_CLUSTER=auto, or name a server of the cluster";
            report.add("cluster", Outcome::Fail, "the server is not part of a cluster", Some(advice));
        }
        return (report, vec![first]);
    }
    match map_at(&first.options, address, options.timeout).await {
        Ok(map) => {
            hosts::add(&mut report, options).await;
            add_cluster(&mut report, &map);
            let primaries = map.primaries.into_iter().map(|primary| {
                let options = options.of_primary(primary.address);
                Server { name: options.place(), options, slots: Some(primary.slots), placed: None }
            });
            (report, primaries.collect())
        }
        Err(error) => {
            let advice = "the relay must learn which primary has what: the server's user needs +cluster|slots +cluster|info";
            report.add("cluster", Outcome::Fail, error, Some(advice));
            (report, Vec::new())
        }
    }
}

/// Adds that two servers are one, by what tells them from all others.
pub(super) fn tell_apart(report: &mut CheckReport, servers: &[Server], identities: &[Option<String>]) {
    let mut known = HashMap::new();
    for (server, identity) in servers.iter().zip(identities) {
        let Some(identity) = identity else { continue };
        if let Some(other) = known.insert(identity, &server.name) {
            let detail = format!("{other} and {} {ONE_SERVER}", server.name);
            let advice = "leave that part of VALKEY_PLACEMENT out, or name the server that it was to be";
            report.add("placement", Outcome::Fail, detail, Some(advice));
        }
    }
}

fn add_cluster(report: &mut CheckReport, map: &SlotMap) {
    let ranges = map.primaries.iter().flat_map(|primary| &primary.slots);
    let slots: usize = ranges.map(ExactSizeIterator::len).sum();
    let count = map.primaries.len();
    let detail = format!("{count} primaries have {slots} of {SLOTS} slots");
    if slots < usize::from(SLOTS) || !map.is_ok {
        let advice = "topics of slots that nobody has are refused; `CLUSTER INFO` tells more. A new cluster is made with `valkey-cli --cluster create`, and one that lost slots mended with `--cluster fix`";
        report.add("cluster", Outcome::Fail, detail, Some(advice));
    } else {
        report.add("cluster", Outcome::Pass, detail, None);
    }
}
