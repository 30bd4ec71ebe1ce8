//! Who this proxy is for its control plane: `core.Node` from the bootstrap, the flags and the environment.

use super::{BootstrapError, Environment, Flags};
use proto::envoy::core::{Extension, Locality, Node, node::UserAgentVersionType};
use proto::envoy::wkt::{ListValue, Struct, Value, value::Kind};

/// What the node calls itself; pilot knows by this that filters of ours and of Istio are here (spec XM-5).
pub const USER_AGENT: &str = "ferromesh";

/// Completes the node of the bootstrap file: flags fill what it leaves open, then the environment as Istio's agent
/// reads it (`ISTIO_META_X` and `ISTIO_METAJSON_X`).
///
/// # Errors
/// [`BootstrapError::Field`] for a variable that holds bad JSON.
pub(super) fn complete(node: Option<Node>, flags: &Flags, env: &Environment) -> Result<Node, BootstrapError> {
    let mut node = node.unwrap_or_default();
    let metadata = node.metadata.get_or_insert_with(Struct::default);
    for (name, value) in env.with_prefix("ISTIO_META_") {
        metadata.fields.entry(name.to_owned()).or_insert_with(|| text(value));
    }
    for (name, value) in env.with_prefix("ISTIO_METAJSON_") {
        let json = serde_json::from_str(value)
            .map_err(|error| BootstrapError::field(format!("ISTIO_METAJSON_{name}"), error.to_string()))?;
        merge_json(metadata, name, &json);
    }
    let given = |flag: &Option<String>| flag.clone().filter(|text| !text.is_empty());
    if node.id.is_empty() {
        node.id = given(&flags.service_node).or_else(|| id_of_pod(env)).unwrap_or_default();
    }
    if node.cluster.is_empty() {
        node.cluster = given(&flags.service_cluster).or_else(|| cluster_of_pod(env)).unwrap_or_default();
    }
    if let Some(zone) = given(&flags.service_zone) {
        let locality = node.locality.get_or_insert_with(Locality::default);
        if locality.zone.is_empty() {
            locality.zone = zone;
        }
    }
    if node.user_agent_name.is_empty() {
        node.user_agent_name = USER_AGENT.to_owned();
        node.user_agent_version_type =
            Some(UserAgentVersionType::UserAgentVersion(env!("CARGO_PKG_VERSION").to_owned()));
    }
    Ok(node)
}

/// The extensions that this build has, for the control plane to choose filters by (spec XM-5).
pub fn extensions(entries: impl IntoIterator<Item = (&'static str, &'static str, &'static str)>) -> Vec<Extension> {
    entries
        .into_iter()
        .map(|(category, name, type_name)| Extension {
            category: category.to_owned(),
            name: name.to_owned(),
            type_urls: vec![type_name.to_owned()],
            ..Extension::default()
        })
        .collect()
}

/// The node as JSON, for `/server_info`.
pub fn node_json(node: &Node) -> serde_json::Value {
    let locality = node.locality.clone().unwrap_or_default();
    let extensions: Vec<_> = node
        .extensions
        .iter()
        .map(|e| serde_json::json!({"name": e.name, "category": e.category, "type_urls": e.type_urls}))
        .collect();
    serde_json::json!({
        "id": node.id,
        "cluster": node.cluster,
        "metadata": node.metadata.as_ref().map(proto::value::of_struct),
        "locality": {"region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone},
        "user_agent_name": node.user_agent_name,
        "extensions": extensions,
    })
}

/// `<type>~<ip>~<name>.<namespace>~<namespace>.svc.<domain>` from the variables that injection sets.
fn id_of_pod(env: &Environment) -> Option<String> {
    let kind = env.get("PROXY_TYPE").unwrap_or("sidecar");
    let (ip, name, namespace) = (env.get("INSTANCE_IP")?, env.get("POD_NAME")?, env.get("POD_NAMESPACE")?);
    let domain = env.get("CLUSTER_DOMAIN").unwrap_or("cluster.local");
    Some(format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.{domain}"))
}

fn cluster_of_pod(env: &Environment) -> Option<String> {
    let workload = env.get("ISTIO_META_WORKLOAD_NAME")?;
    Some(format!("{workload}.{}", env.get("POD_NAMESPACE")?))
}

/// `ISTIO_METAJSON_X`: an object is merged into the field X, anything else replaces it.
fn merge_json(metadata: &mut Struct, name: &str, json: &serde_json::Value) {
    let found = metadata.fields.entry(name.to_owned()).or_default();
    match (&mut found.kind, from_json(json)) {
        (Some(Kind::StructValue(old)), Value { kind: Some(Kind::StructValue(new)) }) => old.fields.extend(new.fields),
        (_, new) => *found = new,
    }
}

fn from_json(json: &serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => Kind::StringValue(value.clone()),
        serde_json::Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(from_json).collect() }),
        serde_json::Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(name, value)| (name.clone(), from_json(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::tests::flags;

    // spec: NI-1
    #[test]
    fn node_id_and_cluster_come_from_the_pod() {
        let env = Environment::from([
            ("INSTANCE_IP", "10.0.0.9"),
            ("POD_NAME", "reviews-v1-0"),
            ("POD_NAMESPACE", "default"),
            ("ISTIO_META_WORKLOAD_NAME", "reviews-v1"),
        ]);
        let node = complete(None, &flags(&["--service-zone", "z1"]), &env).unwrap();
        assert_eq!(node.id, "sidecar~10.0.0.9~reviews-v1-0.default~default.svc.cluster.local");
        assert_eq!(node.cluster, "reviews-v1.default");
        assert_eq!(node.locality.unwrap().zone, "z1");
        let written = Node { id: "router~1~a.b~c".into(), cluster: "x".into(), ..Node::default() };
        let node =
            complete(Some(written), &flags(&["--service-node", "other", "--service-cluster", "y"]), &env).unwrap();
        assert_eq!((node.id.as_str(), node.cluster.as_str()), ("router~1~a.b~c", "x"));
    }

    // spec: NI-2
    #[test]
    fn metadata_comes_from_istio_variables() {
        let env = Environment::from([
            ("ISTIO_META_MESH_ID", "mesh"),
            ("ISTIO_METAJSON_LABELS", r#"{"app": "a", "n": 1}"#),
            ("OTHER", "x"),
        ]);
        let node = complete(None, &flags(&[]), &env).unwrap();
        let fields = node.metadata.unwrap().fields;
        assert_eq!(fields["MESH_ID"], text("mesh"));
        let Some(Kind::StructValue(labels)) = &fields["LABELS"].kind else { panic!("labels are no object") };
        assert_eq!(labels.fields["app"], text("a"));
        assert_eq!(fields.len(), 2);
        let bad = Environment::from([("ISTIO_METAJSON_LABELS", "{")]);
        assert!(complete(None, &flags(&[]), &bad).unwrap_err().to_string().starts_with("ISTIO_METAJSON_LABELS: "));
    }
}
