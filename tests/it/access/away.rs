//! A storage that cannot be asked who may do what: what is known holds for a time, and then nobody is let in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::storage::{
    AccessDocuments, AccessEdit, AccessStore, NewTicket, Storage, StorageError, TicketClaim,
};

use super::closed::{ROOT, close, send, token};
use crate::support::relay::{TestRelay, memory};
use crate::support::ws::{Got, WsClient};
use crate::support::{always, eventually};

/// Documents that may be out of reach.
#[derive(Debug)]
struct Away {
    inner: Arc<dyn AccessStore>,
    is_away: AtomicBool,
}

impl Away {
    fn check(&self) -> Result<(), StorageError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StorageError::Unavailable("it is away".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl AccessStore for Away {
    async fn documents(&self, known: Option<u64>) -> Result<Option<AccessDocuments>, StorageError> {
        self.check()?;
        self.inner.documents(known).await
    }

    async fn change_documents(
        &self,
        known: u64,
        next: u64,
        edits: Vec<AccessEdit>,
    ) -> Result<bool, StorageError> {
        self.check()?;
        self.inner.change_documents(known, next, edits).await
    }

    async fn put_ticket(&self, ticket: NewTicket) -> Result<bool, StorageError> {
        self.check()?;
        self.inner.put_ticket(ticket).await
    }

    async fn claim_ticket(&self, claim: &TicketClaim) -> Result<Option<Bytes>, StorageError> {
        self.check()?;
        self.inner.claim_ticket(claim).await
    }

    async fn ticket_holders(&self, ids: &[Box<str>]) -> Result<Vec<Option<u64>>, StorageError> {
        self.check()?;
        self.inner.ticket_holders(ids).await
    }
}

/// How long what is known holds here: several looks.
const STALE: Duration = Duration::from_secs(2);
/// More than that, and a look.
const OVER: Duration = Duration::from_secs(6);

#[tokio::test]
async fn known_rights_hold_for_a_time_and_then_nobody_is_let_in() {
    let storage = memory();
    let away = Arc::new(Away { inner: storage.access.clone(), is_away: AtomicBool::new(false) });
    let relay = TestRelay::start_with(Storage { access: away.clone(), ..storage }, |options| {
        close(options);
        options.access.stale_max = STALE;
    })
    .await;
    let (_, bearer) = token(&relay, ROOT, &["allow publish,read *"]).await;
    let list = async || send(&relay, Some(&bearer), "GET", "/api/v1/topics", &Value::Null).await;
    let mut socket =
        WsClient::connect_with(relay.address, &[("authorization", &*bearer)]).await.expect("it upgrades");
    socket.subscribe("t", "latest").await;
    away.is_away.store(true, Ordering::SeqCst);
    always(STALE / 4, async || list().await.status == 200).await;
    let change = send(&relay, Some(ROOT), "GET", "/api/v1/users", &Value::Null).await;
    assert_eq!(
        change.problem().code,
        Code::StorageUnavailable,
        "what is asked of the storage is refused at once"
    );

    eventually(OVER, async || list().await.status == 503).await;
    let refused = list().await.problem();
    assert!(refused.code == Code::StorageUnavailable && refused.retryable, "{refused:?}");
    for who in [Some(&*bearer), Some(ROOT), None] {
        let body = json!({ "topic": "t", "payload": 1 });
        let status = send(&relay, who, "POST", "/api/v1/messages", &body).await.status;
        assert!(status == 503 || (who == Some(ROOT) && status == 401), "{who:?}: {status}");
    }
    assert_eq!(
        (socket.got().await, socket.got().await),
        (Got::End, Got::Close(4502)),
        "nothing was taken away: it comes back"
    );
    // Probes answer all the same, and tell nobody more; a load balancer is to send nothing here.
    for (path, status) in [("/health", 200), ("/ready", 503)] {
        let probe = send(&relay, Some(&bearer), "GET", path, &Value::Null).await;
        assert_eq!(probe.status, status, "{path}");
        assert!(probe.json().get("backend").is_none(), "{probe:?}");
    }
    let ready = send(&relay, None, "GET", "/ready", &Value::Null).await.json();
    assert_eq!(ready["reasons"], json!(["who may do what cannot be looked up now"]));

    away.is_away.store(false, Ordering::SeqCst);
    eventually(OVER, async || list().await.status == 200).await;
    assert_eq!(send(&relay, None, "GET", "/ready", &Value::Null).await.status, 200);
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_starts_without_its_storage_and_makes_its_administrator_later() {
    let storage = memory();
    let away = Arc::new(Away { inner: storage.access.clone(), is_away: AtomicBool::new(true) });
    let relay = TestRelay::start_with(Storage { access: away.clone(), ..storage }, close).await;
    let users = async || send(&relay, Some(ROOT), "GET", "/api/v1/users", &Value::Null).await.status;
    assert_eq!(users().await, 503, "nobody is let in before it is known who may be");
    assert_eq!(send(&relay, None, "GET", "/api/v1/topics", &Value::Null).await.status, 503);
    away.is_away.store(false, Ordering::SeqCst);
    eventually(OVER, async || users().await == 200).await;
    relay.stop().await;
}
