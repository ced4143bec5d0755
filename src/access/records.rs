//! Records of one time: log-ins, devices that wait, sign-ins, and when tokens were used last, as they stand in the storage.
//!
//! They change often, so what comes of a change is made of what was there before, and of what has changed alone. It
//! must not know when records are read, nor what changes them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tidemill_proto::Timestamp;

use super::caller::Caller;
use super::directory::{Directory, keep};
use super::documents::{DEVICE, Device, LOG_IN, LogIn, SIGN_IN, SignIn, USED, read};
use super::token::{TokenId, TokenText};
use crate::storage::RecordChanges;

/// What there is of one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) revision: u64,
    pub(super) log_ins: HashMap<TokenId, Arc<Kept<LogIn>>>,
    pub(super) devices: HashMap<TokenId, Arc<Kept<Device>>>,
    pub(super) sign_ins: HashMap<TokenId, Arc<Kept<SignIn>>>,
    /// When tokens were used last.
    pub(super) used: HashMap<TokenId, Timestamp>,
    /// Log-ins whose users may come in.
    known: HashMap<TokenId, KnownLogIn>,
}

/// A record, and how it is written: who changes it says what it was.
#[derive(Clone, Debug)]
pub(super) struct Kept<T> {
    pub(super) it: T,
    pub(super) bytes: Bytes,
}

/// A log-in whose access tokens are let in until they expire.
#[derive(Clone, Debug)]
pub(super) struct KnownLogIn {
    /// SHA-256 of the texts of its access tokens, and when each expires.
    access: Arc<[([u8; 32], Timestamp)]>,
    pub(super) caller: Caller,
}

impl KnownLogIn {
    /// Returns the caller of a log-in, if its user may come in, and has not ended it.
    fn of(id: TokenId, log_in: &LogIn, directory: &Directory, before: Option<&Self>) -> Option<Self> {
        let user = directory.user(&log_in.user)?;
        let is_going_on = directory.users.get(&*log_in.user)?.series == log_in.series;
        let access = log_in.access.iter();
        let access = access.filter_map(|access| Some((access.hash.bytes()?, access.expires_at)));
        let caller = keep(before.map(|known| &known.caller), user.by_log_in(id));
        is_going_on.then(|| Self { access: access.collect(), caller })
    }

    /// Returns until when one of its access tokens is good; `None` if it is none of them.
    pub(super) fn good_until(&self, token: &TokenText<'_>) -> Option<Timestamp> {
        self.access.iter().find(|(hash, _)| token.matches(hash)).map(|(_, until)| *until)
    }

    /// Returns whether one of its access tokens is good now.
    pub(super) fn is_good(&self, now: Timestamp) -> bool {
        self.access.iter().any(|(_, until)| *until > now)
    }
}

impl Records {
    /// Returns what there is after these changes, for the users of a directory. Callers whose rights are what they
    /// were before are those.
    pub(super) fn after(&self, changes: &RecordChanges, directory: &Directory) -> Self {
        let none = || Self { known: self.known.clone(), ..Self::default() };
        let mut records = if changes.is_all { none() } else { self.clone() };
        records.revision = changes.revision;
        for (name, record) in &changes.records {
            records.take(name, record.as_ref(), directory);
        }
        if changes.is_all {
            let Self { known, log_ins, .. } = &mut records;
            known.retain(|id, _| log_ins.contains_key(id));
        }
        records
    }

    /// Returns the same for the users of another directory.
    pub(super) fn with(&self, directory: &Directory) -> Self {
        let known = self.log_ins.iter().filter_map(|(id, log_in)| {
            Some((*id, KnownLogIn::of(*id, &log_in.it, directory, self.known.get(id))?))
        });
        Self { known: known.collect(), ..self.clone() }
    }

    fn take(&mut self, name: &str, record: Option<&Bytes>, directory: &Directory) {
        // A newer relay may keep more.
        let Some((kind, id)) = name.split_once('/') else { return };
        let Ok(id) = TokenId::parse(id) else { return };
        match kind {
            LOG_IN => {
                let log_in = record.and_then(|record| kept::<LogIn>(name, record));
                let known = log_in
                    .as_ref()
                    .and_then(|log_in| KnownLogIn::of(id, &log_in.it, directory, self.known.get(&id)));
                set(&mut self.known, id, known);
                set(&mut self.log_ins, id, log_in);
            }
            DEVICE => set(&mut self.devices, id, record.and_then(|record| kept(name, record))),
            SIGN_IN => set(&mut self.sign_ins, id, record.and_then(|record| kept(name, record))),
            USED => {
                let used = record.and_then(|record| kept::<Timestamp>(name, record));
                set(&mut self.used, id, used.map(|used| used.it));
            }
            _ => {}
        }
    }

    /// Returns a log-in whose user may come in.
    pub(super) fn log_in(&self, id: TokenId) -> Option<&KnownLogIn> {
        self.known.get(&id)
    }
}

fn kept<T: DeserializeOwned>(name: &str, record: &Bytes) -> Option<Arc<Kept<T>>> {
    match read(record) {
        Ok(it) => Some(Arc::new(Kept { it, bytes: record.clone() })),
        Err(error) => {
            tracing::error!(record = name, %error, "a record of who is let in cannot be read: it lets nobody in");
            None
        }
    }
}

fn set<T>(map: &mut HashMap<TokenId, T>, id: TokenId, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(id, value)),
        None => drop(map.remove(&id)),
    }
}
