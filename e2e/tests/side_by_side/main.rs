//! Real Envoy and our proxy side by side: one bootstrap, many requests with near misses, answers compared.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::allow_attributes,
    reason = "tables; a test panics to fail"
)]

mod custom;
mod quota;
mod tokens;

use e2e::app::Echo;
use e2e::client::{Answer, exchange, exchange_h2};
use e2e::proxies::{Flavour, Proxy, free_address};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

/// Response headers whose values differ from one exchange to the next.
const FLEETING: &[&str] = &["date", "x-envoy-upstream-service-time"];
/// Request headers that a proxy makes up.
const MADE_UP: &[&str] = &["x-request-id"];

fn route(matched: Value, action: Value) -> Value {
    let mut route = action;
    route["match"] = matched;
    route
}

fn to(cluster: &str) -> Value {
    json!({"route": {"cluster": cluster}})
}

fn header(name: &str, matcher: Value) -> Value {
    let mut header = matcher;
    header["name"] = name.into();
    json!({"prefix": "/", "headers": [header]})
}

fn string(matcher: Value) -> Value {
    json!({"string_match": matcher})
}

/// Paths, methods, headers and query parameters that are matched, each answered in a recognisable way.
fn routes() -> Vec<Value> {
    let direct =
        |status: u16, text: &str| json!({"direct_response": {"status": status, "body": {"inline_string": text}}});
    vec![
        route(json!({"path": "/exact"}), direct(200, "exact")),
        route(json!({"path": "/Case", "case_sensitive": false}), direct(200, "case")),
        route(json!({"path_separated_prefix": "/sep"}), direct(200, "sep")),
        route(json!({"safe_regex": {"regex": "/re/[a-c]+(/x)?"}}), direct(200, "regex")),
        route(
            json!({"prefix": "/query", "query_parameters": [{"name": "a", "string_match": {"exact": "1"}}]}),
            direct(200, "query a=1"),
        ),
        route(
            json!({"prefix": "/query", "query_parameters": [{"name": "b", "present_match": true}]}),
            direct(200, "query b"),
        ),
        route(json!({"prefix": "/old"}), json!({"redirect": {"path_redirect": "/new"}})),
        route(
            json!({"prefix": "/swap"}),
            json!({"redirect": {"prefix_rewrite": "/swapped", "response_code": "FOUND"}}),
        ),
        route(
            json!({"prefix": "/strip"}),
            json!({"redirect": {"path_redirect": "/bare", "strip_query": true, "response_code": "PERMANENT_REDIRECT"}}),
        ),
        route(
            json!({"prefix": "/host"}),
            json!({"redirect": {"host_redirect": "other.example", "response_code": "SEE_OTHER"}}),
        ),
        route(json!({"prefix": "/secure"}), json!({"redirect": {"https_redirect": true, "port_redirect": 8443}})),
        route(json!({"prefix": "/rewrite/"}), json!({"route": {"cluster": "one", "prefix_rewrite": "/"}})),
        route(
            json!({"prefix": "/regex/"}),
            json!({"route": {"cluster": "one", "regex_rewrite": {"pattern": {"regex": "^/regex/([^/]+)/(.*)$"}, "substitution": "/\\2/\\1"}}}),
        ),
        route(
            json!({"prefix": "/literal"}),
            json!({"route": {"cluster": "one", "host_rewrite_literal": "inner.example"}}),
        ),
        route(
            json!({"prefix": "/split"}),
            json!({"route": {"weighted_clusters": {"clusters": [{"name": "one", "weight": 0}, {"name": "two", "weight": 100}]}}}),
        ),
        route(json!({"prefix": "/gone"}), to("nowhere")),
        route(json!({"prefix": "/empty"}), to("empty")),
        route(json!({"prefix": "/refused"}), to("refused")),
        route(
            json!({"prefix": "/headers"}),
            json!({
                "route": {"cluster": "one"},
                "request_headers_to_add": [
                    {"header": {"key": "x-added", "value": "1"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"},
                    {"header": {"key": "x-set", "value": "2"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                    {"header": {"key": "x-once", "value": "3"}, "append_action": "ADD_IF_ABSENT"},
                    {"header": {"key": "x-path", "value": "%REQ(:PATH)%"}},
                ],
                "request_headers_to_remove": ["x-remove"],
                "response_headers_to_add": [{"header": {"key": "x-response", "value": "yes"}}],
                "response_headers_to_remove": ["x-upstream"],
            }),
        ),
        route(header("x-exact", string(json!({"exact": "yes"}))), direct(200, "h exact")),
        route(header("x-prefix", string(json!({"prefix": "ab"}))), direct(200, "h prefix")),
        route(header("x-suffix", string(json!({"suffix": "yz"}))), direct(200, "h suffix")),
        route(header("x-contains", string(json!({"contains": "mid", "ignore_case": true}))), direct(200, "h contains")),
        route(header("x-regex", string(json!({"safe_regex": {"regex": "v[0-9]+"}}))), direct(200, "h regex")),
        route(header("x-range", json!({"range_match": {"start": "10", "end": "20"}})), direct(200, "h range")),
        route(header("x-present", json!({"present_match": true})), direct(200, "h present")),
        route(header(":method", string(json!({"exact": "DELETE"}))), direct(204, "")),
        route(
            json!({"prefix": "/", "headers": [{"name": "x-not", "string_match": {"exact": "no"}, "invert_match": true}, {"name": "x-ask", "present_match": true}]}),
            direct(200, "h inverted"),
        ),
        route(json!({"prefix": "/plain"}), to("one")),
    ]
}

fn cluster(name: &str, address: Option<SocketAddr>) -> Value {
    let endpoint = |address: SocketAddr| {
        let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
        json!({"endpoint": {"address": {"socket_address": socket}}})
    };
    let endpoints: Vec<Value> = address.into_iter().map(endpoint).collect();
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

/// The routes above behind one listener.
fn routing(upstreams: [Echo; 2], listener: SocketAddr, log: &Path) -> Value {
    let [one, two] = upstreams;
    let named = |name: &str, domains: &[&str]| {
        let answer =
            json!({"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": name}}});
        json!({"name": name, "domains": domains, "routes": [answer]})
    };
    let hosts = json!([
        {"name": "main", "domains": ["main.example", "main.example:*"], "routes": routes()},
        named("suffix", &["*.wild.example"]),
        named("deep", &["*.deep.wild.example"]),
        named("prefix", &["pre.*"]),
        named("port", &["ported.example:8080"]),
        {"name": "tls", "domains": ["tls.example"], "require_tls": "ALL", "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "one"}}]},
    ]);
    let clusters = json!([
        cluster("one", Some(one.address)),
        cluster("two", Some(two.address)),
        cluster("empty", None),
        cluster("refused", Some(([127, 0, 0, 1], 1).into())),
    ]);
    bootstrap(
        listener,
        log,
        &json!({"name": "side", "validate_clusters": false, "virtual_hosts": hosts}),
        &[],
        &clusters,
    )
}

/// What both proxies write of each request; the first word is the number of the request.
const LOG: &str = "%REQ(X-TEST)% %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %RESPONSE_CODE_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% \
    %ROUTE_NAME% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %REQ(:AUTHORITY)%\n";

fn extension(name: &str, message: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/{message}").into();
    json!({"name": name, "typed_config": config})
}

fn bootstrap(listener: SocketAddr, log: &Path, routes: &Value, filters: &[Value], clusters: &Value) -> Value {
    let router = extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", json!({}));
    let filters: Vec<&Value> = filters.iter().chain([&router]).collect();
    let format = json!({"path": log, "log_format": {"text_format_source": {"inline_string": LOG}}});
    let log = extension("file", "envoy.extensions.access_loggers.file.v3.FileAccessLog", format);
    let manager = extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({"stat_prefix": "side", "route_config": routes, "http_filters": filters, "access_log": [log]}),
    );
    let local = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({
        "admin": {"address": local(0)},
        "static_resources": {
            "listeners": [{"name": "side", "address": local(listener.port()), "filter_chains": [{"filters": [manager]}]}],
            "clusters": clusters,
        },
    })
}

/// Requests from the route table, with their near misses.
fn requests() -> Vec<String> {
    let ask = |method: &str, host: &str, path: &str, more: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: side\r\nconnection: close\r\n{more}\r\n")
    };
    let paths = [
        "/exact",
        "/exact/",
        "/Exact",
        "/exact?x=1",
        "/exact%20",
        "/case",
        "/CASE",
        "/CASE/",
        "/sep",
        "/sep/x",
        "/sep?x",
        "/separate",
        "/re/abc",
        "/re/abc/x",
        "/re/abd",
        "/re/abc/xx",
        "/query?a=1",
        "/query?a=2",
        "/query?a=1&b",
        "/query?b",
        "/query?b=",
        "/query",
        "/query/x?c=1&a=1",
        "/old",
        "/old/x?y=1",
        "/swap",
        "/swap/x?y=1",
        "/strip/x?y=1",
        "/host",
        "/host/a%2Fb?c=d",
        "/secure/x?y",
        "/rewrite/x/y?z=1",
        "/rewrite/",
        "/rewrite",
        "/regex/a/b?c=1",
        "/regex/a",
        "/literal/x",
        "/split/x",
        "/gone",
        "/empty",
        "/refused",
        "/headers/x?y=1",
        "/plain",
        "/plain?",
        "/other",
        "/",
        "/%70lain",
    ];
    let mut all: Vec<String> = paths.iter().map(|path| ask("GET", "main.example", path, "")).collect();
    all.extend(["/exact", "/exact/", "/plain/a", "/other"].map(|path| ask("GET", "main.example:80", path, "")));
    all.extend(
        ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
            .map(|method| ask(method, "main.example", "/plain", "content-length: 0\r\n")),
    );
    all.extend(
        ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PURGE"]
            .map(|method| ask(method, "main.example", "/plain", "")),
    );
    all.push(ask("POST", "main.example", "/plain", "content-length: 5\r\n") + "hello");
    let hosts = [
        "MAIN.example",
        "main.example:8080",
        "a.wild.example",
        "a.deep.wild.example",
        "wild.example",
        "pre.x",
        "pre",
        "ported.example:8080",
        "ported.example",
        "ported.example:80",
        "tls.example",
        "unknown.example",
        "xmain.example",
    ];
    all.extend(hosts.map(|host| ask("GET", host, "/plain?h=1", "")));
    let headers = [
        "x-exact: yes",
        "x-exact: Yes",
        "x-exact: yes, yes",
        "x-prefix: abc",
        "x-prefix: xab",
        "x-suffix: xyz",
        "x-suffix: yzx",
        "x-contains: aMIDb",
        "x-contains: mi d",
        "x-regex: v12",
        "x-regex: v12x",
        "x-range: 10",
        "x-range: 20",
        "x-range: 9",
        "x-range: a",
        "x-present:",
        "x-present: 1",
        "x-ask: 1",
        "x-ask: 1\r\nx-not: no",
        "x-ask: 1\r\nx-not: yes",
        "X-EXACT: yes",
    ];
    all.extend(headers.map(|more| ask("GET", "main.example", "/nothing", &format!("{more}\r\n"))));
    let sent = "x-added: 0\r\nx-set: 0\r\nx-once: 0\r\nx-remove: 0\r\nx-forwarded-proto: https\r\n";
    all.push(ask("GET", "main.example", "/headers/y", sent));
    all.push(ask("GET", "main.example", "/secure", "x-forwarded-proto: https\r\n"));
    all
}

/// What must be equal: status, headers in any order, and what the upstream saw.
fn comparable(answer: &Answer) -> Value {
    let mut headers: Vec<_> = answer.head.headers.clone();
    headers.iter_mut().filter(|(name, _)| FLEETING.contains(&name.as_str())).for_each(|(_, value)| value.clear());
    headers.sort();
    let body = match serde_json::from_str::<Value>(&answer.body) {
        Ok(mut seen) if seen["headers"].is_array() => {
            let list = seen["headers"].as_array_mut().unwrap();
            list.iter_mut()
                .filter(|pair| MADE_UP.contains(&pair[0].as_str().unwrap()))
                .for_each(|pair| pair[1] = Value::Null);
            list.sort_by_key(ToString::to_string);
            headers.retain(|(name, _)| name != "content-length"); // a made-up value may be longer
            seen
        }
        _ => Value::String(answer.body.clone()),
    };
    json!({"status": answer.status, "headers": headers, "body": body})
}

/// How a request is sent.
type Exchange = fn(SocketAddr, &str) -> anyhow::Result<Answer>;

fn h1(address: SocketAddr, request: &str) -> anyhow::Result<Answer> {
    Ok(exchange(address, request)?)
}

/// Sends every request to both and compares answers, then log lines.
fn compare(bootstrap: impl Fn(SocketAddr, &Path) -> Value, requests: &[String], exchange: Exchange) {
    let (theirs, own) = (free_address().unwrap(), free_address().unwrap());
    let mut envoy = Proxy::start(Flavour::Envoy, |log| bootstrap(theirs, log)).unwrap();
    let mut ours = Proxy::start(Flavour::Ferromesh, |log| bootstrap(own, log)).unwrap();
    // Both proxies answer on ports of their own; the port is part of some answers.
    let ports = |text: String, address: SocketAddr| text.replace(&format!(":{}", address.port()), ":PORT");
    let mut differences = Vec::new();
    for (number, request) in requests.iter().enumerate() {
        let request =
            request.replacen("connection: close\r\n", &format!("connection: close\r\nx-test: {number}\r\n"), 1);
        let answer = |address| match exchange(address, &request) {
            Ok(answer) => ports(serde_json::to_string_pretty(&comparable(&answer)).unwrap(), address),
            Err(error) => format!("no answer: {error}"),
        };
        let (expected, found) = (answer(theirs), answer(own));
        if expected != found {
            differences.push(format!("--- {}\nEnvoy: {expected}\nours: {found}", request.replace("\r\n", "\n")));
        }
    }
    let lines = |proxy: &mut Proxy, address: SocketAddr| -> BTreeSet<String> {
        // Envoy marks a refusal for want of quota as an answer out of a cache; ours says what it is (deviations.md).
        let flag = |line: String| line.replace(" RFCF rate_limited_by_quota", " RL rate_limited_by_quota");
        proxy.log_lines(requests.len()).unwrap().into_iter().map(|line| flag(ports(line, address))).collect()
    };
    let (expected, found) = (lines(&mut envoy, theirs), lines(&mut ours, own));
    differences.extend(expected.difference(&found).map(|line| format!("--- log of Envoy only\n{line}")));
    differences.extend(found.difference(&expected).map(|line| format!("--- log of ours only\n{line}")));
    println!("{} requests, {} differences", requests.len(), differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn routes_are_those_of_envoy() {
    let upstreams = [Echo::start("one").unwrap(), Echo::start("two").unwrap()];
    compare(|listener, log| routing(upstreams, listener, log), &requests(), h1);
}

/// Filters whose answers depend on the request alone.
fn filters() -> Vec<Value> {
    let http = |name: &str, message: &str, config: Value| {
        extension(&format!("envoy.filters.http.{name}"), &format!("envoy.extensions.filters.http.{message}"), config)
    };
    let any = json!({"any": true});
    let path = |prefix: &str| json!({"url_path": {"path": {"prefix": prefix}}});
    let header = |name: &str, value: &str| json!({"header": {"name": name, "string_match": {"exact": value}}});
    let rules = json!({"action": "DENY", "policies": {
        "by-path": {"permissions": [path("/secret")], "principals": [any]},
        "by-header": {"permissions": [{"and_rules": {"rules": [path("/guarded"), {"not_rule": header("x-token", "open")}]}}], "principals": [any]},
        "by-address": {"permissions": [path("/local")], "principals": [{"direct_remote_ip": {"address_prefix": "127.0.0.0", "prefix_len": 8}}]},
        "by-method": {"permissions": [header(":method", "PATCH")], "principals": [any]},
    }});
    vec![
        http("cors", "cors.v3.Cors", json!({})),
        http("rbac", "rbac.v3.RBAC", json!({"rules": rules})),
        http("fault", "fault.v3.HTTPFault", json!({})),
        http("buffer", "buffer.v3.Buffer", json!({"max_request_bytes": 16})),
        http("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", limits()),
        http(
            "header_mutation",
            "header_mutation.v3.HeaderMutation",
            json!({"mutations": {
                "request_mutations": [{"append": {"header": {"key": "x-mutated", "value": "yes"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}, {"remove": "x-gone"}],
                "response_mutations": [{"append": {"header": {"key": "x-answered", "value": "too"}}}],
            }}),
        ),
    ]
}

/// Two requests per user, and three tokens an hour for what costs two.
fn limits() -> Value {
    let all = json!({"default_value": {"numerator": 100}});
    let bucket = |tokens: u32| json!({"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "3600s"});
    let rule = |name: &str, path: &str| {
        json!({"header_value_match": {"descriptor_key": "rule", "descriptor_value": name, "expect_match": true,
            "headers": [{"name": ":path", "string_match": {"prefix": path}}]}})
    };
    let user = json!({"request_headers": {"header_name": "x-user", "descriptor_key": "user"}});
    json!({
        "stat_prefix": "side", "filter_enabled": all, "filter_enforced": all,
        "token_bucket": bucket(1_000_000), "always_consume_default_token_bucket": false, "max_dynamic_descriptors": 100,
        "rate_limits": [
            {"actions": [rule("per-user", "/limited"), user]},
            {"actions": [rule("costly", "/costly")], "hits_addend": {"number": 2}},
        ],
        "descriptors": [
            {"entries": [{"key": "rule", "value": "per-user"}, {"key": "user"}], "token_bucket": bucket(2)},
            {"entries": [{"key": "rule", "value": "costly"}], "token_bucket": bucket(3)},
        ],
    })
}

fn filtered(upstream: Echo, listener: SocketAddr, log: &Path) -> Value {
    let cors = extension(
        "envoy.filters.http.cors",
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        json!({
            "allow_origin_string_match": [{"exact": "http://good.example"}, {"suffix": ".fine.example"}],
            "allow_methods": "GET,POST", "allow_headers": "x-a,x-b", "expose_headers": "x-c", "max_age": "60", "allow_credentials": true,
        }),
    );
    let fault = extension(
        "envoy.filters.http.fault",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        json!({
            "abort": {"http_status": 418, "percentage": {"numerator": 100}},
        }),
    );
    let off = extension(
        "envoy.filters.http.buffer",
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
        json!({"disabled": true}),
    );
    let per = |config: &Value| json!({config["name"].as_str().unwrap(): config["typed_config"]});
    let route = |prefix: &str, config: Option<&Value>| {
        let mut route = json!({"name": prefix, "match": {"prefix": prefix}, "route": {"cluster": "one"}});
        if let Some(config) = config {
            route["typed_per_filter_config"] = per(config);
        }
        route
    };
    let routes = json!({"name": "side", "virtual_hosts": [{
        "name": "all", "domains": ["*"], "typed_per_filter_config": per(&cors),
        "routes": [route("/teapot", Some(&fault)), route("/unbuffered", Some(&off)), route("/", None)],
    }]});
    bootstrap(listener, log, &routes, &filters(), &json!([cluster("one", Some(upstream.address))]))
}

fn filter_requests() -> Vec<String> {
    let ask = |method: &str, path: &str, more: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: a.example\r\nuser-agent: side\r\nconnection: close\r\n{more}\r\n")
    };
    let mut all: Vec<String> = Vec::new();
    for path in [
        "/",
        "/secret",
        "/secret/x",
        "/Secret",
        "/sec%72et",
        "/x/../secret",
        "//secret",
        "/secretive",
        "/guarded",
        "/local",
        "/teapot",
    ] {
        all.push(ask("GET", path, ""));
    }
    all.push(ask("GET", "/guarded", "x-token: open\r\n"));
    all.push(ask("GET", "/guarded", "x-token: open\r\nx-token: open\r\n"));
    all.push(ask("PATCH", "/", "content-length: 0\r\n"));
    for origin in ["http://good.example", "http://GOOD.example", "https://x.fine.example", "http://evil.example", ""] {
        let origin = format!("origin: {origin}\r\n");
        all.push(ask("GET", "/", &origin));
        all.push(ask("OPTIONS", "/", &format!("{origin}access-control-request-method: GET\r\n")));
        all.push(ask("OPTIONS", "/secret", &format!("{origin}access-control-request-method: GET\r\n")));
        all.push(ask("OPTIONS", "/", &origin));
    }
    for (path, body) in [
        ("/", "0123456789"),
        ("/", "0123456789abcdef"),
        ("/", "0123456789abcdefg"),
        ("/unbuffered", "0123456789abcdefg"),
    ] {
        all.push(ask("POST", path, &format!("content-length: {}\r\n", body.len())) + body);
        all.push(
            ask("POST", path, "transfer-encoding: chunked\r\n") + &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        );
    }
    all.push(ask("GET", "/", "x-gone: 1\r\nx-mutated: 0\r\n"));
    for user in ["a", "b", "a", "a", "b", "b", "c"] {
        all.push(ask("GET", "/limited", &format!("x-user: {user}\r\n")));
    }
    for path in ["/limited", "/costly", "/costly", "/limited/x"] {
        all.push(ask("GET", path, ""));
    }
    all
}

#[test]
fn filters_are_those_of_envoy() {
    let upstream = Echo::start("one").unwrap();
    compare(|listener, log| filtered(upstream, listener, log), &filter_requests(), h1);
}

/// Requests that are compared over HTTP/2 too. Envoy's buffer filter does not hold a body against its limit that came in
/// one frame with the end of the stream; ours does, so those are left out.
fn over_h2(requests: Vec<String>) -> Vec<String> {
    let too_long = |request: &String| request.starts_with("POST / ") && request.contains("0123456789abcdefg");
    requests.into_iter().filter(|request| !request.contains("\r\norigin: \r\n") && !too_long(request)).collect()
}

#[test]
fn routes_over_http2_are_those_of_envoy() {
    let upstreams = [Echo::start("one").unwrap(), Echo::start("two").unwrap()];
    compare(|listener, log| routing(upstreams, listener, log), &over_h2(requests()), exchange_h2);
}

#[test]
fn filters_over_http2_are_those_of_envoy() {
    let upstream = Echo::start("one").unwrap();
    compare(|listener, log| filtered(upstream, listener, log), &over_h2(filter_requests()), exchange_h2);
}
