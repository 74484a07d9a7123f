//! Who may send to a node, read its topics or call its services.

use std::path::PathBuf;

use pyo3::prelude::*;

/// Who is admitted, as the kernel knows them. Whoever one of its rules admits is admitted.
#[pyclass(frozen, from_py_object, module = "librpc")]
#[derive(Clone)]
pub(crate) struct Admission(pub(crate) librpc::Admission);

#[pymethods]
impl Admission {
    /// Processes of the same user: the default.
    #[staticmethod]
    fn same_user() -> Self {
        Self(librpc::Admission::same_user())
    }

    /// Nobody, to which rules are added.
    #[staticmethod]
    fn nobody() -> Self {
        Self(librpc::Admission::nobody())
    }

    /// Also this user.
    fn uid(&self, uid: u32) -> Self {
        Self(self.0.clone().uid(uid))
    }

    /// Also this group.
    fn gid(&self, gid: u32) -> Self {
        Self(self.0.clone().gid(gid))
    }

    /// Also this process.
    fn pid(&self, pid: u32) -> Self {
        Self(self.0.clone().pid(pid))
    }

    /// Also processes that run this executable.
    fn executable(&self, path: PathBuf) -> Self {
        Self(self.0.clone().executable(path))
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}
