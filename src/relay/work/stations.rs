//! The stations of a node, by topic and group.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tidemill_proto::TopicName;
use tidemill_proto::work::GroupName;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::letters::{Letters, Look};
use super::settler::Settler;
use super::station::Station;
use crate::relay::RelayOptions;
use crate::relay::watching::Watching;
use crate::storage::Storage;

/// The stations of a topic.
type OfTopic = HashMap<GroupName, Arc<Station>>;

/// The stations of a node.
#[derive(Debug)]
pub(in crate::relay) struct Stations {
    storage: Storage,
    watching: Watching,
    letters: Letters,
    settler: Settler,
    stations: Mutex<HashMap<TopicName, OfTopic>>,
    gone: Arc<AtomicU64>,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Stations {
    /// Returns none yet; they run on `tracker` until `token` is cancelled. What topics of dead letters keep follows from the
    /// options.
    pub(in crate::relay) fn new(
        storage: Storage,
        watching: Watching,
        options: &RelayOptions,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let look = move |topic: &TopicName, group: &GroupName| {
                if let Some(station) = this.upgrade().and_then(|stations| stations.find(topic, group)) {
                    station.look();
                }
            };
            let letters = Letters::new(storage.clone(), options, tracker, token, Look(Box::new(look)));
            Self {
                settler: Settler::new(storage.clone(), tracker),
                storage,
                watching,
                letters,
                stations: Mutex::default(),
                gone: Arc::default(),
                tracker: tracker.clone(),
                token: token.clone(),
            }
        })
    }

    /// Whether nothing is served any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns how many messages claims over this node have found to be gone.
    pub(in crate::relay) fn gone(&self) -> u64 {
        self.gone.load(Ordering::Relaxed)
    }

    pub(in crate::relay) fn letters(&self) -> &Letters {
        &self.letters
    }

    /// Has the dead letters of groups written, unless that is under way.
    pub(in crate::relay) fn write_letters(&self, groups: &[(TopicName, GroupName)]) {
        for (topic, group) in groups {
            self.letters.write_soon(topic, group);
        }
    }

    pub(super) fn settler(&self) -> &Settler {
        &self.settler
    }

    /// Returns the station of a group, which begins now if there was none.
    pub(super) fn of(self: &Arc<Self>, topic: &TopicName, group: &GroupName) -> Arc<Station> {
        let mut stations = self.stations.lock();
        if let Some(station) = stations.get(topic).and_then(|of_topic| of_topic.get(group))
            && !station.is_over()
        {
            return station.clone();
        }
        // One that is over has not gone yet.
        self.remove(&mut stations, topic, group);
        let (storage, letters) = (self.storage.clone(), self.letters.clone());
        let station =
            Arc::new(Station::new(topic.clone(), group.clone(), storage, letters, self.gone.clone()));
        self.watching.begin(topic);
        stations.entry(topic.clone()).or_default().insert(group.clone(), station.clone());
        let (stations, topic, group) = (self.clone(), topic.clone(), group.clone());
        let served = station.clone();
        self.tracker.spawn(async move {
            let end = |station: &Station| stations.remove_if(&topic, &group, || station.is_idle());
            served.clone().run(stations.token.clone(), end).await;
            // Where the group is gone, or the node stops.
            let is_this = |there: &Arc<Station>| Arc::ptr_eq(there, &served);
            stations.remove_this(&topic, &group, is_this);
        });
        station
    }

    /// Returns the station of a group, if there is one.
    pub(super) fn find(&self, topic: &TopicName, group: &GroupName) -> Option<Arc<Station>> {
        self.stations.lock().get(topic)?.get(group).cloned()
    }

    /// Takes a station out, if that may be; nobody gets it any more then.
    fn remove_if(&self, topic: &TopicName, group: &GroupName, may_be: impl Fn() -> bool) -> bool {
        let mut stations = self.stations.lock();
        if !may_be() {
            return false;
        }
        self.remove(&mut stations, topic, group);
        true
    }

    fn remove_this(&self, topic: &TopicName, group: &GroupName, is_this: impl Fn(&Arc<Station>) -> bool) {
        let mut stations = self.stations.lock();
        if stations.get(topic).and_then(|of_topic| of_topic.get(group)).is_some_and(is_this) {
            self.remove(&mut stations, topic, group);
        }
    }

    fn remove(&self, stations: &mut HashMap<TopicName, OfTopic>, topic: &TopicName, group: &GroupName) {
        let Some(of_topic) = stations.get_mut(topic) else { return };
        if of_topic.remove(group).is_some() {
            self.watching.end(topic);
        }
        if of_topic.is_empty() {
            stations.remove(topic);
        }
    }

    /// Takes a hint of a topic.
    pub(in crate::relay) fn hear(&self, topic: &TopicName) {
        let stations = self.stations.lock();
        // Publishes wait behind this, and most topics have none.
        if let Some(of_topic) = stations.get(topic) {
            for station in of_topic.values() {
                station.look();
            }
        }
    }

    /// Takes a hint of all topics.
    pub(in crate::relay) fn hear_everything(&self) {
        for station in self.stations.lock().values().flat_map(HashMap::values) {
            station.look();
        }
    }
}
