//! Telemetry and the providers of MeshConfig: who is told of what.

use super::told::{World, manager, names};
use pilot::model::mesh::admit;
use pilot::model::{MeshConfig, mesh_config};
use pilot::source::memory;
use serde_json::{Value, json};

const PROVIDERS: &str = "extensionProviders:
- {name: als, envoyHttpAls: {service: default/ratings.default.svc.cluster.local, port: 9080, logName: shop, additionalRequestHeadersToLog: [x-user]}}
- {name: tcp, envoyTcpAls: {service: ratings.default.svc.cluster.local, port: 9080}}
- {name: otel-logs, envoyOtelAls: {service: ratings.default.svc.cluster.local, port: 9080, logFormat: {labels: {path: '%REQ(:PATH)%'}}}}
- {name: file, envoyFileAccessLog: {path: /dev/stderr, logFormat: {text: 'x %REQ(:PATH)%'}}}
- {name: zipkin, zipkin: {service: ratings.default.svc.cluster.local, port: 9080, maxTagLength: 99}}
- {name: otel, opentelemetry: {service: ratings.default.svc.cluster.local, port: 9080}}
- {name: otel-http, opentelemetry: {service: ratings.default.svc.cluster.local, port: 9080, http: {path: /v1/traces, timeout: 3s}}}
- {name: nowhere, zipkin: {service: nowhere.default.svc.cluster.local, port: 9411}}
";

fn telemetry(namespace: &str, name: &str, spec: &str) -> String {
    let indented: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{indented}"
    )
}

fn world(config: &str, objects: &[String]) -> World {
    World::with_mesh(&format!("{PROVIDERS}{config}"), &objects.concat())
}

/// The connection managers of `reviews` at the client and at the server.
fn both(world: &World) -> (Value, Value) {
    let listener = world.client().listener("0.0.0.0_9080");
    let server = world.server();
    let chains = server.inbound();
    let own = chains.iter().find(|chain| chain["filter_chain_match"]["destination_port"] == 9080);
    (manager(&listener["filter_chains"][0]), manager(own.unwrap()))
}

// spec: TL-1, TL-4, TL-6, OB-9
#[test]
fn access_logs_go_where_the_nearest_telemetry_says() {
    let plain = world("accessLogFile: /dev/stdout\n", &[]);
    assert_eq!(names(&both(&plain).0["access_log"]), ["envoy.access_loggers.file"]);
    let root = telemetry("istio-system", "mesh", "accessLogging:\n- providers: [{name: als}, {name: tcp}]");
    let own = telemetry(
        "default",
        "own",
        "accessLogging:\n- match: {mode: SERVER}\n  providers: [{name: otel-logs}]\n  filter: {expression: 'response.code >= 400'}",
    );
    let (client, server) = both(&world("accessLogFile: /dev/stdout\n", &[root.clone(), own.clone()]));
    let log = &client["access_log"][0];
    assert_eq!(
        (client["access_log"].as_array().unwrap().len(), &log["name"]),
        (1, &"envoy.access_loggers.http_grpc".into())
    );
    let config = &log["typed_config"];
    assert_eq!(config["common_config"]["log_name"], "shop");
    let target = &config["common_config"]["grpc_service"]["envoy_grpc"]["cluster_name"];
    assert_eq!(target, "outbound|9080||ratings.default.svc.cluster.local");
    assert_eq!(config["additional_request_headers_to_log"][0], "x-user");
    let log = &server["access_log"][0];
    assert_eq!(log["name"], "envoy.access_loggers.open_telemetry");
    assert_eq!(log["filter"]["extension_filter"]["typed_config"]["expression"], "response.code >= 400");
    assert_eq!(log["typed_config"]["attributes"]["values"][0]["value"]["string_value"], "%REQ(:PATH)%");
    let off = telemetry("default", "off", "selector: {matchLabels: {app: reviews}}\naccessLogging:\n- disabled: true");
    let (client, server) = both(&world("", &[root.clone(), own, off]));
    assert_eq!((names(&client["access_log"]).len(), server.get("access_log")), (1, None), "of this workload alone");
    let filter = telemetry("default", "own", "accessLogging:\n- filter: {expression: 'response.code >= 500'}");
    let (client, _) = both(&world("", &[root, filter]));
    assert_eq!(
        client["access_log"][0]["filter"]["extension_filter"]["typed_config"]["expression"],
        "response.code >= 500"
    );
    let file = telemetry("default", "own", "accessLogging:\n- providers: [{name: file}]");
    let config = both(&world("", &[file])).0["access_log"][0]["typed_config"].clone();
    assert_eq!(
        (&config["path"], &config["log_format"]["text_format_source"]["inline_string"]),
        (&"/dev/stderr".into(), &"x %REQ(:PATH)%".into())
    );
}

