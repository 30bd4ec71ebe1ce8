use super::*;
use crate::message::Metadata;
use crate::message::{Known, RequestHead, ResponseHead, Version};
use crate::net::PeerFacts;
use crate::route::{Action, Asked, Choice, HostAvoidance, Lookup, RetryOn, Route};
use crate::telemetry::access_log::LogFacts;
use prost::Message;
use serde_json::{Value, json};
use std::time::Duration;

fn try_table(json: &Value) -> Result<RouteTable, Refusal> {
    let bytes = proto::json::from_value("envoy.config.route.v3.RouteConfiguration", json).unwrap();
    let written = RouteConfiguration::decode(bytes.as_slice()).unwrap();
    let environment = Environment::from([("REGION", "eu")]);
    let runtime = BTreeMap::from([("half".to_owned(), 50.0)]);
    let hook = |name: &str, any: &Any| -> Result<Override, Refusal> {
        match name {
            "refused" => Err(Refusal::new("x", "bad")),
            _ => Ok(Arc::new(any.type_url.clone())),
        }
    };
    RouteTable::parse(&written, RouteContext { environment: &environment, runtime: &runtime, parse_override: &hook })
}

fn table(json: &Value) -> RouteTable {
    try_table(json).unwrap()
}

/// A table with one virtual host for everything.
fn routes(routes: &Value) -> RouteTable {
    table(&json!({"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}))
}

fn get(authority: &str, path: &str) -> RequestHead {
    RequestHead::new(Version::H11, b"GET", b"http", authority.as_bytes(), path.as_bytes())
}

fn find<'a>(table: &'a RouteTable, head: &RequestHead, random: u64) -> Option<&'a Route> {
    match table.lookup(head, Asked { random, metadata: None }) {
        Lookup::Found(route) => table.route(route),
        Lookup::NoRoute | Lookup::Ask(_) => None,
    }
}

/// Name of the cluster that a request goes to; `-` for no route.
fn cluster(table: &RouteTable, head: &RequestHead) -> String {
    let route = find(table, head, 0);
    route.map_or_else(|| "-".to_owned(), |route| route.choose(head, 0).unwrap().cluster.to_string())
}

fn to(cluster: &str) -> Value {
    json!({"cluster": cluster})
}

// spec: VSM-4, VSM-7, VSM-9, GEN-3, HD-18, LR-6
#[test]
fn virtual_hosts_are_found_by_the_most_specific_domain() {
    let host = |domains: &[&str], cluster: &str| json!({"name": cluster, "domains": domains, "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]});
    let hosts = json!([
        host(&["a.com", "reviews.default.svc.cluster.local", "a.com:8080", "[::1]"], "exact"),
        host(&["*.com", "*.b.com"], "suffix"),
        host(&["*-x.b.com"], "longer"),
        host(&["web.*"], "prefix"),
        {"name": "empty", "domains": ["blackhole"]}
    ]);
    let plain = table(&json!({"virtual_hosts": hosts}));
    let ignoring = table(&json!({"virtual_hosts": hosts, "ignore_port_in_host_matching": true}));
    let cases = [
        ("a.com", "exact", "exact"),
        ("A.CoM", "exact", "exact"),
        ("a.com.", "exact", "exact"),
        ("a.com:8080", "exact", "exact"),
        ("a.com:9090", "-", "exact"),
        ("a.com.:9090", "-", "exact"),
        ("reviews.default.svc.cluster.local.", "exact", "exact"),
        ("[::1]", "exact", "exact"),
        ("[::1]:80", "-", "exact"),
        ("b.com", "suffix", "suffix"),
        ("c.b.com", "suffix", "suffix"),
        ("c-x.b.com", "longer", "longer"),
        ("-x.b.com", "suffix", "suffix"),
        (".com", "-", "-"),
        ("web.org", "prefix", "prefix"),
        ("web.", "-", "-"),
        ("web.com", "suffix", "suffix"),
        ("other", "-", "-"),
        ("blackhole", "-", "-"),
    ];
    for (authority, with_port, without) in cases {
        assert_eq!(cluster(&plain, &get(authority, "/")), with_port, "{authority}");
        assert_eq!(cluster(&ignoring, &get(authority, "/")), without, "{authority} without port");
    }
    let any = table(&json!({"virtual_hosts": [host(&["a.com"], "a"), host(&["*"], "any")]}));
    assert_eq!(cluster(&any, &get("b", "/")), "any");
}

// spec: VS-3, VS-6, VS-8, HD-17
#[test]
fn paths_match_in_all_forms_and_the_first_route_wins() {
    let table = routes(&json!([
        {"match": {"path": "/exact"}, "route": to("exact")},
        {"match": {"path": "/CASE", "case_sensitive": false}, "route": to("case")},
        {"match": {"path_separated_prefix": "/seg"}, "route": to("seg")},
        {"match": {"safe_regex": {"regex": "/re/\\d+|/re"}}, "route": to("regex")},
        {"match": {"path_match_policy": {"name": "t", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "path_template": "/t/*/end"}}}, "route": to("template")},
        {"match": {"prefix": "/pre"}, "route": to("prefix")},
        {"match": {"prefix": "/P", "case_sensitive": false}, "route": to("any case")},
        {"match": {"connect_matcher": {}}, "route": to("connect")},
    ]));
    let cases = [
        ("/exact", "exact"),
        ("/exact?q=/", "exact"),
        ("/exact/", "-"),
        ("/case", "case"),
        ("/seg", "seg"),
        ("/seg/x?y", "seg"),
        ("/segment", "-"),
        ("/re/12", "regex"),
        ("/re/12/", "-"),
        ("/re?x", "regex"),
        ("/t/a/end", "template"),
        ("/t/a/b/end", "-"),
        ("/prefixed", "prefix"),
        ("/p", "any case"),
        ("/", "-"),
    ];
    for (path, expected) in cases {
        assert_eq!(cluster(&table, &get("a", path)), expected, "{path}");
    }
    let connect = RequestHead::new(Version::H11, b"CONNECT", b"", b"a:443", b"");
    assert_eq!(cluster(&table, &connect), "connect");
    let all = routes(&json!([{"match": {"prefix": ""}, "route": to("all")}]));
    assert_eq!(cluster(&all, &connect), "-", "a request without a path meets CONNECT routes only");
}

// spec: VS-9, VS-10, VS-11, VS-12
#[test]
fn headers_query_share_and_grpc_are_conditions_too() {
    let table = routes(&json!([
        {"match": {"prefix": "/", "headers": [{"name": "end-user", "string_match": {"exact": "jason"}},
            {"name": ":method", "string_match": {"exact": "GET"}}]}, "route": to("jason")},
        {"match": {"prefix": "/", "query_parameters": [{"name": "v", "string_match": {"prefix": "2"}}, {"name": "w", "present_match": true}]}, "route": to("query")},
        {"match": {"prefix": "/", "query_parameters": [{"name": "x", "present_match": false}, {"name": "y"}]}, "route": to("absent")},
        {"match": {"prefix": "/g", "grpc": {}}, "route": to("grpc")},
        {"match": {"prefix": "/s", "runtime_fraction": {"default_value": {"numerator": 1, "denominator": "TEN_THOUSAND"}}}, "route": to("share")},
        {"match": {"prefix": "/r", "runtime_fraction": {"default_value": {"numerator": 0}, "runtime_key": "half"}}, "route": to("runtime")},
        {"match": {"prefix": "/"}, "route": to("rest")},
    ]));
    let mut head = get("a", "/");
    head.headers.append(b"End-User", b"jason");
    assert_eq!(cluster(&table, &head), "jason");
    head.set_method(b"POST");
    assert_eq!(cluster(&table, &head), "rest");
    for (path, expected) in
        [("/?v=21&w", "query"), ("/?v=1&v=2&w", "rest"), ("/?v=2", "rest"), ("/?y=", "absent"), ("/?x&y", "rest")]
    {
        assert_eq!(cluster(&table, &get("a", path)), expected, "{path}");
    }
    let mut grpc = get("a", "/g");
    grpc.headers.append(b"content-type", b"application/grpc-web");
    assert_eq!(cluster(&table, &grpc), "rest");
    grpc.headers.set(Known::ContentType, b"application/grpc+proto");
    assert_eq!(cluster(&table, &grpc), "grpc");
    let chosen = |path: &str, random: u64| {
        find(&table, &get("a", path), random).unwrap().choose(&get("a", path), 0).unwrap().cluster.to_string()
    };
    assert_eq!((chosen("/s", 10_000), chosen("/s", 1)), ("share".to_owned(), "rest".to_owned()));
    assert_eq!((chosen("/r", 49), chosen("/r", 50)), ("runtime".to_owned(), "rest".to_owned()));
}

// spec: VS-16, VS-17
#[test]
fn clusters_are_chosen_by_weight_and_by_header() {
    let table = routes(&json!([
        {"match": {"prefix": "/w"}, "route": {"weighted_clusters": {"clusters": [
            {"name": "a", "weight": 99}, {"name": "zero", "weight": 0}, {"name": "b", "weight": 1}]}}},
        {"match": {"prefix": "/h"}, "route": {"cluster_header": "X-Cluster"}},
    ]));
    let split = find(&table, &get("a", "/w"), 0).unwrap();
    let mut counts = BTreeMap::new();
    for random in 0..10_000 {
        *counts.entry(split.choose(&get("a", "/w"), random).unwrap().cluster.to_string()).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([("a".to_owned(), 9900), ("b".to_owned(), 100)]));
    let by_header = find(&table, &get("a", "/h"), 0).unwrap();
    assert!(by_header.choose(&get("a", "/h"), 0).is_none());
    let mut head = get("a", "/h");
    head.headers.append(b"x-cluster", b"c");
    assert_eq!(&*by_header.choose(&head, 0).unwrap().cluster, "c");
}

// spec: VS-19, LR-13
#[test]
fn redirects_point_where_envoy_points() {
    let location = |redirect: Value, matching: Value, authority: &str, path: &str| {
        let table = routes(&json!([{"match": matching, "redirect": redirect}]));
        let head = get(authority, path);
        match &find(&table, &head, 0).unwrap().action {
            Action::Redirect(redirect) => (redirect.status, String::from_utf8(redirect.location(&head)).unwrap()),
            other => panic!("{other:?}"),
        }
    };
    let any = || json!({"prefix": "/old"});
    let cases = [
        (json!({"path_redirect": "/new"}), any(), "a", "/old?q=1", 301, "http://a/new?q=1"),
        (json!({"path_redirect": "/new?z"}), any(), "a", "/old?q=1", 301, "http://a/new?z"),
        (json!({"path_redirect": "/new", "strip_query": true}), any(), "a", "/old?q=1", 301, "http://a/new"),
        (
            json!({"prefix_rewrite": "/new", "response_code": "PERMANENT_REDIRECT"}),
            any(),
            "a",
            "/old/x?q",
            308,
            "http://a/new/x?q",
        ),
        (json!({"host_redirect": "b", "response_code": "FOUND"}), any(), "a:8080", "/old", 302, "http://b/old"),
        (json!({"host_redirect": "b", "port_redirect": 9}), any(), "a", "/old", 301, "http://b:9/old"),
        (json!({"port_redirect": 81, "response_code": "SEE_OTHER"}), any(), "a:80", "/old", 303, "http://a:81/old"),
        (
            json!({"https_redirect": true, "response_code": "TEMPORARY_REDIRECT"}),
            any(),
            "a:80",
            "/old",
            307,
            "https://a/old",
        ),
        (json!({"https_redirect": true}), any(), "a:8080", "/old", 301, "https://a:8080/old"),
        (json!({"scheme_redirect": "HTTP"}), any(), "a:80", "/old", 301, "HTTP://a:80/old"),
        (
            json!({"regex_rewrite": {"pattern": {"regex": "^/(\\w+)$"}, "substitution": "/x/\\1$"}}),
            any(),
            "a",
            "/old?q",
            301,
            "http://a/x/old$?q",
        ),
        (json!({"strip_query": true}), any(), "a", "/old?q", 301, "http://a/old"),
    ];
    for (redirect, matching, authority, path, status, expected) in cases {
        assert_eq!(location(redirect.clone(), matching, authority, path), (status, expected.to_owned()), "{redirect}");
    }
}

// spec: VS-20
#[test]
fn direct_responses_have_a_status_and_a_bounded_body() {
    let direct = |body: &str, limit: Option<u32>| {
        try_table(
            &json!({"max_direct_response_body_size_bytes": limit, "virtual_hosts": [{"name": "v", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 418, "body": {"inline_string": body}}}]}]}),
        )
    };
    let table = direct("tea", None).unwrap();
    match &find(&table, &get("a", "/"), 0).unwrap().action {
        Action::Direct { status: 418, body } => assert_eq!(&body[..], b"tea"),
        other => panic!("{other:?}"),
    }
    let refusal = direct("coffee", Some(5)).unwrap_err();
    assert_eq!(refusal.field, "virtual_hosts[0].routes[0].direct_response.body");
    assert!(direct(&"x".repeat(4097), None).is_err() && direct(&"x".repeat(4096), None).is_ok());
}

