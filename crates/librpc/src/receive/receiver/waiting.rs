//! The ways in which a receive waits: it polls once, or for another event loop, or it spins and then sleeps.
//!
//! Whatever peers do, the clock and the bells are checked again after a bounded amount of work: [`POLLS_PER_CLOCK`]
//! polls, or the work that one poll or one look may do.

use crate::sys::clock::Instant;
use std::time::Duration;

use librpc_ring::Armed;

use super::channel::InboundChannel;
use super::polling::{Polled, Wanted};
use super::{Found, POLLS_PER_CLOCK, Receiver, Until, Wait, WatchedBy};
use crate::fault::fault;
use crate::link::inbox_shared::SIGNAL;
use crate::sys::{OsError, barrier, poll};

/// How often an inbox looks at its rings once it can no longer issue barriers in its senders.
const LOOK_UNBARRED: Duration = Duration::from_millis(1);
/// While it polls, an inbox looks at its bells this often, so that armed channels do not starve.
const LOOK_EVERY: Duration = Duration::from_micros(30);
/// How long an adaptive inbox polls before it sleeps: about as long as sleeping and waking takes.
const SPIN: Duration = Duration::from_micros(50);
/// After this many looks without a message a channel is armed, although others have traffic.
const IDLE_LOOKS: u32 = 8;
/// An inbox that spins arms none of its channels while it polls at most this many.
const SPUN: usize = 16;
/// After this many polls, a call that must not block returns.
const ROUNDS: u32 = 16;
/// How often doubts are checked, and how many of them at once.
const DOUBT_EVERY: Duration = Duration::from_millis(1);
const DOUBTS_AT_ONCE: usize = 16;
/// How soon a connection that could not be watched is tried again.
const WATCH_AGAIN: Duration = Duration::from_millis(10);
/// How many bells one look reads, and those of the connection at which that many are reached.
const BELLS_AT_ONCE: u32 = 256;

impl Receiver {
    /// Waits for what comes next; `None` when the time is up, or the inbox was stopped or closed.
    pub(crate) fn next(&mut self, until: Until, wanted: Wanted) -> Result<Option<Found>, OsError> {
        self.end_run();
        if self.lent.is_some() {
            self.let_go();
        }
        let is_watched = self.watched_by.get() > WatchedBy::Nobody;
        let is_for_event_loop = is_watched && until == Until::Now;
        let found = match until {
            Until::Now if is_for_event_loop => self.poll_for_event_loop(wanted),
            Until::Now => self.poll_once(wanted),
            Until::Deadline(deadline) => self.wait(Some(deadline), wanted),
            Until::Forever => self.wait(None, wanted),
        };
        if is_watched {
            let is_announcing = is_for_event_loop && matches!(found, Ok(None));
            self.shared.set_announcing(is_announcing);
            // Channels with traffic announce nothing.
            if !is_announcing && self.watched_by.get() == WatchedBy::Program {
                self.raise();
            }
        }
        found
    }

    /// Polls without waiting. The next call may be far away, so a look that is due happens now.
    fn poll_once(&mut self, wanted: Wanted) -> Result<Option<Found>, OsError> {
        for _ in 0..ROUNDS {
            let polled = self.poll(wanted);
            match polled {
                Polled::Found(found) => return Ok(Some(found)),
                Polled::Ended => return Ok(None),
                Polled::Unfinished => {}
                Polled::Nothing => self.begin_gap(false),
            }
            if !self.look_if_due()? && matches!(polled, Polled::Nothing) {
                return Ok(None);
            }
        }
        Ok(self.poll_for_any(wanted))
    }

    /// Polls without waiting, for a caller that then waits for the descriptor. Before this returns `None`, everything
    /// is armed, and the signal is drained. A sender that rings for nothing cannot keep the caller here: then the
    /// descriptor stays readable.
    fn poll_for_event_loop(&mut self, wanted: Wanted) -> Result<Option<Found>, OsError> {
        for _ in 0..ROUNDS {
            match self.poll(wanted) {
                Polled::Found(found) => return Ok(Some(found)),
                Polled::Ended => {
                    // It may not know, and come again for each bell and each hang-up that is not heard.
                    self.look(Some(self.last_look))?;
                    self.found.clear(); // nobody asks for it any more
                    return Ok(None);
                }
                Polled::Unfinished => {
                    self.look_if_due()?;
                    continue;
                }
                Polled::Nothing => self.begin_gap(false),
            }
            if self.arm_all() {
                if self.is_told && !self.has_news && !self.is_raised.get() && !self.is_unfinished() {
                    return Ok(None);
                }
                self.look(Some(self.last_look))?;
                // What is still unread may be nothing new to the caller's event loop, which then does not come again. A nudge or a stop since
                // the poll is seen by the next poll only, and the look has read its signal.
                let has_more = !self.active.is_empty() || !self.found.is_empty() || self.has_left_some;
                if !has_more && !self.shared.has_ended() {
                    if self.is_unfinished() {
                        self.raise(); // the caller comes again, until nothing is left
                    }
                    return Ok(None);
                }
            }
        }
        let found = self.poll_for_any(wanted);
        if found.is_none() {
            self.raise();
        }
        Ok(found)
    }

