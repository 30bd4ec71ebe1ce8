//! Annotations with a form of their own are checked before anything is made of them (spec AN-1 to AN-3, S5).

use super::InjectError;
use super::pod::Pod;
use ipnet::IpNet;

/// Longest name of a network interface (`IFNAMSIZ` less the end mark).
const MAX_INTERFACE: usize = 15;

type Check = fn(&str) -> Result<(), &'static str>;

/// Annotation → check.
const CHECKS: &[(&str, Check)] = &[
    ("sidecar.istio.io/interceptionMode", interception_mode),
    ("status.sidecar.istio.io/port", port),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", number),
    ("readiness.status.sidecar.istio.io/periodSeconds", number),
    ("readiness.status.sidecar.istio.io/failureThreshold", number),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", all_or_ranges),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", ranges),
    ("traffic.sidecar.istio.io/includeInboundPorts", all_or_ports),
    ("traffic.sidecar.istio.io/excludeInboundPorts", ports),
    ("traffic.sidecar.istio.io/includeOutboundPorts", ports),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", ports),
    ("traffic.sidecar.istio.io/excludeInterfaces", interfaces),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", interfaces),
    ("istio.io/reroute-virtual-interfaces", interfaces),
    ("prometheus.istio.io/merge-metrics", boolean),
    ("sidecar.istio.io/proxyCPU", quantity),
    ("sidecar.istio.io/proxyMemory", quantity),
    ("sidecar.istio.io/proxyCPULimit", quantity),
    ("sidecar.istio.io/proxyMemoryLimit", quantity),
    ("sidecar.istio.io/userVolume", json_object),
    ("sidecar.istio.io/userVolumeMount", json_object),
];

/// Checks the annotations of a pod.
///
/// # Errors
/// The first one that cannot be used.
pub(super) fn check(pod: &Pod) -> Result<(), InjectError> {
    for (name, value) in pod.annotations() {
        let Some((_, check)) = CHECKS.iter().find(|(known, _)| *known == name) else { continue };
        check(value).map_err(|why| InjectError::annotation(name, value, why))?;
    }
    Ok(())
}

/// A truth value as Go reads it.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn interception_mode(text: &str) -> Result<(), &'static str> {
    let known = ["REDIRECT", "TPROXY", "NONE"].contains(&text);
    if known { Ok(()) } else { Err("use REDIRECT, TPROXY or NONE") }
}

fn port(text: &str) -> Result<(), &'static str> {
    text.trim().parse::<u16>().map(|_| ()).map_err(|_| "use a port from 0 to 65535")
}

fn number(text: &str) -> Result<(), &'static str> {
    text.parse::<u32>().map(|_| ()).map_err(|_| "use a whole number")
}

fn boolean(text: &str) -> Result<(), &'static str> {
    parse_bool(text).map(|_| ()).ok_or("use true or false")
}

fn ports(text: &str) -> Result<(), &'static str> {
    let mut listed = text.split(',').filter(|_| !text.trim().is_empty());
    if listed.all(|item| port(item).is_ok()) { Ok(()) } else { Err("use ports with commas between them, as 80,443") }
}

fn all_or_ports(text: &str) -> Result<(), &'static str> {
    if text == "*" { Ok(()) } else { ports(text).map_err(|_| "use * or ports with commas between them, as 80,443") }
}

fn ranges(text: &str) -> Result<(), &'static str> {
    let mut listed = text.split(',').filter(|_| !text.is_empty());
    let good = listed.all(|range| range.parse::<IpNet>().is_ok());
    if good { Ok(()) } else { Err("use address ranges with commas between them, as 10.0.0.0/8") }
}

fn all_or_ranges(text: &str) -> Result<(), &'static str> {
    if text == "*" { Ok(()) } else { ranges(text).map_err(|_| "use * or address ranges, as 10.0.0.0/8,10.9.0.1/32") }
}

fn interfaces(text: &str) -> Result<(), &'static str> {
    let good = |name: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '@');
        !name.is_empty() && name.len() <= MAX_INTERFACE && name.chars().all(plain) && !name.starts_with('-')
    };
    let mut listed = text.split(',').filter(|_| !text.is_empty());
    if listed.all(|name| good(name.trim())) { Ok(()) } else { Err("use names of interfaces with commas between them") }
}

/// A quantity of Kubernetes: a decimal number, then a unit or an exponent.
fn quantity(text: &str) -> Result<(), &'static str> {
    const UNITS: [&str; 15] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(unsigned.len());
    let (digits, unit) = unsigned.split_at(end);
    let number = digits.bytes().any(|b| b.is_ascii_digit()) && digits.bytes().filter(|b| *b == b'.').count() <= 1;
    let exponent = unit.strip_prefix(['e', 'E']).is_some_and(|power| power.parse::<i8>().is_ok());
    let good = number && (UNITS.contains(&unit) || unit == "Ei" || exponent);
    if good { Ok(()) } else { Err("use a quantity of Kubernetes, as 100m or 128Mi") }
}

fn json_object(text: &str) -> Result<(), &'static str> {
    let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    parsed.map(|_| ()).map_err(|_| "use a JSON object, as {\"name\": {\"mountPath\": \"/etc/x\"}}")
}
