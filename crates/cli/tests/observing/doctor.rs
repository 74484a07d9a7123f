//! `librpc doctor`: what it finds wrong with the machine and the domain.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Place, place, until};
use crate::{find, lines, skip, stops};

#[test]
fn a_full_file_system_fails_the_doctor() {
    let place = place("full");
    let at = format!("{}.mount", place.path().display());
    std::fs::create_dir(&at).expect("a directory to mount on");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none", &at]).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        std::fs::remove_dir(&at).expect("it is empty");
        return skip("mounting needs root");
    }
    let doctor = |domain: &str| {
        let librpc = Command::new(env!("CARGO_BIN_EXE_librpc")).args(["doctor", "--json", "--domain", domain]).output();
        let ended = librpc.expect("it runs");
        let text = String::from_utf8(ended.stdout).expect("text");
        let checks: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (ended.status.code(), find(&checks, "check", "shm").clone())
    };
    let domain = format!("{at}/domain");
    let (code, before) = doctor(&domain);
    let run = |arguments: &[&str]| {
        let ended = Command::new(env!("CARGO_BIN_EXE_librpc")).args(arguments).args(["--domain", &domain]).output();
        let ended = ended.expect("it runs");
        (ended.status.code(), String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned())
    };
    let node = librpc::Node::builder("inside").domain(librpc::Domain::at(&domain)).open().expect("there is room");
    let inbox = node.inbox().expect("there is room");
    let mut filling = std::fs::File::create(format!("{at}/filling")).expect("there is room");
    while filling.write(&[0; 4096]).is_ok() {}
    let (full_code, full) = doctor(&domain);
    // Looking needs no space. Joining does.
    let looks = [&["nodes"][..], &["top", "--once"], &["stat"]].map(run);
    let (joins, why) = run(&["recv", "late"]);
    drop((inbox, node, filling));
    // Between its fork and its exec, a process that another test starts has a copy of what was open here.
    until(|| Command::new("umount").arg(&at).output().expect("umount runs").status.success());
    std::fs::remove_dir(&at).expect("it is empty");
    assert_eq!((code, &before["verdict"]), (Some(0), &"PASS".into()));
    assert_eq!((full_code, &full["verdict"]), (Some(1), &"FAIL".into()));
    let [nodes, top, stat] = looks;
    assert!(nodes.0 == Some(0) && nodes.1.contains("inside") && nodes.1.contains("alive"), "{nodes:?}");
    assert!(top.0 == Some(0) && top.1.starts_with("1 node, 1 inbox,"), "{top:?}");
    assert_eq!(stat, (Some(0), String::new()));
    assert!(joins == Some(1) && why.contains("free some space on that tmpfs"), "{joins:?} {why}");
    assert!(full["todo"].as_str().expect("what to do").contains("remount"), "{full}");
}

#[test]
fn another_users_domain_is_named_as_such() {
    if !rustix::process::geteuid().is_root() {
        return skip("taking another uid needs root");
    }
    let place = place("others");
    let sink = place.receiver("sink", &[]);
    let as_other = |arguments: &[&str]| {
        let ended = place.librpc(arguments).uid(12_345).gid(12_345).output().expect("it runs");
        (ended.status.code(), String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned())
    };
    let (code, text) = as_other(&["doctor"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("FAIL  domain") && text.contains("another user's; this is uid 12345"), "{text}");
    assert!(text.contains("share one by group"), "{text}");
    for command in [&["nodes"][..], &["stat"], &["top", "--once"]] {
        let (code, text) = as_other(command);
        assert_eq!(code, Some(1), "{command:?}");
        assert!(text.contains("Permission denied"), "{command:?}: {text}");
    }
    stops(sink);
}

#[test]
fn the_doctor_says_what_the_kernel_has() {
    let place = place("kernel");
    let kernel = librpc::Kernel::probe();
    let doctor = lines(&place, &["doctor", "--json"]);
    for (check, has) in [
        ("membarrier", kernel.has_barriers),
        ("so-passrights", kernel.refuses_descriptors),
        ("noexec-seal", kernel.seals_execution),
    ] {
        let found = find(&doctor, "check", check)["found"].as_str().expect("text");
        assert_eq!(found.starts_with("used: "), has, "{check}: {found}");
    }
}

#[test]
fn the_doctor_finds_other_versions() {
    use std::os::unix::fs::OpenOptionsExt;
    let place = place("versions");
    let sink = place.receiver("sink", &[]);
    let mut bytes = std::fs::read(place.path().join("sink.node")).expect("it is there");
    bytes[8] = 1; // the layout's version
    let foreign = place.path().join("foreign.node");
    let made = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&foreign);
    made.and_then(|mut file| file.write_all(&bytes)).expect("there is room");
    let doctor = lines(&place, &["doctor", "--json"]);
    let layouts = find(&doctor, "check", "layouts");
    let found = layouts["found"].as_str().expect("text");
    assert_eq!(layouts["verdict"], "WARN");
    assert!(found.contains("foreign.node: it has layout version 1; this librpc speaks version 2"), "{found}");
    assert!(layouts["todo"].as_str().is_some_and(|todo| todo.contains("one version of librpc")), "{layouts}");
    assert_eq!(place.nodes().len(), 1, "nobody sees it");
    let top = place.run(&["top", "--once"], b"");
    assert!(top.stdout().starts_with("1 node, 1 inbox,"), "{}", top.stdout());
    std::fs::remove_file(foreign).expect("it is there");
    // The domain itself is of another version.
    let own = std::fs::OpenOptions::new().write(true).open(place.path().join("generation")).expect("it is there");
    let set = |version: u8| std::os::unix::fs::FileExt::write_all_at(&own, &[version], 8).expect("it is ours");
    set(7);
    let doctor = place.run(&["doctor", "--json"], b"");
    let joins = place.run(&["recv", "late"], b"");
    set(2);
    let doctor: Vec<Value> = doctor.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let layouts = find(&doctor, "check", "layouts");
    assert!(layouts["found"].as_str().is_some_and(|found| found.contains("generation: it has layout version 7")));
    assert_eq!(layouts["verdict"], "FAIL");
    assert!(joins.code == 1 && joins.stderr.contains("layout version 7"), "{joins:?}");
    stops(sink);
}

