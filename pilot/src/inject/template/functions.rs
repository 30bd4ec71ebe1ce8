//! Functions of templates: Go's own, those of sprig, and those of Istio's injector.

use super::text_functions;
use crate::inject::mesh::{ProxyConfig, wants_otel_attributes};
use crate::inject::owner::otel_attributes;
use crate::inject::pod::Pod;
use crate::inject::redirect::{exclude_inbound_port, with_network};
use serde_json::{Map, Value, json};

/// Most items of a list that a function makes.
const MAX_ITEMS: usize = 4096;

/// A function of templates.
pub(super) type Function = fn(&[Value]) -> Result<Value, String>;

/// Name → function. `and` and `or` are the evaluation's own.
const FUNCTIONS: &[(&str, Function)] = &[
    ("and", |_| Ok(Value::Null)),
    ("or", |_| Ok(Value::Null)),
    ("not", |a| Ok((!is_true(at(a, 0)?)).into())),
    ("eq", |a| at(a, 0).map(|first| a.iter().skip(1).any(|other| equal(first, other)).into())),
    ("ne", |a| Ok((!equal(at(a, 0)?, at(a, 1)?)).into())),
    ("lt", |a| Ok((compare(a)? == std::cmp::Ordering::Less).into())),
    ("le", |a| Ok((compare(a)? != std::cmp::Ordering::Greater).into())),
    ("gt", |a| Ok((compare(a)? == std::cmp::Ordering::Greater).into())),
    ("ge", |a| Ok((compare(a)? != std::cmp::Ordering::Less).into())),
    ("len", |a| length(at(a, 0)?)),
    ("index", index),
    ("print", |a| Ok(a.iter().map(printed).collect::<String>().into())),
    ("default", |a| Ok(if is_true(at(a, 1)?) { a[1].clone() } else { a[0].clone() })),
    ("empty", |a| Ok((!is_true(at(a, 0)?)).into())),
    ("coalesce", |a| Ok(a.iter().find(|value| is_true(value)).cloned().unwrap_or(Value::Null))),
    ("ternary", |a| Ok(if is_true(at(a, 2)?) { a[0].clone() } else { a[1].clone() })),
    ("list", |a| Ok(a.to_vec().into())),
    ("append", append),
    ("first", |a| Ok(list(at(a, 0)?)?.first().cloned().unwrap_or(Value::Null))),
    ("last", |a| Ok(list(at(a, 0)?)?.last().cloned().unwrap_or(Value::Null))),
    ("has", |a| Ok(list(at(a, 1)?)?.iter().any(|item| equal(item, &a[0])).into())),
    ("dict", dict),
    ("strdict", dict),
    ("get", |a| Ok(at(a, 0)?.get(printed(at(a, 1)?)).cloned().unwrap_or_else(|| "".into()))),
    ("hasKey", has_key),
    ("isset", has_key),
    ("keys", |a| Ok(map(at(a, 0)?)?.keys().map(|name| json!(name)).collect())),
    ("mergeMaps", |a| Ok(merged(a)?.into())),
    ("omit", omit),
    ("pick", pick),
    ("toString", |a| Ok(printed(at(a, 0)?).into())),
    ("int", |a| Ok(number(at(a, 0)?).into())),
    ("int64", |a| Ok(number(at(a, 0)?).into())),
    ("add", |a| Ok(a.iter().map(number).fold(0i64, i64::saturating_add).into())),
    ("sub", |a| Ok(number(at(a, 0)?).saturating_sub(number(at(a, 1)?)).into())),
    ("valueOrDefault", |a| {
        Ok(if matches!(at(a, 0)?, Value::Null) || a[0] == "" { at(a, 1)?.clone() } else { a[0].clone() })
    }),
    ("annotation", annotation),
    ("toJSON", |a| Ok(json_text(at(a, 0)?).into())),
    ("toJson", |a| Ok(json_text(at(a, 0)?).into())),
    ("structToJSON", |a| Ok(json_text(at(a, 0)?).into())),
    ("protoToJSON", |a| Ok(ProxyConfig::of(at(a, 0)?).told().into())),
    ("toJsonMap", |a| Ok(Value::Object(merged(a)?).to_string().into())),
    ("fromJSON", |a| serde_json::from_str(&printed(at(a, 0)?)).map_err(|error| error.to_string())),
    ("fromJson", |a| serde_json::from_str(&printed(at(a, 0)?)).map_err(|error| error.to_string())),
    ("toYaml", |a| serde_saphyr::to_string(at(a, 0)?).map(|text| text.into()).map_err(|error| error.to_string())),
    ("omitNil", |a| Ok(without_nulls(at(a, 0)?))),
    ("excludeInboundPort", |a| Ok(exclude_inbound_port(&printed(at(a, 0)?), &printed(at(a, 1)?)).into())),
    ("appendMultusNetwork", |a| Ok(with_network(&printed(at(a, 0)?)).into())),
    ("includeInboundPorts", |a| Ok(ports(at(a, 0)?, "").into())),
    ("applicationPorts", |a| Ok(ports(at(a, 0)?, crate::inject::PROXY).into())),
    ("otelResourceAttributes", otel),
    ("env", |a| Ok(at(a, 1)?.clone())), // the environment of pilot is nobody's business
];

