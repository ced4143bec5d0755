//! Tokens of other issuers, as they are signed in the world, and the ways on which their keys come: files and
//! URLs.
//!
//! | file | owns |
//! |---|---|
//! | `signer` | keys of every algorithm, and whatever is signed with them |
//! | `forged` | tokens that nobody may take |
//! | `forgeries` | tokens of every kind that nobody may take, for each door |
//! | `granted` | what a right token grants |
//! | `key_file` | keys in a file that changes |
//! | `key_server` | keys behind a URL, and what may stand there in their place |
//! | `leading` | where URLs may lead, and what may stand there in place of a provider |
//! | `lying` | a provider of OpenID Connect that lies |

mod forged;
pub(crate) mod forgeries;
mod granted;
mod key_file;
mod key_server;
mod leading;
pub(crate) mod lying;
pub(crate) mod signer;

use tidemill::access::{Issuer, Issuers};
use tidemill::proto::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The time at which all tokens of these tests are looked at, in seconds.
const NOW: u64 = 1_800_000_000;

const ISSUER: &str = "https://issuer.example/";

fn now() -> Timestamp {
    Timestamp::from_millis(NOW * 1_000)
}

/// Starts with the issuers that a text names.
fn issuers(text: &str) -> Issuers {
    let issuers = Issuer::parse_all(text).unwrap();
    Issuers::start(issuers, &TaskTracker::new(), &CancellationToken::new()).unwrap()
}
