//! Gateway (networking.istio.io; spec 1.5).

use super::Later;
use std::collections::BTreeMap;

istio_struct! {
    /// `spec` of a Gateway.
    Gateway {
        servers: Vec<Server>,
        selector: BTreeMap<String, String>,
    }
}

istio_struct! {
    /// A port with the hosts that it serves.
    Server {
        port: Option<Port>,
        bind: Option<String>,
        hosts: Vec<String>,
        tls: Option<ServerTlsSettings>,
        default_endpoint: Option<Later>,
        name: String,
    }
}

istio_struct! {
    /// A port with its protocol.
    #[derive(Eq, Hash)]
    Port {
        number: u32,
        protocol: String,
        name: String,
        target_port: Option<u32>,
    }
}

istio_struct! {
    /// TLS of a server.
    ServerTlsSettings {
        https_redirect: bool,
        mode: Option<ServerTlsMode>,
        server_certificate: String,
        private_key: String,
        ca_certificates: String,
        ca_crl: Option<Later>,
        credential_name: String,
        credential_names: Vec<String>,
        ca_cert_credential_name: String,
        tls_certificates: Option<Later>,
        subject_alt_names: Vec<String>,
        verify_certificate_spki: Option<Later>,
        verify_certificate_hash: Option<Later>,
        min_protocol_version: String,
        max_protocol_version: String,
        cipher_suites: Vec<String>,
        insecure_skip_verify: Option<Later>,
    }
}

istio_enum! {
    /// Kind of TLS of a server.
    ServerTlsMode { Passthrough, Simple, Mutual, AutoPassthrough, IstioMutual, OptionalMutual }
}
