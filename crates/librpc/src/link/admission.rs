//! Who may connect: decided by what the kernel knows of the peer.

use std::cell::OnceCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use crate::name::Peer;
use crate::sys::process;

type Decide = dyn Fn(&Peer) -> bool + Send + Sync;

/// What a process must be to be admitted, as the kernel knows it: a part of an [`Admission`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// A process of the node's own user.
    SameUser,
    /// A process of this user.
    Uid(u32),
    /// A process of this group, primary or supplementary.
    Gid(u32),
    /// This process.
    Pid(u32),
    /// A process that runs this program (an absolute path). Advisory only: see [`Admission::executable`].
    Executable(PathBuf),
}

impl Rule {
    fn matches<'p>(&self, peer: &Peer, program: impl FnOnce() -> Option<&'p PathBuf>) -> bool {
        match self {
            Self::SameUser => peer.uid == process::uid(),
            Self::Uid(uid) => peer.uid == *uid,
            Self::Gid(gid) => peer.gid == *gid || peer.groups.contains(gid),
            Self::Pid(pid) => peer.pid != 0 && peer.pid == *pid,
            Self::Executable(path) => program() == Some(path),
        }
    }
}

/// Whom a node admits: the processes that match one of its rules. The default is the node's own user.
///
/// Uids, gids and pids come from the kernel and cannot be forged. Executables are advisory: a program can be replaced or
/// traced by the user who runs it.
///
/// ```
/// use librpc::{Admission, Rule};
///
/// let either = Admission::same_user().uid(1001).gid(100);
/// let both = Admission::nobody().all_of([Rule::Uid(1001), Rule::Executable("/usr/bin/camera".into())]);
/// let by_name = Admission::nobody().function(|peer| &*peer.node == "camera");
/// ```
#[derive(Clone)]
pub struct Admission {
    /// Each of them is enough; each is a list of rules that must all match.
    any_of: Vec<Vec<Rule>>,
    function: Option<Arc<Decide>>,
}

impl Admission {
    /// Admits the processes of the node's own user.
    pub fn same_user() -> Self {
        Self::nobody().all_of([Rule::SameUser])
    }

    /// Admits nobody, until rules are added.
    pub fn nobody() -> Self {
        Self { any_of: Vec::new(), function: None }
    }

    /// Admits this user, too.
    pub fn uid(self, uid: u32) -> Self {
        self.all_of([Rule::Uid(uid)])
    }

    /// Admits the members of this group, too: primary or supplementary.
    pub fn gid(self, gid: u32) -> Self {
        self.all_of([Rule::Gid(gid)])
    }

    /// Admits this process, too.
    pub fn pid(self, pid: u32) -> Self {
        self.all_of([Rule::Pid(pid)])
    }

    /// Admits processes that run this program, too (an absolute path). Advisory only.
    ///
    /// The kernel shows which program a process runs only to its own user, and not even there if the program has file
    /// capabilities; to root always. A peer whose program cannot be read is refused, and the refusal says so.
    pub fn executable(self, path: impl Into<PathBuf>) -> Self {
        self.all_of([Rule::Executable(path.into())])
    }

    /// Admits processes that match all of these rules, too. An empty list admits nobody.
    pub fn all_of(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut all: Vec<Rule> = rules.into_iter().collect();
        // What may fail is looked at last, and only if everything else matches.
        all.sort_by_key(|rule| matches!(rule, Rule::Executable(_)));
        if !all.is_empty() {
            self.any_of.push(all);
        }
        self
    }

    /// Asks this function about each peer that no other rule admits. It runs on a thread of its own, one per connecting peer,
    /// and may take its time: only that peer waits. How many threads there are is bounded: [`crate::Limits::decisions`].
    pub fn function(mut self, decide: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        self.function = Some(Arc::new(decide));
        self
    }

    /// What the rules say without the function. `None`: ask the function.
    pub(crate) fn by_rules(&self, peer: &Peer) -> Option<Result<(), NotAdmitted>> {
        match self.looked_at(peer) {
            Err(_) if self.function.is_some() => None,
            decided => Some(decided),
        }
    }

    /// What the function says about a peer that no rule admits; one that panics says no.
    pub(crate) fn by_function(&self, peer: &Peer) -> Result<(), NotAdmitted> {
        let decide = || self.function.as_ref().is_some_and(|decide| decide(peer));
        let admitted = catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|_| {
            tracing::error!("the admission function panicked: refused");
            false
        });
        if admitted { Ok(()) } else { self.looked_at(peer) }
    }

    fn looked_at(&self, peer: &Peer) -> Result<(), NotAdmitted> {
        let executable = OnceCell::new();
        let program = || executable.get_or_init(|| process::executable(peer.pid)).as_ref().ok();
        if self.any_of.iter().any(|all| all.iter().all(|rule| rule.matches(peer, program))) {
            return Ok(());
        }
        Err(NotAdmitted { unreadable: executable.into_inner().and_then(Result::err) })
    }
}

