//! What the messages of a topic are: a type's name, how its values are encoded, and a hash of its structure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::text::harmless;

/// The longest name of a type, in bytes.
pub const MAX_TYPE_NAME_BYTES: usize = 128;
/// The longest definition of a type that travels, in bytes.
pub const MAX_DEFINITION_BYTES: usize = 16 * 1024;

/// How values are encoded as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Encoding {
    /// Whatever the program makes of it.
    Raw,
    /// The bytes of the value as it lies in memory: [`crate::Plain`].
    Plain,
    /// Postcard, by serde.
    Postcard,
    /// JSON.
    Json,
    /// Protocol Buffers.
    Protobuf,
    /// CDR, as ROS 2 and DDS use it.
    Cdr,
    /// One that a later version knows, by its number.
    Other(u32),
}

impl Encoding {
    const KNOWN: [(Self, &'static str); 6] = [
        (Self::Raw, "raw"),
        (Self::Plain, "plain"),
        (Self::Postcard, "postcard"),
        (Self::Json, "json"),
        (Self::Protobuf, "protobuf"),
        (Self::Cdr, "cdr"),
    ];

    fn number(self) -> u32 {
        match self {
            Self::Other(number) => number,
            known => Self::KNOWN.iter().position(|(one, _)| *one == known).expect("it is known") as u32,
        }
    }

    fn from_number(number: u32) -> Self {
        Self::KNOWN.get(number as usize).map_or(Self::Other(number), |(one, _)| *one)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(number) => write!(f, "encoding-{number}"),
            known => f.write_str(Self::KNOWN[known.number() as usize].1),
        }
    }
}

/// What the messages of a topic, the requests or replies of a service, or the messages to a node are.
///
/// Two schemas match if their names and encodings are the same, and their hashes, where both have one. As text it is
/// `name/encoding`, or `name/encoding/hash` with the hash in 16 hexadecimal digits:
///
/// ```
/// let schema: librpc::Schema = "Pose/json/00000000000000ff".parse()?;
/// assert_eq!((schema.name(), schema.hash()), ("Pose", Some(0xff)));
/// assert!(schema.matches(&"Pose/json".parse()?));
/// assert!(!schema.matches(&"Pose/postcard".parse()?));
/// # Ok::<(), librpc::InvalidSchema>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Schema {
    name: Arc<str>,
    encoding: Encoding,
    hash: Option<u64>,
    definition: Option<Arc<[u8]>>,
}

/// Why a schema is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSchema {
    /// The name of the type is empty, too long, or has a control character.
    #[error("invalid type name {name:?}: it has 1 to {MAX_TYPE_NAME_BYTES} bytes, and no control characters")]
    Name {
        /// The name, or its beginning.
        name: Arc<str>,
    },
    /// It is not a schema as text.
    #[error(
        "invalid schema {text:?}: it is NAME/ENCODING or NAME/ENCODING/HASH, with an encoding of raw, plain, postcard, json, \
         protobuf or cdr, and a hash of 16 hexadecimal digits"
    )]
    Text {
        /// The text.
        text: Arc<str>,
    },
}

impl Schema {
    /// A schema without a hash: it matches by name and encoding alone.
    ///
    /// # Errors
    ///
    /// [`InvalidSchema::Name`].
    pub fn new(name: &str, encoding: Encoding) -> Result<Self, InvalidSchema> {
        if name.is_empty() || name.len() > MAX_TYPE_NAME_BYTES || name.chars().any(char::is_control) {
            // Whoever wrote it may have written any number of bytes.
            let name: String = name.chars().take(MAX_TYPE_NAME_BYTES).collect();
            return Err(InvalidSchema::Name { name: name.into() });
        }
        Ok(Self { name: name.into(), encoding, hash: None, definition: None })
    }

    /// Adds a hash of the type's structure, so that only the same structure matches.
    pub fn with_hash(self, hash: u64) -> Self {
        Self { hash: Some(hash), ..self }
    }

    /// Adds a definition, which subscribers can read: for [`Encoding::Plain`], [`Encoding::Postcard`] and [`Encoding::Json`] an encoded
    /// [`crate::Shape`], for others what their tools use. It plays no part in matching. One of more than
    /// [`MAX_DEFINITION_BYTES`], or of more than a sixteenth of an inbox's ring, does not travel.
    pub fn with_definition(self, definition: &[u8]) -> Self {
        Self { definition: Some(definition.into()), ..self }
    }