// spec: TL-4, TL-6
#[test]
fn connections_have_logs_of_their_own() {
    let root =
        telemetry("istio-system", "mesh", "accessLogging:\n- providers: [{name: als}, {name: tcp}, {name: envoy}]");
    let listener = world("", &[root]).client().listener("10.96.0.3_3306");
    let filters = listener["filter_chains"][0]["filters"].as_array().unwrap();
    let logs = names(&filters.last().unwrap()["typed_config"]["access_log"]);
    assert_eq!(logs, ["envoy.access_loggers.tcp_grpc", "envoy.access_loggers.file"]);
}

// spec: TL-1, TL-5, TL-6, OB-7
#[test]
fn traces_go_to_the_provider_with_the_tags_and_the_share_that_are_asked_for() {
    let (client, _) = both(&world("", &[]));
    assert_eq!(
        (client["tracing"].get("provider"), &client["tracing"]["random_sampling"]["value"]),
        (None, &1.0.into())
    );
    let (client, _) = both(&world("defaultProviders: {tracing: [zipkin]}\n", &[]));
    let zipkin = &client["tracing"]["provider"]["typed_config"];
    assert_eq!(
        (&zipkin["collector_cluster"], &zipkin["collector_endpoint"]),
        (&"outbound|9080||ratings.default.svc.cluster.local".into(), &"/api/v2/spans".into())
    );
    assert_eq!(
        (&zipkin["trace_id_128bit"], &zipkin["shared_span_context"], &client["tracing"]["max_path_tag_length"]),
        (&true.into(), &false.into(), &99.into())
    );
    let root = telemetry(
        "istio-system",
        "mesh",
        "tracing:\n- providers: [{name: otel}]\n  randomSamplingPercentage: 12.34\n  customTags: {a: {literal: {value: b}}}",
    );
    let own = telemetry(
        "default",
        "own",
        "tracing:\n- match: {mode: SERVER}\n  randomSamplingPercentage: 100\n  enableIstioTags: false\n  useRequestIdForTraceSampling: false\n  customTags: {user: {header: {name: x-user}}, env: {environment: {name: E}}, made: {formatter: {value: '%REQ(X)%'}}}",
    );
    let (client, server) = both(&world("", &[root.clone(), own]));
    assert_eq!(client["tracing"]["random_sampling"]["value"], 12.34);
    let otlp = &client["tracing"]["provider"]["typed_config"];
    assert_eq!((&otlp["service_name"], otlp.get("http_service")), (&"client.default".into(), None));
    let tags = |manager: &Value| -> Vec<String> {
        let tags = manager["tracing"]["custom_tags"].as_array().unwrap().iter();
        tags.map(|tag| tag["tag"].as_str().unwrap().to_owned())
            .filter(|tag| !tag.starts_with("istio.authorization"))
            .collect()
    };
    assert!(tags(&client).contains(&"istio.mesh_id".to_owned()) && tags(&client).contains(&"a".to_owned()));
    assert_eq!(tags(&server), ["env", "made", "user"]);
    assert_eq!(server["tracing"]["random_sampling"]["value"], 100.0);
    assert_eq!(server["request_id_extension"]["typed_config"]["use_request_id_for_trace_sampling"], false);
    let quiet = telemetry("default", "own", "tracing:\n- disableSpanReporting: true");
    assert_eq!(both(&world("", &[root, quiet])).0["tracing"].get("provider"), None);
    let http = telemetry("default", "own", "tracing:\n- providers: [{name: otel-http}]");
    let uri = both(&world("", &[http])).0["tracing"]["provider"]["typed_config"]["http_service"]["http_uri"].clone();
    assert_eq!(
        (&uri["uri"], &uri["timeout"]),
        (&"http://ratings.default.svc.cluster.local/v1/traces".into(), &"3s".into())
    );
    let nowhere = both(&world("defaultProviders: {tracing: [nowhere]}\n", &[])).0;
    assert_eq!(nowhere["tracing"].get("provider"), None, "an Envoy refuses a collector that is not there");
}

