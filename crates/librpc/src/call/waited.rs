//! A server or a call, as a wait set waits for it. The set keeps neither of them, nor their node.

use std::sync::Weak;
use std::task::{Context, Poll};

use crate::call::exchange::{Exchange, Visit};
use crate::call::in_common::{Limit, Shared};
use crate::call::work::Serving;

/// Something that has no descriptor of its own.
pub(crate) trait Waited: Send + Sync {
    /// Whether it is to be looked at. If not, the waker is called when it may be.
    fn is_ready(&self, context: &Context<'_>) -> bool;
}

/// A server: there is a request, or it was stopped.
pub(super) struct WaitedRequest {
    pub(super) exchange: Weak<Exchange<Serving>>,
    pub(super) visit: Visit,
}

impl Waited for WaitedRequest {
    fn is_ready(&self, context: &Context<'_>) -> bool {
        let Some(exchange) = self.exchange.upgrade().filter(|exchange| !exchange.is_closed()) else {
            return false; // the server was dropped
        };
        let is_over = || exchange.inbox.is_winding_down();
        let find = |side: &mut Serving| (side.has_next() || is_over()).then_some(());
        exchange.poll_visit(context, &self.visit, None, find).is_ready()
    }
}

/// A call: there is an answer, or a part of one, or its time is up.
pub(super) struct WaitedAnswer {
    pub(super) client: Weak<Shared>,
    pub(super) number: u64,
    pub(super) limit: Limit,
    pub(super) visit: Visit,
}

impl Waited for WaitedAnswer {
    fn is_ready(&self, context: &Context<'_>) -> bool {
        let Some(client) = self.client.upgrade() else { return false };
        let exchange = &client.exchange;
        match exchange.poll_visit(context, &self.visit, self.limit.deadline, |side| side.has_answer(self.number)) {
            // A call whose answer was taken, or that was dropped.
            Poll::Ready(Ok(None)) => exchange.lock().side.has_answer(self.number) != Some(false),
            Poll::Ready(Ok(Some(is_there))) => is_there,
            Poll::Ready(Err(_)) => true, // the next look returns the error
            Poll::Pending => false,
        }
    }
}
