//! Which pods are redirected, and by which rules (IN-12). Pure.

use crate::redirect::{Annotations, Mode, RedirectArgs, RedirectError};
use clap::Parser;
use serde_json::Value;
use std::net::IpAddr;

/// Annotation: how inbound traffic reaches the proxy.
const INTERCEPTION: &str = "sidecar.istio.io/interceptionMode";
/// Annotation of injection; a pod without it was not injected.
const STATUS: &str = "sidecar.istio.io/status";
/// Name of the container in which a pod proves its rules.
const VALIDATION: &str = "istio-validation";

/// The flags, for their defaults.
#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    redirect: RedirectArgs,
}

/// The rules for a pod; none where it is not ours to redirect.
pub(super) fn rules(pod: &Value, excluded: &[String]) -> Result<Option<RedirectArgs>, RedirectError> {
    let Some(proxy) = proxy(pod).filter(|_| is_wanted(pod, excluded)) else { return Ok(None) };
    let mode = match annotation(pod, INTERCEPTION) {
        Some("NONE") => return Ok(None),
        Some("TPROXY") => Mode::Tproxy,
        _ => Mode::Redirect,
    };
    let annotations: Annotations = pod["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    let mut args = Defaults::parse_from(["redirect"]).redirect;
    args.mode = mode;
    let id = |field: &str| proxy["securityContext"][field].as_u64().and_then(|id| u32::try_from(id).ok());
    args.proxy_uids = vec![id("runAsUser").unwrap_or(proto::wire::PROXY_UID)];
    args.proxy_gids = vec![id("runAsGroup").unwrap_or(proto::wire::PROXY_UID)];
    args.redirect_dns = variable(proxy, "ISTIO_META_DNS_CAPTURE") == Some("true");
    args.drop_invalid = variable(proxy, "INVALID_DROP") == Some("true");
    args.with_annotations(&annotations).map(Some)
}

fn is_wanted(pod: &Value, excluded: &[String]) -> bool {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let declined = annotation(pod, "sidecar.istio.io/inject") == Some("false")
        || pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false";
    !excluded.iter().any(|name| name == namespace)
        && pod["spec"]["hostNetwork"] != true
        && annotation(pod, STATUS).is_some()
        && !declined
        && !containers(pod).any(|one| one["name"] == "istio-init")
}

/// The container of a sidecar that is a proxy.
fn proxy(pod: &Value) -> Option<&Value> {
    let found = containers(pod).find(|one| one["name"] == "istio-proxy")?;
    let mut args = found["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let first = (args.next(), args.next());
    let sidecar = matches!(first, (None | Some("proxy"), None) | (Some("proxy"), Some("sidecar")));
    (sidecar && variable(found, "DISABLE_ENVOY").is_none()).then_some(found)
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = [&pod["spec"]["containers"], &pod["spec"]["initContainers"]];
    lists.into_iter().filter_map(Value::as_array).flatten()
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    container["env"].as_array()?.iter().find(|one| one["name"] == name)?["value"].as_str()
}

fn annotation<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod["metadata"]["annotations"][name].as_str()
}

/// Whether a pod still waits for its rules: its proof has not succeeded.
pub(super) fn waits(pod: &Value) -> bool {
    let statuses = pod["status"]["initContainerStatuses"].as_array();
    let proof = statuses.into_iter().flatten().find(|one| one["name"] == VALIDATION);
    let proven = |one: &Value| one["state"]["terminated"]["exitCode"] == 0 || one["ready"] == true;
    pod["metadata"]["deletionTimestamp"].is_null() && proof.is_some_and(|one| !proven(one))
}

/// The address of a pod, once it has one.
pub(super) fn address(pod: &Value) -> Option<IpAddr> {
    pod["status"]["podIP"].as_str()?.parse().ok()
}

/// `NAMESPACE/NAME`.
pub(super) fn name(pod: &Value) -> String {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::Selection;
    use serde_json::json;

    fn injected() -> Value {
        json!({
            "metadata": {"namespace": "shop", "name": "a", "labels": {}, "annotations": {
                "sidecar.istio.io/status": "{}", "sidecar.istio.io/interceptionMode": "REDIRECT",
                "traffic.sidecar.istio.io/includeOutboundIPRanges": "*", "traffic.sidecar.istio.io/excludeInboundPorts": "15020,81",
            }},
            "spec": {
                "initContainers": [
                    {"name": "istio-validation"},
                    {"name": "istio-proxy", "args": ["proxy", "sidecar", "--domain", "x"], "securityContext": {"runAsUser": 7, "runAsGroup": 8},
                        "env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}]},
                ],
                "containers": [{"name": "app"}],
            },
        })
    }

    fn wanted(change: impl FnOnce(&mut Value)) -> bool {
        let mut pod = injected();
        change(&mut pod);
        rules(&pod, &["kube-system".to_owned()]).unwrap().is_some()
    }

    // spec: IN-12
    #[test]
    fn pods_with_a_sidecar_and_without_rules_of_their_own_are_redirected() {
        assert!(wanted(|_| {}));
        assert!(!wanted(|pod| pod["metadata"]["namespace"] = json!("kube-system")));
        assert!(!wanted(|pod| pod["spec"]["hostNetwork"] = json!(true)));
        assert!(!wanted(|pod| pod["metadata"]["annotations"]["sidecar.istio.io/status"] = Value::Null));
        assert!(!wanted(|pod| pod["metadata"]["annotations"]["sidecar.istio.io/inject"] = json!("false")));
        assert!(!wanted(|pod| pod["spec"]["initContainers"][0]["name"] = json!("istio-init")));
        assert!(!wanted(|pod| pod["spec"]["initContainers"][1]["name"] = json!("other")));
        assert!(!wanted(|pod| pod["spec"]["initContainers"][1]["args"][1] = json!("router")));
        assert!(!wanted(|pod| pod["metadata"]["annotations"][INTERCEPTION] = json!("NONE")));
        let disabled = json!({"name": "DISABLE_ENVOY", "value": "true"});
        assert!(!wanted(|pod| pod["spec"]["initContainers"][1]["env"][0] = disabled));
        assert!(wanted(|pod| pod["spec"]["initContainers"][1]["args"] = Value::Null));
    }

    // spec: IN-12
    #[test]
    fn rules_follow_the_proxys_user_and_the_annotations() {
        let args = rules(&injected(), &[]).unwrap().unwrap();
        assert_eq!((args.proxy_uids, args.proxy_gids, args.redirect_dns), (vec![7], vec![8], true));
        assert_eq!(args.inbound_ports_exclude, [15090, 15021, 15020, 15020, 81]);
        assert_eq!(args.outbound_ranges, Selection::All);
        let mut pod = injected();
        pod["spec"]["initContainers"][1]["securityContext"] = Value::Null;
        assert_eq!(rules(&pod, &[]).unwrap().unwrap().proxy_uids, [1337]);
        pod["metadata"]["annotations"]["traffic.sidecar.istio.io/excludeOutboundPorts"] = json!("x");
        assert!(rules(&pod, &[]).unwrap_err().to_string().contains("excludeOutboundPorts"));
    }

    // spec: IN-13
    #[test]
    fn a_pod_waits_until_its_proof_has_succeeded() {
        let with = |status: Value| {
            let mut pod = injected();
            pod["status"] = json!({"podIP": "10.0.0.1", "initContainerStatuses": [status]});
            waits(&pod)
        };
        assert!(!waits(&injected()));
        assert!(with(json!({"name": "istio-validation", "state": {"running": {}}, "ready": false})));
        assert!(with(json!({"name": "istio-validation", "state": {"waiting": {"reason": "CrashLoopBackOff"}}})));
        assert!(with(json!({"name": "istio-validation", "state": {"terminated": {"exitCode": 126}}})));
        assert!(!with(json!({"name": "istio-validation", "state": {"terminated": {"exitCode": 0}}, "ready": true})));
    }
}