// spec: TL-1, TL-2
#[test]
fn metrics_are_on_where_their_provider_is_named() {
    let own = telemetry("default", "own", "metrics:\n- providers: [{name: prometheus}]");
    let has = |manager: &Value| names(&manager["http_filters"]).contains(&"istio.stats");
    assert!(!has(&both(&world("", &[])).0) && has(&both(&world("", &[own])).0));
}

// spec: TL-1, TL-2, XT-5
#[test]
fn changes_of_metrics_add_up_by_side() {
    let root = telemetry(
        "istio-system",
        "mesh",
        "metrics:\n- providers: [{name: prometheus}]\n  overrides:\n  - tagOverrides: {team: {value: \"'red'\"}}",
    );
    let own = telemetry(
        "default",
        "own",
        "metrics:\n- overrides:\n  - match: {metric: REQUEST_COUNT, mode: SERVER}\n    tagOverrides: {team: {operation: REMOVE}, host: {value: request.host}}\n  - match: {metric: REQUEST_SIZE, mode: CLIENT}\n    disabled: true",
    );
    let told = |manager: &Value| {
        let filters = manager["http_filters"].as_array().unwrap();
        let stats = filters.iter().find(|filter| filter["name"] == "istio.stats").unwrap();
        stats["typed_config"]["metrics"].as_array().unwrap().clone()
    };
    let (client, server) = both(&world("", &[root, own]));
    let of = |told: &[Value], name: &str| told.iter().find(|metric| metric["name"] == name).unwrap().clone();
    let (client, server) = (told(&client), told(&server));
    assert_eq!((client.len(), server.len()), (10, 10));
    assert!(of(&client, "request_bytes")["drop"] == true && of(&server, "request_bytes")["drop"].is_null());
    let requests = of(&server, "requests_total");
    assert_eq!(requests["tags_to_remove"], json!(["team"]));
    assert_eq!(requests["dimensions"], json!({"host": "request.host"}));
    assert_eq!(of(&client, "requests_total")["dimensions"], json!({"team": "'red'"}));

    let off =
        telemetry("default", "own", "metrics:\n- providers: [{name: prometheus}]\n  overrides: [{disabled: true}]");
    let (client, _) = both(&world("", &[off]));
    assert!(!names(&client["http_filters"]).contains(&"istio.stats"), "all of them are left out");
}

// spec: TL-5, TL-6, GEN-3
#[test]
fn what_is_wrong_with_a_telemetry_is_named_by_its_field() {
    let config = MeshConfig::new(mesh_config::parse(PROVIDERS).unwrap(), "cluster.local", "Kubernetes");
    let refused = |spec: &str| {
        let parsed = memory::parse(&telemetry("default", "t", spec), None);
        let fields = parsed.objects.iter().filter_map(|object| admit(object, &config).err()).flatten();
        let all: Vec<String> = fields.chain(parsed.problems).map(|problem| problem.field).collect();
        assert_eq!(all.len(), 1, "{spec}: {all:?}");
        all[0].clone()
    };
    assert_eq!(refused("tracing: [{providers: [{name: nobody}]}]"), "spec.tracing[0].providers[0].name");
    assert_eq!(refused("tracing: [{providers: [{name: otel}, {name: zipkin}]}]"), "spec.tracing[0].providers");
    assert_eq!(refused("tracing: [{randomSamplingPercentage: 101}]"), "spec.tracing[0].randomSamplingPercentage");
    assert_eq!(refused("tracing: [{customTags: {a: {}}}]"), "spec.tracing[0].customTags.a");
    assert_eq!(refused("accessLogging: [{filter: {expression: ''}}]"), "spec.accessLogging[0].filter.expression");
    let field = "spec.metrics[0].overrides[0]";
    let custom = "metrics: [{overrides: [{match: {customMetric: x}, disabled: true}]}]";
    assert_eq!(refused(custom), format!("{field}.match.customMetric"));
    assert_eq!(refused("metrics: [{overrides: [{tagOverrides: {a: {}}}]}]"), format!("{field}.tagOverrides.a.value"));
    assert_eq!(refused("accessLoging: []"), "spec.accessLoging");
}

