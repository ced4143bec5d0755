//! Integration tests, as one binary: the backends against their contract, and everything against
//! real servers.

mod config;
mod docs;
mod packaging;
mod rooms;
mod support;