    /// Whether something changes although nobody rings for it.
    fn is_unfinished(&self) -> bool {
        !self.doubtful.is_empty() || !self.arrivals.is_empty() || self.is_unbarred
    }

    /// Between two receives, something was found, or the signal was read. Another event loop that waits for the descriptor comes again,
    /// unless nothing is left.
    pub(super) fn announce_rest(&self) {
        let has_rest = !self.found.is_empty() || !self.active.is_empty() || self.is_unfinished() || self.has_left_some;
        if self.watched_by.get() > WatchedBy::Nobody && (has_rest || self.shared.has_ended()) {
            self.raise();
        }
    }

    /// Spins while that may be worthwhile, then sleeps, up to a deadline.
    fn wait(&mut self, deadline: Option<Instant>, wanted: Wanted) -> Result<Option<Found>, OsError> {
        let mut spin_until = None;
        loop {
            let is_unfinished = match self.poll(wanted) {
                Polled::Found(found) => return Ok(Some(found)),
                Polled::Ended => return Ok(None),
                Polled::Unfinished => true,
                Polled::Nothing => false,
            };
            if !is_unfinished {
                self.begin_gap(true);
            }
            let is_polling = self.wait == Wait::Spin || self.wait == Wait::Adaptive && !self.active.is_empty();
            if (is_unfinished || is_polling && self.spin()) && self.polls < POLLS_PER_CLOCK {
                continue;
            }
            self.polls = 0;
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                self.look(Some(now))?;
                return match self.poll(wanted) {
                    Polled::Found(found) => Ok(Some(found)),
                    Polled::Unfinished if self.keep_last.is_some() => self.poll_once(wanted),
                    _ => Ok(None),
                };
            }
            let spin_until = *spin_until.get_or_insert(now + SPIN);
            if is_unfinished || is_polling && (self.wait == Wait::Spin || now < spin_until) {
                self.look_if_due_at(now)?;
            } else {
                self.sleep(deadline)?;
            }
        }
    }

    /// Watches the rings until one shows something (`true`), or it is time to look at the clock.
    #[inline(always)]
    pub(super) fn spin(&mut self) -> bool {
        while self.polls < POLLS_PER_CLOCK {
            self.polls += 1;
            if self.shows_something() {
                return true;
            }
            crate::sys::thread::spin_loop();
        }
        false
    }

    /// Sleeps until something comes, or until the deadline; not at all if something has come.
    pub(super) fn sleep(&mut self, deadline: Option<Instant>) -> Result<(), OsError> {
        if !self.arm_all() {
            return self.look_if_due().map(drop);
        }
        fault!("arm.armed");
        self.look(deadline)?;
        fault!("wake.woken");
        Ok(())
    }

    /// A message was followed by a gap. Looks for waiting senders, and pauses if that is worthwhile.
    pub(super) fn begin_gap(&mut self, may_pause: bool) {
        if !std::mem::replace(&mut self.is_in_gap, true) {
            self.settle();
            self.stream.gap(may_pause);
        }
    }

    /// Has every active channel announce sleep; `true` if all of them may.
    fn arm_all(&mut self) -> bool {
        self.arm(|_| true);
        self.active.is_empty() && self.found.is_empty()
    }

    /// Has active channels announce sleep; those that have something in them stay active.
    fn arm(&mut self, wanted: impl Fn(&InboundChannel) -> bool) {
        let is_armed = |channel: &InboundChannel| channel.drain.is_none() && wanted(channel);
        let mut needs_barrier = false;
        for &index in &self.active {
            let channel = self.channels[index].as_mut().expect("an active channel is there");
            if is_armed(channel) {
                channel.settle();
                channel.consumer.announce();
                needs_barrier |= channel.is_fenced;
            }
        }
        if needs_barrier {
            self.is_unbarred |= !barrier::everywhere();
        }
        let (channels, found) = (&mut self.channels, &mut self.found);
        self.active.retain(|&index| {
            let channel = channels[index].as_mut().expect("an active channel is there");
            if !is_armed(channel) {
                return true;
            }
            channel.active = channel.consumer.look_again() == Armed::Awake;
            found.extend(channel.turned_away().map(|away| Found::TurnedAway(Box::new(away))));
            if channel.active {
                channel.consumer.disarm();
                if channel.consumer.is_closed() {
                    channel.drain = Some(channel.consumer.capacity());
                }
            }
            channel.active
        });
    }

    /// Looks at the bells of other channels if the last look was long ago; whether it was.
    pub(super) fn look_if_due(&mut self) -> Result<bool, OsError> {
        self.look_if_due_at(Instant::now())
    }

    fn look_if_due_at(&mut self, now: Instant) -> Result<bool, OsError> {
        let is_due = now - self.last_look >= LOOK_EVERY;
        if is_due {
            self.look(Some(now))?;
        }
        Ok(is_due)
    }

    /// Looks at the bells and the arrivals, and waits for them until this time (`None`: without limit). What it leaves is there
    /// at the next look.
    fn look(&mut self, until: Option<Instant>) -> Result<(), OsError> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poll.wait(self.next_look(until), &mut ready)?;
        if self.is_unbarred {
            self.activate_unannounced();
        }
        self.bells_heard = 0;
        self.has_left_some = ready.len() >= poll::AT_ONCE;
        for event in &ready {
            match event.token {
                SIGNAL => self.take_arrivals(),
                _ if self.bells_heard >= BELLS_AT_ONCE => self.has_left_some = true,
                connection => self.bells(connection, event.hung_up),
            }
        }
        self.ready = ready;
        self.take_in();
        self.look_at_doubts();
        self.has_news = self.has_left_some;
        self.last_look = Instant::now();
        let mut is_idle = false;
        for &index in &self.active {
            let channel = self.channels[index].as_mut().expect("an active channel is there");
            channel.idle_looks = channel.idle_looks.saturating_add(1);
            is_idle |= channel.idle_looks >= IDLE_LOOKS;
            if channel.has_turned_away(channel.idle_looks <= 1, self.last_look) {
                self.found.extend(channel.turned_away().map(|away| Found::TurnedAway(Box::new(away))));
            }
        }
        // A few channels cost a spinning inbox nothing, and a message to one that is asleep would cost a system call.
        let stays_awake = self.wait == Wait::Spin && self.active.len() <= SPUN;
        if is_idle && !stays_awake {
            self.arm(|channel| channel.idle_looks >= IDLE_LOOKS);
        }
        Ok(())
    }

    /// When the next look is due, at the latest: some things change although nobody rings for them.
    fn next_look(&self, until: Option<Instant>) -> Option<Instant> {
        let due = |is_due: bool, after: Duration| is_due.then_some(after);
        let again = [
            due(!self.doubtful.is_empty(), DOUBT_EVERY),
            due(self.is_unbarred, LOOK_UNBARRED),
            due(!self.arrivals.is_empty(), WATCH_AGAIN),
        ];
        let again = again.into_iter().flatten().min().map(|after| Instant::now() + after);
        until.into_iter().chain(again).min()
    }

    fn look_at_doubts(&mut self) {
        for _ in 0..self.doubtful.len().min(DOUBTS_AT_ONCE) {
            let Some(index) = self.doubtful.pop_front() else { return };
            match self.departure(index) {
                None => self.doubtful.push_back(index),
                Some(departure) => {
                    let left = self.leave(index, departure);
                    self.found.push_back(left);
                }
            }
        }
    }

    /// Without a barrier, a sender may miss that its channel is armed: what it has sent is found here.
    fn activate_unannounced(&mut self) {
        let now = Instant::now();
        for index in 0..self.channels.len() {
            let is_missed = |channel: &InboundChannel| {
                let has_some = channel.consumer.has_record() || channel.has_turned_away(false, now);
                channel.is_fenced && !channel.active && channel.drain.is_none() && has_some
            };
            if self.channels[index].as_ref().is_some_and(is_missed) {
                self.activate(index);
            }
        }
    }
}