/// Whether a function is there.
pub(super) fn is_known(name: &str) -> bool {
    FUNCTIONS.iter().chain(text_functions::FUNCTIONS).any(|(known, _)| *known == name)
}

/// Calls a function.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let found = FUNCTIONS.iter().chain(text_functions::FUNCTIONS).find(|(known, _)| *known == name);
    let (_, function) = found.ok_or("there is no such function")?;
    function(arguments)
}

/// The argument at a place.
pub(super) fn at(arguments: &[Value], place: usize) -> Result<&Value, String> {
    arguments.get(place).ok_or_else(|| format!("{} arguments are too few", arguments.len()))
}

/// Whether a value counts as true: not nothing, zero or empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as it goes out.
pub(super) fn printed(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(printed).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let mut pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{name}:{}", printed(value))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        scalar => crate::inject::values::printed(scalar),
    }
}

/// A whole number; 0 for what is none.
pub(super) fn number(value: &Value) -> i64 {
    match value {
        Value::String(text) => text.trim().parse().unwrap_or(0),
        #[expect(clippy::cast_possible_truncation, reason = "as saturates, and sprig's int cuts the fraction off too")]
        other => other.as_i64().or_else(|| other.as_f64().map(|float| float as i64)).unwrap_or(0),
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b).is_eq(),
        _ => {
            a == b
                || matches!((a, b), (Value::Null, Value::String(text)) | (Value::String(text), Value::Null) if text.is_empty())
        }
    }
}

fn compare(arguments: &[Value]) -> Result<std::cmp::Ordering, String> {
    let (a, b) = (at(arguments, 0)?, at(arguments, 1)?);
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => Ok(a.total_cmp(&b)),
        _ => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => Ok(a.cmp(b)),
            _ => Err(format!("{a} and {b} cannot be compared")),
        },
    }
}

fn length(value: &Value) -> Result<Value, String> {
    match value {
        Value::Null => Ok(0.into()),
        Value::String(text) => Ok(text.len().into()),
        Value::Array(items) => Ok(items.len().into()),
        Value::Object(fields) => Ok(fields.len().into()),
        other => Err(format!("{other} has no length")),
    }
}

/// `index collection key…`; what is not there is nothing.
fn index(arguments: &[Value]) -> Result<Value, String> {
    let mut value = at(arguments, 0)?;
    for key in arguments.get(1..).unwrap_or_default() {
        value = match value {
            Value::Array(items) => {
                let place = usize::try_from(number(key)).unwrap_or(usize::MAX);
                items.get(place).ok_or_else(|| format!("a list of {} has no item {key}", items.len()))?
            }
            other => other.get(printed(key)).unwrap_or(&Value::Null),
        };
    }
    Ok(value.clone())
}

