//! What each of several hosts is that the settings name, as a line of a check.

use super::report::{CheckReport, Outcome};
use crate::storage::valkey::finding;
use crate::storage::valkey::options::ValkeyOptions;

/// The relay uses the one that is the primary; the others are there for when it is not.
const ADVICE: &str = "one of the others is used meanwhile; see whether what is away runs, and whether its address is right: it is of no help when the primary is lost";

/// Adds a line where several hosts are named, of which the relay finds the primary by itself.
pub(super) async fn add(report: &mut CheckReport, options: &ValkeyOptions) {
    let told = finding::told_by_hosts(options).await;
    if told.is_empty() {
        return;
    }
    let each = told.iter().map(|(host, told)| match told {
        Ok(what) => format!("{host} {what}"),
        Err(reason) => format!("{host} cannot be used: {reason}"),
    });
    let detail = each.collect::<Vec<_>>().join("; ");
    if told.iter().all(|(_, told)| told.is_ok()) {
        report.add("hosts", Outcome::Pass, detail, None);
    } else {
        report.add("hosts", Outcome::Warn, detail, Some(ADVICE));
    }
}
