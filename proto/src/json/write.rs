//! Messages to JSON.

use super::{ANY, JsonError, has_own_form, pool};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, SerializeOptions, Value};
use serde_json::{Map, json};

/// A message as JSON with proto field names; fields at their default are left out.
pub(super) fn message(message: &DynamicMessage) -> Result<serde_json::Value, JsonError> {
    let descriptor = message.descriptor();
    if descriptor.full_name() == ANY {
        return Ok(any_message(message));
    }
    if has_own_form(descriptor.full_name()) {
        return own_form(message);
    }
    let mut object = Map::new();
    for (field, found) in message.fields() {
        object.insert(field.name().to_owned(), value(&field, found)?);
    }
    Ok(serde_json::Value::Object(object))
}

/// An `Any`, expanded where its type is known and its bytes are good.
pub(super) fn any(type_url: &str, bytes: &[u8]) -> serde_json::Value {
    expand(type_url, bytes).unwrap_or_else(|| json!({"@type": type_url, "value": BASE64_STANDARD.encode(bytes)}))
}

fn any_message(found: &DynamicMessage) -> serde_json::Value {
    let type_url = found.get_field_by_number(1);
    let bytes = found.get_field_by_number(2);
    any(
        type_url.as_deref().and_then(Value::as_str).unwrap_or_default(),
        bytes.as_deref().and_then(Value::as_bytes).map(AsRef::as_ref).unwrap_or_default(),
    )
}

fn expand(type_url: &str, bytes: &[u8]) -> Option<serde_json::Value> {
    let descriptor = pool().get_message_by_name(crate::any::type_name(type_url))?;
    let plain = !has_own_form(descriptor.full_name()) && descriptor.full_name() != ANY;
    let inner = message(&DynamicMessage::decode(descriptor, bytes).ok()?).ok()?;
    let mut object = Map::new();
    object.insert("@type".to_owned(), type_url.into());
    match inner {
        serde_json::Value::Object(fields) if plain => object.extend(fields),
        other => {
            object.insert("value".to_owned(), other);
        }
    }
    Some(serde_json::Value::Object(object))
}

/// Durations, wrappers, structs: forms that protobuf defines and `prost-reflect` writes.
fn own_form(message: &DynamicMessage) -> Result<serde_json::Value, JsonError> {
    message.serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new()).map_err(|error| {
        JsonError::Malformed { type_name: message.descriptor().full_name().to_owned(), why: error.to_string() }
    })
}

fn value(field: &FieldDescriptor, found: &Value) -> Result<serde_json::Value, JsonError> {
    match found {
        Value::List(items) => items.iter().map(|item| single(&field.kind(), item)).collect(),
        Value::Map(entries) => {
            let kind = match field.kind() {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other,
            };
            let mut sorted: Vec<_> = entries.iter().map(|(key, value)| (map_key(key), value)).collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            let mut object = Map::new();
            for (key, found) in sorted {
                object.insert(key, single(&kind, found)?);
            }
            Ok(serde_json::Value::Object(object))
        }
        other => single(&field.kind(), other),
    }
}

fn single(kind: &Kind, found: &Value) -> Result<serde_json::Value, JsonError> {
    Ok(match found {
        Value::Bool(value) => (*value).into(),
        Value::I32(value) => (*value).into(),
        Value::U32(value) => (*value).into(),
        Value::I64(value) => value.to_string().into(),
        Value::U64(value) => value.to_string().into(),
        Value::F32(value) => float(f64::from(*value)),
        Value::F64(value) => float(*value),
        Value::String(value) => value.as_str().into(),
        Value::Bytes(value) => BASE64_STANDARD.encode(value).into(),
        Value::EnumNumber(number) => match kind.as_enum().and_then(|kind| kind.get_value(*number)) {
            Some(known) => known.name().into(),
            None => (*number).into(),
        },
        Value::Message(nested) => message(nested)?,
        Value::List(_) | Value::Map(_) => serde_json::Value::Null, // protobuf nests neither in a list nor in a map
    })
}

/// JSON has no number for infinities and NaN: protobuf writes them as strings.
fn float(value: f64) -> serde_json::Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => number.into(),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
