//! What the library logs through `tracing`: each span and event has a target and a level that docs/log-targets.md lists, and
//! there is none for a message.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use librpc_system_tests::orders::{connect, receive_numbers};
use librpc_system_tests::{Puppets, TestDomain};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// What was logged: `LEVEL target span>span: message field=value ...`.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let name = field.name();
        let written =
            if name == "message" { write!(self.0, " {value:?}") } else { write!(self.0, " {name}={value:?}") };
        written.expect("text");
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Said {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let spans = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let spans: Vec<&str> = spans.map(|span| span.name()).collect();
        let metadata = event.metadata();
        let mut text = Text(format!("{} {} {}:", metadata.level(), metadata.target(), spans.join(">")));
        event.record(&mut text);
        if metadata.target().starts_with("librpc") {
            self.0.lock().expect("no panic under this lock").push(text.0);
        }
    }
}

impl Said {
    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic under this lock").clone()
    }

    /// Waits for a line that begins like this and contains all of these words.
    fn awaits(&self, begins: &str, contains: &[&str]) {
        self.comes(begins, contains, std::thread::yield_now);
    }

    /// Does something again and again until there is a line that begins like this and contains all of these words.
    fn comes(&self, begins: &str, contains: &[&str], mut does: impl FnMut()) {
        let begun = Instant::now();
        let is_it = |line: &String| line.starts_with(begins) && contains.iter().all(|word| line.contains(word));
        while !self.all().iter().any(is_it) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{begins} {contains:?} in {:#?}", self.all());
            does();
        }
    }
}

#[test]
fn joins_connections_refusals_deaths_sweeps_and_redelivery_are_logged_and_messages_are_not() {
    let said = Said::default();
    // For all threads of the process, because the library has one of its own.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(said.clone())).expect("the only one");
    let domain = TestDomain::new();
    let open = |id: &str| librpc::Node::builder(id).domain(domain.domain());
    let source = open("source").open().expect("it opens");
    said.awaits("INFO librpc::node join: a node has joined", &["node=\"source\"", "incarnation="]);

    let mut sink = domain.receiver("sink");
    let mut sender = source.connect("sink").expect("it is there");
    sender.set_redelivery(Some(Duration::from_secs(60)));
    said.awaits("DEBUG librpc::link::outgoing connect: connected", &["from=\"source\"", "to=\"sink\""]);

    let before = said.all();
    for thousand in 0..10 {
        let (first, last) = (thousand * 1000 + 1, thousand * 1000 + 1000);
        (first..=last).for_each(|number| sender.send(number.to_string().as_bytes()).expect("there is room"));
        sink.does(receive_numbers(first..=last));
    }
    assert_eq!(said.all(), before, "nothing is logged for a message");

    // The last message is in work: it was handed out, and is not acknowledged yet.
    sender.send(b"10001").expect("there is room");
    sink.kill();
    said.awaits("DEBUG librpc::link : a receiver has hung up", &["node=\"sink\""]);
    let waits = "INFO librpc::send::redelivery redeliver: a receiver is gone: its return is waited for";
    said.comes(waits, &["node=\"sink\"", "limit=60s"], || drop(sender.flush(Duration::from_millis(1))));
    let kept = "INFO librpc::send::redelivery redeliver: what a receiver that is gone has not processed is kept";
    said.comes(kept, &["kept=2", "in_work=1"], || drop(sender.flush(Duration::from_millis(1))));
    let mut sink = domain.receiver("sink");
    let received = sink.begins(receive_numbers(10_000..=10_001));
    let through = "INFO librpc::send::redelivery redeliver: everything that was kept is redelivered";
    said.comes(through, &["messages=2", "in_work=1"], || drop(sender.flush(Duration::from_millis(1))));
    said.awaits("DEBUG librpc::send::redelivery redeliver: a receiver is back", &["messages=2"]);
    sink.completes(received);

    sender.set_redelivery(Some(Duration::ZERO));
    sink.kill();
    sender.flush(Duration::from_secs(20)).expect_err("nobody is there");
    let over = "WARN librpc::send::redelivery redeliver: the wait for a receiver is over";
    said.awaits(over, &["undelivered=1", "redelivered=0"]);

    let mut inbox = source.inbox().expect("it opens");
    let mut dies = domain.node("dies");
    dies.does(connect("source"));
    let mut receive = || {
        let _ = inbox.recv_timeout(Duration::from_millis(1)).expect("it lives");
    };
    said.comes("DEBUG librpc::receive::receiver::connections : a sender has joined", &["peer=\"dies\""], &mut receive);
    dies.kill();
    said.comes("INFO librpc::receive::receiver::connections : a sender has died", &["peer=\"dies\""], &mut receive);
    said.awaits("INFO librpc::registry::sweep sweep: what a dead node has left is swept", &["node=\"dies\""]);

    let shy = open("shy").admit(librpc::Admission::nobody()).open().expect("it opens");
    let shy_inbox = shy.inbox().expect("it opens");
    let refused = source.try_connect("shy"); // which fails at once, or later
    said.awaits(
        "INFO librpc::rendezvous::incoming accept: a connection is refused",
        &["reason=NotAdmitted", "does not admit"],
    );
    drop((refused, shy_inbox, shy));
    said.awaits("INFO librpc::node_shared leave: a node has left", &["node=\"shy\""]);

    // Once for each decision, at both ends.
    let door = open("door").readers("secret", librpc::Admission::nobody()).open().expect("it opens");
    let subscriber = source.subscribe("secret").expect("it opens");
    let mut publisher = door.publisher("secret").expect("a topic");
    for _ in 0..3 {
        assert_eq!(publisher.publish(b"code").expect("it goes").inboxes(), 0);
    }
    let denied = "INFO librpc::send::notice : a subscription is denied a topic";
    said.awaits(denied, &["node=\"source\"", "may not be read by uid"]);
    let told = "INFO librpc::rendezvous::incoming accept: a subscription is denied a topic";
    said.awaits(told, &["by=\"door\"", "topic=\"secret\""]);
    assert_eq!(said.all().iter().filter(|line| line.contains("is denied a topic")).count(), 2);
    drop((subscriber, publisher, door, inbox, sender, source));
}

