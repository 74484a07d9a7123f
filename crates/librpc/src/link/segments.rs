//! The memories for payloads that a sender has handed over to an inbox, for one channel.
//!
//! A memory is mapped before the sender is told so, and only then does the ring name it: a record that names an unknown one is
//! corrupt. Each comes over a socket of its own. The receiver closes that socket when nobody here maps the memory any more, so
//! its hang-up lets the sender use the memory again, whatever has become of the receiver. The sender hangs up when it has retired
//! the memory, or is gone.
//!
//! Invariant: a memory stays mapped as long as a record in the ring may name it, or a sample holds it.

use std::sync::{Arc, Weak};

use librpc_ring::Lent;

use crate::link::ledger::Charge;
use crate::sys::memory::Mapping;
use crate::sys::socket::Socket;
use crate::sys::sync::Mutex;
use crate::text;

/// At most this many memories of one channel are mapped.
const MOST: usize = 64;
/// Where payloads begin: word by word, as rings are read.
const ALIGNED_TO: u64 = 8;

/// A memory that was handed over. Its fields end in this order: the sender may write the memory once the socket is closed.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Its sender's number for it.
    number: u64,
    mapping: Mapping,
    socket: Arc<Socket>,
    _charge: Charge,
}

impl Segment {
    pub(crate) fn new(number: u64, mapping: Mapping, socket: Arc<Socket>, charge: Charge) -> Self {
        Self { number, mapping, socket, _charge: charge }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Copies a part of it, which its sender may be writing.
    pub(crate) fn copy_to(&self, offset: u64, into: &mut [u8]) {
        self.mapping.copy_to(offset, into);
    }

    /// Appends a copy of a part of it.
    pub(crate) fn append_to(&self, offset: u64, bytes: u64, into: &mut Vec<u8>) {
        self.mapping.append_to(offset, bytes, into);
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }
}

/// The memories of one channel, as the background thread and the inbox share them.
#[derive(Debug, Default)]
pub(crate) struct SegmentTable(Mutex<Vec<Arc<Segment>>>);

impl SegmentTable {
    /// Adds a memory. `Err`: why not.
    pub(crate) fn add(&self, segment: Segment) -> Result<(), String> {
        let mut all = self.0.lock();
        // No record names one that its sender has retired, and the sender lives: it adds one.
        all.retain(|other| !other.socket.has_hung_up());
        if all.iter().any(|other| other.number == segment.number) {
            return Err("there is a memory of this number already".into());
        }
        if all.len() == MOST {
            return Err(format!("a channel has at most {MOST} memories for payloads"));
        }
        all.push(Arc::new(segment));
        Ok(())
    }

    /// The memory of this number.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Segment>> {
        self.0.lock().iter().find(|segment| segment.number == number).cloned()
    }

    /// Forgets a memory: no record names it, now or any more.
    pub(crate) fn forget(&self, number: u64) {
        let mut all = self.0.lock();
        let gone = all.iter().position(|segment| segment.number == number).map(|at| all.swap_remove(at));
        drop(all);
        drop(gone); // which may close a socket, where nothing is locked
    }
}

/// The memories of a channel, as its inbox has found them.
#[derive(Debug)]
pub(crate) struct Segments {
    table: Arc<SegmentTable>,
    known: Vec<Known>,
    /// Senders have hung up on some of them.
    is_any_retired: bool,
}

/// A memory that the inbox knows, and under which token it waits for the sender's hang-up.
#[derive(Debug)]
struct Known {
    segment: Arc<Segment>,
    token: u64,
    /// The hang-up has come, and is waited for no more.
    is_retired: bool,
}