    /// The name of the type.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its values are encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// A hash of its structure; `None`: it is not known.
    pub fn hash(&self) -> Option<u64> {
        self.hash
    }

    /// What the type is made of: [`Schema::with_definition`].
    pub fn definition(&self) -> Option<&[u8]> {
        self.definition.as_deref()
    }

    /// Whether messages of one can be read as the other.
    pub fn matches(&self, other: &Self) -> bool {
        let is_same_hash = match (self.hash, other.hash) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.encoding == other.encoding && is_same_hash && self.name == other.name
    }

    /// The same without the definition.
    pub(crate) fn short(&self) -> Self {
        Self { definition: None, ..self.clone() }
    }

    /// Its bytes in memory, to be counted, with those of the three reference counts and of its place in a table.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.definition.as_ref().map_or(0, |definition| definition.len()) + 96
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.encoding)?;
        self.hash.map_or(Ok(()), |hash| write!(f, "/{hash:016x}"))
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({self})")
    }
}

impl FromStr for Schema {
    type Err = InvalidSchema;

    fn from_str(text: &str) -> Result<Self, InvalidSchema> {
        let invalid = || InvalidSchema::Text { text: text.into() };
        let encoding = |name: &str| Encoding::KNOWN.iter().find(|(_, known)| *known == name).map(|(one, _)| *one);
        let (front, last) = text.rsplit_once('/').ok_or_else(invalid)?;
        if let Some(encoding) = encoding(last) {
            return Self::new(front, encoding);
        }
        let is_hash = last.len() == 16 && last.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hash = u64::from_str_radix(last, 16).ok().filter(|_| is_hash).ok_or_else(invalid)?;
        let (name, middle) = front.rsplit_once('/').ok_or_else(invalid)?;
        Ok(Self::new(name, encoding(middle).ok_or_else(invalid)?)?.with_hash(hash))
    }
}

/// A schema as other processes read it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListedSchema {
    #[n(0)]
    pub(crate) name: String,
    #[n(1)]
    pub(crate) encoding: u32,
    #[n(2)]
    pub(crate) hash: Option<u64>,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) definition: Option<Vec<u8>>,
}

impl From<&Schema> for ListedSchema {
    fn from(schema: &Schema) -> Self {
        let definition = schema.definition().filter(|bytes| bytes.len() <= MAX_DEFINITION_BYTES);
        Self {
            name: schema.name.to_string(),
            encoding: schema.encoding.number(),
            hash: schema.hash,
            definition: definition.map(<[u8]>::to_vec),
        }
    }
}

impl TryFrom<ListedSchema> for Schema {
    type Error = InvalidSchema;

    /// What a stranger wrote, checked.
    fn try_from(listed: ListedSchema) -> Result<Self, InvalidSchema> {
        let ListedSchema { name, encoding, hash, definition } = listed;
        let definition = definition.filter(|bytes| bytes.len() <= MAX_DEFINITION_BYTES).map(Arc::from);
        Ok(Self { hash, definition, ..Self::new(&harmless(&name), Encoding::from_number(encoding))? })
    }
}

/// Two sides of a topic, of a service or of a node's inbox that do not mean the same type. Nothing is decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {} here, and {} at node {node:?}, uid {uid}", Subject(.topic), text_of(.ours.as_ref()), text_of(.theirs.as_ref()))]
#[non_exhaustive]
pub struct SchemaMismatch {
    /// The topic, or the service; empty: what is sent to a node itself.
    pub topic: Arc<str>,
    /// The node of the other side, and its user.
    pub node: Arc<str>,
    /// The user.
    pub uid: u32,
    /// What it means on this side; `None`: bytes without a type.
    pub ours: Option<Schema>,
    /// What it means on the other side.
    pub theirs: Option<Schema>,
}

/// What is of another type, as the subject of a sentence.
struct Subject<'a>(&'a str);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => f.write_str("messages to a node are"),
            topic => write!(f, "{topic:?} is"),
        }
    }
}

impl SchemaMismatch {
    pub(crate) fn new(
        topic: &Arc<str>,
        node: &Arc<str>,
        uid: u32,
        ours: Option<Schema>,
        theirs: Option<Schema>,
    ) -> Self {
        Self { topic: topic.clone(), node: node.clone(), uid, ours, theirs }
    }
}

