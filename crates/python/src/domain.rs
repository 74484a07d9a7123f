//! Domains: where nodes meet, and asking nodes about themselves from outside.

use std::ffi::OsString;
use std::path::PathBuf;

use librpc::Domain;
use pyo3::prelude::*;

use crate::blocking::run;
use crate::errors::{OrRaise, Raise};
use crate::limit::Limit;
use crate::records::{self, record};
use crate::stats::node_stats;

/// A domain, as callers name it: a name or a path, and the group that shares it.
pub(crate) fn domain(name: Option<PathBuf>, shared_group: Option<u32>) -> Domain {
    let domain = name.map_or_else(Domain::from_env, |name| Domain::parse(OsString::from(name)));
    match shared_group {
        Some(gid) => domain.shared_with_group(gid),
        None => domain,
    }
}

/// The nodes of a domain, dead ones included.
#[pyfunction]
#[pyo3(signature = (domain=None, *, shared_group=None))]
pub(crate) fn nodes(
    py: Python<'_>,
    domain: Option<PathBuf>,
    shared_group: Option<u32>,
) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let domain = self::domain(domain, shared_group);
    let nodes = py.detach(|| domain.nodes()).or_raise(py)?;
    nodes.iter().map(|node| records::node_info(py, node)).collect()
}

/// Asks each node of a domain about itself.
#[pyfunction]
#[pyo3(signature = (domain=None, *, timeout=Limit::seconds(1), shared_group=None), text_signature = "(domain=None, *, timeout=1.0, shared_group=None)")]
pub(crate) fn observe(
    py: Python<'_>,
    domain: Option<PathBuf>,
    timeout: Limit,
    shared_group: Option<u32>,
) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let domain = self::domain(domain, shared_group);
    let observed = run(py, move || domain.observe(timeout.duration()))?.or_raise(py)?;
    let show = |observed: &librpc::Observed| {
        let (stats, error) = match &observed.stats {
            Ok(stats) => (Some(node_stats(py, stats)?), None),
            Err(error) => (None, Some(error.raise(py))),
        };
        record!(py, "Observed", { node: records::node_info(py, &observed.node)?, stats: stats, error: error })
    };
    observed.iter().map(show).collect()
}

/// Removes what dead nodes have left in a domain. Returns their ids.
#[pyfunction]
#[pyo3(signature = (domain=None, *, shared_group=None))]
pub(crate) fn clean(py: Python<'_>, domain: Option<PathBuf>, shared_group: Option<u32>) -> PyResult<Vec<String>> {
    let domain = self::domain(domain, shared_group);
    py.detach(|| domain.clean()).or_raise(py)
}
