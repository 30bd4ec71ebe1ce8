//! How a request looks.

use super::request::Request;
use std::fmt::Write as _;

/// One line: when, which way, who asks whom, what, and what became of it. `proxy` is named where there are several.
pub fn line(proxy: Option<&str>, request: &Request) -> String {
    let time = request.time.get(11..23).unwrap_or(&request.time);
    let way = if request.direction == "inbound" { "in " } else { "out" };
    let lock = if request.mutual_tls { "mtls" } else { "-   " };
    let ends = format!("{} → {}", request.source_name(), request.destination_name());
    let mut text = format!("{time} {way} {lock} {ends:<36} {} {}{}", request.method, request.authority, request.path);
    match request.status {
        None => text.push_str("  begins"),
        Some(status) => {
            let grpc = request.grpc_status.map(|status| format!(" grpc {status}")).unwrap_or_default();
            add(&mut text, format_args!("  {status}{grpc} {}", millis(request.total_ms)));
        }
    }
    for (name, value) in request.request_headers.iter().chain(&request.response_headers) {
        add(&mut text, format_args!("  {name}={value:?}"));
    }
    if !matches!(request.flags.as_str(), "" | "-") {
        add(&mut text, format_args!("  {}", request.flags));
    }
    if let Some(why) = request.reason.get("why") {
        add(&mut text, format_args!("  {}: {why}", request.reason.get("side").map_or("mesh", String::as_str)));
        let parts = ["limit", "policy", "object", "peer"].iter().filter_map(|part| request.reason.get(*part));
        let parts: Vec<&str> = parts.map(String::as_str).collect();
        if !parts.is_empty() {
            add(&mut text, format_args!(" ({})", parts.join(", ")));
        }
    }
    if let Some(proxy) = proxy {
        add(&mut text, format_args!("  at {proxy}"));
    }
    printable(&text)
}

/// The same and a second line with route, cluster, endpoint, identities, bytes and trace.
pub fn wide(proxy: &str, request: &Request) -> String {
    let mut text = line(Some(proxy), request);
    text.push_str("\n   ");
    let from = request.source.principal.as_deref();
    let attempts = (request.attempts > 0).then(|| request.attempts.to_string());
    let upstream = request.upstream_ms.map(|ms| millis(Some(ms)));
    let bytes = request.status.map(|_| format!("{}/{}", request.bytes_received, request.bytes_sent));
    for (name, value) in [
        ("src", request.source_address.as_deref()),
        ("dst", request.destination_address.as_deref()),
        ("by", from),
        ("route", request.route.as_deref()),
        ("cluster", request.cluster.as_deref()),
        ("endpoint", request.endpoint.as_deref()),
        ("attempts", attempts.as_deref()),
        ("upstream", upstream.as_deref()),
        ("bytes", bytes.as_deref()),
        ("protocol", request.protocol.as_deref()),
        ("details", request.details.as_deref()),
        ("trace", request.trace_id.as_deref()),
    ] {
        if let Some(value) = value {
            add(&mut text, format_args!(" {name}={}", printable(value)));
        }
    }
    text
}

/// The lines that linkerd's `viz tap` writes: the request, and its answer.
pub fn linkerd(proxy: &str, request: &Request) -> String {
    let way = if request.direction == "inbound" { "in" } else { "out" };
    let address = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let ends = format!(
        "id={}:{} proxy={way} src={} dst={} tls={}",
        proxy,
        request.id,
        address(&request.source_address),
        request.endpoint.clone().unwrap_or_else(|| address(&request.destination_address)),
        request.mutual_tls,
    );
    let asked =
        format!("req {ends} :method={} :authority={} :path={}", request.method, request.authority, request.path);
    let Some(status) = request.status else { return printable(&asked) };
    let micros = |ms: Option<f64>| format!("{:.0}µs", ms.unwrap_or_default() * 1000.0);
    let grpc = request.grpc_status.map(|status| format!(" grpc-status={status}")).unwrap_or_default();
    let (answered, ended) = (
        format!("rsp {ends} :status={status} latency={}", micros(request.upstream_ms.or(request.total_ms))),
        format!("end {ends}{grpc} duration={} response-length={}B", micros(request.total_ms), request.bytes_sent),
    );
    [asked, answered, ended].iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

/// Milliseconds as people read them.
pub fn millis(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.1}ms"),
        Some(ms) => format!("{ms:.0}ms"),
    }
}

/// Text that does nothing to a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn add(text: &mut String, more: std::fmt::Arguments<'_>) {
    let written = text.write_fmt(more);
    debug_assert!(written.is_ok(), "a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        serde_json::from_str(
            r#"{"event":"request","id":"0f","time":"2026-11-25T12:00:01.123Z","direction":"inbound","method":"GET",
            "authority":"reviews:9080","path":"/reviews/1\u001b[2J","sourceAddress":"10.0.0.1:5","destinationAddress":"10.0.0.2:9080",
            "mTLS":true,"source":{"workload":"productpage-v1","principal":"spiffe://a"},"destination":{"workload":"reviews-v1"},
            "requestHeaders":{"end-user":"jason"},"status":503,"flags":"UO","totalMs":3.2,"upstreamMs":2.5,"bytesSent":12,
            "reason":{"side":"mesh","limit":"max_requests=1","why":"a breaker is full"},"cluster":"inbound|9080||","attempts":1}"#,
        )
        .unwrap()
    }

    // spec: CT-43
    #[test]
    fn a_request_is_one_line_that_does_nothing_to_a_terminal() {
        assert_eq!(
            line(None, &request()),
            "12:00:01.123 in  mtls productpage-v1 → reviews-v1          GET reviews:9080/reviews/1\u{fffd}[2J  503 3.2ms  \
             end-user=\"jason\"  UO  mesh: a breaker is full (max_requests=1)"
        );
        let open = Request { status: None, flags: String::new(), reason: Default::default(), ..request() };
        assert!(
            line(Some("reviews-v1-0.default"), &open)
                .ends_with("  begins  end-user=\"jason\"  at reviews-v1-0.default")
        );
        let wide = wide("p", &request());
        assert!(wide.ends_with("by=spiffe://a cluster=inbound|9080|| attempts=1 upstream=2.5ms bytes=0/12"), "{wide}");
    }

    // spec: CT-43
    #[test]
    fn linkerds_lines_are_request_answer_and_end() {
        let text = linkerd("reviews-v1-0.default", &request());
        let ends = "id=reviews-v1-0.default:0f proxy=in src=10.0.0.1:5 dst=10.0.0.2:9080 tls=true";
        let lines = [
            format!("req {ends} :method=GET :authority=reviews:9080 :path=/reviews/1\u{fffd}[2J"),
            format!("rsp {ends} :status=503 latency=2500µs"),
            format!("end {ends} duration=3200µs response-length=12B"),
        ];
        assert_eq!(text, lines.join("\n"));
    }
}
