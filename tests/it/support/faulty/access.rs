//! Documents, records, tickets and allowances that fail by the seed.

use async_trait::async_trait;
use bytes::Bytes;
use tidemill::storage::{
    AccessDocuments, AccessEdit, AccessStore, Draw, Drawn, LimitStore, NewTicket, Places, RecordChanges,
    RecordEdit, RecordStore, StorageError, TicketClaim,
};

use super::fate::Call;
use super::{Effect, Faulty};

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl AccessStore for Faulty {
    async fn documents(&self, known: Option<u64>) -> Result<Option<AccessDocuments>, StorageError> {
        let fate = self.fate(Call::Documents, &format!("{known:?}"));
        self.ask(fate, self.inner.access.documents(known)).await
    }

    async fn change_documents(
        &self,
        known: u64,
        next: u64,
        edits: Vec<AccessEdit>,
    ) -> Result<bool, StorageError> {
        let fate = self.fate(Call::ChangeDocuments, &format!("{known} {next} {edits:?}"));
        let access = self.inner.access.clone();
        let effect: Effect<_> = Box::pin(async move { access.change_documents(known, next, edits).await });
        self.change(fate, effect).await?
    }

    async fn put_ticket(&self, ticket: NewTicket) -> Result<bool, StorageError> {
        let fate = self.fate(Call::PutTicket, &ticket.id);
        let access = self.inner.access.clone();
        let effect: Effect<_> = Box::pin(async move { access.put_ticket(ticket).await });
        self.change(fate, effect).await?
    }

    async fn claim_ticket(&self, claim: &TicketClaim) -> Result<Option<Bytes>, StorageError> {
        let fate = self.fate(Call::ClaimTicket, &claim.id);
        let (access, claim) = (self.inner.access.clone(), claim.clone());
        let effect: Effect<_> = Box::pin(async move { access.claim_ticket(&claim).await });
        self.change(fate, effect).await?
    }

    async fn ticket_holders(&self, ids: &[Box<str>]) -> Result<Vec<Option<u64>>, StorageError> {
        let fate = self.fate(Call::TicketHolders, &format!("{ids:?}"));
        self.ask(fate, self.inner.access.ticket_holders(ids)).await
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl RecordStore for Faulty {
    async fn records(&self, known: Option<u64>) -> Result<Option<RecordChanges>, StorageError> {
        let fate = self.fate(Call::Records, &format!("{known:?}"));
        self.ask(fate, self.inner.records.records(known)).await
    }

    async fn change_records(&self, next: u64, edits: Vec<RecordEdit>) -> Result<bool, StorageError> {
        let fate = self.fate(Call::ChangeRecords, &format!("{next} {edits:?}"));
        let records = self.inner.records.clone();
        let effect: Effect<_> = Box::pin(async move { records.change_records(next, edits).await });
        self.change(fate, effect).await?
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl LimitStore for Faulty {
    async fn draw(&self, draw: &Draw) -> Result<Drawn, StorageError> {
        let fate = self.fate(Call::Draw, &format!("{draw:?}"));
        let (limits, draw) = (self.inner.limits.clone(), *draw);
        let effect: Effect<_> = Box::pin(async move { limits.draw(&draw).await });
        self.change(fate, effect).await?
    }

    async fn hold(&self, places: &Places) -> Result<bool, StorageError> {
        let fate = self.fate(Call::Hold, &format!("{places:?}"));
        let (limits, places) = (self.inner.limits.clone(), *places);
        let effect: Effect<_> = Box::pin(async move { limits.hold(&places).await });
        self.change(fate, effect).await?
    }
}
