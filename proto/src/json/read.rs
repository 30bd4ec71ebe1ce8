//! JSON to messages.

use super::{ANY, JsonError, has_own_form, pool};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use serde_json::Value as Json;
use std::collections::HashMap;

/// Nesting that no configuration of people reaches; deeper input is refused before the stack is at risk.
const MAX_DEPTH: usize = 100;

/// Where in the input the walker is.
#[derive(Default)]
pub(super) struct Path {
    steps: Vec<String>,
}

impl Path {
    fn error(&self, why: impl Into<String>) -> JsonError {
        let mut path = String::new();
        for step in &self.steps {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        if path.is_empty() {
            path.push_str("(top)");
        }
        JsonError::Field { path, why: why.into() }
    }

    fn within<T>(
        &mut self,
        step: String,
        read: impl FnOnce(&mut Self) -> Result<T, JsonError>,
    ) -> Result<T, JsonError> {
        self.steps.push(step);
        if self.steps.len() > MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let result = read(self);
        self.steps.pop();
        result
    }
}

/// Reads a message of the given type.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    json: &Json,
    path: &mut Path,
) -> Result<DynamicMessage, JsonError> {
    if descriptor.full_name() == ANY {
        return any(descriptor, json, path);
    }
    if has_own_form(descriptor.full_name()) {
        return DynamicMessage::deserialize(descriptor.clone(), json)
            .map_err(|error| path.error(format!("{error} (a {} is wanted)", descriptor.name())));
    }
    fields(descriptor, json, path, "")
}

/// The fields of an object; `except` is a key that belongs to the surroundings (`@type`).
fn fields(
    descriptor: &MessageDescriptor,
    json: &Json,
    path: &mut Path,
    except: &str,
) -> Result<DynamicMessage, JsonError> {
    let Json::Object(object) = json else {
        return Err(path.error(format!("expected an object ({}), found {}", descriptor.name(), kind_of(json))));
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    for (name, found) in object.iter().filter(|(name, _)| *name != except) {
        path.within(name.clone(), |path| {
            let field =
                descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name)).ok_or_else(
                    || path.error(format!("unknown field of {}{}", descriptor.full_name(), hint(descriptor, name))),
                )?;
            if found.is_null() && !is_value(&field.kind()) {
                return Ok(());
            }
            if message.has_field(&field) {
                return Err(path.error("given twice, in both spellings"));
            }
            if let Some(set) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic())
                && let Some(other) = set.fields().find(|other| message.has_field(other))
            {
                return Err(path.error(format!("only one of {} and {} can be set", other.name(), field.name())));
            }
            let value = field_value(&field, found, path)?;
            message.set_field(&field, value);
            Ok(())
        })?;
    }
    Ok(message)
}

/// `null` is a value of its own only for `google.protobuf.Value`.
fn is_value(kind: &Kind) -> bool {
    matches!(kind, Kind::Message(nested) if nested.full_name() == "google.protobuf.Value")
}

/// The closest field name, when one is close enough to be a slip.
fn hint(descriptor: &MessageDescriptor, name: &str) -> String {
    let distance = |other: &str| {
        let (a, b): (Vec<char>, Vec<char>) = (name.chars().collect(), other.chars().collect());
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, y) in b.iter().enumerate() {
                let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
                diagonal = std::mem::replace(&mut row[j + 1], next);
            }
        }
        row.last().copied().unwrap_or(usize::MAX)
    };
    let closest = descriptor.fields().map(|field| (distance(field.name()), field.name().to_owned())).min();
    closest.filter(|(far, _)| *far <= 2).map_or_else(String::new, |(_, close)| format!("; did you mean {close}?"))
}

fn field_value(field: &FieldDescriptor, json: &Json, path: &mut Path) -> Result<Value, JsonError> {
    if field.is_map() {
        return map(field, json, path);
    }
    if !field.is_list() {
        return single(&field.kind(), json, path);
    }
    let Json::Array(items) = json else {
        return Err(path.error(format!("expected a list, found {}", kind_of(json))));
    };
    let kind = field.kind();
    let items = items.iter().enumerate();
    Ok(Value::List(
        items
            .map(|(index, item)| path.within(format!("[{index}]"), |path| single(&kind, item, path)))
            .collect::<Result<_, _>>()?,
    ))
}

