//! Spec 1.1, 1.2, 1.3: VirtualService.

use crate::told::{World, object, object_in, problems, refused, reviews_under, texts};
use serde_json::{Value, json};

const TO: &str = "route: [{destination: {host: reviews}}]";

fn one(rule: &str) -> Value {
    let routes = reviews_under(rule);
    assert_eq!(routes.len(), 1, "{routes:?}");
    routes[0].clone()
}

fn one_match(block: &str) -> Value {
    one(&format!("- match: [{block}]\n  {TO}"))["match"].clone()
}

// spec: VS-1, GEN-3
#[test]
fn hosts_may_be_short_full_or_wildcards() {
    for hosts in ["reviews", "reviews.default.svc.cluster.local", "'*.default.svc.cluster.local'", "'*'"] {
        let world =
            World::new(&object("VirtualService", "v", &format!("hosts: [{hosts}]\nhttp: [{{timeout: 3s, {TO}}}]")));
        assert_eq!(world.client().reviews()[0]["route"]["timeout"], "3s", "{hosts}");
    }
    assert_eq!(refused("VirtualService", &format!("hosts: ['a.*.b']\nhttp: [{{{TO}}}]")), "spec.hosts[0]");
}

// spec: VS-1, VS-21
#[test]
fn only_a_delegate_has_no_hosts() {
    let spec = "hosts: []\ntcp: [{route: [{destination: {host: a}}]}]";
    assert_eq!(refused("VirtualService", spec), "spec.hosts");
    assert!(problems(&object("VirtualService", "d", &format!("http: [{{{TO}}}]"))).is_empty());
}

// spec: VS-2
#[test]
fn without_the_gateway_mesh_sidecars_do_not_see_it() {
    let rule = |gateways: &str| {
        let spec = format!("hosts: [reviews]\n{gateways}http: [{{timeout: 3s, {TO}}}]");
        World::new(&object("VirtualService", "v", &spec)).client().reviews()[0]["route"]["timeout"].clone()
    };
    assert_eq!(rule(""), "3s");
    assert_eq!(rule("gateways: [mesh, other/gw]\n"), "3s");
    assert_eq!(rule("gateways: [gw]\n"), "0s");
}

// spec: VS-3, VS-6
#[test]
fn the_first_match_wins_and_nothing_follows_a_catch_all() {
    let routes = reviews_under(&format!(
        "- match: [{{uri: {{prefix: /a}}}}, {{uri: {{prefix: /b}}}}]\n  {TO}\n- {TO}\n- match: [{{uri: {{prefix: /c}}}}]\n  {TO}"
    ));
    let prefixes: Vec<_> = routes.iter().map(|route| route["match"]["prefix"].as_str().unwrap()).collect();
    assert_eq!(prefixes, ["/a", "/b", "/"]);
    let regex = reviews_under(&format!("- match: [{{uri: {{regex: '.*'}}}}]\n  {TO}\n- {TO}"));
    assert_eq!(regex.len(), 1);
    let narrowed =
        reviews_under(&format!("- match: [{{uri: {{prefix: /}}, headers: {{a: {{exact: b}}}}}}]\n  {TO}\n- {TO}"));
    assert_eq!(narrowed.len(), 2, "a header narrows it");
    let asked = reviews_under(&format!("- match: [{{queryParams: {{a: {{exact: b}}}}}}]\n  {TO}\n- {TO}"));
    assert_eq!(asked.len(), 2, "a query parameter narrows it");
}

// spec: VS-4, GEN-4
#[test]
fn export_to_hides_a_rule_from_other_namespaces() {
    let rule = |export: &str| {
        let spec = format!(
            "hosts: [reviews.default.svc.cluster.local]\nexportTo: ['{export}']\nhttp: [{{timeout: 3s, route: [{{destination: {{host: reviews.default.svc.cluster.local}}}}]}}]"
        );
        World::new(&object_in("other", "VirtualService", "v", &spec)).client().reviews()[0]["route"]["timeout"].clone()
    };
    assert_eq!((rule("*"), rule("default")), (json!("3s"), json!("3s")));
    assert_eq!((rule("."), rule("third")), (json!("0s"), json!("0s")));
}

// spec: VS-5
#[test]
fn names_are_joined() {
    assert_eq!(
        one(&format!("- name: rule\n  match: [{{name: block, uri: {{prefix: /a}}}}]\n  {TO}"))["name"],
        "rule.block"
    );
    assert_eq!(World::new("").client().reviews()[0]["name"], "default");
}