// spec: MX-42, MX-96
#[test]
fn every_inbound_request_is_checked_where_the_mesh_says_so() {
    let filters = |config: &str| {
        let (client, server) = both(&World::with_mesh(config, ""));
        let of = |manager: &Value| names(&manager["http_filters"]).contains(&"envoy.filters.http.ext_authz");
        (of(&client), of(&server), server["http_filters"][1]["typed_config"].clone())
    };
    assert!(!filters("mixerCheckServer: mixer.istio-system:9091\n").1, "checks are off unless they are turned on");
    let on = "disablePolicyChecks: false\nmixerCheckServer: mixer.istio-system.svc.cluster.local:9091\n";
    let (client, server, config) = filters(on);
    assert_eq!((client, server), (false, true));
    let service = &config["grpc_service"];
    assert_eq!(service["envoy_grpc"]["cluster_name"], "outbound|9091||mixer.istio-system.svc.cluster.local");
    assert_eq!(
        (&service["timeout"], config.get("failure_mode_allow")),
        (&"1s".into(), None),
        "denied without an answer"
    );
    let open = filters(&format!("{on}policyCheckFailOpen: true\n")).2;
    assert_eq!(open["failure_mode_allow"], true);
    assert!(mesh_config::parse("disablePolicyChecks: false\n").unwrap_err().to_string().contains("mixerCheckServer"));
}

const MIXER: &str = "---
apiVersion: v1
kind: Service
metadata: {name: mixer, namespace: istio-system}
spec: {clusterIP: 10.96.0.9, ports: [{name: grpc-mixer, port: 9091}]}
";
const MIXER_CLUSTER: &str = "outbound|9091||mixer.istio-system.svc.cluster.local";

// spec: MX-95, MX-118, TL-4
#[test]
fn mixer_is_told_of_failed_requests_whatever_the_logs_are() {
    let config = "accessLogFile: /dev/stdout\nmixerReportServer: mixer.istio-system.svc.cluster.local:9091\n";
    let off = telemetry("istio-system", "mesh", "accessLogging:\n- disabled: true");
    let (client, server) = both(&world(config, &[MIXER.to_owned(), off]));
    for manager in [&client, &server] {
        assert_eq!(names(&manager["access_log"]), ["envoy.access_loggers.http_grpc"], "the user's is off");
        let log = &manager["access_log"][0];
        let filter = &log["filter"]["extension_filter"]["typed_config"]["expression"];
        assert_eq!(filter, "response.code >= 400 || response.code == 0");
        let common = &log["typed_config"]["common_config"];
        assert_eq!(
            (&common["log_name"], &common["filter_state_objects_to_log"][1]),
            (&"ferromesh".into(), &"downstream_peer".into())
        );
        assert_eq!(common["grpc_service"]["envoy_grpc"]["cluster_name"], MIXER_CLUSTER);
    }
    let (client, _) = both(&world(config, &[MIXER.to_owned()]));
    assert_eq!(names(&client["access_log"]), ["envoy.access_loggers.file", "envoy.access_loggers.http_grpc"]);
    let stock = world(config, &[MIXER.to_owned()]);
    let stock =
        stock.node("sidecar~10.0.0.9~client-1.default~default.svc.cluster.local", &["envoy.filters.http.router"]);
    let log = &manager(&stock.listener("0.0.0.0_9080")["filter_chains"][0])["access_log"][1];
    assert_eq!((&log["typed_config"]["common_config"]["log_name"], log.get("filter")), (&"requests".into(), None));
    let (client, _) = both(&world(config, &[]));
    assert_eq!(names(&client["access_log"]), ["envoy.access_loggers.file"], "without mixer nobody is told");
    let refused = mesh_config::parse("mixerReportServer: mixer.istio-system\n").unwrap_err().to_string();
    assert!(refused.starts_with("mixerReportServer: HOST:PORT is needed"), "{refused}");
}

// spec: SC-2, OB-9
#[test]
fn what_the_mesh_itself_calls_is_there_under_a_sidecar_that_leaves_it_out() {
    let nothing = super::told::object("Sidecar", "default", "egress: [{hosts: ['~/*']}]");
    let clusters = |config: &str| {
        let told = world(config, &[MIXER.to_owned(), nothing.clone()]).client();
        let outbound = told.names(pilot::translate::cache::ResourceType::Cluster).into_iter();
        let outbound: Vec<String> = outbound.filter(|name| name.starts_with("outbound")).collect();
        assert!(!told.has_listener("0.0.0.0_9091") && !told.has_listener("10.96.0.9_9091"));
        outbound
    };
    let providers = "outbound|9080||ratings.default.svc.cluster.local";
    assert_eq!(clusters(""), [providers]);
    for field in ["mixerReportServer", "mixerCheckServer"] {
        let config = format!("{field}: mixer.istio-system.svc.cluster.local:9091\n");
        let mut told = clusters(&config);
        told.sort();
        assert_eq!(told, [providers, MIXER_CLUSTER]);
    }
}

