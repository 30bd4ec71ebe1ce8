//! Values of Istio's annotations, refused in the words of Istio's injector (`pkg/kube/inject/validate.go`), which quotes Go.

use pilot::source::yaml::{Node, Value};
use std::net::IpAddr;
use std::str::FromStr;

/// Longest name of a network interface.
const MAX_INTERFACE: usize = 15;
/// Endings of a quantity of Kubernetes.
const SUFFIXES: [&str; 16] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// What is wrong with the value of an annotation; nothing where it is good, or nothing is known of it.
pub fn invalid(name: &str, value: &str) -> Option<String> {
    let traffic = name.strip_prefix("traffic.sidecar.istio.io/");
    let judged = match (traffic, name) {
        (Some("includeOutboundIPRanges"), _) if value != "*" => {
            networks(value).map_err(|why| within("includeIPRanges", &why))
        }
        (Some("excludeOutboundIPRanges"), _) => networks(value).map_err(|why| within("excludeIPRanges", &why)),
        (Some("includeInboundPorts"), _) if value == "*" => Ok(()),
        (Some(field @ ("includeInboundPorts" | "excludeInboundPorts" | "excludeOutboundPorts")), _) => {
            ports(value).map_err(|why| within(field, &why))
        }
        (Some("excludeInterfaces" | "kubevirtInterfaces"), _) | (None, "istio.io/reroute-virtual-interfaces") => {
            interfaces(value)
        }
        (None, "sidecar.istio.io/interceptionMode") => match value {
            "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
            _ => Err(format!("interceptionMode invalid, use REDIRECT,TPROXY,NONE: {value}")),
        },
        // Istio's own words, though it is another field
        (None, "status.sidecar.istio.io/port") => port(value).map_err(|why| within("excludeInboundPorts", &why)),
        (
            None,
            "readiness.status.sidecar.istio.io/initialDelaySeconds"
            | "readiness.status.sidecar.istio.io/periodSeconds"
            | "readiness.status.sidecar.istio.io/failureThreshold",
        ) => number::<u32>(value),
        (None, "prometheus.istio.io/merge-metrics") => truth(value),
        (None, "proxy.istio.io/config") => proxy_config(value),
        (
            None,
            "sidecar.istio.io/proxyCPU"
            | "sidecar.istio.io/proxyMemory"
            | "sidecar.istio.io/proxyCPULimit"
            | "sidecar.istio.io/proxyMemoryLimit",
        ) => quantity(value),
        _ => Ok(()),
    };
    judged.err()
}

fn within(field: &str, why: &str) -> String {
    format!("{field} invalid: {why}")
}

/// As `strconv.ParseUint`.
fn number<T: FromStr>(text: &str) -> Result<(), String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match (digits, text.parse::<T>()) {
        (true, Ok(_)) => Ok(()),
        (true, Err(_)) => Err(format!("strconv.ParseUint: parsing {text:?}: value out of range")),
        (false, _) => Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")),
    }
}

fn port(text: &str) -> Result<(), String> {
    number::<u16>(text.trim()).map_err(|why| format!("failed parsing port '{text}': {why}"))
}

/// A list of ports. Istio says twice which one it could not read.
fn ports(text: &str) -> Result<(), String> {
    let mut all = text.trim().split(',').filter(|_| !text.trim().is_empty());
    all.try_for_each(|one| port(one).map_err(|why| format!("failed parsing port '{one}': {why}")))
}

/// As `strconv.ParseBool`.
fn truth(text: &str) -> Result<(), String> {
    let known = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
    if known.contains(&text) { Ok(()) } else { Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")) }
}

fn networks(text: &str) -> Result<(), String> {
    let mut all = text.split(',').filter(|_| !text.is_empty());
    all.try_for_each(|one| {
        network(one).map_err(|why| format!("failed parsing cidr '{one}': netip.ParsePrefix({one:?}): {why}"))
    })
}

/// As `netip.ParsePrefix`.
fn network(text: &str) -> Result<(), String> {
    let (address, bits) = text.rsplit_once('/').ok_or("no '/'")?;
    let address: IpAddr = address.parse().map_err(|_| format!("ParseAddr({address:?}): unable to parse IP"))?;
    let good =
        !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
    if !good {
        return Err(format!("bad bits after slash: {bits:?}"));
    }
    let most = if address.is_ipv4() { 32 } else { 128 };
    if bits.parse::<u8>().is_ok_and(|bits| bits <= most) {
        Ok(())
    } else {
        Err("prefix length out of range".to_owned())
    }
}

fn interfaces(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    for name in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
        match () {
            () if name.is_empty() => return Err("empty interface name".to_owned()),
            () if name.len() > MAX_INTERFACE => {
                return Err(format!("interface name {name:?} too long (max {MAX_INTERFACE} chars)"));
            }
            () if !name.bytes().all(fits) => {
                return Err(format!("interface name {name:?} contains invalid characters"));
            }
            () => {}
        }
    }
    Ok(())
}

