//! The short form of the attacks: a million executions on each side of a ring, a hundred thousand messages, some thousand
//! handshakes, each live attack.

use std::process::Command;

#[track_caller]
fn passes(words: &[&str]) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_librpc-hostile")).args(words).output().expect("the program was built");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn spoilt_rings_and_messages() {
    for (target, executions) in [("receiver", "1000000"), ("sender", "1000000"), ("doors", "100000")] {
        passes(&["fuzz", target, "--executions", executions]);
    }
}

#[test]
fn a_live_attacker_is_not_felt() {
    passes(&["live", "--rounds", "25", "--seed", "5"]);
}

#[test]
fn spoilt_handshakes_end_and_leave_nothing() {
    passes(&["fuzz", "handshakes", "--executions", "3000", "--seed", "5"]);
}
