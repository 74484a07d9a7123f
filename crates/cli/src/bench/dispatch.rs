//! The process that a measurement has started: it does its part, then leaves.

use super::part::Part;
use super::{call, connect, exchange, fanout, large, latency, scale, throughput, wake};
use crate::children::ParentArgs;
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome};

pub(crate) fn run(domain: &DomainArgs, parent: &ParentArgs, part: &Part) -> CommandResult {
    let interrupt = Interrupt::install()?;
    parent.follow()?;
    match play(domain, part, &interrupt) {
        // When it is asked to leave, others may have left before it.
        Err(_) if interrupt.signal().is_some() => Ok(Outcome::Done),
        result => result.map(|()| Outcome::Done),
    }
}

fn play(domain: &DomainArgs, part: &Part, interrupt: &Interrupt) -> anyhow::Result<()> {
    match part {
        Part::Receive { nodes, cpu } => scale::channels::receive(domain, nodes, *cpu, interrupt),
        Part::Connected { to, count } => scale::channels::connected(domain, to, *count, interrupt),
        Part::Nodes { count } => scale::joins::nodes(domain, *count, interrupt),
        Part::Visitor => scale::news::visitor(domain, interrupt),
        Part::Patterns { count, cpu } => scale::topics::patterns(domain, *count, *cpu, interrupt),
        Part::Connect { to, via, size, count, cpu } => {
            connect::rounds(domain, (to, *via), (*size, *count), *cpu, interrupt)
        }
        Part::Echo { node, to, via, cpu } => latency::echo(domain, (node, to, *via), *cpu, interrupt),
        Part::ServeCancelled { cpu } => call::cancel::serve(domain, *cpu, interrupt),
        Part::ServeUnread { cpu } => call::unread::serve(domain, *cpu, interrupt),
        Part::Clients { count } => call::clients(domain, *count, interrupt),
        Part::Serve { spins, cpu } => call::serve(domain, *spins, *cpu, interrupt),
        Part::AnswerEventfd { socket, cpu } => call::answer_eventfd(socket, *cpu, interrupt),
        Part::Sink { node, via, cpu } => throughput::sink(domain, node, *via, *cpu, interrupt),
        Part::Exchange(exchange) => exchange::side(domain, exchange, interrupt),
        Part::Sleepers { socket, cpu } => wake::sleepers(domain, socket, *cpu, interrupt),
        Part::ViewInPlace { subscribers, size, cpu } => {
            large::in_place::view(domain, *subscribers, *size, *cpu, interrupt)
        }
        Part::ViewInFull { subscribers, cpu } => large::in_full::view(domain, *subscribers, *cpu, interrupt),
        Part::Crowd { size, cpu } => fanout::crowd(domain, *size, *cpu, interrupt),
    }
}