fn limit(spec: &str) -> String {
    let indented: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\napiVersion: policy.ferromesh.io/v1alpha1\nkind: RateLimit\nmetadata: {{name: api, namespace: default}}\nspec:\n{indented}"
    )
}

// spec: MX-104, MX-97
#[test]
fn a_rate_limit_is_a_bucket_in_the_proxy_or_descriptors_for_the_service_that_counts() {
    let server = "mixerCheckServer: mixer.istio-system.svc.cluster.local:9091\n";
    let spec = "selector: {matchLabels: {app: reviews}}
onFailure: DENY
rules:
- {name: flood, limit: {requests: 50, window: 10s}}
- name: per-user
  match: [{methods: [GET, HEAD], paths: [/api/*], headers: {x-tier: {exact: free}}}]
  per: [{header: x-user}, identity, path, address]
  limit: {requests: 5, unit: MINUTE}
  scope: SHARED
- {name: tokens, limit: {tokens: 100, unit: HOUR}, cost: {header: x-tokens}, scope: SHARED}";
    let (client, server) = both(&World::with_mesh(server, &limit(spec)));
    let filters = |manager: &Value, name: &str| -> Vec<Value> {
        let all = manager["http_filters"].as_array().unwrap().iter();
        all.filter(|filter| filter["name"] == name).map(|filter| filter["typed_config"].clone()).collect()
    };
    let limited = "envoy.filters.http.ratelimit";
    assert!(filters(&client, limited).is_empty(), "inbound requests of the selected workloads alone");
    let bucket = filters(&server, "envoy.filters.http.local_ratelimit")[0]["token_bucket"].clone();
    assert_eq!(bucket, serde_json::json!({"max_tokens": 50, "tokens_per_fill": 50, "fill_interval": "10s"}));
    let shared = &filters(&server, limited)[0];
    assert_eq!((&shared["domain"], &shared["failure_mode_deny"]), (&"default/api".into(), &true.into()));
    let service = &shared["rate_limit_service"]["grpc_service"]["envoy_grpc"]["cluster_name"];
    assert_eq!(service, "outbound|9091||mixer.istio-system.svc.cluster.local");
    let actions = &shared["rate_limits"][0]["actions"];
    let first = &actions[0]["header_value_match"];
    assert_eq!((&first["descriptor_key"], &first["descriptor_value"]), (&"rule".into(), &"per-user".into()));
    let paths = first["headers"].as_array().unwrap().iter().find(|header| header["name"] == ":path").unwrap();
    assert_eq!(paths["string_match"]["safe_regex"]["regex"], "(?:/api/.*)(?:\\?.*)?");
    assert_eq!(actions[1]["request_headers"]["descriptor_key"], "header/x-user");
    assert_eq!(actions[2]["extension"]["typed_config"]["text"], "connection.uri_san_peer_certificate");
    assert_eq!(actions[3]["extension"]["typed_config"]["descriptor_key"], "path");
    assert!(actions[4]["remote_address"].is_object());
    let tokens = &shared["rate_limits"][1];
    assert_eq!(
        (&tokens["hits_addend"]["format"], &tokens["actions"][0]["generic_key"]["descriptor_value"]),
        (&"%REQ(x-tokens)%".into(), &"tokens".into())
    );
}

// spec: MX-104
#[test]
fn a_local_limit_counts_apart_as_well() {
    let spec = "rules:
- {name: per-user, match: [{paths: [/api/*]}], per: [{header: x-user}], limit: {requests: 5, unit: MINUTE}, shadow: true}
- {name: tokens, limit: {tokens: 100, unit: HOUR}, cost: {constant: 3}}";
    let (_, server) = both(&World::with_mesh("", &limit(spec)));
    let all = server["http_filters"].as_array().unwrap().iter();
    let limits: Vec<&Value> = all.filter(|f| f["name"] == "envoy.filters.http.local_ratelimit").collect();
    let (user, tokens) = (&limits[0]["typed_config"], &limits[1]["typed_config"]);
    let entries = json!([{"key": "rule", "value": "per-user"}, {"key": "header/x-user"}]);
    assert_eq!(user["descriptors"][0]["entries"], entries);
    assert_eq!(user["descriptors"][0]["token_bucket"]["max_tokens"], 5);
    assert_eq!(user["rate_limits"][0]["actions"][1]["request_headers"]["descriptor_key"], "header/x-user");
    assert_eq!(user["token_bucket"]["max_tokens"], u32::MAX, "who fits no descriptor is not limited");
    assert_eq!(
        (&user["always_consume_default_token_bucket"], &user["max_dynamic_descriptors"]),
        (&json!(false), &json!(10_000))
    );
    assert_eq!(user["filter_enforced"]["default_value"]["numerator"].as_u64().unwrap_or(0), 0);
    assert_eq!(tokens["rate_limits"][0]["hits_addend"]["number"], "3");
    assert_eq!(tokens["descriptors"][0]["entries"], json!([{"key": "rule", "value": "tokens"}]));
}

// spec: MX-104, GEN-3
#[test]
fn what_is_wrong_with_a_rate_limit_is_named_by_its_field() {
    let refused = |spec: &str| {
        let parsed = memory::parse(&limit(spec), None);
        let fields = parsed.objects.iter().filter_map(|object| admit(object, &MeshConfig::default()).err()).flatten();
        let all: Vec<String> = fields.chain(parsed.problems).map(|problem| problem.field).collect();
        assert_eq!(all.len(), 1, "{spec}: {all:?}");
        all[0].clone()
    };
    assert_eq!(refused("rules: [{limit: {requests: 1, unit: SECOND}, scope: SHARED}]"), "spec.rules[0].scope");
    assert_eq!(refused("rules: [{limit: {requests: 1}}]"), "spec.rules[0].limit");
    let two = "rules: [{limit: {requests: 1, unit: SECOND}, match: [{paths: [/a]}, {paths: [/b]}]}]";
    assert_eq!(refused(two), "spec.rules[0].match");
    assert_eq!(refused("rulez: []"), "spec.rulez");
}

// spec: TL-3
#[test]
fn connections_are_told_of_as_often_as_is_said() {
    let root =
        telemetry("istio-system", "mesh", "metrics:\n- providers: [{name: prometheus}]\n  reportingInterval: 20s");
    let own = telemetry("default", "own", "metrics:\n- reportingInterval: 2s");
    let period = |objects: &[String]| {
        let listener = world("", objects).client().listener("10.96.0.3_3306");
        let filters = listener["filter_chains"][0]["filters"].as_array().unwrap().clone();
        let stats = filters.iter().find(|filter| filter["name"] == "istio.stats")?;
        stats["typed_config"].get("tcp_reporting_duration").cloned()
    };
    assert_eq!(period(&[]), None);
    assert_eq!(period(std::slice::from_ref(&root)), Some("20s".into()));
    assert_eq!(period(&[root, own]), Some("2s".into()), "the nearest counts");
    let often = telemetry("default", "own", "metrics:\n- reportingInterval: 10ms");
    let object = memory::parse(&often, None).objects.remove(0);
    let refused = admit(&object, &MeshConfig::default()).unwrap_err();
    assert!(refused[0].to_string().contains("at least 1s"), "{}", refused[0]);
}

// spec: LBL-7
#[test]
fn tags_are_added_replaced_and_removed_in_any_order() {
    let told = |tags: &[&str]| {
        let tags = tags.join(", ");
        let spec = format!(
            "metrics:\n- providers: [{{name: prometheus}}]\n  overrides: [{{match: {{metric: REQUEST_COUNT}}, tagOverrides: {{{tags}}}}}]"
        );
        let manager = both(&world("", &[telemetry("default", "own", &spec)])).1;
        let filters = manager["http_filters"].as_array().unwrap();
        let stats =
            filters.iter().find(|filter| filter["name"] == "istio.stats").unwrap()["typed_config"]["metrics"].clone();
        stats.as_array().unwrap().iter().find(|metric| metric["name"] == "requests_total").unwrap().clone()
    };
    let mut tags = [
        "team: {value: \"'red'\"}",
        "response_code: {operation: UPSERT, value: request.host}",
        "source_app: {operation: REMOVE}",
    ];
    let requests = told(&tags);
    assert_eq!(requests["dimensions"], json!({"response_code": "request.host", "team": "'red'"}));
    assert_eq!(requests["tags_to_remove"], json!(["source_app"]));
    tags.reverse();
    assert_eq!(told(&tags), requests);
}
