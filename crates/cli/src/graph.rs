//! `librpc graph`: who sends what to whom, as a picture.

mod html; // a self-contained page

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use crate::domain::DomainArgs;
use crate::latency::grouped;
use crate::options::OverArgs;
use crate::outcome::{CommandResult, Outcome};
use crate::snapshot::{Looker, Rates, Snapshot, State};

/// Draws the nodes, topics and services of the domain, with rates
///
/// Nodes are asked from outside: nothing is joined or created. If there is no domain, nothing is drawn.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc graph                                     # Mermaid, for Markdown
  librpc graph --format dot | dot -Tsvg > graph.svg
  librpc graph --format html > graph.html          # a self-contained page")]
pub(crate) struct Args {
    /// The language of the drawing
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    format: Format,
    #[command(flatten)]
    over: OverArgs,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Format {
    Mermaid,
    Dot,
    Html,
}

/// A node, a pattern that nodes have subscribed to, or a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    Node(String),
    Topic(String),
    Service(String),
}

impl Point {
    fn name(&self) -> &str {
        match self {
            Self::Node(name) | Self::Topic(name) | Self::Service(name) => name,
        }
    }
}

/// The traffic from one point to another.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    per_second: f64,
    bytes_per_second: f64,
    lost: u64,
    /// Of calls.
    failed: u64,
}

