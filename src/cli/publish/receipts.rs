//! Lines that were handed over: published at once, or for later.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tidemill_client::{ClientError, NewMessage, Published, Publisher, Receipt, Scheduled};
use tidemill_proto::Delivery;

/// What waits for the answer to a line.
pub(super) enum LineReceipt {
    Now(Receipt),
    Later(Receipt<Scheduled>),
}

/// The answer to a line.
pub(super) enum Taken {
    Published(Published),
    Scheduled(Scheduled),
}

/// Hands a line over.
pub(super) async fn hand_over(
    publisher: &Publisher,
    message: NewMessage,
    delivery: Option<Delivery>,
) -> Result<LineReceipt, ClientError> {
    match delivery {
        None => publisher.publish(message).await.map(LineReceipt::Now),
        Some(delivery) => publisher.schedule(message, delivery).await.map(LineReceipt::Later),
    }
}

impl Future for LineReceipt {
    type Output = Result<Taken, ClientError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(receipt) => Pin::new(receipt).poll(cx).map(|answer| answer.map(Taken::Published)),
            Self::Later(receipt) => Pin::new(receipt).poll(cx).map(|answer| answer.map(Taken::Scheduled)),
        }
    }
}
