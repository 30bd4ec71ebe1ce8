//! `google.protobuf.Value` and `Struct` as JSON, for reading what a node or an access log says.

use crate::envoy::wkt::{Struct, Value, value::Kind};
use std::collections::BTreeMap;

/// A value; whole numbers are written without a fraction.
pub fn to_json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 1e15 => (*number as i64).into(),
        Some(Kind::NumberValue(number)) => (*number).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::StructValue(object)) => serde_json::Value::Object(of_struct(object)),
        Some(Kind::ListValue(list)) => list.values.iter().map(to_json).collect(),
    }
}

/// An object, its keys sorted: protobuf does not keep their order.
pub fn of_struct(object: &Struct) -> serde_json::Map<String, serde_json::Value> {
    let sorted: BTreeMap<&String, &Value> = object.fields.iter().collect();
    sorted.into_iter().map(|(name, value)| (name.clone(), to_json(value))).collect()
}
