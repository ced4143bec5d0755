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
use crate::storage::valkey::{Valkey, ValkeyOptions};

/// Opens a backend. What it needs outside this process need not be there yet.
type Open = fn(NodeId, &Settings, &Clock, Purpose) -> Result<Opened, ConfigError>;

/// What a backend is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A node serves it.
    Serve,
    /// Something is looked up, or changed, and it is closed again.
    Visit,
}

/// Opens the backend that the settings name, for this node.
///
/// # Errors
/// The settings of the backend are wrong, or this build does not have it.
pub(super) fn open(
    node: NodeId,
    settings: &Settings,
    clock: &Clock,
    purpose: Purpose,
) -> Result<Opened, ConfigError> {
    let open: Open = match settings.storage_backend {
        Backend::Memory => memory,
        Backend::Valkey => valkey,
    };
    open(node, settings, clock, purpose)
}

#[expect(clippy::unnecessary_wraps, reason = "backends are opened alike")]
fn memory(_: NodeId, settings: &Settings, clock: &Clock, _: Purpose) -> Result<Opened, ConfigError> {
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
fn valkey(node: NodeId, settings: &Settings, clock: &Clock, purpose: Purpose) -> Result<Opened, ConfigError> {
    let marks_layout = purpose == Purpose::Serve;
    let options = ValkeyOptions { marks_layout, ..settings.valkey_options()? };
    let valkey = Valkey::connect(node, options, settings.storage_limits(), clock.clone());
    Ok(Opened::new(valkey))
}

#[cfg(not(feature = "valkey"))]
fn valkey(_: NodeId, settings: &Settings, _: &Clock, _: Purpose) -> Result<Opened, ConfigError> {
    Err(ConfigError::NoValkey { from: settings.source("storage_backend") })
}
