//! Who is let in, and what they may do: settings, administration, and what each door says.
//!
//! | file | owns |
//! |---|---|
//! | `closed` | a closed relay, with somebody who administers it |
//! | `commands` | the same by command, against a relay and against the storage itself |
//! | `routes` | tokens, users and roles over HTTP, probes and metrics |
//! | `starting` | which relays start, and whom they let in |

mod closed;
mod commands;
mod routes;
mod starting;
