use super::super::names::{CLUSTER, ClusterMetric, ClusterState, IstioHttpMetric, ServerMetric};
use super::*;

// spec: ST-6, AD-4
#[test]
fn names_and_labels_are_envoys() {
    let mut registry = Registry::new();
    let (one, two) = (registry.registrar(10), registry.registrar(10));
    let cells = [one.named::<ClusterMetric>("outbound|80||a\"b"), two.named::<ClusterMetric>("outbound|80||a\"b")];
    cells[0].increment(ClusterMetric::UpstreamRq2xx);
    cells[1].add(ClusterMetric::UpstreamRq2xx, 2);
    let gauges = [one.named::<ClusterState>("outbound|80||a\"b"), two.named::<ClusterState>("outbound|80||a\"b")];
    gauges[0].add(ClusterState::UpstreamRqActive, 1);
    gauges[1].subtract(ClusterState::UpstreamRqActive, 2);
    cells[0].record(ClusterMetric::UpstreamRqTime, 7);
    let server = one.cells::<ServerMetric>(Labels::default());
    server.set(ServerMetric::Live, 1);
    let used = Selection { used_only: true, ..Selection::default() };
    let snapshot = registry.collect();
    let text = snapshot.prometheus(&used);
    let label = r#"envoy_cluster_name="outbound|80||a\"b""#;
    assert!(text.contains("# TYPE envoy_cluster_upstream_rq_xx counter\n"), "{text}");
    assert!(
        text.contains(&format!("envoy_cluster_upstream_rq_xx{{envoy_response_code_class=\"2\",{label}}} 3\n")),
        "{text}"
    );
    assert!(text.contains(&format!("envoy_cluster_upstream_rq_active{{{label}}} -1\n")), "{text}");
    assert!(text.contains(&format!("envoy_cluster_upstream_rq_time_bucket{{{label},le=\"5\"}} 0\n")), "{text}");
    assert!(text.contains(&format!("envoy_cluster_upstream_rq_time_bucket{{{label},le=\"10\"}} 1\n")), "{text}");
    assert!(text.contains(&format!("envoy_cluster_upstream_rq_time_sum{{{label}}} 7\n")), "{text}");
    assert!(text.contains("# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n"), "{text}");
    assert!(!text.contains("HELP") && !text.contains("upstream_rq_timeout"), "{text}");
    assert_eq!(text.matches("# TYPE envoy_cluster_upstream_rq_xx ").count(), 1);
    let all = snapshot.prometheus(&Selection::default());
    assert_eq!(
        prometheus_name(&CLUSTER, &Metric { name: "consecutive_5xx", ..CLUSTER.metrics[0] }).0,
        "envoy_cluster_consecutive_5xx"
    );
    let listener = one.named::<super::super::names::ListenerMetric>("127.0.0.1:80");
    listener.increment(super::super::names::ListenerMetric::DownstreamCxTotal);
    let shown = registry.collect().prometheus(&used);
    assert!(
        shown.contains("envoy_listener_downstream_cx_total{envoy_listener_address=\"127.0.0.1_80\"} 1\n"),
        "{shown}"
    );
    assert!(all.contains(&format!("envoy_cluster_circuit_breakers_default_cx_open{{{label}}} 0\n")), "{all}");
    let plain = snapshot.text(&Selection { filter: Some(Regex::new("upstream_rq_(2xx|time)$").unwrap()), ..used });
    assert!(plain.starts_with("cluster.outbound|80||a\"b.upstream_rq_2xx: 3\ncluster."), "{plain}");
    assert!(plain.contains("P50(nan,7.5)"), "{plain}");
    assert_eq!(snapshot.value("server.live"), Some(1));
}

// spec: TM-2
#[test]
fn buckets_are_istios() {
    let mut registry = Registry::new();
    let cells = registry.registrar(1).try_cells::<IstioHttpMetric>([("reporter", "source".into())].into()).unwrap();
    cells.record(IstioHttpMetric::RequestDurationMs, 3_600_001);
    cells.record(IstioHttpMetric::RequestDurationMs, 1);
    let text = registry.collect().prometheus(&Selection::default());
    let bounds: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("istio_request_duration_milliseconds_bucket{reporter=\"source\",le=\""))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let expected = "0.5 1 5 10 25 50 100 250 500 1000 2500 5000 10000 30000 60000 300000 600000 1800000 3600000 +Inf";
    assert_eq!(bounds.join(" "), expected);
    assert!(
        text.contains("le=\"0.5\"} 0\n") && text.contains("le=\"1\"} 1\n") && text.contains("le=\"+Inf\"} 2\n"),
        "{text}"
    );
    assert!(text.contains("istio_request_duration_milliseconds_count{reporter=\"source\"} 2\n"));
}