#[derive(Debug, Default)]
struct Graph {
    /// Each with its warnings.
    points: BTreeMap<Point, Option<&'static str>>,
    /// What is wanted from a topic, by a node's own inbox, or of a service.
    types: BTreeMap<Point, BTreeSet<String>>,
    flows: BTreeMap<(Point, Point), Flow>,
}

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let mut looker = Looker::new(domain.domain()?);
    let earlier = looker.look()?;
    if earlier.nodes.is_empty() {
        return Ok(Outcome::Done);
    }
    std::thread::sleep(args.over.over);
    let mut snapshot = looker.look()?;
    snapshot.compare_with(&earlier);
    let graph = Graph::of(&snapshot);
    let text = match args.format {
        Format::Mermaid => graph.mermaid(),
        Format::Dot => graph.dot(),
        Format::Html => html::page(&graph, &domain.domain()?.path().display().to_string()),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

impl Flow {
    fn label(self) -> String {
        let rate = if self.per_second > 0.0 && self.per_second < 10.0 {
            format!("{:.1}/s", self.per_second)
        } else {
            format!("{}/s", grouped(self.per_second.round() as u64))
        };
        match (self.lost, self.failed) {
            (0, 0) => rate,
            (0, failed) => format!("{rate}, {} failed", grouped(failed)),
            (lost, _) => format!("{rate}, {} lost", grouped(lost)),
        }
    }
}

impl Graph {
    fn of(snapshot: &Snapshot) -> Self {
        let mut graph = Self::default();
        for node in &snapshot.nodes {
            let wrong = (node.state != State::Alive).then(|| node.state.name());
            graph.points.insert(Point::Node(node.id.clone()), wrong);
        }
        for inbox in &snapshot.inboxes {
            for (address, text) in inbox.addresses.iter().zip(inbox.types.iter().cycle()) {
                let point = match inbox.is_of_calls {
                    true => Point::Service,
                    false if *address == inbox.node => Point::Node,
                    false => Point::Topic,
                };
                graph.types.entry(point(address.clone())).or_default().insert(text.clone());
            }
        }
        for inbox in snapshot.inboxes.iter().filter(|inbox| !inbox.is_of_calls) {
            for topic in inbox.addresses.iter().filter(|address| **address != inbox.node) {
                let (topic, node) = (Point::Topic(topic.clone()), Point::Node(inbox.node.clone()));
                graph.points.entry(topic.clone()).or_default();
                graph.flows.entry((topic, node)).or_default();
            }
        }
        for row in &snapshot.services {
            let (node, service) = (Point::Node(row.node.clone()), Point::Service(row.stats.service.to_string()));
            graph.points.entry(service.clone()).or_default();
            let ends = if row.is_server() { (service, node) } else { (node, service) };
            let flow = graph.flows.entry(ends).or_default();
            flow.per_second += row.recent.map_or(0.0, |recent| recent.calls);
            flow.failed += row.stats.failures.total();
        }
        for row in snapshot.channels.iter().filter(|row| !row.is_of_calls) {
            let rates = row.rates();
            let (from, to) = (Point::Node(row.from.clone()), Point::Node(row.to.clone()));
            let topics: Vec<Point> =
                row.addresses.iter().filter(|address| **address != row.to).cloned().map(Point::Topic).collect();
            let mut add = |from: &Point, to: &Point, rates: Rates| {
                graph.points.entry(from.clone()).or_default();
                graph.points.entry(to.clone()).or_default();
                let flow = graph.flows.entry((from.clone(), to.clone())).or_default();
                flow.per_second += rates.sent;
                flow.bytes_per_second += rates.bytes;
                flow.lost += row.lost();
            };
            match &topics[..] {
                [] => add(&from, &to, rates),
                // A channel that several patterns lead to is drawn through the first one.
                [topic, ..] => {
                    add(&from, topic, rates);
                    add(topic, &to, rates);
                }
            }
        }
        graph
    }

    /// A point's name, with the types that are wanted from it.
    pub(super) fn name(&self, point: &Point) -> String {
        let types: Vec<&str> = self.types.get(point).into_iter().flatten().map(String::as_str).collect();
        if types.is_empty() { point.name().to_owned() } else { format!("{} : {}", point.name(), types.join(", ")) }
    }

    fn numbers(&self) -> BTreeMap<&Point, usize> {
        self.points.keys().zip(0..).collect()
    }

    fn mermaid(&self) -> String {
        let numbers = self.numbers();
        // Any character but a letter may end a label or have a meaning in it (Markdown, HTML), so it is written as an
        // entity of Mermaid.
        let is_plain = |c: char| c.is_alphanumeric() || " ._-/*:+".contains(c);
        let escape_one = |c: char| if is_plain(c) { c.to_string() } else { format!("#{};", u32::from(c)) };
        let escape = |text: &str| text.chars().map(escape_one).collect::<String>();
        let mut text = String::from("flowchart LR\n");
        for (point, wrong) in &self.points {
            let (number, name) = (numbers[point], escape(&self.name(point)));
            let name = wrong.map_or(name.clone(), |wrong| format!("{name} ({wrong})"));
            text += &match point {
                Point::Node(_) => format!("  n{number}[\"{name}\"]\n"),
                Point::Topic(_) => format!("  n{number}([\"{name}\"])\n"),
                Point::Service(_) => format!("  n{number}[[\"{name}\"]]\n"),
            };
        }
        for ((from, to), flow) in &self.flows {
            text += &format!("  n{} -->|\"{}\"| n{}\n", numbers[from], flow.label(), numbers[to]);
        }
        text
    }

    fn dot(&self) -> String {
        let numbers = self.numbers();
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut text = String::from("digraph librpc {\n  rankdir=LR;\n");
        for (point, wrong) in &self.points {
            let shape = match point {
                Point::Node(_) => "box",
                Point::Topic(_) => "ellipse",
                Point::Service(_) => "component",
            };
            let name = self.name(point);
            let name = wrong.map_or(name.clone(), |wrong| format!("{name} ({wrong})"));
            let colour = if wrong.is_some() { ", color=red" } else { "" };
            text += &format!("  n{} [label=\"{}\", shape={shape}{colour}];\n", numbers[point], escape(&name));
        }
        for ((from, to), flow) in &self.flows {
            text += &format!("  n{} -> n{} [label=\"{}\"];\n", numbers[from], numbers[to], flow.label());
        }
        text + "}\n"
    }

    /// The points in three columns: nodes that send, topics and services, nodes that only receive.
    fn columns(&self) -> [Vec<&Point>; 3] {
        let senders: BTreeSet<&Point> = self.flows.keys().map(|(from, _)| from).collect();
        let place = |point: &&Point| match point {
            Point::Topic(_) | Point::Service(_) => 1,
            Point::Node(_) if senders.contains(point) => 0,
            Point::Node(_) => 2,
        };
        [0, 1, 2].map(|column| self.points.keys().filter(|point| place(point) == column).collect())
    }
}
