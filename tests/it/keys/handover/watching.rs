//! One attach of a watcher: what it asked for, what it got, and whether that is what the log says.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use tidemill::proto::MessageId;
use tidemill::storage::LoggedKind;
use tokio::time::timeout;

use super::log::{Change, Log};
use super::{BUCKET, World};
use crate::support::dice::Dice;
use crate::support::watcher::{Form, Frame, View, Watcher};

/// When a watcher is cut.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// After so many frames.
    Frames(u64),
    /// After so long, wherever it is.
    Time(Duration),
}

impl Cut {
    pub(super) fn of(dice: &mut Dice) -> Self {
        match dice.roll(3) {
            0 => Self::Frames(1 + dice.roll(40)),
            1 => Self::Time(dice.up_to_ms(40)),
            _ => Self::Time(Duration::from_millis(40) + dice.up_to_ms(100)),
        }
    }
}

/// Which keys.
#[derive(Clone, Debug)]
enum Scope {
    All,
    Prefix(String),
    Key(String),
}

impl Scope {
    fn has(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Key(only) => only == key,
        }
    }

    fn path(&self) -> String {
        let query = match self {
            Self::All => String::new(),
            Self::Prefix(prefix) => format!("?prefix={prefix}"),
            Self::Key(key) => format!("?key={key}"),
        };
        format!("/api/v1/keys/{BUCKET}{query}")
    }
}

/// What came, and up to where the log may have been trimmed by then.
#[derive(Debug)]
struct Came {
    frame: Frame,
    trimmed: MessageId,
}

/// How much of what can happen has happened.
#[derive(Debug, Default)]
pub(super) struct Seen {
    resumed: usize,
    snapshots: usize,
    torn: usize,
    resets: usize,
    bookmarks: usize,
    changes: usize,
    ends: usize,
}

impl Seen {
    /// A log that is trimmed under a snapshot is rare: what has just come need not be read of it.
    pub(super) const fn is_varied(&self) -> bool {
        let Self { resumed, snapshots, torn: _, resets, bookmarks, changes, ends } = self;
        *resumed > 0 && *snapshots > 0 && *resets > 0 && *bookmarks > 0 && *changes > 0 && *ends > 0
    }
}

/// One attach.
#[derive(Debug)]
pub(super) struct Session {
    scope: Scope,
    form: Form,
    /// What it knew when it attached, and from where on.
    before: View,
    /// Keys of a step of which it had a part when it was cut: it knows more of them than its place says, and is told
    /// the whole step again.
    ahead: HashSet<String>,
    after: View,
    came: Vec<Came>,
}

impl Session {
    /// A watcher that knows nothing.
    pub(super) fn new(dice: &mut Dice, groups: &[&str]) -> Self {
        let group = dice.pick(groups);
        let scope = match dice.roll(4) {
            0 => Scope::Prefix(format!("{group}.")),
            1 => Scope::Key(format!("{group}.1")),
            _ => Scope::All,
        };
        let (before, after) = (View::default(), View::default());
        Self { scope, form: dice.pick(&Form::ALL), before, ahead: HashSet::new(), after, came: Vec::new() }
    }

    /// The same watcher, that comes again.
    pub(super) fn again(&self) -> Self {
        let mut before = self.after.clone();
        before.attached();
        let mut ahead = self.ahead.clone();
        let mut place = self.before.id.as_deref();
        for Came { frame, .. } in &self.came {
            match frame.id.as_deref() {
                // An id ends a step. That of a bookmark may say once more where it is.
                Some(id) if place != Some(id) => {
                    place = Some(id);
                    ahead.clear();
                }
                None if matches!(frame.kind.as_str(), "put" | "deleted" | "expired") => {
                    ahead.insert(frame.name().to_owned());
                }
                _ => {}
            }
        }
        let (scope, form, after) = (self.scope.clone(), self.form, before.clone());
        Self { scope, form, before, ahead, after, came: Vec::new() }
    }

    /// Attaches, and reads until it is cut.
    pub(super) async fn run(&mut self, relay: SocketAddr, world: &World, cut: Cut) {
        let id = self.before.id.clone();
        let headers = id.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        // A relay that stops takes nobody.
        let path = self.scope.path();
        let Ok(mut watcher) = Watcher::open(relay, &path, self.form, &headers).await else { return };
        let reading = async {
            let mut left = if let Cut::Frames(count) = cut { count } else { u64::MAX };
            while left > 0 {
                let Ok(frame) = watcher.next().await else { return };
                left -= 1;
                let is_end = frame.kind == "end";
                self.after.take(&frame);
                self.came.push(Came { frame, trimmed: *world.trimmed.lock() });
                if is_end {
                    return;
                }
            }
        };
        let most = if let Cut::Time(time) = cut { time } else { Duration::from_secs(1) };
        // What is half read when the time is over is lost, as with a connection that breaks.
        let _ = timeout(most, reading).await;
    }

    /// Checks what came.
    pub(super) fn check(&self, log: &Log, seen: &mut Seen) {
        let mut check = Check {
            session: self,
            log,
            view: self.before.clone(),
            place: self.before.id.as_deref().map_or(Place::Snapshot, |id| Place::Behind(parse(id))),
            had: HashSet::new(),
        };
        if let Place::Behind(_) = check.place {
            seen.resumed += 1;
        }
        for (at, came) in self.came.iter().enumerate() {
            check.take(came, seen).unwrap_or_else(|wrong| {
                let from = at.saturating_sub(5);
                panic!("{wrong}, frame {at}, behind {:?}: {:#?}", self.before.id, &self.came[from..=at]);
            });
        }
    }
}

