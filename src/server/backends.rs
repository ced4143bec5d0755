//! The backends that a node can be built on: how each is opened, with what the settings say of it.
//!
//! This is the only list of them. It must not know what a backend does.

use std::sync::Arc;

use tidemill_proto::NodeId;

use crate::clock::Clock;
use crate::config::{Backend, ConfigError, MemoryFull, Settings};
use crate::storage::Opened;
use crate::storage::memory::{Memory, MemoryOptions, WhenFull};
#[cfg(feature = "valkey")]
use crate::storage::valkey::Valkey;

/// Opens a backend. What it needs outside this process need not be there yet.
type Open = fn(NodeId, &Settings, &Clock) -> Result<Opened, ConfigError>;

/// Opens the backend that the settings name, for this node.
///
/// # Errors
/// The settings of the backend are wrong, or this build does not have it.
pub(super) fn open(node: NodeId, settings: &Settings, clock: &Clock) -> Result<Opened, ConfigError> {
    let open: Open = match settings.storage_backend {
        Backend::Memory => memory,
        Backend::Valkey => valkey,
    };
    open(node, settings, clock)
}

#[expect(clippy::unnecessary_wraps, reason = "backends are opened alike")]
fn memory(_: NodeId, settings: &Settings, clock: &Clock) -> Result<Opened, ConfigError> {
    Ok(Opened::new(Arc::new(Memory::new(MemoryOptions {
        limits: settings.storage_limits(),
        bytes_max: settings.memory_bytes_max as u64,
        keys_bytes_max: settings.idempotency_bytes_max as u64,
        when_full: match settings.memory_full {
            MemoryFull::Trim => WhenFull::TrimLargest,
            MemoryFull::Refuse => WhenFull::Refuse,
        },
        clock: clock.clone(),
    }))))
}

#[cfg(feature = "valkey")]
fn valkey(node: NodeId, settings: &Settings, clock: &Clock) -> Result<Opened, ConfigError> {
    let options = settings.valkey_options()?;
    let valkey = Valkey::connect(node, options, settings.storage_limits(), clock.clone());
    Ok(Opened::new(valkey))
}

#[cfg(not(feature = "valkey"))]
fn valkey(_: NodeId, settings: &Settings, _: &Clock) -> Result<Opened, ConfigError> {
    Err(ConfigError::NoValkey { from: settings.source("storage_backend") })
}
