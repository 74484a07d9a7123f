//! Nodes and their domain.

use std::ffi::{CString, c_char};

use librpc::{Admission, Domain, Limits, Node, NodeBuilder, Rule};

use crate::border::{
    Flag, Options, array, c_text, choice, free, guard, guard_or, handle_out, long_limit, optional_text, options,
    shared, taken, text,
};
use crate::error::{Failure, librpc_status};

/// A participant with an id. Any number of threads may use it at once. Inboxes, senders and the like live on when it is freed, until they
/// are freed.
pub struct librpc_node(pub(crate) Node, CString, CString);

/// Whom a rule admits.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_rule_kind {
    /// Processes of this process's user.
    SameUser = 0,
    /// Processes of the user `id`.
    Uid = 1,
    /// Processes of the group `id`.
    Gid = 2,
    /// The process `id`.
    Pid = 3,
    /// Processes that run the file `path`.
    Executable = 4,
}

impl librpc_rule_kind {
    const ALL: [Self; 5] = [Self::SameUser, Self::Uid, Self::Gid, Self::Pid, Self::Executable];
}

/// A rule of admission.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_rule {
    /// Whom it admits: librpc_rule_kind.
    pub kind: u32,
    /// The user, group or process.
    pub id: u32,
    /// The executable.
    pub path: *const c_char,
    /// Whether it must hold together with the rule before it.
    pub and_previous: Flag,
}

/// Who may read the topics, or call the services, that match a pattern: processes that at least one rule admits. No rules: nobody.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_admission {
    /// The pattern.
    pub pattern: *const c_char,
    /// The rules.
    pub rules: *const librpc_rule,
    /// How many there are.
    pub count: usize,
}

/// Options of a node. Set `size` to sizeof(librpc_node_options); zeros are the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_node_options {
    /// sizeof(librpc_node_options).
    pub size: usize,
    /// The name of a domain, or the path of its directory; null: what LIBRPC_DOMAIN says, otherwise the user's own.
    pub domain: *const c_char,
    /// Whether the domain is shared with the group `shared_gid`. All of its members set this alike.
    pub shared: Flag,
    /// Whether nobody is admitted who no rule admits. Otherwise processes of the same user are, if there are no rules.
    pub admit_nobody: Flag,
    /// See `shared`.
    pub shared_gid: u32,
    /// Who may send to this node: processes that at least one rule admits. Null: processes of the same user.
    pub admit: *const librpc_rule,
    /// How many rules there are.
    pub admit_count: usize,
    /// Who may read what this node publishes. Topics that match no pattern may be read by everybody in the domain.
    pub readers: *const librpc_admission,
    /// How many there are.
    pub readers_count: usize,
    /// Who may call the services of this node. Others are called by everybody who may send to it.
    pub callers: *const librpc_admission,
    /// How many there are.
    pub callers_count: usize,
    /// How many bytes the payloads of this node may take; by default 4 GiB.
    pub payload_bytes: u64,
    /// How many channels the processes of one user may have to this node; by default 16,384.
    pub channels_per_user: u32,
    /// How many handshakes of one user may be under way; by default 256.
    pub handshakes_per_user: u32,
    /// How many bytes of memory one user's channels may map here; by default 64 GiB.
    pub mapped_bytes_per_user: u64,
    /// How long a handshake may take, in ns; by default 2 s.
    pub handshake_timeout_ns: u64,
}

// SAFETY: integers, flags and raw pointers, with the size first.
unsafe impl Options for librpc_node_options {}

fn admission(rules: &[librpc_rule]) -> Result<Admission, Failure> {
    let mut sets: Vec<Vec<Rule>> = Vec::new();
    for rule in rules {
        let one = match choice(&librpc_rule_kind::ALL, rule.kind, "rule.kind", "librpc_rule_kind")? {
            librpc_rule_kind::SameUser => Rule::SameUser,
            librpc_rule_kind::Uid => Rule::Uid(rule.id),
            librpc_rule_kind::Gid => Rule::Gid(rule.id),
            librpc_rule_kind::Pid => Rule::Pid(rule.id),
            // SAFETY: C's text.
            librpc_rule_kind::Executable => Rule::Executable(unsafe { text(rule.path, "rule.path") }?.into()),
        };
        match sets.last_mut().filter(|_| rule.and_previous.is_set()) {
            Some(set) => set.push(one),
            None => sets.push(vec![one]),
        }
    }
    Ok(sets.into_iter().fold(Admission::nobody(), Admission::all_of))
}

