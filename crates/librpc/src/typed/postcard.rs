//! Values in postcard.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::schema::{Encoding, InvalidSchema, Schema};
use crate::shape::{Describe, schema_of};
use crate::text::counted;
use crate::typed::{DecodeError, EncodeError, Typed};

/// Values in postcard, by serde: <https://postcard.jamesmunns.com>, short and fast. See [`crate::Json`] for an example; bytes that are left
/// after the value are an error.
#[derive(Debug)]
pub struct Postcard<T>(PhantomData<fn(&T)>);

impl<T: Serialize + DeserializeOwned + Describe> Typed for Postcard<T> {
    type Value = T;
    type Read<'a> = T;

    fn schema() -> Result<Schema, InvalidSchema> {
        schema_of::<T>(Encoding::Postcard)
    }

    fn encode<'a>(value: &'a T, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], EncodeError> {
        *buffer = ::postcard::to_extend(value, std::mem::take(buffer)).map_err(EncodeError::new)?;
        Ok(buffer)
    }

    fn decode(payload: &[u8]) -> Result<T, DecodeError> {
        match ::postcard::take_from_bytes(payload) {
            Ok((value, [])) => Ok(value),
            Ok((_, left)) => {
                Err(DecodeError::new(payload, format!("{} left", counted(left.len(), "byte is", "bytes are"))))
            }
            Err(error) => Err(DecodeError::new(payload, error)),
        }
    }
}
