//! The registry: deaths at every step, planted directories and files, races of the first node and the last.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use librpc_system_tests::orders::*;
use librpc_system_tests::{Begun, Puppet, Puppets, TestDomain, is_root, skip};

#[test]
fn opening_an_id_that_is_in_use_reports_who_holds_it() {
    let domain = TestDomain::new();
    let first = domain.node("display");
    let mut second = domain.puppet();
    let error = second.fails(open("display"));
    let expected = format!(
        "node \"display\" is held by pid {} of uid {} (`librpc nodes` shows it)",
        first.pid(),
        rustix::process::geteuid().as_raw()
    );
    assert_eq!(error, expected);
    // A stopped process still holds it; a dead one does not.
    first.stop();
    assert_eq!(second.fails(open("display")), expected);
    let mut first = first;
    first.kill();
    second.does(open("display"));
}

#[test]
fn a_new_domain_is_private_and_its_files_are_too() {
    let domain = TestDomain::new();
    let _node = domain.receiver("display");
    let mode = |name: &str| std::fs::metadata(domain.path().join(name)).expect(name).permissions().mode() & 0o7777;
    assert_eq!(mode(""), 0o700);
    assert_eq!(domain.entries(), domain.entries_with(&["display"]));
    for name in domain.entries() {
        assert_eq!(mode(&name), 0o600, "{name}");
    }
}

#[test]
fn the_last_node_removes_the_domain_and_what_dead_nodes_left() {
    let domain = TestDomain::new();
    let mut killed: Vec<Puppet> = (0..3).map(|n| domain.receiver(&format!("killed-{n}"))).collect();
    let (first, last) = (domain.node("first"), domain.node("last"));
    killed.iter_mut().for_each(Puppet::kill);
    first.exits();
    assert!(domain.path().exists());
    last.exits();
    domain.assert_gone();
}