// spec: VS-7, VS-8
#[test]
fn paths_match_exactly_by_prefix_or_by_expression() {
    assert_eq!(one_match("{uri: {exact: /a}}"), json!({"path": "/a", "case_sensitive": true}));
    assert_eq!(one_match("{uri: {prefix: /a}}"), json!({"prefix": "/a", "case_sensitive": true}));
    assert_eq!(one_match("{uri: {regex: '/a+'}}"), json!({"safe_regex": {"regex": "/a+"}, "case_sensitive": true}));
    assert_eq!(one_match("{uri: {exact: /A}, ignoreUriCase: true}")["case_sensitive"], false);
    let spec = |form: &str| format!("hosts: [a]\nhttp: [{{match: [{{uri: {form}}}], {TO}}}]");
    assert_eq!(refused("VirtualService", &spec("{regex: '('}")), "spec.http[0].match[0].uri.regex");
    assert_eq!(refused("VirtualService", &spec("{exact: a, prefix: b}")), "spec.http[0].match[0].uri");
}

// spec: VS-7, VS-9
#[test]
fn scheme_method_and_authority_match_pseudo_headers() {
    let found =
        one_match("{scheme: {exact: https}, method: {regex: 'PUT|POST'}, authority: {prefix: a}}")["headers"].clone();
    assert_eq!(
        found,
        json!([
            {"name": ":method", "string_match": {"safe_regex": {"regex": "PUT|POST"}}},
            {"name": ":authority", "string_match": {"prefix": "a"}},
            {"name": ":scheme", "string_match": {"exact": "https"}}
        ])
    );
}

// spec: VS-10
#[test]
fn headers_match_values_or_presence() {
    let found = one_match("{headers: {a: {exact: '1'}, b: {}, c: {regex: '*'}, uri: {exact: x}}}")["headers"].clone();
    assert_eq!(
        found,
        json!([
            {"name": "a", "string_match": {"exact": "1"}},
            {"name": "b", "present_match": true},
            {"name": "c", "present_match": true}
        ])
    );
    let upper = format!("hosts: [a]\nhttp: [{{match: [{{headers: {{End-User: {{exact: x}}}}}}], {TO}}}]");
    assert_eq!(refused("VirtualService", &upper), "spec.http[0].match[0].headers.End-User");
}

// spec: VS-11
#[test]
fn without_headers_is_the_inverse_and_a_missing_header_satisfies_it() {
    let found = one_match("{withoutHeaders: {a: {exact: '1'}, b: {}}}")["headers"].clone();
    assert_eq!(
        found,
        json!([
            {"name": "a", "string_match": {"exact": "1"}, "invert_match": true, "treat_missing_header_as_empty": true},
            {"name": "b", "present_match": true, "invert_match": true}
        ])
    );
}

// spec: VS-12
#[test]
fn query_parameters_match_values_or_presence() {
    let found = one_match("{queryParams: {a: {exact: '1'}, b: {}, c: {prefix: x}}}")["query_parameters"].clone();
    assert_eq!(
        found,
        json!([
            {"name": "a", "string_match": {"exact": "1"}},
            {"name": "b", "present_match": true},
            {"name": "c", "string_match": {"prefix": "x"}}
        ])
    );
}

// spec: VS-14
#[test]
fn port_gateways_source_labels_and_namespace_are_decided_per_proxy() {
    let kept = |block: &str| {
        let routes = reviews_under(&format!("- match: [{block}]\n  {TO}"));
        routes.iter().filter(|route| route["name"] != "default").count()
    };
    assert_eq!((kept("{port: 9080}"), kept("{port: 81}")), (1, 0));
    assert_eq!((kept("{gateways: [mesh]}"), kept("{gateways: [gw]}")), (1, 0));
    assert_eq!((kept("{sourceLabels: {app: client}}"), kept("{sourceLabels: {app: other}}")), (1, 0));
    assert_eq!((kept("{sourceNamespace: default}"), kept("{sourceNamespace: other}")), (1, 0));
}

// spec: VS-15
#[test]
fn stat_prefix_is_passed_on() {
    assert_eq!(one(&format!("- match: [{{uri: {{prefix: /a}}, statPrefix: p}}]\n  {TO}"))["stat_prefix"], "p");
}

