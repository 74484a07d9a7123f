//! `--admit`: who may send to a node.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use librpc::Admission;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AdmitArgs {
    /// Admit others besides the own user: uid:N, gid:N, pid:N or exe:/path. May be repeated
    #[arg(long, value_name = "RULE", value_parser = OsStringValueParser::new().try_map(|text| parse_rule(&text)))]
    admit: Vec<Rule>,
}

#[derive(Clone, Debug)]
enum Rule {
    Uid(u32),
    Gid(u32),
    Pid(u32),
    Executable(PathBuf),
}

fn parse_rule(text: &OsStr) -> Result<Rule, String> {
    // A path may be any bytes.
    if let Some(path) = text.as_bytes().strip_prefix(b"exe:").filter(|path| path.starts_with(b"/")) {
        return Ok(Rule::Executable(OsString::from(OsStr::from_bytes(path)).into()));
    }
    let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text:?}: {error}"));
    match text.to_str().and_then(|text| text.split_once(':')) {
        Some(("uid", uid)) => number(uid).map(Rule::Uid),
        Some(("gid", gid)) => number(gid).map(Rule::Gid),
        Some(("pid", pid)) => number(pid).map(Rule::Pid),
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
