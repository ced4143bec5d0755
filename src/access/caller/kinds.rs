//! What a caller may do with anything of a kind that is no topic.

use tidemill_proto::Problem;

use super::{Caller, Who};
use crate::access::{Kind, Verb};

impl Caller {
    /// Checks that there may be something of a kind with which the caller may do this: asked before a body is read that
    /// names it.
    ///
    /// # Errors
    /// There can be none: `forbidden`, or `unauthenticated` where nobody has said who calls.
    pub fn check_some_named(&self, verb: Verb, kind: Kind) -> Result<(), Box<Problem>> {
        if *self.who() == Who::Anyone || self.rules().allow_some(verb, kind) {
            return Ok(());
        }
        Err(self.refusal(verb, format_args!("any of `{}/`", kind.as_str())))
    }
}