#[test]
fn a_planted_directory_is_refused() {
    let domain = TestDomain::new();
    let mut puppet = domain.puppet();
    std::fs::create_dir(domain.path()).unwrap();
    std::fs::set_permissions(domain.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = puppet.fails(open("display"));
    assert!(error.contains("has mode 777, not 700"), "{error}");
    std::fs::remove_dir(domain.path()).unwrap();

    let elsewhere = TestDomain::new();
    std::fs::create_dir(elsewhere.path()).unwrap();
    std::fs::set_permissions(elsewhere.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    symlink(elsewhere.path(), domain.path()).unwrap();
    let error = puppet.fails(open("display"));
    assert!(error.contains("is not a directory but a symbolic link of uid"), "{error}");
    assert!(elsewhere.entries().is_empty());
    std::fs::remove_file(domain.path()).unwrap();
}

#[test]
fn root_refuses_the_directory_of_another_user_too() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    std::fs::create_dir(domain.path()).unwrap();
    std::fs::set_permissions(domain.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(domain.path(), Some(54_321), None).unwrap();
    let error = domain.puppet().fails(open("node"));
    std::fs::remove_dir(domain.path()).unwrap();
    assert!(error.contains("belongs to uid 54321"), "{error}");
}

#[test]
fn a_domain_of_another_boot_is_refused() {
    use std::os::unix::fs::FileExt;
    let domain = TestDomain::new();
    let _keeper = domain.node("keeper");
    let generation = std::fs::File::options().read(true).write(true).open(domain.path().join("generation")).unwrap();
    let mut boot_id = [0; 16];
    generation.read_exact_at(&mut boot_id, 16).unwrap();
    generation.write_all_at(&[7; 16], 16).unwrap();
    let error = domain.puppet().fails(open("node"));
    generation.write_all_at(&boot_id, 16).unwrap();
    assert!(error.contains("before the machine was started"), "{error}");
    let _node = domain.node("node");
}

#[test]
fn a_domain_off_tmpfs_is_refused() {
    let target = std::env::current_exe().unwrap();
    let path = target.with_file_name(format!("not-tmpfs-{}", std::process::id()));
    let domain = TestDomain::at(&path);
    let on_tmpfs = rustix::fs::statfs(target.parent().unwrap()).unwrap().f_type as u64 == 0x0102_1994;
    if on_tmpfs {
        return skip("the target folder is on tmpfs");
    }
    let error = domain.puppet().fails(open("display"));
    assert!(error.contains("is not on tmpfs"), "{error}");
    assert!(!path.exists(), "a refused domain leaves nothing");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let error = domain.puppet().fails(open("display"));
    std::fs::remove_dir(&path).unwrap();
    assert!(error.contains("is not on tmpfs"), "{error}");
}

#[test]
fn garbage_in_the_directory_disturbs_nobody() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let path = |name: &str| domain.path().join(name);
    std::fs::write(path("empty.node"), b"").unwrap();
    std::fs::write(path("text.node"), [b'x'; 5000]).unwrap();
    std::fs::create_dir(path("directory.node")).unwrap();
    symlink("/etc/passwd", path("link.node")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("pipe.node"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let nodes: Vec<String> = domain.domain().nodes().unwrap().into_iter().map(|node| node.id).collect();
    assert_eq!(nodes, ["sink"]);
    let mut source = domain.node("source");
    source.does(connect("sink"));
    source.does(send("sink", "hello"));
    assert_eq!(sink.does(receive()).text, "hello");
    let error = source.fails(connect_within("pipe", ms(0)));
    assert!(error.contains("cannot connect to node"), "{error}");
    std::fs::remove_dir(path("directory.node")).unwrap();
    std::fs::remove_file(path("link.node")).unwrap();
    std::fs::remove_file(path("pipe.node")).unwrap();
}

#[test]
fn two_domains_never_see_each_other() {
    let (one, other) = (TestDomain::new(), TestDomain::new());
    let _sink = one.receiver("sink");
    let error = other.node("source").fails(connect_within("sink", ms(50)));
    assert_eq!(error, "node \"sink\" is not there (`librpc nodes` shows who is)");
}

#[test]
fn a_sender_waits_for_a_node_to_appear_and_to_open_its_inbox() {
    let domain = TestDomain::new();
    let mut source = domain.node("source");
    let connected = source.begins(connect_within("sink", LONG));
    let mut sink = domain.node("sink");
    sink.does(inbox());
    source.completes(connected);
    source.does(send("sink", "hello"));
    assert_eq!(sink.does(receive()).text, "hello");
    let _other = domain.node("other");
    assert_eq!(source.fails(connect_within("other", ms(50))), "node \"other\" has no inbox");
}

#[test]
fn observers_create_nothing() {
    let domain = TestDomain::new();
    assert!(domain.domain().nodes().unwrap().is_empty());
    assert!(domain.domain().clean().unwrap().is_empty());
    assert!(!domain.path().exists());
}

#[test]
fn a_dead_node_is_shown_as_dead_until_it_is_swept() {
    let domain = TestDomain::new();
    let _alive = domain.receiver("alive");
    let mut dead = domain.receiver("dead");
    dead.kill();
    let shown: Vec<_> = domain.domain().nodes().unwrap().into_iter().map(|node| (node.id, node.alive)).collect();
    assert_eq!(shown, [("alive".to_owned(), true), ("dead".to_owned(), false)]);
    assert_eq!(domain.domain().clean().unwrap(), ["dead"]);
    let shown = domain.domain().nodes().unwrap();
    assert_eq!((shown.len(), &*shown[0].id, &shown[0].inboxes[..]), (1, "alive", &["alive".to_owned()][..]));
}

/// Steps of joining and leaving. After a death at any of them the id can be opened again, and nothing is left.
const STEPS: &[&str] = &[
    "domain.made",
    "domain.generation-linked",
    "join.member",
    "join.locked",
    "join.linked",
    "join.bound",
    "join.listening",
    "join.announced",
    "join.served",
    "announce.written",
    "announce.selected",
    "leave.begun",
    "leave.socket-removed",
    "leave.file-removed",
    "last.locked",
    "last.swept",
    "last.generation-removed",
];

/// A puppet that joins, opens its inbox and leaves, as far as its planned fault lets it. Also returns its first order.
fn join_and_leave(domain: &TestDomain, fault: &str) -> (Puppet, Begun<()>) {
    let mut puppet = domain.doomed(fault);
    let opened = puppet.begins(open("display"));
    puppet.begins(inbox());
    puppet.begins(leave());
    (puppet, opened)
}

#[test]
fn a_death_at_any_step_of_joining_or_leaving_blocks_nobody() {
    for step in STEPS {
        let domain = TestDomain::new();
        join_and_leave(&domain, step).0.dies();
        let mut next = domain.puppet();
        next.does(open("display"));
        next.does(inbox());
        let mut source = domain.node("source");
        source.does(connect("display"));
        source.does(send("display", "hello"));
        assert_eq!(next.does(receive()).text, "hello", "{step}");
        source.exits();
        next.exits();
        domain.assert_gone();
    }
}

#[test]
fn a_death_at_any_step_of_joining_or_leaving_can_be_cleaned_up() {
    for step in STEPS {
        let domain = TestDomain::new();
        join_and_leave(&domain, step).0.dies();
        domain.assert_cleanable();
    }
}

#[test]
fn a_node_stopped_at_any_step_of_joining_or_leaving_delays_nobody() {
    for step in STEPS {
        let domain = TestDomain::new();
        let (stopped, _) = join_and_leave(&domain, &format!("{step}:stop"));
        stopped.wait_until_stopped();
        if ["last.locked", "last.swept"].contains(step) {
            // The one exception is a last member that is stopped while it removes the domain: others wait for 2 s.
            let error = domain.puppet().fails(open("other"));
            assert!(error.contains("has been closing for over 2 s"), "{step}: {error}");
        } else {
            let mut other = domain.receiver("other");
            let mut source = domain.node("source");
            source.does(connect("other"));
            source.does(send("other", "hello"));
            assert_eq!(other.does(receive()).text, "hello", "{step}");
        }
        stopped.go_on();
    }
}

#[test]
fn a_joiner_that_was_stopped_for_longer_than_it_waits_for_others_still_joins() {
    let domain = TestDomain::new();
    let (mut stopped, opened) = join_and_leave(&domain, "domain.made:stop");
    stopped.wait_until_stopped();
    domain.node("other").exits(); // removes the domain that the stopped process has made
    std::thread::sleep(ms(2100)); // no state to wait for: the limit of a stopped process has to pass
    stopped.go_on();
    stopped.completes(opened);
}

#[test]
fn what_a_death_while_sweeping_leaves_is_swept_next_time() {
    for step in ["sweep.locked", "sweep.socket-removed", "sweep.file-removed"] {
        let domain = TestDomain::new();
        let mut dead = domain.receiver("display");
        dead.kill();
        let mut doomed = domain.doomed(step);
        doomed.begins(open("display"));
        doomed.dies();
        let next = domain.receiver("display");
        next.exits();
        domain.assert_gone();
    }
}

#[test]
fn a_sweeper_that_was_stopped_removes_nothing_new() {
    let domain = TestDomain::new();
    let _keeper = domain.node("keeper");
    domain.node("dead").kill();
    let mut sweeper = domain.doomed("sweep.socket-removed:stop");
    let opened = sweeper.begins(open("sweeper"));
    sweeper.wait_until_stopped();
    // The file is removed by hand, and another process takes the id.
    std::fs::remove_file(domain.path().join("dead.node")).unwrap();
    let _new = domain.node("dead");
    sweeper.go_on();
    sweeper.completes(opened);
    assert!(domain.entries().contains(&"dead.node".to_owned()), "{:?}", domain.entries());
}

#[test]
fn eight_processes_that_open_and_close_nodes_never_make_two_registries() {
    let domain = TestDomain::new();
    let rounds = 1250; // 10,000 in all
    let mut puppets: Vec<Puppet> = (0..8).map(|_| domain.puppet()).collect();
    let begin = |(n, puppet): (usize, &mut Puppet)| puppet.begins(open_and_leave(&format!("node-{n}"), rounds));
    let begun: Vec<Begun<()>> = puppets.iter_mut().enumerate().map(begin).collect();
    for (puppet, begun) in puppets.iter_mut().zip(begun) {
        puppet.completes(begun);
    }
    domain.assert_gone();
}

#[test]
fn an_idle_domain_is_small() {
    let domain = TestDomain::new();
    let bytes = || -> u64 {
        let block = |name: String| std::fs::metadata(domain.path().join(name)).unwrap().blocks() * 512;
        domain.entries().into_iter().map(block).sum()
    };
    let _first = domain.receiver("first");
    let one = bytes();
    let _second = domain.receiver("second");
    assert!(one <= 64 * 1024 && bytes() - one <= 32 * 1024, "{one}, then {}", bytes());
}
