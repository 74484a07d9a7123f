//! A node's place in its domain: its membership, its files, and the listener on its socket.
//!
//! Anybody who may write the directory can remove its files: a login manager that clears up, a cleaner that takes what is
//! old, `rm`. What is missing is restored, and what is still there is kept: the id is never free in between.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::fault;
use crate::name::{Incarnation, InvalidNodeId};
use crate::registry::domain::{Domain, DomainError};
use crate::registry::membership::Membership;
use crate::registry::registration::{AnnounceError, JoinError, Registration, Standing};
use crate::sys::reactor::Reactor;
use crate::sys::socket::Socket;
use crate::sys::{Descriptor, OsError};
use crate::topic::InvalidTopic;
use crate::wire::ListedInbox;

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The id is not valid.
    #[error(transparent)]
    InvalidId(#[from] InvalidNodeId),
    /// A living node has this id.
    #[error("node {id:?} is held by pid {pid} of uid {uid} (`librpc nodes` shows it)")]
    IdInUse {
        /// The id.
        id: Arc<str>,
        /// The process that holds it, as that process says.
        pid: u32,
        /// Its user.
        uid: u32,
    },
    /// A dead node of another user has left this id behind, and only that user, the domain's owner or root can sweep it.
    #[error("node {id:?} was left behind by uid {uid}: that user, the domain's owner or root must run `librpc clean`")]
    LeftBehind {
        /// The id.
        id: Arc<str>,
        /// The user whose node it was.
        uid: u32,
    },
    /// Another process has been sweeping what a dead node of this id has left for over 2 s.
    #[error("another process is removing what a dead node {id:?} has left, and makes no progress: is it stopped?")]
    BeingSwept {
        /// The id.
        id: Arc<str>,
    },
    /// A pattern of [`crate::NodeBuilder::readers`] is not valid.
    #[error(transparent)]
    InvalidTopic(#[from] InvalidTopic),
    /// The readers of a topic cannot be decided by a function: a publish would have to wait for it.
    #[error("who may read {pattern:?} cannot be decided by a function, because a publish would wait for it: use rules")]
    ReadersFunction {
        /// The pattern.
        pattern: Arc<str>,
    },
    /// The domain could not be entered.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

impl From<AnnounceError> for OpenError {
    fn from(error: AnnounceError) -> Self {
        match error {
            AnnounceError::Os(error) => error.into(),
            other => OsError::new("list the inboxes", std::io::Error::other(other)).into(),
        }
    }
}

impl OpenError {
    /// Whether another process is just in the way.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::BeingSwept { .. } | Self::Domain(DomainError::Busy { .. }))
    }
}

/// Whose place it is.
pub(crate) struct Owner<'o> {
    pub(crate) id: &'o str,
    pub(crate) incarnation: Incarnation,
    pub(crate) reactor: &'o Arc<Reactor>,
    /// Has the background thread serve a listening socket, under this token.
    pub(crate) listen: &'o dyn Fn(Socket, u64) -> Result<(), OsError>,
}

/// A node's place in its domain.
#[derive(Debug)]
pub(crate) struct Place {
    registration: Registration,
    /// The listener, as the background thread knows it.
    listener: u64,
}

/// How a look at a place ended.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub(crate) enum Restored {
    InPlace,
    /// Something was missing, and is there again. Look once more, because more may be missing.
    Anew(Former),
}

/// What was replaced. It is given up where no lock is held.
#[derive(Debug)]
pub(crate) enum Former {
    Place(Place),
    Membership(Membership),
    Listener(u64),
}

impl Place {
    /// Takes the owner's id in a domain, and listens there. Waits for other processes that are in the way, up to a limit.
    pub(crate) fn take(domain: &Domain, owner: &Owner<'_>, limit: Duration) -> Result<Self, OpenError> {
        Self::take_in(Membership::join(domain, limit)?, owner, &[], limit)
    }

