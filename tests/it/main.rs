//! Integration tests.

mod packaging;
mod rooms;
