//! A node that was asked about itself, and its answer so far, page by page. Each page is bounded, and so is the whole
//! answer.

use std::ops::Deref;
use std::sync::Arc;

use crate::name::Incarnation;
use crate::observe::ObserveError;
use crate::registry::NodeInfo;
use crate::stats::NodeStats;
use crate::stats::page::{self, Cursor, Item, PUBLISHED};
use crate::sys::clock::Instant;
use crate::sys::dispose::dispose;
use crate::sys::poll::Poll;
use crate::sys::socket::{Cut, Received, Sent, Socket};
use crate::text::harmless_start;
use crate::wire::{self, Answer, ListedItem, Observe, PROTOCOL, Page, Reason};

/// The largest answer of a node.
const MAX_PAGES: usize = 10_000;
/// No page is longer, in bytes.
const MAX_PAGE_BYTES: usize = 64 * 1024;
/// The most memory that a node's answer may take, in bytes: about 15,000 channels with all their latencies.
const MAX_BYTES: usize = 64 << 20;
/// At most this many namespaces are kept, and this many characters of a version and of each namespace's name.
const MAX_NAMESPACES: usize = 16;
const MAX_NAME: usize = 40;
/// At most this many characters of a refusal are kept.
const MAX_TEXT: usize = 200;

/// What distinguishes a node from every other one, including one that copies its answers: the name of its file, the owner of
/// that file, which the kernel knows, and the incarnation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    id: String,
    uid: u32,
    incarnation: Incarnation,
}

impl Identity {
    pub(super) fn of(node: &NodeInfo) -> Self {
        Self { id: node.id.clone(), uid: node.uid, incarnation: node.incarnation }
    }
}

/// What a node has said just now.
pub(super) enum Said {
    /// There is more to come.
    Some,
    /// That was all: [`Asked::into_stats`].
    All,
    /// It has closed the connection, or says that it is another node.
    HungUp,
    /// An unusable answer.
    Nothing(ObserveError),
}

/// A socket that an epoll set watches. It leaves the set before it is closed, which may be much later.
#[derive(Debug)]
struct Watched {
    socket: Socket,
    poll: Arc<Poll>,
}

impl Deref for Watched {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.poll.remove(&self.socket);
    }
}

/// A node that was asked and has not said everything yet.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) token: u64,
    pub(super) uid: u32,
    /// When the wait for it began.
    pub(super) since: Instant,
    socket: Watched,
    /// The published topics are not wanted, nor what comes after them.
    is_probed: bool,
    place: Option<Cursor>,
    stats: NodeStats,
    pages: usize,
    /// How much memory its answer takes, in bytes.
    pub(super) bytes: usize,
}

impl Asked {
    /// Asks a node for everything after a place, and watches for its answer. `None`: it has hung up.
    pub(super) fn new(
        node: &NodeInfo,
        after: Option<Cursor>,
        (token, poll): (u64, Arc<Poll>),
        socket: Socket,
    ) -> Result<Option<Self>, ObserveError> {
        poll.add(&socket, token).map_err(|error| ObserveError::Failed(error.to_string()))?;
        let socket = Watched { socket, poll };
        match socket.send(&question(node.incarnation, after), None) {
            Ok(Sent::Done) => {}
            Ok(_) => return Ok(None),
            Err(error) => return Err(ObserveError::Failed(error.to_string())),
        }
        let stats = NodeStats::new(node.id.as_str().into(), node.incarnation);
        let (uid, since, is_probed) = (node.uid, Instant::now(), after == Some(Cursor::END));
        Ok(Some(Self { token, uid, since, socket, is_probed, place: None, stats, pages: 0, bytes: 0 }))
    }

    /// How many pages have come.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// What it has said.
    pub(super) fn into_stats(self) -> NodeStats {
        self.stats
    }

    /// Takes the next message.
    pub(super) fn step(&mut self) -> Said {
        let failed = |why| Said::Nothing(ObserveError::Failed(why));
        let mut message = vec![0; MAX_PAGE_BYTES];
        let answer = match self.socket.receive(&mut message) {
            Ok(Received::Nothing) => return Said::Some,
            Ok(Received::HungUp) => return Said::HungUp,
            Ok(Received::Message { bytes, cut: Cut::Nothing, descriptors }) if descriptors.is_empty() => {
                wire::decode::<Answer>(&message[..bytes])
            }
            Ok(Received::Message { descriptors, .. }) => {
                dispose(descriptors, ());
                return failed("its answer is too long, or comes with descriptors".into());
            }
            Err(error) => return failed(error.to_string()),
        };
        match answer {
            Ok(Answer::Page(page)) => self.page(page).unwrap_or_else(failed),
            Ok(Answer::Refusal(refusal)) => match Reason::from_number(refusal.reason) {
                Reason::Restarted | Reason::NoInbox => Said::HungUp,
                reason => {
                    Said::Nothing(ObserveError::Refused { reason, text: harmless_start(&refusal.text, MAX_TEXT) })
                }
            },
            Ok(_) => failed("its answer is to another question".into()),
            Err(error) => failed(error.to_string()),
        }
    }

