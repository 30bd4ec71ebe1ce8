//! An object as paths and scalars, so that two can be compared field by field.

use serde_json::Value;
use std::collections::BTreeMap;

/// Path → scalar.
pub(crate) type Flat = BTreeMap<String, Value>;

/// Fields whose text is JSON, compared by content.
const JSON_FIELDS: [&str; 6] = [
    "sidecar.istio.io/status",
    "proxy.istio.io/overrides",
    "ISTIO_KUBE_APP_PROBERS",
    "PROXY_CONFIG",
    "ISTIO_META_POD_PORTS",
    "ISTIO_PROMETHEUS_ANNOTATIONS",
];

/// Takes an object apart. Nothing, empty maps and zeros that Go leaves out are left out; named items go by their name.
pub(crate) fn flat(object: &Value) -> Flat {
    let mut flat = Flat::new();
    walk(object, String::new(), &mut flat);
    flat
}

fn walk(value: &Value, path: String, flat: &mut Flat) {
    match value {
        Value::Null => {}
        Value::Object(fields) => fields.iter().for_each(|(name, value)| walk(value, format!("{path}/{name}"), flat)),
        Value::Array(items) => {
            let names: Vec<Option<&str>> = items.iter().map(|item| item["name"].as_str()).collect();
            let ordered = path.ends_with("ontainers");
            if ordered {
                let order: Vec<&str> = names.iter().flatten().copied().collect();
                flat.insert(format!("{path}#order"), order.join(",").into());
            }
            for (index, (item, name)) in items.iter().zip(names).enumerate() {
                let mount = item["mountPath"].as_str();
                let step = mount.or(name).map_or_else(|| index.to_string(), str::to_owned);
                walk(item, format!("{path}[{step}]"), flat);
            }
        }
        scalar => leaf(scalar, path, flat),
    }
}

fn leaf(scalar: &Value, path: String, flat: &mut Flat) {
    let text = scalar.as_str().unwrap_or_default();
    let mut json_fields = JSON_FIELDS.iter();
    let is_json = json_fields.any(|field| path.ends_with(field) || path.ends_with(&format!("[{field}]/value")));
    if let Some(json) = serde_json::from_str::<Value>(text).ok().filter(|_| is_json) {
        return walk(&json, format!("{path}(json)"), flat);
    }
    let empty = path.ends_with("initialDelaySeconds") && *scalar == 0 || path.contains("/env[") && *scalar == "";
    if empty {
        return;
    }
    let is_quantity = path.contains("/resources/");
    flat.insert(path, if is_quantity { quantity(scalar) } else { scalar.clone() });
}

/// Quantities of Kubernetes have several spellings.
fn quantity(scalar: &Value) -> Value {
    let text = scalar.as_str().map_or_else(|| scalar.to_string(), str::to_owned);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return scalar.clone(),
    };
    number.parse::<f64>().map_or_else(|_| scalar.clone(), |number| (number * factor).into())
}
