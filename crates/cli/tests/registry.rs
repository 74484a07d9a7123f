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
fn a_dry_run_shows_what_clean_removes() {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let place = place("dry_run");
    let path = place.path();
    let run = |arguments: &[&str]| {
        let ended = place.run(arguments, b"");
        (ended.code, ended.stdout().replace("would remove", "removed"), ended.stderr)
    };
    let both = || {
        let looked = run(&["clean", "--dry-run"]);
        assert!(path.exists());
        assert_eq!(looked, run(&["clean"]), "what it shows is what goes");
        looked
    };
    let nothing = (0, String::new(), String::new());
    std::fs::DirBuilder::new().mode(0o700).create(path).expect("there is room");
    // A directory that is not librpc's, or not only.
    std::fs::write(path.join("mine"), b"").expect("there is room");
    assert_eq!(both(), nothing);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let refused = both();
    assert!(refused.0 == 1 && refused.2.contains("has mode 755"), "{refused:?}");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
    // Somebody has removed the change counter.
    let dead = place.receiver("dead", &[]);
    dead.signal(Signal::KILL);
    dead.ends();
    std::fs::remove_file(path.join("generation")).expect("it is there");
    assert_eq!(both(), (0, "removed node dead\n".to_owned(), String::new()));
    std::fs::remove_file(path.join("mine")).expect("it is there");
    assert_eq!(both().1, format!("removed domain {}\n", path.display()));
    assert!(!path.exists());
}

#[test]
fn the_root_of_a_user_namespace_takes_no_domain_of_the_machines_root() {
    use std::os::unix::fs::DirBuilderExt;
    use std::os::unix::process::CommandExt;
    let root = rustix::process::geteuid().is_root();
    let uid = if root { 12_345 } else { rustix::process::geteuid().as_raw() };
    let name = format!("test-{}-namespace", std::process::id());
    let path = std::path::PathBuf::from(format!("/dev/shm/librpc_{uid}.{name}"));
    let inside = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", env!("CARGO_BIN_EXE_librpc")]).args(arguments);
        command.env_remove("LIBRPC_DOMAIN");
        if root {
            command.uid(uid).gid(uid);
        }
        command.output().expect("unshare runs")
    };
    if !inside(&["--version"]).status.success() {
        return testkit::skip("user namespaces are not allowed");
    }
    std::fs::DirBuilder::new().mode(0o700).create(&path).expect("there is room");
    if root {
        std::os::unix::fs::chown(&path, Some(uid), Some(uid)).expect("root may");
    }
    let [default, named, all] =
        [&["doctor"][..], &["doctor", "--domain", &name], &["clean", "--dry-run"]].map(|arguments| {
            let output = inside(arguments);
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        });
    std::fs::remove_dir(&path).expect("it is empty");
    let shown = path.display();
    assert!([' ', ':'].iter().any(|next| default.contains(&format!("/dev/shm/librpc_{uid}{next}"))), "{default}");
    assert!(named.contains(&format!("{shown}: uid 0,")), "{named}");
    assert!(all.contains(&format!("would remove domain {shown}\n")), "{all}");
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