/// What it says of its messages.
pub(crate) fn text_of(schema: Option<&Schema>) -> String {
    schema.map_or_else(|| "bytes without a type".to_owned(), |schema| format!("of type {schema}"))
}

/// What the requests and the replies of a service are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallSchemas {
    pub(crate) request: Option<Schema>,
    pub(crate) reply: Option<Schema>,
    /// A client that passes bytes on, whatever they are.
    pub(crate) any: bool,
}

impl CallSchemas {
    /// What a list of schemas says.
    pub(crate) fn listed(schemas: &[Schema], any: bool) -> Self {
        Self { request: schemas.first().cloned(), reply: schemas.get(1).cloned(), any }
    }

    /// What differs between a client and a server, if anything does: the client's, and the server's.
    pub(crate) fn difference(client: &Self, server: &Self) -> Option<(Option<Schema>, Option<Schema>)> {
        if client.any {
            return None;
        }
        if !is_readable(client.request.as_ref(), server.request.as_ref()) {
            return Some((client.request.clone(), server.request.clone()));
        }
        let is_same = is_readable(server.reply.as_ref(), client.reply.as_ref());
        (!is_same).then(|| (client.reply.clone(), server.reply.clone()))
    }
}

/// Whether what is sent as `given` may be read as `wanted`. Who wants no type takes everything.
pub(crate) fn is_readable(given: Option<&Schema>, wanted: Option<&Schema>) -> bool {
    wanted.is_none_or(|wanted| given.is_some_and(|given| given.matches(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(text: &str) -> Schema {
        text.parse().unwrap()
    }

    #[test]
    fn a_schema_is_what_its_text_says() {
        for text in ["Pose/json", "geometry/Pose/cdr/0123456789abcdef", "Vec<u8>/raw", "json/json"] {
            assert_eq!(schema(text).to_string(), text);
        }
        for text in ["", "Pose", "/json", "Pose/xml", "Pose/json/12", "Pose/json/+123456789abcdef", "a\n/json", "json"]
        {
            assert!(text.parse::<Schema>().is_err(), "{text:?}");
        }
        let long = format!("{}/json", "x".repeat(129));
        assert!(matches!(long.parse::<Schema>(), Err(InvalidSchema::Name { .. })));
    }

    #[test]
    fn names_encodings_and_known_hashes_must_be_the_same() {
        let wanted = schema("Pose/json/0000000000000001");
        for (given, fits) in [
            ("Pose/json/0000000000000001", true),
            ("Pose/json", true),
            ("Pose/json/0000000000000002", false),
            ("Pose/postcard/0000000000000001", false),
            ("pose/json/0000000000000001", false),
        ] {
            assert_eq!(is_readable(Some(&schema(given)), Some(&wanted)), fits, "{given}");
        }
        assert!(!is_readable(None, Some(&wanted)), "bytes without a type are of no type");
        assert!(is_readable(None, None) && is_readable(Some(&wanted), None), "who wants no type takes everything");
    }

    #[test]
    fn what_a_stranger_lists_is_checked() {
        let listed =
            |name: &str, encoding, definition| ListedSchema { name: name.into(), encoding, hash: None, definition };
        let read = |listed: ListedSchema| Schema::try_from(listed).unwrap();
        assert_eq!(read(listed("a\u{1b}[2Jb", 3, None)).to_string(), "a[2Jb/json");
        assert_eq!(read(listed("a", 77, None)).to_string(), "a/encoding-77");
        assert_eq!(read(listed("a", 3, Some(vec![0; MAX_DEFINITION_BYTES + 1]))).definition(), None);
        assert!(Schema::try_from(listed("", 3, None)).is_err());
        let whole = schema("a/cdr/00000000000000ff").with_definition(b"uint8 x");
        assert_eq!(read((&whole).into()), whole);
    }

    #[test]
    fn a_mismatch_names_both_schemas() {
        let mismatch = SchemaMismatch {
            topic: "robot/pose".into(),
            node: "camera".into(),
            uid: 7,
            ours: Some(schema("Pose/json")),
            theirs: None,
        };
        let text = "\"robot/pose\" is of type Pose/json here, and bytes without a type at node \"camera\", uid 7";
        assert_eq!(mismatch.to_string(), text);
        let text = "messages to a node are of type Pose/json here, and bytes without a type at node \"camera\", uid 7";
        assert_eq!(SchemaMismatch { topic: "".into(), ..mismatch }.to_string(), text);
    }
}
