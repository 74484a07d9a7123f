//! The model of the kernel against the kernel: the same calls, chosen at random, and the same answers.
//!
//! One process makes them all, as root or not: what is between processes (deaths, permissions) has tests of its own.

#[path = "like_linux/calls.rs"]
mod calls; //  the calls, and how they are chosen
#[path = "like_linux/linux.rs"]
mod linux; //  making them on this machine
#[path = "like_linux/model.rs"]
mod model; //  making them on the model

use calls::Call;

/// What is called and what answers.
trait System {
    /// Makes a call, and says how it went. New descriptors take the next numbers.
    fn call(&mut self, call: &Call) -> String;
}

fn compare(seed: u64, calls: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut model = model::Model::new();
    let mut linux = linux::Linux::new(seed);
    let mut chooser = calls::Chooser::new(seed);
    let mut history = String::new();
    for _ in 0..calls {
        let call = chooser.next(&mut random);
        let (expected, found) = (linux.call(&call), model.call(&call));
        history.push_str(&format!("{call:?}: {expected}\n"));
        assert_eq!(found, expected, "seed {seed}: the model (left) is not like Linux (right) after\n{history}");
        chooser.heard(&call, &expected);
    }
}

#[test]
fn the_model_answers_as_linux_does() {
    let seeds = std::env::var("SEEDS").map_or(400, |seeds| seeds.parse().expect("a number of seeds"));
    let from = std::env::var("FROM").map_or(0, |from| from.parse::<u64>().expect("a seed"));
    (from..from + seeds).for_each(|seed| compare(seed, 150));
}
