//! Nodes: which relays share the storage, each with a document that storage does not read.
//!
//! A node says again and again that it is there; one that has ended without a word is forgotten by itself.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_proto::NodeId;

use super::StorageError;

/// Nodes that are known at one time; more are not listed.
pub const NODES_MAX: usize = 1_000;

/// Nodes.
#[async_trait]
pub trait NodeStore: std::fmt::Debug + Send + Sync {
    /// Lists the node with this document, in place of the one before, for `kept_for` from now on. Returns whether it is
    /// listed: where [`NODES_MAX`] others are, it is not.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `ForeignKey`.
    async fn announce(&self, node: NodeId, document: Bytes, kept_for: Duration)
    -> Result<bool, StorageError>;

    /// Lists the node no more.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn retire(&self, node: NodeId) -> Result<(), StorageError>;

    /// Returns the nodes that are listed, in the order of their ids, each with its document.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn nodes(&self) -> Result<Vec<(NodeId, Bytes)>, StorageError>;
}
