//! Administration of a storage without a relay: users, tokens and roles can be made before anything runs.
//!
//! Whoever has the storage may do everything. It must not know who asks.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tidemill_proto::access::{Explain, Explained};
use tidemill_proto::{NodeId, Problem, TopicName};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ServeError;
use super::backends::{self, Purpose};
use super::wiring::WiringError;
use crate::access::{
    Access, AccessOptions, Administration, Caller, NamedThing, Refused, Sessions, Thing, Verb, explained,
    random_secret,
};
use crate::chance::random;
use crate::clock::Clock;
use crate::config::Settings;
use crate::storage::{Backend, Opened, Storage, StorageError};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// What is wanted is wrong.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The storage did not do it.
    #[error("the storage did not do it")]
    Storage(#[source] Box<dyn Error + Send + Sync>),
}

impl From<StorageError> for NotDone {
    fn from(error: StorageError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<Refused> for NotDone {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Problem(problem) => Self::Problem(problem),
            Refused::Read(error) | Refused::Change(error) => error.into(),
        }
    }
}

/// A storage that is administered.
#[derive(Debug)]
pub struct StorageAdministration {
    administration: Administration,
    storage: Storage,
    backend: Arc<dyn Backend>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl StorageAdministration {
    /// Opens the storage that the settings name, and waits for it.
    ///
    /// # Errors
    /// The settings are wrong.
    pub async fn open(settings: &Settings) -> Result<Self, WiringError> {
        let clock = Clock::system();
        let Opened { backend, storage } =
            backends::open(NodeId::new(random()), settings, &clock, Purpose::Visit)?;
        backend.ready(Duration::from_millis(settings.servers.valkey_connect_timeout_ms)).await;
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let (options, sessions) = (AccessOptions::open(), Sessions::new(stop.clone()));
        let access = Access::start(options, &storage, clock, sessions, &tracker, &stop);
        let administration = access.map_err(ServeError::from)?.as_caller(Caller::anyone());
        Ok(Self { administration, storage, backend, tracker, stop })
    }

    /// Does something.
    ///
    /// # Errors
    /// It was not done.
    pub async fn run<T>(
        &self,
        act: impl AsyncFnOnce(&Administration) -> Result<T, Refused>,
    ) -> Result<T, NotDone> {
        Ok(act(&self.administration).await?)
    }

    /// Says what decides whether somebody may do something.
    ///
    /// # Errors
    /// There is no such principal or verb, or the storage did not tell.
    pub async fn explain(&self, asked: &Explain) -> Result<Explained, NotDone> {
        let wrong = |field, rule| NotDone::Problem(Box::new(Problem::field(field, rule)));
        let rule = "must be `publish`, `read`, `work`, `manage` or `admin`";
        let verb = Verb::parse(&asked.verb).ok_or_else(|| wrong("verb", rule))?;
        let caller = self.administration.principal(asked.principal.as_deref()).await?;
        if verb == Verb::Admin {
            return Ok(explained(&caller, verb, Thing::Relay, false));
        }
        let rule = "is missing: only `admin` is about no topic";
        let named = asked.topic.as_deref().ok_or_else(|| wrong("topic", rule))?;
        if NamedThing::is_meant(named) {
            let thing = NamedThing::parse("topic", named).map_err(NotDone::Problem)?;
            return Ok(explained(&caller, verb, thing.thing(), false));
        }
        let topic = TopicName::parse(named).map_err(|error| Problem::field("topic", error));
        let topic = &topic.map_err(|problem| NotDone::Problem(Box::new(problem)))?;
        let owner = match self.storage.topics.describe(topic).await {
            Ok(state) => state.topic.owner_id,
            Err(StorageError::NoTopic | StorageError::NotATopic) => None,
            Err(error) => return Err(error.into()),
        };
        let is_owner = owner.is_some() && caller.owner() == owner.as_deref();
        Ok(explained(&caller, verb, Thing::Topic(topic), is_owner))
    }

    /// Closes the storage.
    pub async fn close(self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.backend.close().await;
    }
}

/// Makes the text of a secret that nobody can guess.
#[must_use]
pub fn new_secret() -> SecretString {
    random_secret()
}
