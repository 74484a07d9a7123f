//! What the messages of a topic are.

use librpc::Encoding;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::OrRaise;
use crate::records::names;

/// What the messages of a topic, or of a service, are: a name, an encoding, and a hash of the structure.
#[pyclass(frozen, from_py_object, eq, module = "librpc")]
#[derive(Clone, PartialEq)]
pub(crate) struct Schema(pub(crate) librpc::Schema);

const ENCODINGS: [(&str, Encoding); 6] = [
    ("raw", Encoding::Raw),
    ("plain", Encoding::Plain),
    ("postcard", Encoding::Postcard),
    ("json", Encoding::Json),
    ("protobuf", Encoding::Protobuf),
    ("cdr", Encoding::Cdr),
];

#[derive(FromPyObject)]
enum EncodingName {
    Number(u32),
    Name(String),
}

#[pymethods]
impl Schema {
    #[new]
    #[pyo3(signature = (name, encoding, *, hash=None, definition=None))]
    fn new(
        py: Python<'_>,
        name: &str,
        encoding: EncodingName,
        hash: Option<u64>,
        definition: Option<&[u8]>,
    ) -> PyResult<Self> {
        let encoding = match encoding {
            EncodingName::Number(number) => Encoding::Other(number),
            EncodingName::Name(name) => {
                let known = ENCODINGS.into_iter().find(|(known, _)| *known == name);
                known.map(|(_, encoding)| encoding).ok_or_else(|| {
                    let known = ENCODINGS.map(|(name, _)| name).join(", ");
                    PyValueError::new_err(format!("unknown encoding {name:?}: it is one of {known}, or a number"))
                })?
            }
        };
        let mut schema = librpc::Schema::new(name, encoding).or_raise(py)?;
        if let Some(hash) = hash {
            schema = schema.with_hash(hash);
        }
        if let Some(definition) = definition {
            schema = schema.with_definition(definition);
        }
        Ok(Self(schema))
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// One of the names, or a number.
    #[getter]
    fn encoding(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(match self.0.encoding() {
            Encoding::Other(number) => number.into_pyobject(py)?.into_any().unbind(),
            encoding => names(&encoding).into_pyobject(py)?.into_any().unbind(),
        })
    }

    #[getter]
    fn hash(&self) -> Option<u64> {
        self.0.hash()
    }

    #[getter]
    fn definition<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.definition().map(|definition| PyBytes::new(py, definition))
    }

    /// Whether messages of the other one can be read as this one.
    fn matches(&self, other: &Self) -> bool {
        self.0.matches(&other.0)
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.0.name().hash(&mut hasher);
        hasher.finish()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Schema({:?})", self.0.to_string())
    }
}
