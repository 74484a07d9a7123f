//! `nodes`, `clean`, and the domains that they work in.

mod common;

use common::place;
use rustix::process::Signal;

#[test]
fn looking_for_a_domain_creates_none() {
    let place = place("none");
    for command in [&["nodes"][..], &["nodes", "--json"], &["clean"], &["clean", "--dry-run"]] {
        let ended = place.run(command, b"");
        assert_eq!((ended.code, ended.stdout(), &*ended.stderr), (0, "", ""), "{command:?}");
        assert!(!place.path().exists());
    }
}

#[test]
fn nodes_are_listed() {
    let place = place("listed");
    let receiver = place.receiver("sink", &[]);
    let sender = place.start(&["send", "sink", "--id", "source"]);
    place.await_node("source");
    let nodes = place.nodes();
    let ids: Vec<_> = nodes.iter().map(|node| node["id"].as_str().expect("text")).collect();
    assert_eq!(ids, ["sink", "source"]);
    assert_eq!((&nodes[0]["alive"], &nodes[0]["inboxes"]), (&true.into(), &vec!["sink"].into()));
    assert_eq!((&nodes[1]["alive"], &nodes[1]["inboxes"]), (&true.into(), &Vec::<String>::new().into()));
    for node in &nodes {
        assert!(node["pid"].is_u64() && node["opened_unix_s"].is_u64());
        assert_eq!(node["uid"], rustix::process::geteuid().as_raw());
        assert_eq!(node["incarnation"].as_str().expect("text").len(), 32);
    }
    let table = place.run(&["nodes"], b"");
    assert_eq!(table.stdout().lines().count(), 3);
    assert_eq!(sender.ends().code, 0);
    receiver.signal(Signal::TERM);
    assert_eq!(receiver.ends().code, 0);
}

#[test]
fn a_killed_node_is_shown_as_dead_and_then_removed() {
    let place = place("dead");
    let receiver = place.receiver("sink", &[]);
    receiver.signal(Signal::KILL);
    assert_eq!(receiver.ends().code, 137);
    let nodes = place.nodes();
    assert_eq!((nodes.len(), &nodes[0]["id"], &nodes[0]["alive"]), (1, &"sink".into(), &false.into()));
    let path = place.path().display();
    let looked = place.run(&["clean", "--dry-run"], b"");
    assert_eq!((looked.code, looked.stdout()), (0, &*format!("would remove node sink\nwould remove domain {path}\n")));
    assert_eq!(place.nodes().len(), 1);
    let cleaned = place.run(&["clean"], b"");
    assert_eq!((cleaned.code, cleaned.stdout()), (0, &*format!("removed node sink\nremoved domain {path}\n")));
}

#[test]
fn the_next_start_removes_what_a_killed_node_left() {
    let place = place("next");
    let receiver = place.receiver("sink", &[]);
    receiver.signal(Signal::KILL);
    receiver.ends();
    let receiver = place.receiver("sink", &["--count", "1"]);
    assert_eq!(place.nodes().len(), 1);
    assert_eq!(place.run(&["send", "sink"], b"again").code, 0);
    assert_eq!(receiver.ends().stdout(), "again\n");
}

#[test]
fn clean_leaves_the_living_alone() {
    let place = place("living");
    let receiver = place.receiver("sink", &["--count", "1"]);
    let dead = place.receiver("dead", &[]);
    dead.signal(Signal::KILL);
    dead.ends();
    let cleaned = place.run(&["clean", "--json"], b"");
    assert_eq!(cleaned.stdout(), "{\"nodes\":[\"dead\"],\"domain\":null,\"dry_run\":false}\n");
    assert_eq!(place.run(&["send", "sink"], b"still here").code, 0);
    assert_eq!(receiver.ends().stdout(), "still here\n");
}

