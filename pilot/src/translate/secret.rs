//! Secrets (CA-26).

use super::inputs::SecretInput;
use crate::model::secret::Content;
use proto::envoy::core::{DataSource, data_source::Specifier};
use proto::envoy::tls::{CertificateValidationContext, Secret, TlsCertificate, secret::Type};

fn inline(bytes: &[u8]) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), ..DataSource::default() })
}

/// A secret as proxies take it.
pub fn secret(input: &SecretInput) -> Secret {
    let held = match &input.content {
        Content::Certificate(certificate) => Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(&certificate.chain),
            private_key: inline(&certificate.key),
            ocsp_staple: certificate.staple.as_deref().and_then(inline),
            ..TlsCertificate::default()
        }),
        Content::Authorities(authorities) => Type::ValidationContext(CertificateValidationContext {
            trusted_ca: inline(&authorities.roots),
            crl: authorities.crl.as_deref().and_then(inline),
            ..CertificateValidationContext::default()
        }),
    };
    Secret { name: input.name.clone(), r#type: Some(held) }
}
