//! Who may connect: caps on connections, in all and per address, over all listeners.
//!
//! It must not know what is served.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tidemill_proto::{Code, Problem};

use crate::limits::counted_as;
use crate::metrics::Metrics;

/// The caps, and who is connected.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connections_max: usize,
    per_address_max: usize,
    metrics: Metrics,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    connections: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// What lets one connection in, given back when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    admission: Admission,
    /// What it is counted as; `None` if it has no address.
    address: Option<IpAddr>,
}

/// Lets in what counts as more connections beside one that is let in already.
#[derive(Clone, Debug)]
pub(super) struct Others {
    admission: Admission,
    address: Option<IpAddr>,
}

impl Others {
    /// Returns the permit of one more.
    pub(super) fn admit(&self) -> Result<ConnectionPermit, Refusal> {
        self.admission.admit(self.address)
    }
}

impl ConnectionPermit {
    /// Returns what lets in more from the same address.
    pub(super) fn others(&self) -> Others {
        Others { admission: self.admission.clone(), address: self.address }
    }
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There are as many connections as there may be.
    Full,
    /// There are as many connections from this address as there may be.
    AddressFull,
}

impl Admission {
    pub(super) fn new(connections_max: usize, per_address_max: usize, metrics: Metrics) -> Self {
        Self(Arc::new(Inner { connections_max, per_address_max, metrics, open: Mutex::default() }))
    }

    /// Returns the permit of a connection from `address`. One without an address, as on a Unix socket, is
    /// counted among all, and nowhere else.
    pub(super) fn admit(&self, address: Option<IpAddr>) -> Result<ConnectionPermit, Refusal> {
        let address = address.map(counted_as);
        let mut open = self.0.open.lock();
        let from_address =
            address.and_then(|address| open.by_address.get(&address)).copied().unwrap_or_default();
        let refusal = if open.connections >= self.0.connections_max {
            Some(Refusal::Full)
        } else if from_address >= self.0.per_address_max {
            Some(Refusal::AddressFull)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.0.metrics.requests().connection_refused();
            return Err(refusal);
        }
        open.connections += 1;
        if let Some(address) = address {
            open.by_address.insert(address, from_address + 1);
        }
        self.0.metrics.requests().connections(open.connections);
        Ok(ConnectionPermit { admission: self.clone(), address })
    }
}

impl Admission {
    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.admission.0.open.lock();
        open.connections -= 1;
        if let Some(address) = &self.address
            && let Some(count) = open.by_address.get_mut(address)
        {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(address);
            }
        }
        self.admission.0.metrics.requests().connections(open.connections);
    }
}

/// Returns what a client is told that is refused.
pub(super) fn refused(refusal: Refusal) -> Problem {
    let detail = match refusal {
        Refusal::Full => {
            "there are as many connections as the relay takes (setting `TIDEMILL_CONNECTIONS_MAX`)"
        }
        Refusal::AddressFull => {
            "there are as many connections from this address as the relay takes (setting `TIDEMILL_CONNECTIONS_PER_ADDRESS_MAX`)"
        }
    };
    Problem::new(Code::Overloaded, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_capped_and_come_back() {
        let admission = Admission::new(3, 2, Metrics::new());
        let address = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        let one = admission.admit(address("10.0.0.1")).expect("room");
        let _two = admission.admit(address("::ffff:10.0.0.1")).expect("room");
        assert_eq!(admission.admit(address("10.0.0.1")).expect_err("full"), Refusal::AddressFull);
        assert_eq!(one.others().admit().expect_err("full"), Refusal::AddressFull);
        let _three = admission.admit(address("2001:db8::1")).expect("room");
        assert_eq!(admission.admit(address("10.0.0.2")).expect_err("full"), Refusal::Full);
        drop(one);
        let _four = admission.admit(address("2001:db8::2")).expect("room again");
        let counted = |text| address(text).map(counted_as);
        assert_eq!(counted("2001:db8::1"), counted("2001:db8::2"));
    }

    #[test]
    fn who_has_no_address_is_counted_among_all_alone() {
        let admission = Admission::new(3, 1, Metrics::new());
        let permits = [(); 3].map(|()| admission.admit(None).expect("room"));
        assert_eq!(admission.admit(None).expect_err("full"), Refusal::Full);
        drop(permits);
        let _back = admission.admit(None).expect("room again");
    }
}