#[test]
fn two_domains_never_see_each_other() {
    let (here, there) = (place("here"), place("there"));
    let receiver = here.receiver("sink", &["--count", "1"]);
    assert_eq!(there.run(&["send", "sink", "--wait", "50ms"], b"lost").code, 124);
    let same_id = there.receiver("sink", &["--count", "1"]);
    assert_eq!(here.run(&["send", "sink"], b"here").code, 0);
    assert_eq!(there.run(&["send", "sink"], b"there").code, 0);
    assert_eq!((receiver.ends().stdout(), same_id.ends().stdout()), ("here\n", "there\n"));
}

#[test]
fn the_domain_comes_from_the_command_line_or_the_environment() {
    let place = place("where");
    let receiver = place.receiver("sink", &["--count", "3"]);
    let librpc = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_librpc"));
        command.stdin(std::process::Stdio::null());
        command
    };
    let nodes = |command: &mut std::process::Command| {
        let output = command.output().expect("librpc starts");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8").lines().count())
    };
    let path = place.path();
    assert_eq!(nodes(librpc().args(["nodes", "--json", "--domain"]).arg(path)), (Some(0), 1));
    assert_eq!(nodes(librpc().arg("--domain").arg(path).args(["nodes", "--json"])), (Some(0), 1));
    assert_eq!(nodes(librpc().args(["nodes", "--json"]).env("LIBRPC_DOMAIN", path)), (Some(0), 1));
    let other = ["nodes", "--json", "--domain", "no-such-domain"];
    assert_eq!(nodes(librpc().args(other).env("LIBRPC_DOMAIN", path)), (Some(0), 0));
    assert_eq!(place.run(&["send", "sink"], b"1\n2\n3\n").code, 0);
    assert_eq!(receiver.ends().code, 0);
}

#[test]
fn an_empty_variable_names_no_domain_to_clean() {
    // A domain of this user under /dev/shm, as a killed benchmark leaves it.
    let name = format!("librpc_{}.test-{}-empty", rustix::process::geteuid().as_raw(), std::process::id());
    let path = std::path::Path::new("/dev/shm").join(name);
    let domain = librpc::Domain::at(&path);
    let kept = librpc::Node::builder("kept").domain(domain.clone()).open().expect("it opens");
    let clean = |variable: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_librpc"));
        command.args(["clean", "--dry-run", "--json"]).env_remove("LIBRPC_DOMAIN");
        command.envs(variable.map(|value| ("LIBRPC_DOMAIN", value)));
        let output = command.output().expect("librpc starts");
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).expect("UTF-8").lines().count()
    };
    // All domains of this user, which other tests may add to, and this one in any case.
    assert!(clean(None) >= 2 && clean(Some("")) >= 2, "without a name: every domain");
    assert_eq!(clean(Some("no-such-domain")), 1);
    drop(kept);
}

#[test]
fn a_symbolic_link_is_not_a_domain() {
    let (link_place, target) = (place("link"), place("link_target"));
    let place = link_place;
    let link = place.path();
    for exists in [false, true] {
        if exists {
            std::fs::create_dir(target.path()).expect("there is room");
        }
        std::os::unix::fs::symlink(target.path(), link).expect("there is room");
        let slash = format!("{}/", link.display());
        let at_slash = ["recv", "node", "--domain", &slash];
        for command in [&["recv", "node"][..], &["nodes"], &["stat"], &["clean"], &at_slash] {
            let mut librpc = std::process::Command::new(env!("CARGO_BIN_EXE_librpc"));
            librpc.env("LIBRPC_DOMAIN", link).args(command);
            let ended = common::Running::start(&mut librpc).ends();
            assert_eq!((ended.code, ended.stdout()), (1, ""), "{command:?}");
            assert!(ended.stderr.contains("is a symbolic link: name the directory"), "{command:?}: {}", ended.stderr);
        }
        let doctor = place.run(&["doctor"], b"");
        assert!(doctor.code == 1 && doctor.stdout().contains("is a symbolic link"), "{}", doctor.stdout());
        std::fs::remove_file(link).expect("it is there");
    }
    std::fs::remove_dir(target.path()).expect("it is empty");
}
