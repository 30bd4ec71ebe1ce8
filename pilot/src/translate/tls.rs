//! Transport sockets: mesh mTLS of both sides, and TLS as a DestinationRule says (spec 3.6, DR-34, DR-35).

use super::message::{boolean, duration};
use super::names;
use super::node::Role;
use crate::model::MeshConfig;
use crate::model::destination_rule::DestinationRule;
use crate::model::gateway::Termination;
use crate::model::secret;
use proto::any;
use proto::envoy::core::api_config_source::ApiType;
use proto::envoy::core::config_source::ConfigSourceSpecifier;
use proto::envoy::core::grpc_service::{EnvoyGrpc, TargetSpecifier};
use proto::envoy::core::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, GrpcService, TransportSocket, transport_socket,
};
use proto::envoy::matcher::StringMatcher;
use proto::envoy::matcher::string_matcher::MatchPattern;
use proto::envoy::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use proto::envoy::tls::tls_parameters::TlsProtocol;
use proto::envoy::tls::{
    CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
    SdsSecretConfig, TlsParameters, UpstreamTlsContext,
};
use proto::istio::destination_rule::{ClientTlsMode, ClientTlsSettings};
use proto::istio::gateway::ServerTlsMode;
use proto::wire;
use std::time::Duration;

/// ALPN that a client of the mesh offers for TCP and HTTP/1 (MT-1).
pub const MESH_ALPN: [&str; 2] = ["istio-peer-exchange", "istio"];

/// Ciphers of a server of the mesh (MT-6).
const SERVER_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

fn sds(name: &str) -> SdsSecretConfig {
    let grpc = EnvoyGrpc { cluster_name: wire::CLUSTER_SDS.to_owned(), ..EnvoyGrpc::default() };
    let source = ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc)),
            ..GrpcService::default()
        }],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    };
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource {
            // Files have Envoy's own timeout, as istiod has it.
            initial_fetch_timeout: if name.starts_with("file-") { None } else { duration(Duration::ZERO) },
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
            ..ConfigSource::default()
        }),
    }
}

/// A secret that pilot itself tells on the stream of everything else (CA-26); the workload's own by its own name.
fn credential(name: &str) -> SdsSecretConfig {
    if name.starts_with(secret::BUILTIN) {
        return sds(if secret::is_public(name) { wire::SECRET_ROOT } else { wire::SECRET_DEFAULT });
    }
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource {
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
            ..ConfigSource::default()
        }),
    }
}

#[expect(deprecated, reason = "istiod sends match_subject_alt_names, and so every proxy of the mesh reads it")]
fn validation(names: Vec<StringMatcher>, root: SdsSecretConfig) -> Option<ValidationContextType> {
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_subject_alt_names: names,
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(root),
        ..CombinedCertificateValidationContext::default()
    };
    Some(ValidationContextType::CombinedValidationContext(combined))
}

fn versions(ciphers: &[&str]) -> Option<TlsParameters> {
    Some(TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        cipher_suites: ciphers.iter().map(|cipher| (*cipher).to_owned()).collect(),
        ..TlsParameters::default()
    })
}

fn exact(name: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Exact(name.to_owned())), ..StringMatcher::default() }
}

fn socket<M: prost::Message + prost::Name>(context: &M) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any::pack(context))),
    }
}

/// The plain socket.
pub fn raw_buffer() -> TransportSocket {
    let raw = proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer {};
    TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any::pack(&raw))),
    }
}

/// Which part of a service a client speaks to.
pub struct Target<'a> {
    /// Port of the service.
    pub port: u16,
    /// Subset; empty for the whole.
    pub subset: &'a str,
    /// Host.
    pub host: &'a str,
    /// The server is spoken to in HTTP/2.
    pub http2: bool,
}

/// Mesh mTLS of a client: the identities behind the service, its SNI, the mesh's ALPN (MT-1, MT-6, NM-3).
pub fn mesh_client(target: &Target<'_>, identities: &[String], sni: Option<&str>) -> TransportSocket {
    let mut alpn: Vec<String> = MESH_ALPN.iter().map(|name| (*name).to_owned()).collect();
    if target.http2 {
        alpn.push("h2".to_owned());
    }
    let default = names::sni(target.port, target.subset, target.host);
    socket(&UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: versions(&[]),
            tls_certificate_sds_secret_configs: vec![sds(wire::SECRET_DEFAULT)],
            alpn_protocols: alpn,
            validation_context_type: validation(
                identities.iter().map(|name| exact(name)).collect(),
                sds(wire::SECRET_ROOT),
            ),
            ..CommonTlsContext::default()
        }),
        sni: sni.filter(|sni| !sni.is_empty()).map_or(default, str::to_owned),
        ..UpstreamTlsContext::default()
    })
}

/// Whether proxies of a role get the secrets that a rule names: gateways do, sidecars only where the rule selects them,
/// for else each sidecar of the namespace would have them (DR-35, SA-38).
pub fn gives_secrets(rule: &DestinationRule, role: Role) -> bool {
    role == Role::Router || !rule.workload_selector.is_empty()
}