    /// Adds a page, and asks for the next one if there is one.
    fn page(&mut self, page: Page) -> Result<Said, String> {
        let Page { version, namespaces, items, next, payloads, left_out } = page;
        if self.pages == 0 {
            self.since = Instant::now(); // it may have been silent for long
            self.stats.version = harmless_start(&version, MAX_NAME);
            (self.stats.payload_bytes, self.stats.payload_limit) = payloads.unwrap_or_default();
            self.stats.published_left_out = left_out.unwrap_or_default();
            let namespaces = namespaces.into_iter().take(MAX_NAMESPACES);
            self.stats.namespaces =
                namespaces.map(|(name, number)| (harmless_start(&name, MAX_NAME), number)).collect();
        }
        self.pages += 1;
        self.bytes += items.iter().map(page::bytes).sum::<usize>();
        if self.pages > MAX_PAGES || self.bytes > MAX_BYTES {
            return Err(format!(
                "its statistics do not end after {} pages, {} bytes in memory",
                self.pages, self.bytes
            ));
        }
        for item in items {
            if !(self.is_probed && matches!(item, ListedItem::Published(_))) {
                page::add(&mut self.stats, Item::try_from(item).map_err(|bad| bad.to_string())?);
            }
        }
        let Some(next) = next.map(Cursor::from) else { return Ok(Said::All) };
        if self.is_probed && next.part >= PUBLISHED {
            return Ok(Said::All);
        }
        if self.place.is_some_and(|place| next <= place) {
            return Err("its statistics never end".into());
        }
        self.place = Some(next);
        match self.socket.send(&question(self.stats.incarnation, Some(next)), None) {
            Ok(Sent::Done) => Ok(Said::Some),
            Ok(_) => Err("it has closed the connection".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn question(target: Incarnation, after: Option<Cursor>) -> Vec<u8> {
    let behind = after.map(Into::into);
    wire::encode(&Observe { lowest: PROTOCOL, highest: PROTOCOL, target: *target.bytes(), behind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ListedChannel, ListedPlace, ListedTopic};

    /// The other end of its socket is closed, so each further question fails.
    fn asked() -> Asked {
        let stats = NodeStats::new("endless".into(), Incarnation::from_bytes([1; 16]));
        let (socket, since) = (Socket::spare().expect("a descriptor"), Instant::now());
        let socket = Watched { socket, poll: Arc::new(Poll::new().expect("a descriptor")) };
        Asked { token: 1, uid: 0, since, socket, is_probed: false, place: None, stats, pages: 0, bytes: 0 }
    }

    fn next(serial: u64) -> Option<ListedPlace> {
        Some(ListedPlace { part: 0, inbox: 0, serial, begun: true })
    }

    #[test]
    fn an_answer_that_never_ends_is_given_up() {
        let (mut asked, mut why) = (asked(), String::new());
        for serial in 1..=MAX_PAGES as u64 + 1 {
            let namespaces = vec![("pid".into(), serial); 100];
            why =
                asked.page(Page { namespaces, next: next(serial), ..Page::default() }).err().expect("it does not end");
        }
        assert_eq!(why, format!("its statistics do not end after {} pages, 0 bytes in memory", MAX_PAGES + 1));
        assert_eq!(asked.stats.namespaces, vec![("pid".to_owned(), 1); MAX_NAMESPACES], "those of the first page");
    }

    #[test]
    fn what_a_node_says_is_bounded_in_memory() {
        let mut asked = asked();
        // A few bytes on the way: the counts of all buckets are kept, however few are named.
        let channel = ListedChannel {
            peer: "p".into(),
            incarnation: [0; 16],
            pid: 0,
            inbox: 0,
            ring: None,
            state: 0,
            policy: 0,
            topics: Vec::new(),
            types: None,
            counters: vec![0; 13],
            last: (None, None),
            latency: vec![0; 4],
        };
        let with_topics = ListedChannel { topics: vec![String::new(); 1000], latency: vec![0; 2], ..channel.clone() };
        let items = vec![ListedItem::Outgoing(channel); 100];
        let why = (1..).map(|serial| {
            let page = Page { items: items.clone(), next: next(serial), ..Page::default() };
            asked.page(page).err().expect("nobody takes the next question")
        });
        let why = why.take(1000).find(|why| why.contains("do not end")).expect("there is a limit");
        let kept = asked.stats.outgoing.len();
        assert!(kept > 10_000 && kept * 464 * 8 <= MAX_BYTES, "{kept} channels: {why}");
        // Each topic has a type, if only an empty one.
        let mut asked = self::asked();
        let items = vec![ListedItem::Outgoing(with_topics); 3];
        let why = (1..).map(|serial| {
            let page = Page { items: items.clone(), next: next(serial), ..Page::default() };
            asked.page(page).err().expect("nobody takes the next question")
        });
        let why = why.take(1000).find(|why| why.contains("do not end")).expect("there is a limit");
        let texts: usize = asked.stats.outgoing.iter().map(|channel| channel.topics.len() + channel.types.len()).sum();
        assert!(texts > 100_000 && texts * 32 <= MAX_BYTES, "{texts} texts: {why}");
        // So are topics that it publishes.
        let mut asked = self::asked();
        let (topic, schema) = ("t".repeat(255), Some("x".repeat(60_000)));
        let items = vec![ListedItem::Published(ListedTopic { topic, schema, counters: vec![0; 3], last: None }); 10];
        let why = (1..).map(|serial| {
            let page = Page { items: items.clone(), next: next(serial), ..Page::default() };
            asked.page(page).err().expect("nobody takes the next question")
        });
        let why = why.take(1000).find(|why| why.contains("do not end")).expect("there is a limit");
        let kept = asked.stats.published.len();
        assert!(kept > 1000 && kept * 60_000 <= MAX_BYTES, "{kept} topics: {why}");
        // A node lists no more than this many, and no more are kept, however small they are.
        let mut asked = self::asked();
        let topic = ListedTopic { topic: "t".into(), schema: None, counters: vec![0; 3], last: None };
        for serial in 1..=50 {
            let items = vec![ListedItem::Published(topic.clone()); 100];
            asked.page(Page { items, next: next(serial), ..Page::default() }).err().expect("nobody asks on");
        }
        assert_eq!((asked.stats.published.len(), asked.stats.published_left_out), (4096, 5000 - 4096));
    }
}
