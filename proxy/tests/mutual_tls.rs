//! Mutual TLS between two listeners of one proxy: who is let in, what each side learns, and which filter chain takes a
//! connection.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use support::{Proxy, cluster, connect, file_log, free_port, http, listener, read_head, tcp, upstream};

const SERVER: &str = "spiffe://td/ns/n/sa/server";
const CLIENT: &str = "spiffe://td/ns/m/sa/client";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

struct Authority {
    pem: String,
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

/// A certificate and its key.
struct Issued {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    fn issue(&self, uri: &str) -> Issued {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.push(rcgen::SanType::DnsName("name.test".try_into().unwrap()));
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        Issued { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }
}

/// `common_tls_context` in YAML: our certificate, whom we trust, names, protocols.
fn common(directory: &Path, own: Option<&Issued>, roots: &Authority, names: &[&str], alpn: &[&str]) -> String {
    let file = |text: &str| {
        let name = format!("{}.pem", text.len() * 31 + text.bytes().map(usize::from).sum::<usize>());
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        format!("{{filename: {}}}", path.display())
    };
    let keys = own.map_or_else(String::new, |own| {
        format!(
            "tls_certificates: [{{certificate_chain: {}, private_key: {}}}],",
            file(&own.certificate.pem()),
            file(&own.key.serialize_pem())
        )
    });
    let names: String = names.iter().map(|name| format!("{{san_type: URI, matcher: {{exact: '{name}'}}}}, ")).collect();
    let trusted = file(&roots.pem);
    format!(
        "common_tls_context: {{{keys} alpn_protocols: [{}], validation_context: {{trusted_ca: {trusted}, \
         match_typed_subject_alt_names: [{names}]}}}}",
        alpn.join(", ")
    )
}

fn upstream_socket(common: &str) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {TLS}.UpstreamTlsContext, sni: server.test, {common}}}}}"
    )
}

fn downstream_socket(common: &str) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {TLS}.DownstreamTlsContext, require_client_certificate: true, {common}}}}}"
    )
}

/// An application that answers with the head that it got.
fn echo() -> u16 {
    upstream(|mut stream: TcpStream| {
        let head = read_head(&mut stream);
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        drop(stream.write_all(answer.as_bytes()));
    })
}

fn get(port: u16, path: &str) -> String {
    let mut stream = connect(port);
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: URI=forged\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // a connection that is reset says nothing
    drop(stream.read_to_string(&mut answer));
    answer
}

fn value<'a>(text: &'a str, header: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| *name == header).map(|(_, value)| value)
}

const INSPECTOR: &str = "listener_filters: [{name: tls, typed_config: \
                         {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}],";