// spec: VS-16
#[test]
fn destinations_name_host_subset_and_port() {
    let cluster = |to: &str| one(&format!("- route: [{{destination: {to}}}]"))["route"]["cluster"].clone();
    assert_eq!(cluster("{host: ratings}"), "outbound|9080||ratings.default.svc.cluster.local");
    assert_eq!(cluster("{host: reviews, subset: v1}"), "outbound|9080|v1|reviews.default.svc.cluster.local");
    assert_eq!(
        cluster("{host: far.other.svc.cluster.local, port: {number: 8080}}"),
        "outbound|8080||far.other.svc.cluster.local"
    );
    assert_eq!(
        cluster("{host: nowhere}"),
        "outbound|9080||nowhere.default.svc.cluster.local",
        "no cluster has it: 503 NC"
    );
}

// spec: VS-17
#[test]
fn weights_are_relative_and_zero_is_dropped() {
    let to = |list: &str| one(&format!("- route:\n{list}"))["route"].clone();
    let split = to(
        "  - {destination: {host: reviews}, weight: 99}\n  - {destination: {host: ratings}, weight: 1}\n  - {destination: {host: plain}, weight: 0}",
    );
    let clusters = split["weighted_clusters"]["clusters"].as_array().unwrap();
    assert_eq!(clusters.iter().map(|c| c["weight"].as_u64().unwrap()).collect::<Vec<_>>(), [99, 1]);
    assert_eq!(to("  - {destination: {host: ratings}}")["cluster"], "outbound|9080||ratings.default.svc.cluster.local");
    let all = to("  - {destination: {host: reviews}, weight: 100}\n  - {destination: {host: ratings}, weight: 0}");
    assert_eq!(all["weighted_clusters"]["clusters"][0]["weight"], 100, "still weighted, as Istio has it");
    let zero = "hosts: [a]\nhttp: [{route: [{destination: {host: a}}, {destination: {host: b}}]}]";
    assert_eq!(refused("VirtualService", zero), "spec.http[0].route");
    let negative = "hosts: [a]\nhttp: [{route: [{destination: {host: a}, weight: -1}]}]";
    assert_eq!(refused("VirtualService", negative), "spec.http[0].route[0].weight");
}

