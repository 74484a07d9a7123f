//! The errors of the library, as statuses and numbers.

use librpc::{
    CallError, CallbackError, CloseError, ConnectError, DomainError, FlushError, InboxError, InvalidNodeId,
    InvalidSchema, InvalidTopic, LoanError, OpenError, OsError, PublishError, RecvError, ReplyError, ReturnedError,
    SchemaMismatch, SendError, ServeError, WaitSetError,
};

use crate::border::ns;
use crate::error::librpc_status as S;
use crate::error::{Details, Failure};

impl From<&OsError> for Failure {
    fn from(error: &OsError) -> Self {
        Self::new(S::Os, error).with(|details| details.code = error.source.raw_os_error().unwrap_or(0))
    }
}

impl From<OsError> for Failure {
    fn from(error: OsError) -> Self {
        (&error).into()
    }
}

impl From<InvalidNodeId> for Failure {
    fn from(error: InvalidNodeId) -> Self {
        Self::new(S::InvalidName, error)
    }
}

impl From<InvalidTopic> for Failure {
    fn from(error: InvalidTopic) -> Self {
        match &error {
            InvalidTopic::TooMany { topic } => Self::new(S::TooMany, &error).name(topic),
            InvalidTopic::OtherType { topic } => Self::new(S::Mismatch, &error).name(topic),
            _ => Self::new(S::InvalidName, error),
        }
    }
}

impl From<InvalidSchema> for Failure {
    fn from(error: InvalidSchema) -> Self {
        Self::new(S::InvalidName, error)
    }
}

impl From<DomainError> for Failure {
    fn from(error: DomainError) -> Self {
        match &error {
            DomainError::Os(os) => os.into(),
            _ => Self::new(S::Domain, error),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Domain(error) => error.into(),
            OpenError::Os(error) => error.into(),
            OpenError::IdInUse { ref id, pid, uid } => Self::new(S::IdInUse, &error).node(id).with(|details| {
                details.pid = pid;
                details.uid = uid;
            }),
            OpenError::LeftBehind { ref id, uid } => {
                Self::new(S::IdInUse, &error).node(id).with(|details| details.uid = uid)
            }
            OpenError::BeingSwept { ref id } => Self::new(S::IdInUse, &error).node(id),
            OpenError::ReadersFunction { .. } => Self::argument(error),
            _ => Self::new(S::InvalidName, error),
        }
    }
}

impl From<InboxError> for Failure {
    fn from(error: InboxError) -> Self {
        let failure = |status, node: &str| Self::new(status, &error).node(node);
        match &error {
            InboxError::InvalidTopic(_) | InboxError::Type(_) | InboxError::InvalidName(_) => {
                Self::new(S::InvalidName, &error)
            }
            InboxError::Taken { node } => failure(S::Taken, node),
            InboxError::TooMany { node } | InboxError::ListTooLong { node, .. } => failure(S::TooMany, node),
            InboxError::Closed { node } => failure(S::Closed, node),
            InboxError::Removed { node, .. } => failure(S::Domain, node),
            InboxError::Os(error) => error.into(),
            _ => Self::argument(&error), // the number of patterns, the capacity
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Inbox(error) => error.into(),
            _ => Self::new(S::InvalidName, error),
        }
    }
}

fn mismatch(error: &SchemaMismatch, message: impl ToString) -> Failure {
    Failure::new(S::Mismatch, message).node(&error.node).name(&error.topic)
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let failure = |status, node: &str| Self::new(status, &error).node(node);
        match &error {
            ConnectError::NotFound { node } => failure(S::NotFound, node),
            ConnectError::NoInbox { node } => failure(S::NoInbox, node),
            ConnectError::Refused { node, reason, .. } => failure(S::Refused, node).reason(*reason),
            ConnectError::Mismatch(between) => mismatch(between, &error),
            ConnectError::Broken { node, .. } => failure(S::Broken, node),
            ConnectError::Closed { node } => failure(S::Closed, node),
            ConnectError::Os(error) => error.into(),
            _ => Self::new(S::InvalidName, &error),
        }
    }
}