/// Why a peer is not admitted: no rule matches. Printed after "does not admit ...".
#[derive(Debug)]
pub(crate) struct NotAdmitted {
    /// The program that it runs was asked for, and could not be read.
    unreadable: Option<std::io::Error>,
}

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(error) = &self.unreadable else { return Ok(()) };
        let takes = "that takes a peer of the same user without file capabilities, or a node run by root";
        write!(f, ": its program cannot be read ({error}); {takes}")
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::same_user()
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("any_of", &self.any_of).field("function", &self.function.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Incarnation;

    fn peer(uid: u32) -> Peer {
        let (node, groups) = ("n".into(), [7, 8].into());
        Peer { node, incarnation: Incarnation::from_bytes([0; 16]), pid: 5, uid, gid: 6, groups }
    }

    fn admits(admission: &Admission, peer: &Peer) -> bool {
        admission.by_rules(peer).expect("there is no function").is_ok()
    }

    #[test]
    fn rules_are_alternatives() {
        let me = process::uid();
        let other = peer(me + 1);
        assert!(admits(&Admission::same_user(), &peer(me)));
        assert!(!admits(&Admission::same_user(), &other));
        assert!(!admits(&Admission::nobody(), &peer(me)));
        assert!(admits(&Admission::nobody().uid(me + 1), &other));
        assert!(admits(&Admission::nobody().gid(6), &other));
        assert!(admits(&Admission::nobody().gid(8), &other));
        assert!(!admits(&Admission::nobody().gid(9), &other));
        assert!(admits(&Admission::nobody().pid(5), &other));
        assert!(admits(&Admission::same_user().uid(9).gid(9).pid(5), &other), "the last one matches");
        // Of processes in a pid namespace that is not visible from here the kernel says 0.
        let invisible = Peer { pid: 0, ..peer(me + 1) };
        assert!(!admits(&Admission::nobody().pid(0), &invisible));
        let asked = Admission::nobody().function(|peer| &*peer.node == "n");
        assert!(asked.by_rules(&other).is_none() && asked.by_function(&other).is_ok());
        let unasked = Admission::nobody().uid(me + 1).function(|_| panic!("a rule admits it already"));
        assert!(unasked.by_rules(&other).expect("it is decided").is_ok());
        let refused = Admission::nobody().function(|_| panic!("a function that fails"));
        assert!(refused.by_function(&other).is_err());
    }

    #[test]
    fn rules_of_one_list_must_all_match() {
        let mine = Peer { pid: process::pid(), ..peer(process::uid()) };
        let program = std::env::current_exe().expect("a test has a path");
        let (user, group) = (Rule::SameUser, Rule::Gid(8));
        let (runs, other) = (Rule::Executable(program), Rule::Executable("/bin/other".into()));
        let all = |rules: &[&Rule]| Admission::nobody().all_of(rules.iter().map(|&rule| rule.clone()));
        assert!(admits(&all(&[&user, &group, &runs]), &mine));
        assert!(admits(&all(&[&runs, &user]), &mine));
        assert!(!admits(&all(&[&user, &other]), &mine));
        assert!(!admits(&all(&[&runs, &Rule::Uid(mine.uid + 1)]), &mine));
        assert!(!admits(&all(&[&user, &Rule::Pid(mine.pid + 1)]), &mine));
        assert!(!admits(&all(&[]), &mine), "nothing to match is no match");
        let either = all(&[&user, &other]).all_of([runs, group]);
        assert!(admits(&either, &mine), "the second list matches");
    }

    #[test]
    fn a_program_that_cannot_be_read_is_named_in_the_refusal() {
        let why = |admission: Admission, peer: &Peer| match admission.by_rules(peer) {
            Some(Err(why)) => why.to_string(),
            _ => panic!("{peer:?} is not refused"),
        };
        let invisible = Peer { pid: 0, ..peer(1) };
        let text = why(Admission::nobody().executable("/bin/x"), &invisible);
        assert!(text.contains("cannot be read (No such file or directory") && text.contains("same user"), "{text}");
        assert_eq!(why(Admission::nobody().uid(2), &invisible), "", "nobody asked which program it runs");
        let rules = [Rule::Executable("/bin/x".into()), Rule::Uid(2)];
        assert_eq!(why(Admission::nobody().all_of(rules), &invisible), "", "it would not match anyway");
        let readable = Peer { pid: process::pid(), ..peer(1) };
        assert_eq!(why(Admission::nobody().executable("/bin/x"), &readable), "", "it runs another one");
    }
}
