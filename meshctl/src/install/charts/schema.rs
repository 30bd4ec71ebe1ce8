//! `values.schema.json` of a chart.

use crate::install::profile::PLATFORMS;
use crate::install::schema::{COMPLIANCE_POLICY, globals};
use crate::install::spec::LIVES;
use serde_json::{Value, json};

/// Values of any content.
const OPEN: [&str; 3] = ["resources", "annotations", "podAnnotations"];

/// The JSON schema of a chart's values: a name that has no place in the chart is refused by Helm, for to ignore it would change
/// what the user asked for. `global` is what injection reads as well. A chart may stand below another one, by whose condition it
/// is `enabled` and whose `global` it gets, with names that are for others.
pub(super) fn of(values: &Value) -> Value {
    let mut known = values.clone();
    known["global"] = if known["global"].is_object() { globals() } else { json!({}) };
    known["enabled"] = Value::Null;
    let mut schema = structure(&known);
    schema["$schema"] = json!("https://json-schema.org/draft-07/schema#");
    let properties = &mut schema["properties"];
    if properties["global"]["properties"].is_object() {
        properties["global"]["additionalProperties"] = json!(true);
        properties["global"]["properties"]["platform"] = json!({"enum": platforms()});
    }
    // What is meshctl's to do, or nobody's, as with `schema::unknown`.
    let without = json!({"propertyNames": {"not": {"enum": [COMPLIANCE_POLICY, LIVES[0].0, LIVES[1].0]}}});
    if !known["env"].is_null() {
        properties["env"] = without.clone();
    }
    if !known["meshConfig"].is_null() {
        properties["meshConfig"] = json!({"properties": {"defaultConfig": {"properties": {"proxyMetadata": without}}}});
    }
    schema
}

/// The platforms by which charts can differ: what pods of OpenShift need comes by meshctl alone.
fn platforms() -> Vec<Value> {
    let known = PLATFORMS.into_iter().filter(|name| *name != "openshift").map(Value::from);
    known.chain([json!(""), Value::Null]).collect()
}

/// Mappings have the names that they have, where they have some; all else is free.
fn structure(known: &Value) -> Value {
    match known.as_object().filter(|fields| !fields.is_empty()) {
        Some(fields) => {
            let of = |(name, known): (&String, &Value)| {
                let open = OPEN.contains(&name.as_str());
                (name.clone(), if open { json!({}) } else { structure(known) })
            };
            let properties: serde_json::Map<String, Value> = fields.iter().map(of).collect();
            json!({"type": "object", "additionalProperties": false, "properties": properties})
        }
        None => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::super::charts;
    use super::*;

    fn schema(chart: &str) -> Value {
        let path = format!("{chart}/values.schema.json");
        serde_json::from_str(&charts().unwrap().into_iter().find(|(own, _)| *own == path).unwrap().1).unwrap()
    }

    // spec: IN-2, IN-4
    #[test]
    fn a_chart_may_stand_below_another_one() {
        for chart in ["base", "istiod", "gateway", "cni"] {
            let schema = schema(chart);
            let global = &schema["properties"]["global"];
            assert_eq!(
                (&schema["additionalProperties"], &schema["properties"]["enabled"]),
                (&json!(false), &json!({}))
            );
            assert_ne!(global["additionalProperties"], false, "{chart}: names for others");
            if chart != "base" {
                assert_eq!(global["properties"]["logging"]["additionalProperties"], false, "{chart}");
            }
        }
    }

    // spec: IN-1, IN-2, PI-61
    #[test]
    fn a_chart_refuses_what_it_cannot_do() {
        let names = |without: &Value| without["propertyNames"]["not"]["enum"].clone();
        let lives = ["COMPLIANCE_POLICY", "DEFAULT_WORKLOAD_CERT_TTL", "MAX_WORKLOAD_CERT_TTL"];
        for chart in ["istiod", "gateway", "cni"] {
            let properties = &schema(chart)["properties"];
            let platforms = &properties["global"]["properties"]["platform"]["enum"];
            assert_eq!(platforms, &json!(["gke", "k3d", "k3s", "microk8s", "minikube", "", null]), "{chart}");
            let env = if chart == "cni" { Value::Null } else { json!(lives) };
            assert_eq!(names(&properties["env"]), env, "{chart}");
        }
        let mesh = &schema("istiod")["properties"]["meshConfig"]["properties"]["defaultConfig"];
        assert_eq!(names(&mesh["properties"]["proxyMetadata"]), json!(lives));
    }
}
