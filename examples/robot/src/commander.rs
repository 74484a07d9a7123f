//! Sends numbered commands to the planner, none of which may be lost or carried out twice, and asks it for routes. It outlives the planner:
//! what that has not processed goes to its next incarnation. How a killed commander goes on: [`crate::once`].

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use librpc::zerocopy::{FromBytes, Immutable, IntoBytes};
use librpc::{CallError, Node, Plain, TypedCallError, TypedClient, TypedSender};

use crate::messages::{Command, Goal, PLANNER, ROUTES, Route};
use crate::once::Numbers;
use crate::process::Beat;
use crate::record::Record;

const COMMANDS_HERTZ: u32 = 100;
const CALLS_HERTZ: u32 = 20;
/// How long the planner may be away.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take for a route.
const LIMIT: Duration = Duration::from_secs(1);

/// What it notes of each call.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "librpc::zerocopy")]
#[repr(C)]
pub(crate) struct Called {
    /// The place in [`OUTCOMES`].
    pub(crate) outcome: u64,
    pub(crate) took_ns: u64,
}

type RouteClient = TypedClient<Plain<Goal>, Plain<Route>>;

/// How a call may end.
pub(crate) const OUTCOMES: [&str; 6] =
    ["answered", "no server", "died with it not taken", "with it taken", "deadline", "other"];

pub(crate) fn run(files: &Path) -> anyhow::Result<()> {
    let (commands, calls) = (Beat::new(COMMANDS_HERTZ)?, Beat::new(CALLS_HERTZ)?);
    let mut numbers = Numbers::open(files.join("commander"))?;
    let record = Record::open(files.join("commander.calls"))?;
    let node = Node::open("commander")?;
    let client = node.client_of::<Plain<Goal>, Plain<Route>>(ROUTES)?;
    let asking = thread::spawn(move || ask(&client, calls, record));
    let mut planner = node.sender_builder(PLANNER).wait(PATIENCE).open_of::<Plain<Command>>()?;
    planner.set_redelivery(Some(PATIENCE));
    command(&mut planner, commands, &mut numbers)?;
    asking.join().expect("it does not panic")
}

fn command(planner: &mut TypedSender<Plain<Command>>, mut beat: Beat, numbers: &mut Numbers) -> anyhow::Result<()> {
    while beat.next() || numbers.are_behind() {
        planner.send(&Command { head: numbers.next(), x: 1.0, y: 2.0 })?;
        numbers.sent(planner.acknowledged())?;
    }
    Ok(planner.flush(PATIENCE)?)
}

fn ask(client: &RouteClient, mut beat: Beat, mut record: Record<Called>) -> anyhow::Result<()> {
    while beat.next() {
        let begun = Instant::now();
        let outcome = match client.call(&Goal { x: 3.0, y: 4.0 }, LIMIT) {
            Ok(_) => 0,
            Err(TypedCallError::Call(CallError::NoServer { .. })) => 1,
            Err(TypedCallError::Call(CallError::ServerDied { taken: false, .. })) => 2,
            Err(TypedCallError::Call(CallError::ServerDied { taken: true, .. })) => 3,
            Err(TypedCallError::Call(CallError::Deadline { .. })) => 4,
            Err(error) => {
                eprintln!("commander: {error}");
                5
            }
        };
        record.add(Called { outcome, took_ns: begun.elapsed().as_nanos() as u64 })?;
    }
    Ok(())
}
