//! The modules of the relay that log something, so that a level for one that there is not is noticed.
//!
//! A test holds the list to the sources.

use super::names::nearest_of;

/// They, in their order; and what stands as `target` in place of one.
const MODULES: &[&str] = &[
    "tidemill::access::administration::log_ins",
    "tidemill::access::administration::sign_ins",
    "tidemill::access::audit",
    "tidemill::access::directory",
    "tidemill::access::jwt::source",
    "tidemill::access::records",
    "tidemill::access::service",
    "tidemill::access::service::passwords",
    "tidemill::access::service::watch",
    "tidemill::audit",
    "tidemill::cli::manager",
    "tidemill::cli::open_files",
    "tidemill::cli::serve",
    "tidemill::http::exchange",
    "tidemill::http::stream",
    "tidemill::http::watch",
    "tidemill::limits",
    "tidemill::limits::kept",
    "tidemill::relay::live::feed",
    "tidemill::relay::live::pattern_task",
    "tidemill::relay::live::reader",
    "tidemill::relay::live::running",
    "tidemill::relay::live::subscription",
    "tidemill::relay::log",
    "tidemill::relay::presence::kept",
    "tidemill::relay::reads",
    "tidemill::relay::takes",
    "tidemill::relay::work::letters",
    "tidemill::server",
    "tidemill::server::acceptor",
    "tidemill::server::certificate",
    "tidemill::server::connection",
    "tidemill::server::http2",
    "tidemill::server::http2::answers",
    "tidemill::server::http2::frames",
    "tidemill::server::leaving",
    "tidemill::server::reload",
    "tidemill::server::upkeep",
    "tidemill::server::wiring",
    "tidemill::storage::valkey::buckets",
    "tidemill::storage::valkey::buckets::index",
    "tidemill::storage::valkey::check",
    "tidemill::storage::valkey::cluster::keeping",
    "tidemill::storage::valkey::cluster::seat",
    "tidemill::storage::valkey::doorbell",
    "tidemill::storage::valkey::finding::listening",
    "tidemill::storage::valkey::finding::sentinel",
    "tidemill::storage::valkey::finding::standby",
    "tidemill::storage::valkey::login",
    "tidemill::storage::valkey::losing",
    "tidemill::storage::valkey::promoting",
    "tidemill::storage::valkey::schedules",
    "tidemill::storage::valkey::series::index",
    "tidemill::storage::valkey::supervised",
    "tidemill::storage::valkey::sweep",
    "tidemill::storage::valkey::topics",
    "tidemill::storage::valkey::waits",
    "tidemill::storage::valkey::work",
    "tidemill::traces::sending",
    "tidemill::ws::requests",
    "tidemill::ws::session",
];

/// Returns what to say of a module of whose log nothing can be seen; `None` where it, or one below it, logs something.
pub(super) fn silent(module: &str) -> Option<String> {
    let is_it = |known: &&str| {
        known.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    if MODULES.iter().any(is_it) {
        return None;
    }
    let above = |known: &'static str| known.match_indices("::").map(|(at, _)| &known[..at]).chain([known]);
    let nearest = nearest_of(MODULES.iter().copied().flat_map(above), module);
    let instead =
        nearest.map_or_else(String::new, |nearest| format!("; the nearest that does is `{nearest}`"));
    Some(format!("has a level for `{module}`, which logs nothing{instead}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Adds the modules of a folder that log something.
    fn collect(folder: &Path, path: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let file = entry.expect("an entry").path();
            let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8");
            let module =
                if ["lib", "main"].contains(&stem) { path.to_owned() } else { format!("{path}::{stem}") };
            if file.is_dir() {
                collect(&file, &module, found);
                continue;
            }
            let source = fs::read_to_string(&file).expect("a source");
            let mut code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
            let levels = ["error!", "warn!", "info!", "debug!", "trace!"];
            let logs = |line: &str| levels.iter().any(|level| line.contains(&format!("tracing::{level}")));
            if code.any(logs) {
                found.insert(module);
            }
        }
    }

    #[test]
    fn the_modules_are_those_that_log() {
        let mut found = BTreeSet::from(["tidemill::audit".to_owned()]);
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "tidemill", &mut found);
        // It spells what it looks for.
        found.remove("tidemill::config::modules");
        assert_eq!(
            MODULES.iter().map(|module| (*module).to_owned()).collect::<Vec<_>>(),
            found.into_iter().collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_module_that_logs_nothing_is_told_with_the_nearest() {
        for known in ["tidemill", "tidemill::storage", "tidemill::storage::valkey", "tidemill::audit"] {
            assert_eq!(silent(known), None, "{known}");
        }
        for (unknown, nearest) in [
            ("tidemill::storag", "`tidemill::storage`"),
            ("tidemill::storage::valky", "`tidemill::storage::valkey`"),
            ("tidemill::nonsense", "which logs nothing"),
        ] {
            assert!(
                silent(unknown).is_some_and(|text| text.contains(nearest)),
                "{unknown}: {:?}",
                silent(unknown)
            );
        }
    }
}