// spec: OB-1
#[test]
fn the_version_that_runs_is_shown() {
    let snapshot = Registry::new().collect();
    let build = concat!("istio_build{component=\"proxy\",tag=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n");
    assert_eq!(snapshot.prometheus(&Selection::default()), format!("# TYPE istio_build gauge\n{build}"));
    let others = Selection { filter: Some(Regex::new("envoy").unwrap()), ..Selection::default() };
    assert_eq!(snapshot.prometheus(&others), "");
}

#[test]
fn a_scope_that_is_gone_is_shown_once_more_and_the_number_of_scopes_is_bounded() {
    let mut registry = Registry::new();
    let registrar = registry.registrar(1);
    let cells = registrar.try_cells::<IstioHttpMetric>(Labels::default()).unwrap();
    assert!(registrar.try_cells::<IstioHttpMetric>(Labels::default()).is_none());
    cells.increment(IstioHttpMetric::RequestsTotal);
    assert_eq!(registry.collect().value("istio_requests_total"), Some(1));
    drop(cells);
    assert_eq!(registry.collect().value("istio_requests_total"), Some(1));
    assert_eq!(registry.collect().value("istio_requests_total"), None);
    registrar.give_back();
    assert!(registrar.try_cells::<IstioHttpMetric>(Labels::default()).is_some());
}

#[test]
fn json_and_kinds() {
    let mut registry = Registry::new();
    let cells = registry.registrar(1).named::<ClusterMetric>("a");
    cells.add(ClusterMetric::UpstreamRqTotal, 4);
    let snapshot = registry.collect();
    let counters = Selection { kind: Some(MetricKind::Counter), used_only: true, ..Selection::default() };
    let json = snapshot.json(&counters);
    assert_eq!(json["stats"][0], serde_json::json!({"name": "cluster.a.upstream_rq_total", "value": 4}));
    assert!(!snapshot.text(&counters).contains("membership"));
}

// spec: ST-6
#[test]
fn what_istio_does_not_keep_is_neither_counted_nor_shown() {
    use prost::Message;
    let json = serde_json::json!({
            "stats_tags": [{"tag_name": "cluster_name", "regex": "^cluster\\.((.+?(\\..+?\\.svc\\.cluster\\.local)?)\\.)"}],
            "stats_matcher": {"inclusion_list": {"patterns": [
                {"prefix": "reporter="}, {"prefix": "server"}, {"prefix": "cluster.xds-grpc"}, {"suffix": "rbac.denied"}]}}});
    let parse = |json: &serde_json::Value| {
        let bytes = proto::json::from_value("envoy.config.metrics.v3.StatsConfig", json).unwrap();
        StatsConfig::parse(&proto::envoy::metrics::StatsConfig::decode(bytes.as_slice()).unwrap())
    };
    let mut registry = Registry::with(parse(&json).unwrap());
    let registrar = registry.registrar(10);
    let kept = registrar.named::<ClusterMetric>("xds-grpc");
    let dropped = registrar.named::<ClusterMetric>("outbound|80||a");
    let http = registrar.named::<super::super::names::HttpMetric>("in");
    let istio = registrar.try_cells::<IstioHttpMetric>(Labels::default()).unwrap();
    kept.increment(ClusterMetric::UpstreamRqTotal);
    dropped.increment(ClusterMetric::UpstreamRqTotal);
    http.increment(super::super::names::HttpMetric::RbacDenied);
    http.increment(super::super::names::HttpMetric::RqTotal);
    istio.increment(IstioHttpMetric::RequestsTotal);
    let used = Selection { used_only: true, ..Selection::default() };
    let snapshot = registry.collect();
    let shown = snapshot.prometheus(&used);
    let lines: Vec<&str> = shown.lines().filter(|line| !line.starts_with('#')).collect();
    let build = concat!("istio_build{component=\"proxy\",tag=\"", env!("CARGO_PKG_VERSION"), "\"} 1");
    let expected = [
        "envoy_cluster_upstream_rq_total{cluster_name=\"xds-grpc\"} 1",
        "envoy_http_rbac_denied{envoy_http_conn_manager_prefix=\"in\"} 1",
        build,
        "istio_requests_total{} 1",
    ];
    assert_eq!(lines, expected);
    assert_eq!(registry.scopes.len(), 3, "what is not kept costs no scope");
    assert!(snapshot.text(&used).starts_with("cluster.xds-grpc.upstream_rq_total: 1\nhttp.in.rbac.denied: 1\n"));
    let buckets = serde_json::json!({"histogram_bucket_settings": [{"buckets": [1]}]});
    assert_eq!(parse(&buckets).unwrap_err().field, "histogram_bucket_settings");
    let all_but =
        parse(&serde_json::json!({"stats_matcher": {"exclusion_list": {"patterns": [{"prefix": "a"}]}}})).unwrap();
    assert!(all_but.keeps("b") && !all_but.keeps("ab"));
    assert!(!parse(&serde_json::json!({"stats_matcher": {"reject_all": true}})).unwrap().keeps("a"));
}
