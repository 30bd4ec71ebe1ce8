use super::*;
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

/// Flags of a command line without the program's name.
pub(super) fn flags(arguments: &[&str]) -> Flags {
    let line = std::iter::once("proxy").chain(arguments.iter().copied());
    Cli::try_parse_from(line).unwrap().flags
}

fn check(yaml: &str, arguments: &[&str]) -> Result<Bootstrap, BootstrapError> {
    let mut bytes = Vec::new();
    convert(
        &JsonArgs { direction: Direction::Encode, type_name: BOOTSTRAP.to_owned(), mask: None },
        yaml.as_bytes(),
        &mut bytes,
    )
    .unwrap();
    Bootstrap::check(Written::decode(bytes.as_slice()).unwrap(), flags(arguments), Environment::default())
}

#[test]
fn admin_address_concurrency_and_runtime_are_read() {
    let loaded = check(
        "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n\
         layered_runtime: {layers: [{name: a, static_layer: {x: {y: 5}, z: true}}, {name: b, static_layer: {x.y: 7}}]}\n",
        &["--concurrency", "3", "--drain-time-s", "9"],
    )
    .unwrap();
    assert_eq!(loaded.admin, Some(AdminAddress::Tcp("127.0.0.1:0".parse().unwrap())));
    assert_eq!(loaded.concurrency.get(), 3);
    assert_eq!(loaded.drain_time, Duration::from_secs(9));
    assert_eq!(loaded.runtime, BTreeMap::from([("x.y".to_owned(), 7.0), ("z".to_owned(), 1.0)]));
    let pipe = check("admin: {address: {pipe: {path: /run/admin.sock}}}", &["--concurrency", "0"]).unwrap();
    assert_eq!(pipe.admin, Some(AdminAddress::Unix("/run/admin.sock".into(), 0o600)));
    assert!(pipe.concurrency.get() >= 1);
}

#[test]
fn what_would_be_ignored_is_refused_by_name() {
    let cases = [
        ("overload_manager: {refresh_interval: 1s}", "not supported yet: overload_manager"),
        ("hds_config: {}", "not supported yet: hds_config"),
        (
            "layered_runtime: {layers: [{name: a, disk_layer: {}}]}",
            "not supported yet: layered_runtime.layers[0].disk_layer",
        ),
        ("admin: {address: {socket_address: {address: localhost, port_value: 1}}}", "no IP address"),
        (
            "admin: {address: {socket_address: {address: '::1', port_value: 70000}}}",
            "admin.address.socket_address.port_value",
        ),
        ("dynamic_resources: {ads_config: {api_type: DELTA_GRPC}}", "node.id"),
    ];
    for (yaml, expected) in cases {
        let error = check(yaml, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
}

#[test]
fn a_missing_file_and_no_file_say_so() {
    let converter = Converter::new("/nonexistent/proxy".into());
    let load = |arguments: &[&str]| Bootstrap::load(flags(arguments), Environment::default(), &converter).unwrap_err();
    assert!(load(&[]).to_string().contains("-c FILE"));
    assert!(load(&["-c", "/nonexistent/b.yaml"]).to_string().starts_with("/nonexistent/b.yaml: No such file"));
}

// spec: NI-4
#[test]
fn the_bootstrap_that_istio_writes_for_envoy_is_taken() {
    let yaml = r#"
application_log_config: {log_format: {text_format: "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t"}}
node:
  id: sidecar~10.20.0.1~productpage-v1-0.default~default.svc.cluster.local
  cluster: productpage.default
  locality: {region: region1, zone: zone1}
  metadata: {LABELS: {app: productpage}, PROXY_CONFIG: {concurrency: 2, drainDuration: 45s}}
layered_runtime:
  layers:
  - {name: global config, static_layer: {envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst: "true", re2.max_program_size.error_level: "32768"}}
  - {name: admin, admin_layer: {}}
bootstrap_extensions:
- name: envoy.bootstrap.internal_listener
  typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener, value: {buffer_size_kb: 64}}
stats_config:
  use_all_default_tags: false
  stats_tags: [{tag_name: cluster_name, regex: "^cluster\\.((.+?(\\..+?\\.svc\\.cluster\\.local)?)\\.)"}]
  stats_matcher: {inclusion_list: {patterns: [{prefix: reporter=}, {prefix: cluster_manager}]}}
admin:
  access_log: [{name: envoy.access_loggers.file, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/null}}]
  profile_path: /var/lib/istio/data/envoy.prof
  address: {socket_address: {address: 127.0.0.1, port_value: 15000}}
dynamic_resources:
  lds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  cds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  ads_config:
    api_type: DELTA_GRPC
    set_node_on_first_message_only: true
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]
static_resources:
  clusters:
  - name: xds-grpc
    type: STATIC
    connect_timeout: 1s
    lb_policy: ROUND_ROBIN
    load_assignment: {cluster_name: xds-grpc, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: ./etc/istio/proxy/XDS}}}}]}]}
    circuit_breakers: {thresholds: [{priority: DEFAULT, max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}
    upstream_connection_options: {tcp_keepalive: {keepalive_time: 300}}
    max_requests_per_connection: 1
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
"#;
    let loaded = check(yaml, &[]).unwrap();
    assert_eq!(loaded.admin, Some(AdminAddress::Tcp("127.0.0.1:15000".parse().unwrap())));
    assert_eq!(loaded.runtime.get("re2.max_program_size.error_level"), Some(&32768.0));
    assert_eq!(
        support::without_effect(&loaded.written),
        ["application_log_config", "bootstrap_extensions", "stats_config.use_all_default_tags"]
    );
    assert!(loaded.lds_config().is_some() && loaded.cds_config().is_some());
    let logged = "admin: {access_log: [{name: f, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /tmp/x}}]}";
    assert!(check(logged, &[]).unwrap_err().to_string().contains("not supported yet: admin.access_log"));
}
