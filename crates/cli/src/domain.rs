//! Where a command looks for nodes, and how it opens its own.

use anyhow::Context;
use librpc::{Admission, Domain, Node, OpenError};

use crate::outcome::Usage;

/// The options that every command takes, before it or behind it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DomainArgs {
    /// Where nodes find one another: a directory if it has a `/`, otherwise /dev/shm/librpc_UID.X.
    /// Default: $LIBRPC_DOMAIN, or else /dev/shm/librpc_UID
    #[arg(long, global = true, help_heading = "Domain", value_name = "X", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    domain: Option<String>,
    /// The domain is shared with the members of this group (a name or a number)
    #[arg(long, global = true, help_heading = "Domain", value_name = "GROUP", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    group: Option<String>,
}

impl DomainArgs {
    pub(crate) fn domain(&self) -> anyhow::Result<Domain> {
        let domain = self.domain.as_deref().map_or_else(Domain::from_env, Domain::parse);
        Ok(match &self.group {
            Some(group) => domain.shared_with_group(gid(group)?),
            None => domain,
        })
    }

    /// The domain that is named; where none is, every one of this user's, the default one first.
    pub(crate) fn all_domains(&self) -> anyhow::Result<Vec<Domain>> {
        let mut domains = vec![self.domain()?];
        if self.domain.is_none() && self.group.is_none() && std::env::var_os("LIBRPC_DOMAIN").is_none() {
            domains.extend(own_domains(&format!("librpc_{}.", rustix::process::geteuid().as_raw())));
        }
        Ok(domains)
    }

    /// The domain that the command line names, or else one of this name; not that of the environment.
    pub(crate) fn domain_or(&self, name: &str) -> anyhow::Result<Domain> {
        if self.domain.is_some() { self.domain() } else { Ok(Domain::parse(name)) }
    }

    pub(crate) fn open(&self, id: &str) -> anyhow::Result<Node> {
        self.open_admitting(id, Admission::same_user())
    }

    pub(crate) fn open_admitting(&self, id: &str, admission: Admission) -> anyhow::Result<Node> {
        let node = Node::builder(id).domain(self.domain()?).admit(admission).open();
        node.map_err(|error| match error {
            OpenError::BadId(bad) => Usage(bad.to_string()).into(),
            error => error.into(),
        })
    }
}

/// The private domains of this user under /dev/shm whose names begin so.
fn own_domains(prefix: &str) -> Vec<Domain> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let Ok(entries) = std::fs::read_dir("/dev/shm") else { return Vec::new() };
    let is_own = |entry: &std::fs::DirEntry| {
        let private = |metadata: std::fs::Metadata| {
            let owner = metadata.uid() == rustix::process::geteuid().as_raw();
            owner && metadata.is_dir() && metadata.permissions().mode() & 0o777 == 0o700
        };
        entry.file_name().to_string_lossy().starts_with(prefix) && entry.metadata().is_ok_and(private)
    };
    entries.flatten().filter(is_own).map(|entry| Domain::at(entry.path())).collect()
}

/// Clears away what killed runs of this kind (`demo`, `bench`) have left. What cannot be cleared waits for `librpc clean`.
pub(crate) fn clear_leftovers(kind: &str) {
    for domain in own_domains(&format!("librpc_{}.{kind}-", rustix::process::geteuid().as_raw())) {
        let _ = domain.clean();
    }
}

fn gid(group: &str) -> anyhow::Result<u32> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let found = nix::unistd::Group::from_name(group).with_context(|| format!("cannot look up group {group:?}"))?;
    Ok(found.ok_or_else(|| Usage(format!("there is no group {group:?}")))?.gid.as_raw())
}

/// A node id that nobody else has: `<what>-<8 hex>`.
pub(crate) fn unique_id(what: &str) -> anyhow::Result<String> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("cannot get random bytes")?;
    Ok(format!("{what}-{:08x}", u32::from_ne_bytes(bytes)))
}
