//! `/clusters`, `/listeners` and `/certs`.

use super::AdminParts;
use crate::cluster::ClusterConfig;
use crate::endpoint::{Address, Endpoint, Health, HostSet, Limit};
use crate::listener::ListenerConfig;
use crate::server::answer::{Answer, json, text};
use crate::xds::{CertificateView, Kind, Origin, certificates};
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

fn wants_json(ask: &[(String, String)]) -> bool {
    ask.iter().any(|(name, value)| name == "format" && value == "json")
}

/// Endpoints with their priority.
fn hosts(hosts: &HostSet) -> impl Iterator<Item = (usize, &Endpoint)> {
    let numbered = hosts.priorities.iter().enumerate();
    numbered.flat_map(|(priority, members)| members.all.iter().map(move |endpoint| (priority, &**endpoint)))
}

pub(super) fn clusters(parts: &AdminParts, ask: &[(String, String)]) -> Answer {
    if wants_json(ask) { clusters_json(parts) } else { clusters_text(parts) }
}

/// Whether a cluster came from a control plane or a file.
fn is_dynamic(parts: &AdminParts, name: &str) -> bool {
    parts.store.borrow().get(Kind::Cluster, name).is_some_and(|held| held.origin != Origin::Bootstrap)
}

fn is_ejected(parts: &AdminParts, endpoint: &Endpoint) -> bool {
    endpoint.shared.ejected_until.load(Ordering::Relaxed) > parts.clock.now_ms()
}

fn clusters_text(parts: &AdminParts) -> Answer {
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        out.write_fmt(text).expect("a String takes any text");
        out.push('\n');
    };
    for (config, members) in &parts.published.borrow().clusters {
        let name = &config.name;
        line(format_args!("{name}::observability_name::{name}"));
        for (limits, priority) in config.limits.iter().zip(["default", "high"]) {
            for (limit, label) in LIMITS {
                line(format_args!("{name}::{priority}_priority::{label}::{}", limits.maximum(limit)));
            }
        }
        line(format_args!("{name}::added_via_api::{}", is_dynamic(parts, name)));
        for (priority, endpoint) in hosts(members) {
            let at = &endpoint.address;
            let active = endpoint.shared.active.load(Ordering::Relaxed);
            line(format_args!("{name}::{at}::rq_active::{active}"));
            line(format_args!("{name}::{at}::hostname::{}", endpoint.hostname.as_deref().unwrap_or_default()));
            line(format_args!("{name}::{at}::health_flags::{}", health_flags(endpoint, is_ejected(parts, endpoint))));
            line(format_args!("{name}::{at}::weight::{}", endpoint.weight));
            line(format_args!("{name}::{at}::region::{}", endpoint.locality.region));
            line(format_args!("{name}::{at}::zone::{}", endpoint.locality.zone));
            line(format_args!("{name}::{at}::sub_zone::{}", endpoint.locality.sub_zone));
            line(format_args!("{name}::{at}::priority::{priority}"));
        }
    }
    text(200, out)
}

const LIMITS: [(Limit, &str); 4] = [
    (Limit::Connections, "max_connections"),
    (Limit::Pending, "max_pending_requests"),
    (Limit::Requests, "max_requests"),
    (Limit::Retries, "max_retries"),
];

