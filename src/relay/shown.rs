//! Names that a caller may see, among all: they are looked through in steps.

use tidemill_proto::Problem;

use super::Failure;
use crate::storage::StorageError;

/// Names that are looked through in one step.
pub(super) const STEP_NAMES: usize = 1_000;
/// Steps in which a page looks for names that a caller may see.
const STEPS_MAX: usize = 10;

/// A page of names.
#[derive(Clone, Debug)]
pub(super) struct Shown<N> {
    /// The names, in their order.
    pub(super) names: Vec<N>,
    /// Behind which the next page begins; `None` where this one is the last.
    pub(super) next: Option<N>,
}

/// Returns up to `limit` names behind `after` that are shown; `names` gives up to [`STEP_NAMES`] of all behind one, in order.
///
/// # Errors
/// Too many that are not shown lie in between (`what` is what they are of), or the storage did not answer.
pub(super) async fn shown<N: Clone, F: Future<Output = Result<Vec<N>, StorageError>>>(
    what: &str,
    after: Option<&N>,
    limit: usize,
    names: impl Fn(Option<N>) -> F,
    is_shown: impl Fn(&N) -> bool,
) -> Result<Shown<N>, Failure> {
    let (mut found, mut after, mut is_last) = (Vec::new(), after.cloned(), false);
    for _ in 0..STEPS_MAX {
        let step = names(after).await.map_err(|error| Failure::read(error, None))?;
        is_last = step.len() < STEP_NAMES;
        after = step.last().cloned();
        found.extend(step.into_iter().filter(|name| is_shown(name)));
        // One more than fits, so that it is known whether another page follows.
        if is_last || found.len() > limit {
            break;
        }
    }
    if found.is_empty() && !is_last {
        let rule =
            format_args!("too many {what} lie between those that this caller may read; begin elsewhere");
        return Err(Problem::field("after", rule).into());
    }
    let next = (found.len() > limit || !is_last).then(|| found[found.len().min(limit) - 1].clone());
    found.truncate(limit);
    Ok(Shown { names: found, next })
}
