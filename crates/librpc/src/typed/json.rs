//! Values as JSON.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::schema::{Encoding, InvalidSchema, Schema};
use crate::shape::{Describe, schema_of};
use crate::typed::{DecodeError, EncodeError, Typed};

/// Values as JSON, by serde: every language reads it, and `librpc sub` prints it. Everything in a payload is read.
///
#[cfg_attr(feature = "derive", doc = "```")]
#[cfg_attr(not(feature = "derive"), doc = "```ignore")]
/// use librpc::{Describe, Json};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize, Describe)]
/// struct Goal {
///     name: String,
///     speed: Option<f64>,
/// }
///
/// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_json_{}", std::process::id()));
/// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
/// # let (robot, planner) = (open("robot")?, open("planner")?);
/// let mut goals = robot.subscriber_of::<Json<Goal>>("goal")?;
/// let mut publisher = planner.publisher_of::<Json<Goal>>("goal")?;
/// publisher.publish(&Goal { name: "dock".into(), speed: None })?;
/// let goal = goals.recv()?.expect("nobody stops this inbox");
/// assert_eq!(goal.value()?, Goal { name: "dock".into(), speed: None });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Json<T>(PhantomData<fn(&T)>);

impl<T: Serialize + DeserializeOwned + Describe> Typed for Json<T> {
    type Value = T;
    type Read<'a> = T;

    fn schema() -> Result<Schema, InvalidSchema> {
        schema_of::<T>(Encoding::Json)
    }

    fn encode<'a>(value: &'a T, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], EncodeError> {
        serde_json::to_writer(&mut *buffer, value).map_err(EncodeError::new)?;
        Ok(buffer)
    }

    fn decode(payload: &[u8]) -> Result<T, DecodeError> {
        serde_json::from_slice(payload).map_err(|error| DecodeError::new(payload, error))
    }
}