/// What a client of ours gets from a server behind TLS: the answer to one request, or why there is none.
fn over_tls(port: u16, roots: &Authority, own: Option<&Issued>, alpn: &[&str]) -> Result<String, std::io::Error> {
    let mut trusted = rustls::RootCertStore::empty();
    trusted.add(roots.certificate.der().clone()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = rustls::pki_types::PrivateKeyDer::try_from(own.key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![own.certificate.der().clone()], key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let session = rustls::ClientConnection::new(Arc::new(config), "name.test".try_into().unwrap()).unwrap();
    let mut stream = rustls::StreamOwned::new(session, connect(port));
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(String::from_utf8(answer).unwrap()),
    }
}

// spec: MT-2, MT-5, MT-6, MT-8, MT-9, PA-5, HD-4, HP-17, AZ-6, ST-1, ST-3
#[test]
#[expect(clippy::too_many_lines, reason = "one proxy with all its sides")]
fn both_sides_prove_themselves_and_learn_who_the_other_is() {
    let directory = tempfile::tempdir().unwrap();
    let (mesh, other) = (Authority::new(), Authority::new());
    let (server, client) = (mesh.issue(SERVER), mesh.issue(CLIENT));
    let stranger = other.issue(CLIENT);
    let (front, strict, picky) = (free_port(), free_port(), free_port());
    let context = |own: &Issued, roots: &Authority, names: &[&str]| {
        common(directory.path(), Some(own), roots, names, &["http/1.1"])
    };
    let inbound = "forward_client_cert_details: APPEND_FORWARD, \
                   set_current_client_cert_details: {subject: true, uri: true, dns: true},";
    let manager = http("{match: {prefix: /}, route: {cluster: app}}", inbound);
    let rbac = |who: &str| {
        let rules = format!(
            "{{action: ALLOW, policies: {{p: {{permissions: [{{any: true}}], principals: [{{authenticated: {{principal_name: {{exact: '{who}'}}}}}}]}}}}}}"
        );
        let filter = format!(
            "{{name: envoy.filters.http.rbac, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {rules}}}}}"
        );
        manager.replace("http_filters: [", &format!("http_filters: [{filter}, "))
    };
    let served = |who: &str| {
        let socket = downstream_socket(&context(&server, &mesh, &[]));
        format!("{{filter_chain_match: {{transport_protocol: tls}}, {socket}, filters: [{}]}}", rbac(who))
    };
    let routes = ["good", "wrong-name", "wrong-roots", "anonymous", "stranger", "picky", "plain"]
        .map(|name| format!("{{match: {{prefix: /{name}}}, route: {{cluster: {name}}}}}"))
        .join(", ");
    let log = directory.path().join("log");
    let outbound = http(
        &routes,
        &format!(
            "access_log: {},",
            file_log(&log, "%REQ(:PATH)% %RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%|%FERROMESH_REASON(why)%")
        ),
    );
    let with = |name: &str, port: u16, common: &str| {
        cluster(name, &[port]).replace("type: STATIC", &format!("type: STATIC, {}", upstream_socket(common)))
    };
    let clusters = [
        with("good", strict, &context(&client, &mesh, &["spiffe://td/ns/x/sa/y", SERVER])),
        with("wrong-name", strict, &context(&client, &mesh, &["spiffe://td/ns/n/sa/serve"])),
        with("wrong-roots", strict, &context(&client, &other, &[SERVER])),
        with("anonymous", strict, &common(directory.path(), None, &mesh, &[SERVER], &[])),
        with("stranger", strict, &context(&stranger, &mesh, &[SERVER])),
        with("picky", picky, &context(&client, &mesh, &[SERVER])),
        cluster("plain", &[strict]),
        cluster("app", &[echo()]),
    ];
    let yaml = format!(
        "  - {}\n  - {}\n  - {}\n  clusters:\n{}",
        listener("front", front, "", &format!("{{filters: [{outbound}]}}")),
        listener("strict", strict, INSPECTOR, &served(CLIENT)),
        listener("picky", picky, INSPECTOR, &served("spiffe://td/ns/m/sa/somebody-else")),
        clusters.concat()
    );
    let proxy = Proxy::start(directory.path(), &yaml);

    let answer = get(front, "/good");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let der = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, client.certificate.der());
    let hash: String = der.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    // what the client itself said is gone at the first proxy: nobody has proven it
    let element = format!("By={SERVER};Hash={hash};Subject=\"\";URI={CLIENT};DNS=name.test");
    assert_eq!(value(&answer, "x-forwarded-client-cert"), Some(element.as_str()), "{answer}");
    assert_eq!(value(&answer, "x-forwarded-proto"), Some("http"), "as the first proxy saw it");
    for path in ["/wrong-name", "/wrong-roots", "/anonymous", "/stranger", "/plain"] {
        let answer = get(front, path);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{path}: {answer}");
    }
    let answer = get(front, "/picky");
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("RBAC: access denied"), "{answer}");
    // D13: a peer of the mesh is told why, a client that has proven nothing is not
    assert_eq!(value(&answer, "x-ferromesh-reason"), None, "{answer}");
    let told = over_tls(picky, &mesh, Some(&client), &[]).unwrap();
    let reason = "side=mesh; policy=none; why='an AuthorizationPolicy denies the request, or none allows it'"
        .replace('\'', "\"");
    assert_eq!(value(&told, "x-ferromesh-reason"), Some(reason.as_str()), "{told}");
    // plaintext gets no answer at all
    assert_eq!(get(strict, "/"), "");
    assert!(over_tls(strict, &mesh, None, &[]).is_err());
    assert!(over_tls(strict, &mesh, Some(&stranger), &[]).is_err());
    let answer = over_tls(strict, &mesh, Some(&client), &["istio"]).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-forwarded-proto: https"), "{answer}");
    let stats = proxy.admin("GET", "/stats").unwrap();
    let counted = |name: &str| {
        let name = format!("listener.127.0.0.1_{strict}.ssl.{name}: ");
        stats.lines().find_map(|line| line.strip_prefix(name.as_str())).unwrap().parse::<u64>().unwrap()
    };
    // by the stranger and by one without a certificate, from outside and through the first proxy
    let failed = ["fail_verify_error", "fail_verify_no_cert", "connection_error", "fail_verify_san"].map(counted);
    assert!(failed[0] >= 2 && failed[1] >= 2 && failed[2] >= 1 && failed[3] == 0, "{failed:?}");
    assert!(counted("handshake") >= 2, "{stats}");
    let client_side = "cluster.wrong-name.ssl.connection_error: 1";
    assert!(stats.lines().any(|line| line == client_side), "{stats}");
    proxy.quit();
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!((lines[0], lines[6]), ("/good - -|-", format!("/picky - -|{reason}").as_str()), "{log}");
    assert!(lines[1].starts_with("/wrong-name UF TLS_error:"), "{log}");
    assert!(lines[2].starts_with("/wrong-roots UF TLS_error:"), "{log}");
}

