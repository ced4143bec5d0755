//! What the relay keeps of who may do what: named documents that storage does not read, and that change
//! together or not at all.
//!
//! There are few of them and they are read often, so whoever needs them holds them all, and asks now and then
//! whether they are still the same.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::StorageError;
use super::tickets::{NewTicket, TicketClaim};

/// All documents, as they were at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessDocuments {
    /// Tells these from all that there were before and that will be; 0 before anything was written.
    pub revision: u64,
    /// The documents, by their names.
    pub documents: BTreeMap<Box<str>, Bytes>,
}

/// A change of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessEdit {
    /// Its name, which holds a `/`.
    pub name: Box<str>,
    /// What stands there from now on, not empty; `None` deletes it.
    pub document: Option<Bytes>,
}

/// Documents on who may do what, and tickets.
#[async_trait]
pub trait AccessStore: std::fmt::Debug + Send + Sync {
    /// Returns all documents, unless they are those of the revision that is `known`.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn documents(&self, known: Option<u64>) -> Result<Option<AccessDocuments>, StorageError>;

    /// Makes these changes, all at once, if the revision is still the one that is `known`; then it is `next`,
    /// which is not 0 and was never one before. Returns whether that is done: where somebody else has changed
    /// something meanwhile, nothing is.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `ForeignKey`.
    async fn change_documents(
        &self,
        known: u64,
        next: u64,
        edits: Vec<AccessEdit>,
    ) -> Result<bool, StorageError>;

    /// Keeps a ticket, in place of its maker's oldest where that has as many as it may. Returns whether there was
    /// room.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `ForeignKey`.
    async fn put_ticket(&self, ticket: NewTicket) -> Result<bool, StorageError>;

    /// Takes a ticket to open something, and returns its document: once, or where it resumes what was opened with
    /// it. From then on who claims holds it, and nobody who did before. `None` where there is no such ticket, or
    /// none that is good for this.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `ForeignKey`.
    async fn claim_ticket(&self, claim: &TicketClaim) -> Result<Option<Bytes>, StorageError>;

    /// Returns who holds each of these tickets, in their order; `None` for one that nobody holds, or that is gone.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn ticket_holders(&self, ids: &[Box<str>]) -> Result<Vec<Option<u64>>, StorageError>;
}
