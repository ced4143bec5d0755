//! Who is let in, and what they may do: settings, administration, and what each door says.
//!
//! | file | owns |
//! |---|---|
//! | `accounts` | users as clients of pulsar-relay make, list and change them |
//! | `audit` | what the log tells of who did what |
//! | `away` | what holds while the storage cannot be asked |
//! | `bodies` | bodies that are read and decoded for who may do something with them alone |
//! | `closed` | a closed relay, with somebody who administers it |
//! | `commands` | the same by command, against a relay and against the storage itself |
//! | `cookies` | how a browser gets a cookie, for which requests it counts, and what ends it |
//! | `devices` | programs that a user lets in elsewhere, with a code |
//! | `doors` | what each principal may do on every door, and what denial tells |
//! | `exported` | users, tokens and roles through a file |
//! | `forged` | credentials that nobody has given out, on every door |
//! | `guessing` | passwords that are guessed, one after the other and all at once |
//! | `issuers` | JWTs of an issuer that the operator has named |
//! | `log_ins` | what a user's name and password give, for how long, and what ends it |
//! | `owners` | whose a topic is, and of whom it is not |
//! | `pages` | web pages of other origins, on every door |
//! | `public` | what answers who does not say who calls, and what it tells |
//! | `replayed` | what is good once, shown twice, at once and on several nodes |
//! | `revoked` | what is taken away is gone on every node, and what was open ends |
//! | `routes` | tokens, users and roles over HTTP, probes and metrics |
//! | `secrets` | secrets of every kind, which nothing tells |
//! | `tenants` | tenants before each other, by names, cursors and tickets |
//! | `tickets` | what a ticket opens, what it resumes, and what it is good for to who finds it |
//! | `starting` | which relays start, and whom they let in |

mod accounts;
mod audit;
mod away;
mod bodies;
pub(crate) mod closed;
mod commands;
mod cookies;
mod devices;
mod doors;
#[cfg(feature = "valkey")]
mod exported;
mod forged;
mod guessing;
mod issuers;
mod kept_alive;
mod log_ins;
mod owners;
mod pages;
mod public;
mod replayed;
mod revoked;
mod routes;
mod secrets;
mod sessions;
mod starting;
mod tenants;
mod tickets;