// spec: VS-18, VS-23
#[test]
fn header_operations_set_add_and_remove_in_both_directions() {
    let route = one(
        "- headers:\n    request: {set: {x-a: '1', host: other.com}, add: {x-b: '2'}, remove: [x-c]}\n    response: {set: {x-d: '4'}, remove: [x-e]}\n  route:\n  - destination: {host: reviews}\n    headers: {request: {add: {x-f: '6'}}}",
    );
    assert_eq!(
        route["request_headers_to_add"],
        json!([
            {"header": {"key": "x-a", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            {"header": {"key": "x-b", "value": "2"}},
            {"header": {"key": "x-f", "value": "6"}}
        ])
    );
    assert_eq!(route["request_headers_to_remove"], json!(["x-c"]));
    assert_eq!(route["response_headers_to_add"][0]["header"]["key"], "x-d");
    assert_eq!(route["response_headers_to_remove"], json!(["x-e"]));
    assert_eq!(route["route"]["host_rewrite_literal"], "other.com");
    let both = one(
        "- rewrite: {authority: wins.com}\n  headers: {request: {set: {':authority': loses.com}}}\n  route: [{destination: {host: reviews}}]",
    );
    assert_eq!(both["route"]["host_rewrite_literal"], "wins.com");
    for name in ["':authority'", "Host"] {
        let alone = one(&format!(
            "- headers: {{request: {{set: {{{name}: set.com}}}}}}\n  route: [{{destination: {{host: reviews}}}}]"
        ));
        assert_eq!(alone["route"]["host_rewrite_literal"], "set.com", "{name}");
        assert_eq!(alone["request_headers_to_add"], Value::Null, "{name}");
    }
    let inner = one(
        "- headers: {request: {add: {Host: outer.com}, remove: [host, ':path', x-c]}}\n  route: [{destination: {host: reviews}, headers: {request: {set: {host: inner.com}}}}]",
    );
    assert_eq!(inner["route"]["host_rewrite_literal"], "outer.com", "of the route before that of its destination");
    assert_eq!(inner["request_headers_to_remove"], json!(["x-c"]), "no request is without these");
    let split = one(
        "- route:\n  - {destination: {host: reviews}, weight: 1, headers: {response: {add: {v: a}}}}\n  - {destination: {host: ratings}, weight: 1}",
    );
    assert_eq!(split["route"]["weighted_clusters"]["clusters"][0]["response_headers_to_add"][0]["header"]["key"], "v");
}

// spec: VS-19
#[test]
fn redirects_change_path_authority_scheme_port_and_code() {
    let redirect = |spec: &str| one(&format!("- redirect: {spec}"))["redirect"].clone();
    assert_eq!(
        redirect("{uri: /n, authority: a.com, scheme: https, port: 8443, redirectCode: 308}"),
        json!({"path_redirect": "/n", "host_redirect": "a.com", "scheme_redirect": "https", "port_redirect": 8443, "response_code": "PERMANENT_REDIRECT"})
    );
    assert_eq!(redirect("{prefixRewrite: /p}"), json!({"prefix_rewrite": "/p"}), "301 is the default");
    assert_eq!(redirect("{derivePort: FROM_REQUEST_PORT}"), json!({"port_redirect": 9080}));
    assert_eq!(redirect("{port: 80, uri: /n}"), json!({"path_redirect": "/n"}), "sidecars are asked by http");
    assert_eq!(
        redirect("{scheme: https, port: 443}"),
        json!({"scheme_redirect": "https"}),
        "the scheme's own port is left out"
    );
    for (code, name) in [(302, "FOUND"), (303, "SEE_OTHER"), (307, "TEMPORARY_REDIRECT")] {
        assert_eq!(redirect(&format!("{{redirectCode: {code}}}"))["response_code"], name);
    }
    assert_eq!(
        refused("VirtualService", "hosts: [a]\nhttp: [{redirect: {redirectCode: 300}}]"),
        "spec.http[0].redirect.redirectCode"
    );
    let both = format!("hosts: [a]\nhttp: [{{redirect: {{uri: /}}, {TO}}}]");
    assert_eq!(refused("VirtualService", &both), "spec.http[0]");
}

// spec: VS-20
#[test]
fn direct_responses_have_a_status_and_a_body() {
    let direct = |spec: &str| one(&format!("- directResponse: {spec}"))["direct_response"].clone();
    assert_eq!(direct("{status: 418, body: {string: tea}}"), json!({"status": 418, "body": {"inline_string": "tea"}}));
    assert_eq!(direct("{status: 200, body: {bytes: AQI=}}"), json!({"status": 200, "body": {"inline_bytes": "AQI="}}));
    assert_eq!(World::new("").client().routes("9080")["max_direct_response_body_size_bytes"], 1_048_576);
}

// spec: VS-22, VS-23, VS-24
#[test]
fn rewrites_change_path_and_authority() {
    let rewrite =
        |spec: &str| one(&format!("- match: [{{uri: {{prefix: /a}}}}]\n  rewrite: {spec}\n  {TO}"))["route"].clone();
    assert_eq!(rewrite("{uri: /b}")["prefix_rewrite"], "/b");
    assert_eq!(rewrite("{authority: x.com}")["host_rewrite_literal"], "x.com");
    let regex = rewrite("{uriRegexRewrite: {match: '^/r/(.*)', rewrite: '/i/\\1'}}");
    assert_eq!(regex["regex_rewrite"], json!({"pattern": {"regex": "^/r/(.*)"}, "substitution": "/i/\\1"}));
}

// spec: VS-25
#[test]
fn no_timeout_unless_one_is_set_and_grpc_timeout_is_capped_by_it() {
    let timeouts = |route: &Value| (route["route"]["timeout"].clone(), route["route"]["max_grpc_timeout"].clone());
    assert_eq!(timeouts(&one(&format!("- {TO}"))), (json!("0s"), json!("0s")));
    assert_eq!(timeouts(&one(&format!("- timeout: 500ms\n  {TO}"))), (json!("0.500s"), json!("0.500s")));
    assert_eq!(timeouts(&one(&format!("- timeout: 0s\n  {TO}"))), (json!("0s"), json!("0s")));
}

fn retries(spec: &str) -> Value {
    one(&format!("- retries: {spec}\n  {TO}"))["route"]["retry_policy"].clone()
}

// spec: VS-26, VS-27
#[test]
fn attempts_and_their_timeout() {
    let policy = retries("{attempts: 3, perTryTimeout: 2s}");
    assert_eq!((&policy["num_retries"], &policy["per_try_timeout"]), (&json!(3), &json!("2s")));
    assert_eq!(retries("{attempts: 1}")["per_try_timeout"], Value::Null);
    assert_eq!(retries("{attempts: 0}"), Value::Null);
    let negative = format!("hosts: [a]\nhttp: [{{retries: {{attempts: -1}}, {TO}}}]");
    assert_eq!(refused("VirtualService", &negative), "spec.http[0].retries.attempts");
}

// spec: VS-28
#[test]
fn retry_conditions_and_status_codes() {
    let policy = retries("{attempts: 1, retryOn: '5xx,503,reset, 429'}");
    assert_eq!(
        (&policy["retry_on"], &policy["retriable_status_codes"]),
        (&json!("5xx,reset,retriable-status-codes"), &json!([503, 429]))
    );
    let default = retries("{attempts: 1}");
    assert_eq!(default["retry_on"], "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes");
    assert_eq!(default["retriable_status_codes"], Value::Null, "a 503 of the application is not retried");
    let unknown = format!("hosts: [a]\nhttp: [{{retries: {{attempts: 1, retryOn: sometimes}}, {TO}}}]");
    assert_eq!(refused("VirtualService", &unknown), "spec.http[0].retries.retryOn");
}

// spec: VS-29, VS-30, VS-31
#[test]
fn retries_avoid_hosts_and_localities_and_back_off() {
    let policy = retries("{attempts: 1, retryRemoteLocalities: true, backoff: 50ms}");
    assert_eq!(policy["retry_host_predicate"][0]["name"], "envoy.retry_host_predicates.previous_hosts");
    assert_eq!(policy["host_selection_retry_max_attempts"], "5");
    assert_eq!(policy["retry_priority"]["typed_config"]["update_frequency"], 2);
    assert_eq!(policy["retry_back_off"], json!({"base_interval": "0.050s"}));
    assert_eq!(retries("{attempts: 1, retryIgnorePreviousHosts: false}")["retry_host_predicate"], Value::Null);
}

// spec: VS-32
#[test]
fn two_retries_by_default_and_the_mesh_may_say_otherwise() {
    assert_eq!(World::new("").client().reviews()[0]["route"]["retry_policy"]["num_retries"], 2);
    let world = World::with_mesh("defaultHttpRetryPolicy: {attempts: 7, retryOn: 5xx}\n", "");
    let policy = world.client().reviews()[0]["route"]["retry_policy"].clone();
    assert_eq!((&policy["num_retries"], &policy["retry_on"]), (&json!(7), &json!("5xx")));
}

// spec: VS-34, VS-35
#[test]
fn faults_delay_and_abort_a_share_of_requests() {
    let fault = |spec: &str| {
        one(&format!("- fault: {spec}\n  {TO}"))["typed_per_filter_config"]["envoy.filters.http.fault"].clone()
    };
    let both = fault(
        "{delay: {fixedDelay: 2s, percentage: {value: 10.5}}, abort: {httpStatus: 503, percentage: {value: 0.01}}}",
    );
    assert_eq!(
        both["delay"],
        json!({"fixed_delay": "2s", "percentage": {"numerator": 105_000, "denominator": "MILLION"}})
    );
    assert_eq!(both["abort"], json!({"http_status": 503, "percentage": {"numerator": 100, "denominator": "MILLION"}}));
    assert_eq!(fault("{abort: {grpcStatus: UNAVAILABLE, percentage: {value: 1}}}")["abort"]["grpc_status"], 14);
    let wrong = |spec: &str| refused("VirtualService", &format!("hosts: [a]\nhttp: [{{fault: {spec}, {TO}}}]"));
    assert_eq!(
        wrong("{abort: {grpcStatus: SOMETIMES, percentage: {value: 1}}}"),
        "spec.http[0].fault.abort.grpcStatus"
    );
    assert_eq!(wrong("{delay: {percentage: {value: 1}}}"), "spec.http[0].fault.delay.fixedDelay");
    assert_eq!(
        wrong("{delay: {fixedDelay: 1s, percentage: {value: 101}}}"),
        "spec.http[0].fault.delay.percentage.value"
    );
}

// spec: VS-36
#[test]
fn mirrors_take_a_share_without_changing_the_host() {
    let mirror = |spec: &str| one(&format!("- {spec}\n  {TO}"))["route"]["request_mirror_policies"].clone();
    let single = mirror("mirror: {host: ratings}\n  mirrorPercentage: {value: 25}");
    assert_eq!(single[0]["cluster"], "outbound|9080||ratings.default.svc.cluster.local");
    assert_eq!(single[0]["runtime_fraction"]["default_value"], json!({"numerator": 250_000, "denominator": "MILLION"}));
    assert_eq!(
        (&single[0]["disable_shadow_host_suffix_append"], &single[0]["trace_sampled"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(mirror("mirror: {host: ratings}")[0]["runtime_fraction"]["default_value"], json!({"numerator": 100}));
    assert_eq!(mirror("mirror: {host: ratings}\n  mirrorPercentage: {value: 0}"), Value::Null);
    let many =
        mirror("mirrors: [{destination: {host: ratings}, percentage: {value: 1}}, {destination: {host: plain}}]");
    assert_eq!(many.as_array().unwrap().len(), 2);
}

// spec: VS-37
#[test]
fn cors_rules_are_configuration_of_the_route() {
    let cors = |spec: &str| {
        one(&format!("- corsPolicy: {spec}\n  {TO}"))["typed_per_filter_config"]["envoy.filters.http.cors"].clone()
    };
    let policy = cors(
        "{allowOrigins: [{exact: 'https://a'}, {regex: '.*b'}], allowMethods: [GET, POST], allowHeaders: [x], exposeHeaders: [y], maxAge: 1h, allowCredentials: true}",
    );
    assert_eq!(policy["allow_origin_string_match"], json!([{"exact": "https://a"}, {"safe_regex": {"regex": ".*b"}}]));
    assert_eq!(
        (&policy["allow_methods"], &policy["allow_headers"], &policy["expose_headers"], &policy["max_age"]),
        (&json!("GET,POST"), &json!("x"), &json!("y"), &json!("3600"))
    );
    assert_eq!(
        (&policy["allow_credentials"], &policy["forward_not_matching_preflights"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        cors("{allowOrigins: [{exact: a}], unmatchedPreflights: IGNORE}")["forward_not_matching_preflights"],
        false
    );
    assert_eq!(cors("{allowOrigin: [old]}")["allow_origin_string_match"], json!([{"exact": "old"}]));
}

// spec: VS-38, VS-39
#[test]
fn tls_rules_choose_by_sni() {
    let entry = object(
        "ServiceEntry",
        "e",
        "hosts: [a.com, b.com]\nresolution: DNS\nports: [{number: 443, name: tls, protocol: TLS}]",
    );
    let rule = object(
        "VirtualService",
        "v",
        "hosts: [a.com]\ntls:\n- match: [{port: 443, sniHosts: [a.com]}]\n  route:\n  - {destination: {host: b.com}, weight: 20}\n  - {destination: {host: a.com}, weight: 80}",
    );
    let listener = World::new(&format!("{entry}{rule}")).client().listener("0.0.0.0_443");
    let chain = listener["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["filter_chain_match"]["server_names"] == json!(["a.com"]))
        .unwrap();
    let clusters = chain["filters"][0]["typed_config"]["weighted_clusters"]["clusters"].clone();
    assert_eq!(
        clusters,
        json!([{"name": "outbound|443||b.com", "weight": 20}, {"name": "outbound|443||a.com", "weight": 80}])
    );
    assert_eq!(listener["listener_filters"][0]["name"], "envoy.filters.listener.tls_inspector");
    assert_eq!(listener["default_filter_chain"]["filters"][0]["typed_config"]["cluster"], "PassthroughCluster");
    let uncovered = "hosts: [a.com]\ntls: [{match: [{sniHosts: [c.com]}], route: [{destination: {host: a.com}}]}]";
    assert_eq!(refused("VirtualService", uncovered), "spec.tls[0].match[0].sniHosts[0]");
}

// spec: VS-40
#[test]
fn tcp_rules_split_connections() {
    let rule = |spec: &str| {
        let world = World::new(&object("VirtualService", "m", &format!("hosts: [mysql]\ntcp:\n{spec}")));
        world.client().listener("10.96.0.3_3306")["filter_chains"].clone()
    };
    let split = rule(
        "- match: [{port: 3306, sourceLabels: {app: client}}]\n  route: [{destination: {host: mysql, subset: a}, weight: 70}, {destination: {host: mysql, subset: b}, weight: 30}]",
    );
    let proxy = &split[0]["filters"][0]["typed_config"];
    assert_eq!(proxy["weighted_clusters"]["clusters"][0]["name"], "outbound|3306|a|mysql.default.svc.cluster.local");
    assert_eq!(proxy["stat_prefix"], "m.default");
    let other = rule("- match: [{port: 1}]\n  route: [{destination: {host: ratings}}]");
    assert_eq!(other[0]["filters"][0]["typed_config"]["cluster"], "outbound|3306||mysql.default.svc.cluster.local");
    let subnet = rule(
        "- match: [{destinationSubnets: [10.96.0.0/16]}]\n  route: [{destination: {host: ratings, port: {number: 9080}}}]",
    );
    assert_eq!(
        subnet[0]["filter_chain_match"]["prefix_ranges"],
        json!([{"address_prefix": "10.96.0.0", "prefix_len": 16}])
    );
}

// spec: VSM-1, GEN-2
#[test]
fn of_two_rules_for_one_host_the_oldest_alone_is_used() {
    let rule = |name: &str, time: &str, timeout: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, creationTimestamp: '{time}'}}\nspec: {{hosts: [reviews], http: [{{timeout: {timeout}, {TO}}}]}}\n"
        )
    };
    let timeout = |yaml: String| World::new(&yaml).client().reviews()[0]["route"]["timeout"].clone();
    assert_eq!(timeout(rule("a", "2021-01-01T00:00:00Z", "1s") + &rule("b", "2020-01-01T00:00:00Z", "2s")), "2s");
    assert_eq!(
        timeout(rule("b", "2020-01-01T00:00:00Z", "1s") + &rule("a", "2020-01-01T00:00:00Z", "2s")),
        "2s",
        "then by name"
    );
    let wild = |name: &str, time: &str, timeout: &str| rule(name, time, timeout).replace("[reviews]", "['*.local']");
    assert_eq!(
        timeout(wild("a", "2021-01-01T00:00:00Z", "1s") + &wild("b", "2020-01-01T00:00:00Z", "2s")),
        "2s",
        "of equal wildcards too"
    );
}

// spec: VSM-3
#[test]
fn a_private_rule_of_the_own_namespace_comes_before_a_public_one() {
    let private =
        object("VirtualService", "z", &format!("hosts: [reviews]\nexportTo: ['.']\nhttp: [{{timeout: 1s, {TO}}}]"));
    let public = object("VirtualService", "a", &format!("hosts: [reviews]\nhttp: [{{timeout: 2s, {TO}}}]"));
    assert_eq!(World::new(&format!("{public}{private}")).client().reviews()[0]["route"]["timeout"], "1s");
}

// spec: VSM-4
#[test]
fn an_exact_rule_wins_for_its_service_and_the_wildcard_takes_the_rest() {
    let wild = object(
        "VirtualService",
        "a",
        &format!("hosts: ['*.default.svc.cluster.local']\nhttp: [{{timeout: 1s, {TO}}}]"),
    );
    let exact = object("VirtualService", "b", &format!("hosts: [reviews]\nhttp: [{{timeout: 2s, {TO}}}]"));
    let told = World::new(&format!("{wild}{exact}")).client();
    assert_eq!(told.reviews()[0]["route"]["timeout"], "2s");
    assert_eq!(told.host("9080", "ratings.default.svc.cluster.local:9080")["routes"][0]["route"]["timeout"], "1s");
}

// spec: VSM-5
#[test]
fn a_rule_for_an_unknown_host_takes_effect_on_port_80_alone() {
    let told =
        World::new(&object("VirtualService", "v", &format!("hosts: [shop.example.com]\nhttp: [{{{TO}}}]"))).client();
    let host = told.host("80", "shop.example.com:80");
    assert_eq!(texts(&host["domains"]), ["shop.example.com"]);
    let others = told.routes("9080").to_string();
    assert!(!others.contains("shop.example.com"));
    let both =
        World::new(&object("VirtualService", "v", &format!("hosts: [shop.example.com, reviews]\nhttp: [{{{TO}}}]")));
    let host = both.client().host("9080", "shop.example.com:9080");
    assert_eq!(texts(&host["domains"]), ["shop.example.com"], "where another host of the rule has a service");
}

// spec: VSM-7
#[test]
fn a_short_name_yields_to_a_service_of_that_name() {
    let entry = "hosts: [reviews]\nresolution: STATIC\nports: [{number: 9080, name: http, protocol: HTTP}]\nendpoints: [{address: 1.1.1.1}]";
    let told = World::new(&object("ServiceEntry", "e", entry)).client();
    let domains = |name: &str| texts(&told.host("9080", name)["domains"]).contains(&"reviews");
    assert!(domains("reviews:9080") && !domains("reviews.default.svc.cluster.local:9080"));
}

// spec: VSM-6
#[test]
fn a_service_without_a_rule_has_a_default_route() {
    let route = World::new("").client().reviews()[0].clone();
    assert_eq!(
        (&route["route"]["cluster"], &route["route"]["timeout"]),
        (&json!("outbound|9080||reviews.default.svc.cluster.local"), &json!("0s"))
    );
    assert_eq!(route["match"], json!({"prefix": "/"}));
}

// spec: VSM-7, NM-9
#[test]
fn domains_are_every_name_under_which_a_client_may_ask() {
    let alias = "---\napiVersion: v1\nkind: Service\nmetadata: {name: alias}\nspec: {type: ExternalName, externalName: reviews.default.svc.cluster.local}\n";
    let told = World::new(alias).client();
    let host = told.host("9080", "reviews.default.svc.cluster.local:9080");
    let domains = texts(&host["domains"]);
    for name in [
        "reviews.default.svc.cluster.local",
        "reviews.default.svc.cluster.local.",
        "reviews",
        "reviews.default",
        "reviews.default.svc",
        "10.96.0.1",
        "alias",
        "alias.default.svc.cluster.local",
    ] {
        assert!(domains.contains(&name), "{name} in {domains:?}");
    }
    let other = told.host("8080", "far.other.svc.cluster.local:8080");
    let domains = texts(&other["domains"]);
    assert!(domains.contains(&"far.other") && !domains.contains(&"far"), "{domains:?}");
    assert_eq!(told.routes("9080")["ignore_port_in_host_matching"], true);
    let six = "---\napiVersion: v1\nkind: Service\nmetadata: {name: six}\nspec: {clusterIP: 'fd00::6', ports: [{name: http, port: 9080}]}\n";
    let host = World::new(six).client().host("9080", "six.default.svc.cluster.local:9080");
    assert!(texts(&host["domains"]).contains(&"[fd00::6]"), "{host}");
}

// spec: VSM-7, PI-17
#[test]
fn headless_services_answer_for_names_below_them() {
    let headless = "---\napiVersion: v1\nkind: Service\nmetadata: {name: hl}\nspec: {clusterIP: None, ports: [{name: http, port: 9200}]}\n";
    let host = World::new(headless).client().host("9200", "hl.default.svc.cluster.local:9200");
    assert!(texts(&host["domains"]).contains(&"*.hl.default.svc.cluster.local"));
}

fn delegated(root: &str, child: &str) -> Vec<Value> {
    let root = object("VirtualService", "root", &format!("hosts: [reviews]\nhttp:\n{root}"));
    let child = object_in("other", "VirtualService", "child", &format!("http:\n{child}"));
    World::new(&format!("{root}{child}")).client().reviews()
}

const FULL: &str = "route: [{destination: {host: reviews.default.svc.cluster.local}}]";

// spec: DEL-1, DEL-2, VS-21
#[test]
fn a_delegates_matches_narrow_the_roots() {
    let root =
        "- match: [{uri: {prefix: /d}, headers: {a: {exact: '1'}}}]\n  delegate: {name: child, namespace: other}";
    let routes = delegated(
        root,
        &format!(
            "- match: [{{uri: {{prefix: /d/x}}, headers: {{b: {{exact: '2'}}}}}}, {{uri: {{prefix: /other}}}}]\n  {FULL}\n- match: [{{uri: {{regex: '/d/.*'}}}}]\n  {FULL}\n- {FULL}"
        ),
    );
    let prefixes: Vec<_> = routes.iter().map(|route| route["match"]["prefix"].as_str().unwrap()).collect();
    assert_eq!(prefixes, ["/d/x", "/d"], "what contradicts is dropped");
    assert_eq!(routes[0]["match"]["headers"].as_array().unwrap().len(), 2);
}

// spec: DEL-3
#[test]
fn a_delegates_fields_win_and_names_are_joined() {
    let root =
        "- name: r\n  timeout: 7s\n  headers: {request: {set: {x: '1'}}}\n  delegate: {name: child, namespace: other}";
    let routes = delegated(root, &format!("- name: c\n  retries: {{attempts: 4}}\n  {FULL}"));
    assert_eq!(routes[0]["name"], "r-c");
    assert_eq!(
        (&routes[0]["route"]["timeout"], &routes[0]["route"]["retry_policy"]["num_retries"]),
        (&json!("7s"), &json!(4))
    );
    assert_eq!(routes[0]["request_headers_to_add"][0]["header"]["key"], "x");
    let own =
        delegated("- timeout: 7s\n  delegate: {name: child, namespace: other}", &format!("- timeout: 1s\n  {FULL}"));
    assert_eq!(own[0]["route"]["timeout"], "1s");
}