// spec: VS-22, VS-23, VS-24, HD-5, HD-10
#[test]
fn paths_and_hosts_are_rewritten_and_the_originals_kept() {
    let rewritten = |matching: Value, mut action: Value, path: &str| {
        action["cluster"] = "c".into();
        let table = routes(&json!([{"match": matching, "route": action}]));
        let mut head = get("a:80", path);
        head.headers.append(b"x-host", b"from-header");
        let route = find(&table, &head, 0).unwrap();
        route.rewrite(&mut head, None);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let kept = [Known::XEnvoyOriginalPath, Known::XEnvoyOriginalHost, Known::XForwardedHost]
            .map(|known| head.headers.get(known).map_or_else(|| "-".to_owned(), text));
        (text(head.path()), text(head.authority()), kept.join(" "))
    };
    let regex =
        |pattern: &str, substitution: &str| json!({"pattern": {"regex": pattern}, "substitution": substitution});
    let template = json!({"path_match_policy": {"name": "t", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", "path_template": "/{a}/{b=**}"}}});
    let template_rewrite = json!({"path_rewrite_policy": {"name": "t", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig", "path_template_rewrite": "/{b}/{a}"}}});
    let cases = [
        (json!({"prefix": "/old"}), json!({"prefix_rewrite": "/new"}), "/old/x?q", "/new/x?q a:80 /old/x?q - -"),
        (json!({"path": "/old"}), json!({"prefix_rewrite": "/new"}), "/old?q", "/new?q a:80 /old?q - -"),
        (
            json!({"prefix": "/"}),
            json!({"regex_rewrite": regex("/(\\d+)/(\\d+)", "/\\2/\\1")}),
            "/1/2?q",
            "/2/1?q a:80 /1/2?q - -",
        ),
        (json!({"prefix": "/"}), json!({"regex_rewrite": regex("x", "y")}), "/1", "/1 a:80 /1 - -"),
        (template, template_rewrite, "/x/y/z?q", "/y/z/x?q a:80 /x/y/z?q - -"),
        (json!({"prefix": "/"}), json!({"host_rewrite_literal": "b"}), "/", "/ b - a:80 -"),
        (
            json!({"prefix": "/"}),
            json!({"host_rewrite_literal": "b", "append_x_forwarded_host": true}),
            "/",
            "/ b - a:80 a:80",
        ),
        (json!({"prefix": "/"}), json!({"host_rewrite_header": "X-Host"}), "/", "/ from-header - a:80 -"),
        (json!({"prefix": "/"}), json!({"host_rewrite_header": "missing"}), "/", "/ a:80 - - -"),
        (
            json!({"prefix": "/"}),
            json!({"host_rewrite_path_regex": regex("^/(.+)/.*$", "\\1.com")}),
            "/h/x?q",
            "/h/x?q h.com - a:80 -",
        ),
        (json!({"prefix": "/"}), json!({"auto_host_rewrite": true}), "/", "/ a:80 - - -"),
    ];
    for (matching, action, path, expected) in cases {
        let (path, host, kept) = rewritten(matching, action.clone(), path);
        assert_eq!(format!("{path} {host} {kept}"), expected, "{action}");
    }
    let table = routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "c", "auto_host_rewrite": true}}]));
    let mut head = get("a", "/");
    find(&table, &head, 0).unwrap().rewrite_host_of_endpoint(&mut head, "db.example");
    assert_eq!(head.authority(), b"db.example");
}

// spec: VS-18
#[test]
fn headers_are_set_added_and_removed_from_the_most_specific_level_up() {
    let option = |name: &str, value: &str, action: &str| json!({"header": {"key": name, "value": value}, "append_action": action});
    let config = |wins: bool| {
        table(&json!({
            "most_specific_header_mutations_wins": wins,
            "request_headers_to_add": [option("x-level", "table", "OVERWRITE_IF_EXISTS_OR_ADD")],
            "virtual_hosts": [{"name": "v", "domains": ["*"],
                "request_headers_to_add": [option("x-level", "host", "OVERWRITE_IF_EXISTS_OR_ADD")],
                "response_headers_to_remove": ["Server"],
                "routes": [{"match": {"prefix": "/"},
                    "request_headers_to_add": [
                        option("x-level", "route", "OVERWRITE_IF_EXISTS_OR_ADD"),
                        option("x-there", "new", "ADD_IF_ABSENT"),
                        option("x-absent", "new", "OVERWRITE_IF_EXISTS"),
                        option("x-twice", "2", "APPEND_IF_EXISTS_OR_ADD"),
                        option("x-peer", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% 100%% %REQ(x-there)%", "APPEND_IF_EXISTS_OR_ADD"),
                        option("x-empty", "%REQ(nothing)%", "APPEND_IF_EXISTS_OR_ADD"),
                        option("x-region", "%ENVIRONMENT(REGION)%", "APPEND_IF_EXISTS_OR_ADD"),
                        option("x-late", "%REQ(x-gone)%", "APPEND_IF_EXISTS_OR_ADD")],
                    "request_headers_to_remove": ["x-gone"],
                    "route": {"weighted_clusters": {"clusters": [{"name": "c", "weight": 1,
                        "request_headers_to_add": [option("x-level", "cluster", "OVERWRITE_IF_EXISTS_OR_ADD")],
                        "response_headers_to_add": [option("x-status", "%RESPONSE_CODE%", "APPEND_IF_EXISTS_OR_ADD")]}]}}}]}]
        }))
    };
    let peer = PeerFacts::plain(1, "10.0.0.1:5".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    let facts = LogFacts { peer: Some(&peer), ..LogFacts::default() };
    for (wins, level) in [(false, "table"), (true, "cluster")] {
        let mut head = get("a", "/");
        for (name, value) in [("x-there", "old"), ("x-twice", "1"), ("x-gone", "x")] {
            head.headers.append(name.as_bytes(), value.as_bytes());
        }
        let table = config(wins);
        let route = find(&table, &head, 0).unwrap();
        let choice = route.choose(&head, 0).unwrap();
        route.change_request(&choice, &mut head, &facts);
        let joined =
            |name: &str| head.headers.joined(name.as_bytes()).map(|value| String::from_utf8(value.to_vec()).unwrap());
        assert_eq!(joined("x-level").as_deref(), Some(level));
        assert_eq!(joined("x-there").as_deref(), Some("old"));
        assert_eq!(joined("x-twice").as_deref(), Some("1,2"));
        assert_eq!(joined("x-peer").as_deref(), Some("10.0.0.1 100% old"));
        assert_eq!(joined("x-region").as_deref(), Some("eu"));
        assert_eq!((joined("x-absent"), joined("x-empty"), joined("x-gone")), (None, None, None));
        assert_eq!(joined("x-late"), None, "removals come before values are made");
        let mut response = ResponseHead::new(200);
        response.headers.append(b"server", b"x");
        route.change_response(Some(&choice), &mut response, &facts);
        assert_eq!(response.headers.get_name(b"x-status"), Some(&b"200"[..]));
        assert!(!response.headers.contains(Known::Server));
    }
}

// spec: VS-25, VS-26, VS-27, VS-28, VS-30, VS-31, VS-32, RT-1, RT-3, RT-4, RT-5, RT-7, HD-21
#[test]
fn timeouts_and_retries_have_envoys_defaults() {
    let route = |action: Value, host: Value| {
        let mut action = action;
        action["cluster"] = "c".into();
        let mut virtual_host =
            json!({"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]});
        virtual_host.as_object_mut().unwrap().extend(host.as_object().unwrap().clone());
        let mut table = table(&json!({"virtual_hosts": [virtual_host]}));
        table.routes.remove(0)
    };
    let plain = route(json!({}), json!({}));
    assert_eq!(
        (plain.timeouts.route, plain.timeouts.idle, plain.timeouts.grpc_timeout_max),
        (Some(Duration::from_secs(15)), None, None)
    );
    assert!(plain.retry.is_none());
    let istio = route(
        json!({"timeout": "0s", "idle_timeout": "0s", "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
            "retry_policy": {"retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", "num_retries": 2,
                "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config":
                    {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],
                "host_selection_retry_max_attempts": "5", "retriable_status_codes": [503]}}),
        json!({"include_request_attempt_count": true}),
    );
    assert_eq!((istio.timeouts.route, istio.timeouts.idle), (None, Some(None)));
    assert_eq!((istio.timeouts.max_stream_duration, istio.timeouts.grpc_timeout_max), (Some(None), Some(None)));
    assert!(!istio.high_priority && route(json!({"priority": "HIGH"}), json!({})).high_priority);
    let old = route(json!({"timeout": "3s", "max_grpc_timeout": "3s"}), json!({})).timeouts;
    assert_eq!((old.max_grpc_timeout, old.grpc_timeout_max), (Some(Some(Duration::from_secs(3))), None));
    let none = route(json!({"timeout": "0s", "max_grpc_timeout": "0s"}), json!({})).timeouts;
    assert_eq!(none.max_grpc_timeout, Some(None));
    assert!(istio.attempt_count_in_request && !istio.attempt_count_in_response);
    let retry = istio.retry.as_ref().unwrap();
    assert_eq!(
        (retry.num_retries, &*retry.status_codes, retry.avoid),
        (2, &[503][..], HostAvoidance::PreviousHosts(5))
    );
    assert!(retry.on.has(RetryOn::GRPC_UNAVAILABLE) && !retry.on.has(RetryOn::FIVE_XX));
    assert_eq!((retry.backoff_base, retry.backoff_max), (Duration::from_millis(25), Duration::from_millis(250)));
    let host_policy = route(
        json!({}),
        json!({"retry_policy": {"retry_on": "5xx", "per_try_timeout": "0.2s", "retry_back_off": {"base_interval": "0.1s"},
            "retry_priority": {"name": "p", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", "update_frequency": 2}},
            "rate_limited_retry_back_off": {"reset_headers": [{"name": "Retry-After"}]}}}),
    );
    let retry = host_policy.retry.as_ref().unwrap();
    assert_eq!((retry.num_retries, retry.per_try_timeout), (1, Some(Duration::from_millis(200))));
    assert_eq!((retry.backoff_max, retry.priority_update_frequency), (Duration::from_secs(1), Some(2)));
    assert_eq!(&*retry.rate_limited.as_ref().unwrap().headers[0].0, "retry-after");
}

// spec: VS-36, RT-11
#[test]
fn mirrors_have_a_share_and_perhaps_a_suffix() {
    let table = routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "c", "request_mirror_policies": [
        {"cluster": "m", "runtime_fraction": {"default_value": {"numerator": 25, "denominator": "MILLION"}}, "disable_shadow_host_suffix_append": true},
        {"cluster": "n"}]}}]));
    let route = find(&table, &get("a", "/"), 0).unwrap();
    let mirrors: Vec<_> =
        route.mirrors.iter().map(|m| (&*m.cluster, m.numerator, m.denominator, m.host_suffix)).collect();
    assert_eq!(mirrors, [("m", 25, 1_000_000, false), ("n", 1, 1, true)]);
}

#[test]
fn filter_configuration_is_most_specific_first_and_can_switch_off() {
    let any = |name: &str| json!({"@type": format!("type.googleapis.com/{name}")});
    let disabled = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true});
    let optional = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "is_optional": true,
        "config": any("envoy.extensions.filters.http.cors.v3.Cors")});
    let table = table(&json!({
        "typed_per_filter_config": {"a": any("envoy.extensions.filters.http.cors.v3.Cors"), "b": disabled},
        "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": to("c"),
            "typed_per_filter_config": {"a": any("envoy.extensions.filters.http.cors.v3.CorsPolicy"), "refused": optional}}]}]}));
    let route = find(&table, &get("a", "/"), 0).unwrap();
    assert!(route.filter::<String>("a").unwrap().ends_with("CorsPolicy"));
    assert_eq!(route.filter::<FilterDisabled>("b"), Some(&FilterDisabled));
    assert!(route.filter::<String>("refused").is_none());
}

