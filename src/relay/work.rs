//! Work: groups of consumers, what they claim, and what becomes of it.
//!
//! | file | owns |
//! |---|---|
//! | `groups` | making, changing, describing groups |
//! | `listing` | the list of the groups of all topics |
//! | `claims` | claiming, from one group or several, and giving back what was not taken |
//! | `station`, `stations` | where the claims of a group wait on this node |
//! | `settling` | what consumers say of messages, and following one |
//! | `settler` | what they say at the same time, put to the storage together |
//! | `letters` | dead letters: writing them, bringing messages back |

mod claims;
mod groups;
mod letters;
mod listing;
mod settler;
mod settling;
mod station;
mod stations;

pub(crate) use claims::begin_claimed;
pub use claims::{ClaimOrder, Claimant, Deliveries, DeliveriesOf, GiveBack, Source};
pub use groups::{Change, GroupDraft, parse_group, parse_ordering};
pub use listing::{GroupList, GroupPlace};
pub(crate) use settling::begin_settled;
pub use settling::{EXTENSION, NACK_DELAY, SettledReceipt, check_result, within};
pub(super) use stations::Stations;
