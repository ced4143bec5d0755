//! What a server tells of itself, as lines of a check.

use super::report::{CheckReport, Outcome};
use crate::storage::valkey::health::{FOR_REPLICAS, IN_CLUSTER, KEEPS, NO_REPLICA, ServerInfo, harm_of};

/// The name of the line that says whether the server drops messages by itself.
pub const EVICTION: &str = "eviction";
/// From which part of its memory on it is told that the server becomes full, in percent.
const NEARLY_FULL: u64 = 80;

/// Settings of the server that are asked for, one by one: Redis takes several from 7.0 on.
pub(super) const SETTINGS: [&str; 2] = ["save", "appendfsync"];

/// Returns how a version is: the relay needs what Redis 7.0 tells of streams, and is tested with that and with Valkey 9.1.
fn age(server: &str, version: &str) -> (Outcome, Option<&'static str>) {
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let Some(version) = parts.next().zip(parts.next()) else { return (Outcome::Pass, None) };
    match server {
        "redis" if version < (7, 0) => (
            Outcome::Fail,
            Some(
                "it is too old: it does not tell what was removed from a stream (`entries-added`, `max-deleted-entry-id`), so readers would not learn of gaps; use Redis 7.0 or later, or Valkey",
            ),
        ),
        "valkey" if version < (9, 1) => {
            (Outcome::Warn, Some("it is older than what the relay is tested with, which is Valkey 9.1"))
        }
        _ => (Outcome::Pass, None),
    }
}

/// Returns what a server keeps on its disk.
fn persistence(info: &ServerInfo) -> (Outcome, String, Option<&'static str>) {
    let detail = |text: &str| text.to_owned();
    match (info.append_only(), info.get("appendfsync")) {
        (Some(true), Some("no")) => (
            Outcome::Warn,
            detail("append-only file is on, and appendfsync is no"),
            Some(
                "the system decides when the file is on the disk: a machine that dies loses half a minute and more; set appendfsync everysec, or always",
            ),
        ),
        (Some(true), Some(fsync)) => {
            (Outcome::Pass, format!("append-only file is on, and appendfsync is {fsync}"), None)
        }
        (Some(true), None) => (Outcome::Pass, detail("append-only file is on"), None),
        (Some(false), _) if info.keeps_nothing() == Some(true) => (
            Outcome::Warn,
            detail(
                "nothing is kept on disk: append-only file is off, and no snapshots are made (`save \"\"`)",
            ),
            Some("when the server restarts, everything is gone; set appendonly yes"),
        ),
        (Some(false), _) if info.keeps_nothing().is_none() => (
            Outcome::Warn,
            detail("append-only file is off"),
            Some(
                "a crash loses what came after the last snapshot, and everything where none are made (`save \"\"`), which is not known here; set appendonly yes",
            ),
        ),
        (Some(false), _) => (
            Outcome::Warn,
            detail("append-only file is off"),
            Some("a crash loses what came after the last snapshot; set appendonly yes"),
        ),
        (None, _) => (Outcome::Warn, detail("the server does not tell"), None),
    }
}

/// Adds lines on a server; one that topics are placed on stands alone.
pub(super) fn examine(report: &mut CheckReport, info: &ServerInfo, is_placed: bool) {
    if is_placed && info.is_in_cluster() {
        report.add("placement", Outcome::Fail, "the server is part of a cluster", Some(IN_CLUSTER));
    }
    let server = info.server().unwrap_or("unknown server");
    let version = info.version().unwrap_or("of unknown version");
    let (outcome, advice) = age(server, version);
    report.add("version", outcome, format!("{server} {version}"), advice);
    let (outcome, detail, advice) = persistence(info);
    report.add("persistence", outcome, detail, advice);
    match info.eviction_policy() {
        Some(KEEPS) => report.add(EVICTION, Outcome::Pass, format!("maxmemory-policy is {KEEPS}"), None),
        Some(policy) => report.add(
            EVICTION,
            Outcome::Warn,
            format!("maxmemory-policy is {policy}, which {} at the memory limit", harm_of(policy)),
            Some("set maxmemory-policy noeviction, so that the server refuses new messages instead"),
        ),
        None => report.add(EVICTION, Outcome::Warn, "the server does not tell its maxmemory-policy", None),
    }
    let used = info.memory_used_bytes().unwrap_or(0);
    let mib = |bytes: u64| bytes / (1024 * 1024);
    match info.memory_limit_bytes() {
        Some(limit) => {
            let detail = format!("{} MiB used of {} MiB", mib(used), mib(limit));
            let advice = Some(super::report::FULL);
            if used >= limit {
                report.add("memory", Outcome::Fail, detail, advice);
            } else if used / NEARLY_FULL >= limit / 100 {
                report.add("memory", Outcome::Warn, detail, advice);
            } else {
                report.add("memory", Outcome::Pass, detail, None);
            }
        }
        None => report.add(
            "memory",
            Outcome::Warn,
            format!("{} MiB used, no limit", mib(used)),
            Some("without maxmemory the system kills the server when memory runs out; set a limit"),
        ),
    }
}

/// Adds a line where a primary of a cluster has no replica that could take over.
pub(super) fn examine_failover(report: &mut CheckReport, info: &ServerInfo) {
    if info.replicas() == 0 {
        let advice = "a primary that is lost takes its topics along until it is back; give each a replica. A new one takes some seconds until it has everything";
        report.add("replicas", Outcome::Warn, "no replica is connected and up to date", Some(advice));
    }
}

/// Adds a line on the replicas of a server, from which pages may be to be read.
pub(super) fn examine_replicas(report: &mut CheckReport, info: &ServerInfo, are_read: bool) {
    match info.replicas() {
        0 if !are_read => {
            report.add(
                "replicas",
                Outcome::Pass,
                "none: a server that is lost takes along what its files have not",
                None,
            );
        }
        0 => report.add("replicas", Outcome::Warn, NO_REPLICA, Some(FOR_REPLICAS)),
        1 => report.add("replicas", Outcome::Pass, "one replica follows the server", None),
        count => report.add("replicas", Outcome::Pass, format!("{count} replicas follow the server"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_too_old_or_older_than_what_is_tested() {
        for (server, version, outcome) in [
            ("redis", "5.0.0", Outcome::Fail),
            ("redis", "6.2.7", Outcome::Fail),
            ("redis", "7.0.15", Outcome::Pass),
            ("redis", "8.2.1", Outcome::Pass),
            ("valkey", "7.2.4", Outcome::Warn),
            ("valkey", "8.1.0", Outcome::Warn),
            ("valkey", "9.1.0", Outcome::Pass),
            ("valkey", "10.0.0", Outcome::Pass),
            ("valkey", "of unknown version", Outcome::Pass),
        ] {
            assert_eq!(age(server, version).0, outcome, "{server} {version}");
        }
    }
}
