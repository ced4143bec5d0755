//! Integration tests.

mod rooms;