#[test]
fn the_doctor_finds_other_namespaces() {
    let place = place("namespaces");
    let sink = place.receiver("sink", &[]);
    let costs = [
        ("--pid", "in another pid namespace", "--pid=host"),
        ("--time", "in another time namespace", "share what is needed"),
    ];
    for (namespace, found, todo) in costs {
        let Some(inside) = place.start_unshared(&[namespace], &["recv", "inside"]) else {
            stops(sink);
            return skip("namespaces need root");
        };
        place.await_node("inside");
        let doctor = lines(&place, &["doctor", "--json"]);
        let containers = find(&doctor, "check", "containers");
        assert_eq!(containers["verdict"], "WARN", "{containers}");
        assert!(containers["found"].as_str().is_some_and(|text| text.contains(found)), "{containers}");
        assert!(containers["todo"].as_str().is_some_and(|text| text.contains(todo)), "{containers}");
        // It works anyway.
        assert_eq!(place.run(&["send", "inside"], b"hello\n").code, 0, "{namespace}");
        inside.signal(Signal::TERM);
        assert_eq!(inside.ends().code, 0, "{namespace}");
        until(|| place.nodes().len() == 1);
    }
    // Another mount namespace that shares /dev/shm does not matter. One with a /dev/shm of its own is another domain.
    let inside = place.start_unshared(&["--mount"], &["recv", "inside"]).expect("as above");
    place.await_node("inside");
    let doctor = lines(&place, &["doctor", "--json"]);
    let containers = find(&doctor, "check", "containers");
    assert_eq!(containers["verdict"], "PASS", "{containers}");
    assert!(containers["found"].as_str().is_some_and(|text| text.contains("in another mount namespace")));
    assert_eq!(find(&doctor, "check", "elsewhere")["verdict"], "PASS");
    inside.signal(Signal::TERM);
    assert_eq!(inside.ends().code, 0);
    until(|| place.nodes().len() == 1);
    let script = "mount -t tmpfs none /dev/shm && exec \"$@\"";
    let librpc = place.librpc(&["recv", "apart"]);
    let mut apart = Command::new("unshare");
    apart.args(["--mount", "--propagation=private", "sh", "-c", script, "sh"]).arg(librpc.get_program());
    let mut apart =
        apart.args(librpc.get_args()).stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
    let elsewhere = || find(&lines(&place, &["doctor", "--json"]), "check", "elsewhere").clone();
    until(|| elsewhere()["verdict"] == "WARN");
    let found = elsewhere();
    assert!(found["found"].as_str().is_some_and(|text| text.contains(&format!("pid {}", apart.id()))), "{found}");
    assert!(found["todo"].as_str().is_some_and(|text| text.contains("--ipc=host")), "{found}");
    assert_eq!(place.nodes().len(), 1, "a node elsewhere is not listed here");
    rustix::process::kill_process(rustix::process::Pid::from_child(&apart), Signal::TERM).expect("it runs");
    assert_eq!(apart.wait().expect("it ends").code(), Some(0));
    stops(sink);
}

#[test]
fn the_doctor_finds_members_of_a_domain_that_was_removed() {
    let place = place("removed");
    let sink = place.receiver("sink", &[]);
    std::fs::remove_dir_all(place.path()).expect("it is there");
    let removed = lines(&place, &["doctor", "--json"]);
    let removed = find(&removed, "check", "elsewhere");
    assert_eq!(removed["verdict"], "WARN");
    let pid = format!("pid {} ", sink.pid());
    assert!(
        removed["found"].as_str().is_some_and(|text| text.contains(&pid) && text.contains("was removed")),
        "{removed}"
    );
    stops(sink);
}

