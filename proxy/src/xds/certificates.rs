//! The certificates in the secrets that are held, for `/certs` and for expiry metrics.

use super::{Kind, Store};
use prost::Message;
use proto::envoy::core::{DataSource, data_source::Specifier};
use proto::envoy::tls::{Secret, secret};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;

/// What is shown of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateView {
    /// File that it came from; `<inline>` where it came in the secret.
    pub path: String,
    /// Serial number in lower-case hex.
    pub serial: String,
    /// Names: `uri` or `dns`, and the name.
    pub names: Vec<(&'static str, String)>,
    /// Start and end of validity, seconds since 1970.
    pub validity: (i64, i64),
}

/// The certificates of one secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretView {
    /// Name of the secret.
    pub name: String,
    /// Trust roots.
    pub roots: Vec<CertificateView>,
    /// Own chain, leaf first.
    pub chain: Vec<CertificateView>,
}

/// All certificates in secrets, by secret.
pub fn certificates(store: &Store) -> Vec<SecretView> {
    let secrets = store.of(Kind::Secret).filter_map(|held| Secret::decode(held.resource.body.clone()).ok());
    secrets
        .map(|secret| {
            let mut view = SecretView { name: secret.name, ..SecretView::default() };
            match secret.r#type {
                Some(secret::Type::TlsCertificate(certificate)) => {
                    view.chain = read(certificate.certificate_chain.as_ref())
                }
                Some(secret::Type::ValidationContext(context)) => view.roots = read(context.trusted_ca.as_ref()),
                _ => {}
            }
            view
        })
        .filter(|view| !view.chain.is_empty() || !view.roots.is_empty())
        .collect()
}

fn read(source: Option<&DataSource>) -> Vec<CertificateView> {
    let (path, pem) = match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineString(text)) => ("<inline>".to_owned(), text.as_bytes().to_vec()),
        Some(Specifier::InlineBytes(bytes)) => ("<inline>".to_owned(), bytes.clone()),
        Some(Specifier::Filename(file)) => (file.clone(), std::fs::read(file).unwrap_or_default()),
        Some(Specifier::EnvironmentVariable(_)) | None => return Vec::new(),
    };
    Pem::iter_from_buffer(&pem).filter_map(|block| view(&path, &block.ok()?)).collect()
}

fn view(path: &str, block: &Pem) -> Option<CertificateView> {
    let certificate = block.parse_x509().ok()?;
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() {
            names.extend(alternative.general_names.iter().filter_map(|name| match name {
                GeneralName::URI(uri) => Some(("uri", (*uri).to_owned())),
                GeneralName::DNSName(dns) => Some(("dns", (*dns).to_owned())),
                _ => None,
            }));
        }
    }
    let validity = certificate.validity();
    Some(CertificateView {
        path: path.to_owned(),
        serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        names,
        validity: (validity.not_before.timestamp(), validity.not_after.timestamp()),
    })
}
