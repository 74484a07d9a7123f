//! A task waits for what happens at a publisher.

use std::task::Poll;

use librpc::{PublishError, PublisherEvent};
use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppet, Puppets, TestDomain};

use super::{Executor, next, open, polled};

const TOPIC: &str = "camera/front";

fn subscriber(domain: &TestDomain) -> Puppet {
    let mut display = domain.node("display");
    display.does(subscribe("s", "camera/*"));
    display
}

#[track_caller]
fn came(event: Result<PublisherEvent, PublishError>) {
    assert!(matches!(&event, Ok(PublisherEvent::Came(inbox)) if &*inbox.node == "display"), "{event:?}");
}

#[track_caller]
fn gone(event: Result<PublisherEvent, PublishError>) {
    assert!(matches!(&event, Ok(PublisherEvent::Gone(inbox, _)) if &*inbox.node == "display"), "{event:?}");
}

#[test]
fn a_task_is_woken_by_who_comes_and_goes() {
    for executor in Executor::ALL {
        let domain = TestDomain::new();
        let camera = open(&domain, "camera");
        let mut publisher = camera.publisher(TOPIC).unwrap();
        executor.run(async {
            assert!(polled(0, publisher.event_async()).await.is_none(), "{executor:?}");
            let mut display = None;
            let event = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| pollster::block_on(publisher.event_async()));
                display = Some(subscriber(&domain));
                waiting.join().unwrap()
            });
            came(event);
            assert!(polled(0, publisher.event_async()).await.is_none());
            display.take().expect("it was started").kill();
            // A future that is dropped takes no event along.
            for _ in 0..3 {
                drop(publisher.event_async());
            }
            gone(publisher.event_async().await);
            let _display = subscriber(&domain);
            came(publisher.event_async().await);
        });
    }
}

#[test]
fn a_stream_of_events_goes_on_while_another_task_publishes() {
    let domain = TestDomain::new();
    let camera = open(&domain, "camera");
    let publisher = camera.publisher(TOPIC).unwrap().into_shared();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut events = publisher.events();
    let (tells, told) = std::sync::mpsc::channel();
    let listening = runtime.spawn(async move {
        while let Some(event) = next(&mut events).await {
            tells.send(event).unwrap();
        }
    });
    let publishing = runtime.spawn({
        let publisher = publisher.clone();
        async move {
            loop {
                let _ = publisher.try_publish(b"a picture").unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    for round in 0..3 {
        let mut display = subscriber(&domain);
        came(told.recv_timeout(LONG).unwrap());
        assert_eq!(display.does(receive_from("s")).text, "a picture");
        match round {
            0 => display.kill(),
            1 => display.does(leave()),
            _ => display.does(unsubscribe("s")),
        }
        gone(told.recv_timeout(LONG).unwrap());
    }
    publishing.abort();
    camera.close(ms(100)).unwrap();
    let ended = told.recv_timeout(LONG).unwrap();
    assert!(matches!(ended, Err(PublishError::Closed { .. })), "{ended:?}");
    runtime.block_on(listening).unwrap();
}

#[test]
fn two_tasks_share_the_events() {
    let domain = TestDomain::new();
    let camera = open(&domain, "camera");
    let publisher = camera.publisher(TOPIC).unwrap().into_shared();
    let (mut one, mut two) = (Box::pin(publisher.event_async()), Box::pin(publisher.event_async()));
    pollster::block_on(async {
        assert!(polled(0, &mut one).await.is_none());
        assert!(polled(0, &mut two).await.is_none());
        let mut display = subscriber(&domain);
        let (mut first, mut second) = (None, None);
        std::future::poll_fn(|context| {
            for (task, told) in [(&mut one, &mut first), (&mut two, &mut second)] {
                if told.is_none()
                    && let Poll::Ready(event) = task.as_mut().poll(context)
                {
                    *told = Some(event);
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
        assert_eq!([&first, &second].iter().filter(|told| told.is_some()).count(), 1);
        came(first.take().or(second.take()).unwrap());
        display.kill();
    });
    drop((one, two));
    gone(publisher.wait_for_event(LONG).unwrap().ok_or_else(|| unreachable!()));
}
