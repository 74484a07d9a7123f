//! A live attacker beside an honest pair, which must not notice the attacks.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use testkit::{Random, TestDomain};

use crate::attacker::{ATTACKS, Attacker};
use crate::honest;
use crate::pair::{Pair, start};

/// How much the victim may grow meanwhile: the memory for payloads of its outboxes, and answers that wait for an attacker.
const GROWTH_KIB: u64 = 256 << 10;

/// The attacker: attacks until its rounds are over.
pub(crate) fn attack(
    domain: &Path,
    seed: u64,
    rounds: u64,
    only: Option<&str>,
    user: Option<u32>,
) -> anyhow::Result<()> {
    testkit::die_with_parent()?;
    let node = honest::open(domain, "evil", user)?;
    // It reads, until the process ends: what nobody reads is memory that the victim lends to nobody else.
    let mut inbox = node.inbox()?;
    std::thread::spawn(move || while inbox.recv().is_ok() {});
    let mut random = Random::new(seed);
    let (mut counts, mut attached, mut lent): (BTreeMap<&str, u64>, u64, u64) = Default::default();
    for round in 0..rounds {
        let drawn = ATTACKS[random.below(ATTACKS.len() as u64) as usize];
        let attack = only.unwrap_or(drawn);
        let mut attacker = Attacker::new(domain, "evil", user.is_none(), random.next())?;
        // An attack that fails (a refusal, a full queue) is as good as one that works.
        if let Err(error) = attacker.round(attack) {
            eprintln!("round {round}, {attack}: {error:#}");
        }
        attached += attacker.attached;
        lent += attacker.lent;
        *counts.entry(ATTACKS.iter().find(|known| **known == attack).copied().unwrap_or("?")).or_insert(0) += 1;
    }
    println!("{counts:?}, {attached} rings attached, {lent} memories for payloads handed over;");
    Ok(())
}

/// Runs the attacker beside an honest pair. An error if the pair has noticed it.
pub(crate) fn run(seed: u64, rounds: u64, only: Option<String>, user: Option<u32>) -> anyhow::Result<String> {
    let domain = TestDomain::new().without_assertions();
    let path = domain.path().to_str().expect("a path under /dev/shm");
    let mut pair = Pair::start(&domain, user)?;
    let before = pair.victim()?;
    let (seed, rounds) = (seed.to_string(), rounds.to_string());
    let option = |name: &str, value: Option<String>| value.map_or(String::new(), |value| format!(" --{name} {value}"));
    let again = format!(
        "again: librpc-hostile live --seed {seed} --rounds {rounds}{}{}",
        option("only", only.clone()),
        option("as", user.map(|uid| uid.to_string()))
    );
    let uid = user.map(|uid| uid.to_string());
    let mut words = vec!["attacker", path, &seed, &rounds];
    for (option, value) in [("--only", only.as_deref()), ("--as", uid.as_deref())] {
        words.extend(value.map(|value| [option, value]).into_iter().flatten());
    }
    let mut evil = start(&words, user)?;
    let watched = pair.watch(&mut evil).and_then(|seen| pair.settle(&before).map(|_| seen));
    let (said, most) = watched.with_context(|| again.clone())?;
    anyhow::ensure!(
        most.memory_kib <= before.memory_kib + GROWTH_KIB,
        "the victim held {most}; before: {before}; {again}"
    );
    let note =
        format!("{said} the victim held {} descriptors at most, {} before", most.descriptors, before.descriptors);
    match pair.end() {
        Ok(noticed) => Ok(format!("{note}; {noticed}")),
        Err(error) => Err(error.context(note).context(again)),
    }
}
