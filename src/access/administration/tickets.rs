//! Tickets: made.
//!
//! It must not know how one is used.

use secrecy::ExposeSecret as _;
use tidemill_proto::access::{TicketCreate, TicketCreated};
use tidemill_proto::{Code, Problem, TopicSelector};

use super::{Administration, Refused, parse_rules};
use crate::access::caller::Who;
use crate::access::documents::Maker;
use crate::access::rule::Rule;
use crate::access::tickets::{MadeBy, OPENS_WITHIN, Ticket, digest};
use crate::access::token::{NewToken, TokenKind};
use crate::access::{Verb, changed};
use crate::storage::NewTicket;

/// Topics that one ticket names.
const TOPICS_MAX: usize = 200;

impl Administration {
    /// Makes a ticket of this caller, which can do no more than the caller can. On a relay that lets everybody in
    /// it is good for as much as anything else.
    ///
    /// # Errors
    /// Nobody says who calls, something about it breaks a rule, the caller may not read one of the topics, or there
    /// is no room.
    ///
    /// # Panics
    /// Never: texts and lists can be written.
    pub async fn create_ticket(&self, wanted: &TicketCreate) -> Result<TicketCreated, Refused> {
        let rules = self.ticket_rules(wanted)?;
        let made = NewToken::make(TokenKind::Ticket);
        let expires_at = self.access.clock().now().saturating_add(OPENS_WITHIN);
        let created = TicketCreated { ticket: made.text.expose_secret().to_owned(), expires_at };
        let Some(maker) = self.ticket_maker()? else { return Ok(created) };
        let document = serde_json::to_vec(&Ticket { maker, rules }).expect("texts and lists can be written");
        let new = NewTicket {
            id: made.id.as_str().into(),
            maker: digest(&self.caller.who().to_string()),
            hash: made.hash,
            document: document.into(),
            opens_within: OPENS_WITHIN,
        };
        if !self.access.store().put_ticket(new).await.map_err(Refused::Change)? {
            let detail =
                "there are as many tickets as may be; try again when some have not been used in time";
            return Err(Problem::new(Code::Overloaded, detail).into());
        }
        changed!(self.caller.who(), self.origin, "ticket made", ticket = made.id.as_str());
        Ok(created)
    }

    fn ticket_rules(&self, wanted: &TicketCreate) -> Result<Vec<Rule>, Box<Problem>> {
        let topics = match (&wanted.topics, &wanted.rules) {
            (Some(topics), None) => topics,
            (None, Some(rules)) => return parse_rules(rules),
            (None, None) | (Some(_), Some(_)) => {
                let rule = "must be there, or `rules` in its place";
                return Err(Problem::field("topics", rule).into());
            }
        };
        if !(1..=TOPICS_MAX).contains(&topics.len()) {
            let rule = format!("has {} topics; a ticket has 1 to {TOPICS_MAX} of them", topics.len());
            return Err(Problem::field("topics", rule).into());
        }
        let read = |selector: &TopicSelector| {
            if let TopicSelector::Topic(topic) = selector {
                self.caller.check(Verb::Read, topic)?;
            }
            let text = selector.as_str();
            let wrong = |error| Problem::field("topics", format_args!("has {text:?}, which {error}")).into();
            Rule::parse(&format!("allow read {text}")).map_err(wrong)
        };
        topics.iter().map(read).collect()
    }

    /// Returns who makes a ticket; `None` where it needs nobody.
    fn ticket_maker(&self) -> Result<Option<MadeBy>, Box<Problem>> {
        if let Some(id) = self.caller.log_in() {
            return Ok(Some(MadeBy::LogIn(id.as_str().into())));
        }
        let known = |maker| Ok(Some(MadeBy::Known(maker)));
        match self.caller.who() {
            Who::Anyone => Ok(None),
            Who::User(name) => known(Maker::User(name.to_string())),
            Who::Token { id, .. } => known(Maker::Token(id.to_string())),
            Who::Subject { issuer, subject } => Ok(Some(MadeBy::Subject {
                issuer: issuer.clone(),
                subject: subject.clone(),
                rules: self.caller.rules().texts(),
                key: self.caller.key(),
                expires_at: self.caller.expires_at(),
            })),
            Who::Anonymous => {
                let detail = "who says nothing of who calls has no use for a ticket; send `Authorization: Bearer` with a token";
                Err(Box::new(Problem::new(Code::Unauthenticated, detail)))
            }
            Who::Ticket { .. } => {
                Err(Box::new(Problem::new(Code::Forbidden, "a ticket makes no other tickets")))
            }
        }
    }
}
