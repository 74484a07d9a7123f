//! The answers of a server: replies, parts of them, and failures, on their way to its clients.

use std::cell::OnceCell;
use std::sync::Arc;

use librpc_ring::Kind;

use super::Serving;
use crate::call::caller::Client;
use crate::call::caller::{Waiting, WorkId};
use crate::call::error::ReplyError;
use crate::call::outgoing::Said;
use crate::fault::fault;
use crate::send::SendError;
use crate::send::message::Call;
use crate::stats::CallFailure;
use crate::text;
use crate::wire::Cause;

impl Serving {
    /// The program answers a request. `Ok(false)`: nobody waits for it any more.
    pub(in crate::call) fn answered(
        &mut self,
        request: (u64, u64, WorkId),
        kind: Kind,
        payload: &[u8],
    ) -> Result<bool, ReplyError> {
        match kind == Kind::Reply && self.reply_at_once(request, payload) {
            true => Ok(true),
            false => self.answer_slowly(request, kind, payload),
        }
    }

    /// The hot path of [`Serving::answered`]: somebody waits, and there is room. `false`: nothing was sent.
    #[inline(always)]
    fn reply_at_once(&mut self, (caller, number, id): (u64, u64, WorkId), payload: &[u8]) -> bool {
        let Some(work) = self.works.get(id).filter(|work| !work.is_cancelled) else { return false };
        let Some(client) = self.clients.get_mut(&caller) else { return false };
        let call = Call { kind: Kind::Reply, number, deadline: None, caller: None };
        let may_send = client.is_open && client.backlog.is_empty();
        if !may_send || !self.out.say_at_once(&client.way, &call, payload) {
            return false;
        }
        fault!("call.answered");
        self.counters.answered(work.measured);
        client.calls.remove(number);
        self.works.remove(id);
        self.in_flight -= 1;
        self.has_work |= client.is_silent;
        true
    }

    #[inline(never)]
    fn answer_slowly(
        &mut self,
        (caller, number, work): (u64, u64, WorkId),
        kind: Kind,
        payload: &[u8],
    ) -> Result<bool, ReplyError> {
        // Its number may be that of another request meanwhile.
        let said = match self.is_cancelled(work) {
            true => Ok(false),
            false => self.answer(caller, number, kind, payload),
        };
        if kind != Kind::Part {
            self.let_go(caller, work);
        }
        said
    }

    /// The program says that a request has failed.
    pub(in crate::call) fn failed(
        &mut self,
        (caller, number, work): (u64, u64, WorkId),
        why: (Cause, i32, &str),
    ) -> Result<bool, ReplyError> {
        let said = match self.is_cancelled(work) {
            true => Ok(false),
            false => self.fail(caller, number, why),
        };
        self.let_go(caller, work);
        said
    }

    /// Answers a request. `Ok(false)`: nobody waits for it any more.
    #[inline(always)]
    fn answer(&mut self, caller: u64, number: u64, kind: Kind, payload: &[u8]) -> Result<bool, ReplyError> {
        self.answer_as(caller, number, (kind, payload), Ok(()))
    }

    fn answer_as(
        &mut self,
        caller: u64,
        number: u64,
        (kind, payload): (Kind, &[u8]),
        how: Result<(), CallFailure>,
    ) -> Result<bool, ReplyError> {
        let is_last = kind != Kind::Part;
        let is_waited_for = self.clients.get(&caller).is_some_and(|client| client.calls.get(number).is_some());
        let said = if is_waited_for { self.say(caller, number, kind, payload) } else { Ok(false) };
        if is_last {
            let is_lost = how.is_ok() && said.is_err();
            self.done(caller, number, if is_lost { Err(CallFailure::Failed) } else { how });
        }
        said
    }

