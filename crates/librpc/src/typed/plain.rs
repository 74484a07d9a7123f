//! Values as they lie in memory.

use std::marker::PhantomData;

use zerocopy::{ConvertError, FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::schema::{Encoding, InvalidSchema, Schema};
use crate::shape::{Describe, schema_of};
use crate::typed::{DecodeError, EncodeError, Typed};

/// Plain data: the bytes of a value, or of a slice of values, as they lie in memory. Nothing is encoded, and a value is read where the
/// message is.
///
/// The type derives `FromBytes`, `IntoBytes`, `Immutable` and `KnownLayout` of [`crate::zerocopy`], which needs `#[repr(C)]` and no
/// padding. The hash of its schema has the offsets of its fields, so both sides have the same layout.
///
#[cfg_attr(feature = "derive", doc = "```")]
#[cfg_attr(not(feature = "derive"), doc = "```ignore")]
/// use librpc::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
/// use librpc::{Describe, Plain};
///
/// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Describe)]
/// #[zerocopy(crate = "librpc::zerocopy")]
/// #[repr(C)]
/// struct Point {
///     x: f32,
///     y: f32,
/// }
///
/// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_plain_{}", std::process::id()));
/// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
/// # let (lidar, map) = (open("lidar")?, open("map")?);
/// let mut clouds = map.subscriber_of::<Plain<[Point]>>("cloud")?;
/// let mut publisher = lidar.publisher_of::<Plain<[Point]>>("cloud")?;
/// publisher.publish(&[Point { x: 1.0, y: 2.0 }, Point { x: 3.0, y: 4.0 }])?;
/// let cloud = clouds.recv()?.expect("nobody stops this inbox");
/// assert_eq!(cloud.value()?[1].y, 4.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Plain<T: ?Sized>(PhantomData<fn(&T)>);

impl<T> Typed for Plain<T>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout + Describe + ?Sized + 'static,
{
    type Value = T;
    type Read<'a> = &'a T;

    fn schema() -> Result<Schema, InvalidSchema> {
        schema_of::<T>(Encoding::Plain)
    }

    #[inline]
    fn encode<'a>(value: &'a T, _: &'a mut Vec<u8>) -> Result<&'a [u8], EncodeError> {
        Ok(value.as_bytes())
    }

    #[inline]
    fn decode(payload: &[u8]) -> Result<&T, DecodeError> {
        T::ref_from_bytes(payload).map_err(|error| {
            let why = match error {
                ConvertError::Alignment(_) => "it is not aligned for the type",
                _ => "it is of another length than the type",
            };
            DecodeError::new(payload, why)
        })
    }
}