// spec: MT-1, MT-2, MT-3, MT-4, MT-7, PA-4
#[test]
#[expect(clippy::too_many_lines, reason = "one port with all its chains")]
fn plaintext_and_mesh_tls_share_a_port_and_what_is_offered_chooses_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    let mesh = Authority::new();
    let (server, client) = (mesh.issue(SERVER), mesh.issue(CLIENT));
    let (front, mixed) = (free_port(), free_port());
    let tls = downstream_socket(&common(directory.path(), Some(&server), &mesh, &[], &["h2", "http/1.1"]));
    let says = |body: &str| {
        http(
            &format!("{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {body}}}}}}}"),
            "",
        )
    };
    let chain = |matching: &str, socket: &str, filter: &str| {
        format!("{{filter_chain_match: {{{matching}}}, {socket} filters: [{filter}]}}")
    };
    let chains = [
        chain(
            "transport_protocol: tls, application_protocols: [istio-http/1.0, istio-http/1.1]",
            &format!("{tls},"),
            &says("mesh-h1"),
        ),
        chain("transport_protocol: tls, application_protocols: [istio-h2]", &format!("{tls},"), &says("mesh-h2")),
        chain("transport_protocol: tls, application_protocols: [istio]", &format!("{tls},"), &says("mesh")),
        chain("transport_protocol: tls", "", &tcp("cluster: bytes")),
        chain("transport_protocol: raw_buffer", "", &says("plain")),
    ];
    let alpn = "{name: istio.alpn, typed_config: {'@type': type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig, \
                alpn_override: [{upstream_protocol: HTTP10, alpn_override: [istio-http/1.0, istio, http/1.0]}, \
                {upstream_protocol: HTTP11, alpn_override: [istio-http/1.1, istio, http/1.1]}, \
                {upstream_protocol: HTTP2, alpn_override: [istio-h2, istio, h2]}]}}";
    let routes = ["h1", "h2", "unlabelled"]
        .map(|name| format!("{{match: {{prefix: /{name}}}, route: {{cluster: {name}}}}}"))
        .join(", ");
    let bare = http(&routes.replace("prefix: /", "prefix: /bare-"), "");
    let outbound = http(&routes, "").replace("http_filters: [", &format!("http_filters: [{alpn}, "));
    let bare_front = free_port();
    let socket = upstream_socket(&common(directory.path(), Some(&client), &mesh, &[SERVER], &["istio"]));
    // by metadata of the endpoint, as pilot writes it
    let matches = format!(
        "transport_socket_matches: [{{name: tlsMode-istio, match: {{tlsMode: istio}}, {socket}}}, {{name: tlsMode-disabled, match: {{}}, \
         transport_socket: {{name: envoy.transport_sockets.raw_buffer, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}}}]"
    );
    let of = |name: &str, labelled: bool, more: &str| {
        let plain = cluster(name, &[mixed]).replace("type: STATIC", &format!("type: STATIC, {more} {matches}"));
        let label = "{metadata: {filter_metadata: {envoy.transport_socket_match: {tlsMode: istio}}}, endpoint:";
        if labelled { plain.replace("{endpoint:", label) } else { plain }
    };
    let h2 = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}},";
    let bytes = upstream(|mut stream: TcpStream| {
        let mut first = [0; 3];
        stream.read_exact(&mut first).unwrap();
        // the hello itself: nobody has ended the TLS
        drop(stream.write_all(&first));
    });
    let clusters = [of("h1", true, ""), of("h2", true, h2), of("unlabelled", false, ""), cluster("bytes", &[bytes])];
    let yaml = format!(
        "  - {}\n  - {}\n  - {}\n  clusters:\n{}",
        listener("front", front, "", &format!("{{filters: [{outbound}]}}")),
        listener("bare", bare_front, "", &format!("{{filters: [{bare}]}}")),
        listener("mixed", mixed, INSPECTOR, &chains.join(", ")),
        clusters.concat()
    );
    let _proxy = Proxy::start(directory.path(), &yaml);
    let body = |port: u16, path: &str| {
        let answer = get(port, path);
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(answer)
    };
    assert_eq!(body(front, "/h1"), "mesh-h1");
    assert_eq!(body(front, "/h2"), "mesh-h2");
    assert_eq!(body(front, "/unlabelled"), "plain", "the endpoint does not ask for TLS");
    assert_eq!(body(bare_front, "/bare-h1"), "mesh", "without the filter the cluster's own protocols are offered");
    assert_eq!(body(mixed, "/"), "plain");
    for (offered, chain) in [(&["istio-http/1.1", "istio"][..], "mesh-h1"), (&["istio", "http/1.1"], "mesh")] {
        let answer = over_tls(mixed, &mesh, Some(&client), offered).unwrap();
        assert!(answer.ends_with(chain), "{offered:?}: {answer}");
    }
    let mut foreign = connect(mixed);
    let mut hello = Vec::new();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut session = rustls::ClientConnection::new(Arc::new(config), "name.test".try_into().unwrap()).unwrap();
    session.write_tls(&mut hello).unwrap();
    foreign.write_all(&hello).unwrap();
    let mut first = [0; 3];
    foreign.read_exact(&mut first).unwrap();
    assert_eq!(first, hello[..3], "TLS that is not the mesh's is passed through as it is");
}

