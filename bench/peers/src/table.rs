//! Figures as text.

use comfy_table::{CellAlignment, Table, presets};

use crate::contender::Measure;
use crate::rounds::{Figures, Sample, Summary};

/// A time in the unit that needs the fewest digits.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.0} ns"),
        ..1e4 => format!("{:.2} µs", ns / 1e3),
        ..1e6 => format!("{:.1} µs", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}

/// Messages per second.
pub(crate) fn rate(messages_per_s: f64) -> String {
    match messages_per_s {
        ..1e4 => format!("{messages_per_s:.0}/s"),
        ..1e6 => format!("{:.0} k/s", messages_per_s / 1e3),
        ..1e7 => format!("{:.2} M/s", messages_per_s / 1e6),
        _ => format!("{:.1} M/s", messages_per_s / 1e6),
    }
}

pub(crate) fn ratio(ratio: Option<f64>) -> String {
    match ratio {
        None => String::new(),
        Some(ratio @ ..0.1) => format!("{ratio:.3} ×"),
        Some(ratio @ ..10.0) => format!("{ratio:.2} ×"),
        Some(ratio) => format!("{ratio:.0} ×"),
    }
}

pub(crate) fn title(measure: Measure) -> &'static str {
    match measure {
        Measure::Latency => "one way",
        Measure::Throughput => "one direction",
        Measure::Wake => "sleeping receiver",
        Measure::InPlace => "in place",
        Measure::Call => "call",
        Measure::SleepingCall => "call, both asleep",
    }
}

/// One sample, shown during the run.
pub(crate) fn line(sample: &Sample) -> String {
    let of = sample.of;
    let faults = if sample.faults.none() { String::new() } else { format!("  {:?}", sample.faults) };
    let (round, title, bytes, name) = (sample.round + 1, title(of.measure), of.bytes, of.name.title());
    format!("round {round}  {title:<17} {bytes:>8} B  {name:<22} {}{faults}", words(&sample.figures).join("  "))
}

fn words(figures: &Figures) -> [String; 3] {
    match figures {
        Figures::Time { p50_ns, p99_ns, p999_ns } => [*p50_ns, *p99_ns, *p999_ns].map(time),
        Figures::Rate { messages_per_s } => [rate(*messages_per_s), String::new(), String::new()],
    }
}

pub(crate) const HEAD: [&str; 8] =
    ["", "bytes", "contender", "p50, or rate", "p99", "p99.9", "to librpc", "lost, corrupt, disordered"];

/// The cells of a summary, below `HEAD`.
pub(crate) fn cells(summary: &Summary) -> [String; 8] {
    let of = summary.of;
    let [main, p99, p999] = words(&summary.figures);
    let bytes = if of.name.is_limit() && of.measure != Measure::Throughput { "8".into() } else { of.bytes.to_string() };
    let faults = match summary.faults {
        faults if faults.none() => "0".to_owned(),
        faults => format!("{}, {}, {}", faults.lost, faults.corrupt, faults.disordered),
    };
    [title(of.measure).into(), bytes, of.name.title().into(), main, p99, p999, ratio(summary.ratio), faults]
}

/// For a terminal.
pub(crate) fn plain(summaries: &[Summary]) -> String {
    fill(summaries, presets::UTF8_HORIZONTAL_ONLY)
}

/// For a document.
pub(crate) fn markdown(summaries: &[Summary]) -> String {
    fill(summaries, presets::ASCII_MARKDOWN)
}

fn fill(summaries: &[Summary], preset: &str) -> String {
    let mut table = Table::new();
    table.load_preset(preset).set_header(HEAD);
    for summary in summaries {
        table.add_row(cells(summary));
    }
    for column in [1, 3, 4, 5, 6, 7] {
        table.column_mut(column).expect("it has eight").set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_few_digits() {
        assert_eq!([55.0, 1234.0, 36_000.0, 2.5e6].map(time), ["55 ns", "1.23 µs", "36.0 µs", "2.5 ms"]);
        assert_eq!([900.0, 12_345.0, 1.5e6, 13.25e6].map(rate), ["900/s", "12 k/s", "1.50 M/s", "13.2 M/s"]);
        assert_eq!([Some(0.05), Some(1.0), Some(210.4), None].map(ratio), ["0.050 ×", "1.00 ×", "210 ×", ""]);
    }
}