// spec: XI-8
#[test]
fn where_a_route_comes_from_is_kept() {
    let table = routes(
        &json!([{"match": {"prefix": "/"}, "name": "default", "route": to("c"), "decorator": {"operation": "a:80/*"},
        "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/default/virtual-service/a"}}}}]),
    );
    let route = find(&table, &get("a", "/"), 0).unwrap();
    assert_eq!(route.origin.as_deref(), Some("/apis/networking.istio.io/v1/namespaces/default/virtual-service/a"));
    assert_eq!((&*route.name, &*route.virtual_host, route.decorator.as_deref()), ("default", "v", Some("a:80/*")));
}

#[test]
fn plain_requests_are_sent_to_tls_where_it_is_required() {
    let table = table(&json!({"virtual_hosts": [{"name": "v", "domains": ["*"], "require_tls": "ALL",
        "routes": [{"match": {"prefix": "/"}, "route": to("c")}]}]}));
    let mut head = get("a:80", "/x?y");
    match &find(&table, &head, 0).unwrap().action {
        Action::Redirect(redirect) => assert_eq!(redirect.location(&head), b"https://a/x?y"),
        other => panic!("{other:?}"),
    }
    head.set_scheme(b"https");
    assert_eq!(cluster(&table, &head), "c");
}

#[test]
fn a_table_with_vhds_asks_for_hosts_it_does_not_know() {
    let table =
        table(&json!({"vhds": {"config_source": {"ads": {}}}, "virtual_hosts": [{"name": "v", "domains": ["a"]}]}));
    assert!(
        matches!(table.lookup(&get("B:80", "/"), Asked { random: 0, metadata: None }), Lookup::Ask(host) if &*host == "b:80")
    );
    assert!(matches!(table.lookup(&get("a", "/"), Asked { random: 0, metadata: None }), Lookup::NoRoute));
}

