//! The screen: a head line, warnings, a table, and the keys. Columns are left out when there is no room.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line as Text;
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState};

use super::app::{App, Over, Tab, summary};
use super::lines::{Column, bar};
use crate::latency::{counted, grouped, readable, size};
use crate::report::state_name;
use crate::snapshot::policy_name;

/// How many warnings are shown. Further ones are counted.
const WARNINGS: usize = 5;

const HELP: &str = " 1 2 3 4, Tab   channels, nodes, inboxes (topics), services
 ↑ ↓ j k      choose a line; PgUp PgDn g G too
 Enter        a node's or topic's channels; everything about a channel
 /            filter by node, topic or pattern; Esc clears it
 s, r         sort by the next column; the other way round
 p, space     pause
 Esc          back
 q, Ctrl-C    quit

 DEPTH   how full the ring is     LOST   messages that did not arrive
 LENT    large payloads that wait or are held      HELD   how many are held
 PAYLOADS   the node's memory for large payloads
 P99     commit to processed: 99 % took at most this long, of the messages
         with a time stamp (one in 64, and those after a pause)

 slow-consumer  its sender waits      queue-full    over 75 % of the ring
 stalled-node   it does not answer    drops         messages are being lost
 too-large      the inbox is too small for some messages
 no-memory      a sender has no memory for them        refused-sender  a node refuses it
 denied         a subscription may not read a topic
 no-server      a service that is called has none   silent-server  it answers none";

fn has_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn colour(colour: Color) -> Style {
    if has_colour() { Style::new().fg(colour) } else { Style::new() }
}

fn bad() -> Style {
    colour(Color::Red).add_modifier(Modifier::BOLD)
}

pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let shown = app.warnings.len().min(WARNINGS).min((frame.area().height / 4).into()) as u16;
    let spark = if frame.area().height >= 20 { 3 } else { 0 };
    let [head, sparks, warnings, table, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(spark),
        Constraint::Length(shown),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, app);
    let total: Vec<u64> = newest(&app.total, sparks.width.saturating_sub(2).into());
    if spark > 0 {
        let most = app.total.iter().max().copied().unwrap_or(0);
        let title = format!(" messages/s, at most {} ", grouped(most));
        frame.render_widget(
            Sparkline::default().data(total).style(colour(Color::Green)).block(Block::new().title(title)),
            sparks,
        );
    }
    draw_warnings(frame, warnings, app);
    draw_table(frame, table, app);
    let hint = match app.over {
        Over::Filter => format!("filter: {}▏  Enter takes it, Esc clears it", app.filter.text()),
        _ => "q quit  ? help  Tab tables  / filter  s sort  r reverse  Enter more  Esc back  p pause".to_owned(),
    };
    frame.render_widget(Paragraph::new(hint).style(Style::new().add_modifier(Modifier::REVERSED)), keys);
    match app.over {
        Over::Help => draw_over(frame, "keys and words", HELP.lines().map(|line| Text::raw(line.to_owned())).collect()),
        Over::Detail => draw_detail(frame, app),
        Over::Nothing | Over::Filter => {}
    }
}

fn newest(history: &std::collections::VecDeque<u64>, most: usize) -> Vec<u64> {
    history.iter().skip(history.len().saturating_sub(most)).copied().collect()
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let what = match &app.snapshot {
        None => "looking …".to_owned(),
        Some(snapshot) if snapshot.nodes.is_empty() => "no nodes".to_owned(),
        Some(snapshot) => summary(snapshot),
    };
    let mut tabs: Vec<String> = Tab::ALL
        .iter()
        .map(|(tab, name)| if *tab == app.tab { format!("[{name}]") } else { format!(" {name} ") })
        .collect();
    if !app.filter.text().is_empty() {
        let is_nothing = app.lines.is_empty() && app.snapshot.as_ref().is_some_and(|snapshot| !snapshot.is_empty());
        tabs.push(format!(" filter: {}{}", app.filter.text(), if is_nothing { " (nothing matches)" } else { "" }));
    }
    if app.is_paused {
        tabs.push(" PAUSED".to_owned());
    }
    tabs.push(format!("  {}", app.domain));
    let head = match &app.trouble {
        Some(trouble) => Text::styled(format!("cannot look: {trouble}"), bad()),
        None => Text::styled(what, Style::new().add_modifier(Modifier::BOLD)),
    };
    frame.render_widget(Paragraph::new(vec![head, Text::raw(tabs.join(" "))]), area);
}

