//! The limit on open files: every connection takes one, and the soft limit is often 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a relay has open beside those of its connections, about.
const BESIDE: u64 = 200;

/// Returns what is wrong where as few files may be open, and what to do about it; `None` where they are enough for as many
/// connections as are let in.
pub(super) fn lacking(limit: Option<u64>, connections_max: usize) -> Option<[String; 2]> {
    let needed = connections_max as u64 + BESIDE;
    let limit = limit.filter(|limit| *limit < needed)?;
    Some([
        format!("{limit} at most, and {connections_max} connections are let in"),
        format!(
            "clients beyond them are not answered, they wait until others have gone, and the relay may not reach its storage: raise the hard limit to {needed} (`LimitNOFILE=` in a unit of systemd, `ulimits` in a Compose file), or lower TIDEMILL_CONNECTIONS_MAX"
        ),
    ])
}

/// Raises the limit as far as this process may, and returns it; `None` where there is none.
pub(super) fn raise() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it is refused, what is lacking is told.
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "cannot raise the limit on open files");
    }
    getrlimit(Resource::Nofile).current
}

/// Returns how many files a process may have open that has raised its limit; `None` where there is no limit.
pub(super) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}
