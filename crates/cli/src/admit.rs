//! `--admit` and `--admit-only`: which processes a node admits. `--readers`: which may read what it publishes.

use librpc::{Admission, Rule};

/// What a rule begins with.
const KINDS: [&str; 4] = ["uid:", "gid:", "pid:", "exe:"];

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AdmitArgs {
    /// Whom to admit besides your own user: uid:N, gid:N, pid:N or exe:/path. Rules joined by + must all match, as in
    /// uid:1000+exe:/usr/bin/camera (may be repeated)
    #[arg(long, value_name = "RULE", value_parser = parse_rules)]
    admit: Vec<AllOf>,
    /// The same, but your own user needs a rule, too
    #[arg(long, value_name = "RULE", value_parser = parse_rules)]
    admit_only: Vec<AllOf>,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ReadersArgs {
    /// Who may read the topic: only processes that this rule admits, of the own user or of another. Rules as for
    /// `librpc sub --admit` (may be repeated) [default: every process in the domain]
    #[arg(long, value_name = "RULE", value_parser = parse_rules)]
    readers: Vec<AllOf>,
}

impl ReadersArgs {
    /// `None`: everybody.
    pub(crate) fn admission(self) -> Option<Admission> {
        let only = |rules: Vec<AllOf>| {
            rules.into_iter().fold(Admission::nobody(), |admission, AllOf(rules)| admission.all_of(rules))
        };
        (!self.readers.is_empty()).then(|| only(self.readers))
    }
}

/// Rules that must all match.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AllOf(Vec<Rule>);

fn parse_rules(text: &str) -> Result<AllOf, String> {
    let (mut rules, mut rest) = (Vec::new(), text);
    loop {
        // A path may contain a +. Only a + that is followed by another rule ends the path.
        let is_end = |&(at, _): &(usize, &str)| KINDS.iter().any(|kind| rest[at + 1..].starts_with(kind));
        let end = rest.match_indices('+').find(is_end).map(|(at, _)| at);
        rules.push(parse_rule(end.map_or(rest, |end| &rest[..end]))?);
        match end {
            Some(end) => rest = &rest[end + 1..],
            None => return Ok(AllOf(rules)),
        }
    }
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text:?}: {error}"));
    match text.split_once(':') {
        Some(("uid", uid)) => number(uid).map(Rule::Uid),
        Some(("gid", gid)) => number(gid).map(Rule::Gid),
        Some(("pid", pid)) => number(pid).map(Rule::Pid),
        Some(("exe", path)) if path.starts_with('/') => Ok(Rule::Executable(path.into())),
        _ => Err("a rule is uid:N, gid:N, pid:N or exe:/path, or several of these joined by +".to_owned()),
    }
}

impl AdmitArgs {
    pub(crate) fn admission(self) -> Admission {
        let Self { admit, admit_only } = self;
        let own = if admit_only.is_empty() { Admission::same_user() } else { Admission::nobody() };
        admit.into_iter().chain(admit_only).fold(own, |admission, AllOf(rules)| admission.all_of(rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_joined_by_plus_and_a_path_may_have_one() {
        let exe = |path: &str| Rule::Executable(path.into());
        for (text, rules) in [
            ("uid:1", vec![Rule::Uid(1)]),
            ("uid:1+exe:/usr/bin/x", vec![Rule::Uid(1), exe("/usr/bin/x")]),
            ("exe:/usr/bin/g++", vec![exe("/usr/bin/g++")]),
            ("exe:/a+b/c++gid:2+pid:3", vec![exe("/a+b/c+"), Rule::Gid(2), Rule::Pid(3)]),
        ] {
            assert_eq!(parse_rules(text), Ok(AllOf(rules)), "{text}");
        }
        for text in ["", "+", "uid:1+", "uid:1+uid:", "uid:-1", "uid:4294967296", "exe:x", "uid:1+everybody", "user:1"]
        {
            assert!(parse_rules(text).is_err(), "{text}");
        }
    }
}
