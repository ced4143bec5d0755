//! Limits of applications: what is taken of them, and what is left.

use serde::{Deserialize, Serialize};

use crate::duration::Seconds;
use crate::{LimitName, Problem};

/// Most policies by which one limit is counted.
pub const POLICIES_MAX: usize = 8;
/// Most limits of which is taken with one request.
pub const TAKES_MAX: usize = 100;
/// The largest number of a policy, and the largest cost.
pub const LIMIT_MAX: u32 = 1_000_000_000;

/// A policy: so much in a time, and so much at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyRequest {
    /// How much, 1 to 1,000,000,000.
    pub limit: u32,
    /// In which time, 1 ms to 365 days: a number of seconds, or text with a unit.
    pub per: String,
    /// How much at once, 1 to 1,000,000,000; `limit` if absent. It must be there again within 365 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// The body of a request about one limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TakeRequest {
    /// How much is taken, looked for or given back; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<u32>,
    /// 1 to 8 policies, of which each must let it pass.
    pub policies: Vec<PolicyRequest>,
}

/// One take of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NamedTake {
    /// The name of the limit.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: LimitName,
    /// How much is taken; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<u32>,
    /// 1 to 8 policies, of which each must let it pass.
    pub policies: Vec<PolicyRequest>,
}

/// The body of a request that takes of several limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TakeAllRequest {
    /// 1 to 100 takes, each for itself.
    pub takes: Vec<NamedTake>,
}

/// What came of a take, a look or a refund.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TakeAnswer {
    /// Whether it passes: it was taken, or could be.
    pub allowed: bool,
    /// How much is left at once: the least of all policies.
    pub remaining: u32,
    /// Seconds after which the same would pass, unless others take it; 0 where it passes.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub retry_after: Seconds,
    /// Seconds after which all is there again, unless more is taken.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub reset: Seconds,
    /// True where the storage could not be asked: this node has decided by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
}

/// What came of one take of several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NamedAnswer {
    /// The name of the limit, as it was given.
    pub name: String,
    /// What came of it; nothing was taken where there is an `error`.
    #[serde(flatten)]
    pub answer: TakeAnswer,
    /// Why nothing was taken, where what was asked is wrong or not allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub error: Option<Problem>,
}

/// What came of each take, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TakenAll {
    /// One for each take.
    pub results: Vec<NamedAnswer>,
}