    fn say(&mut self, caller: u64, number: u64, kind: Kind, payload: &[u8]) -> Result<bool, ReplyError> {
        let Some(client) = self.clients.get_mut(&caller) else { return Ok(false) };
        let slot = OnceCell::new();
        let call = Call { kind, number, deadline: None, caller: None };
        let said = match client.is_open && client.backlog.is_empty() {
            true => self.out.say(&mut client.way, call, payload, &slot),
            false => Said::Later,
        };
        fault!("call.answered");
        let node = |client: &Client| client.peer.node.clone();
        match said {
            Said::Yes => Ok(true),
            Said::Later | Said::Gone => match client.reserve(&self.node.sending, kind, payload.len()) {
                Ok(charge) => {
                    // Perhaps only the connection is lost: then it is made again.
                    client.is_open &= matches!(said, Said::Later);
                    client.backlog_bytes += Waiting::bytes(payload.len());
                    client.backlog.push_back(Waiting { kind, number, payload: payload.into(), slot, _charge: charge });
                    self.has_work = true;
                    self.inbox.nudge();
                    Ok(true)
                }
                Err(error) => {
                    match kind {
                        Kind::Failure => self.expel(caller, format!("it does not read its replies: {error}")),
                        _ => self.say_failure(caller, number, Cause::Dropped, 0, &error.to_string()),
                    }
                    Err(error)
                }
            },
            Said::Failed(SendError::TooLarge { bytes, max, .. }) => {
                let node = node(client);
                if kind == Kind::Failure {
                    self.expel(
                        caller,
                        format!("it takes no answer of {}, which is as short as can be", text::bytes(bytes)),
                    );
                    return Err(ReplyError::TooLarge { node, bytes, max });
                }
                let text =
                    format!("the reply of {} exceeds the client's limit of {}", text::bytes(bytes), text::bytes(max));
                self.say_failure(caller, number, Cause::Dropped, 0, &text);
                Err(ReplyError::TooLarge { node, bytes, max })
            }
            Said::Failed(SendError::Closed { node }) => Err(ReplyError::Closed { node }),
            Said::Failed(error) => {
                if kind != Kind::Failure {
                    self.say_failure(
                        caller,
                        number,
                        Cause::Dropped,
                        0,
                        &format!("the reply could not be sent: {error}"),
                    );
                }
                Err(ReplyError::Send(Arc::new(error)))
            }
        }
    }

    fn say_failure(&mut self, caller: u64, number: u64, cause: Cause, code: i32, text: &str) {
        let Some(client) = self.clients.get(&caller) else { return };
        let failure = client.failure(cause, code, text);
        let _ = self.say(caller, number, Kind::Failure, &failure); // what can be said of it is said by this
    }

    /// Says that a request has failed.
    pub(super) fn fail(
        &mut self,
        caller: u64,
        number: u64,
        (cause, code, text): (Cause, i32, &str),
    ) -> Result<bool, ReplyError> {
        let failure = self.clients.get(&caller).map(|client| client.failure(cause, code, text));
        let failure = failure.unwrap_or_default(); // a client that is gone gets none
        let how = match cause {
            Cause::Busy => CallFailure::Busy,
            Cause::Unimplemented => CallFailure::Unimplemented,
            Cause::NotTaken => CallFailure::ServerDied,
            Cause::Program | Cause::Dropped => CallFailure::Failed,
        };
        self.answer_as(caller, number, (Kind::Failure, &failure), Err(how))
    }

    /// Sends what waits for room.
    pub(super) fn send_backlog(&mut self, caller: u64) {
        loop {
            let Some(client) = self.clients.get_mut(&caller) else { return };
            let Some(waiting) = client.backlog.pop_front() else { return };
            let Waiting { kind, number, payload, slot, .. } = &waiting;
            let call = Call { kind: *kind, number: *number, deadline: None, caller: None };
            let said = match client.is_open {
                true => self.out.say(&mut client.way, call, payload, slot),
                false => Said::Later,
            };
            if matches!(said, Said::Later | Said::Gone) {
                client.is_open &= matches!(said, Said::Later);
                client.backlog.push_front(waiting);
                return;
            }
            client.backlog_bytes -= Waiting::bytes(payload.len());
            match said {
                Said::Failed(error) if *kind != Kind::Failure => {
                    let text = format!("the reply could not be sent: {error}");
                    let failure = client.failure(Cause::Dropped, 0, &text);
                    client.backlog_bytes += Waiting::bytes(failure.len());
                    let (kind, payload, slot) = (Kind::Failure, failure.into(), OnceCell::new());
                    client.backlog.push_front(Waiting { kind, payload, slot, ..waiting });
                }
                _ => {}
            }
        }
    }
}
