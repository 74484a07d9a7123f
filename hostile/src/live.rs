//! A live attacker beside an honest pair: what it does, the honest ones do not feel.

use std::collections::BTreeMap;
use std::path::Path;

use crate::attacker::{ATTACKS, Attacker};
use crate::pair::{self, Pair, start};
use crate::random::Random;

/// Attacks until its rounds are over, or it is killed.
pub(crate) fn attack(
    domain: &Path,
    seed: u64,
    rounds: u64,
    only: Option<&str>,
    user: Option<u32>,
) -> anyhow::Result<()> {
    let node = pair::open(domain, "evil", user)?;
    let _inbox = node.inbox()?;
    let mut random = Random::new(seed);
    let (mut counts, mut attached): (BTreeMap<&str, u64>, u64) = Default::default();
    for round in 0..rounds {
        let drawn = ATTACKS[random.below(ATTACKS.len() as u64) as usize];
        let attack = only.unwrap_or(drawn);
        let mut attacker = Attacker::new(domain, "evil", random.next())?;
        // What does not work (a refusal, a full queue) is as good as what does.
        if let Err(error) = attacker.round(attack) {
            eprintln!("round {round}, {attack}: {error:#}");
        }
        attached += attacker.attached;
        *counts.entry(ATTACKS.iter().find(|known| **known == attack).copied().unwrap_or("?")).or_insert(0) += 1;
    }
    println!("{counts:?}, {attached} rings attached;");
    Ok(())
}

/// Everybody together; `Err`: what the honest ones have felt.
pub(crate) fn run(seed: u64, rounds: u64, only: Option<String>, user: Option<u32>) -> anyhow::Result<String> {
    let path = format!("/dev/shm/librpc_hostile_{}", std::process::id());
    let result = together(&path, seed, rounds, only, user);
    let _ = std::fs::remove_dir_all(&path);
    result
}

fn together(path: &str, seed: u64, rounds: u64, only: Option<String>, user: Option<u32>) -> anyhow::Result<String> {
    let mut pair = Pair::start(path, user)?;
    let before = pair.victim()?;
    let (seed, rounds) = (seed.to_string(), rounds.to_string());
    let uid = user.map(|uid| uid.to_string());
    let mut words = vec!["attacker", path, &seed, &rounds];
    for (option, value) in [("--only", only.as_deref()), ("--as", uid.as_deref())] {
        words.extend(value.map(|value| [option, value]).into_iter().flatten());
    }
    let mut evil = start(&words, user)?;
    let (said, most) = pair.watch(&mut evil)?;
    pair.settle(before)?;
    let note =
        format!("{said} the victim held {} descriptors at most, {} before", most.descriptors, before.descriptors);
    match pair.end() {
        Ok(felt) => Ok(format!("{note}; {felt}")),
        Err(error) => Err(error.context(note)),
    }
}
