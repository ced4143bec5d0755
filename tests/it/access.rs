//! Who is let in, and what they may do: settings, administration, and what each door says.
//!
//! | file | owns |
//! |---|---|
//! | `away` | what holds while the storage cannot be asked |
//! | `closed` | a closed relay, with somebody who administers it |
//! | `commands` | the same by command, against a relay and against the storage itself |
//! | `doors` | what each principal may do on every door, and what denial tells |
//! | `issuers` | JWTs of an issuer that the operator has named |
//! | `revoked` | what is taken away is gone on every node, and what was open ends |
//! | `routes` | tokens, users and roles over HTTP, probes and metrics |
//! | `starting` | which relays start, and whom they let in |

mod away;
pub(crate) mod closed;
mod commands;
mod doors;
mod issuers;
mod revoked;
mod routes;
mod starting;