fn draw_warnings(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let room = usize::from(area.height);
    let hidden = app.warnings.len().saturating_sub(room);
    let mut lines: Vec<Text<'_>> = (app.warnings.iter().take(room))
        .map(|warning| Text::styled(format!("! {}: {}", warning.name, warning.text), bad()))
        .collect();
    if hidden > 0
        && let Some(last) = lines.last_mut()
    {
        *last = Text::styled(format!("! and {} more (librpc doctor)", hidden + 1), bad());
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The places of the columns that there is room for.
pub(super) fn fitting(columns: &[Column], width: u16) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..columns.len()).collect();
    let needed = |chosen: &[usize]| chosen.iter().map(|&at| columns[at].width + 1).sum::<u16>();
    while needed(&chosen) > width + 1 {
        let Some(goes) = chosen.iter().copied().max_by_key(|&at| columns[at].goes).filter(|&at| columns[at].goes > 0)
        else {
            break;
        };
        chosen.retain(|&at| at != goes);
    }
    chosen
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, app: &mut App) {
    let columns = app.tab.columns();
    let chosen = fitting(columns, area.width);
    app.page = usize::from(area.height.saturating_sub(1)).max(1);
    let needed: u16 = chosen.iter().map(|&at| columns[at].width + 1).sum();
    let spare = area.width.saturating_sub(needed);
    let texts = chosen.iter().filter(|&&at| columns[at].is_text).count().max(1) as u16;
    let widths = chosen
        .iter()
        .map(|&at| Constraint::Length(columns[at].width + if columns[at].is_text { spare / texts } else { 0 }));
    let cell = |at: usize, text: String| {
        let alignment = if columns[at].is_text { Alignment::Left } else { Alignment::Right };
        Cell::from(Text::raw(text).alignment(alignment))
    };
    let header = chosen.iter().map(|&at| {
        let mark = if app.sort.0 == at { if app.sort.1 { "▲" } else { "▼" } } else { "" };
        cell(at, format!("{}{mark}", columns[at].title))
    });
    // Only the visible lines are made, which include the selected one.
    app.first = app.first.clamp((app.chosen + 1).saturating_sub(app.page), app.chosen);
    app.first = app.first.min(app.lines.len().saturating_sub(app.page));
    let rows = app.lines.iter().skip(app.first).take(app.page).map(|line| {
        let row = Row::new(chosen.iter().map(|&at| cell(at, line.cells[at].clone())).collect::<Vec<_>>());
        if line.is_bad { row.style(colour(Color::Red)) } else { row }
    });
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let chosen = (!app.lines.is_empty()).then_some(app.chosen - app.first);
    let mut state = TableState::new().with_selected(chosen);
    frame.render_stateful_widget(table, area, &mut state);
}

/// Rates as one line of characters.
fn spark(rates: &[u64]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = rates.iter().max().copied().unwrap_or(0).max(1);
    let height = |rate: &u64| HEIGHTS[(*rate as f64 / most as f64 * 7.0).round() as usize];
    rates.iter().map(height).chain(format!(" at most {}/s", grouped(most)).chars()).collect()
}

