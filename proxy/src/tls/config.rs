//! `UpstreamTlsContext` and `DownstreamTlsContext` → what a TLS context needs.

mod params;
mod pins;
mod validation;

pub use params::Params;
pub use validation::{Unverified, Validation};

use crate::refusal::{Refusal, Within};
use proto::any;
use proto::envoy::core::{DataSource, TransportSocket, data_source, transport_socket::ConfigType};
use proto::envoy::tls::{
    CommonTlsContext, DownstreamTlsContext, TlsCertificate, UpstreamTlsContext,
    common_tls_context::ValidationContextType, downstream_tls_context::SessionTicketKeysType,
};
use std::sync::Arc;

/// Where a certificate and its key come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// In the configuration, PEM.
    Inline(Arc<Pem>),
    /// A secret of this name.
    Secret(Arc<str>),
}

/// Chain and key, PEM; the key never appears in debug output.
pub struct Pem {
    /// Certificate chain.
    pub chain: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
    /// OCSP response, DER, that goes with the chain.
    pub ocsp_staple: Option<Vec<u8>>,
}

impl Pem {
    /// Reads a certificate.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub fn read(written: &TlsCertificate) -> Result<Self, Refusal> {
        let refused = [
            ("private_key_provider", written.private_key_provider.is_some()),
            ("pkcs12", written.pkcs12.is_some()),
            ("password", written.password.is_some()),
            ("signed_certificate_timestamp", !written.signed_certificate_timestamp.is_empty()),
            ("tls_params", written.tls_params.is_some()),
        ];
        if let Some((field, _)) = refused.iter().find(|(_, written)| *written) {
            return Err(Refusal::unsupported(*field));
        }
        let needed = |source: &Option<DataSource>, field: &str| {
            read(source.as_ref(), field)?.ok_or_else(|| Refusal::new(field, "is needed"))
        };
        Ok(Self {
            chain: needed(&written.certificate_chain, "certificate_chain")?,
            key: needed(&written.private_key, "private_key")?,
            ocsp_staple: read(written.ocsp_staple.as_ref(), "ocsp_staple")?,
        })
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(..)")
    }
}

/// Where the demands on a peer come from.
#[derive(Debug, Clone)]
pub enum ValidationSource {
    /// The configuration.
    Inline(Validation),
    /// A secret of this name, over what the configuration says.
    Secret(Arc<str>, Validation),
}

/// What a TLS context needs, both directions.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Our certificates, in order of preference.
    pub keys: Vec<KeySource>,
    /// What the peer must be.
    pub validation: ValidationSource,
    /// A client without certificate is refused.
    pub require_client_certificate: bool,
    /// ALPN protocols in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// Server name to send.
    pub sni: Option<Box<str>>,
    /// The peer's certificate must be good for the server name, too (`auto_san_validation`).
    pub check_server_name: bool,
    /// Versions, cipher suites and curves.
    pub params: Params,
    /// A client that sends no server name is refused.
    pub require_sni: bool,
    /// Sessions may be resumed.
    pub resumption: bool,
}

impl Spec {
    /// Whether a secret of this name is part of it.
    pub fn uses(&self, name: &str) -> bool {
        let shown = self.keys.iter().any(|key| matches!(key, KeySource::Secret(own) if **own == *name));
        shown || matches!(&self.validation, ValidationSource::Secret(own, _) if **own == *name)
    }
}

/// Reads the transport socket of a cluster; `None` is plaintext.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn upstream(socket: Option<&TransportSocket>) -> Result<Option<Spec>, Refusal> {
    let Some((context, any)) = typed(socket)? else { return Ok(None) };
    if context != Context::Upstream {
        return Err(Refusal::new("typed_config", "UpstreamTlsContext or RawBuffer is needed here"));
    }
    let written: UpstreamTlsContext = any::decode(any).map_err(|e| Refusal::new("typed_config", e.to_string()))?;
    let refused = [
        ("auto_host_sni", written.auto_host_sni),
        ("auto_sni_san_validation", written.auto_sni_san_validation),
        ("allow_renegotiation", written.allow_renegotiation),
    ];
    if let Some((field, _)) = refused.iter().find(|(_, written)| *written) {
        return Err(Refusal::unsupported(*field));
    }
    let common = written.common_tls_context.unwrap_or_default();
    let mut spec = common_spec(&common).within("common_tls_context")?;
    spec.sni = (!written.sni.is_empty()).then(|| written.sni.into());
    Ok(Some(spec))
}