fn health_flags(endpoint: &Endpoint, ejected: bool) -> String {
    let mut flags = String::new();
    if ejected {
        flags.push_str("/failed_outlier_check");
    }
    match endpoint.health {
        Health::Healthy => {}
        Health::Degraded => flags.push_str("/degraded_eds_health"),
        Health::Draining => flags.push_str("/eds_status_draining"),
        Health::Unhealthy => flags.push_str("/failed_eds_health"),
    }
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

fn clusters_json(parts: &AdminParts) -> Answer {
    let published = parts.published.borrow().clone();
    let status = |(config, members): &(Arc<ClusterConfig>, Arc<HostSet>)| {
        let thresholds: Vec<Value> = config
            .limits
            .iter()
            .zip(["DEFAULT", "HIGH"])
            .map(|(limits, priority)| {
                let mut threshold = json!({"priority": priority});
                for (limit, label) in LIMITS {
                    threshold[label] = limits.maximum(limit).into();
                }
                threshold
            })
            .collect();
        json!({
            "name": *config.name,
            "observability_name": *config.name,
            "added_via_api": is_dynamic(parts, &config.name),
            "circuit_breakers": {"thresholds": thresholds},
            "host_statuses": hosts(members).map(|(priority, endpoint)| host_json(parts, priority, endpoint)).collect::<Vec<_>>(),
        })
    };
    json(&json!({"cluster_statuses": published.clusters.iter().map(status).collect::<Vec<_>>()}))
}

fn host_json(parts: &AdminParts, priority: usize, endpoint: &Endpoint) -> Value {
    let health = match endpoint.health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Draining => "DRAINING",
        Health::Unhealthy => "UNHEALTHY",
    };
    let mut status = json!({"eds_health_status": health});
    if is_ejected(parts, endpoint) {
        status["failed_outlier_check"] = true.into();
    }
    let active = endpoint.shared.active.load(Ordering::Relaxed);
    json!({
        "address": address_json(&endpoint.address),
        "stats": [{"name": "rq_active", "type": "GAUGE", "value": active.to_string()}],
        "health_status": status,
        "weight": endpoint.weight,
        "hostname": endpoint.hostname.as_deref().unwrap_or_default(),
        "priority": priority,
        "locality": {"region": *endpoint.locality.region, "zone": *endpoint.locality.zone, "sub_zone": *endpoint.locality.sub_zone},
    })
}

fn address_json(address: &Address) -> Value {
    match address {
        Address::Ip(address) => socket_json(*address),
        Address::Unix(path) => json!({"pipe": {"path": path.display().to_string()}}),
    }
}

fn socket_json(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

pub(super) fn listeners(parts: &AdminParts, ask: &[(String, String)]) -> Answer {
    let published = parts.published.borrow();
    if wants_json(ask) {
        let status = |(listener, bound): &(Arc<ListenerConfig>, Arc<[SocketAddr]>)| {
            let mut addresses = bound.iter().map(|address| socket_json(*address));
            let mut status = json!({"name": *listener.name, "local_address": addresses.next()});
            let more: Vec<Value> = addresses.collect();
            if !more.is_empty() {
                status["additional_local_addresses"] = more.into();
            }
            status
        };
        return json(&json!({"listener_statuses": published.listeners.iter().map(status).collect::<Vec<_>>()}));
    }
    let line = |(listener, address): (&Arc<ListenerConfig>, &SocketAddr)| format!("{}::{address}\n", listener.name);
    let all = published.listeners.iter().flat_map(|(listener, bound)| bound.iter().map(move |at| (listener, at)));
    let lines = all.map(line);
    text(200, lines.collect::<String>())
}

/// All certificates in use; roots and own chains apart, as Envoy does.
pub(super) fn certs(parts: &AdminParts) -> Answer {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
    let list = |certificates: &[CertificateView]| -> Vec<Value> {
        certificates.iter().map(|certificate| certificate_json(certificate, now_s)).collect()
    };
    let secrets = certificates(&parts.store.borrow());
    let entries: Vec<Value> = secrets
        .iter()
        .map(|secret| json!({"ca_cert": list(&secret.roots), "cert_chain": list(&secret.chain)}))
        .collect();
    json(&json!({"certificates": entries}))
}

fn certificate_json(certificate: &CertificateView, now_s: i64) -> Value {
    let (from, to) = certificate.validity;
    let names: Vec<Value> = certificate.names.iter().map(|(kind, name)| json!({(*kind): name})).collect();
    let time = |seconds: i64| jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default();
    json!({
        "path": certificate.path,
        "serial_number": certificate.serial,
        "subject_alt_names": names,
        "days_until_expiration": ((to - now_s).max(0) / 86_400).to_string(),
        "valid_from": time(from),
        "expiration_time": time(to),
    })
}