#[test]
fn path_parameters_can_be_left_out_of_the_match() {
    let mut config = json!({"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"path": "/a"}, "route": to("c")}]}]});
    assert_eq!(cluster(&table(&config), &get("a", "/a;v=1")), "-");
    config["ignore_path_parameters_in_path_matching"] = true.into();
    assert_eq!(cluster(&table(&config), &get("a", "/a;v=1?q")), "c");
}

#[test]
fn requests_are_hashed_as_envoy_hashes_them() {
    let table = routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "c", "hash_policy": [
        {"header": {"header_name": "X-User"}, "terminal": true},
        {"cookie": {"name": "s", "ttl": "60s", "path": "/p"}},
        {"query_parameter": {"name": "q"}},
        {"connection_properties": {"source_ip": true}}]}}]));
    let (remote, local) = ("10.0.0.1:5".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    let mut head = get("a", "/?q=v");
    let route = find(&table, &head, 0).unwrap();
    let made = route.hash(&head, remote, local);
    let cookie = made.cookie.unwrap().header;
    assert!(cookie.starts_with("s=\"") && cookie.ends_with("\"; Max-Age=60; Path=/p; HttpOnly"), "{cookie}");
    let value = cookie.split('"').nth(1).unwrap().to_owned();
    head.headers.append(b"cookie", format!("a=b; s={value}").as_bytes());
    let again = route.hash(&head, remote, local);
    assert_eq!((again.hash, again.cookie), (made.hash, None), "the cookie brings the client back");
    head.headers.append(b"x-user", b"jason");
    let by_user = route.hash(&head, remote, local).hash;
    assert_ne!(by_user, again.hash, "a terminal policy ends the list");
    let mut empty = get("a", "/");
    empty.headers.append(b"x-user", b"");
    // XXH64 of no bytes with seed 0, a constant of the algorithm's specification
    assert_eq!(route.hash(&empty, remote, local).hash, Some(0xef46_db37_51d8_e999));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn what_cannot_be_obeyed_is_refused_by_its_path() {
    let with_route = |route: Value| json!({"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]});
    let with_action = |action: Value| with_route(json!({"match": {"prefix": "/"}, "route": action}));
    let action = "virtual_hosts[0].routes[0].route";
    let cases = [
        (json!({"virtual_hosts": [{"name": "v"}]}), "virtual_hosts[0].domains".to_owned(), "is empty"),
        (
            json!({"virtual_hosts": [{"name": "v", "domains": ["a"]}, {"name": "w", "domains": ["A"]}]}),
            "virtual_hosts[1].domains[0]".into(),
            "twice",
        ),
        (
            json!({"virtual_hosts": [{"name": "v", "domains": ["a*b"]}]}),
            "virtual_hosts[0].domains[0]".into(),
            "one end only",
        ),
        (
            json!({"virtual_hosts": [{"name": "v", "domains": ["*"], "rate_limits": [{}]}]}),
            "virtual_hosts[0].rate_limits[0].actions".into(),
            "at least one is needed",
        ),
        (with_route(json!({"match": {"prefix": "/"}})), "virtual_hosts[0].routes[0].action".into(), "is needed"),
        (
            with_route(json!({"match": {"safe_regex": {"regex": "("}}, "route": to("c")})),
            "virtual_hosts[0].routes[0].match.safe_regex.regex".into(),
            "unclosed",
        ),
        (
            with_route(json!({"match": {"prefix": "/", "headers": [{"name": "a"}, {"name": ""}]}, "route": to("c")})),
            "virtual_hosts[0].routes[0].match.headers[1].name".into(),
            "is empty",
        ),
        (
            with_route(
                json!({"match": {"safe_regex": {"regex": "a"}}, "route": {"cluster": "c", "prefix_rewrite": "/x"}}),
            ),
            format!("{action}.prefix_rewrite"),
            "needs a match by prefix",
        ),
        (
            with_action(json!({"weighted_clusters": {"clusters": [{"name": "a", "weight": 0}]}})),
            format!("{action}.weighted_clusters.clusters"),
            "is zero",
        ),
        (
            with_action(json!({"cluster": "c", "hedge_policy": {}})),
            format!("{action}.hedge_policy"),
            "not supported yet",
        ),
        (
            with_action(
                json!({"cluster": "c", "retry_policy": {"retry_back_off": {"base_interval": "1s", "max_interval": "0.5s"}}}),
            ),
            format!("{action}.retry_policy.retry_back_off.max_interval"),
            "must not be less",
        ),
        (
            with_route(
                json!({"match": {"prefix": "/"}, "route": to("c"), "request_headers_to_add": [{"header": {"key": "a", "value": "%NOPE%"}}]}),
            ),
            "virtual_hosts[0].routes[0].request_headers_to_add.[0].header.value".into(),
            "unknown operator",
        ),
        (
            with_route(
                json!({"match": {"prefix": "/"}, "route": to("c"), "typed_per_filter_config": {"refused": {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}}}),
            ),
            "virtual_hosts[0].routes[0].typed_per_filter_config[refused].x".into(),
            "bad",
        ),
    ];
    let host = json!({"header": {"key": "Host", "value": "b"}});
    let host = with_route(json!({"match": {"prefix": "/"}, "route": to("c"), "request_headers_to_add": [host]}));
    let host =
        (host, "virtual_hosts[0].routes[0].request_headers_to_add.[0].header.key".to_owned(), "may not be modified");
    for (config, field, why) in cases.into_iter().chain([host]) {
        let refusal = try_table(&config).unwrap_err();
        assert_eq!(refusal.field, field);
        assert!(refusal.why.contains(why), "{refusal}");
    }
}

#[test]
fn a_choice_may_have_a_host_of_its_own() {
    let table = routes(&json!([{"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [
        {"name": "c", "weight": 1, "host_rewrite_literal": "own"}]}, "host_rewrite_literal": "route"}}]));
    let mut head = get("a", "/");
    let route = find(&table, &head, 0).unwrap();
    let choice: Choice<'_> = route.choose(&head, 0).unwrap();
    route.rewrite(&mut head, choice.weighted.and_then(|weighted| weighted.host_rewrite.as_deref()));
    assert_eq!(head.authority(), b"own");
}

