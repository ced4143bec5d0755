//! Who is let in, and what they may do: settings, administration, and what each door says.
//!
//! | file | owns |
//! |---|---|
//! | `starting` | which relays start, and whom they let in |

mod starting;
