//! The terminal: taken over, drawn on, and restored, whatever ends the command.

use std::io::{Stdout, stdout};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use super::app::App;
use super::draw;

pub(super) struct Terminal(ratatui::Terminal<CrosstermBackend<Stdout>>);

impl Terminal {
    pub(super) fn enter() -> anyhow::Result<Self> {
        enable_raw_mode()?;
        let entered = execute!(stdout(), EnterAlternateScreen).map_err(Into::into);
        let terminal = entered.and_then(|()| Ok(ratatui::Terminal::new(CrosstermBackend::new(stdout()))?));
        terminal.map(Self).inspect_err(|_| leave())
    }

    pub(super) fn draw(&mut self, app: &mut App) -> anyhow::Result<()> {
        self.0.draw(|frame| draw::draw(frame, app))?;
        Ok(())
    }
}

fn leave() {
    // A terminal that is gone need not be restored.
    let _ = execute!(stdout(), LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        leave();
    }
}
