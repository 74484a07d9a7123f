//! Payloads of a type as JSON: what their schema's definition says, which their publisher wrote.
//!
//! Nothing is believed: a payload that is no value of the type has no JSON, and what is made of it is bounded by its length.

use std::cell::Cell;
use std::fmt;

use librpc::shape::{Basic, Field, Shape, Struct};
use librpc::{Encoding, Schema};
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deeply values are nested at most.
const MAX_DEPTH: usize = 128;

/// A payload as JSON; `None`: its type is not known, it is no value of it, or its encoding is another one.
pub(crate) fn read(schema: &Schema, payload: &[u8]) -> Option<Value> {
    if schema.encoding() == Encoding::Json {
        return serde_json::from_slice(payload).ok();
    }
    let shape = Shape::decode(schema.definition()?)?;
    // An item takes no byte if it is empty, so the items are counted, too.
    let budget = Cell::new(64 + 8 * payload.len());
    let typed = Typed { shape: &shape, outer: None, budget: &budget, depth: 0 };
    match schema.encoding() {
        Encoding::Postcard => {
            let mut deserializer = postcard::Deserializer::from_bytes(payload);
            let value = typed.deserialize(&mut deserializer).ok()?;
            deserializer.finalize().ok().filter(|left| left.is_empty()).map(|_| value)
        }
        Encoding::Plain => typed.plain(payload, true),
        _ => None,
    }
}

/// A type within others.
#[derive(Clone, Copy)]
struct Typed<'s> {
    shape: &'s Shape,
    outer: Option<&'s Outer<'s>>,
    budget: &'s Cell<usize>,
    depth: usize,
}

/// A struct or an enum that is being read further out.
struct Outer<'s> {
    name: &'s str,
    shape: &'s Shape,
    outer: Option<&'s Outer<'s>>,
}

impl<'s> Typed<'s> {
    /// A type in this one.
    fn inner(&self, shape: &'s Shape) -> Option<Self> {
        let left = self.budget.get().checked_sub(1)?;
        self.budget.set(left);
        (self.depth < MAX_DEPTH).then_some(Self { shape, depth: self.depth + 1, ..*self })
    }

    fn seed<E: Error>(&self, shape: &'s Shape) -> Result<Self, E> {
        self.inner(shape).ok_or_else(|| E::custom("it is too large for its payload"))
    }

