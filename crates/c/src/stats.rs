//! Statistics: of a node, and of every node of a domain, from outside.

use std::ffi::{CString, c_char};
use std::time::{Duration, UNIX_EPOCH};

use librpc::{Address, ChannelState, ChannelStats, Histogram, NodeInfo, NodeStats};

use crate::border::{c_text, free, guard, guard_or, handle_out, long_limit, ns, optional_text, out, shared};
use crate::error::{Failure, librpc_status};
use crate::node::{domain, librpc_node};

/// Which way a channel goes.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_direction {
    /// To the node: `peer` sends.
    Incoming = 0,
    /// From the node: `peer` receives.
    Outgoing = 1,
}

/// How a channel is.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_channel_state {
    /// The receiver has not answered yet.
    Pending = 0,
    /// It is in use.
    Open = 1,
    /// It has failed.
    Failed = 2,
}

/// The counts of a channel. Texts are as long as the statistics.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_channel_stats {
    /// Which way it goes.
    pub direction: librpc_direction,
    /// How it is.
    pub state: librpc_channel_state,
    /// The node on the other side.
    pub peer: *const c_char,
    /// What the inbox receives: "node", patterns, or a service. Null: an outgoing channel.
    pub inbox: *const c_char,
    /// The process on the other side.
    pub peer_pid: u32,
    /// The number of the inbox in its node.
    pub inbox_number: u32,
    /// Messages that were sent.
    pub sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Messages that were received.
    pub received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// Messages that were processed.
    pub processed: u64,
    /// Messages that wait.
    pub queued: u64,
    /// Messages that the inbox's policy has dropped.
    pub dropped: u64,
    /// Messages that were overwritten before they could be received.
    pub missed: u64,
    /// Messages that were returned.
    pub returned: u64,
    /// Messages that were too large.
    pub too_large: u64,
    /// Messages for which there was no room in time.
    pub no_room: u64,
    /// Messages for which there was no memory.
    pub no_memory: u64,
    /// How long sends have waited for room, in ns.
    pub blocked_ns: u64,
    /// Bytes of the ring that are in use.
    pub depth: u64,
    /// The most so far.
    pub depth_max: u64,
    /// The capacity of the ring, in bytes.
    pub capacity: u64,
    /// Large payloads that are lent.
    pub lent: u64,
    /// Bytes of them.
    pub lent_bytes: u64,
    /// Samples that are held.
    pub held: u64,
    /// The latency from sending to receiving that half of the messages do not exceed, in ns; 0: it is not known. A sample is measured.
    pub latency_p50_ns: u64,
    /// The same of 99 of 100.
    pub latency_p99_ns: u64,
    /// The longest latency, in ns.
    pub latency_max_ns: u64,
}

/// What a node reports about itself: a snapshot.
pub struct librpc_stats {
    stats: NodeStats,
    channels: Vec<(librpc_channel_stats, CString, Option<CString>)>,
}

// SAFETY: the pointers point into texts that it owns and never changes.
unsafe impl Send for librpc_stats {}
// SAFETY: as above.
unsafe impl Sync for librpc_stats {}

fn named(address: &Address) -> String {
    match address {
        Address::Node => "node".to_owned(),
        Address::Topics(patterns) => patterns.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(" "),
        Address::Service(service) => service.to_string(),
        _ => "replies".to_owned(),
    }
}

fn channel(
    of: &ChannelStats,
    direction: librpc_direction,
    inbox: Option<&Address>,
) -> (librpc_channel_stats, CString, Option<CString>) {
    let (peer, inbox) = (c_text(&of.peer), inbox.map(|address| c_text(&named(address))));
    let quantile = |latency: &Histogram, part| latency.quantile(part).unwrap_or(0);
    let seen = librpc_channel_stats {
        direction,
        state: match of.state {
            ChannelState::Pending => librpc_channel_state::Pending,
            ChannelState::Open => librpc_channel_state::Open,
            _ => librpc_channel_state::Failed,
        },
        peer: peer.as_ptr(),
        inbox: inbox.as_ref().map_or(std::ptr::null(), |text| text.as_ptr()),
        peer_pid: of.peer_pid,
        inbox_number: of.inbox,
        sent: of.sent,
        bytes_sent: of.bytes_sent,
        received: of.received,
        bytes_received: of.bytes_received,
        processed: of.processed,
        queued: of.queued,
        dropped: of.dropped,
        missed: of.missed,
        returned: of.returned,
        too_large: of.too_large,
        no_room: of.no_room,
        no_memory: of.no_memory,
        blocked_ns: ns(of.blocked),
        depth: of.depth,
        depth_max: of.depth_max,
        capacity: of.capacity,
        lent: of.lent,
        lent_bytes: of.lent_bytes,
        held: of.held,
        latency_p50_ns: quantile(&of.latency, 0.5),
        latency_p99_ns: quantile(&of.latency, 0.99),
        latency_max_ns: of.latency.max_ns(),
    };
    (seen, peer, inbox)
}