// spec: HP-17, MT-6
#[test]
fn tls_has_the_versions_and_the_protocol_that_are_configured() {
    let directory = tempfile::tempdir().unwrap();
    let mesh = Authority::new();
    let (server, client) = (mesh.issue(SERVER), mesh.issue(CLIENT));
    let says = http("{match: {prefix: /}, direct_response: {status: 200}}", "");
    let common = common(directory.path(), Some(&server), &mesh, &[CLIENT], &["http/1.1"]);
    let params = ["", "tls_minimum_protocol_version: TLSv1_3", "tls_maximum_protocol_version: TLSv1_2"];
    let ports = params.map(|_| free_port());
    let listeners: String = params
        .iter()
        .zip(ports)
        .map(|(params, port)| {
            let context =
                common.replace("common_tls_context: {", &format!("common_tls_context: {{tls_params: {{{params}}}, "));
            let chain = format!("{{{}, filters: [{says}]}}", downstream_socket(&context));
            format!("  - {}\n", listener(&format!("l{port}"), port, "", &chain))
        })
        .collect();
    let _proxy = Proxy::start(directory.path(), &listeners);
    let met = |port: u16, versions: &[&'static rustls::SupportedProtocolVersion]| {
        let mut trusted = rustls::RootCertStore::empty();
        trusted.add(mesh.certificate.der().clone()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(client.key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(trusted)
            .with_client_auth_cert(vec![client.certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut session = rustls::ClientConnection::new(Arc::new(config), "name.test".try_into().unwrap()).unwrap();
        session.complete_io(&mut connect(port)).ok()?;
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]), "what both speak");
        session.protocol_version()
    };
    let (new, old, both) = (
        &[&rustls::version::TLS13][..],
        &[&rustls::version::TLS12][..],
        &[&rustls::version::TLS13, &rustls::version::TLS12][..],
    );
    let (v13, v12) = (Some(rustls::ProtocolVersion::TLSv1_3), Some(rustls::ProtocolVersion::TLSv1_2));
    let [any, at_least, at_most] = ports;
    assert_eq!((met(any, new), met(any, old), met(any, both)), (v13, v12, v13));
    assert_eq!((met(at_least, both), met(at_least, old)), (v13, None));
    assert_eq!((met(at_most, both), met(at_most, new)), (v12, None));
}
