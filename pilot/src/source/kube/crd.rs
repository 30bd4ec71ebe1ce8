//! CustomResourceDefinitions of the kinds that the mesh brings: which of them a cluster has, and their manifests.

use crate::source::kinds::{self, Row};
use kube::api::DynamicObject;
use serde_json::{Value, json};

/// The row that a definition defines, with the version to watch: the first of ours that is served; none while the
/// cluster does not serve it.
pub(super) fn serves(definition: &DynamicObject) -> Option<(&'static Row, Option<String>)> {
    let spec = &definition.data["spec"];
    let (group, kind) = (spec["group"].as_str()?, spec["names"]["kind"].as_str()?);
    let row = kinds::TABLE.iter().find(|row| row.is_custom() && row.group == group && row.name == kind)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let conditions = list(&definition.data["status"]["conditions"]);
    let established = conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True");
    let versions = list(&spec["versions"]);
    let is_served = |version: &&str| versions.iter().any(|one| one["name"] == *version && one["served"] == true);
    let version = row.versions.iter().find(|version| established && is_served(version));
    Some((row, version.map(|version| (*version).to_owned())))
}

/// The definitions as `kubectl apply` takes them. What an object may hold is checked by pilot, which names field and way
/// out; the schemas let everything pass.
pub fn manifests() -> Value {
    let items: Vec<Value> = kinds::TABLE.iter().filter(|row| row.is_custom()).map(manifest).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn manifest(row: &Row) -> Value {
    let plural = row.plural();
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let accepted = ("Accepted", ".status.conditions[?(@.type==\"Accepted\")].status");
    let shown = columns(row.name).iter().chain([&accepted]);
    let mut columns: Vec<Value> =
        shown.map(|(name, path)| json!({"name": name, "type": "string", "jsonPath": path})).collect();
    columns.push(json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}));
    let version = |(index, name): (usize, &&str)| {
        json!({
            "name": name, "served": true, "storage": index == 0,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": open, "status": open}}},
            "subresources": {"status": {}},
            "additionalPrinterColumns": columns,
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{}", row.group), "labels": {"app": "istio-pilot", "istio": row.group.split('.').next()}},
        "spec": {
            "group": row.group, "scope": "Namespaced",
            "names": {
                "kind": row.name, "listKind": format!("{}List", row.name), "plural": plural,
                "singular": row.name.to_ascii_lowercase(), "shortNames": short_names(row.name), "categories": ["istio-io"],
            },
            "versions": row.versions.iter().enumerate().map(version).collect::<Vec<_>>(),
        },
    })
}

/// What `kubectl get` shows of a kind, as Istio's definitions have it.
fn columns(kind: &str) -> &'static [(&'static str, &'static str)] {
    match kind {
        "VirtualService" => &[("Gateways", ".spec.gateways"), ("Hosts", ".spec.hosts")],
        "DestinationRule" => &[("Host", ".spec.host")],
        "ServiceEntry" => {
            &[("Hosts", ".spec.hosts"), ("Location", ".spec.location"), ("Resolution", ".spec.resolution")]
        }
        "WorkloadEntry" => &[("Address", ".spec.address")],
        "AuthorizationPolicy" => &[("Action", ".spec.action")],
        "PeerAuthentication" => &[("Mode", ".spec.mtls.mode")],
        _ => &[],
    }
}

/// Istio's own abbreviations.
fn short_names(kind: &str) -> &'static [&'static str] {
    match kind {
        "VirtualService" => &["vs"],
        "DestinationRule" => &["dr"],
        "Gateway" => &["gw"],
        "ServiceEntry" => &["se"],
        "WorkloadEntry" => &["we"],
        "PeerAuthentication" => &["pa"],
        "AuthorizationPolicy" => &["ap"],
        "RequestAuthentication" => &["ra"],
        "Telemetry" => &["telemetry"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;

    fn definition(version: &str, served: bool, established: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"name": "x"},
            "spec": {
                "group": "networking.istio.io", "names": {"kind": "VirtualService"},
                "versions": [{"name": version, "served": served}, {"name": "v1alpha3", "served": true}],
            },
            "status": {"conditions": [{"type": "Established", "status": established}]},
        }))
        .unwrap()
    }

    // spec: PI-8
    #[test]
    fn the_newest_version_that_is_served_is_watched() {
        let version = |definition: &DynamicObject| serves(definition).unwrap().1;
        assert_eq!(version(&definition("v1", true, "True")).as_deref(), Some("v1"));
        assert_eq!(version(&definition("v1", false, "True")).as_deref(), Some("v1alpha3"));
        assert_eq!(version(&definition("v1", true, "False")), None, "not established yet");
        assert_eq!(serves(&definition("v1", true, "True")).unwrap().0.kind, Kind::VirtualService);
        let mut other = definition("v1", true, "True");
        other.data["spec"]["group"] = "example.org".into();
        assert!(serves(&other).is_none());
    }

    // spec: PI-49
    #[test]
    fn every_kind_of_the_mesh_has_a_manifest() {
        let manifests = manifests();
        let items = manifests["items"].as_array().unwrap();
        assert_eq!(items.len(), kinds::TABLE.iter().filter(|row| row.is_custom()).count());
        for item in items {
            let versions = item["spec"]["versions"].as_array().unwrap();
            assert_eq!(versions.iter().filter(|version| version["storage"] == true).count(), 1, "{item}");
        }
        let rules = items.iter().find(|item| item["spec"]["names"]["kind"] == "VirtualService").unwrap();
        let columns = rules["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
        let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["Gateways", "Hosts", "Accepted", "Age"]);
    }
}
