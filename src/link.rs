//! Connections: what carries their bytes, and those that have left HTTP, live streams and WebSockets,
//! which are written by whoever has something for them.
//!
//! It owns the transport of a connection, what is still to be written to it, and how it comes here from
//! the HTTP library. It must not know what is written.
//!
//! | file | owns |
//! |---|---|
//! | `transport` | what every kind of connection keeps to |
//! | `tcp` | the kind that is nothing but TCP |
//! | `tls` | the kind that encrypts, over another one |
//! | `pulled` | the kind that is one stream of HTTP/2 |
//! | `outbox` | bytes on their way to a transport |
//! | `arrivals` | where bytes are read to |
//! | `hangup` | whether a client is there, and what it did not get |
//! | `live` | a connection that has left HTTP |
//! | `handover` | how a handler asks for the connection of its request |
//!
//! A live connection is quiet nearly all the time, and there are many: here it costs its socket, and
//! none of the buffers that the HTTP library keeps for the next request.

mod arrivals;
mod handover;
mod hangup;
mod live;
mod outbox;
mod pulled;
mod tcp;
mod tls;
mod transport;

pub use arrivals::with_arrivals;
pub use handover::{Handover, Taken};
pub use hangup::Hangup;
pub use live::{LINGER, LINGER_BYTES_MAX, Link};
pub use outbox::Outbox;
pub use pulled::{Pulled, PulledBytes, pulled};
pub use tcp::Tcp;
pub use tls::Tls;
pub use transport::{Protocol, Transport, does_not_read};
