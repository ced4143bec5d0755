//! Who is let in, and what they may do: settings, administration, and what each door says.
//!
//! | file | owns |
//! |---|---|
//! | `closed` | a closed relay, with somebody who administers it |
//! | `routes` | tokens, users and roles over HTTP, probes and metrics |
//! | `starting` | which relays start, and whom they let in |

mod closed;
mod routes;
mod starting;
