//! The counts between each pair of nodes. No counter falls while the node that counts it lives.
//!
//! Each number comes from the node that counts it: the sender counts sent messages, the receiver received ones. Its
//! counts on channels that have ended are included. A living node that does not answer keeps the counters of its last
//! answer. Before its first answer it is left out, because a counter of 0 would look like a reset. A node that does not
//! admit us never answers, so the counters of the other end are used.
//!
//! A look may miss a channel that ends while its node is read. So a counter is never shown lower than before while the
//! same incarnation reports it.

use std::collections::{BTreeMap, HashMap, HashSet};

use librpc::{
    Address, CallSide, CallStats, ChannelStats, EndedChannels, Histogram, Incarnation, NodeStats, Observed, Totals,
};

use crate::snapshot::{State, addresses};

/// The sending node, the receiving node, and the address there.
pub(super) type Labels = [(&'static str, String); 3];
/// An inbox, or all of the same address.
pub(super) type InboxLabels = [(&'static str, String); 2];

/// A node, its side, and the service.
pub(super) type CallLabels = [(&'static str, String); 3];

/// What one node has counted for a service.
#[derive(Clone, Debug)]
pub(super) struct ToldOfCalls {
    by: String,
    pub(super) stats: CallStats,
}

/// The escaped text of a label: prometheus-client does not escape it.
pub(super) fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What one node has counted.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// The incarnation of that node.
    by: String,
    /// The inboxes that are counted, unless all are.
    inboxes: Vec<u32>,
    pub(super) totals: Totals,
    pub(super) latency: Histogram,
}

impl Told {
    fn new(by: impl ToString) -> Self {
        Self { by: by.to_string(), inboxes: Vec::new(), totals: Totals::default(), latency: Histogram::default() }
    }

    fn add(&mut self, channel: &ChannelStats) {
        self.totals.add(channel);
        self.latency += &channel.latency;
    }

    /// Raises each counter to the value that was shown before.
    fn at_least(&mut self, before: &Self) {
        if (&self.by, &self.inboxes) != (&before.by, &before.inboxes) {
            return;
        }
        let (now, was) = (&mut self.totals, &before.totals);
        for (now, was) in [
            (&mut now.sent, was.sent),
            (&mut now.received, was.received),
            (&mut now.processed, was.processed),
            (&mut now.bytes_received, was.bytes_received),
            (&mut now.dropped, was.dropped),
            (&mut now.missed, was.missed),
            (&mut now.bytes_sent, was.bytes_sent),
            (&mut now.returned, was.returned),
        ] {
            *now = was.max(*now);
        }
        now.blocked = was.blocked.max(now.blocked);
        if self.latency.count() < before.latency.count() {
            self.latency = before.latency.clone();
        }
    }
}

/// The counters of a domain at one look.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// The counts of the senders, and those of the receivers.
    pub(super) sent: BTreeMap<Labels, Told>,
    pub(super) received: BTreeMap<Labels, Told>,
    /// The counts since the inbox was opened.
    pub(super) inboxes: BTreeMap<InboxLabels, Told>,
    /// What each node's clients, and servers, have counted for a service.
    pub(super) calls: BTreeMap<CallLabels, ToldOfCalls>,
}

/// The sending node, the receiving node, and the address there.
type Key = (String, String, String);

/// The reports of both ends about the same channels.
#[derive(Default)]
struct Words {
    by_sender: BTreeMap<Key, Told>,
    by_receiver: BTreeMap<Key, Told>,
}

impl Words {
    fn hear(&mut self, id: &str, stats: &NodeStats, listed: &HashMap<(Incarnation, u32), String>) {
        let by = stats.incarnation;
        let incoming = |peer: &str, address: &Address| (peer.to_owned(), id.to_owned(), text(id, address));
        let outgoing = |peer: &str, address: String| (id.to_owned(), peer.to_owned(), address);
        for inbox in &stats.inboxes {
            for channel in &inbox.channels {
                let key = incoming(&channel.peer, &inbox.address);
                self.by_receiver.entry(key).or_insert_with(|| Told::new(by)).add(channel);
            }
        }
        for channel in &stats.outgoing {
            let Some(address) = listed.get(&(channel.peer_incarnation, channel.inbox)) else { continue };
            let key = outgoing(&channel.peer, address.clone());
            self.by_sender.entry(key).or_insert_with(|| Told::new(by)).add(channel);
        }
        let add = |told: &mut Told, ended: &EndedChannels| {
            told.totals += ended.totals;
            told.latency += &ended.latency;
        };
        for ended in &stats.ended_incoming {
            let key = incoming(&ended.peer, &ended.address);
            add(self.by_receiver.entry(key).or_insert_with(|| Told::new(by)), ended);
        }
        for ended in &stats.ended_outgoing {
            let key = outgoing(&ended.peer, text(&ended.peer, &ended.address));
            add(self.by_sender.entry(key).or_insert_with(|| Told::new(by)), ended);
        }
    }
}

fn text(node: &str, address: &Address) -> String {
    addresses(node, address).join(" ")
}

impl Counters {
    /// The counts of these nodes, never less than before.
    pub(super) fn of(observed: &[Observed], before: &Self) -> Self {
        let states: HashMap<&str, State> =
            observed.iter().map(|observed| (&*observed.node.id, State::of(&observed.stats))).collect();
        let listed = observed.iter().flat_map(|Observed { node, .. }| {
            node.listed.iter().map(|inbox| ((node.incarnation, inbox.number), inbox.addresses.join(" ")))
        });
        let listed = listed.collect();
        let (mut words, mut counters) = (Words::default(), Self::default());
        for Observed { node, stats, .. } in observed {
            let Ok(stats) = stats else { continue };
            words.hear(&node.id, stats, &listed);
            for inbox in &stats.inboxes {
                let labels = [("node", label(&node.id)), ("address", label(&text(&node.id, &inbox.address)))];
                let told = counters.inboxes.entry(labels).or_insert_with(|| Told::new(node.incarnation));
                told.inboxes.push(inbox.number);
                told.totals += inbox.ended;
                inbox.channels.iter().for_each(|channel| told.add(channel));
            }
            for stats in &stats.calls {
                let side = if stats.side == CallSide::Server { "server" } else { "client" };
                let labels = [("node", label(&node.id)), ("service", label(&stats.service)), ("side", side.to_owned())];
                let told = ToldOfCalls { by: node.incarnation.to_string(), stats: stats.clone() };
                counters.calls.insert(labels, told);
            }
        }
        let state = |node: &str| states.get(node).copied();
        counters.sent = pick(&words.by_sender, &words.by_receiver, |(from, _, _)| state(from));
        counters.received = pick(&words.by_receiver, &words.by_sender, |(_, to, _)| state(to));
        let silent = |observed: &&Observed| State::of(&observed.stats) == State::Stalled;
        let silent = observed.iter().filter(silent).map(|observed| observed.node.incarnation.to_string()).collect();
        carry_on(&mut counters.sent, &before.sent, &silent);
        carry_on(&mut counters.received, &before.received, &silent);
        carry_on(&mut counters.inboxes, &before.inboxes, &silent);
        for (labels, before) in &before.calls {
            if silent.contains(&before.by) {
                counters.calls.entry(labels.clone()).or_insert_with(|| before.clone());
            }
        }
        counters
    }
}

/// The reports of the counting nodes if they answer, or of the other ends if they never do.
fn pick(
    own: &BTreeMap<Key, Told>,
    others: &BTreeMap<Key, Told>,
    state: impl Fn(&Key) -> Option<State>,
) -> BTreeMap<Labels, Told> {
    let own = own.iter().filter(|(key, _)| state(key) == Some(State::Alive));
    let others = others.iter().filter(|(key, _)| matches!(state(key), Some(State::Refused | State::Broken)));
    let labels = |(from, to, address): &Key| [("from", label(from)), ("to", label(to)), ("address", label(address))];
    own.chain(others).map(|(key, told)| (labels(key), told.clone())).collect()
}

/// No counter is shown lower than before, and the last reports of silent incarnations stay.
fn carry_on<L: Ord + Clone>(now: &mut BTreeMap<L, Told>, before: &BTreeMap<L, Told>, silent: &HashSet<String>) {
    for (labels, before) in before {
        match now.get_mut(labels) {
            Some(told) => told.at_least(before),
            None if silent.contains(&before.by) => _ = now.insert(labels.clone(), before.clone()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use librpc::{Domain, Node, ObserveError};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    struct Place(Domain);

    impl Place {
        fn new(test: &str) -> Self {
            Self(Domain::at(format!("/dev/shm/librpc_unit_{}_{test}", std::process::id())))
        }

        fn open(&self, id: &str) -> Node {
            Node::builder(id).domain(self.0.clone()).open().expect("it opens")
        }

        fn look(&self) -> Vec<Observed> {
            self.0.observe(LONG).expect("it can be looked at")
        }
    }

    /// How many messages are shown as sent, as received, and as received by the inbox. `None`: left out.
    fn shown(counters: &Counters) -> [Option<u64>; 3] {
        let [sent, received] = [&counters.sent, &counters.received].map(|told| told.values().next());
        let inbox = counters.inboxes.values().next();
        [
            sent.map(|told| told.totals.sent),
            received.map(|told| told.totals.received),
            inbox.map(|told| told.totals.received),
        ]
    }

    #[test]
    fn no_counter_falls_when_a_channel_ends() {
        let place = Place::new("channel_ends");
        let (sink, source) = (place.open("sink"), place.open("source"));
        let handle = sink.inbox_builder().callback(|_| {}).expect("it opens");
        let (mut first, mut second) =
            (source.connect("sink").expect("it is there"), source.connect("sink").expect("it is there"));
        for (sender, messages) in [(&mut first, 100), (&mut second, 50)] {
            (0..messages).for_each(|_| sender.send(b"hello").expect("it goes"));
            sender.flush(LONG).expect("it is processed");
        }
        let before = Counters::of(&place.look(), &Counters::default());
        assert_eq!(shown(&before), [Some(150); 3]);
        drop(first);
        let mut last = before;
        while sink.stats().inboxes[0].channels.len() > 1 {
            let now = Counters::of(&place.look(), &last);
            assert_eq!(shown(&now), [Some(150); 3], "while the sink has not noticed");
            last = now;
        }
        assert_eq!(shown(&Counters::of(&place.look(), &Counters::default())), [Some(150); 3], "exactly");
        drop(second);
        assert_eq!(shown(&Counters::of(&place.look(), &last)), [Some(150); 3]);
        handle.stop().expect("it ends");
    }

    #[test]
    fn the_counters_of_a_node_that_does_not_answer_stay_as_they_were() {
        let place = Place::new("no_answer");
        let (sink, source) = (place.open("sink"), place.open("source"));
        let handle = sink.inbox_builder().callback(|_| {}).expect("it opens");
        let mut sender = source.connect("sink").expect("it is there");
        sender.send(b"hello").expect("it goes");
        sender.flush(LONG).expect("it is processed");
        let first = Counters::of(&place.look(), &Counters::default());
        let without = |id: &str, why: ObserveError, before: &Counters| {
            let mut observed = place.look();
            let node = observed.iter_mut().find(|observed| observed.node.id == id).expect("it is listed");
            node.stats = Err(why);
            shown(&Counters::of(&observed, before))
        };
        let nothing = Counters::default();
        let refused = || ObserveError::Refused { reason: librpc::Reason::NotAdmitted, text: String::new() };
        assert_eq!(
            without("sink", ObserveError::Stopped, &nothing),
            [Some(1), None, None],
            "not 0, and the sender reports its own"
        );
        assert_eq!(without("source", ObserveError::Stopped, &nothing), [None, Some(1), Some(1)]);
        assert_eq!(without("sink", ObserveError::Stopped, &first), [Some(1); 3], "its last report");
        assert_eq!(without("source", ObserveError::Stopped, &first), [Some(1); 3], "its last report");
        assert_eq!(without("sink", refused(), &nothing), [Some(1), Some(1), None], "the sender's report counts");
        assert_eq!(without("source", refused(), &nothing), [Some(1), Some(1), Some(1)], "the receiver's report counts");
        handle.stop().expect("it ends");
    }

    #[test]
    fn a_counter_does_not_fall_unless_another_incarnation_reports_it() {
        let told = |by: u8, sent: u64| {
            let mut told = Told::new(by);
            told.totals.sent = sent;
            told
        };
        let mut now = told(1, 5);
        now.at_least(&told(1, 7));
        assert_eq!(now.totals.sent, 7, "a channel has just ended");
        let mut now = told(2, 5);
        now.at_least(&told(1, 7));
        assert_eq!(now.totals.sent, 5, "another process has begun to count");
    }
}