    /// Plain data, as it lies in memory. Only the outermost list has as many items as there are.
    fn plain(&self, bytes: &[u8], is_outermost: bool) -> Option<Value> {
        Some(match self.shape {
            Shape::Basic(basic) => plain_basic(*basic, bytes)?,
            Shape::Array(of, items) => {
                let items = usize::try_from(*items).ok()?;
                let each = plain_bytes(of, 0)?;
                (each.checked_mul(items)? == bytes.len()).then_some(())?;
                self.plain_items(of, each, items, bytes)?
            }
            Shape::List(of) if is_outermost => {
                let each = plain_bytes(of, 0).filter(|each| *each > 0 && bytes.len().is_multiple_of(*each))?;
                self.plain_items(of, each, bytes.len() / each, bytes)?
            }
            Shape::Struct(of) => {
                (plain_bytes(self.shape, 0)? == bytes.len()).then_some(())?;
                let value = |field: &'s Field| {
                    let (from, length) = (usize::try_from(field.offset?).ok()?, plain_bytes(&field.shape, 0)?);
                    self.inner(&field.shape)?.plain(bytes.get(from..from.checked_add(length)?)?, false)
                };
                named(&of.fields, of.fields.iter().map(value).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    fn plain_items(&self, of: &'s Shape, each: usize, items: usize, bytes: &[u8]) -> Option<Value> {
        let item = |at: usize| self.inner(of)?.plain(&bytes[at * each..(at + 1) * each], false);
        (0..items).map(item).collect::<Option<Vec<_>>>().map(Value::Array)
    }
}

/// The length of plain data.
fn plain_bytes(shape: &Shape, depth: usize) -> Option<usize> {
    if depth == MAX_DEPTH {
        return None;
    }
    match shape {
        Shape::Basic(basic) => basic_bytes(*basic),
        Shape::Array(of, items) => plain_bytes(of, depth + 1)?.checked_mul(usize::try_from(*items).ok()?),
        Shape::Struct(of) => usize::try_from(of.layout?.0).ok(),
        _ => None,
    }
}

fn basic_bytes(basic: Basic) -> Option<usize> {
    Some(match basic {
        Basic::Unit => 0,
        Basic::Bool | Basic::U8 | Basic::I8 => 1,
        Basic::U16 | Basic::I16 => 2,
        Basic::U32 | Basic::I32 | Basic::F32 | Basic::Char => 4,
        Basic::U64 | Basic::I64 | Basic::F64 => 8,
        Basic::U128 | Basic::I128 => 16,
        _ => return None,
    })
}

fn plain_basic(basic: Basic, bytes: &[u8]) -> Option<Value> {
    macro_rules! number {
        ($type:ty) => {
            <$type>::from_ne_bytes(bytes.try_into().ok()?)
        };
    }
    Some(match basic {
        Basic::Unit => Value::Null,
        Basic::Bool => Value::Bool(number!(u8) != 0),
        Basic::Char => char::from_u32(number!(u32))?.to_string().into(),
        Basic::U8 => number!(u8).into(),
        Basic::U16 => number!(u16).into(),
        Basic::U32 => number!(u32).into(),
        Basic::U64 => number!(u64).into(),
        Basic::U128 => number!(u128).to_string().into(),
        Basic::I8 => number!(i8).into(),
        Basic::I16 => number!(i16).into(),
        Basic::I32 => number!(i32).into(),
        Basic::I64 => number!(i64).into(),
        Basic::I128 => number!(i128).to_string().into(),
        Basic::F32 => float32(number!(f32)),
        Basic::F64 => float(number!(f64)),
        _ => return None,
    })
}

/// A number as JSON; one that JSON does not have is text.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

/// The shortest number that is this one in 32 bits.
fn float32(value: f32) -> Value {
    value.to_string().parse().map_or_else(|_| value.to_string().into(), float)
}

/// Fields as an object, or as an array if they have no names; the only one of those is itself.
fn named(fields: &[Field], mut values: Vec<Value>) -> Value {
    match fields {
        [only] if only.name.is_none() && values.len() == 1 => values.remove(0),
        [first, ..] if first.name.is_some() => {
            let names = fields.iter().map(|field| field.name.clone().unwrap_or_default());
            Value::Object(names.zip(values).collect())
        }
        [] => Value::Null,
        _ => Value::Array(values),
    }
}

impl<'de> DeserializeSeed<'de> for Typed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self.shape {
            Shape::Basic(basic) => match basic {
                Basic::Unit => from.deserialize_unit(self),
                Basic::Bool => from.deserialize_bool(self),
                Basic::Char => from.deserialize_char(self),
                Basic::Text => from.deserialize_str(self),
                Basic::U8 => from.deserialize_u8(self),
                Basic::U16 => from.deserialize_u16(self),
                Basic::U32 => from.deserialize_u32(self),
                Basic::U64 => from.deserialize_u64(self),
                Basic::U128 => from.deserialize_u128(self),
                Basic::I8 => from.deserialize_i8(self),
                Basic::I16 => from.deserialize_i16(self),
                Basic::I32 => from.deserialize_i32(self),
                Basic::I64 => from.deserialize_i64(self),
                Basic::I128 => from.deserialize_i128(self),
                Basic::F32 => from.deserialize_f32(self),
                Basic::F64 => from.deserialize_f64(self),
                _ => Err(D::Error::custom("a type of a later version")),
            },
            Shape::Option(_) => from.deserialize_option(self),
            Shape::List(_) => from.deserialize_seq(self),
            Shape::Map(..) => from.deserialize_map(self),
            Shape::Array(_, items) => from.deserialize_tuple(usize::try_from(*items).unwrap_or(usize::MAX), self),
            Shape::Tuple(shapes) => from.deserialize_tuple(shapes.len(), self),
            Shape::Struct(of) => {
                let outer = Outer { name: &of.name, shape: self.shape, outer: self.outer };
                let typed = Typed { shape: self.shape, outer: Some(&outer), budget: self.budget, depth: self.depth };
                Fields { typed, of }.read(from)
            }
            Shape::Enum(of) => {
                let outer = Outer { name: &of.name, shape: self.shape, outer: self.outer };
                let typed = Typed { shape: self.shape, outer: Some(&outer), budget: self.budget, depth: self.depth };
                from.deserialize_enum("", &[], typed)
            }
            Shape::Again(name) => {
                let numbered =
                    name.rsplit_once('^').and_then(|(name, nearer)| Some((name, nearer.parse::<u32>().ok()?)));
                let (name, mut nearer) = numbered.unwrap_or((name, 0));
                let mut outer = self.outer;
                while let Some(found) = outer {
                    if found.name == name && nearer > 0 {
                        nearer -= 1;
                    } else if found.name == name {
                        let again = Typed { shape: found.shape, outer: found.outer, ..self };
                        return again.seed(found.shape)?.deserialize(from);
                    }
                    outer = found.outer;
                }
                Err(D::Error::custom("a type that is not defined"))
            }
            _ => Err(D::Error::custom("a type of a later version")),
        }
    }
}

macro_rules! visit {
    ($($visit:ident($type:ty) $value:expr;)*) => { $(
        fn $visit<E: Error>(self, value: $type) -> Result<Value, E> {
            let make: fn($type) -> Value = $value;
            Ok(make(value))
        }
    )* };
}

impl<'de> Visitor<'de> for Typed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shape.name())
    }

    visit! {
        visit_bool(bool) Value::from;
        visit_u64(u64) Value::from;
        visit_i64(i64) Value::from;
        visit_f32(f32) float32;
        visit_f64(f64) float;
        visit_u128(u128) |value| value.to_string().into();
        visit_i128(i128) |value| value.to_string().into();
        visit_char(char) |value| value.to_string().into();
        visit_str(&str) |text| text.into();
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self.shape {
            Shape::Option(of) => self.seed(of)?.deserialize(from),
            _ => Err(D::Error::custom("no option")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let (mut values, mut at) = (Vec::new(), 0);
        loop {
            let of = match self.shape {
                Shape::List(of) | Shape::Array(of, _) => of,
                // The last one has nothing behind it.
                Shape::Tuple(shapes) => match shapes.get(at) {
                    Some(of) => of,
                    None => break,
                },
                _ => return Err(A::Error::custom("no list")),
            };
            match items.next_element_seed(self.seed(of)?)? {
                Some(value) => values.push(value),
                None => break,
            }
            at += 1;
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let Shape::Map(key, value) = self.shape else { return Err(A::Error::custom("no map")) };
        let mut object = Map::new();
        while let Some(name) = entries.next_key_seed(self.seed(key)?)? {
            let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
            object.insert(name, entries.next_value_seed(self.seed(value)?)?);
        }
        Ok(Value::Object(object))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, from: A) -> Result<Value, A::Error> {
        let Shape::Enum(of) = self.shape else { return Err(A::Error::custom("no enum")) };
        let (at, content) = from.variant_seed(std::marker::PhantomData::<u32>)?;
        let of = of.variants.get(at as usize).ok_or_else(|| A::Error::custom("no such variant"))?;
        let value = match &of.fields[..] {
            [] => {
                content.unit_variant()?;
                return Ok(of.name.clone().into());
            }
            [only] if only.name.is_none() => content.newtype_variant_seed(self.seed(&only.shape)?)?,
            fields => content.tuple_variant(fields.len(), Fields { typed: self, of })?,
        };
        Ok(Value::Object(Map::from_iter([(of.name.clone(), value)])))
    }
}

/// The fields of a struct, or of a variant, which follow each other.
struct Fields<'s> {
    typed: Typed<'s>,
    of: &'s Struct,
}

impl Fields<'_> {
    fn read<'de, D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_tuple(self.of.fields.len(), self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.of.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let Self { typed, of } = self;
        let mut values = Vec::new();
        for field in &of.fields {
            let value = items.next_element_seed(typed.seed(&field.shape)?)?;
            values.push(value.ok_or_else(|| A::Error::custom("a field is missing"))?);
        }
        Ok(named(&of.fields, values))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use librpc::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    use librpc::{Describe, Json, Plain, Postcard, Typed};
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;

    #[derive(Serialize, Deserialize, Describe)]
    struct All {
        unit: (),
        truth: bool,
        letter: char,
        text: String,
        small: (u8, i8, u16, i16),
        large: (u64, i64),
        floats: [f32; 2],
        double: f64,
        none: Option<u8>,
        some: Option<Box<All>>,
        list: Vec<Kind>,
        map: BTreeMap<u16, Meters>,
        nothing: Nothing,
    }

    #[derive(Serialize, Deserialize, Describe)]
    enum Kind {
        Stop,
        Turn(i16),
        Both(i16, bool),
        Drive { speed: Option<f32> },
    }

    #[derive(Serialize, Deserialize, Describe)]
    struct Meters(f64);

    #[derive(Serialize, Deserialize, Describe)]
    struct Nothing;

    #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Describe)]
    #[zerocopy(crate = "librpc::zerocopy")]
    #[repr(C)]
    struct Point {
        at: u64,
        x: [f32; 2],
        kind: Inner,
    }

    #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Describe)]
    #[zerocopy(crate = "librpc::zerocopy")]
    #[repr(C)]
    struct Inner(u32, i32);

    fn all(some: Option<Box<All>>) -> All {
        All {
            unit: (),
            truth: true,
            letter: 'ß',
            text: "a\"b".into(),
            small: (255, -128, 65535, -32768),
            large: (u64::MAX, i64::MIN),
            floats: [0.1, -2.5],
            double: 0.1,
            none: None,
            some,
            list: vec![Kind::Stop, Kind::Turn(-3), Kind::Both(4, false), Kind::Drive { speed: Some(0.5) }],
            map: BTreeMap::from([(7, Meters(1.5))]),
            nothing: Nothing,
        }
    }

    fn bytes<T: Typed>(value: &T::Value) -> Vec<u8> {
        T::encode(value, &mut Vec::new()).unwrap().to_vec()
    }

    #[test]
    fn postcard_is_shown_as_serde_would_write_json() {
        let value = all(Some(Box::new(all(None))));
        let shown = read(&Postcard::<All>::schema().unwrap(), &bytes::<Postcard<All>>(&value)).unwrap();
        let mut expected = serde_json::to_value(&value).unwrap();
        // serde_json makes 64 bits of 32; the shortest number says the same.
        expected["floats"] = json!([0.1, -2.5]);
        expected["some"]["floats"] = json!([0.1, -2.5]);
        assert_eq!(shown, expected);
        let json = Json::<All>::schema().unwrap();
        assert_eq!(read(&json, &serde_json::to_vec(&value).unwrap()).unwrap()["text"], "a\"b");
    }

    #[test]
    fn plain_data_is_shown_by_its_layout() {
        let point = |at| Point { at, x: [0.1, 2.0], kind: Inner(3, -4) };
        let shown = read(&Plain::<Point>::schema().unwrap(), point(7).as_bytes()).unwrap();
        assert_eq!(shown, json!({"at": 7, "x": [0.1, 2.0], "kind": [3, -4]}));
        let points = [point(1), point(2)];
        let shown = read(&Plain::<[Point]>::schema().unwrap(), points.as_bytes()).unwrap();
        assert_eq!(shown[1]["at"], 2);
        assert_eq!(read(&Plain::<f64>::schema().unwrap(), &f64::NAN.to_ne_bytes()), Some("NaN".into()));
    }

    #[test]
    fn what_is_no_value_of_its_type_is_not_shown() {
        let (postcard, plain) = (Postcard::<All>::schema().unwrap(), Plain::<[Point]>::schema().unwrap());
        let whole = bytes::<Postcard<All>>(&all(None));
        for end in 0..whole.len() {
            assert_eq!(read(&postcard, &whole[..end]), None);
        }
        assert_eq!(read(&postcard, &[&whole[..], b"x"].concat()), None, "more than a value");
        assert_eq!(read(&plain, &[0; 25]), None);
        assert_eq!(read(&"All/postcard".parse().unwrap(), &whole), None, "its definition is not known");
    }

    #[test]
    fn a_definition_that_lies_is_bounded_by_the_payload() {
        let schema = |encoding: &str, shape: &Shape| {
            format!("x/{encoding}").parse::<Schema>().unwrap().with_definition(&shape.encode())
        };
        let unit = || Box::new(Shape::Basic(Basic::Unit));
        // As many empty items as a length can say.
        let endless = schema("postcard", &Shape::List(unit()));
        assert_eq!(read(&endless, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), None);
        assert_eq!(read(&schema("postcard", &Shape::Array(unit(), u64::MAX)), b""), None);
        assert_eq!(read(&schema("plain", &Shape::Array(unit(), u64::MAX)), b""), None);
        assert_eq!(read(&schema("plain", &Shape::List(unit())), b""), None);
        assert_eq!(read(&schema("postcard", &Shape::Again("x".into())), b"abc"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_definition_and_no_payload_panics(definition: Vec<u8>, payload: Vec<u8>) {
            for encoding in ["postcard", "plain"] {
                let schema = format!("x/{encoding}").parse::<Schema>().unwrap();
                let _ = read(&schema.clone().with_definition(&definition), &payload);
                let _ = read(&schema.with_definition(Postcard::<All>::schema().unwrap().definition().unwrap()), &payload);
            }
        }
    }
}
