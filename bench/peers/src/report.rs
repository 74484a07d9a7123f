//! A run as one self-contained page with pictures, and its parts for other documents.

use std::fmt::Write;

use crate::contender::{Measure, Name};
use crate::machine::Machine;
use crate::picture::{Panel, Row, escaped, panels};
use crate::rounds::{Figures, Of, Plan, Summary};
use crate::table;

pub(crate) struct Run<'r> {
    pub(crate) plan: &'r Plan,
    pub(crate) machine: &'r Machine,
    pub(crate) summaries: &'r [Summary],
    pub(crate) failed: &'r [Of],
}

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.2rem}svg{max-width:100%;height:auto}\
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}div{overflow-x:auto}\
td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #8883;white-space:nowrap}\
td:nth-child(1),td:nth-child(3),th:nth-child(1),th:nth-child(3){text-align:left}tr.ours td{font-weight:600}\
code{font-size:.9em}.small{font-size:.87rem}";

/// The page.
pub(crate) fn page(run: &Run<'_>) -> String {
    let Run { plan, machine, summaries, failed } = run;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>librpc and its peers, side by side</title>\
         <style>{STYLE}</style></head>\n<body><h1>librpc and its peers, side by side</h1>\n<p>{}</p>\n",
        escaped(&how(plan))
    );
    for measure in &plan.measures {
        let _ =
            write!(page, "<h2>{}</h2>\n<p>{}</p>\n{}", heading(*measure), explained(*measure), picture(run, *measure)); // a String takes it
    }
    page += "<h2>All figures</h2>\n<div><table><thead><tr>";
    page.extend(table::HEAD.map(|head| format!("<th>{head}</th>")));
    page += "</tr></thead><tbody>\n";
    for summary in *summaries {
        page += if summary.of.name == Name::Librpc { "<tr class=\"ours\">" } else { "<tr>" };
        page.extend(table::cells(summary).map(|cell| format!("<td>{}</td>", escaped(&cell))));
        page += "</tr>\n";
    }
    page += "</tbody></table></div>\n<p class=\"small\">Medians over the rounds, each of its own. <i>To librpc</i> is the \
             median of the ratios within a round: of times, more is slower; of rates, less is.</p>\n";
    if !failed.is_empty() {
        let failed =
            failed.iter().map(|of| format!("{}, {}, {} bytes", of.name.title(), table::title(of.measure), of.bytes));
        let failed = escaped(&failed.collect::<Vec<_>>().join("; "));
        let _ = writeln!(page, "<p><b>Failed, and missing in the medians:</b> {failed}.</p>"); // as above
    }
    let [machine_line, peers, command] = [machine.line(), machine.peers(), command(plan)].map(|text| escaped(&text));
    page + &format!(
        "<h2>Where and how</h2>\n<p>{machine_line}</p>\n<p>Peers: {peers}</p>\n<p>Again: <code>{command}</code></p>\n\
         <p class=\"small\">How each contender is set: bench/peers/README.md.</p></body></html>\n"
    )
}

/// Writes the pictures and the table, a file each.
pub(crate) fn pieces(run: &Run<'_>) -> Vec<(&'static str, String)> {
    let mut pieces: Vec<_> = run.plan.measures.iter().map(|measure| (file(*measure), picture(run, *measure))).collect();
    let [how, machine, peers] = [how(run.plan), run.machine.line(), run.machine.peers()];
    let table = table::markdown(run.summaries);
    pieces
        .push(("peers.md", format!("{how}\n\n{table}\n\n{machine}. Peers: {peers}. Again: `{}`\n", command(run.plan))));
    pieces
}

fn file(measure: Measure) -> &'static str {
    match measure {
        Measure::Latency => "latency.svg",
        Measure::Throughput => "throughput.svg",
        Measure::Wake => "wake.svg",
        Measure::InPlace => "in-place.svg",
        Measure::Call => "call.svg",
        Measure::SleepingCall => "sleeping-call.svg",
    }
}