impl From<&SendError> for Failure {
    fn from(error: &SendError) -> Self {
        let failure = |status, node: &str| Self::new(status, error).node(node).count(error.undelivered());
        let waited = |time| move |details: &mut Details| details.wait_ns = ns(time);
        match error {
            SendError::Full { node, limit } => failure(S::Full, node).with(waited(*limit)),
            SendError::Unanswered { node, limit } => failure(S::Unanswered, node).with(waited(*limit)),
            SendError::Dropped { node } => failure(S::Dropped, node),
            SendError::Stuck { node } => failure(S::Stuck, node),
            SendError::Mismatch(between) => mismatch(between, error),
            SendError::RateLimited { to, wait } => failure(S::RateLimited, to).with(waited(*wait)),
            SendError::TooLarge { node, bytes, max } => failure(S::TooLarge, node).with(|details| {
                details.bytes = *bytes as u64;
                details.max = *max as u64;
            }),
            SendError::NoMemory { node, .. } => failure(S::NoMemory, node),
            SendError::ReceiverGone { node, .. } => failure(S::ReceiverGone, node),
            SendError::Refused { node, reason, .. } => failure(S::Refused, node).reason(*reason),
            SendError::Closed { node } => failure(S::Closed, node),
            SendError::Forked => Self::new(S::Forked, error),
            SendError::Os(error) => error.into(),
            _ => Self::new(S::Internal, error),
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        (&error).into()
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match &error {
            PublishError::RateLimited { topic, wait } => {
                Self::new(S::RateLimited, &error).name(topic).with(|details| details.wait_ns = ns(*wait))
            }
            PublishError::Closed { node } => Self::new(S::Closed, &error).node(node),
            PublishError::Forked => Self::new(S::Forked, &error),
            PublishError::Os(error) => error.into(),
            _ => Self::new(S::Internal, &error),
        }
    }
}

impl From<LoanError> for Failure {
    fn from(error: LoanError) -> Self {
        match &error {
            LoanError::Exhausted { bytes, limit, .. } => Self::new(S::NoMemory, &error).with(|details| {
                details.bytes = *bytes as u64;
                details.max = *limit;
            }),
            LoanError::Closed { node } => Self::new(S::Closed, &error).node(node),
            LoanError::Forked => Self::new(S::Forked, &error),
            LoanError::Os(error) => (&**error).into(),
            _ => Self::new(S::Internal, &error),
        }
    }
}

impl From<FlushError> for Failure {
    fn from(error: FlushError) -> Self {
        match &error {
            FlushError::TimedOut { unprocessed } => Self::new(S::TimedOut, &error).count(*unprocessed),
            FlushError::Lost { lost, .. } => Self::new(S::Lost, &error).count(*lost),
            FlushError::Forked => Self::new(S::Forked, &error),
            _ => Self::new(S::Internal, &error),
        }
    }
}

impl From<CloseError> for Failure {
    fn from(error: CloseError) -> Self {
        Self::new(S::TimedOut, &error).node(&error.node).count(error.unprocessed)
    }
}

impl From<ReturnedError> for Failure {
    fn from(error: ReturnedError) -> Self {
        match &error {
            ReturnedError::Dropped { messages } => Self::new(S::Lost, &error).count(*messages),
            ReturnedError::Forked => Self::new(S::Forked, &error),
            _ => Self::new(S::Internal, &error),
        }
    }
}

impl From<&RecvError> for Failure {
    fn from(error: &RecvError) -> Self {
        match error {
            RecvError::Closed { node } => Self::new(S::Closed, error).node(node),
            RecvError::Forked => Self::new(S::Forked, error),
            RecvError::TooManyHeld { node } => Self::new(S::TooManyHeld, error).node(node),
            RecvError::Mismatch(between) => mismatch(between, error),
            RecvError::Os(error) => error.into(),
            _ => Self::new(S::Internal, error),
        }
    }
}

impl From<RecvError> for Failure {
    fn from(error: RecvError) -> Self {
        (&error).into()
    }
}

impl From<WaitSetError> for Failure {
    fn from(error: WaitSetError) -> Self {
        match &error {
            WaitSetError::Taken { .. } => Self::new(S::Taken, &error),
            WaitSetError::Forked => Self::new(S::Forked, &error),
            WaitSetError::Os(error) => error.into(),
            _ => Self::new(S::Internal, &error),
        }
    }
}

impl From<CallbackError> for Failure {
    fn from(error: CallbackError) -> Self {
        match &error {
            CallbackError::Recv(error) => error.into(),
            _ => Self::new(S::Callback, &error),
        }
    }
}

impl From<&CallError> for Failure {
    fn from(error: &CallError) -> Self {
        let failure = |status, service: &str| Self::new(status, error).name(service);
        match error {
            CallError::NoServer { service, node } => {
                let failure = failure(S::NoServer, service);
                match node {
                    Some(node) => failure.node(node),
                    None => failure,
                }
            }
            CallError::Deadline { service, timeout } => {
                failure(S::Deadline, service).with(|details| details.wait_ns = ns(*timeout))
            }
            CallError::Cancelled { service } => failure(S::Cancelled, service),
            CallError::ServerDied { service, node, taken } => {
                failure(S::ServerDied, service).node(node).with(|details| details.taken = *taken)
            }
            CallError::Busy { service, .. } => failure(S::Busy, service),
            CallError::Unimplemented { service, node, .. } => failure(S::Unimplemented, service).node(node),
            CallError::Mismatch { service, node, .. } => failure(S::Mismatch, service).node(node),
            CallError::Failed { service, node, code, .. } => {
                failure(S::Failed, service).node(node).with(|details| details.code = *code)
            }
            CallError::Refused { service, node, reason, .. } => failure(S::Refused, service).node(node).reason(*reason),
            CallError::Send { service, source } => Self::from(&**source).name(service),
            CallError::Receive { service, source } => Self::from(&**source).name(service),
            CallError::Lookup { service, source } => Self::from(&**source).name(service),
            CallError::Closed { node } => Self::new(S::Closed, error).node(node),
            CallError::Forked => Self::new(S::Forked, error),
            _ => Self::new(S::Internal, error),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        (&error).into()
    }
}

impl From<ReplyError> for Failure {
    fn from(error: ReplyError) -> Self {
        let failure = |status, node: &str| Self::new(status, &error).node(node);
        match &error {
            ReplyError::TooLarge { node, bytes, max } => failure(S::TooLarge, node).with(|details| {
                details.bytes = *bytes as u64;
                details.max = *max as u64;
            }),
            ReplyError::Dropped { node } => failure(S::Dropped, node),
            ReplyError::OverLimit { node, uid, limit } => failure(S::TooMany, node).with(|details| {
                details.uid = *uid;
                details.max = *limit;
            }),
            ReplyError::Cancelled { node } => failure(S::Cancelled, node),
            ReplyError::Deadline { node } => failure(S::Deadline, node),
            ReplyError::Closed { node } => failure(S::Closed, node),
            ReplyError::Send(error) => (&**error).into(),
            ReplyError::Receive(error) => (&**error).into(),
            ReplyError::Forked => Self::new(S::Forked, &error),
            _ => Self::new(S::Internal, &error),
        }
    }
}
