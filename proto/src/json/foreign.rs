//! Messages of schemas that are not in the pool: as a server describes them itself (gRPC reflection).

use super::{JsonError, read};
use prost_reflect::DescriptorPool;
use prost_reflect::prost::Message;
use serde_json::Value;

/// The bytes of the message that a unary method takes, made of JSON. `files` are encoded `FileDescriptorProto`s, each
/// after those that it imports.
///
/// # Errors
/// [`JsonError::Malformed`] for files that are no schema, [`JsonError::UnknownType`] where there is no such method or it
/// streams, [`JsonError::Field`] where the JSON does not fit.
pub fn request(files: &[Vec<u8>], service: &str, method: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
    let mut pool = DescriptorPool::new();
    for file in files {
        let added = pool.decode_file_descriptor_proto(file.as_slice());
        added.map_err(|error| JsonError::Malformed { type_name: service.to_owned(), why: error.to_string() })?;
    }
    let unknown = |what: &str| JsonError::UnknownType(format!("{service}/{method}: {what}"));
    let found = pool.get_service_by_name(service).ok_or_else(|| unknown("there is no such service"))?;
    let found =
        found.methods().find(|known| known.name() == method).ok_or_else(|| unknown("there is no such method"))?;
    if found.is_client_streaming() || found.is_server_streaming() {
        return Err(unknown("it streams; only unary methods can be called"));
    }
    Ok(read::message(&found.input(), value, &mut read::Path::default())?.encode_to_vec())
}