/// A box in the middle of the screen, as large as its lines.
fn draw_over(frame: &mut Frame<'_>, title: &str, lines: Vec<Text<'_>>) {
    let screen = frame.area();
    let width = lines.iter().map(Text::width).max().unwrap_or(0) as u16 + 4;
    let (width, height) = (width.min(screen.width), (lines.len() as u16 + 2).min(screen.height));
    let area = Rect { x: (screen.width - width) / 2, y: (screen.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(format!(" {title} "))), area);
}

/// Everything about one channel.
fn draw_detail(frame: &mut Frame<'_>, app: &App) {
    let Some(row) = app.channel() else { return };
    let (stats, rates) = (&row.stats, row.rates());
    let ago = |time: Option<std::time::Duration>| {
        time.map_or("never".to_owned(), |time| format!("{} ago", readable(time.as_nanos() as u64)))
    };
    let topics: Vec<&str> = stats.topics.iter().map(|topic| &**topic).collect();
    let mut lines: Vec<String> = vec![
        format!(
            "state      {}, seen by its {}",
            state_name(stats.state),
            if row.by_receiver { "receiver" } else { "sender" }
        ),
        format!(
            "policy     {}, {} of {} bytes",
            policy_name(stats.policy),
            stats.ring.map_or("a ring that is not answered yet".to_owned(), |number| format!("ring {number}")),
            grouped(stats.capacity)
        ),
        format!("topics     {}", if topics.is_empty() { "-".to_owned() } else { topics.join(" ") }),
        format!(
            "sent       {}, {}, {:.1}/s",
            counted(stats.sent, "message"),
            counted(stats.bytes_sent, "byte"),
            rates.sent
        ),
        format!(
            "received   {}, {}, {:.1}/s",
            counted(stats.received, "message"),
            counted(stats.bytes_received, "byte"),
            rates.received
        ),
        format!("processed  {}, queued {}", grouped(stats.processed), grouped(stats.queued)),
        format!(
            "lost       {} dropped, {} overwritten, {} without room, {} too large, {} without memory; {} returned in all",
            grouped(stats.dropped),
            grouped(stats.missed),
            grouped(stats.no_room),
            grouped(stats.too_large),
            grouped(stats.no_memory),
            grouped(stats.returned)
        ),
        format!(
            "depth      {}, at most {}",
            bar(row.fill()),
            bar(stats.depth_max as f64 / stats.capacity.max(1) as f64)
        ),
        format!(
            "lent       {}; held {}",
            row.lent.map_or("unknown".to_owned(), |lent| format!(
                "{}, {}",
                counted(lent.payloads, "payload"),
                size(lent.bytes)
            )),
            counted(stats.held, "payload")
        ),
        format!("blocked    {}, {:.0} % of the time", readable(stats.blocked.as_nanos() as u64), rates.blocked * 100.0),
        format!("last       sent {}, processed {}", ago(stats.last_sent), ago(stats.last_processed)),
        String::new(),
    ];
    if let Some(history) = app.history.get(&row.key) {
        lines.insert(lines.len() - 1, format!("history    {}", spark(&newest(history, 40))));
    }
    let times = row.latency();
    lines.push(format!("latency    {} in all, now:", counted(stats.latency.count(), "sample")));
    // A line for each doubling of the time.
    let mut doublings: Vec<(u64, u64)> = Vec::new();
    for bucket in times.buckets() {
        let from = if bucket.from_ns < 128 { 0 } else { 1 << bucket.from_ns.ilog2() };
        match doublings.last_mut() {
            Some((last, count)) if *last == from => *count += bucket.count,
            _ => doublings.push((from, bucket.count)),
        }
    }
    let most = doublings.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    for (from, count) in doublings {
        let drawn = "█".repeat((count as f64 / most as f64 * 30.0).ceil() as usize);
        lines.push(format!("{:>10} {drawn} {}", readable(from), grouped(count)));
    }
    let title = format!("{} → {} ({})", row.from, row.to, row.address());
    draw_over(frame, &title, lines.into_iter().map(Text::raw).collect());
}
