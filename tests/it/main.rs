//! Integration tests, as one binary: the backends against their contract, and everything against
//! real servers.
#![allow(clippy::unwrap_used, reason = "a test that unwraps an error has found one")]

mod access;
mod attach;
mod browser;
mod buffers;
mod cli;
mod client;
mod config;
mod conformance;
#[cfg(feature = "valkey")]
mod copying;
mod credentials;
mod delays;
mod docs;
mod doors;
#[cfg(feature = "valkey")]
mod drill;
#[cfg(feature = "valkey")]
mod faults;
#[cfg(feature = "valkey")]
mod histories;
mod http;
mod keys;
mod langgraph;
mod leases;
mod limits;
mod live;
mod model;
mod oidc;
mod openapi;
mod packaging;
mod presence;
mod proxies;
mod pulsar;
mod rooms;
mod seeded;
mod series;
#[cfg(feature = "valkey")]
mod slow;
mod soak;
mod streams;
mod support;
mod takes;
mod tls;
mod traces;
mod transport;
#[cfg(feature = "valkey")]
mod upgrades;
mod ws;
