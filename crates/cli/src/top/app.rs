//! What is shown, and what the keys do. This does not use a terminal, so a test can step through everything.

use std::collections::{HashMap, HashSet, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::lines::{self, About, Column, Filter, Line};
use crate::latency::{counted, grouped};
use crate::snapshot::{ChannelRow, Key, Snapshot, State};
use crate::warnings::{self, Warning};

/// How many looks the sparklines show.
pub(super) const HISTORY: usize = 240;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Channels,
    Nodes,
    Inboxes,
    Services,
}

impl Tab {
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Channels, "1 channels"),
        (Self::Nodes, "2 nodes"),
        (Self::Inboxes, "3 inboxes"),
        (Self::Services, "4 services"),
    ];

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Channels => &lines::CHANNELS,
            Self::Nodes => &lines::NODES,
            Self::Inboxes => &lines::INBOXES,
            Self::Services => &lines::SERVICES,
        }
    }
}

/// What covers the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Nothing,
    Help,
    /// Everything about the selected channel.
    Detail,
    /// The filter is being typed.
    Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    On,
    Away,
}

pub(super) struct App {
    pub(super) domain: String,
    pub(super) filter: Filter,
    pub(super) tab: Tab,
    pub(super) over: Over,
    /// The column that the lines are sorted by, and whether the smallest come first.
    pub(super) sort: (usize, bool),
    pub(super) chosen: usize,
    /// How many lines fit on the screen, and which is the first. Drawing sets both.
    pub(super) page: usize,
    pub(super) first: usize,
    /// Why the last look failed.
    pub(super) trouble: Option<String>,
    pub(super) is_paused: bool,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) warnings: Vec<Warning>,
    pub(super) lines: Vec<Line>,
    /// Messages per second, of all channels together and of each one.
    pub(super) total: VecDeque<u64>,
    pub(super) history: HashMap<Key, VecDeque<u64>>,
}

/// The domain in one line.
pub(super) fn summary(snapshot: &Snapshot) -> String {
    let of = |state: State| snapshot.nodes.iter().filter(|node| node.state == state).count();
    let mut states = String::new();
    for state in [State::Stalled, State::Dead, State::Refused, State::Broken] {
        if of(state) > 0 {
            states += &format!(", {} {}", of(state), state.name());
        }
    }
    let rates = snapshot.channels.iter().map(|row| row.rates());
    let rates = rates.fold((0.0, 0.0), |(messages, bytes), rates| (messages + rates.sent, bytes + rates.bytes));
    format!(
        "{}{states}, {}, {}, {} messages/s, {} bytes/s",
        counted(snapshot.nodes.len() as u64, "node"),
        counted(snapshot.inboxes.len() as u64, "inbox"),
        counted(snapshot.channels.len() as u64, "channel"),
        grouped(f64::round(rates.0) as u64),
        grouped(f64::round(rates.1) as u64)
    )
}

fn remember(history: &mut VecDeque<u64>, rate: f64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(rate.round() as u64);
}

impl App {
    /// Shows a domain, or only what is connected to a node, topic or pattern in it.
    pub(super) fn new(domain: String, about: Option<String>) -> Self {
        Self {
            domain,
            filter: about.map_or(Filter::All, Filter::About),
            tab: Tab::Channels,
            over: Over::Nothing,
            sort: (3, false),
            chosen: 0,
            page: 1,
            first: 0,
            trouble: None,
            is_paused: false,
            snapshot: None,
            warnings: Vec::new(),
            lines: Vec::new(),
            total: VecDeque::new(),
            history: HashMap::new(),
        }
    }

    /// Shows the result of a look.
    pub(super) fn update(&mut self, mut snapshot: Snapshot) {
        self.trouble = None;
        if self.is_paused {
            return;
        }
        if let Some(earlier) = &self.snapshot {
            snapshot.compare_with(earlier);
        }
        remember(&mut self.total, snapshot.channels.iter().map(|row| row.rates().sent).sum());
        let keys: HashSet<&Key> = snapshot.channels.iter().map(|row| &row.key).collect();
        self.history.retain(|key, _| keys.contains(key));
        for row in &snapshot.channels {
            let sent = row.rates().sent;
            match self.history.get_mut(&row.key) {
                Some(history) => remember(history, sent),
                None => drop(self.history.insert(row.key.clone(), VecDeque::from([sent.round() as u64]))),
            }
        }
        self.snapshot = Some(snapshot);
        let looked_at = self.channel_key();
        self.arrange();
        if self.over == Over::Detail && self.channel_key() != looked_at {
            self.over = Over::Nothing; // the channel has ended
        }
    }

    fn channel_key(&self) -> Option<Key> {
        match &self.lines.get(self.chosen)?.about {
            About::Channel(key) => Some(key.clone()),
            _ => None,
        }
    }

