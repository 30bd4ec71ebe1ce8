//! Protobuf's JSON mapping for every message of Envoy's API and Istio's own, `Any` expanded with `@type`.
//!
//! Knows: a descriptor pool that the build made from the `.proto` files. Must never be used on a request path or in the
//! long-lived process of the proxy: the pool costs 17 MB and 0.1 s (design decision M), so the proxy converts in a
//! short-lived child of itself.
//!
//! Own walkers in both directions instead of `prost-reflect`'s serde, because one `Any` of a type that nobody knows must
//! not fail the whole dump: it is kept as `{"@type": …, "value": base64}` both ways; and because errors name the path.

mod foreign;
mod read;
mod redact;
mod write;

pub use foreign::request;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;
use std::sync::OnceLock;

/// What a secret looks like after [`redact`].
pub const REDACTED: &str = "[redacted]";

/// Why a message could not be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The asked type is none of Envoy's API.
    #[error("unknown message type {0}")]
    UnknownType(String),
    /// The bytes are no message of the type.
    #[error("malformed {type_name}: {why}")]
    Malformed {
        /// Full name of the message.
        type_name: String,
        /// What the decoder found wrong.
        why: String,
    },
    /// A field of the input has no meaning or the wrong form.
    #[error("{path}: {why}")]
    Field {
        /// Where, as `static_resources.listeners[0].name`.
        path: String,
        /// What is wrong and what would be right.
        why: String,
    },
}

/// The bytes of a message of type `full_name` as JSON with proto field names.
///
/// # Errors
/// [`JsonError::UnknownType`], or [`JsonError::Malformed`] for bytes that are no such message.
pub fn to_value(full_name: &str, bytes: &[u8]) -> Result<Value, JsonError> {
    let descriptor = message(full_name)?;
    let message = DynamicMessage::decode(descriptor, bytes)
        .map_err(|error| JsonError::Malformed { type_name: full_name.to_owned(), why: error.to_string() })?;
    write::message(&message)
}

/// An `Any` as JSON: expanded when its type is known and its bytes are good, else `{"@type": …, "value": base64}`.
pub fn any_to_value(type_url: &str, bytes: &[u8]) -> Value {
    write::any(type_url, bytes)
}

/// JSON as the bytes of a message of type `full_name`; field names in either spelling, `Any` by `@type`.
///
/// # Errors
/// [`JsonError::UnknownType`], or [`JsonError::Field`] naming the path of what is wrong.
pub fn from_value(full_name: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
    use prost_reflect::prost::Message;
    Ok(read::message(&message(full_name)?, value, &mut read::Path::default())?.encode_to_vec())
}

/// Whether `full_name` is a message that this module can convert.
pub fn is_known(full_name: &str) -> bool {
    pool().get_message_by_name(full_name).is_some()
}

/// Replaces every secret in the JSON of a message of type `full_name` by [`REDACTED`]: fields that the API marks as
/// sensitive, with all that is below them, inside of `Any` too.
///
/// # Errors
/// [`JsonError::UnknownType`].
pub fn redact(full_name: &str, value: &mut Value) -> Result<(), JsonError> {
    redact::message(&message(full_name)?, value);
    Ok(())
}

fn message(full_name: &str) -> Result<MessageDescriptor, JsonError> {
    pool().get_message_by_name(full_name).ok_or_else(|| JsonError::UnknownType(full_name.to_owned()))
}

/// The pool, decoded at first use.
fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        DescriptorPool::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/envoy.descriptors"))[..])
            .expect("protox wrote these descriptors and resolved every reference in them")
    })
}

/// Whether JSON writes a message of this type in a form of its own instead of an object of its fields.
fn has_own_form(full_name: &str) -> bool {
    matches!(
        full_name.strip_prefix("google.protobuf."),
        Some(
            "Duration"
                | "Timestamp"
                | "Struct"
                | "Value"
                | "ListValue"
                | "FieldMask"
                | "Empty"
                | "BoolValue"
                | "StringValue"
                | "BytesValue"
                | "Int32Value"
                | "UInt32Value"
                | "Int64Value"
                | "UInt64Value"
                | "FloatValue"
                | "DoubleValue"
        )
    )
}

const ANY: &str = "google.protobuf.Any";
