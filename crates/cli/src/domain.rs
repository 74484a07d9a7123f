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
