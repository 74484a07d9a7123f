//! Figures as SVG: one row per contender, on a logarithmic axis. It needs no script, and suits light and dark pages.

use std::fmt::Write;

const ROW: f64 = 22.0;
const LEFT: f64 = 150.0;
const WIDTH: f64 = 440.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 30.0;

/// Included in each picture, so that it is self-contained.
const STYLE: &str = "\
.peers{font:12px system-ui,sans-serif;color-scheme:light dark}\
.peers text{fill:#333}.peers .title{font-weight:600}.peers .faint{fill:#777}\
.peers .grid{stroke:#8884;stroke-width:1}.peers .limit{stroke:#c33;stroke-width:1.5;stroke-dasharray:4 3}\
.peers .span{stroke:#9aa4b0;stroke-width:3}.peers .dot{fill:#5b6b7d}.peers .ours .span{stroke:#7ab2ee}\
.peers .ours .dot{fill:#0b66c3}.peers .ours text{font-weight:600}\
@media(prefers-color-scheme:dark){.peers text{fill:#ddd}.peers .faint{fill:#999}.peers .span{stroke:#66707c}\
.peers .dot{fill:#a9b7c6}.peers .ours .span{stroke:#2f5f96}.peers .ours .dot{fill:#5aa9f8}}";

pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) ours: bool,
    /// The first is a dot with its value; a line leads on to the others, with a tick at each.
    pub(crate) values: Vec<f64>,
    pub(crate) value: String,
}

pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
    /// A dashed line, and its text.
    pub(crate) limit: Option<(f64, String)>,
}

/// Panels, one below the other, all on one axis.
pub(crate) fn panels(name: &str, panels: &[Panel], unit: impl Fn(f64) -> String) -> String {
    let values = || {
        let rows = panels.iter().flat_map(|panel| panel.rows.iter().flat_map(|row| row.values.iter().copied()));
        rows.chain(panels.iter().filter_map(|panel| panel.limit.as_ref().map(|limit| limit.0)))
            .filter(|value| *value > 0.0)
    };
    let low = values().fold(f64::INFINITY, f64::min).log10().floor();
    let high = values().fold(0.0, f64::max).log10().ceil().max(low + 1.0);
    let x = |value: f64| LEFT + (value.max(1e-9).log10() - low).max(0.0) / (high - low) * WIDTH;
    let height_of = |panel: &Panel| TOP + panel.rows.len() as f64 * ROW + BOTTOM;
    let (width, height) = (LEFT + WIDTH + RIGHT, panels.iter().map(height_of).sum::<f64>());

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"peers\" role=\"img\" aria-label=\"{}\" \
         viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\"><style>{STYLE}</style>\n",
        escaped(name)
    );
    let mut top = 0.0;
    for panel in panels {
        let (first, last) = (top + TOP, top + TOP + panel.rows.len() as f64 * ROW);
        text(&mut svg, 0.0, top + 18.0, "title", "start", &panel.title);
        for power in low as i32..=high as i32 {
            let at = x(10f64.powi(power));
            line(&mut svg, "grid", (at, first), (at, last));
            text(
                &mut svg,
                at,
                last + 15.0,
                "faint",
                "middle",
                &unit(10f64.powi(power)).replace(".00 ", " ").replace(".0 ", " "),
            );
        }
        if let Some((value, says)) = &panel.limit {
            line(&mut svg, "limit", (x(*value), first - 4.0), (x(*value), last));
            text(&mut svg, x(*value) + 5.0, first - 3.0, "faint", "start", says);
        }
        for (index, row) in panel.rows.iter().enumerate() {
            row_of(&mut svg, row, first + (index as f64 + 0.5) * ROW, &x);
        }
        top += height_of(panel);
    }
    svg + "</svg>\n"
}

fn row_of(svg: &mut String, row: &Row, y: f64, x: &impl Fn(f64) -> f64) {
    *svg += if row.ours { "<g class=\"ours\">" } else { "<g>" };
    text(svg, LEFT - 10.0, y + 4.0, "", "end", &row.label);
    let ends = row.values.iter().map(|value| x(*value));
    let (from, to) = ends.clone().fold((f64::INFINITY, 0f64), |(from, to), at| (from.min(at), to.max(at)));
    if to > from {
        line(svg, "span", (from, y), (to, y));
        for at in ends.skip(1) {
            line(svg, "span", (at, y - 4.0), (at, y + 4.0));
        }
    }
    if let Some(value) = row.values.first() {
        let _ = write!(svg, "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\"/>", x(*value)); // a String takes it
        text(svg, to.max(x(*value)) + 9.0, y + 4.0, "", "start", &row.value);
    }
    *svg += "</g>\n";
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = write!(svg, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"); // as above
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, says: &str) {
    let says = escaped(says);
    let _ = write!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{says}</text>"); // as above
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
