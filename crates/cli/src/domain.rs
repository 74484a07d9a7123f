//! Which domain a command works in, and how it opens its own node.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, ensure};
use librpc::{Admission, Domain, Node, NodeBuilder, OpenError};

use crate::outcome::Usage;

/// The options that every command takes, before or after its name.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DomainArgs {
    /// Where nodes find one another: a directory if it contains a `/`, otherwise /dev/shm/librpc_UID.X
    /// [default: $LIBRPC_DOMAIN, or /dev/shm/librpc_UID]
    #[arg(long, global = true, help_heading = "Domain", value_name = "X", value_parser = not_empty())]
    domain: Option<OsString>,
    /// Share the domain with the members of this group (a name or a number)
    #[arg(long, global = true, help_heading = "Domain", value_name = "GROUP", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    group: Option<String>,
}

fn not_empty() -> impl clap::builder::TypedValueParser<Value = OsString> {
    use clap::builder::{OsStringValueParser, TypedValueParser};
    let check = |text: OsString| if text.is_empty() { Err("it must not be empty") } else { Ok(text) };
    OsStringValueParser::new().try_map(check)
}

impl DomainArgs {
    /// The domain to work in.
    pub(crate) fn domain(&self) -> anyhow::Result<Domain> {
        let domain = self.unchecked()?;
        let path = domain.path();
        let is_link = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        ensure!(!is_link, "domain {} is a symbolic link: name the directory that it leads to", path.display());
        Ok(domain)
    }

    /// The same, without checking where its path leads.
    pub(crate) fn unchecked(&self) -> anyhow::Result<Domain> {
        let domain = match self.name() {
            Some(name) => named(&name)?,
            None => Domain::from_env(), // which names nothing: the default
        };
        Ok(match &self.group {
            Some(group) => domain.shared_with_group(gid(group)?),
            None => domain,
        })
    }

    /// The name on the command line or in the environment. An empty `LIBRPC_DOMAIN` counts as unset.
    fn name(&self) -> Option<OsString> {
        let from_env = || std::env::var_os("LIBRPC_DOMAIN").filter(|name| !name.is_empty());
        self.domain.clone().or_else(from_env)
    }

    /// The domain that is named, or otherwise every domain of this user, the default one first.
    pub(crate) fn all_domains(&self) -> anyhow::Result<Vec<Domain>> {
        let mut domains = vec![self.domain()?];
        if self.name().is_none() && self.group.is_none() {
            domains.extend(own_domains(""));
        }
        Ok(domains)
    }

    /// The domain that the command line names, otherwise the one of this name. The environment does not count.
    pub(crate) fn domain_or(&self, name: &str) -> anyhow::Result<Domain> {
        if self.domain.is_some() { self.domain() } else { Ok(Domain::parse(name)) }
    }

    pub(crate) fn open(&self, id: &str) -> anyhow::Result<Node> {
        self.open_admitting(id, Admission::same_user())
    }

    pub(crate) fn open_admitting(&self, id: &str, admission: Admission) -> anyhow::Result<Node> {
        self.open_with(id, |node| node.admit(admission))
    }

    /// Opens a node with this setup.
    pub(crate) fn open_with(&self, id: &str, set_up: impl FnOnce(NodeBuilder) -> NodeBuilder) -> anyhow::Result<Node> {
        let node = set_up(Node::builder(id).domain(self.domain()?)).open();
        node.map_err(|error| match error {
            OpenError::InvalidId(bad) => Usage(bad.to_string()).into(),
            OpenError::InvalidTopic(bad) => Usage(bad.to_string()).into(),
            error => error.into(),
        })
    }
}

/// The domain of this name. A path may be any bytes; slashes at its end are ignored.
fn named(name: &OsStr) -> anyhow::Result<Domain> {
    if name.as_bytes().contains(&b'/') {
        let end = name.as_bytes().iter().rposition(|&byte| byte != b'/').map_or(1, |last| last + 1);
        return Ok(Domain::at(Path::new(OsStr::from_bytes(&name.as_bytes()[..end]))));
    }
    let is_bad = || Usage(format!("domain {name:?} is not UTF-8: a name must be, a path need not"));
    Ok(Domain::parse(name.to_str().ok_or_else(is_bad)?))
}

/// The private domains of this user under /dev/shm whose names begin like this.
fn own_domains(name: &str) -> Vec<Domain> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let first = Domain::parse(name); // the library knows this user's number, also in a user namespace
    let prefix = first.path().file_name().unwrap_or_default();
    let Ok(entries) = std::fs::read_dir("/dev/shm") else { return Vec::new() };
    let is_own = |entry: &std::fs::DirEntry| {
        let private = |metadata: std::fs::Metadata| {
            let owner = metadata.uid() == rustix::process::geteuid().as_raw();
            owner && metadata.is_dir() && metadata.permissions().mode() & 0o777 == 0o700
        };
        entry.file_name().as_bytes().starts_with(prefix.as_bytes()) && entry.metadata().is_ok_and(private)
    };
    entries.flatten().filter(is_own).map(|entry| Domain::at(entry.path())).collect()
}

/// Removes what killed runs of this kind (`demo`, `bench`) left. What cannot be removed is left to `librpc clean`.
pub(crate) fn clear_leftovers(kind: &str) {
    for domain in own_domains(&format!("{kind}-")) {
        let _ = domain.clean();
    }
}

fn gid(group: &str) -> anyhow::Result<u32> {
    match group.parse() {
        Ok(u32::MAX) => Err(Usage(format!("{group} is not a group: the kernel reserves this number")).into()),
        Ok(gid) => Ok(gid),
        Err(_) => {
            let found = nix::unistd::Group::from_name(group);
            let found = found.with_context(|| format!("cannot look up group {group:?}"))?;
            Ok(found.ok_or_else(|| Usage(format!("there is no group {group:?}")))?.gid.as_raw())
        }
    }
}

/// A unique node id: `<what>-<8 hex>`.
pub(crate) fn unique_id(what: &str) -> anyhow::Result<String> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("cannot get random bytes")?;
    Ok(format!("{what}-{:08x}", u32::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_at_the_end_of_a_path_are_ignored() {
        for (name, path) in [("/a/b", "/a/b"), ("/a/b//", "/a/b"), ("b/", "b"), ("./b", "./b"), ("//", "/")] {
            let domain = named(OsStr::new(name)).expect("a path");
            // A relative one is made absolute at once.
            let path = std::path::absolute(path).expect("a working directory");
            assert_eq!(domain.path().as_os_str(), path, "{name}");
        }
    }

    #[test]
    fn a_path_may_be_any_bytes_and_a_name_must_be_text() {
        let path = OsStr::from_bytes(b"/dev/shm/\xff");
        assert_eq!(named(path).expect("a path").path().as_os_str(), path);
        let error = named(OsStr::from_bytes(b"robot\xff")).expect_err("it is not text");
        assert!(error.is::<Usage>(), "{error}");
    }
}
