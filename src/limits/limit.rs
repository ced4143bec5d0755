//! What is limited, and what it is called on the wire, in settings and in sentences.

use std::time::Duration;

/// How long an allowance may be spent, and how often what is not spent is given back.
pub(super) const HOLD: Duration = Duration::from_secs(5);

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Log-ins with a password, of an address.
    LogIns,
    /// Requests of who does not say who calls, of an address.
    AnonymousRequests,
    /// Requests of an address, whoever calls.
    AddressRequests,
    /// Requests of a principal, but for those that publish.
    PrincipalRequests,
    /// Messages that come from an address.
    AddressMessages,
    /// Messages that a principal publishes.
    PrincipalMessages,
    /// Topics that a principal makes, or an address of those who do not say who calls.
    Topics,
    /// Sockets and streams that a principal has open at one time.
    Connections,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 8] = [
        Self::LogIns,
        Self::AnonymousRequests,
        Self::AddressRequests,
        Self::PrincipalRequests,
        Self::AddressMessages,
        Self::PrincipalMessages,
        Self::Topics,
        Self::Connections,
    ];

    /// Returns what it is called on the wire and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LogIns => "log-ins",
            Self::AnonymousRequests => "anonymous-requests",
            Self::AddressRequests => "address-requests",
            Self::PrincipalRequests => "principal-requests",
            Self::AddressMessages => "address-messages",
            Self::PrincipalMessages => "principal-messages",
            Self::Topics => "topics",
            Self::Connections => "connections",
        }
    }

    /// Returns the variable that sets it.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::LogIns => "TIDEMILL_LIMIT_LOG_INS",
            Self::AnonymousRequests => "TIDEMILL_LIMIT_ANONYMOUS_REQUESTS",
            Self::AddressRequests => "TIDEMILL_LIMIT_ADDRESS_REQUESTS",
            Self::PrincipalRequests => "TIDEMILL_LIMIT_PRINCIPAL_REQUESTS",
            Self::AddressMessages => "TIDEMILL_LIMIT_ADDRESS_MESSAGES",
            Self::PrincipalMessages => "TIDEMILL_LIMIT_PRINCIPAL_MESSAGES",
            Self::Topics => "TIDEMILL_LIMIT_TOPICS",
            Self::Connections => "TIDEMILL_LIMIT_CONNECTIONS",
        }
    }

    /// Returns what is counted, as a sentence says it.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::LogIns => "log-ins with a password are taken from one address",
            Self::AnonymousRequests => {
                "requests of who does not say who calls, or says it wrongly, are taken from one address"
            }
            Self::AddressRequests => "requests are taken from one address",
            Self::PrincipalRequests => "requests are taken from one caller",
            Self::AddressMessages => "messages are taken from one address",
            Self::PrincipalMessages => "messages are taken from one caller",
            Self::Topics => "topics are made by one caller",
            Self::Connections => "sockets and streams are open of one caller",
        }
    }

    /// Returns the time in which it is counted; zero for what counts as long as it is there.
    #[must_use]
    pub const fn within(self) -> Duration {
        match self {
            Self::LogIns
            | Self::AnonymousRequests
            | Self::AddressRequests
            | Self::PrincipalRequests
            | Self::AddressMessages
            | Self::PrincipalMessages => Duration::from_mins(1),
            Self::Topics => Duration::from_hours(1),
            Self::Connections => Duration::ZERO,
        }
    }

    /// Returns how long an allowance may be spent. A log-in takes long, and so does a topic: each asks.
    pub(super) const fn hold(self) -> Duration {
        match self {
            Self::LogIns | Self::Topics | Self::Connections => Duration::ZERO,
            Self::AnonymousRequests
            | Self::AddressRequests
            | Self::PrincipalRequests
            | Self::AddressMessages
            | Self::PrincipalMessages => HOLD,
        }
    }
}
