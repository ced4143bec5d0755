//! Limits of applications, from outside: over HTTP, from the command line, over several nodes, while the storage is
//! away, and against the algorithm.

mod commands;
mod http;
mod model;
#[cfg(feature = "valkey")]
mod nodes;
