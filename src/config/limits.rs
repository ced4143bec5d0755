//! How much may be done in a time: the settings, and what they say.

use clap::builder::TypedValueParser;

use super::form::{KeptBounds, LimitsAway, parse_kept, whole};
use crate::access::Mode;
use crate::limits::{Limit, LimitOptions, WhenAway};

/// The group in which bounds of any kind are shown.
pub(super) const LIMITS: &str = "Limits";

fn per_minute() -> impl TypedValueParser<Value = u32> {
    whole(0..=1_000_000_000)
}

fn counted() -> impl TypedValueParser<Value = usize> {
    whole(1..=1_000_000_000)
}

/// The settings of limits.
#[derive(Clone, Debug, clap::Args)]
pub struct LimitSettings {
    /// Log-ins with a password that are taken from one address in a minute; 0 is without limit
    #[arg(long, value_name = "COUNT", default_value = "100", help_heading = LIMITS, value_parser = per_minute())]
    pub limit_log_ins: u32,

    /// Requests that are taken in a minute from one address of who does not say who calls, or says it wrongly; 0
    /// is without limit. A relay that lets everybody in does not ask
    #[arg(long, value_name = "COUNT", default_value = "100", help_heading = LIMITS, value_parser = per_minute())]
    pub limit_anonymous_requests: u32,

    /// Requests that are taken in a minute from one address, whoever calls; 0 is without limit
    #[arg(long, value_name = "COUNT", default_value = "0", help_heading = LIMITS, value_parser = per_minute())]
    pub limit_address_requests: u32,

    /// Requests that are taken in a minute of one caller, but for those that publish; 0 is without limit
    #[arg(long, value_name = "COUNT", default_value = "60000", help_heading = LIMITS)]
    #[arg(value_parser = per_minute())]
    pub limit_principal_requests: u32,

    /// Messages that are taken in a minute from one address, whoever publishes; 0 is without limit
    #[arg(long, value_name = "COUNT", default_value = "0", help_heading = LIMITS, value_parser = per_minute())]
    pub limit_address_messages: u32,

    /// Messages that are taken in a minute of one caller; 0 is without limit
    #[arg(long, value_name = "COUNT", default_value = "0", help_heading = LIMITS, value_parser = per_minute())]
    pub limit_principal_messages: u32,

    /// Topics that one caller may make in an hour, or one address of who does not say who calls; 0 is without limit
    #[arg(long, value_name = "COUNT", default_value = "0", help_heading = LIMITS, value_parser = per_minute())]
    pub limit_topics: u32,

    /// Sockets and streams that one caller may have open at one time; 0 is without limit
    #[arg(long, value_name = "COUNT", default_value = "0", help_heading = LIMITS, value_parser = per_minute())]
    pub limit_connections: u32,

    /// Bytes that topics may keep together, each by its name or by a pattern that matches them, with commas between
    /// them, as in `acme.*=10GiB,*=100GiB`; about, as they are weighed with the sweeps. Where they are reached,
    /// publishing to these topics is refused
    #[arg(long, value_name = "BOUNDS", help_heading = LIMITS, value_parser = parse_kept)]
    pub limit_kept_bytes: Option<KeptBounds>,

    /// What happens while the storage does not tell what limits have left: each node counts by itself, or what is
    /// limited is refused
    #[arg(long, value_name = "WHAT", default_value = "alone", help_heading = LIMITS, ignore_case = true)]
    pub limits_away: LimitsAway,

    /// Callers and addresses that this node counts at one time, each by itself; those that come later share one
    /// limit
    #[arg(long, value_name = "COUNT", default_value = "100000", help_heading = LIMITS, value_parser = counted())]
    pub limits_counted_max: usize,
}

impl LimitSettings {
    /// Returns how much may be done in a time. A relay that lets everybody in knows addresses alone.
    #[must_use]
    pub fn options(&self, mode: Mode) -> LimitOptions {
        let open = LimitOptions {
            when_away: match self.limits_away {
                LimitsAway::Alone => WhenAway::CountAlone,
                LimitsAway::Refuse => WhenAway::Refuse,
            },
            quotas_max: self.limits_counted_max,
            ..LimitOptions::none()
        };
        let open = open
            .with(Limit::AddressRequests, self.limit_address_requests)
            .with(Limit::AddressMessages, self.limit_address_messages);
        match mode {
            Mode::Open => open,
            Mode::Closed => open
                .with(Limit::LogIns, self.limit_log_ins)
                .with(Limit::AnonymousRequests, self.limit_anonymous_requests)
                .with(Limit::PrincipalRequests, self.limit_principal_requests)
                .with(Limit::PrincipalMessages, self.limit_principal_messages)
                .with(Limit::Topics, self.limit_topics)
                .with(Limit::Connections, self.limit_connections),
        }
    }
}
