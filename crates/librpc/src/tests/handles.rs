//! What handles look like in a log.

use std::fmt::Debug;

use crate::WaitSet;
use crate::tests::handshakes::Scene;

#[test]
fn a_handle_is_one_short_line() {
    let scene = Scene::new();
    let (here, there) = (&scene.evil, &scene.victim);
    let inbox = there.inbox().unwrap();
    let subscription = there.subscribe("a/*").unwrap();
    let server = there.serve("adder").unwrap();
    let mut sender = here.connect("victim").unwrap();
    sender.send(b"hello").unwrap();
    let mut publisher = here.publisher("a/b").unwrap();
    let mut keeping = here.publisher_builder("a/c").history(2).open().unwrap();
    for publisher in [&mut publisher, &mut keeping] {
        assert_eq!(publisher.publish(b"hello").unwrap().inboxes(), 1);
    }
    assert_eq!(format!("{sender:?}"), r#"Sender { node: "evil", to: "victim" }"#);
    assert_eq!(format!("{publisher:?}"), r#"Publisher { node: "evil", topic: "a/b" }"#);
    assert_eq!(format!("{keeping:?}"), r#"Publisher { node: "evil", topic: "a/c" }"#);
    assert_eq!(format!("{:?}", here.outbox()), r#"Outbox { node: "evil" }"#);
    let (shared_sender, shared_publisher) = (sender.into_shared(), publisher.into_shared());
    let (stop, client, set) = (inbox.stop_handle(), here.client("adder").unwrap(), WaitSet::new().unwrap());
    let observer = crate::Observer::new(crate::Domain::at(&scene.path));
    let handles: [&dyn Debug; 10] =
        [here, &observer, &inbox, &subscription, &server, &client, &stop, &set, &shared_sender, &shared_publisher];
    for handle in handles {
        let text = format!("{handle:?}");
        assert!(text.len() < 200, "{} bytes: {text}", text.len());
    }
}