fn map(field: &FieldDescriptor, json: &Json, path: &mut Path) -> Result<Value, JsonError> {
    let (Json::Object(object), Kind::Message(entry)) = (json, field.kind()) else {
        return Err(path.error(format!("expected an object (a map), found {}", kind_of(json))));
    };
    let (of_key, of_value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
    let mut entries = HashMap::new();
    for (key, found) in object {
        path.within(key.clone(), |path| {
            let key = map_key(&of_key, key).ok_or_else(|| path.error("wrong type of map key"))?;
            entries.insert(key, single(&of_value, found, path)?);
            Ok(())
        })?;
    }
    Ok(Value::Map(entries))
}

fn map_key(kind: &Kind, key: &str) -> Option<MapKey> {
    Some(match kind {
        Kind::String => MapKey::String(key.to_owned()),
        Kind::Bool => MapKey::Bool(key.parse().ok()?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(key.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(key.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(key.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(key.parse().ok()?),
        _ => return None,
    })
}

fn single(kind: &Kind, json: &Json, path: &mut Path) -> Result<Value, JsonError> {
    let wanted = |what: &str| format!("expected {what}, found {}", kind_of(json));
    let value = match kind {
        Kind::Message(descriptor) => Some(Value::Message(message(descriptor, json, path)?)),
        Kind::Enum(of) => Some(Value::EnumNumber(enumeration(of, json, path)?)),
        Kind::Bool => json.as_bool().map(Value::Bool),
        Kind::String => json.as_str().map(|text| Value::String(text.to_owned())),
        Kind::Bytes => json.as_str().and_then(bytes).map(|bytes| Value::Bytes(bytes.into())),
        Kind::Float => float(json).map(|value| Value::F32(value as f32)),
        Kind::Double => float(json).map(Value::F64),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer(json).and_then(|n| n.try_into().ok()).map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => integer(json).and_then(|n| n.try_into().ok()).map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => integer(json).and_then(|n| n.try_into().ok()).map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => integer(json).and_then(|n| n.try_into().ok()).map(Value::U64),
    };
    value.ok_or_else(|| {
        path.error(match kind {
            Kind::Bool => wanted("true or false"),
            Kind::String => format!("{}; put quotes around it if it is text", wanted("a string")),
            Kind::Bytes => wanted("base64 text"),
            Kind::Float | Kind::Double => wanted("a number"),
            _ => wanted(&format!("a whole number ({kind:?})")),
        })
    })
}

/// Whole numbers, quoted ones and whole floats as protobuf's JSON mapping allows.
fn integer(json: &Json) -> Option<i128> {
    match json {
        Json::Number(number) => number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from))
            .or_else(|| number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e18).map(|f| f as i128)),
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn float(json: &Json) -> Option<f64> {
    match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    [BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD]
        .iter()
        .find_map(|engine| engine.decode(text).ok())
}

fn enumeration(of: &EnumDescriptor, json: &Json, path: &Path) -> Result<i32, JsonError> {
    if let Some(number) = json.as_i64().and_then(|number| i32::try_from(number).ok()) {
        return Ok(number);
    }
    let name = json.as_str().unwrap_or_default();
    let found = of.values().find(|value| value.name().eq_ignore_ascii_case(name));
    found.map(|value| value.number()).ok_or_else(|| {
        let known: Vec<String> = of.values().take(12).map(|value| value.name().to_owned()).collect();
        path.error(format!("{json} is no {}: one of {}", of.name(), known.join(", ")))
    })
}

/// `{"@type": …, fields}`; for a type that the pool does not know, `{"@type": …, "value": base64}`.
fn any(descriptor: &MessageDescriptor, json: &Json, path: &mut Path) -> Result<DynamicMessage, JsonError> {
    let Some(type_url) = json.get("@type").and_then(Json::as_str) else {
        return Err(path.error("expected an object with \"@type\""));
    };
    let bytes = match pool().get_message_by_name(crate::any::type_name(type_url)) {
        Some(inner) if has_own_form(inner.full_name()) || inner.full_name() == ANY => {
            let value = json.get("value").ok_or_else(|| path.error(format!("{} needs \"value\"", inner.name())))?;
            path.within("value".to_owned(), |path| message(&inner, value, path))?.encode_to_vec()
        }
        Some(inner) => fields(&inner, json, path, "@type")?.encode_to_vec(),
        None => opaque(json).ok_or_else(|| {
            path.error(format!(
                "unknown type {type_url}: give it as {{\"@type\": …, \"value\": base64 of the message}}"
            ))
        })?,
    };
    let mut any = DynamicMessage::new(descriptor.clone());
    any.set_field_by_number(1, Value::String(type_url.to_owned()));
    any.set_field_by_number(2, Value::Bytes(bytes.into()));
    Ok(any)
}

fn opaque(json: &Json) -> Option<Vec<u8>> {
    let object = json.as_object()?;
    match object.len() {
        1 => Some(Vec::new()),
        2 => bytes(object.get("value")?.as_str()?),
        _ => None,
    }
}

fn kind_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}
