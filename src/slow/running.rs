//! Futures around futures: with each an operation, or a part of its time, goes on for as long as that runs.
//!
//! They are no functions that are `async`, which would have what they wait for twice, where it came in and where it runs:
//! a request is held by each of its layers then.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::task::futures::TaskLocalFuture;

use super::{Found, GoingOn, Part, RUNNING, Running};

pin_project! {
    /// An operation that runs.
    pub(super) struct Measured<F: Future> {
        #[pin]
        operation: TaskLocalFuture<Running, F>,
    }
}

pin_project! {
    /// A part of an operation, from the first time that it is looked at.
    pub(super) struct During<F> {
        part: Part,
        going_on: Option<GoingOn>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Measured<F> {
    pub(super) fn new(operation: F) -> Self {
        Self { operation: RUNNING.scope(Running::default(), operation) }
    }
}

impl<F: Future> Future for Measured<F> {
    type Output = (F::Output, Found);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut operation = self.project().operation;
        let output = ready!(operation.as_mut().poll(cx));
        let running = operation.take_value().unwrap_or_default();
        Poll::Ready((output, Found { spent: running.spent.get(), topic: running.topic.take() }))
    }
}

impl<F> During<F> {
    pub(super) const fn new(part: Part, future: F) -> Self {
        Self { part, going_on: None, future }
    }
}

impl<F: Future> Future for During<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let part = *this.part;
        this.going_on.get_or_insert_with(|| GoingOn::begin(part));
        let output = ready!(this.future.poll(cx));
        *this.going_on = None;
        Poll::Ready(output)
    }
}
