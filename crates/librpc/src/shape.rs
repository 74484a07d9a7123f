//! What a type is made of, and the hash of that.
//!
//! The definition of a type is its [`Shape`] in CBOR, and its hash is the FNV-1a hash of that: <http://www.isthe.com/chongo/tech/comp/fnv/>.
//! For plain data the shape has the layout in memory, too.

use minicbor::data::Type;
use minicbor::{Decode, Encode};

use crate::schema::{Encoding, InvalidSchema, Schema};

/// How deeply a definition may be nested. A struct in a struct takes six levels.
const MAX_DEPTH: usize = 256;

/// What a type is made of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Shape {
    /// A number, a text, or another type that has no parts.
    #[n(0)]
    Basic(#[n(0)] Basic),
    /// A value, or none.
    #[n(1)]
    Option(#[n(0)] Box<Shape>),
    /// Any number of values.
    #[n(2)]
    List(#[n(0)] Box<Shape>),
    /// This many values.
    #[n(3)]
    Array(#[n(0)] Box<Shape>, #[n(1)] u64),
    /// Keys, each with a value.
    #[n(4)]
    Map(#[n(0)] Box<Shape>, #[n(1)] Box<Shape>),
    /// Values without names.
    #[n(5)]
    Tuple(#[n(0)] Vec<Shape>),
    /// A struct.
    #[n(6)]
    Struct(#[n(0)] Box<Struct>),
    /// An enum.
    #[n(7)]
    Enum(#[n(0)] Box<Enum>),
    /// A struct or an enum of this name that is being described further out: the nearest one. With `^1` behind the name it is the next
    /// one of that name, and so on.
    #[n(8)]
    Again(#[n(0)] String),
}

/// A type that has no parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is what its name says")]
pub enum Basic {
    #[n(0)]
    Unit,
    #[n(1)]
    Bool,
    #[n(2)]
    Char,
    #[n(3)]
    Text,
    #[n(4)]
    U8,
    #[n(5)]
    U16,
    #[n(6)]
    U32,
    #[n(7)]
    U64,
    #[n(8)]
    U128,
    #[n(9)]
    I8,
    #[n(10)]
    I16,
    #[n(11)]
    I32,
    #[n(12)]
    I64,
    #[n(13)]
    I128,
    #[n(14)]
    F32,
    #[n(15)]
    F64,
}

/// What a struct, or a variant of an enum, holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
#[non_exhaustive]
pub struct Struct {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its fields, in order. Those of a tuple have no names.
    #[n(1)]
    pub fields: Vec<Field>,
    /// Where it is plain data: its length and its alignment, in bytes.
    #[n(2)]
    pub layout: Option<(u64, u64)>,
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
#[non_exhaustive]
pub struct Field {
    /// Its name.
    #[n(0)]
    pub name: Option<String>,
    /// What it holds.
    #[n(1)]
    pub shape: Shape,
    /// Where it is plain data: its offset in bytes.
    #[n(2)]
    pub offset: Option<u64>,
}

/// An enum.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
#[non_exhaustive]
pub struct Enum {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its variants, in order.
    #[n(1)]
    pub variants: Vec<Struct>,
}

impl Shape {
    /// The name of the type: a struct's or an enum's own, otherwise one in the manner of Rust, such as `[f64]`.
    pub fn name(&self) -> String {
        let joined = |shapes: &[Shape]| shapes.iter().map(Shape::name).collect::<Vec<_>>().join(", ");
        match self {
            Self::Basic(Basic::Unit) => "()".to_owned(),
            Self::Basic(Basic::Text) => "str".to_owned(),
            Self::Basic(basic) => format!("{basic:?}").to_lowercase(),
            Self::Option(inner) => format!("Option<{}>", inner.name()),
            Self::List(inner) => format!("[{}]", inner.name()),
            Self::Array(inner, values) => format!("[{}; {values}]", inner.name()),
            Self::Map(key, value) => format!("Map<{}, {}>", key.name(), value.name()),
            Self::Tuple(shapes) => format!("({})", joined(shapes)),
            Self::Struct(of) => of.name.clone(),
            Self::Enum(of) => of.name.clone(),
            Self::Again(name) => name.clone(),
        }
    }

    /// The shape as bytes: the definition of a schema.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("a vector takes every byte")
    }

    /// The shape that a definition describes; `None`: it describes none, or is nested too deeply. It may come from a stranger.
    pub fn decode(definition: &[u8]) -> Option<Self> {
        is_flat(definition).ok().filter(|is_flat| *is_flat)?;
        minicbor::decode(definition).ok()
    }
}

/// Whether arrays and maps are nested no deeper than [`MAX_DEPTH`]: what is decoded takes stack for each level.
fn is_flat(bytes: &[u8]) -> Result<bool, minicbor::decode::Error> {
    let mut decoder = minicbor::Decoder::new(bytes);
    // How many items are left at each level.
    let mut left = vec![1];
    while let Some(items) = left.last_mut() {
        if *items == 0u64 {
            left.pop();
            continue;
        }
        *items -= 1;
        let inside = match decoder.datatype()? {
            Type::Array => decoder.array()?,
            Type::Map => decoder.map()?.and_then(|pairs| pairs.checked_mul(2)),
            Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef | Type::Tag => None,
            _ => {
                decoder.skip()?;
                continue;
            }
        };
        match inside {
            Some(inside) if left.len() < MAX_DEPTH => left.push(inside),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A type that can say what it is made of. Derive it with the feature `derive`, for every type that is part of a message.
///
/// The derive sees names and types, and no attributes of serde: where those change what is written, give the type a name of its own
/// for each change (`#[describe(name = "Pose2")]`).
pub trait Describe {
    /// What the type is made of.
    fn describe(describer: &mut Describer) -> Shape;
}

/// Collects what types are made of: the argument of [`Describe::describe`].
#[derive(Debug, Default)]
pub struct Describer {
    with_layout: bool,
    /// The types that are being described, from the outermost, with the names that they are given.
    open: Vec<(&'static str, String)>,
}

impl Describer {
    /// Describes a struct or an enum, unless that is just being done further out.
    pub fn named<T: ?Sized>(&mut self, name: &str, describe: impl FnOnce(&mut Self) -> Shape) -> Shape {
        let this = std::any::type_name::<T>();
        if let Some(at) = self.open.iter().position(|(open, _)| *open == this) {
            return match self.open[at + 1..].iter().filter(|(_, between)| between == name).count() {
                0 => Shape::Again(name.to_owned()),
                nearer => Shape::Again(format!("{name}^{nearer}")),
            };
        }
        self.open.push((this, name.to_owned()));
        let shape = describe(self);
        self.open.pop();
        shape
    }

    /// A struct with these fields.
    pub fn structure(&self, name: &str, layout: (usize, usize), fields: Vec<Field>) -> Shape {
        let layout = self.with_layout.then_some((layout.0 as u64, layout.1 as u64));
        Shape::Struct(Box::new(Struct { name: name.to_owned(), fields, layout }))
    }

    /// A field of this type.
    pub fn field<T: Describe + ?Sized>(&mut self, name: Option<&str>, offset: usize) -> Field {
        let shape = T::describe(self);
        Field { name: name.map(str::to_owned), shape, offset: self.with_layout.then_some(offset as u64) }
    }

    /// An enum with these variants: their names and their fields.
    pub fn enumeration(&self, name: &str, variants: Vec<(&str, Vec<Field>)>) -> Shape {
        let variant = |(name, fields): (&str, _)| Struct { name: name.to_owned(), fields, layout: None };
        let variants = variants.into_iter().map(variant).collect();
        Shape::Enum(Box::new(Enum { name: name.to_owned(), variants }))
    }
}

/// The schema of a type in an encoding.
///
/// # Errors
///
/// [`InvalidSchema::Name`] if the type's name is too long.
pub(crate) fn schema_of<T: Describe + ?Sized>(encoding: Encoding) -> Result<Schema, InvalidSchema> {
    let shape = T::describe(&mut Describer { with_layout: encoding == Encoding::Plain, open: Vec::new() });
    let definition = shape.encode();
    Ok(Schema::new(&shape.name(), encoding)?.with_hash(fnv1a(&definition)).with_definition(&definition))
}

macro_rules! basic {
    ($($kind:ident: $($type:ty)*,)*) => { $($(
        impl Describe for $type {
            fn describe(_: &mut Describer) -> Shape {
                Shape::Basic(Basic::$kind)
            }
        }
    )*)* };
}

basic! {
    Unit: (), Bool: bool, Char: char, Text: str String,
    U8: u8, U16: u16, U32: u32, U64: u64 usize, U128: u128,
    I8: i8, I16: i16, I32: i32, I64: i64 isize, I128: i128,
    F32: f32, F64: f64,
}

macro_rules! like {
    ($([$($parameter:ident)*] $type:ty: $like:ty,)*) => { $(
        impl<$($parameter: Describe),*> Describe for $type {
            fn describe(describer: &mut Describer) -> Shape {
                <$like>::describe(describer)
            }
        }
    )* };
}

like! {
    [T] Vec<T>: [T],
    [T] std::collections::VecDeque<T>: [T],
    [T] std::collections::BTreeSet<T>: [T],
    [K V] std::collections::BTreeMap<K, V>: std::collections::HashMap<K, V>,
}

impl<T: Describe, S> Describe for std::collections::HashSet<T, S> {
    fn describe(describer: &mut Describer) -> Shape {
        <[T]>::describe(describer)
    }
}

impl<K: Describe, V: Describe, S> Describe for std::collections::HashMap<K, V, S> {
    fn describe(describer: &mut Describer) -> Shape {
        Shape::Map(Box::new(K::describe(describer)), Box::new(V::describe(describer)))
    }
}

impl<T: Describe> Describe for [T] {
    fn describe(describer: &mut Describer) -> Shape {
        Shape::List(Box::new(T::describe(describer)))
    }
}

impl<T: Describe, const N: usize> Describe for [T; N] {
    fn describe(describer: &mut Describer) -> Shape {
        Shape::Array(Box::new(T::describe(describer)), N as u64)
    }
}

impl<T: Describe> Describe for Option<T> {
    fn describe(describer: &mut Describer) -> Shape {
        Shape::Option(Box::new(T::describe(describer)))
    }
}

macro_rules! pointer {
    ($($type:ty)*) => { $(
        impl<T: Describe + ?Sized> Describe for $type {
            fn describe(describer: &mut Describer) -> Shape {
                T::describe(describer)
            }
        }
    )* };
}

pointer! { Box<T> std::rc::Rc<T> std::sync::Arc<T> &T std::cell::Cell<T> }

impl<T: Describe + ToOwned + ?Sized> Describe for std::borrow::Cow<'_, T> {
    fn describe(describer: &mut Describer) -> Shape {
        T::describe(describer)
    }
}

/// As serde writes it.
impl Describe for std::time::Duration {
    fn describe(describer: &mut Describer) -> Shape {
        let fields = vec![describer.field::<u64>(Some("secs"), 0), describer.field::<u32>(Some("nanos"), 0)];
        Shape::Struct(Box::new(Struct { name: "Duration".into(), fields, layout: None }))
    }
}

macro_rules! tuple {
    ($($($part:ident)*,)*) => { $(
        impl<$($part: Describe),*> Describe for ($($part,)*) {
            fn describe(describer: &mut Describer) -> Shape {
                Shape::Tuple(vec![$($part::describe(describer)),*])
            }
        }
    )* };
}

tuple! { A, A B, A B C, A B C D, A B C D E, A B C D E F, A B C D E F G, A B C D E F G H, }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_is_the_known_one() {
        // The values of the authors' test suite.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn types_without_a_name_have_one_in_the_manner_of_rust() {
        let name = |schema: Result<Schema, _>| schema.unwrap().name().to_owned();
        assert_eq!(name(schema_of::<Vec<Option<f64>>>(Encoding::Json)), "[Option<f64>]");
        assert_eq!(name(schema_of::<[(u8, String); 3]>(Encoding::Json)), "[(u8, str); 3]");
        assert_eq!(name(schema_of::<std::collections::BTreeMap<String, ()>>(Encoding::Json)), "Map<str, ()>");
    }

    #[test]
    fn a_shape_survives_its_encoding() {
        let shape =
            <(Vec<u8>, [Option<std::time::Duration>; 2])>::describe(&mut Describer { with_layout: true, open: vec![] });
        assert_eq!(Shape::decode(&shape.encode()), Some(shape));
        assert_eq!(Shape::decode(b"\xff"), None);
    }

    /// Two types of the same name that hold each other.
    #[test]
    fn a_type_within_one_of_the_same_name_is_told_from_it() {
        enum Outer {}
        enum Inner<const AGAIN: bool> {}
        impl<const AGAIN: bool> Describe for Inner<AGAIN> {
            fn describe(describer: &mut Describer) -> Shape {
                describer.named::<Self>("Node", |describer| {
                    let again =
                        if AGAIN { Self::describe(describer) } else { Outer::describe_with::<AGAIN>(describer) };
                    Shape::Option(Box::new(again))
                })
            }
        }
        impl Outer {
            fn describe_with<const AGAIN: bool>(describer: &mut Describer) -> Shape {
                describer.named::<Self>("Node", Inner::<AGAIN>::describe)
            }
        }
        let describe = |with: fn(&mut Describer) -> Shape| with(&mut Describer::default());
        let (one, other) = (describe(Outer::describe_with::<true>), describe(Outer::describe_with::<false>));
        assert_eq!(one, Shape::Option(Box::new(Shape::Again("Node".into()))));
        assert_eq!(other, Shape::Option(Box::new(Shape::Again("Node^1".into()))));
    }

    #[test]
    fn a_definition_that_is_nested_too_deeply_is_none() {
        let nested = |levels| {
            let mut bytes = [0x82, 0x01, 0x81].repeat(levels);
            bytes.extend_from_slice(&[0x82, 0x00, 0x81, 0x00]);
            Shape::decode(&bytes)
        };
        assert!(nested(100).is_some());
        assert!(nested(200).is_none() && nested(5_000_000).is_none());
        assert!(Shape::decode(&[0x9f; 100]).is_none(), "of no known length");
        assert!(Shape::decode(&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_none(), "longer than it is");
    }
}
