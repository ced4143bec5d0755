//! Integration tests: the backends against their contract, and everything against real servers.

mod http;
mod support;
