//! Users, tokens and roles of another storage, or of an export: what is said of them, and how they are brought.

use serde::Serialize;

use crate::chance::random;
use crate::cli::CliError;
use crate::cli::output::{self, Output};
use crate::cli::sides::Bringing;
use crate::copying::{AccessPlan, Documents, bring_access, plan_access};
use crate::storage::{AccessStore, StorageError};

/// One, as it is printed.
#[derive(Debug, Serialize)]
struct ToldAccess<'a> {
    access: &'a str,
    action: &'static str,
}

/// What is said where nothing was done, by itself, and where that is since others are there.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Nothing {
    pub(in crate::cli) is_done: &'static str,
    pub(in crate::cli) is_replaced: &'static str,
}

/// Brings them, or says what would be done. Returns whether something is in the way of a dry run.
pub(in crate::cli) async fn bring(
    store: &dyn AccessStore,
    documents: &Documents,
    bringing: &Bringing,
    nothing: Nothing,
) -> Result<bool, CliError> {
    let failed = |error: StorageError| CliError::Failed(nothing.is_done, error.into());
    if bringing.dry_run {
        let there = store.documents(None).await.map_err(failed)?.unwrap_or_default();
        let plan = plan_access(documents, &there);
        output::unless_closed(tell(&plan, bringing))?;
        return Ok(!bringing.overwrite && !plan.other.is_empty());
    }
    let plan =
        bring_access(store, documents, bringing.overwrite, || random().max(1)).await.map_err(failed)?;
    if let (false, Some(first)) = (bringing.overwrite, plan.other.first()) {
        let more = match plan.other.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let why = format!("{} is at the target already, and is another{more}", said(first));
        return Err(CliError::Failed(nothing.is_replaced, why.into()));
    }
    if bringing.output == Output::Text {
        let brought = plan.new.len() + plan.other.len();
        eprintln!("brought {brought} users, tokens and roles; {} were there already", plan.same.len());
    }
    Ok(false)
}

/// Prints what would be done.
fn tell(plan: &AccessPlan, bringing: &Bringing) -> Result<(), CliError> {
    let replaced = if bringing.overwrite { "would be overwritten" } else { "in the way: needs --overwrite" };
    let all = [(&plan.new, "would be brought"), (&plan.same, "there already"), (&plan.other, replaced)];
    for (names, action) in all {
        for name in names {
            match bringing.output {
                Output::Json => output::json(&ToldAccess { access: name, action })?,
                Output::Text => output::line(&format!("{}: {action}", said(name)))?,
            }
        }
    }
    Ok(())
}

/// Returns what a document is about, as people say it: `user ada`.
fn said(name: &str) -> String {
    output::printable(&name.replacen('/', " ", 1))
}
