//! Tickets, in this process.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use tidemill_proto::Timestamp;

use crate::storage::tickets::{NewTicket, TICKETS_MAX, TICKETS_PER_MAKER_MAX, TicketClaim};

/// The tickets of the backend.
#[derive(Debug, Default)]
pub(super) struct Tickets(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    tickets: HashMap<Box<str>, Ticket>,
    /// Those of each maker, the oldest first; some may be gone.
    makers: HashMap<[u8; 16], VecDeque<Box<str>>>,
}

#[derive(Debug)]
struct Ticket {
    hash: [u8; 32],
    document: Bytes,
    over_at: Timestamp,
    /// What was opened with it, and by whom it is held.
    opened: Option<([u8; 16], u64)>,
}

impl Tickets {
    pub(super) fn put(&self, new: NewTicket, now: Timestamp) -> bool {
        let Kept { tickets, makers } = &mut *self.0.lock();
        if tickets.len() >= TICKETS_MAX {
            tickets.retain(|_, ticket| ticket.over_at > now);
            makers.retain(|_, ids| {
                ids.retain(|id| tickets.contains_key(id));
                !ids.is_empty()
            });
            if tickets.len() >= TICKETS_MAX {
                return false;
            }
        }
        let of_maker = makers.entry(new.maker).or_default();
        if of_maker.len() >= TICKETS_PER_MAKER_MAX
            && let Some(oldest) = of_maker.pop_front()
        {
            tickets.remove(&oldest);
        }
        of_maker.push_back(new.id.clone());
        // A copy: the bytes may be a part of much more.
        let document = Bytes::copy_from_slice(&new.document);
        let over_at = now.saturating_add(new.opens_within);
        tickets.insert(new.id, Ticket { hash: new.hash, document, over_at, opened: None });
        true
    }

    pub(super) fn claim(&self, claim: &TicketClaim, now: Timestamp) -> Option<Bytes> {
        let mut kept = self.0.lock();
        let ticket = kept.tickets.get_mut(&claim.id).filter(|ticket| ticket.over_at > now)?;
        let may = match ticket.opened {
            None => true,
            Some((place, _)) => claim.resumes && place == claim.place,
        };
        if !may || ticket.hash != claim.hash {
            return None;
        }
        ticket.opened = Some((claim.place, claim.holder));
        ticket.over_at = now.saturating_add(claim.kept_for);
        Some(ticket.document.clone())
    }

    pub(super) fn holders(&self, ids: &[Box<str>]) -> Vec<Option<u64>> {
        let kept = self.0.lock();
        let holder = |id: &str| kept.tickets.get(id)?.opened.map(|(_, holder)| holder);
        ids.iter().map(|id| holder(id)).collect()
    }
}
