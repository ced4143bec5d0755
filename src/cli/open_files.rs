//! The limit on open files: every connection takes one, and the soft limit is often 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as this process may, and returns it; `None` where there is none.
pub(super) fn raise() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it is refused, the connections that cannot be opened say so.
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "cannot raise the limit on open files");
    }
    getrlimit(Resource::Nofile).current
}

/// Returns how many files a process may have open that has raised its limit; `None` where there is no limit.
pub(super) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}
