//! Futures that run within a span.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use opentelemetry::Context;
use pin_project_lite::pin_project;

pin_project! {
    /// A future within a span, if there is one. Where there is none it costs a look.
    #[derive(Debug)]
    pub struct Within<F> {
        span: Option<Context>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Within<F> {
    pub(super) const fn new(span: Option<Context>, future: F) -> Self {
        Self { span, future }
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _within = this.span.as_ref().map(|span| span.clone().attach());
        this.future.poll(cx)
    }
}