/// A lent payload, which was checked: where it is.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Segments {
    pub(crate) fn new(table: Arc<SegmentTable>) -> Self {
        Self { table, known: Vec::new(), is_any_retired: false }
    }

    /// Where a payload is. `Err`: no honest sender says that.
    /// `watch` is called with a memory that was not known, and returns its token.
    pub(crate) fn locate(
        &mut self,
        payload: &[u8],
        max_message: u64,
        watch: impl FnOnce(&Segment) -> u64,
    ) -> Result<Located, String> {
        let lent = Lent::decode(payload).ok_or("a lent payload without its place")?;
        let Lent { segment: number, offset, bytes } = lent;
        let known = self.known.iter().find(|known| known.segment.number == number);
        let segment = match known {
            Some(known) => known.segment.clone(),
            None => {
                let found = self.table.get(number);
                let found =
                    found.ok_or_else(|| format!("a payload in memory {number:#x}, which was not handed over"))?;
                let token = watch(&found);
                self.known.push(Known { segment: found.clone(), token, is_retired: false });
                found
            }
        };
        let size = segment.mapping.bytes();
        if !offset.is_multiple_of(ALIGNED_TO) || offset > size || bytes > size - offset {
            return Err(format!("a payload of {} at {offset}, in a memory of {size} bytes", text::bytes(bytes)));
        }
        if bytes > max_message {
            return Err(format!("a payload of {}; the inbox takes at most {max_message}", text::bytes(bytes)));
        }
        Ok(Located { segment, offset, bytes })
    }

    /// The sender has hung up on the memory of this token, which is watched no more.
    pub(crate) fn retired(&mut self, token: u64) -> Option<&Segment> {
        let known = self.known.iter_mut().find(|known| known.token == token)?;
        (known.is_retired, self.is_any_retired) = (true, true);
        Some(&known.segment)
    }

    /// The ring is empty: the memories that the sender has hung up on are of no further use.
    #[inline(always)]
    pub(crate) fn forget_retired(&mut self) {
        if self.is_any_retired {
            self.forget_all_retired();
        }
    }

    #[cold]
    fn forget_all_retired(&mut self) {
        self.is_any_retired = false;
        let Self { table, known, .. } = self;
        known.retain(|known| {
            // One that is still watched stays until its hang-up has come: a sample may keep its socket, which would wake the inbox
            // for ever.
            let is_over = known.is_retired && known.segment.socket.has_hung_up();
            if is_over {
                table.forget(known.segment.number);
            }
            !is_over
        });
    }

    /// Those that are known, with their tokens.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (u64, &Segment)> {
        self.known.iter().map(|known| (known.token, &*known.segment))
    }
}

/// The tables of a connection's channels, by their rings' numbers.
pub(crate) type Tables = std::collections::BTreeMap<u32, Weak<SegmentTable>>;

#[cfg(all(test, not(feature = "simulated")))]
mod tests {
    use super::*;
    use crate::link::ledger::{Ledger, Limits};
    use crate::sys::memory::Shape;

    const BYTES: u64 = 65_536;

    /// A table with one memory, of number 7, and the sender's end of its socket.
    fn table(ledger: &Arc<Ledger>) -> (Arc<SegmentTable>, Socket) {
        let table = Arc::new(SegmentTable::default());
        let socket = add(&table, ledger, 7).unwrap();
        (table, socket)
    }

    fn add(table: &SegmentTable, ledger: &Arc<Ledger>, number: u64) -> Result<Socket, String> {
        let (ours, senders) = Socket::pair();
        let (mapping, _) = Mapping::create(Shape::Payloads { bytes: BYTES }).unwrap();
        let charge = ledger.segment(1, BYTES).ok_or("over the limit")?;
        table.add(Segment::new(number, mapping, Arc::new(ours), charge))?;
        Ok(senders)
    }

    fn lent(segment: u64, offset: u64, bytes: u64) -> [u8; Lent::BYTES] {
        Lent { segment, offset, bytes }.encode()
    }