fn proxy_config(text: &str) -> Result<(), String> {
    let failed = |why: String| format!("failed to convert to apply proxy config: {why}");
    let node = Node::parse(text, 1).map_err(|fault| failed(fault.to_string()))?;
    match node.value {
        Value::Map(_) | Value::Null => Ok(()),
        _ => Err(failed("it is no mapping".to_owned())),
    }
}

/// A quantity of Kubernetes: `100m`, `1.5Gi`, `1e3`.
fn quantity(text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err("value contains control characters".to_owned());
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|sign: char| !sign.is_ascii_digit() && sign != '.').unwrap_or(unsigned.len());
    let (digits, suffix) = unsigned.split_at_checked(end).unwrap_or((unsigned, ""));
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|power| power.parse::<i32>().is_ok());
    let number = digits.bytes().any(|byte| byte.is_ascii_digit()) && digits.matches('.').count() <= 1;
    match (number, exponent || SUFFIXES.contains(&suffix)) {
        (true, true) => Ok(()),
        (true, false) => Err("unable to parse quantity's suffix".to_owned()),
        (false, _) => {
            Err("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::invalid;

    // spec: PI-50, PI-68
    #[test]
    fn values_are_judged_as_the_injector_does() {
        let port = "strconv.ParseUint: parsing \"x\": invalid syntax";
        let twice = format!("excludeInboundPorts invalid: failed parsing port 'x': failed parsing port 'x': {port}");
        let resource = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        for (name, good, bad, why) in [
            (
                "sidecar.istio.io/interceptionMode",
                "TPROXY",
                "Redirect",
                "interceptionMode invalid, use REDIRECT,TPROXY,NONE: Redirect",
            ),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "1, 2", "80,x", twice.as_str()),
            (
                "traffic.sidecar.istio.io/includeInboundPorts",
                "*",
                "70000",
                "includeInboundPorts invalid: failed parsing port '70000': failed parsing port '70000': strconv.ParseUint: parsing \"70000\": value out of range",
            ),
            (
                "status.sidecar.istio.io/port",
                "15020",
                "x",
                "excludeInboundPorts invalid: failed parsing port 'x': strconv.ParseUint: parsing \"x\": invalid syntax",
            ),
            (
                "readiness.status.sidecar.istio.io/periodSeconds",
                "3",
                "-3",
                "strconv.ParseUint: parsing \"-3\": invalid syntax",
            ),
            (
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                "10.0.0.0/8,fd00::/8",
                "10.0.0.1",
                "includeIPRanges invalid: failed parsing cidr '10.0.0.1': netip.ParsePrefix(\"10.0.0.1\"): no '/'",
            ),
            (
                "traffic.sidecar.istio.io/excludeOutboundIPRanges",
                "",
                "10.0.0.0/33",
                "excludeIPRanges invalid: failed parsing cidr '10.0.0.0/33': netip.ParsePrefix(\"10.0.0.0/33\"): prefix length out of range",
            ),
            (
                "traffic.sidecar.istio.io/excludeInterfaces",
                "eth0, net1",
                "an-interface-too-long",
                "interface name \"an-interface-too-long\" too long (max 15 chars)",
            ),
            ("prometheus.istio.io/merge-metrics", "False", "no", "strconv.ParseBool: parsing \"no\": invalid syntax"),
            ("sidecar.istio.io/proxyCPU", "1.5", "much", resource),
            ("sidecar.istio.io/proxyMemory", "1e3", "1GB", "unable to parse quantity's suffix"),
            (
                "proxy.istio.io/config",
                "concurrency: 2",
                "[a]",
                "failed to convert to apply proxy config: it is no mapping",
            ),
            ("sidecar.istio.io/logLevel", "anything", "", ""),
        ] {
            assert_eq!(invalid(name, good), None, "{name}: {good}");
            assert_eq!(invalid(name, bad).unwrap_or_default(), why, "{name}: {bad}");
        }
    }
}
