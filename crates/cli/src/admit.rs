//! `--admit`: whom a node lets in.

use librpc::Admission;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AdmitArgs {
    /// Whom to admit besides the own user: uid:N, gid:N, pid:N or exe:/path (may be repeated)
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    admit: Vec<Rule>,
}

#[derive(Clone, Debug)]
enum Rule {
    Uid(u32),
    Gid(u32),
    Pid(u32),
    Executable(String),
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text:?}: {error}"));
    match text.split_once(':') {
        Some(("uid", uid)) => number(uid).map(Rule::Uid),
        Some(("gid", gid)) => number(gid).map(Rule::Gid),
        Some(("pid", pid)) => number(pid).map(Rule::Pid),
        Some(("exe", path)) if path.starts_with('/') => Ok(Rule::Executable(path.to_owned())),
        _ => Err("a rule is uid:N, gid:N, pid:N or exe:/path".to_owned()),
    }
}

impl AdmitArgs {
    pub(crate) fn admission(self) -> Admission {
        self.admit.into_iter().fold(Admission::same_user(), |admission, rule| match rule {
            Rule::Uid(uid) => admission.uid(uid),
            Rule::Gid(gid) => admission.gid(gid),
            Rule::Pid(pid) => admission.pid(pid),
            Rule::Executable(path) => admission.executable(path),
        })
    }
}
