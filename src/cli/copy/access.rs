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

/// Whether they are brought, of all commands that bring something.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Users {
    /// Bring users, tokens and roles as well; first, and all of them or none. Only to a storage, and from a storage or a
    /// file that has them
    #[arg(long)]
    pub(in crate::cli) access: bool,

    /// Leave topics and buckets out: users, tokens and roles alone
    #[arg(long, requires = "access", conflicts_with = "topics")]
    pub(in crate::cli) no_topics: bool,
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
        return Ok(!bringing.overwrite && plan.in_the_way().is_some());
    }
    let plan =
        bring_access(store, documents, bringing.overwrite, || random().max(1)).await.map_err(failed)?;
    if let (false, Some((first, more))) = (bringing.overwrite, plan.in_the_way()) {
        let more = match more {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let what = if plan.other.is_empty() {
            "is not at the target, which has others, so it may have been removed there"
        } else {
            "is at the target already, and is another"
        };
        let why = format!("{} {what}{more}", said(first));
        return Err(CliError::Failed(nothing.is_replaced, why.into()));
    }
    if bringing.output == Output::Text {
        let brought = plan.new.len() + plan.other.len();
        let (what, were) = (all_of(brought), if plan.same.len() == 1 { "was" } else { "were" });
        eprintln!("brought {what}; {} {were} there already", plan.same.len());
    }
    Ok(false)
}

/// Prints what would be done.
fn tell(plan: &AccessPlan, bringing: &Bringing) -> Result<(), CliError> {
    let replaced = if bringing.overwrite { "would be overwritten" } else { "in the way: needs --overwrite" };
    let new = if plan.is_fresh || bringing.overwrite {
        "would be brought"
    } else {
        "not there, and may have been removed: needs --overwrite"
    };
    let all = [(&plan.new, new), (&plan.same, "there already"), (&plan.other, replaced)];
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

/// Returns how many there are, of all three kinds together.
fn all_of(count: usize) -> String {
    if count == 1 { "1 user, token or role".to_owned() } else { format!("{count} users, tokens and roles") }
}

/// Returns what a document is about, as people say it: `user ada`.
fn said(name: &str) -> String {
    output::printable(&name.replacen('/', " ", 1))
}
