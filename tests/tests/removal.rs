//! A running node's files are removed: one by one, all, or with the directory. The node notices that by itself although
//! it is idle, restores what is missing, and can be reached. Existing connections continue.

use std::fs::{remove_dir_all, remove_file};

use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppets, TestDomain, wait_until};

/// Removes a file of an idle node. Then other nodes find the node, and nothing is left when all are gone.
#[track_caller]
fn is_restored_after(remove: impl Fn(&TestDomain)) {
    let domain = TestDomain::new().without_cleaning();
    let mut sink = domain.receiver("sink");
    sink.does(subscribe("all", "**"));
    let mut source = domain.node("source");
    source.does(connect("sink"));
    for round in 0..3 {
        remove(&domain);
        source.does(send("sink", "what is connected goes on"));
        assert_eq!(sink.does(receive()).text, "what is connected goes on");
        // The sink is idle, so only it can make itself look.
        wait_until(|| {
            let nodes = domain.domain().nodes().unwrap_or_default();
            let is_listed = nodes.iter().any(|node| node.id == "sink" && node.alive);
            is_listed && has_socket(&domain) && domain.path().join("generation").exists()
        });
        let mut newcomer = domain.node(&format!("newcomer{round}"));
        newcomer.does(connect_within("sink", LONG));
        newcomer.does(send("sink", "hello"));
        assert_eq!(sink.does(receive()).text, "hello");
        assert_eq!(newcomer.does(publish("topic", "hello")).inboxes, 1);
        assert_eq!(sink.does(receive_from("all")).text, "hello");
        newcomer.exits();
    }
    source.exits();
    sink.exits();
    domain.assert_gone();
}

/// Whether the socket that the sink's file names now is there.
fn has_socket(domain: &TestDomain) -> bool {
    domain.path().join("sink.node").exists() && domain.socket_of("sink").exists()
}

#[test]
fn a_node_restores_its_socket() {
    is_restored_after(|domain| remove_file(domain.socket_of("sink")).unwrap());
}

#[test]
fn a_node_restores_a_socket_that_was_replaced() {
    is_restored_after(|domain| {
        let socket = domain.socket_of("sink");
        remove_file(&socket).unwrap();
        while std::fs::OpenOptions::new().write(true).create_new(true).open(&socket).is_err() {
            let _ = remove_file(&socket); // the node was faster
        }
    });
}

#[test]
fn a_node_restores_its_file() {
    is_restored_after(|domain| remove_file(domain.path().join("sink.node")).unwrap());
}

#[test]
fn a_node_restores_the_change_counter() {
    is_restored_after(|domain| remove_file(domain.path().join("generation")).unwrap());
}

#[test]
fn a_node_restores_all_files_of_a_directory_that_stays() {
    is_restored_after(|domain| {
        for name in domain.entries() {
            let _ = remove_file(domain.path().join(name)); // its owner may be faster
        }
    });
}

#[test]
fn a_node_restores_its_directory() {
    is_restored_after(|domain| while remove_dir_all(domain.path()).is_err() {});
}
