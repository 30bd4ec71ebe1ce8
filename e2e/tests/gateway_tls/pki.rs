//! Authorities and certificates, made anew for each test.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A certificate with its key.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
    /// The DER of the certificate, hex.
    pub(crate) fingerprint: String,
}

/// An authority.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// All that the test needs.
pub(crate) struct Pki {
    pub(crate) mesh: Authority,
    pub(crate) sites: Authority,
    pub(crate) client_roots: String,
    pub(crate) client: Leaf,
    pub(crate) stranger: Leaf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for these names: URIs have `://`.
    pub(crate) fn issue(&self, common_name: &str, names: &[&str]) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        let san = |name: &&str| {
            let text = (*name).try_into().unwrap();
            if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
        };
        params.subject_alt_names = names.iter().map(san).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let fingerprint = hex(certificate.der());
        Leaf { chain: certificate.pem(), key: key.serialize_pem(), fingerprint }
    }
}

/// Bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Pki {
    pub(crate) fn new() -> Self {
        let clients = Authority::new("clients");
        let client = clients.issue("client", &["spiffe://outside/client", "client.example"]);
        let stranger = Authority::new("strangers").issue("stranger", &["spiffe://outside/client"]);
        Self {
            mesh: Authority::new("mesh"),
            sites: Authority::new("sites"),
            client_roots: clients.pem,
            client,
            stranger,
        }
    }

    /// A new certificate of a host.
    pub(crate) fn site(&self, host: &str) -> Leaf {
        self.sites.issue("", &[host])
    }
}
