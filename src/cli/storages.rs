//! Storages that a command names by their URLs, beside the settings of a relay.
//!
//! It must not know what a command does with them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use tidemill_proto::NodeId;

use super::{CliError, logs};
use crate::chance::random;
use crate::clock::Clock;
use crate::storage::valkey::{KeyForm, Target, Valkey, ValkeyOptions};
use crate::storage::{Backend as _, Storage, StorageLimits};

/// How long a server may take until it can be used.
const READY_MAX: Duration = Duration::from_secs(10);
/// Longest file with a URL that is read.
const URL_BYTES_MAX: usize = 4_096;

/// How the keys of a storage are written, as `VALKEY_KEY_FORM` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Keys {
    /// `stream:topic:orders`
    #[default]
    Plain,
    /// `stream:topic:{orders}`
    Braces,
}

/// A storage that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) storage: Storage,
    /// What it is called where a command speaks of it.
    pub(super) name: String,
    backend: Arc<Valkey>,
}

impl Opened {
    /// Opens the storage that a flag names, and waits for it. A URL behind an `@` is that of a file with it.
    pub(super) async fn open(
        flag: &str,
        url: &str,
        keys: Keys,
        ca_cert: Option<&PathBuf>,
    ) -> Result<Self, CliError> {
        let wrong = |rule: String| CliError::Usage(format!("--{flag}: {rule}"));
        let url = match url.strip_prefix('@') {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|cause| wrong(format!("{path} cannot be read: {cause}")))?;
                if text.len() > URL_BYTES_MAX {
                    return Err(wrong(format!("{path} has more than a URL")));
                }
                text.trim().to_owned()
            }
            None => url.to_owned(),
        };
        if url.starts_with("http://") || url.starts_with("https://") {
            let rule = "names a relay; name the storage behind it, as in valkey://host:6379";
            return Err(wrong(rule.to_owned()));
        }
        let target = Target::parse(&url).map_err(|error| wrong(error.to_string()))?;
        let name = target.to_string();
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|cause| {
                CliError::Usage(format!("--ca-cert: {} cannot be read: {cause}", path.display()))
            })
        };
        let options = ValkeyOptions {
            ca_pem: ca_cert.map(read).transpose()?,
            key_form: match keys {
                Keys::Plain => KeyForm::Plain,
                Keys::Braces => KeyForm::Braces,
            },
            ..ValkeyOptions::new(target)
        };
        // What is there is copied, however much it is.
        let limits = StorageLimits {
            retention: None,
            topics_max: u64::from(u32::MAX),
            idempotency_window: Duration::from_mins(10),
            schedules_max: u64::from(u32::MAX),
            topic_schedules_max: u64::from(u32::MAX),
            buckets_max: u64::from(u32::MAX),
        };
        logs::start_silent();
        let backend = Valkey::connect(NodeId::new(random()), options, limits, Clock::system());
        let opened = Self { storage: Storage::new(backend.clone()), name, backend };
        if opened.backend.ready(READY_MAX).await {
            return Ok(opened);
        }
        let seconds = READY_MAX.as_secs();
        let why = format!("{}: it cannot be used within {seconds} s; `tidemill check` says why", opened.name);
        let cause = why.into();
        opened.close().await;
        Err(CliError::Failed("a storage cannot be used", cause))
    }

    /// Lets go of it.
    pub(super) async fn close(self) {
        self.backend.close().await;
    }
}
