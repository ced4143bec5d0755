//! What carries a connection: every kind of it, from whichever listener, and through the hand-over out
//! of the HTTP library, byte for byte.

mod flight;
mod handover;
mod listeners;
mod tls;
