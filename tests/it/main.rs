//! Integration tests, as one binary (it is linked once): the backends against their contract, and
//! everything against real servers.
//! Integration tests, as one binary: the backends against their contract, and everything against
//! real servers.

mod config;
mod packaging;
mod rooms;
mod support;
