//! The memory for large payloads: it is bounded, whoever holds what, and too little of it is an error.

use std::fs::File;
use std::io::Write;

use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppet, Puppets, TestDomain, skip, wait_until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

const MIB: usize = 1 << 20;
/// As of a camera.
const FRAME: usize = 8 * MIB;

/// The bytes of memfds that a process maps: rings, and memories for payloads.
fn mapped_memfds(puppet: &Puppet) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", puppet.pid())).expect("the puppet lives");
    let bytes = |line: &str| {
        let (begin, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(usize::from_str_radix(end, 16).ok()? - usize::from_str_radix(begin, 16).ok()?)
    };
    maps.lines().filter(|line| line.contains("memfd:librpc")).map(|line| bytes(line).expect("an address range")).sum()
}

/// A stopped receiver that holds samples: the others get everything, and the memory stays within what the window allows.
#[track_caller]
fn a_stopped_holder(policy: impl Fn(OpenInbox) -> OpenInbox) {
    const HELD: usize = 4;
    const LAST: u64 = 60;
    const LIMIT: usize = 512 * MIB;
    // The stopped one holds four and has a window of 64 MiB. The others have the same window for the same messages, and each reads
    // one; one is being written. A pool grows to the next power of two. Beside it: a small memory, and rings.
    const WAITING: usize = 64 * MIB / FRAME;
    const MOST: usize = (HELD + 2 * WAITING + 3).next_power_of_two() * FRAME + 8 * MIB;
    let domain = TestDomain::new();
    let mut source = domain.puppet();
    source.does(open("source").payload_bytes(LIMIT as u64));
    let mut holder = domain.node("holder");
    holder.does(policy(subscribe("s", "t,only-there")));
    let mut others = ["first", "second"].map(|id| {
        let mut other = domain.node(id);
        other.does(subscribe("s", "t"));
        other
    });
    source.does(set_publish_limit(LONG));
    assert_eq!(source.does(publish_long_numbers("t", 1..=HELD as u64, FRAME)), (3 * HELD as u64, 0));
    holder.does(hold("s", HELD));
    holder.stop();
    // A publish waits for it in vain, once. No later one does: it has not moved since.
    source.does(set_publish_limit(ms(1)));
    assert_eq!(source.does(publish_long_numbers("only-there", 1..=1, 200_000)), (0, 1));
    source.does(set_publish_limit(LONG));
    let receiving = others.each_mut().map(|other| other.begins(receive_until("s", LAST)));
    let (delivered, undelivered) = source.does(publish_long_numbers("t", HELD as u64 + 1..=LAST, FRAME));
    assert_eq!(delivered + undelivered, 3 * (LAST - HELD as u64));
    for (other, receiving) in others.iter_mut().zip(receiving) {
        assert_eq!(other.completes(receiving), (LAST, 0));
    }
    let mapped = mapped_memfds(&source);
    assert!((HELD * FRAME..=MOST).contains(&mapped), "{mapped} bytes are mapped");
    others.iter_mut().for_each(|other| assert_eq!(other.does(try_receive_from("s")), None));
    assert!(source.fails(loan("t", LIMIT)).contains("\"holder\""), "its samples are kept");
    holder.kill();
    // All the memory that there may be is free again.
    wait_until(|| source.tries(loan("t", LIMIT)).is_ok());
}

#[test]
fn a_stopped_holder_of_samples_costs_others_nothing_and_memory_that_is_bounded() {
    a_stopped_holder(|inbox| inbox);
}

#[test]
fn a_stopped_holder_of_samples_that_drops_the_newest_costs_others_nothing() {
    a_stopped_holder(OpenInbox::drop_newest);
}

#[test]
fn a_stopped_holder_of_samples_that_wants_the_latest_costs_others_nothing() {
    a_stopped_holder(OpenInbox::latest);
}

/// The memory for payloads belongs to no mount, so the size of `/dev/shm` does not limit it. What does is an error.
#[test]
fn a_small_dev_shm_limits_no_payload_and_other_limits_are_errors_that_name_sizes() {
    let domain = TestDomain::new();
    let Some(mut node) = domain.puppet_with_shm(64 << 20) else { return skip("mounting needs root") };
    node.does(open("node").payload_bytes(100 << 20));
    node.does(subscribe("s", "t").own());
    node.does(set_publish_limit(LONG));
    let publishes = |node: &mut Puppet| {
        assert_eq!(node.does(publish_long_numbers("t", 1..=1, 70 * MIB)), (1, 0));
        assert_eq!(node.does(receive_until("s", 1)), (1, 0));
        assert_eq!(node.does(try_receive_from("s")), None);
    };
    publishes(&mut node);
    let error = node.fails(loan("t", 101 * MIB));
    assert!(
        error.starts_with("no memory for a payload of 105906176 bytes: ")
            && error.contains("there may be 104857600 bytes"),
        "{error}"
    );

    let mut filling = File::create(format!("/proc/{}/root/dev/shm/filling", node.pid())).expect("there is room");
    let filled = std::iter::repeat_with(|| filling.write(&[0; 4096])).take_while(Result::is_ok).count();
    assert!((15_000..16_384).contains(&filled), "{filled} pages of 64 MiB");
    drop(filling);
    publishes(&mut node);
    let error = node.fails(open_and_leave("other", 1));
    assert!(error.contains("No space left") && error.contains("free some space"), "{error}");

    let limit = Rlimit { current: Some(4 << 20), maximum: None };
    prlimit(Pid::from_raw(node.pid() as i32), Resource::Fsize, limit).expect("the puppet lives");
    publishes(&mut node);
    let error = node.fails(loan("t", 10 * MIB));
    assert!(error.contains("10485760 bytes") && error.contains("File too large"), "{error}");
    let undelivered = node.does(publish("t", "x".repeat(10 * MIB))).undelivered;
    assert!(undelivered.len() == 1 && undelivered[0].contains("10485760 bytes"), "{undelivered:?}");
    publishes(&mut node);
    node.exits();
}

/// What a process has of the system: mappings of memories, descriptors, and resident memory in KiB.
fn cost(pid: u32) -> (usize, usize, usize) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process lives");
    let resident =
        read("status").lines().find_map(|line| Some(line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse()));
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count();
    (read("maps").matches("memfd:librpc").count(), descriptors, resident.expect("it is listed").expect("a number"))
}

/// `RESTARTS=10000 cargo test -p librpc-system-tests --test memory started_again` takes some minutes.
#[test]
fn a_publisher_that_is_killed_and_started_again_and_again_costs_its_receiver_nothing() {
    let restarts = std::env::var("RESTARTS").map_or(60, |restarts| restarts.parse().expect("a number"));
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does(subscribe("s", "t"));
    let payload = "x".repeat(100_000);
    let mut before = (0, 0, 0);
    for number in 0..restarts {
        let mut source = domain.node("source");
        assert_eq!(source.does(publish("t", payload.clone())), reached(1));
        source.kill();
        assert_eq!(sink.does(receive_from("s")).text.len(), payload.len(), "round {number}");
        if number == 20 {
            before = cost(sink.pid());
        }
    }
    wait_until(|| {
        let now = cost(sink.pid());
        now.0 <= before.0 && now.1 <= before.1 && now.2 <= before.2 + 2048
    });
}