/// Where a watcher is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a snapshot that is not whole.
    Snapshot,
    /// Behind this change: every change up to there was told.
    Behind(MessageId),
}

struct Check<'a> {
    session: &'a Session,
    log: &'a Log,
    view: View,
    place: Place,
    /// Revisions that came since the attach, or the last reset.
    had: HashSet<MessageId>,
}

fn parse(id: &str) -> MessageId {
    MessageId::parse(id).unwrap_or_else(|error| panic!("{id}: {error}"))
}

impl Check<'_> {
    fn take(&mut self, came: &Came, seen: &mut Seen) -> Result<(), String> {
        let Came { frame, trimmed } = came;
        self.view.take(frame);
        match frame.kind.as_str() {
            "put" | "deleted" | "expired" => {
                seen.changes += 1;
                self.change(frame)?;
            }
            "synced" => {
                seen.snapshots += 1;
                let id = parse(frame.revision());
                self.place = Place::Behind(id);
                self.compare(id)?;
            }
            "reset" => {
                seen.resets += 1;
                match self.place {
                    Place::Behind(id) if id >= *trimmed => {
                        return Err(format!("nothing behind {id} was trimmed"));
                    }
                    Place::Behind(_) => {}
                    Place::Snapshot => seen.torn += 1,
                }
                self.place = Place::Snapshot;
                self.had.clear();
            }
            "bookmark" => {
                seen.bookmarks += 1;
                let id = parse(frame.revision());
                self.passed(id)?;
            }
            "end" => seen.ends += 1,
            other => return Err(format!("what is {other}")),
        }
        match (frame.kind.as_str(), frame.id.as_deref()) {
            (_, None) | ("reset", Some("")) => Ok(()),
            (_, Some(id)) if id == frame.revision() => self.step_end(parse(id)),
            (_, Some(id)) => Err(format!("the id {id} is not the revision")),
        }
    }

    /// Checks that a change is told in its turn.
    fn change(&mut self, frame: &Frame) -> Result<(), String> {
        let (key, id) = (frame.name(), parse(frame.revision()));
        if !self.session.scope.has(key) {
            return Err(format!("{key} is not watched"));
        }
        let Some(logged) = self.log.get(id) else { return Err(format!("the log has no {id}")) };
        let kind = match logged.kind {
            LoggedKind::Put => "put",
            LoggedKind::Deleted => "deleted",
            LoggedKind::Expired => "expired",
        };
        if (logged.key.as_str(), kind) != (key, frame.kind.as_str()) {
            return Err(format!("the log has {logged:?}"));
        }
        if !self.had.insert(id) {
            return Err(format!("{id} comes twice"));
        }
        let Place::Behind(place) = self.place else { return Ok(()) };
        // Whatever else is between the two is not its own.
        if let Some(missed) = self.own_between(place, id).find(|change| change.id != id) {
            return Err(format!("{missed:?} is missing in front of {id}"));
        }
        if id <= place {
            return Err(format!("{id} comes behind {place}"));
        }
        if frame.id.is_none() != logged.more {
            return Err(format!("an id stands at the end of a step alone: {logged:?}"));
        }
        self.place = Place::Behind(id);
        Ok(())
    }

    /// Checks that nothing of its own is missing up to an id.
    fn passed(&mut self, id: MessageId) -> Result<(), String> {
        let Place::Behind(place) = self.place else { return Err("a bookmark in a snapshot".to_owned()) };
        if let Some(missed) = self.own_between(place, id).next() {
            return Err(format!("{missed:?} is missing in front of the bookmark"));
        }
        if id < place {
            return Err(format!("a bookmark goes back behind {place}"));
        }
        self.place = Place::Behind(id);
        self.compare(id)
    }

    /// Checks that an id is behind a whole step, and that what the watcher knows is what there was.
    fn step_end(&self, id: MessageId) -> Result<(), String> {
        if self.log.get(id).is_some_and(|change| change.more) {
            return Err(format!("{id} is inside of a step"));
        }
        self.compare(id)
    }

    fn own_between(&self, after: MessageId, up_to: MessageId) -> impl Iterator<Item = &Change> {
        self.log.between(after, up_to).iter().filter(|change| self.session.scope.has(&change.key))
    }

    fn compare(&self, id: MessageId) -> Result<(), String> {
        let there = self.log.at(id);
        let is_where_it_began = self.session.before.id.as_deref().is_some_and(|before| parse(before) == id);
        let is_ahead = |key: &str| is_where_it_began && self.session.ahead.contains(key);
        for (key, (revision, expires)) in
            there.iter().filter(|(key, _)| self.session.scope.has(key) && !is_ahead(key))
        {
            match self.view.there.get(*key) {
                Some(known) if parse(known) == *revision => {}
                // Its time was over, and that is told behind it.
                None if *expires => {}
                known => return Err(format!("{key} is {revision} at {id}, and not {known:?}")),
            }
        }
        match self.view.there.keys().find(|key| !there.contains_key(key.as_str()) && !is_ahead(key)) {
            Some(key) => Err(format!("there is no {key} at {id}")),
            None => Ok(()),
        }
    }
}