/// The files of the library.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("it is there").flatten() {
        match entry.path() {
            path if path.is_dir() => sources(&path, files),
            path => files.push(path),
        }
    }
}

/// `librpc::node info` for each line of the table, and for each place that logs something.
#[test]
fn the_document_lists_every_target_with_its_levels() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let source = root.join("crates/librpc/src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let mut said = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("text");
        let module = file.strip_prefix(&source).expect("below it").with_extension("");
        let module = module.display().to_string().replace('/', "::");
        let module = module.strip_suffix("::mod").unwrap_or(&module);
        for call in text.split("tracing::").skip(1) {
            let level = call.split(['!', '(', ')', ' ', ';']).next().expect("a word");
            if let "error" | "warn" | "info" | "debug" | "trace" = level {
                said.insert(format!("librpc::{module} {level}"));
            }
        }
    }
    let document = std::fs::read_to_string(root.join("docs/log-targets.md")).expect("text");
    let (_, table) = document.split_once("## Events").expect("a chapter");
    let (table, _) = table.split_once("\n## Spans").expect("the spans after it");
    let (mut named, mut target) = (BTreeSet::new(), "");
    for line in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let &[_, first, levels, ..] = &cells[..] else { continue };
        if first.starts_with('`') {
            target = first.trim_matches('`');
        }
        if target.is_empty() {
            continue;
        }
        named.extend(levels.split(", ").map(|level| format!("{target} {level}")));
    }
    let missing: Vec<_> = said.difference(&named).collect();
    let untrue: Vec<_> = named.difference(&said).collect();
    assert!(missing.is_empty() && untrue.is_empty(), "not in the table: {missing:?}; not in the sources: {untrue:?}");
}
