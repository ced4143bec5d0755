//! A reader's turn to read the topics of a pattern one by one.

use std::pin::Pin;

use tokio::sync::OwnedSemaphorePermit;

/// Room to read the topics of a pattern one by one, of which there is so much for all readers.
pub(super) enum Turn {
    /// None is needed.
    None,
    /// There is some.
    Granted(OwnedSemaphorePermit),
    /// It is waited for.
    Awaited(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>),
}
