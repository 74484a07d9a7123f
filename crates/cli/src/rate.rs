//! `--rate`: how fast a command sends.

use std::num::NonZeroU32;

use librpc::Rate;

#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct RateArgs {
    /// At most so many messages per second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// At most so many of them at once [default: what a hundredth of a second allows]
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<NonZeroU32>,
}

impl RateArgs {
    pub(crate) fn rate(self) -> Option<Rate> {
        let hundredth = |rate: NonZeroU32| NonZeroU32::new(rate.get() / 100).unwrap_or(NonZeroU32::MIN);
        self.rate.map(|rate| Rate::messages(rate, self.burst.unwrap_or_else(|| hundredth(rate))))
    }
}
