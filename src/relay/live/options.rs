//! How feeds are kept.

use std::time::Duration;

use crate::relay::RelayOptions;

/// How feeds are kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) struct FeedOptions {
    /// How often the backend is asked about all topics with feeds.
    pub sweep_every: Duration,
    /// After how long it is looked whether a reader that left its feed empty is still missed, or others
    /// have come. A feed whose readers come back and go again within that time ends sooner: at the first
    /// of these looks that finds nobody.
    pub linger: Duration,
    /// Most topics that have feeds at one time.
    pub topics_max: usize,
    /// Bytes that may be pending for readers at one time.
    pub pending_bytes_max: usize,
    /// Bytes that the rings of all topics and patterns may hold.
    pub ring_bytes_max: usize,
    /// Largest payload.
    pub payload_bytes_max: usize,
}

impl FeedOptions {
    /// Returns how the feeds of a relay are kept that is set to this.
    #[must_use]
    pub(in crate::relay) fn of(options: &RelayOptions) -> Self {
        Self {
            sweep_every: Duration::from_secs(1),
            linger: Duration::from_secs(10),
            topics_max: options.live_topics_max,
            pending_bytes_max: options.pending_bytes_max,
            ring_bytes_max: options.live_bytes_max,
            // In the log of a bucket its values are payloads.
            payload_bytes_max: options.payload_bytes_max.max(options.value_bytes_max),
        }
    }
}
