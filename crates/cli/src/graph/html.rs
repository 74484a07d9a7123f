//! The graph as a self-contained page: an SVG picture in three columns.

use super::{Flow, Graph, Point};
use crate::latency::grouped;

const WIDTH: usize = 240;
const HEIGHT: usize = 36;
const ROW: usize = 64;
const COLUMN: usize = 440;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(super) fn page(graph: &Graph, domain: &str) -> String {
    let columns = graph.columns();
    let rows = columns.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let (width, height) = (2 * COLUMN + WIDTH + 40, rows * ROW + 40);
    let place = |wanted: &Point| -> (usize, usize) {
        let found = columns.iter().enumerate().find_map(|(column, points)| {
            let row = points.iter().position(|point| *point == wanted)?;
            let offset = (rows - points.len()) * ROW / 2;
            Some((20 + column * COLUMN, 20 + offset + row * ROW))
        });
        found.unwrap_or_default()
    };
    let most = graph.flows.values().map(|flow| flow.per_second).fold(1.0, f64::max);
    let mut drawn = String::new();
    for ((from, to), flow) in &graph.flows {
        drawn += &edge(place(from), place(to), flow, most);
    }
    for (point, wrong) in &graph.points {
        let (x, y) = place(point);
        let round = if matches!(point, Point::Topic(_)) { HEIGHT / 2 } else { 4 };
        let class = if wrong.is_some() {
            "wrong"
        } else {
            match point {
                Point::Node(_) => "node",
                Point::Topic(_) => "topic",
                Point::Service(_) => "service",
            }
        };
        let name = wrong.map_or(graph.name(point), |wrong| format!("{} ({wrong})", graph.name(point)));
        let (middle, base) = (x + WIDTH / 2, y + HEIGHT / 2 + 5);
        drawn += &format!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"{round}\"/>\
             <text x=\"{middle}\" y=\"{base}\" text-anchor=\"middle\">{}</text>\n",
            escape(&name)
        );
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>librpc: {domain}</title>\n<style>\
         body{{font:14px system-ui,sans-serif;margin:2em}}text{{font:14px system-ui,sans-serif;fill:#222}}\
         .rate{{font-size:12px;fill:#555}}rect{{stroke:#456;fill:#eef4fa}}.topic{{fill:#fdf6e3;stroke:#b58900}}\
         .service{{fill:#eefaf0;stroke:#2a8a4a}}.wrong{{fill:#fde8e8;stroke:#c00}}path{{fill:none;stroke:#789}}.lossy{{stroke:#c00}}</style></head>\n\
         <body><h1>{domain}</h1><p>Nodes, topics and services: {}, edges: {}. Boxes are nodes, rounded ones are topics, green ones are services. Red nodes \
         do not answer, and red edges lose messages or have calls that fail.</p>\n<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n{drawn}</svg></body></html>\n",
        graph.points.len(),
        graph.flows.len(),
        domain = escape(domain),
    )
}

/// A curve from the right end of one box to the left end of another, or to its right end if it is not further right.
fn edge((from_x, from_y): (usize, usize), (to_x, to_y): (usize, usize), flow: &Flow, most: f64) -> String {
    let middle = HEIGHT / 2;
    let (x1, y1, y2) = (from_x + WIDTH, from_y + middle, to_y + middle);
    let x2 = if to_x > from_x { to_x } else { to_x + WIDTH };
    let bend = 90;
    let bent = if to_x > from_x { x2 - bend } else { x2 + bend };
    let thick = 1.0 + 4.0 * flow.per_second / most;
    let (label_x, label_y) = ((x1 + bend + bent) / 2, (y1 + y2) / 2 - 4);
    let class = if flow.lost + flow.failed > 0 { "lossy" } else { "flow" };
    let bytes = grouped(flow.bytes_per_second.round() as u64);
    format!(
        "<path class=\"{class}\" stroke-width=\"{thick:.1}\" d=\"M{x1} {y1} C{} {y1} {bent} {y2} {x2} {y2}\">\
         <title>{bytes} bytes/s</title></path><text class=\"rate\" x=\"{label_x}\" y=\"{label_y}\" text-anchor=\"middle\">{}</text>\n",
        x1 + bend,
        flow.label()
    )
}
