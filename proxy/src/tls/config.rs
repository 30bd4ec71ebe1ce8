//! `UpstreamTlsContext` and `DownstreamTlsContext` → what a TLS context needs.

use crate::refusal::{Refusal, Within};
use identity::san::{SanKind, SanMatch, SanPattern, SanText};
use proto::any;
use proto::envoy::core::{DataSource, TransportSocket, data_source, transport_socket::ConfigType};
use proto::envoy::matcher::string_matcher::MatchPattern;
use proto::envoy::tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsCertificate, TlsParameters,
    UpstreamTlsContext, certificate_validation_context::TrustChainVerification,
    common_tls_context::ValidationContextType, subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol,
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
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(..)")
    }
}

/// Where trusted roots come from.
#[derive(Debug, Clone)]
pub enum RootSource {
    /// Nothing is verified, as Envoy does without a validation context.
    None,
    /// In the configuration, PEM.
    Inline(Arc<[u8]>),
    /// A secret of this name.
    Secret(Arc<str>),
}

/// What a TLS context needs, both directions.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Our certificates, in order of preference.
    pub keys: Vec<KeySource>,
    /// Trusted roots.
    pub roots: RootSource,
    /// Acceptable names of the peer.
    pub names: SanMatch,
    /// Untrusted chains are taken as well.
    pub accept_untrusted: bool,
    /// A client without certificate is refused.
    pub require_client_certificate: bool,
    /// ALPN protocols in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// Server name to send.
    pub sni: Option<Box<str>>,
    /// Lowest version is TLS 1.3.
    pub only_tls13: bool,
    /// Highest version is TLS 1.2.
    pub only_tls12: bool,
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
    let common = written.common_tls_context.unwrap_or_default();
    let mut spec = common_spec(&common).within("common_tls_context")?;
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
    let mut keys = Vec::new();
    for (i, certificate) in common.tls_certificates.iter().enumerate() {
        keys.push(inline_key(certificate).within(&format!("tls_certificates[{i}]"))?);
    }
    keys.extend(
        common.tls_certificate_sds_secret_configs.iter().map(|sds| KeySource::Secret(sds.name.as_str().into())),
    );
    let (roots, context) = validation(common)?;
    let (names, accept_untrusted) = context.map_or_else(|| Ok((SanMatch::any(), false)), names)?;
    let (only_tls13, only_tls12) = versions(common.tls_params.as_ref())?;
    Ok(Spec {
        keys,
        roots,
        names,
        accept_untrusted,
        require_client_certificate: false,
        alpn: common.alpn_protocols.iter().map(|p| p.as_bytes().to_vec()).collect(),
        sni: None,
        only_tls13,
        only_tls12,
    })
}

fn inline_key(written: &TlsCertificate) -> Result<KeySource, Refusal> {
    let chain = read(written.certificate_chain.as_ref(), "certificate_chain")?;
    let key = read(written.private_key.as_ref(), "private_key")?;
    match (chain, key) {
        (Some(chain), Some(key)) => Ok(KeySource::Inline(Arc::new(Pem { chain, key }))),
        (None, _) => Err(Refusal::new("certificate_chain", "is needed")),
        (_, None) => Err(Refusal::new("private_key", "is needed (private key providers are not supported yet)")),
    }
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

fn validation(common: &CommonTlsContext) -> Result<(RootSource, Option<&CertificateValidationContext>), Refusal> {
    let inline = |context: &CertificateValidationContext, field: &str| -> Result<RootSource, Refusal> {
        let roots = read(context.trusted_ca.as_ref(), "trusted_ca").within(field)?;
        Ok(roots.map_or(RootSource::None, |roots| RootSource::Inline(roots.into())))
    };
    match &common.validation_context_type {
        None => Ok((RootSource::None, None)),
        Some(ValidationContextType::ValidationContext(context)) => {
            Ok((inline(context, "validation_context")?, Some(context)))
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(sds)) => {
            Ok((RootSource::Secret(sds.name.as_str().into()), None))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let context = combined.default_validation_context.as_ref();
            let roots = match &combined.validation_context_sds_secret_config {
                Some(sds) => RootSource::Secret(sds.name.as_str().into()),
                None => context.map_or(Ok(RootSource::None), |c| inline(c, "combined_validation_context"))?,
            };
            Ok((roots, context))
        }
        Some(_) => Err(Refusal::unsupported("validation_context_type")),
    }
}

/// Acceptable names and whether untrusted chains pass.
///
/// # Errors
/// Kinds of name match that the proxy does not know: accepting them unread would accept too much.
pub fn names(context: &CertificateValidationContext) -> Result<(SanMatch, bool), Refusal> {
    if !context.verify_certificate_spki.is_empty() || !context.verify_certificate_hash.is_empty() {
        return Err(Refusal::unsupported("verify_certificate_spki, verify_certificate_hash"));
    }
    let mut patterns = Vec::new();
    for (i, typed) in context.match_typed_subject_alt_names.iter().enumerate() {
        let field = format!("match_typed_subject_alt_names[{i}]");
        let kind = match SanType::try_from(typed.san_type) {
            Ok(SanType::Uri) => SanKind::Uri,
            Ok(SanType::Dns) => SanKind::Dns,
            _ => return Err(Refusal::unsupported(format!("{field}.san_type"))),
        };
        let text = text(typed.matcher.as_ref()).within(&field)?;
        patterns.push(SanPattern { kind, text });
    }
    #[expect(deprecated, reason = "Istio still sends the older field")]
    for (i, matcher) in context.match_subject_alt_names.iter().enumerate() {
        let text = text(Some(matcher)).within(&format!("match_subject_alt_names[{i}]"))?;
        patterns.push(SanPattern { kind: SanKind::Uri, text: text.clone() });
        patterns.push(SanPattern { kind: SanKind::Dns, text });
    }
    let accept_untrusted = context.trust_chain_verification == i32::from(TrustChainVerification::AcceptUntrusted);
    Ok((SanMatch::of(patterns), accept_untrusted))
}

fn text(matcher: Option<&proto::envoy::matcher::StringMatcher>) -> Result<SanText, Refusal> {
    match matcher.and_then(|m| m.match_pattern.as_ref()) {
        Some(MatchPattern::Exact(text)) => Ok(SanText::Exact(text.clone())),
        Some(MatchPattern::Prefix(text)) => Ok(SanText::Prefix(text.clone())),
        Some(MatchPattern::Suffix(text)) => Ok(SanText::Suffix(text.clone())),
        Some(MatchPattern::Contains(text)) => Ok(SanText::Contains(text.clone())),
        _ => Err(Refusal::unsupported("matcher")),
    }
}

fn versions(params: Option<&TlsParameters>) -> Result<(bool, bool), Refusal> {
    let Some(params) = params else { return Ok((false, false)) };
    let only_tls13 = params.tls_minimum_protocol_version == i32::from(TlsProtocol::TlSv13);
    let max = TlsProtocol::try_from(params.tls_maximum_protocol_version).unwrap_or(TlsProtocol::TlsAuto);
    match max {
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            Err(Refusal::new("tls_params.tls_maximum_protocol_version", "TLS below 1.2 is not offered"))
        }
        TlsProtocol::TlSv12 if only_tls13 => Err(Refusal::new("tls_params", "minimum above maximum")),
        max => Ok((only_tls13, max == TlsProtocol::TlSv12)),
    }
}
