//! Integration tests, as one binary: it is linked once.

mod config;