/// TLS of a client as a DestinationRule says; none for DISABLE and for ISTIO_MUTUAL, which is the mesh's own.
pub fn rule_client(settings: &ClientTlsSettings, target: &Target<'_>, names: &[String]) -> Option<TransportSocket> {
    let named = Some(settings.credential_name.as_str()).filter(|name| !name.is_empty());
    let certificates = match (settings.mode, named) {
        (ClientTlsMode::Disable | ClientTlsMode::IstioMutual, _) => return None,
        (ClientTlsMode::Simple, _) => Vec::new(),
        (ClientTlsMode::Mutual, Some(name)) => vec![credential(&secret::resource(name))],
        (ClientTlsMode::Mutual, None) => {
            vec![sds(&format!("file-cert:{}~{}", settings.client_certificate, settings.private_key))]
        }
    };
    let names = if settings.subject_alt_names.is_empty() { names } else { &settings.subject_alt_names };
    let root = match named {
        Some(name) => credential(&secret::authorities_of(name)),
        None if settings.ca_certificates.is_empty() => sds("file-root:system"),
        None => sds(&format!("file-root:{}", settings.ca_certificates)),
    };
    let validation = if settings.insecure_skip_verify == Some(true) {
        None
    } else {
        validation(names.iter().map(|name| exact(name)).collect(), root)
    };
    Some(socket(&UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: versions(&[]),
            tls_certificate_sds_secret_configs: certificates,
            alpn_protocols: if target.http2 { vec!["h2".to_owned()] } else { Vec::new() },
            validation_context_type: validation,
            ..CommonTlsContext::default()
        }),
        sni: settings.sni.clone(),
        ..UpstreamTlsContext::default()
    }))
}

/// TLS of a gateway's server (GW-6 to GW-9).
pub fn gateway_server(tls: &Termination, http: bool) -> TransportSocket {
    let of_mesh = tls.mode == ServerTlsMode::IstioMutual;
    let certificates = match (of_mesh, tls.credentials.as_slice()) {
        (true, _) => vec![sds(wire::SECRET_DEFAULT)],
        (false, []) => vec![sds(&format!("file-cert:{}~{}", tls.certificate, tls.private_key))],
        (false, names) => names.iter().map(|name| credential(name)).collect(),
    };
    let root = match &tls.ca_credential {
        _ if of_mesh => sds(wire::SECRET_ROOT),
        Some(name) => credential(name),
        None => sds(&format!("file-root:{}", tls.authorities)),
    };
    let alpn: &[&str] = if of_mesh && !http { &["istio-peer-exchange", "h2", "http/1.1"] } else { &["h2", "http/1.1"] };
    let (least, most) = tls.versions;
    let asks = tls.asks();
    socket(&DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: (least != 0 || most != 0 || !tls.ciphers.is_empty()).then(|| TlsParameters {
                tls_minimum_protocol_version: least,
                tls_maximum_protocol_version: most,
                cipher_suites: tls.ciphers.clone(),
                ..TlsParameters::default()
            }),
            tls_certificate_sds_secret_configs: certificates,
            alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
            validation_context_type: asks
                .then(|| validation(tls.names.iter().map(|name| exact(name)).collect(), root))
                .flatten(),
            ..CommonTlsContext::default()
        }),
        require_client_certificate: boolean(asks && tls.mode != ServerTlsMode::OptionalMutual),
        ..DownstreamTlsContext::default()
    })
}

/// A certificate of the bootstrap of a gRPC client or server.
fn provided(name: &str) -> CertificateProviderPluginInstance {
    CertificateProviderPluginInstance { instance_name: "default".to_owned(), certificate_name: name.to_owned() }
}

#[expect(deprecated, reason = "gRPC reads match_subject_alt_names")]
fn grpc_context(names: &[String]) -> CommonTlsContext {
    let validation = CertificateValidationContext {
        ca_certificate_provider_instance: Some(provided(wire::SECRET_ROOT)),
        match_subject_alt_names: names.iter().map(|name| exact(name)).collect(),
        ..CertificateValidationContext::default()
    };
    CommonTlsContext {
        tls_certificate_provider_instance: Some(provided(wire::SECRET_DEFAULT)),
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..CommonTlsContext::default()
    }
}

/// Mesh mTLS of a gRPC client with xDS credentials (PI-28).
pub fn grpc_client(identities: &[String]) -> TransportSocket {
    let common_tls_context = Some(grpc_context(identities));
    socket(&UpstreamTlsContext { common_tls_context, ..UpstreamTlsContext::default() })
}

/// Mesh mTLS of a gRPC server with xDS credentials; it cannot check names (PI-28).
pub fn grpc_server() -> TransportSocket {
    socket(&DownstreamTlsContext {
        common_tls_context: Some(grpc_context(&[])),
        require_client_certificate: boolean(true),
        ..DownstreamTlsContext::default()
    })
}

/// Mesh mTLS of a server (MT-2, MT-6).
pub fn mesh_server(alpn: &[&str], mesh: &MeshConfig) -> TransportSocket {
    let prefix = |domain: &String| StringMatcher {
        match_pattern: Some(MatchPattern::Prefix(format!("spiffe://{domain}/"))),
        ..StringMatcher::default()
    };
    socket(&DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: versions(&SERVER_CIPHERS),
            tls_certificate_sds_secret_configs: vec![sds(wire::SECRET_DEFAULT)],
            alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
            validation_context_type: validation(mesh.trust_domains().map(prefix).collect(), sds(wire::SECRET_ROOT)),
            ..CommonTlsContext::default()
        }),
        require_client_certificate: boolean(true),
        ..DownstreamTlsContext::default()
    })
}
