//! Integration tests, as one binary: the backends against their contract, and everything against
//! real servers.

mod cli;
mod config;
mod http;
mod packaging;
mod rooms;
mod support;
