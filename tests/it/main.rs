//! Integration tests, as one binary: the backends against their contract, and everything against
//! real servers.

mod config;
mod packaging;
mod rooms;
mod http;
mod support;
