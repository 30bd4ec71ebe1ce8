//! Taking secrets out of JSON, by the marks in the API (`udpa.annotations.sensitive`), as Envoy's dumps do.

use super::{ANY, REDACTED, pool};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

/// Redacts the JSON of a message in place.
pub(super) fn message(descriptor: &MessageDescriptor, value: &mut Value) {
    if descriptor.full_name() == ANY {
        any(value);
        return;
    }
    let Value::Object(object) = value else { return };
    for (name, found) in object {
        let field = descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
        let Some(field) = field else { continue };
        if is_sensitive(&field) {
            wipe(&field.kind(), found);
        } else {
            descend(&field, found);
        }
    }
}

fn any(value: &mut Value) {
    let type_url = value.get("@type").and_then(Value::as_str).unwrap_or_default();
    if let Some(descriptor) = pool().get_message_by_name(crate::any::type_name(type_url)) {
        message(&descriptor, value);
    }
}

fn descend(field: &FieldDescriptor, value: &mut Value) {
    let Kind::Message(nested) = field.kind() else { return };
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| message(&nested, item)),
        Value::Object(entries) if field.is_map() => {
            if let Kind::Message(of_value) = nested.map_entry_value_field().kind() {
                entries.values_mut().for_each(|entry| message(&of_value, entry));
            }
        }
        other => message(&nested, other),
    }
}

/// Overwrites every leaf below `value`. Bytes stay valid base64, so that the dump can be read back.
fn wipe(kind: &Kind, value: &mut Value) {
    match value {
        Value::String(text) => {
            *text = if matches!(kind, Kind::Bytes) { BASE64_STANDARD.encode(REDACTED) } else { REDACTED.to_owned() };
        }
        Value::Array(items) => items.iter_mut().for_each(|item| wipe(kind, item)),
        Value::Object(object) => {
            object.retain(|name, _| name != "@type");
            for (name, found) in object {
                wipe(&kind_below(kind, name), found);
            }
        }
        Value::Number(_) | Value::Bool(_) | Value::Null => *value = Value::Null,
    }
}

/// The kind of the field `name` below a field of `kind`; a name that no message has is wiped as text.
fn kind_below(kind: &Kind, name: &str) -> Kind {
    let Kind::Message(descriptor) = kind else { return Kind::String };
    if descriptor.is_map_entry() {
        return descriptor.map_entry_value_field().kind();
    }
    descriptor.get_field_by_name(name).map_or(Kind::String, |field| field.kind())
}

fn is_sensitive(field: &FieldDescriptor) -> bool {
    let Some(mark) = pool().get_extension_by_name("udpa.annotations.sensitive") else { return false };
    field.options().get_extension(&mark).as_bool() == Some(true)
}