    #[test]
    fn only_what_was_handed_over_is_read() {
        let ledger = Ledger::new(Limits::default());
        let (table, _socket) = table(&ledger);
        let mut segments = Segments::new(table);
        let mut watched = 0;
        let mut locate = |payload: &[u8]| {
            let located = segments.locate(payload, 50_000, |_| {
                watched += 1;
                watched
            });
            located.map(|Located { offset, bytes, .. }| (offset, bytes))
        };
        assert_eq!(locate(&lent(7, 0, 50_000)), Ok((0, 50_000)));
        assert_eq!(locate(&lent(7, BYTES, 0)), Ok((BYTES, 0)));
        assert_eq!(locate(&lent(7, BYTES - 8, 8)), Ok((BYTES - 8, 8)));
        for (payload, why) in [
            (lent(8, 0, 1), "a payload in memory 0x8, which was not handed over"),
            (lent(7, BYTES - 8, 9), "a payload of 9 bytes at 65528, in a memory of 65536 bytes"),
            (lent(7, BYTES + 8, 0), "a payload of 0 bytes at 65544, in a memory of 65536 bytes"),
            (lent(7, 4, 1), "a payload of 1 byte at 4, in a memory of 65536 bytes"),
            (lent(7, 8, u64::MAX), "a payload of 18446744073709551615 bytes at 8, in a memory of 65536 bytes"),
            (lent(7, 0, 50_001), "a payload of 50001 bytes; the inbox takes at most 50000"),
        ] {
            assert_eq!(locate(&payload), Err(why.to_owned()));
        }
        assert!(locate(&[0; 23]).is_err() && locate(&[]).is_err());
        assert_eq!(watched, 1, "a memory is watched once");
    }

    #[test]
    fn a_memory_stays_until_its_sender_has_hung_up_and_the_ring_is_empty() {
        let ledger = Ledger::new(Limits::default());
        let (table, socket) = table(&ledger);
        let mut segments = Segments::new(table.clone());
        let located = segments.locate(&lent(7, 0, 8), 8, |_| 1).unwrap();
        segments.retired(1);
        segments.forget_retired();
        assert!(table.get(7).is_some(), "its sender is there");
        drop(socket);
        segments.retired(1);
        segments.forget_retired();
        assert!(table.get(7).is_none() && segments.watched().next().is_none());
        assert!(!ledger.is_settled(), "a sample maps it still");
        drop(located);
        assert!(ledger.is_settled(), "everything comes back");
    }

    #[test]
    fn a_memory_that_is_watched_stays_known_until_its_own_hang_up_has_come() {
        let ledger = Ledger::new(Limits::default());
        let (table, first) = table(&ledger);
        let second = add(&table, &ledger, 8).unwrap();
        let mut segments = Segments::new(table);
        let _samples =
            [(7, 1), (8, 2)].map(|(number, token)| segments.locate(&lent(number, 0, 8), 8, |_| token).unwrap());
        drop((first, second));
        segments.retired(1);
        segments.forget_retired();
        assert_eq!(segments.watched().map(|(token, _)| token).collect::<Vec<_>>(), [2]);
        segments.retired(2);
        segments.forget_retired();
        assert!(segments.watched().next().is_none());
    }

    #[test]
    fn a_channel_has_a_bounded_number_of_memories() {
        let ledger = Ledger::new(Limits::default());
        let (table, first) = table(&ledger);
        let mut sockets: Vec<_> =
            (100..100 + MOST as u64 - 1).map(|number| add(&table, &ledger, number).unwrap()).collect();
        assert!(add(&table, &ledger, 7).is_err(), "there is one of this number");
        assert_eq!(add(&table, &ledger, 999).unwrap_err(), "a channel has at most 64 memories for payloads");
        drop(first);
        sockets.push(add(&table, &ledger, 999).expect("its sender has retired one"));
        let few = Ledger::new(Limits::default().mapped_bytes_per_user(2 * BYTES));
        let table = SegmentTable::default();
        let two: Vec<_> = (0..2).map(|number| add(&table, &few, number).unwrap()).collect();
        assert_eq!(add(&table, &few, 3).unwrap_err(), "over the limit");
        drop(two);
    }
}
