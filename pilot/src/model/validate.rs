//! What makes no sense in the rules of a VirtualService.

use super::check::Check;
use super::virtual_service::{MESH, VirtualService};
use super::{claim, host};
use proto::istio::virtual_service::{
    Destination, HttpFaultInjection, HttpMatchRequest, HttpRedirect, HttpRetry, HttpRoute, RouteDestination, TcpRoute,
    TlsRoute,
};

/// Conditions on which Envoy retries (spec 4.3), HTTP and gRPC.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// gRPC's status names in the order of their numbers.
pub const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Checks one HTTP rule.
pub fn http_route(check: &mut Check<'_>, route: &HttpRoute, at: &str, in_delegate: bool) {
    let actions =
        [!route.route.is_empty(), route.redirect.is_some(), route.direct_response.is_some(), route.delegate.is_some()];
    let count = actions.iter().filter(|set| **set).count();
    check.require(count == 1, at, "exactly one of route, redirect, directResponse and delegate is needed");
    check.require(
        !(in_delegate && route.delegate.is_some()),
        format!("{at}.delegate"),
        "a delegate cannot delegate again",
    );
    for (i, block) in route.matches.iter().enumerate() {
        match_block(check, block, &format!("{at}.match[{i}]"));
    }
    let mut total = 0_i64;
    for (i, to) in route.route.iter().enumerate() {
        let to_at = format!("{at}.route[{i}]");
        destination(check, to.destination.as_ref(), &to_at);
        total += weight(check, to.weight, &to_at);
    }
    check.require(route.route.len() < 2 || total > 0, format!("{at}.route"), "the sum of the weights is 0");
    if let Some(redirect) = &route.redirect {
        self::redirect(check, redirect, &format!("{at}.redirect"));
    }
    if let Some(direct) = &route.direct_response {
        check.require((200..600).contains(&direct.status), format!("{at}.directResponse.status"), "use 200 to 599");
        let both = direct.body.as_ref().is_some_and(|body| body.string.is_some() && body.bytes.is_some());
        check.require(!both, format!("{at}.directResponse.body"), "only one of string and bytes");
    }
    if let Some(rewrite) = &route.rewrite {
        check.require(route.redirect.is_none(), format!("{at}.rewrite"), "a redirect has no rewrite");
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            check.require(rewrite.uri.is_none(), format!("{at}.rewrite"), "only one of uri and uriRegexRewrite");
            check.regex(&regex.pattern, format!("{at}.rewrite.uriRegexRewrite.match"));
        }
    }
    if let Some(retry) = &route.retries {
        retries(check, retry, &format!("{at}.retries"));
    }
    if let Some(fault) = &route.fault {
        self::fault(check, fault, &format!("{at}.fault"));
    }
    mirrors(check, route, at);
}

fn mirrors(check: &mut Check<'_>, route: &HttpRoute, at: &str) {
    if let Some(mirror) = &route.mirror {
        destination(check, Some(mirror), &format!("{at}.mirror"));
        check.require(route.mirrors.is_empty(), format!("{at}.mirrors"), "only one of mirror and mirrors");
    }
    if let Some(share) = &route.mirror_percentage {
        check.percent(share.value, format!("{at}.mirrorPercentage.value"));
    }
    for (i, mirror) in route.mirrors.iter().enumerate() {
        destination(check, mirror.destination.as_ref(), &format!("{at}.mirrors[{i}]"));
        if let Some(share) = &mirror.percentage {
            check.percent(share.value, format!("{at}.mirrors[{i}].percentage.value"));
        }
    }
    let cors = route.cors_policy.iter().flat_map(|cors| cors.allow_origins.iter().enumerate());
    for (i, origin) in cors {
        check.string_match(origin, &format!("{at}.corsPolicy.allowOrigins[{i}]"), false);
    }
}

fn match_block(check: &mut Check<'_>, block: &HttpMatchRequest, at: &str) {
    let fields =
        [("uri", &block.uri), ("scheme", &block.scheme), ("method", &block.method), ("authority", &block.authority)];
    for (name, value) in fields {
        if let Some(value) = value {
            check.string_match(value, &format!("{at}.{name}"), false);
        }
    }
    let maps =
        [("headers", &block.headers), ("withoutHeaders", &block.without_headers), ("queryParams", &block.query_params)];
    for (name, map) in maps {
        for (key, value) in map {
            check.string_match(value, &format!("{at}.{name}.{key}"), true);
            if name == "queryParams" || claim::path(key).is_some() {
                continue;
            }
            let message = "a claim is written @request.auth.claims.NAME or @request.auth.claims[NAME][NAME]";
            check.require(!key.starts_with('@'), format!("{at}.{name}.{key}"), message);
            let upper = key.chars().any(|c| c.is_ascii_uppercase());
            check.require(!upper, format!("{at}.{name}.{key}"), "names of headers are written in lower case");
        }
    }
    if let Some(port) = block.port {
        check.port(port, format!("{at}.port"));
    }
}

/// Claims of tokens decide at gateways, which alone verify tokens before they route: a rule that has such conditions is
/// bound to gateways, and to nothing else (VS-13).
pub fn claims(check: &mut Check<'_>, rule: &VirtualService) {
    for (i, route) in rule.http.iter().enumerate() {
        for (j, block) in route.matches.iter().enumerate() {
            let gateways = if block.gateways.is_empty() { &rule.gateways } else { &block.gateways };
            let mut keys = block.headers.keys().chain(block.without_headers.keys());
            let of_mesh = gateways.iter().any(|gateway| gateway == MESH);
            if let Some(key) = keys.find(|key| of_mesh && claim::path(key).is_some()) {
                let message = format!("{key}: claims of tokens decide at gateways alone: name gateways, and not mesh");
                check.semantic(format!("spec.http[{i}].match[{j}]"), message);
            }
        }
    }
}

