//! `librpc send --redeliver` survives the deaths of its receiver.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Child, Stdio};

use common::{place, until};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, kill_process};

const NUMBERS: u64 = 400_000;
const DEATHS: u64 = 20;

#[test]
fn every_number_arrives_in_order_although_the_receiver_is_killed_twenty_times() {
    let place = place("killed");
    let out: File = rustix::fs::memfd_create("out", MemfdFlags::CLOEXEC).expect("memory").into();
    let written = || out.metadata().expect("it is there").len();
    // All receivers write through one open file. Each begins where the last one was killed.
    let receiver = || -> Child {
        let mut command = place.librpc(&["recv", "sink"]);
        command.stdout(out.try_clone().expect("a descriptor")).stderr(Stdio::null()).spawn().expect("librpc starts")
    };
    let lines: String = (1..=NUMBERS).map(|number| format!("{number}\n")).collect();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| place.run(&["send", "sink", "--redeliver", "30s"], lines.as_bytes()));
        for _ in 0..DEATHS {
            let (mut receiver, before) = (receiver(), written());
            until(|| written() > before || sending.is_finished());
            receiver.kill().expect("it runs");
            receiver.wait().expect("it has ended");
        }
        let mut receiver = receiver();
        let sent = sending.join().expect("no panic");
        assert_eq!((sent.code, &*sent.stderr), (0, ""));
        kill_process(Pid::from_child(&receiver), Signal::TERM).expect("it runs");
        receiver.wait().expect("it has ended");
    });
    let mut bytes = vec![0; written() as usize];
    out.read_exact_at(&mut bytes, 0).expect("it was written");
    let (mut last, mut twice) = (0, 0);
    for line in std::str::from_utf8(&bytes).expect("numbers").lines() {
        match line.parse::<u64>().expect("a number") {
            number if number == last + 1 => last = number,
            number if number == last => twice += 1,
            number => panic!("{number} after {last}"),
        }
    }
    assert_eq!(last, NUMBERS);
    assert!(twice <= DEATHS, "{twice} came twice");
}