/// What the doctor says in a mount namespace that a script prepares; `None`: that is not allowed.
fn doctor_after(place: &Place, script: &str) -> Option<(i32, Vec<Value>)> {
    let can = Command::new("unshare").args(["--mount", "true"]).output();
    can.ok().filter(|ended| ended.status.success())?;
    let script = format!("unshare --mount --propagation=private sh -c '{script} && exec \"$@\"' sh \"$@\"");
    let ended = place.start_in_shell(&script, &["doctor", "--json"]).ends();
    let checks = ended.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    Some((ended.code, checks))
}

#[test]
fn the_doctor_fails_where_shared_memory_is_read_only_or_missing() {
    let place = place("no_shm");
    let read_only = "mount -t tmpfs none /dev/shm && mount -o remount,ro /dev/shm";
    let read_only_by_bind = "mount --bind /dev/shm /dev/shm && mount -o remount,bind,ro /dev/shm";
    let missing = "mount -t tmpfs none /dev"; // /dev is on tmpfs itself
    let cases =
        [(read_only, "read-only"), (read_only_by_bind, "read-only"), (missing, "/dev/shm: No such file or directory")];
    for (script, why) in cases {
        let Some((code, checks)) = doctor_after(&place, script) else { return skip("mounting needs root") };
        let shm = find(&checks, "check", "shm");
        assert_eq!((code, &shm["verdict"]), (1, &"FAIL".into()), "{script}: {checks:?}");
        assert!(shm["found"].as_str().is_some_and(|found| found.contains(why)), "{script}: {shm}");
        assert!(shm["todo"].as_str().is_some_and(|todo| todo.contains("mount")), "{script}: {shm}");
    }
    let (code, checks) = doctor_after(&place, "true").expect("as above");
    assert_eq!((code, &find(&checks, "check", "creation")["verdict"]), (0, &"PASS".into()), "{checks:?}");
}

#[test]
fn the_doctor_fails_where_no_file_can_be_created() {
    if !rustix::process::geteuid().is_root() {
        return skip("taking another uid needs root");
    }
    let place = place("unwritable");
    std::fs::create_dir(place.path()).expect("there is room");
    let domain = place.path().join("domain");
    let doctor = |uid: u32| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_librpc"));
        let ended = command.args(["doctor", "--json", "--domain"]).arg(&domain).uid(uid).gid(uid).output();
        let ended = ended.expect("it runs");
        let text = String::from_utf8(ended.stdout).expect("text");
        let checks: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (ended.status.code(), find(&checks, "check", "creation").clone())
    };
    let (own, other) = (doctor(0), doctor(12_345));
    std::fs::remove_dir(place.path()).expect("it is empty: the doctor creates nothing");
    assert_eq!((own.0, &own.1["verdict"]), (Some(0), &"PASS".into()), "{own:?}");
    assert_eq!((other.0, &other.1["verdict"]), (Some(1), &"FAIL".into()), "{other:?}");
    assert!(other.1["found"].as_str().is_some_and(|found| found.contains("Permission denied")), "{other:?}");
}

#[test]
fn the_doctor_fails_where_a_file_may_not_be_as_large_as_a_ring() {
    let place = place("file_size");
    for (blocks, verdict, code) in
        [("0", "FAIL", 1), ("64", "FAIL", 1), ("100000", "WARN", 0), ("unlimited", "PASS", 0)]
    {
        let ended = place.start_in_shell(&format!("ulimit -f {blocks}; exec \"$@\""), &["doctor", "--json"]).ends();
        let checks: Vec<Value> = ended.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((&find(&checks, "check", "file-size")["verdict"], ended.code), (&verdict.into(), code), "{blocks}");
    }
}

#[test]
fn few_descriptors_make_no_healthy_node_look_broken() {
    let place = place("descriptors");
    let domain = librpc::Domain::at(place.path());
    let open = |number| librpc::Node::builder(&format!("node-{number}")).domain(domain.clone()).open();
    let nodes: Vec<_> = (0..60).map(|number| open(number).expect("it opens")).collect();
    let doctor = place.start_in_shell("ulimit -n 24; exec \"$@\"", &["doctor", "--json"]).ends();
    let checks: Vec<Value> = doctor.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(find(&checks, "check", "nodes")["found"], "60 alive, 0 channels");
    for check in ["broken-nodes", "stalled-nodes", "versions"] {
        assert_eq!(find(&checks, "check", check)["verdict"], "PASS", "{check}: {checks:?}");
    }
    drop(nodes);
}
