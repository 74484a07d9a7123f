//! A message as Python gets it, and who sent it.

use std::sync::Arc;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// Who sent a message, as the kernel and the registry know it.
#[pyclass(frozen, eq, module = "librpc")]
pub(crate) struct Peer {
    peer: Arc<librpc::Peer>,
    node: Py<PyString>,
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.peer == other.peer
    }
}

impl Peer {
    pub(crate) fn new(py: Python<'_>, peer: &Arc<librpc::Peer>) -> PyResult<Py<Self>> {
        Py::new(py, Self { peer: peer.clone(), node: PyString::new(py, &peer.node).unbind() })
    }

    pub(crate) fn node_of(&self, py: Python<'_>) -> Py<PyString> {
        self.node.clone_ref(py)
    }
}

#[pymethods]
impl Peer {
    #[getter]
    fn node(&self, py: Python<'_>) -> Py<PyString> {
        self.node_of(py)
    }

    #[getter]
    fn incarnation(&self) -> String {
        self.peer.incarnation.to_string()
    }

    #[getter]
    fn pid(&self) -> u32 {
        self.peer.pid
    }

    #[getter]
    fn uid(&self) -> u32 {
        self.peer.uid
    }

    #[getter]
    fn gid(&self) -> u32 {
        self.peer.gid
    }

    #[getter]
    fn groups(&self) -> Vec<u32> {
        self.peer.groups.to_vec()
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (&self.peer.node, self.peer.pid).hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        let librpc::Peer { node, incarnation, pid, uid, .. } = &*self.peer;
        format!("Peer(node={node:?}, incarnation={:?}, pid={pid}, uid={uid})", incarnation.to_string())
    }
}

/// The Python objects of the last message: the next one is mostly of the same sender and topic.
#[derive(Default)]
pub(crate) struct Last {
    peer: Option<(Arc<librpc::Peer>, Py<Peer>)>,
    topic: Option<(Box<str>, Py<PyString>)>,
}

impl Last {
    pub(crate) fn peer(&mut self, py: Python<'_>, peer: &Arc<librpc::Peer>) -> PyResult<Py<Peer>> {
        if let Some((known, object)) = &self.peer
            && Arc::ptr_eq(known, peer)
        {
            return Ok(object.clone_ref(py));
        }
        let object = Peer::new(py, peer)?;
        self.peer = Some((peer.clone(), object.clone_ref(py)));
        Ok(object)
    }

    pub(crate) fn topic(&mut self, py: Python<'_>, topic: Option<&str>) -> Option<Py<PyString>> {
        let topic = topic?;
        if let Some((known, object)) = &self.topic
            && **known == *topic
        {
            return Some(object.clone_ref(py));
        }
        let object = PyString::new(py, topic).unbind();
        self.topic = Some((topic.into(), object.clone_ref(py)));
        Some(object)
    }
}

/// What a message, or a sample, is beside its payload.
pub(crate) struct Envelope {
    pub(crate) peer: Py<Peer>,
    pub(crate) topic: Option<Py<PyString>>,
    pub(crate) sequence: u64,
    pub(crate) missed: u64,
    pub(crate) redelivered: bool,
    pub(crate) past: bool,
    pub(crate) sent_at: Option<Duration>,
}

impl Envelope {
    pub(crate) fn age(&self) -> Option<f64> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        self.sent_at.map(|sent| now.saturating_sub(sent).as_secs_f64())
    }
}

/// A received message.
#[pyclass(frozen, freelist = 64, module = "librpc")]
pub(crate) struct Message {
    payload: Py<PyBytes>,
    envelope: Envelope,
}

impl Message {
    #[inline]
    pub(crate) fn object(py: Python<'_>, message: &librpc::Message<'_>, last: &mut Last) -> PyResult<Py<PyAny>> {
        let envelope = Envelope {
            peer: last.peer(py, message.peer())?,
            topic: last.topic(py, message.topic()),
            sequence: message.sequence(),
            missed: message.missed(),
            redelivered: message.is_redelivered(),
            past: message.is_past(),
            sent_at: message.sent_at(),
        };
        let payload = PyBytes::new(py, message.payload()).unbind();
        Ok(Py::new(py, Self { payload, envelope })?.into_any())
    }
}

/// The attributes that a message and a sample share.
macro_rules! envelope_methods {
    ($class:ident) => {
        #[pymethods]
        impl $class {
            /// The id of the node that sent it.
            #[getter]
            fn sender(&self, py: Python<'_>) -> Py<PyString> {
                self.envelope.peer.get().node_of(py)
            }

            /// Who sent it.
            #[getter]
            fn peer(&self, py: Python<'_>) -> Py<$crate::message::Peer> {
                self.envelope.peer.clone_ref(py)
            }

            /// The topic; `None`: it was sent to the node.
            #[getter]
            fn topic(&self, py: Python<'_>) -> Option<Py<PyString>> {
                self.envelope.topic.as_ref().map(|topic| topic.clone_ref(py))
            }

            /// Its number among the sender's messages to this inbox.
            #[getter]
            fn sequence(&self) -> u64 {
                self.envelope.sequence
            }

            /// How many messages before it were missed.
            #[getter]
            fn missed(&self) -> u64 {
                self.envelope.missed
            }

            /// Whether another incarnation of this node may have processed it before.
            #[getter]
            fn redelivered(&self) -> bool {
                self.envelope.redelivered
            }

            /// Whether it was published before the inbox was opened.
            #[getter]
            fn past(&self) -> bool {
                self.envelope.past
            }

            /// When it was sent, in seconds of `time.monotonic()`; `None`: it does not say.
            #[getter]
            fn sent_at(&self) -> Option<f64> {
                self.envelope.sent_at.map(|sent| sent.as_secs_f64())
            }

            /// How long ago it was sent, in seconds.
            #[getter]
            fn age(&self) -> Option<f64> {
                self.envelope.age()
            }
        }
    };
}
pub(crate) use envelope_methods;

envelope_methods!(Message);

#[pymethods]
impl Message {
    #[getter]
    fn payload(&self, py: Python<'_>) -> Py<PyBytes> {
        self.payload.clone_ref(py)
    }

    /// The payload as JSON.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import(intern!(py, "json"))?.call_method1(intern!(py, "loads"), (&self.payload,))
    }

    fn __bytes__(&self, py: Python<'_>) -> Py<PyBytes> {
        self.payload.clone_ref(py)
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.payload.bind(py).as_bytes().len()
    }

    fn __bool__(&self) -> bool {
        true // also one without bytes
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Envelope { peer, topic, sequence, .. } = &self.envelope;
        let payload = self.payload.bind(py).repr()?;
        let node = peer.get().node.bind(py).repr()?;
        let topic = match topic {
            Some(topic) => format!(", topic={}", topic.bind(py).repr()?),
            None => String::new(),
        };
        Ok(format!("Message(sender={node}{topic}, sequence={sequence}, payload={payload})"))
    }
}