impl librpc_stats {
    fn new(stats: NodeStats) -> Self {
        let incoming = stats.inboxes.iter().flat_map(|inbox| {
            inbox.channels.iter().map(|one| channel(one, librpc_direction::Incoming, Some(&inbox.address)))
        });
        let outgoing = stats.outgoing.iter().map(|one| channel(one, librpc_direction::Outgoing, None));
        let channels = incoming.chain(outgoing).collect();
        Self { stats, channels }
    }
}

/// A snapshot of a node's statistics. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_node_stats(node: *const librpc_node, stats: *mut *mut librpc_stats) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (node, place) = unsafe { (shared(node, "node")?, handle_out(stats, "stats")?) };
        place.give(librpc_stats::new(node.0.stats()));
        Ok(librpc_status::Ok)
    })
}

/// How many channels a node has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_stats_channels(stats: *const librpc_stats) -> usize {
    // SAFETY: C's handle.
    guard_or(0, || Ok(unsafe { shared(stats, "stats") }?.channels.len()))
}

/// The counts of a channel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_stats_channel(
    stats: *const librpc_stats,
    index: usize,
    channel: *mut librpc_channel_stats,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and place.
        let (stats, place) = unsafe { (shared(stats, "stats")?, out(channel, "channel")?) };
        let (seen, ..) = stats
            .channels
            .get(index)
            .ok_or_else(|| Failure::argument(format!("`index` is {index}, of {} channels", stats.channels.len())))?;
        place.set(*seen);
        Ok(librpc_status::Ok)
    })
}

/// What a node has sent, received and lost in all, channels that have ended included.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct librpc_totals {
    /// Messages that were sent.
    pub sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Messages that were received.
    pub received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// Messages that were received and processed.
    pub processed: u64,
    /// Messages to or from it that an inbox's policy has dropped.
    pub dropped: u64,
    /// Messages to it that were overwritten before they could be received.
    pub missed: u64,
    /// Messages of its own that were returned.
    pub returned: u64,
    /// Bytes of memory for payloads that it uses.
    pub payload_bytes: u64,
    /// How many it may use.
    pub payload_limit: u64,
}

/// The sums over all channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_stats_totals(stats: *const librpc_stats, totals: *mut librpc_totals) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and place.
        let (stats, place) = unsafe { (shared(stats, "stats")?, out(totals, "totals")?) };
        let of = &stats.stats;
        let mut sums = librpc::Totals::default();
        let mut outgoing = librpc::Totals::default();
        of.inboxes.iter().flat_map(|inbox| &inbox.channels).for_each(|channel| sums.add(channel));
        of.outgoing.iter().for_each(|channel| outgoing.add(channel));
        let ended = |list: &[librpc::EndedChannels], count: fn(&librpc::Totals) -> u64| -> u64 {
            list.iter().map(|ended| count(&ended.totals)).sum()
        };
        let (incoming_ended, outgoing_ended) = (&of.ended_incoming[..], &of.ended_outgoing[..]);
        place.set(librpc_totals {
            sent: outgoing.sent + ended(outgoing_ended, |totals| totals.sent),
            bytes_sent: outgoing.bytes_sent + ended(outgoing_ended, |totals| totals.bytes_sent),
            received: sums.received + ended(incoming_ended, |totals| totals.received),
            bytes_received: sums.bytes_received + ended(incoming_ended, |totals| totals.bytes_received),
            processed: sums.processed + ended(incoming_ended, |totals| totals.processed),
            dropped: sums.dropped
                + outgoing.dropped
                + ended(incoming_ended, |totals| totals.dropped)
                + ended(outgoing_ended, |totals| totals.dropped),
            missed: sums.missed + ended(incoming_ended, |totals| totals.missed),
            returned: outgoing.returned + ended(outgoing_ended, |totals| totals.returned),
            payload_bytes: of.payload_bytes,
            payload_limit: of.payload_limit,
        });
        Ok(librpc_status::Ok)
    })
}

