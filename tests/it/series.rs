//! Series of measurements, from outside: over HTTP, over several nodes, and from the command line.

mod commands;
mod http;
#[cfg(feature = "valkey")]
mod nodes;