// spec: VS-13, CA-34
#[test]
fn what_filters_have_left_chooses_among_routes() {
    let claim = |path: &[&str], value: &str, invert: bool| {
        let path: Vec<Value> = ["payload"].iter().chain(path).map(|key| json!({"key": key})).collect();
        let text = json!({"string_match": {"exact": value}});
        let either = json!({"or_match": {"value_matchers": [{"list_match": {"one_of": text}}, text]}});
        json!({"filter": "envoy.filters.http.jwt_authn", "path": path, "value": either, "invert": invert})
    };
    let route =
        |name: &str, claims: &[Value]| json!({"match": {"prefix": "/", "dynamic_metadata": claims}, "route": to(name)});
    let both = [claim(&["group"], "admin", false), claim(&["sub"], "banned", true)];
    let table = routes(&json!([
        route("admins", &both),
        route("nested", &[claim(&["a", "b"], "x", false)]),
        route("not-ann", &[claim(&["sub"], "ann", true)]),
        route("others", &[]),
    ]));
    assert!(table.reads_metadata() && !routes(&json!([route("others", &[])])).reads_metadata());
    let chosen = |payload: Option<Value>| {
        let left = payload
            .map(|payload| Metadata::from([("envoy.filters.http.jwt_authn".into(), json!({"payload": payload}))]));
        match table.lookup(&get("a", "/"), Asked { random: 0, metadata: left.as_ref() }) {
            Lookup::Found(id) => {
                let route = table.route(id).unwrap();
                (route.choose(&get("a", "/"), 0).unwrap().cluster.to_string(), route.by_metadata)
            }
            Lookup::NoRoute | Lookup::Ask(_) => panic!("a route for all"),
        }
    };
    let by_claims = |name: &str| (name.to_owned(), true);
    assert_eq!(chosen(Some(json!({"group": "admin"}))), by_claims("admins"));
    assert_eq!(chosen(Some(json!({"group": ["user", "admin"], "sub": "ann"}))), by_claims("admins"), "in a list");
    assert_eq!(chosen(Some(json!({"group": "admin", "sub": "banned"}))), by_claims("not-ann"), "all conditions hold");
    assert_eq!(chosen(Some(json!({"a": {"b": "x"}, "sub": "ann"}))), by_claims("nested"));
    assert_eq!(chosen(Some(json!({"sub": "ann"}))), ("others".to_owned(), false));
    assert_eq!(chosen(None), by_claims("not-ann"), "who has no token is not ann");
}
