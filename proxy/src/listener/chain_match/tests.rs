use super::*;
use crate::listener::config::parse;
use crate::route::RouteContext;
use prost::Message;
use serde_json::{Value, json};

/// A listener whose chains are called by their criteria's place in the list; `-1` is the default chain.
fn listener(matches: &[Value], with_default: bool) -> ListenerConfig {
    let tcp = json!([{"name": "tcp", "typed_config": {"stat_prefix": "p", "cluster": "c",
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"}}]);
    let chains = matches.iter().enumerate();
    let chains: Vec<Value> = chains
        .map(|(index, matching)| json!({"name": index.to_string(), "filter_chain_match": matching, "filters": tcp}))
        .collect();
    let mut json = json!({"name": "l", "filter_chains": chains,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}});
    if with_default {
        json["default_filter_chain"] = json!({"name": "-1", "filters": tcp});
    }
    let bytes = proto::json::from_value("envoy.config.listener.v3.Listener", &json).unwrap();
    let (environment, runtime) = Default::default();
    let parse_override = &crate::filter::registry::parse_override;
    let cx = RouteContext { environment: &environment, runtime: &runtime, parse_override };
    parse(&proto::envoy::listener::Listener::decode(bytes.as_slice()).unwrap(), cx).unwrap()
}

fn hello(tls: bool, sni: &str, applications: &[&str]) -> Hello {
    let applications = applications.iter().map(|name| name.as_bytes().to_vec()).collect();
    Hello { tls, sni: sni.to_owned(), applications }
}

fn ends(destination: &str, source: &str) -> Ends {
    let source = source.parse().unwrap();
    Ends { destination: destination.parse().unwrap(), source, direct_source: source }
}

fn chain(listener: &ListenerConfig, ends: Ends, hello: &Hello) -> String {
    find(listener, ends, hello).map_or_else(|| "none".to_owned(), |chain| chain.name.to_string())
}

// spec: MT-3, MT-4, PA-4, OD-4
#[test]
fn the_five_chains_of_a_permissive_port() {
    let permissive = listener(
        &[
            json!({"transport_protocol": "tls", "application_protocols": ["istio-http/1.0", "istio-http/1.1", "istio-h2"]}),
            json!({"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}),
            json!({"transport_protocol": "tls", "application_protocols": ["istio-peer-exchange", "istio"]}),
            json!({"transport_protocol": "raw_buffer"}),
            json!({"transport_protocol": "tls"}),
        ],
        false,
    );
    let any = ends("10.0.0.1:80", "10.0.0.2:5");
    for (offered, expected) in [
        (hello(true, "", &["istio-http/1.1", "istio", "http/1.1"]), "0"),
        (hello(true, "", &["istio-h2", "istio", "h2"]), "0"),
        (hello(true, "", &["istio-peer-exchange", "istio"]), "2"),
        (hello(true, "", &["istio"]), "2"),
        (hello(true, "", &["h2", "http/1.1"]), "4"),
        (hello(true, "", &[]), "4"),
        (hello(false, "", &["http/1.1"]), "1"),
        (hello(false, "", &["h2c"]), "1"),
        (hello(false, "", &[]), "3"),
    ] {
        assert_eq!(chain(&permissive, any, &offered), expected, "{offered:?}");
    }
    let strict = listener(&[json!({"transport_protocol": "tls"})], false);
    assert_eq!(chain(&strict, any, &hello(false, "", &["http/1.1"])), "none", "plaintext is let in by no chain");
}

// spec: VS-38, PA-2, OD-3
#[test]
fn the_first_criterion_in_which_chains_differ_decides_and_none_is_taken_back() {
    let plain = hello(false, "", &[]);
    let by_port = listener(&[json!({"destination_port": 80}), json!({}), json!({"destination_port": 81})], false);
    let at = |destination: &str| ends(destination, "10.9.0.2:5");
    for (destination, expected) in [("10.0.0.1:80", "0"), ("10.0.0.1:81", "2"), ("10.0.0.1:82", "1")] {
        assert_eq!(chain(&by_port, at(destination), &plain), expected, "{destination}");
    }
    let range = |prefix: &str, length: u32| json!([{"address_prefix": prefix, "prefix_len": length}]);
    let by_address = listener(
        &[
            json!({"prefix_ranges": range("10.0.0.0", 8)}),
            json!({"prefix_ranges": range("10.0.0.1", 32)}),
            json!({"prefix_ranges": range("::", 0)}),
        ],
        true,
    );
    for (destination, expected) in
        [("10.0.0.1:80", "1"), ("10.0.0.2:80", "0"), ("11.0.0.1:80", "-1"), ("[::7]:80", "2")]
    {
        assert_eq!(chain(&by_address, at(destination), &plain), expected, "{destination}");
    }
    let by_name = listener(
        &[
            json!({"server_names": ["a.b.test"]}),
            json!({"server_names": ["*.b.test"]}),
            json!({"server_names": ["*.test"]}),
            json!({}),
        ],
        false,
    );
    for (sni, expected) in [("a.b.test", "0"), ("x.b.test", "1"), ("b.test", "2"), ("test", "3"), ("", "3")] {
        assert_eq!(chain(&by_name, at("10.0.0.1:80"), &hello(true, sni, &[])), expected, "{sni}");
    }
    // the better port is kept although the name does not fit: nothing is left but the default
    let kept = listener(
        &[json!({"destination_port": 80, "server_names": ["a.test"]}), json!({"server_names": ["b.test"]})],
        true,
    );
    assert_eq!(chain(&kept, at("10.0.0.1:80"), &hello(true, "b.test", &[])), "-1");
    assert_eq!(chain(&kept, at("10.0.0.1:81"), &hello(true, "b.test", &[])), "1");
    let by_source = listener(
        &[
            json!({"source_prefix_ranges": range("10.9.0.0", 16)}),
            json!({"source_type": "SAME_IP_OR_LOOPBACK"}),
            json!({"source_type": "EXTERNAL"}),
            json!({"source_prefix_ranges": range("10.9.0.2", 32), "source_type": "EXTERNAL", "source_ports": [7]}),
        ],
        true,
    );
    for (destination, source, expected) in [
        ("10.0.0.1:80", "10.9.0.2:5", "-1"),
        ("10.0.0.1:80", "10.9.0.2:7", "3"),
        ("10.0.0.1:80", "10.0.0.1:5", "1"),
        ("10.0.0.1:80", "127.0.0.1:5", "1"),
        ("10.0.0.1:80", "11.0.0.1:5", "2"),
    ] {
        assert_eq!(chain(&by_source, ends(destination, source), &plain), expected, "{source}");
    }
}
