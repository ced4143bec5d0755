//! Tickets: for clients that can send no header, as `EventSource` and `WebSocket` in browsers. Whoever may call makes
//! one, and it stands in the URL of one stream or socket. It opens that within [`OPENS_WITHIN`]; from then on it is
//! good to resume the same stream and nothing else, one reader at a time, for as long as its maker may call.
//!
//! So a URL that somebody else finds, in a log or a history, opens nothing new, and what can be resumed with it is
//! ended when its owner comes back.
//!
//! It must not know how a URL is read, nor what is streamed.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidemill_proto::{Code, Problem, Timestamp};
use tokio::time::timeout;

use super::caller::{Caller, Who};
use super::documents::Maker;
use super::held::Held;
use super::jwt::KeyPrint;
use super::rule::{Rule, Rules};
use super::service::Access;
use super::token::{TokenId, TokenKind, TokenText};
use crate::chance::random;
use crate::storage::{StorageError, TicketClaim};

/// How long a ticket waits for who opens something with it.
pub(super) const OPENS_WITHIN: Duration = Duration::from_secs(30);
/// How long one is kept that was used: a machine that sleeps for a night goes on where it was.
const KEPT_FOR: Duration = Duration::from_hours(24);
/// How long who comes with a ticket waits for others who come with it.
const CLAIM_WAIT_MAX: Duration = Duration::from_secs(5);
/// Tickets that the storage is asked about at one time.
const ASKED_AT_ONCE: usize = 1_000;
/// What is opened with a ticket.
#[derive(Clone, Copy, Debug)]
pub struct Opens<'a> {
    /// What it is: its path and query, without the ticket and without where it resumes.
    pub place: &'a str,
    /// Whether it says where it goes on.
    pub resumes: bool,
}

/// A ticket, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub(super) maker: MadeBy,
    pub(super) rules: Vec<Rule>,
}

/// Who made a ticket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MadeBy {
    /// A user or a token, whose rights are those of now.
    Known(Maker),
    /// A user who came by this log-in, for as long as that goes on.
    LogIn(Box<str>),
    /// Somebody of whom another said who it is, and until when.
    Subject {
        issuer: Box<str>,
        subject: Box<str>,
        rules: Vec<Rule>,
        /// The key of the JWT that it came with: the ticket is good for as long as the issuer has it.
        key: Option<KeyPrint>,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
    },
}

impl Access {
    /// Tells who opens this with a ticket, which is taken with that. Whatever else was open with it ends.
    ///
    /// # Errors
    /// The ticket is not good for it, or it cannot be found out now.
    pub async fn by_ticket(&self, text: &str, opens: Opens<'_>) -> Result<Caller, Box<Problem>> {
        if self.is_open() {
            return Ok(Caller::anyone());
        }
        self.check_fresh()?;
        let ticket = TokenText::parse(TokenKind::Ticket, text)
            .map_err(|error| unauthenticated(format!("what is sent as a ticket {error}")))?;
        let (id, holder) = (ticket.id(), random().max(1));
        let claim = TicketClaim {
            id: id.as_str().into(),
            hash: ticket.hash(),
            place: digest(opens.place),
            resumes: opens.resumes,
            holder,
            kept_for: KEPT_FOR,
        };
        // Who comes last in the storage comes last here: what the others have open is ended in that order.
        let _claiming = timeout(CLAIM_WAIT_MAX, self.sessions().ticket_turn(id)).await.map_err(|_| away())?;
        let claimed = self.store().claim_ticket(&claim).await.map_err(|_| away())?;
        let kept = claimed.and_then(|document: Bytes| serde_json::from_slice::<Ticket>(&document).ok());
        let kept = kept.ok_or_else(not_good)?;
        let mut maker = self.held().maker_of(&kept.maker);
        if maker.is_none() {
            // Another node may have made it a moment ago, and the ticket is used now.
            let _ = self.catch_up().await;
            maker = self.held().maker_of(&kept.maker);
        }
        let maker = maker.ok_or_else(not_good)?;
        if maker.expires_at().is_some_and(|at| at <= self.clock().now()) || !self.is_signed(&maker) {
            return Err(not_good());
        }
        let who = Who::Ticket { id: id.as_str().into(), maker: Box::new(maker.who().clone()) };
        let (rules, expires_at) = (Rules::of(&kept.rules, who.name()), maker.expires_at());
        let caller = Caller::new(who, rules, Some(maker), expires_at);
        if let Some(before) = self.sessions().note_ticket(id, holder, &caller) {
            self.sessions().end(&before);
        }
        Ok(caller)
    }

    /// Ends what is open with tickets that somebody else holds now, on another node.
    pub(super) async fn look_at_tickets(&self) -> Result<(), StorageError> {
        let held = self.sessions().tickets();
        for some in held.chunks(ASKED_AT_ONCE) {
            let ids: Vec<Box<str>> = some.iter().map(|(id, _)| id.as_str().into()).collect();
            let holders = self.store().ticket_holders(&ids).await?;
            for ((id, holder), told) in some.iter().zip(holders) {
                // One that is not kept any more may be used up, and what is open with it stays.
                if told.is_some_and(|told| told != *holder)
                    && let Some(caller) = self.sessions().forget_ticket(*id, *holder)
                {
                    self.sessions().end(&caller);
                }
            }
        }
        Ok(())
    }
}

impl Held {
    /// Returns who made a ticket, with the rights of now.
    fn maker_of(&self, made_by: &MadeBy) -> Option<Caller> {
        match made_by {
            MadeBy::Known(Maker::User(name)) => self.directory.user(name).cloned(),
            MadeBy::Known(Maker::Token(id)) => {
                Some(self.directory.token(TokenId::parse(id).ok()?)?.caller.clone())
            }
            MadeBy::LogIn(id) => Some(self.records.log_in(TokenId::parse(id).ok()?)?.caller.clone()),
            MadeBy::Subject { issuer, subject, rules, key, expires_at } => {
                let who = Who::Subject { issuer: issuer.clone(), subject: subject.clone() };
                let bound = Rules::of(rules, who.name());
                Some(Caller::subject(who, bound, *expires_at, *key))
            }
        }
    }
}

pub(super) fn digest(text: &str) -> [u8; 16] {
    let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
        <[u8; 32]>::from(Sha256::digest(text));
    digest
}

fn unauthenticated(detail: String) -> Box<Problem> {
    Box::new(Problem::new(Code::Unauthenticated, detail))
}

fn not_good() -> Box<Problem> {
    unauthenticated(format!(
        "the ticket is not good for this: one opens one stream or socket within {} seconds, and resumes that stream, for as long as its maker may call; ask for a new one",
        OPENS_WITHIN.as_secs()
    ))
}

fn away() -> Box<Problem> {
    let detail = "what the ticket is good for cannot be looked up now, because the storage does not answer";
    Box::new(Problem::new(Code::StorageUnavailable, detail))
}
