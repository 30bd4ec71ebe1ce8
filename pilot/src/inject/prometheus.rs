//! Metrics of the application, which the proxy shows together with its own (spec OB-2, AN-4).

use super::InjectError;
use super::annotations::parse_bool;
use super::mesh::MeshSettings;
use super::pod::{Pod, add_env};
use proto::wire::{
    PORT_ADMIN, PORT_DNS, PORT_HBONE, PORT_INBOUND, PORT_METRICS, PORT_OUTBOUND, PORT_READY, PORT_STATUS,
};
use serde_json::json;

/// Annotation: whether metrics are merged at all.
const MERGE: &str = "prometheus.istio.io/merge-metrics";
/// Annotation: several targets, as `8080:/metrics,9100:/metrics`.
const TARGETS: &str = "prometheus.istio.io/scrape-targets";
/// Variable by which the proxy knows where the application's metrics are.
const VARIABLE: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// Where Prometheus finds the merged metrics.
const MERGED_PATH: &str = "/stats/prometheus";
/// Path of a target that names none.
const DEFAULT_PATH: &str = "/metrics";
/// Most targets of one pod.
const MAX_TARGETS: usize = 32;

/// Ports that are the proxy's own, and what they are.
const OWN_PORTS: [(u16, &str); 8] = [
    (PORT_ADMIN, "the proxy's admin interface"),
    (PORT_OUTBOUND, "captured outbound traffic"),
    (PORT_INBOUND, "captured inbound traffic"),
    (PORT_HBONE, "tunnelled traffic"),
    (PORT_STATUS, "the merged metrics themselves"),
    (PORT_READY, "the proxy's readiness"),
    (PORT_DNS, "the proxy's DNS"),
    (PORT_METRICS, "the proxy's own metrics, which are merged anyway"),
];

/// The name of an annotation as Prometheus sees it: some write `prometheus.io/port`, others `prometheus-io-port`.
fn seen_by_prometheus(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn find<'a>(pod: &'a Pod, wanted: &str) -> Option<&'a str> {
    let wanted = seen_by_prometheus(wanted);
    pod.annotations().find(|(name, _)| seen_by_prometheus(name) == wanted).map(|(_, value)| value)
}

/// Moves what the pod says about its metrics to the proxy, and points Prometheus there.
///
/// # Errors
/// [`InjectError::Annotation`] for a port that cannot be one of the application's.
pub(super) fn merge(pod: &mut Pod, mesh: &MeshSettings) -> Result<(), InjectError> {
    let scraped = find(pod, "prometheus.io/scrape").and_then(parse_bool).unwrap_or(true);
    let wanted = pod.annotation(MERGE).and_then(parse_bool).unwrap_or(mesh.merge_metrics);
    let merged_port = mesh.proxy.status_port();
    // A port that is ours already: a second injection.
    let done = find(pod, "prometheus.io/port") == Some(merged_port.to_string().as_str());
    if !scraped || !wanted || done {
        return Ok(());
    }
    if let (Some(json), Some(proxy)) = (told(pod, merged_port)?, pod.proxy_mut()) {
        add_env(proxy, VARIABLE, &json);
    }
    clear(pod);
    pod.set_annotation("prometheus.io/port", merged_port.to_string());
    pod.set_annotation("prometheus.io/path", MERGED_PATH);
    pod.set_annotation("prometheus.io/scrape", "true");
    Ok(())
}

/// What the proxy is told; `None` where the pod says nothing.
fn told(pod: &Pod, merged_port: u16) -> Result<Option<String>, InjectError> {
    let text = |name: &str| find(pod, name).unwrap_or_default().to_owned();
    let scrape = text("prometheus.io/scrape");
    let (mut port, mut path) = (text("prometheus.io/port"), text("prometheus.io/path"));
    let targets = find(pod, TARGETS).map(|list| targets(list, merged_port)).transpose()?.unwrap_or_default();
    match targets.first() {
        Some((first_port, first_path)) => (port, path) = (first_port.clone(), first_path.clone()),
        None if !port.is_empty() => application_port("prometheus.io/port", &port, merged_port)?,
        None => {}
    }
    if [&scrape, &port, &path].iter().all(|text| text.is_empty()) {
        return Ok(None);
    }
    let mut told = json!({"scrape": scrape, "path": path, "port": port});
    if !targets.is_empty() {
        told["targets"] = targets.iter().map(|(port, path)| json!({"port": port, "path": path})).collect();
    }
    Ok(Some(told.to_string()))
}

fn targets(list: &str, merged_port: u16) -> Result<Vec<(String, String)>, InjectError> {
    let mut targets = Vec::new();
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (port, path) = entry.split_once(':').unwrap_or((entry, ""));
        let (port, path) = (port.trim(), path.trim());
        application_port(TARGETS, port, merged_port)?;
        let path = if path.is_empty() { DEFAULT_PATH } else { path };
        targets.push((port.to_owned(), path.to_owned()));
    }
    if targets.len() > MAX_TARGETS {
        return Err(InjectError::annotation(TARGETS, list, format!("at most {MAX_TARGETS} targets can be merged")));
    }
    Ok(targets)
}

fn application_port(annotation: &str, text: &str, merged_port: u16) -> Result<(), InjectError> {
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| InjectError::annotation(annotation, text, "use a port from 1 to 65535"))?;
    let merged = (merged_port, "the merged metrics themselves");
    match OWN_PORTS.iter().chain([&merged]).find(|(own, _)| *own == port) {
        Some((_, what)) => {
            Err(InjectError::annotation(annotation, text, format!("this port is not the application's, it is {what}")))
        }
        None => Ok(()),
    }
}

/// Removes every spelling of the annotations, so that Prometheus does not choose between two.
fn clear(pod: &mut Pod) {
    let ours = ["prometheus.io/port", "prometheus.io/path", "prometheus.io/scrape", TARGETS].map(seen_by_prometheus);
    let names: Vec<String> = pod.annotations().map(|(name, _)| name.to_owned()).collect();
    for name in names.iter().filter(|name| ours.contains(&seen_by_prometheus(name))) {
        pod.remove_annotation(name);
    }
}

/// Takes away what an earlier injection has set.
pub(super) fn forget(pod: &mut Pod, mesh: &MeshSettings) {
    if find(pod, "prometheus.io/port") == Some(mesh.proxy.status_port().to_string().as_str()) {
        clear(pod);
    }
}

/// Gives a pod back what the proxy of the injected one was told about its metrics.
pub(super) fn restore(pod: &mut Pod, injected: &Pod) {
    let Some(told) = injected.told(VARIABLE) else { return };
    for (field, name) in
        [("scrape", "prometheus.io/scrape"), ("port", "prometheus.io/port"), ("path", "prometheus.io/path")]
    {
        // Of several targets the first stands in both places.
        let given =
            told[field].as_str().filter(|text| !text.is_empty() && (field == "scrape" || told["targets"].is_null()));
        if let Some(text) = given {
            pod.set_annotation(name, text);
        }
    }
    let target = |one: &serde_json::Value| Some(format!("{}:{}", one["port"].as_str()?, one["path"].as_str()?));
    let targets: Vec<String> = told["targets"].as_array().into_iter().flatten().filter_map(target).collect();
    if !targets.is_empty() {
        pod.set_annotation(TARGETS, targets.join(","));
    }
}
