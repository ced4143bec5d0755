//! Who is let in, and what they may do: settings, administration, and what each door says.
//!
//! | file | owns |
//! |---|---|
//! | `accounts` | users as clients of pulsar-relay make, list and change them |
//! | `audit` | what the log tells of who did what |
//! | `away` | what holds while the storage cannot be asked |
//! | `closed` | a closed relay, with somebody who administers it |
//! | `commands` | the same by command, against a relay and against the storage itself |
//! | `devices` | programs that a user lets in elsewhere, with a code |
//! | `doors` | what each principal may do on every door, and what denial tells |
//! | `issuers` | JWTs of an issuer that the operator has named |
//! | `log_ins` | what a user's name and password give, for how long, and what ends it |
//! | `revoked` | what is taken away is gone on every node, and what was open ends |
//! | `routes` | tokens, users and roles over HTTP, probes and metrics |
//! | `tickets` | what a ticket opens, what it resumes, and what it is good for to who finds it |
//! | `starting` | which relays start, and whom they let in |

mod accounts;
mod audit;
mod away;
pub(crate) mod closed;
mod commands;
mod devices;
mod doors;
mod issuers;
mod kept_alive;
mod log_ins;
mod revoked;
mod routes;
mod starting;
mod tickets;