    /// Makes the lines again, and keeps the selected one selected.
    fn arrange(&mut self) {
        let Some(snapshot) = &self.snapshot else { return };
        let chosen = self.lines.get(self.chosen).map(|line| line.about.clone());
        let make = match self.tab {
            Tab::Channels => lines::channels,
            Tab::Nodes => lines::nodes,
            Tab::Inboxes => lines::inboxes,
            Tab::Services => lines::services,
        };
        let part = self.filter.part(snapshot);
        (self.lines, self.warnings) = (make(snapshot, &part), warnings::find_in(&part, snapshot));
        let (column, smallest_first) = self.sort;
        let is_text = self.tab.columns()[column].is_text;
        self.lines.sort_by(|a, b| {
            let order =
                if is_text { a.cells[column].cmp(&b.cells[column]) } else { b.keys[column].total_cmp(&a.keys[column]) };
            let order = if smallest_first { order.reverse() } else { order };
            order.then_with(|| a.cells.cmp(&b.cells))
        });
        let place = chosen.and_then(|chosen| self.lines.iter().position(|line| line.about == chosen));
        self.chosen = place.unwrap_or(self.chosen).min(self.lines.len().saturating_sub(1));
    }

    fn show(&mut self, tab: Tab) {
        self.tab = tab;
        self.chosen = 0;
        self.lines.clear();
        self.sort = (if tab == Tab::Channels { 3 } else { 0 }, false);
        self.arrange();
    }

    /// The selected channel.
    pub(super) fn channel(&self) -> Option<&ChannelRow> {
        let About::Channel(key) = &self.lines.get(self.chosen)?.about else { return None };
        self.snapshot.as_ref()?.channels.iter().find(|row| row.key == *key)
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: KeyEvent) -> Goes {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Goes::Away;
        }
        match self.over {
            Over::Filter => self.type_filter(key.code),
            Over::Help => self.over = Over::Nothing,
            Over::Nothing | Over::Detail => return self.command(key.code),
        }
        Goes::On
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.over = Over::Nothing,
            KeyCode::Esc => {
                self.over = Over::Nothing;
                self.filter = Filter::All;
            }
            KeyCode::Backspace => {
                let mut text = self.filter.text().to_owned();
                text.pop();
                self.filter = Filter::typed(text);
            }
            KeyCode::Char(c) => self.filter = Filter::typed(format!("{}{c}", self.filter.text())),
            _ => {}
        }
        self.arrange();
    }

    fn command(&mut self, key: KeyCode) -> Goes {
        let last = self.lines.len().saturating_sub(1);
        match key {
            KeyCode::Char('q') => return Goes::Away,
            KeyCode::Char('?' | 'h') => self.over = Over::Help,
            KeyCode::Esc if self.over == Over::Detail => self.over = Over::Nothing,
            KeyCode::Esc if !self.filter.text().is_empty() => {
                self.filter = Filter::All;
                self.arrange();
            }
            KeyCode::Esc => self.show(Tab::Channels),
            KeyCode::Char('1') => self.show(Tab::Channels),
            KeyCode::Char('2') => self.show(Tab::Nodes),
            KeyCode::Char('3') => self.show(Tab::Inboxes),
            KeyCode::Char('4') => self.show(Tab::Services),
            KeyCode::Tab => {
                let at = Tab::ALL.iter().position(|(tab, _)| *tab == self.tab).unwrap_or(0);
                self.show(Tab::ALL[(at + 1) % Tab::ALL.len()].0);
            }
            KeyCode::Char('/') => self.over = Over::Filter,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => {
                self.sort = ((self.sort.0 + 1) % self.tab.columns().len(), false);
                self.arrange();
            }
            KeyCode::Char('r') => {
                self.sort.1 = !self.sort.1;
                self.arrange();
            }
            KeyCode::Up | KeyCode::Char('k') => self.chosen = self.chosen.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.chosen = (self.chosen + 1).min(last),
            KeyCode::PageUp => self.chosen = self.chosen.saturating_sub(self.page),
            KeyCode::PageDown => self.chosen = (self.chosen + self.page).min(last),
            KeyCode::Home | KeyCode::Char('g') => self.chosen = 0,
            KeyCode::End | KeyCode::Char('G') => self.chosen = last,
            KeyCode::Enter => self.drill_down(),
            _ => {}
        }
        Goes::On
    }

    fn drill_down(&mut self) {
        match self.lines.get(self.chosen).map(|line| line.about.clone()) {
            Some(About::Channel(_)) => self.over = Over::Detail,
            Some(About::Node(id) | About::Service(id, ..)) => {
                self.filter = Filter::About(id);
                self.show(Tab::Channels);
            }
            Some(About::Inbox(inbox)) => {
                self.filter = Filter::Inbox(inbox);
                self.show(Tab::Channels);
            }
            None => {}
        }
    }
}
