//! A topic's name and type, as they are declared to an inbox.

use std::fmt;
use std::sync::Arc;

use crate::schema::{ListedSchema, Schema};
use crate::wire;

/// The name of a topic, and its type if it has one.
pub(crate) struct TopicName {
    name: Arc<str>,
    typed: Option<Typed>,
}

/// A type, and the name's declaration with it: with its definition, and without.
struct Typed {
    schema: Schema,
    whole: Box<[u8]>,
    short: Box<[u8]>,
}

impl TopicName {
    pub(crate) fn new(name: Arc<str>, schema: Option<Schema>) -> Self {
        let typed = schema.map(|schema| {
            let declaration = |schema: &Schema| {
                let listed = wire::encode(&ListedSchema::from(schema));
                [name.as_bytes(), &[0], &listed].concat().into()
            };
            Typed { whole: declaration(&schema), short: declaration(&schema.short()), schema }
        });
        Self { name, typed }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its type; `None`: bytes.
    pub(crate) fn schema(&self) -> Option<&Schema> {
        self.typed.as_ref().map(|typed| &typed.schema)
    }

    /// Its declaration for an inbox that may know types. A definition that is longer than this is left out.
    pub(crate) fn declaration(&self, knows_types: bool, at_most: usize) -> &[u8] {
        match &self.typed {
            Some(Typed { whole, .. }) if knows_types && whole.len() <= at_most => whole,
            Some(Typed { short, .. }) if knows_types => short,
            _ => self.name.as_bytes(),
        }
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::MAX_TOPIC_BYTES;
    use librpc_ring::{Mode, layout};

    #[test]
    fn a_definition_goes_where_there_is_room_for_it() {
        let schema = "Pose/json/00000000000000ff".parse::<Schema>().unwrap();
        let name = TopicName::new("a/b".into(), Some(schema.clone().with_definition(&[7; 100])));
        assert_eq!(name.declaration(false, 1000), b"a/b");
        let (whole, short) = (name.declaration(true, 1000), name.declaration(true, 50));
        assert!(whole.starts_with(b"a/b\0") && short.starts_with(b"a/b\0"));
        let read = |bytes: &[u8]| Schema::try_from(wire::decode::<ListedSchema>(&bytes[4..]).unwrap()).unwrap();
        assert_eq!((read(whole).definition(), read(short)), (Some(&[7; 100][..]), schema));
    }

    #[test]
    fn the_longest_declaration_without_a_definition_fits_into_the_smallest_ring() {
        let schema: Schema = format!("{}/json/ffffffffffffffff", "x".repeat(128)).parse().unwrap();
        let name = TopicName::new("x".repeat(MAX_TOPIC_BYTES).into(), Some(schema));
        let room = layout::max_payload_bytes(4096, Mode::Latest) as usize;
        assert!(name.declaration(true, 0).len() <= room, "{} of {room}", name.declaration(true, 0).len());
    }
}