/// Frees a snapshot. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_stats_free(stats: *mut librpc_stats) {
    // SAFETY: C's handle, or null.
    unsafe { free(stats) }
}

/// A node of a domain.
#[repr(C)]
pub struct librpc_node_info {
    /// Its id.
    pub id: *const c_char,
    /// Its incarnation: 32 hexadecimal digits.
    pub incarnation: *const c_char,
    /// When it was opened, in ns since 1970.
    pub opened_ns: u64,
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Whether its process lives.
    pub alive: bool,
    /// What it reports about itself; null: it was not asked, or did not answer. It belongs to the list: do not free it.
    pub stats: *const librpc_stats,
    /// Why it did not answer; null: it did, or was not asked.
    pub error: *const c_char,
}

/// The nodes of a domain, as they were at one moment.
pub struct librpc_nodes(Vec<Known>);

struct Known {
    info: NodeInfo,
    id: CString,
    incarnation: CString,
    stats: Option<librpc_stats>,
    error: Option<CString>,
}

impl Known {
    fn new(info: NodeInfo) -> Self {
        let (id, incarnation) = (c_text(&info.id), c_text(&info.incarnation.to_string()));
        Self { info, id, incarnation, stats: None, error: None }
    }
}

/// The nodes of a domain; null: the one that LIBRPC_DOMAIN names, otherwise the user's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_nodes_list(domain_name: *const c_char, nodes: *mut *mut librpc_nodes) -> librpc_status {
    guard(|| {
        // SAFETY: C's place and text.
        let (place, name) = unsafe { (handle_out(nodes, "nodes")?, optional_text(domain_name, "domain_name")?) };
        place.give(librpc_nodes(domain(name).nodes()?.into_iter().map(Known::new).collect()));
        Ok(librpc_status::Ok)
    })
}

/// As librpc_nodes_list(), and asks each node for its statistics, up to `timeout_ns`. It needs no node of its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_nodes_observe(
    domain_name: *const c_char,
    timeout_ns: u64,
    nodes: *mut *mut librpc_nodes,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's place and text.
        let (place, name) = unsafe { (handle_out(nodes, "nodes")?, optional_text(domain_name, "domain_name")?) };
        let observed = domain(name).observe(long_limit(timeout_ns))?;
        let known = observed.into_iter().map(|one| {
            let mut known = Known::new(one.node);
            match one.stats {
                Ok(stats) => known.stats = Some(librpc_stats::new(stats)),
                Err(error) => known.error = Some(c_text(&error.to_string())),
            }
            known
        });
        place.give(librpc_nodes(known.collect()));
        Ok(librpc_status::Ok)
    })
}

/// How many nodes there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_nodes_count(nodes: *const librpc_nodes) -> usize {
    // SAFETY: C's handle.
    guard_or(0, || Ok(unsafe { shared(nodes, "nodes") }?.0.len()))
}

/// One of them. Texts are as long as the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_nodes_get(
    nodes: *const librpc_nodes,
    index: usize,
    info: *mut librpc_node_info,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and place.
        let (nodes, place) = unsafe { (shared(nodes, "nodes")?, out(info, "info")?) };
        let one = nodes
            .0
            .get(index)
            .ok_or_else(|| Failure::argument(format!("`index` is {index}, of {} nodes", nodes.0.len())))?;
        place.set(librpc_node_info {
            id: one.id.as_ptr(),
            incarnation: one.incarnation.as_ptr(),
            opened_ns: ns(one.info.opened.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)),
            pid: one.info.pid,
            uid: one.info.uid,
            alive: one.info.alive,
            stats: one.stats.as_ref().map_or(std::ptr::null(), |stats| stats),
            error: one.error.as_ref().map_or(std::ptr::null(), |error| error.as_ptr()),
        });
        Ok(librpc_status::Ok)
    })
}

/// Frees a list. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_nodes_free(nodes: *mut librpc_nodes) {
    // SAFETY: C's handle, or null.
    unsafe { free(nodes) }
}

/// Removes what dead nodes have left in a domain. Each node that opens does so, too. `count` (null: not wanted): how many there were.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_clean(domain_name: *const c_char, count: *mut usize) -> librpc_status {
    guard(|| {
        // SAFETY: C's text.
        let removed = domain(unsafe { optional_text(domain_name, "domain_name") }?).clean()?;
        if !count.is_null() {
            // SAFETY: C's place.
            unsafe { out(count, "count") }?.set(removed.len());
        }
        Ok(librpc_status::Ok)
    })
}
