//! Work on the wire: groups of consumers that share the messages of a topic, claims, receipts, and how messages
//! are settled.

pub mod group;
pub mod message;
pub mod names;
pub mod receipt;
pub mod settle;

pub use group::{
    Backoff, ConsumerCounts, GroupDetail, GroupSettings, GroupUpdate, MinuteCounts, Ordering, OrderingError,
    RedriveRequest, Redriven, SeekRequest,
};
pub use message::{
    ClaimFromRequest, ClaimRequest, ClaimSource, Delivered, DeliveredRef, MessageState, MessageStateName,
    Work,
};
pub use names::{ClaimId, ConsumerName, GroupName, NameError};
pub use receipt::{Receipt, ReceiptError};
pub use settle::{RECEIPTS_MAX, SettleRequest, Settled, SettledAll, SettledStatus};
