//! Who may do what, brought from an export: users, tokens and roles, as the documents that a storage keeps of them.
//!
//! Secrets are in none of them: of passwords and tokens there are hashes. All are brought at once or none, and what is there
//! under the same name and is another is only replaced where that is asked for. Where others are there, what is not may have
//! been removed, as a token that was revoked: that comes only where it is asked for, too. It must not know what documents say.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::storage::{AccessDocuments, AccessEdit, AccessStore, StorageError};

/// How often it is tried again where somebody changes something meanwhile.
const TRIES_MAX: usize = 16;

/// Documents by their names.
pub type Documents = BTreeMap<Box<str>, Bytes>;

/// What is to be done with documents, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessPlan {
    /// They are not there yet.
    pub new: Vec<Box<str>>,
    /// They are there, as they are.
    pub same: Vec<Box<str>>,
    /// Others are there under their names.
    pub other: Vec<Box<str>>,
    /// Whether nothing is there at all: else what is new may have been removed there.
    pub is_fresh: bool,
}

impl AccessPlan {
    /// Returns what is not brought unless that is asked for: the first, and how many more there are.
    #[must_use]
    pub fn in_the_way(&self) -> Option<(&str, usize)> {
        let removed = self.new.iter().filter(|_| !self.is_fresh);
        let mut all = self.other.iter().chain(removed);
        all.next().map(|first| (&**first, all.count()))
    }
}

/// Returns what is to be done with documents beside what is there.
#[must_use]
pub fn plan_access(documents: &Documents, there: &AccessDocuments) -> AccessPlan {
    let mut plan = AccessPlan { is_fresh: there.documents.is_empty(), ..AccessPlan::default() };
    for (name, document) in documents {
        let of = match there.documents.get(name) {
            None => &mut plan.new,
            Some(found) if is_same(document, found) => &mut plan.same,
            Some(_) => &mut plan.other,
        };
        of.push(name.clone());
    }
    plan
}

/// Brings documents, all at once; `next` gives a revision that there never was. Where others are there under their names, or
/// some are not there among others, and `overwrite` does not say that they are meant, nothing is done. Returns what was found.
///
/// # Errors
/// The storage did not do it; `Overloaded` where it was changed by others all the time.
pub async fn bring_access(
    store: &dyn AccessStore,
    documents: &Documents,
    overwrite: bool,
    next: impl Fn() -> u64,
) -> Result<AccessPlan, StorageError> {
    for _ in 0..TRIES_MAX {
        let there = store.documents(None).await?.unwrap_or_default();
        let plan = plan_access(documents, &there);
        let names: Vec<&str> = plan.new.iter().chain(&plan.other).map(Box::as_ref).collect();
        if names.is_empty() || (plan.in_the_way().is_some() && !overwrite) {
            return Ok(plan);
        }
        let edit = |name: &str| AccessEdit { name: name.into(), document: documents.get(name).cloned() };
        let edits = names.into_iter().map(edit).collect();
        if store.change_documents(there.revision, next(), edits).await? {
            return Ok(plan);
        }
    }
    Err(StorageError::Overloaded)
}

/// Whether two documents say the same, however they are written.
fn is_same(one: &Bytes, other: &Bytes) -> bool {
    let value = |document: &Bytes| serde_json::from_slice::<Value>(document).ok();
    one == other || value(one).is_some_and(|one| Some(one) == value(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::test_storage;

    fn documents(pairs: &[(&str, &'static str)]) -> Documents {
        pairs.iter().map(|(name, text)| (Box::from(*name), Bytes::from_static(text.as_bytes()))).collect()
    }

    #[tokio::test]
    async fn all_are_brought_at_once_or_none() {
        let store = test_storage().access;
        let names = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect::<Vec<Box<str>>>();
        let first = documents(&[("user/ada", r#"{"a":1,"b":2}"#), ("role/r", "{}")]);
        let plan = bring_access(&*store, &first, false, || 7).await.expect("it is there");
        assert_eq!(plan.new, names(&["role/r", "user/ada"]));
        // In another order of members it is the same.
        let second = documents(&[("user/ada", r#"{"b":2,"a":1}"#), ("role/r", "[]"), ("token/t", "{}")]);
        let plan = bring_access(&*store, &second, false, || 8).await.expect("it is there");
        let (new, same, other) = (names(&["token/t"]), names(&["user/ada"]), names(&["role/r"]));
        assert_eq!(plan, AccessPlan { new, same, other, is_fresh: false });
        let there = store.documents(None).await.expect("it is there").expect("documents");
        assert_eq!((there.revision, there.documents), (7, first));
        bring_access(&*store, &second, true, || 9).await.expect("it is there");
        let there = store.documents(None).await.expect("it is there").expect("documents");
        assert_eq!(there.documents.get("role/r"), second.get("role/r"));
        assert!(there.documents.contains_key("token/t"));
    }

    #[tokio::test]
    async fn what_was_removed_comes_back_only_where_that_is_said() {
        let store = test_storage().access;
        let all = documents(&[("user/ada", "{}"), ("token/t", "{}")]);
        bring_access(&*store, &all, false, || 7).await.expect("it is there");
        let removed = AccessEdit { name: "token/t".into(), document: None };
        assert!(store.change_documents(7, 8, vec![removed]).await.expect("it is there"));
        let plan = bring_access(&*store, &all, false, || 9).await.expect("it is there");
        assert_eq!(plan.in_the_way(), Some(("token/t", 0)));
        let there = store.documents(None).await.expect("it is there").expect("documents");
        assert!(!there.documents.contains_key("token/t"));
        bring_access(&*store, &all, true, || 9).await.expect("it is there");
        let there = store.documents(None).await.expect("it is there").expect("documents");
        assert_eq!(there.documents, all);
    }
}
