//! What sentinels say, as a line of a check.

use super::report::Outcome;
use crate::storage::valkey::finding;
use crate::storage::valkey::options::ValkeyOptions;

/// Sentinels that do not agree, or are too few to replace a primary.
const ADVICE: &str = "a primary that is gone is replaced only while most of the sentinels run and agree; look at those that say otherwise";

/// Asks each, where the target is watched by some.
pub(super) async fn told(options: &ValkeyOptions) -> Option<(Outcome, String, Option<&'static str>)> {
    let told = finding::told_by_sentinels(options).await;
    if told.is_empty() {
        return None;
    }
    let each = told.iter().map(|(sentinel, told)| match told {
        Ok(primary) => format!("{sentinel} names {primary}"),
        Err(reason) => format!("{sentinel} {reason}"),
    });
    let detail = each.collect::<Vec<_>>().join("; ");
    let named: Vec<_> = told.iter().filter_map(|(_, told)| told.as_ref().ok()).collect();
    let is_agreed = named.len() == told.len() && named.windows(2).all(|pair| pair[0] == pair[1]);
    Some(match (is_agreed, named.is_empty()) {
        (true, _) => (Outcome::Pass, detail, None),
        (false, true) => (Outcome::Fail, detail, Some(ADVICE)),
        (false, false) => (Outcome::Warn, detail, Some(ADVICE)),
    })
}
