//! The Valkey backend. (to be built)

pub mod check;
pub mod options;
pub mod target;

pub use options::{ClientIdentity, ValkeyOptions};
pub use target::{Target, TargetError};
