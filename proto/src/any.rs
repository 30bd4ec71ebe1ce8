//! Packing and unpacking `google.protobuf.Any`.

use crate::envoy::wkt::Any;
use crate::missing::TypedStruct;
use prost::Message;

/// Why an `Any` could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AnyError {
    /// The `Any` holds another message than the one asked for.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// Full name of the message asked for.
        expected: String,
        /// Type URL that was found.
        found: String,
    },
    /// The bytes are no message of the declared type.
    #[error("malformed {type_name}: {source}")]
    Malformed {
        /// Full name of the message.
        type_name: String,
        /// What the decoder found wrong.
        source: prost::DecodeError,
    },
}

/// The full message name of a type URL: what follows the last slash.
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

/// The message that a configuration stands for: a `TypedStruct` stands for the one that it names (XT-6).
pub fn type_of(any: &Any) -> String {
    let name = type_name(&any.type_url);
    if !matches!(name, "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct") {
        return name.to_owned();
    }
    decode::<TypedStruct>(any).map_or_else(|_| name.to_owned(), |inner| type_name(&inner.type_url).to_owned())
}

/// Packs `message` under `type.googleapis.com/` and its full name.
pub fn pack<M: Message + prost::Name>(message: &M) -> Any {
    Any { type_url: format!("{}{}", crate::type_url::PREFIX, M::full_name()), value: message.encode_to_vec() }
}

/// Packs `message` under an explicit full name, for messages whose generated type carries no name.
pub fn pack_as<M: Message>(full_name: &str, message: &M) -> Any {
    Any { type_url: format!("{}{}", crate::type_url::PREFIX, full_name), value: message.encode_to_vec() }
}

/// Unpacks an `Any` that must hold `M`.
///
/// # Errors
/// [`AnyError::WrongType`] for another type URL, [`AnyError::Malformed`] for undecodable bytes.
pub fn unpack<M: Message + Default + prost::Name>(any: &Any) -> Result<M, AnyError> {
    if type_name(&any.type_url) != M::full_name() {
        return Err(AnyError::WrongType { expected: M::full_name(), found: any.type_url.clone() });
    }
    M::decode(any.value.as_slice()).map_err(|source| AnyError::Malformed { type_name: M::full_name(), source })
}

/// Decodes the bytes of an `Any` as `M` without looking at the type URL, for types without a generated name.
///
/// # Errors
/// [`AnyError::Malformed`] for undecodable bytes.
pub fn decode<M: Message + Default>(any: &Any) -> Result<M, AnyError> {
    M::decode(any.value.as_slice())
        .map_err(|source| AnyError::Malformed { type_name: type_name(&any.type_url).to_owned(), source })
}
