//! How a relay lets go of its clients, before it is stopped and when it is.

use super::form::whole;
use super::{MS_MAX, TIMES};

/// The settings of that.
#[derive(Clone, Debug, clap::Args)]
pub struct DrainSettings {
    /// Milliseconds that requests under way get to finish when the relay is told to stop
    #[arg(long, value_name = "MS", default_value = "10000", help_heading = TIMES)]
    #[arg(value_parser = whole::<u64>(0..=MS_MAX))]
    pub drain_ms: u64,

    /// Milliseconds in which a relay that was told to stop takes connections still and `/ready` is 503
    #[arg(long, value_name = "MS", default_value = "0", value_parser = whole::<u64>(0..=MS_MAX), help_heading = TIMES)]
    pub drain_notice_ms: u64,

    /// Milliseconds over which clients are sent away, so that they do not all come to the next relay at once; half of
    /// --drain-ms, if not given. A relay that stops without having been drained takes no more than that half
    #[arg(long, value_name = "MS", help_heading = TIMES, value_parser = whole::<u64>(0..=MS_MAX))]
    pub drain_spread_ms: Option<u64>,
}

impl DrainSettings {
    /// Returns over how many milliseconds clients are sent away.
    #[must_use]
    pub fn spread_ms(&self) -> u64 {
        self.drain_spread_ms.unwrap_or(self.drain_ms / 2)
    }
}