fn builder(id: &str, from: *const librpc_node_options) -> Result<NodeBuilder, Failure> {
    // SAFETY: C's structure, or null.
    let from = unsafe { options(from, "options") }?;
    // SAFETY: C's text, or null.
    let mut domain = domain(unsafe { optional_text(from.domain, "options.domain") }?);
    if from.shared.is_set() {
        domain = domain.shared_with_group(from.shared_gid);
    }
    let mut builder = Node::builder(id).domain(domain);
    // SAFETY: C's array, or null.
    let admit = unsafe { array(from.admit, from.admit_count, "options.admit") }?;
    if !admit.is_empty() || from.admit_nobody.is_set() {
        builder = builder.admit(admission(admit)?);
    }
    type Set = fn(NodeBuilder, &str, Admission) -> NodeBuilder;
    let lists = [
        (from.readers, from.readers_count, "options.readers", NodeBuilder::readers as Set),
        (from.callers, from.callers_count, "options.callers", NodeBuilder::callers as Set),
    ];
    for (list, count, what, set) in lists {
        // SAFETY: C's array, or null.
        for one in unsafe { array(list, count, what) }? {
            // SAFETY: C's text and array.
            let (pattern, of) = unsafe { (text(one.pattern, "pattern")?, array(one.rules, one.count, "rules")?) };
            builder = set(builder, pattern, admission(of)?);
        }
    }
    let mut limits = Limits::default();
    if from.payload_bytes != 0 {
        limits = limits.payload_bytes(from.payload_bytes);
    }
    if from.channels_per_user != 0 {
        limits = limits.channels_per_user(from.channels_per_user);
    }
    if from.handshakes_per_user != 0 {
        limits = limits.handshakes_per_user(from.handshakes_per_user);
    }
    if from.mapped_bytes_per_user != 0 {
        limits = limits.mapped_bytes_per_user(from.mapped_bytes_per_user);
    }
    if from.handshake_timeout_ns != 0 {
        limits = limits.handshake_timeout(long_limit(from.handshake_timeout_ns));
    }
    Ok(builder.limits(limits))
}

/// A domain by its name or path.
pub(crate) fn domain(name: Option<&str>) -> Domain {
    name.map_or_else(Domain::from_env, Domain::parse)
}

/// Opens a node. The id has 1 to 63 bytes, no '/', no control characters and no leading '.'. No other open node of the domain has it. Does
/// not wait for other nodes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_node_open(
    id: *const c_char,
    options: *const librpc_node_options,
    node: *mut *mut librpc_node,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's place and text.
        let (place, id) = unsafe { (handle_out(node, "node")?, text(id, "id")?) };
        let node = builder(id, options)?.open()?;
        let (id, incarnation) = (c_text(node.id()), c_text(&node.incarnation().to_string()));
        place.give(librpc_node(node, id, incarnation));
        Ok(librpc_status::Ok)
    })
}

/// The node's id. As long as the node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_node_id(node: *const librpc_node) -> *const c_char {
    // SAFETY: C's handle.
    guard_or(std::ptr::null(), || Ok(unsafe { shared(node, "node") }?.1.as_ptr()))
}

/// Which incarnation of the id this is: 32 hexadecimal digits. As long as the node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_node_incarnation(node: *const librpc_node) -> *const c_char {
    // SAFETY: C's handle.
    guard_or(std::ptr::null(), || Ok(unsafe { shared(node, "node") }?.2.as_ptr()))
}

/// Closes a node, waits up to `timeout_ns` until what it sent is processed, and frees the handle, whatever it returns.
/// LIBRPC_STATUS_TIMED_OUT: `count` messages are not processed yet; they stay in their inboxes. Its inboxes and senders end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_node_close(node: *mut librpc_node, timeout_ns: u64) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        unsafe { taken(node, "node") }?.0.close(long_limit(timeout_ns))?;
        Ok(librpc_status::Ok)
    })
}

/// Frees a node. It leaves the domain once its inboxes, senders and the like are freed, too. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_node_free(node: *mut librpc_node) {
    // SAFETY: C's handle, or null.
    unsafe { free(node) }
}