    fn take_in(
        membership: Membership,
        owner: &Owner<'_>,
        inboxes: &[ListedInbox],
        limit: Duration,
    ) -> Result<Self, OpenError> {
        let id = || Arc::from(owner.id);
        let registration = Registration::join(membership, owner.id, owner.incarnation, limit);
        let mut registration = registration.map_err(|error| match error {
            JoinError::InUse { pid, uid } => OpenError::IdInUse { id: id(), pid, uid },
            JoinError::NotOurs { uid } => OpenError::LeftBehind { id: id(), uid },
            JoinError::BeingSwept => OpenError::BeingSwept { id: id() },
            JoinError::Domain(error) => error.into(),
            JoinError::Os(error) => error.into(),
        })?;
        let listener = match serve(&mut registration, owner) {
            Ok(listener) => listener,
            Err(error) => {
                registration.leave();
                return Err(error.into());
            }
        };
        let mut place = Self { registration, listener };
        // Only now: a process that finds the node can connect to it.
        match place.announce(inboxes) {
            Ok(()) => {
                fault!("join.announced");
                Ok(place)
            }
            Err(error) => {
                place.give_up(owner.reactor);
                Err(error.into())
            }
        }
    }

    /// Looks for what somebody has removed, and restores it: the socket, `generation`, or all of it. Never waits.
    pub(crate) fn restore(&mut self, owner: &Owner<'_>, inboxes: &[ListedInbox]) -> Result<Restored, OpenError> {
        let former = self.membership();
        let membership = match self.registration.standing()? {
            Standing::Current => return Ok(Restored::InPlace),
            Standing::WithoutSocket => {
                let former = std::mem::replace(&mut self.listener, serve(&mut self.registration, owner)?);
                return Ok(Restored::Anew(Former::Listener(former)));
            }
            Standing::WithoutGeneration => {
                let membership = Membership::join(former.domain(), Duration::ZERO)?;
                if membership.shares_directory_with(former)? {
                    membership.bump(owner.id)?;
                    let former = self.registration.change_membership(membership);
                    return Ok(Restored::Anew(Former::Membership(former)));
                }
                membership
            }
            Standing::Removed => Membership::join(former.domain(), Duration::ZERO)?,
        };
        let new = Self::take_in(membership, owner, inboxes, Duration::ZERO)?;
        Ok(Restored::Anew(Former::Place(std::mem::replace(self, new))))
    }

    /// Publishes the list of the node's inboxes.
    pub(crate) fn announce(&mut self, inboxes: &[ListedInbox]) -> Result<(), AnnounceError> {
        self.registration.announce(inboxes)
    }

    /// The files without which nobody finds the node.
    pub(crate) fn files(&self) -> (Arc<Descriptor>, Vec<PathBuf>) {
        self.registration.files()
    }

    pub(crate) fn membership(&self) -> &Membership {
        self.registration.membership()
    }

    /// Gives the id up, hangs up on those that are connecting, and leaves the domain.
    pub(crate) fn give_up(self, reactor: &Arc<Reactor>) {
        let listener = reactor.forget(self.listener);
        self.registration.leave();
        drop(listener);
    }
}

/// Binds a node's socket, and has it served; returns the listener's token.
fn serve(registration: &mut Registration, owner: &Owner<'_>) -> Result<u64, OsError> {
    let token = owner.reactor.token();
    let is_private = registration.membership().domain().group().is_none();
    registration.listen(|socket| {
        socket.listen(is_private)?;
        fault!("join.listening");
        (owner.listen)(socket, token)
    })?;
    Ok(token)
}

impl Former {
    pub(crate) fn give_up(self, id: &str, reactor: &Arc<Reactor>) {
        match self {
            Self::Place(place) => {
                reactor.retire(place.listener);
                place.registration.leave();
            }
            Self::Membership(membership) => {
                // Publishers that watch the former counter look for the new one.
                if let Err(error) = membership.bump(id) {
                    tracing::warn!(%error, node = id, "publishers may not see that the domain is another one now");
                }
                membership.leave();
            }
            Self::Listener(listener) => reactor.retire(listener),
        }
    }
}
