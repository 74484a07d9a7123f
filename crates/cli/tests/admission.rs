//! Whom `recv` and `sub` admit.

mod common;

use common::place;

const LIBRPC: &str = env!("CARGO_BIN_EXE_librpc");

#[test]
fn rules_that_are_joined_must_all_match() {
    let place = place("joined_rules");
    let me = rustix::process::geteuid().as_raw();
    for (node, rule, is_admitted) in [
        ("both", format!("uid:{me}+exe:{LIBRPC}"), true),
        ("one", format!("uid:{me}+exe:/usr/bin/other"), false),
        ("other", format!("uid:{}+exe:{LIBRPC}", me + 1), false),
    ] {
        let receiver = place.start(&["recv", node, "--admit-only", &rule]);
        let sent = place.run(&["send", node], b"");
        assert_eq!(sent.code == 0, is_admitted, "{rule}: {}", sent.stderr);
        assert_eq!(sent.stderr.contains("does not admit"), !is_admitted, "{rule}: {}", sent.stderr);
        receiver.signal(rustix::process::Signal::TERM);
        receiver.ends();
    }
}

#[test]
fn a_rule_besides_the_own_user_takes_nothing_from_it() {
    let place = place("admit_adds");
    let mut receiver = place.receiver("sink", &["--admit", "uid:4242+exe:/usr/bin/other", "--count", "1"]);
    assert_eq!(place.run(&["send", "sink"], b"hello\n").code, 0);
    assert_eq!(receiver.read_line(), "hello\n");
    assert_eq!(receiver.ends().code, 0);
}
