//! `librpc graph`: who sends what to whom, as a picture.

mod html; // a self-contained page

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;

use crate::domain::DomainArgs;
use crate::latency::{counted, grouped};
use crate::options::OverArgs;
use crate::outcome::{CommandResult, Outcome};
use crate::published::{self, Carried, TopicRow};
use crate::snapshot::{InboxKey, Looker, Snapshot, State};

/// Draws the nodes, topics and services of the domain, with rates
///
/// Topics without subscribers are drawn, too, and so are patterns that nobody publishes to. Messages of an outbox with several topics are
/// not counted by topic: their rate is "at most" that of all of them. Nodes are asked from outside: nothing is joined or created. If
/// there is no domain, nothing is drawn.
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

/// Of a node that publishes more topics than this, the others are drawn as one.
const DRAWN: usize = 32;

/// A node; a topic, or a pattern that nobody publishes to; or a service.
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
    /// Some of it is that of other topics.
    is_shared: bool,
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
    fn add(&mut self, more: Self) {
        self.per_second += more.per_second;
        self.bytes_per_second += more.bytes_per_second;
        self.lost = self.lost.saturating_add(more.lost);
        self.is_shared |= more.is_shared;
    }

    fn label(self) -> String {
        let rate = if self.per_second > 0.0 && self.per_second < 10.0 {
            format!("{:.1}/s", self.per_second)
        } else {
            format!("{}/s", grouped(self.per_second.round() as u64))
        };
        let rate = if self.is_shared && self.per_second > 0.0 { format!("at most {rate}") } else { rate };
        match (self.lost, self.failed) {
            (0, 0) => rate,
            (0, failed) => format!("{rate}, {} failed", grouped(failed)),
            (lost, _) => format!("{rate}, {} lost", grouped(lost)),
        }
    }
}

/// Which point a topic is drawn as. Of a node that publishes many, the last ones share a point.
struct Topics<'s>(HashMap<&'s str, Point>);

impl<'s> Topics<'s> {
    fn of(rows: &'s [TopicRow]) -> Self {
        let mut drawn: HashMap<&str, usize> = HashMap::new();
        let mut rest: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut points = HashMap::new();
        for row in rows {
            let first = row.publishers.iter().find(|id| drawn.get(id.as_str()).is_none_or(|drawn| *drawn < DRAWN));
            match (first, row.publishers.first()) {
                (None, Some(publisher)) => rest.entry(publisher).or_default().push(&row.name),
                (first, _) => {
                    first.into_iter().for_each(|id| *drawn.entry(id).or_default() += 1);
                    points.insert(&*row.name, Point::Topic(row.name.clone()));
                }
            }
        }
        for (publisher, topics) in rest {
            let point = Point::Topic(format!("{} of {publisher}", counted(topics.len() as u64, "more topic")));
            points.extend(topics.into_iter().map(|topic| (topic, point.clone())));
        }
        Self(points)
    }

    fn point(&self, topic: &str) -> Point {
        self.0.get(topic).cloned().unwrap_or_else(|| Point::Topic(topic.to_owned()))
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
            if inbox.is_of_topics {
                continue; // topics have theirs below
            }
            for (address, text) in inbox.addresses.iter().zip(inbox.types.iter().cycle()) {
                let point = if inbox.is_of_calls { Point::Service } else { Point::Node };
                let point = point(address.clone());
                graph.types.entry(point).or_default().insert(text.clone());
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
        graph.add_topics(snapshot);
        graph
    }

    fn flow(&mut self, from: &Point, to: &Point) -> &mut Flow {
        self.points.entry(from.clone()).or_default();
        self.points.entry(to.clone()).or_default();
        self.flows.entry((from.clone(), to.clone())).or_default()
    }

    fn add_topics(&mut self, snapshot: &Snapshot) {
        let rows = published::find(snapshot);
        let topics = Topics::of(&rows);
        for row in &rows {
            let topic = topics.point(&row.name);
            self.points.entry(topic.clone()).or_default();
            self.types.entry(topic.clone()).or_default().extend(row.types.iter().cloned());
            row.publishers.iter().for_each(|node| _ = self.flow(&Point::Node(node.clone()), &topic));
            row.subscribers.iter().for_each(|(_, node)| _ = self.flow(&topic, &Point::Node(node.clone())));
        }
        for row in &snapshot.published {
            let (node, topic) = (Point::Node(row.node.clone()), topics.point(&row.stats.topic));
            self.flow(&node, &topic).per_second += row.unheard.unwrap_or(0.0);
        }
        let carried = Carried::of(snapshot);
        // What a node publishes on a topic, by inbox. Each of them gets the same.
        let mut by_inbox: BTreeMap<(Point, Point), BTreeMap<InboxKey<'_>, Flow>> = BTreeMap::new();
        for row in snapshot.channels.iter().filter(|row| !row.is_of_calls) {
            let (from, to, rates) = (Point::Node(row.from.clone()), Point::Node(row.to.clone()), row.rates());
            let lost = row.lost();
            let mut flow = Flow { per_second: rates.sent, bytes_per_second: rates.bytes, lost, ..Flow::default() };
            if !row.is_of_topics {
                self.flow(&from, &to).add(flow);
                continue;
            }
            let names = carried.topics(row);
            if names.is_empty() && row.stats.sent == 0 {
                continue;
            }
            let of_channel: BTreeSet<Point> = match names {
                // Its receiver does not answer: it is drawn through the first of its patterns.
                names if names.is_empty() => row.addresses.first().cloned().map(Point::Topic).into_iter().collect(),
                names => names.into_iter().map(|name| topics.point(name)).collect(),
            };
            flow.is_shared = of_channel.len() > 1;
            for topic in of_channel {
                self.flow(&topic, &to).add(flow);
                let inboxes = by_inbox.entry((from.clone(), topic)).or_default();
                inboxes.entry(row.key.inbox()).or_default().add(flow);
            }
        }
        for ((from, topic), inboxes) in by_inbox {
            let flow = self.flow(&from, &topic);
            let lost = inboxes.values().map(|flow| flow.lost).fold(0, u64::saturating_add);
            let busiest = inboxes.into_values().max_by(|a, b| a.per_second.total_cmp(&b.per_second));
            flow.add(Flow { lost, ..busiest.unwrap_or_default() });
        }
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