/// Reads the transport socket of a filter chain; `None` is plaintext.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn downstream(socket: Option<&TransportSocket>) -> Result<Option<Spec>, Refusal> {
    let Some((context, any)) = typed(socket)? else { return Ok(None) };
    if context != Context::Downstream {
        return Err(Refusal::new("typed_config", "DownstreamTlsContext or RawBuffer is needed here"));
    }
    let written: DownstreamTlsContext = any::decode(any).map_err(|e| Refusal::new("typed_config", e.to_string()))?;
    if written.ocsp_staple_policy != 0 {
        return Err(Refusal::unsupported("ocsp_staple_policy"));
    }
    let stateless = match &written.session_ticket_keys_type {
        None => true,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(disabled)) => !disabled,
        Some(_) => return Err(Refusal::unsupported("session_ticket_keys")),
    };
    let common = written.common_tls_context.unwrap_or_default();
    let mut spec = common_spec(&common).within("common_tls_context")?;
    // Sessions are kept here and not in tickets, so that either switch of Envoy's leaves the other kind.
    spec.resumption = stateless || !written.disable_stateful_session_resumption;
    spec.require_sni = written.require_sni.is_some_and(|b| b.value);
    spec.require_client_certificate = written.require_client_certificate.is_some_and(|b| b.value);
    if spec.keys.is_empty() {
        return Err(Refusal::new("common_tls_context.tls_certificates", "a server needs a certificate"));
    }
    Ok(Some(spec))
}

#[derive(PartialEq, Eq)]
enum Context {
    Upstream,
    Downstream,
}

fn typed(socket: Option<&TransportSocket>) -> Result<Option<(Context, &proto::envoy::wkt::Any)>, Refusal> {
    let Some(socket) = socket else { return Ok(None) };
    let Some(ConfigType::TypedConfig(any)) = &socket.config_type else {
        let raw = socket.name == "envoy.transport_sockets.raw_buffer";
        return if raw { Ok(None) } else { Err(Refusal::new("typed_config", "is needed")) };
    };
    match any::type_name(&any.type_url) {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(None),
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => Ok(Some((Context::Upstream, any))),
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => Ok(Some((Context::Downstream, any))),
        other => Err(Refusal::new(
            "typed_config",
            format!("Didn't find a registered implementation for '{}' with type URL: '{other}'", socket.name),
        )),
    }
}

fn common_spec(common: &CommonTlsContext) -> Result<Spec, Refusal> {
    #[expect(deprecated, reason = "refused by their names")]
    let refused = [
        ("tls_certificate_provider_instance", common.tls_certificate_provider_instance.is_some()),
        ("tls_certificate_certificate_provider", common.tls_certificate_certificate_provider.is_some()),
        (
            "tls_certificate_certificate_provider_instance",
            common.tls_certificate_certificate_provider_instance.is_some(),
        ),
        ("custom_tls_certificate_selector", common.custom_tls_certificate_selector.is_some()),
        ("custom_handshaker", common.custom_handshaker.is_some()),
        ("key_log", common.key_log.is_some()),
    ];
    if let Some((field, _)) = refused.iter().find(|(_, written)| *written) {
        return Err(Refusal::unsupported(*field));
    }
    let mut keys = Vec::new();
    for (i, certificate) in common.tls_certificates.iter().enumerate() {
        let pem = Pem::read(certificate).within(&format!("tls_certificates[{i}]"))?;
        keys.push(KeySource::Inline(Arc::new(pem)));
    }
    keys.extend(
        common.tls_certificate_sds_secret_configs.iter().map(|sds| KeySource::Secret(sds.name.as_str().into())),
    );
    Ok(Spec {
        keys,
        validation: validation(common)?,
        require_client_certificate: false,
        alpn: common.alpn_protocols.iter().map(|p| p.as_bytes().to_vec()).collect(),
        sni: None,
        check_server_name: false,
        params: Params::parse(common.tls_params.as_ref()).within("tls_params")?,
        require_sni: false,
        resumption: true,
    })
}

/// Reads a data source: inline, or a file at the time of parsing.
///
/// # Errors
/// The file that cannot be read.
pub fn read(source: Option<&DataSource>, field: &str) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(specifier) = source.and_then(|s| s.specifier.as_ref()) else { return Ok(None) };
    match specifier {
        data_source::Specifier::InlineBytes(bytes) => Ok(Some(bytes.clone())),
        data_source::Specifier::InlineString(text) => Ok(Some(text.clone().into_bytes())),
        data_source::Specifier::Filename(path) => std::fs::read(path)
            .map(Some)
            .map_err(|error| Refusal::new(format!("{field}.filename"), format!("{path}: {error}"))),
        data_source::Specifier::EnvironmentVariable(_) => {
            Err(Refusal::unsupported(format!("{field}.environment_variable")))
        }
    }
}

fn validation(common: &CommonTlsContext) -> Result<ValidationSource, Refusal> {
    let inline = |context| Validation::parse(context).within("validation_context");
    match &common.validation_context_type {
        None => Ok(ValidationSource::Inline(Validation::default())),
        Some(ValidationContextType::ValidationContext(context)) => Ok(ValidationSource::Inline(inline(context)?)),
        Some(ValidationContextType::ValidationContextSdsSecretConfig(sds)) => {
            Ok(ValidationSource::Secret(sds.name.as_str().into(), Validation::default()))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let own = combined.default_validation_context.as_ref().map(inline).transpose()?.unwrap_or_default();
            Ok(match &combined.validation_context_sds_secret_config {
                Some(sds) => ValidationSource::Secret(sds.name.as_str().into(), own),
                None => ValidationSource::Inline(own),
            })
        }
        Some(_) => Err(Refusal::unsupported("validation_context_type")),
    }
}