fn list(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::Null => Ok(&[]),
        other => other.as_array().map(Vec::as_slice).ok_or_else(|| format!("a list is needed, not {other}")),
    }
}

fn map(value: &Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Null => Ok(Map::new()),
        other => other.as_object().cloned().ok_or_else(|| format!("a map is needed, not {other}")),
    }
}

fn append(arguments: &[Value]) -> Result<Value, String> {
    let mut items = list(at(arguments, 0)?)?.to_vec();
    if items.len() >= MAX_ITEMS {
        return Err(format!("a list of more than {MAX_ITEMS} items"));
    }
    items.push(at(arguments, 1)?.clone());
    Ok(items.into())
}

fn dict(arguments: &[Value]) -> Result<Value, String> {
    let pairs = arguments.chunks(2).map(|pair| (printed(&pair[0]), pair.get(1).cloned().unwrap_or_else(|| "".into())));
    Ok(Value::Object(pairs.collect()))
}

fn has_key(arguments: &[Value]) -> Result<Value, String> {
    Ok(at(arguments, 0)?.get(printed(at(arguments, 1)?)).is_some().into())
}

fn merged(arguments: &[Value]) -> Result<Map<String, Value>, String> {
    let mut all = Map::new();
    for argument in arguments {
        all.extend(map(argument)?);
    }
    Ok(all)
}

fn omit(arguments: &[Value]) -> Result<Value, String> {
    let names: Vec<String> = arguments.get(1..).unwrap_or_default().iter().map(printed).collect();
    Ok(Value::Object(map(at(arguments, 0)?)?.into_iter().filter(|(name, _)| !names.contains(name)).collect()))
}

fn pick(arguments: &[Value]) -> Result<Value, String> {
    let names: Vec<String> = arguments.get(1..).unwrap_or_default().iter().map(printed).collect();
    Ok(Value::Object(map(at(arguments, 0)?)?.into_iter().filter(|(name, _)| names.contains(name)).collect()))
}

/// `annotation META NAME DEFAULT`
fn annotation(arguments: &[Value]) -> Result<Value, String> {
    let (meta, name, default) = (at(arguments, 0)?, printed(at(arguments, 1)?), at(arguments, 2)?);
    let found = meta["annotations"].get(name).map(printed);
    Ok(found.unwrap_or_else(|| printed(default)).into())
}

fn json_text(value: &Value) -> String {
    if value.is_null() { "{}".to_owned() } else { value.to_string() }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().map(|(name, value)| (name.clone(), without_nulls(value)));
            let kept: Map<String, Value> = kept.filter(|(_, value)| !value.is_null()).collect();
            if kept.is_empty() && !fields.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        other => other.clone(),
    }
}

/// The TCP ports of containers but the one left out.
fn ports(containers: &Value, left_out: &str) -> String {
    let containers = containers.as_array().into_iter().flatten();
    let containers = containers.filter(|container| container["name"] != left_out);
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let tcp = ports.filter(|port| port["protocol"] != "UDP" && port["protocol"] != "SCTP");
    tcp.map(|port| printed(&port["containerPort"])).collect::<Vec<_>>().join(",")
}

/// `otelResourceAttributes MESH ANNOTATIONS LABELS NAMESPACE CONTAINERS`
fn otel(arguments: &[Value]) -> Result<Value, String> {
    let (mesh, namespace, containers) = (at(arguments, 0)?, printed(at(arguments, 3)?), list(at(arguments, 4)?)?);
    if !wants_otel_attributes(mesh) {
        return Ok("".into());
    }
    let pod = json!({"metadata": {"annotations": at(arguments, 1)?, "labels": at(arguments, 2)?}});
    let pod = Pod::new(pod).map_err(|error| error.to_string())?;
    Ok(otel_attributes(&pod, &namespace, containers).unwrap_or_default().into())
}
