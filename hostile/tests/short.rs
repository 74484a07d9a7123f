//! The short form of the attacks: a million executions on each side of a ring, a hundred thousand messages, thousands of
//! handshakes, every live attack.

use std::process::Command;

#[track_caller]
fn passes(words: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_librpc-hostile"))
        .args(words)
        .output()
        .expect("the program is built with the tests");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn spoilt_rings_and_messages_are_refused() {
    for (target, executions) in [("receiver", "1000000"), ("sender", "1000000"), ("doors", "100000")] {
        passes(&["fuzz", target, "--executions", executions]);
    }
}

#[test]
fn a_live_attacker_disturbs_nobody() {
    passes(&["live", "--rounds", "25", "--seed", "5"]);
}

#[test]
fn an_attacker_that_lends_or_holds_large_payloads_disturbs_nobody() {
    for attack in ["lender", "holder"] {
        passes(&["live", "--rounds", "8", "--seed", "5", "--only", attack]);
    }
}

#[test]
fn a_client_or_a_server_that_lies_about_calls_disturbs_nobody() {
    for attack in ["caller", "server"] {
        passes(&["live", "--rounds", "12", "--seed", "5", "--only", attack]);
    }
}

#[test]
fn malformed_handshakes_end_and_leave_nothing() {
    passes(&["fuzz", "handshakes", "--executions", "3000", "--seed", "5"]);
}