fn destination(check: &mut Check<'_>, destination: Option<&Destination>, at: &str) {
    let host = destination.map_or("", |destination| destination.host.as_str());
    check.require(!host.is_empty(), format!("{at}.destination.host"), "a host is needed");
    if let Some(port) = destination.and_then(|destination| destination.port.as_ref()) {
        check.port(port.number, format!("{at}.destination.port.number"));
    }
}

fn weight(check: &mut Check<'_>, weight: Option<i32>, at: &str) -> i64 {
    let weight = weight.unwrap_or(0);
    check.require(weight >= 0, format!("{at}.weight"), format!("{weight} is negative"));
    i64::from(weight)
}

fn redirect(check: &mut Check<'_>, redirect: &HttpRedirect, at: &str) {
    if let Some(code) = redirect.redirect_code {
        let known = [0, 301, 302, 303, 307, 308].contains(&code);
        check.require(known, format!("{at}.redirectCode"), "use 301, 302, 303, 307 or 308");
    }
    let uri_twice = !redirect.uri.is_empty() && redirect.prefix_rewrite.is_some();
    check.require(!uri_twice, format!("{at}.prefixRewrite"), "only one of uri and prefixRewrite");
    let port_twice = redirect.port.is_some() && redirect.derive_port.is_some();
    check.require(!port_twice, format!("{at}.derivePort"), "only one of port and derivePort");
}

fn retries(check: &mut Check<'_>, retry: &HttpRetry, at: &str) {
    let attempts = retry.attempts.unwrap_or(0);
    check.require(attempts >= 0, format!("{at}.attempts"), format!("{attempts} is negative"));
    for condition in retry.retry_on.split(',').map(str::trim).filter(|condition| !condition.is_empty()) {
        let known =
            RETRY_ON.contains(&condition) || condition.parse::<u32>().is_ok_and(|code| (200..600).contains(&code));
        check.require(known, format!("{at}.retryOn"), format!("unknown condition {condition:?}"));
    }
}

fn fault(check: &mut Check<'_>, fault: &HttpFaultInjection, at: &str) {
    if let Some(delay) = &fault.delay {
        check.require(delay.fixed_delay.is_some(), format!("{at}.delay.fixedDelay"), "a delay is needed");
        let share = delay.percentage.as_ref().map_or_else(|| f64::from(delay.percent.unwrap_or(0)), |p| p.value);
        check.percent(share, format!("{at}.delay.percentage.value"));
    }
    if let Some(abort) = &fault.abort {
        let one = abort.http_status.is_some() != abort.grpc_status.is_some();
        check.require(one, format!("{at}.abort"), "exactly one of httpStatus and grpcStatus is needed");
        if let Some(status) = abort.http_status {
            check.require((200..600).contains(&status), format!("{at}.abort.httpStatus"), "use 200 to 599");
        }
        if let Some(status) = &abort.grpc_status {
            let known = GRPC_STATUS.contains(&status.as_str());
            check.require(known, format!("{at}.abort.grpcStatus"), format!("unknown status {status:?}"));
        }
        check.percent(abort.percentage.as_ref().map_or(0.0, |p| p.value), format!("{at}.abort.percentage.value"));
    }
}

/// Checks one TLS rule.
pub fn tls_route(check: &mut Check<'_>, route: &TlsRoute, at: &str, hosts: &[String]) {
    check.require(!route.matches.is_empty(), format!("{at}.match"), "a TLS rule needs a match with sniHosts");
    for (i, block) in route.matches.iter().enumerate() {
        check.require(!block.sni_hosts.is_empty(), format!("{at}.match[{i}].sniHosts"), "at least one host is needed");
        for (j, sni) in block.sni_hosts.iter().enumerate() {
            let covered = hosts.iter().any(|host| host::covers(host, sni));
            check.require(
                covered,
                format!("{at}.match[{i}].sniHosts[{j}]"),
                format!("{sni} is not covered by spec.hosts"),
            );
        }
        subnets(check, &block.destination_subnets, &format!("{at}.match[{i}]"));
    }
    destinations(check, &route.route, at);
}

/// Checks one TCP rule.
pub fn tcp_route(check: &mut Check<'_>, route: &TcpRoute, at: &str) {
    for (i, block) in route.matches.iter().enumerate() {
        subnets(check, &block.destination_subnets, &format!("{at}.match[{i}]"));
    }
    destinations(check, &route.route, at);
}

fn subnets(check: &mut Check<'_>, subnets: &[String], at: &str) {
    for (i, subnet) in subnets.iter().enumerate() {
        let good = subnet.parse::<ipnet::IpNet>().is_ok() || subnet.parse::<std::net::IpAddr>().is_ok();
        check.require(good, format!("{at}.destinationSubnets[{i}]"), format!("{subnet:?} is no address block"));
    }
}

fn destinations(check: &mut Check<'_>, routes: &[RouteDestination], at: &str) {
    check.require(!routes.is_empty(), format!("{at}.route"), "a destination is needed");
    let mut total = 0;
    for (i, to) in routes.iter().enumerate() {
        destination(check, to.destination.as_ref(), &format!("{at}.route[{i}]"));
        total += weight(check, to.weight, &format!("{at}.route[{i}]"));
    }
    check.require(routes.len() < 2 || total > 0, format!("{at}.route"), "the sum of the weights is 0");
}
