//! The memory for payloads grows while a publisher never waits.

use std::time::Duration;

use crate::tests::handshakes::Scene;

const LONG: Duration = Duration::from_secs(60);

/// A subscription that does not read makes the memory for payloads grow. The others map it in time, whatever the machine does.
#[test]
fn a_publisher_that_never_waits_loses_nothing_when_its_memory_grows() {
    let scene = Scene::new();
    let (camera, viewer) = (&scene.evil, &scene.victim);
    let mut frames = viewer.subscribe("camera/front").unwrap();
    let _stuck = viewer.subscribe("camera/front").unwrap();
    let mut publisher = camera.publisher_builder("camera/front").never_waits().lending_grace(LONG).open().unwrap();
    for number in 0..40u8 {
        let mut frame = publisher.loan_uninit(1_500_000).unwrap();
        frame.fill(number);
        assert!(publisher.publish_loan(frame).unwrap().inboxes() >= 1, "frame {number}");
        let frame = frames.recv_sample_timeout(LONG).unwrap().expect("it was delivered");
        assert_eq!(frame.view().get(0), Some(number));
    }
    assert!(camera.stats().payload_bytes > 30_000_000, "it has grown several times");
}
