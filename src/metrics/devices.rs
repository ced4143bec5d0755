//! Devices that want to be let in.

use std::fmt;

use metrics::Counter;

use super::registry::Registry;

const DEVICES: &str = "tidemill_devices_total";

/// What has become of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceStep {
    /// It was given its codes.
    Started,
    /// It was given none: too many wait, or it could not be kept.
    NotStarted,
    /// A user has let it in.
    LetIn,
    /// A user has refused it.
    Refused,
    /// It was given its tokens.
    LoggedIn,
}

impl DeviceStep {
    const ALL: [Self; 5] = [Self::Started, Self::NotStarted, Self::LetIn, Self::Refused, Self::LoggedIn];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::NotStarted => "not_started",
            Self::LetIn => "let_in",
            Self::Refused => "refused",
            Self::LoggedIn => "logged_in",
        }
    }
}

/// The counts of devices.
pub struct Devices([Counter; DeviceStep::ALL.len()]);

impl Devices {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(DEVICES, &["step"], "Devices that want to be let in: `started`, `not_started` (as where too many wait), `let_in` or `refused` by a user, `logged_in`");
        Self(DeviceStep::ALL.map(|step| registry.counter(DEVICES, &[("step", step.as_str())])))
    }

    /// Counts a device that has come so far.
    pub fn count(&self, step: DeviceStep) {
        if let Some(counter) = self.0.get(step as usize) {
            counter.increment(1);
        }
    }
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices").finish_non_exhaustive()
    }
}
