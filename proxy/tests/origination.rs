//! TLS towards servers outside of the mesh: keys in files, and the host of the request as the server's name.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, mpsc};
use support::{Proxy, connect, free_port, http, listener, read_head};

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Self { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A server for `*.good.test` that wants a certificate of `ca`, and answers with the name that the client asked for.
fn server(ca: &Ca, names: mpsc::Sender<String>) -> u16 {
    let (cert, key) = ca.leaf(&["*.good.test", "good.test"]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der.clone()).unwrap();
    let provider = Arc::new(identity::svid::provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    support::upstream(move |stream: TcpStream| {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(session, stream);
        let mut buffer = [0; 4096];
        while let Ok(n) = stream.read(&mut buffer)
            && n > 0
        {
            names.send(stream.conn.server_name().unwrap_or("none").to_owned()).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").unwrap();
        }
    })
}

fn write_keys(directory: &Path, ca: &Ca) {
    let (cert, key) = ca.leaf(&["client.test"]);
    for (name, text) in [("root", ca.pem.clone()), ("chain", cert.pem()), ("key", key.serialize_pem())] {
        let fresh = directory.join("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, directory.join(name)).unwrap();
    }
}

fn get(port: u16, host: &str) -> (String, String) {
    let mut stream = connect(port);
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let head = read_head(&mut stream);
    let mut body = String::new();
    stream.read_to_string(&mut body).unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body)
}

// spec: DR-35, CA-25, HP-17
#[test]
fn a_server_is_asked_for_and_checked_by_the_host_of_the_request_with_keys_of_files() {
    let (directory, port, ca) = (tempfile::tempdir().unwrap(), free_port(), Ca::new());
    write_keys(directory.path(), &Ca::new());
    let (sender, names) = mpsc::channel();
    let up = server(&ca, sender);
    let at = |name: &str| directory.path().join(name).display().to_string();
    let sds = |name: &str| {
        format!(
            "{{name: \"{name}\", sds_config: {{api_config_source: {{api_type: GRPC, transport_api_version: V3, \
             grpc_services: [{{envoy_grpc: {{cluster_name: sds-grpc}}}}]}}}}}}"
        )
    };
    let tls = format!(
        "{{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
         common_tls_context: {{tls_certificate_sds_secret_configs: [{}], combined_validation_context: {{\
         default_validation_context: {{}}, validation_context_sds_secret_config: {}}}}}}}}}",
        sds(&format!("file-cert:{}~{}", at("chain"), at("key"))),
        sds(&format!("file-root:{}", at("root"))),
    );
    let options = "{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': \
        type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http_protocol_options: {}}, \
        upstream_http_protocol_options: {auto_sni: true, auto_san_validation: true}}}";
    let cluster = support::cluster("up", &[up]);
    let cluster = cluster.trim_end().strip_suffix('}').unwrap();
    let chain = format!("{{filters: [{}]}}", http("{match: {prefix: /}, route: {cluster: up}}", ""));
    let yaml = format!(
        "static_resources:\n  listeners:\n  - {}\n  clusters:\n{cluster}, transport_socket: {tls}, typed_extension_protocol_options: {options}}}\n",
        listener("l", port, "", &chain)
    );
    // The process is its own secret service; its certificate authority is not there, and not needed here.
    let variables =
        [("CA_ADDR", "127.0.0.1:1"), ("POD_NAMESPACE", "a"), ("SERVICE_ACCOUNT", "a"), ("CA_TOKEN_FILE", "")];
    let proxy = Proxy::launch(directory.path(), &yaml, &[], &variables);
    assert_eq!(get(port, "good.test").0, "503", "its issuer is not known");
    write_keys(directory.path(), &ca);
    proxy.until(|_| get(port, "good.test") == ("200".to_owned(), "hi".to_owned()));

    names.try_iter().for_each(drop);
    assert_eq!(get(port, "a.good.test:8443").0, "200");
    assert_eq!(get(port, "good.test").0, "200");
    assert_eq!(names.try_iter().collect::<Vec<_>>(), ["a.good.test", "good.test"]);
    assert_eq!(get(port, "bad.test").0, "503");
    assert_eq!(names.try_iter().next(), None, "nothing was sent there");
}
