//! Tasks: futures for all that waits, in several executors, and what becomes of one that is dropped.

mod calls; //     serving and calling
mod events; //    what happens at a publisher
mod receiving; // messages, events and samples
mod sending; //   room, flushing, and waiting for others
mod waking; //    whose waker is called, and when

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use librpc::Node;
use librpc_system_tests::TestDomain;

/// A limit that no test reaches.
const LONG: Duration = Duration::from_secs(60);

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

/// An executor.
#[derive(Clone, Copy, Debug)]
enum Executor {
    Pollster,
    Smol,
    TokioOneThread,
    Tokio,
}

impl Executor {
    const ALL: [Self; 4] = [Self::Pollster, Self::Smol, Self::TokioOneThread, Self::Tokio];

    fn run<F: Future>(self, future: F) -> F::Output {
        let tokio = |mut builder: tokio::runtime::Builder| builder.enable_all().build().unwrap();
        match self {
            Self::Pollster => pollster::block_on(future),
            Self::Smol => smol::block_on(future),
            Self::TokioOneThread => tokio(tokio::runtime::Builder::new_current_thread()).block_on(future),
            Self::Tokio => tokio(tokio::runtime::Builder::new_multi_thread()).block_on(future),
        }
    }
}

/// Polls a future at most this often, and drops it if it is not ready then.
async fn polled<F: Future>(times: u32, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), times);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// The next item of a stream.
async fn next<S: futures_core::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}
