//! Integration tests, as one binary: the backends against their contract, and everything against
//! real servers.

mod config;
mod http;
mod docs;
mod packaging;
mod rooms;
#![allow(clippy::unwrap_used, reason = "a test that unwraps an error has found one")]

mod conformance;
mod model;
mod support;