fn heading(measure: Measure) -> &'static str {
    match measure {
        Measure::Latency => "One-way latency",
        Measure::Throughput => "Messages a second, in one direction",
        Measure::Wake => "Waking a receiver that sleeps",
        Measure::InPlace => "Handing over a large message",
        Measure::Call => "A call between two processes that poll",
        Measure::SleepingCall => "A call between two processes that sleep",
    }
}

fn explained(measure: Measure) -> &'static str {
    match measure {
        Measure::Latency => {
            "There and back, halved; the receiver polls, where that helps. The dot is the median, the ticks are p99 and p99.9. \
             Left is better."
        }
        Measure::Throughput => "As fast as they go, while nothing may be lost. Right is better.",
        Measure::Wake => {
            "From before sending until the message is in the hands of a process that slept. Dot and ticks as above. Left is \
             better."
        }
        Measure::InPlace => {
            "From before sending until the message is in the hands of a process that polls. It is written before, and read \
             afterwards, in full. Dot and ticks as above. Left is better."
        }
        Measure::Call => {
            "From before the request until the reply has been read, there and back. Request and reply are of the same size. Dot \
             and ticks as above. Left is better."
        }
        Measure::SleepingCall => "The same, while each side sleeps until the other has something for it.",
    }
}

fn how(plan: &Plan) -> String {
    let pinned = match plan.cpus {
        Some((a, b)) => format!("pinned to CPUs {a} and {b}"),
        None => "not pinned".to_owned(),
    };
    format!(
        "Two processes, {pinned}. Every message is written and read in full, and checked. {} rounds, in each of which the \
         contenders and the limits take turns of {} s; medians.",
        plan.rounds, plan.seconds
    )
}

fn command(plan: &Plan) -> String {
    let sizes = plan.sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let cpus = plan.cpus.map_or("none".to_owned(), |(a, b)| format!("{a},{b}"));
    let (rounds, seconds) = (plan.rounds, plan.seconds);
    format!("bench/peers/run --sizes {sizes} --rounds {rounds} --seconds {seconds} --pin {cpus} --report peers.html")
}

fn picture(run: &Run<'_>, measure: Measure) -> String {
    let mut shown: Vec<Panel> = Vec::new();
    let sizes = run.plan.sizes.iter().filter(|bytes| {
        run.summaries.iter().any(|summary| summary.of.measure == measure && summary.of.bytes == **bytes)
    });
    for bytes in sizes {
        let of = |summary: &&Summary| summary.of.measure == measure && summary.of.bytes == *bytes;
        let limit = run.summaries.iter().filter(of).find(|summary| summary.of.name.is_limit());
        let rows = run.summaries.iter().filter(of).filter(|summary| !summary.of.name.is_limit());
        let mut rows: Vec<Row> = rows.map(row).collect();
        rows.sort_by(|one, other| one.values[0].total_cmp(&other.values[0]));
        if measure == Measure::Throughput {
            rows.reverse();
        }
        let limit = limit.map(|limit| {
            let says = limit.of.name.title().replace("limit: ", "");
            (limit.figures.main(), format!("{says} {}", figure(&limit.figures)))
        });
        shown.push(Panel { title: format!("{bytes} bytes"), rows, limit });
    }
    let unit = if measure == Measure::Throughput { table::rate } else { table::time };
    panels(heading(measure), &shown, unit)
}

fn row(summary: &Summary) -> Row {
    let values = match summary.figures {
        Figures::Time { p50_ns, p99_ns, p999_ns } => vec![p50_ns, p99_ns, p999_ns],
        Figures::Rate { messages_per_s } => vec![messages_per_s],
    };
    let (label, ours) = (summary.of.name.title().to_owned(), summary.of.name == Name::Librpc);
    Row { label, ours, values, value: figure(&summary.figures) }
}

fn figure(figures: &Figures) -> String {
    match figures {
        Figures::Time { p50_ns, .. } => table::time(*p50_ns),
        Figures::Rate { messages_per_s } => table::rate(*messages_per_s),
    }
}
