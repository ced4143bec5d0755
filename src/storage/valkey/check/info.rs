//! What a server tells of itself, as lines of a check.

use super::report::{CheckReport, Outcome};
use crate::storage::valkey::health::{FOR_REPLICAS, IN_CLUSTER, KEEPS, NO_REPLICA, ServerInfo, harm_of};

/// The name of the line that says whether the server drops messages by itself.
pub const EVICTION: &str = "eviction";
/// From which part of its memory on it is told that the server becomes full, in percent.
const NEARLY_FULL: u64 = 80;

/// Adds lines on a server; one that topics are placed on stands alone.
pub(super) fn examine(report: &mut CheckReport, info: &ServerInfo, is_placed: bool) {
    if is_placed && info.is_in_cluster() {
        report.add("placement", Outcome::Fail, "the server is part of a cluster", Some(IN_CLUSTER));
    }
    let server = info.server().unwrap_or("unknown server");
    report.add(
        "version",
        Outcome::Pass,
        format!("{server} {}", info.version().unwrap_or("of unknown version")),
        None,
    );
    match info.append_only() {
        Some(true) => report.add("persistence", Outcome::Pass, "append-only file is on", None),
        Some(false) => report.add(
            "persistence",
            Outcome::Warn,
            "append-only file is off",
            Some("a crash loses what came after the last snapshot; set appendonly yes"),
        ),
        None => report.add("persistence", Outcome::Warn, "the server does not tell", None),
    }
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
