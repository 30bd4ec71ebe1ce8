//! Certificates for tests: good ones, and the bad ones of an attacker.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::time::{Duration, SystemTime};

pub(crate) struct TestCa {
    pub(crate) root_pem: String,
    issuer: Issuer<'static, KeyPair>,
    above_pem: String,
}

pub(crate) struct Leaf {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
}

impl TestCa {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(name, IsCa::Ca(BasicConstraints::Unconstrained));
        let cert = params.self_signed(&key).unwrap();
        Self { root_pem: cert.pem(), issuer: Issuer::new(params, key), above_pem: String::new() }
    }

    /// An issuer below this one; `is_ca` says whether its certificate admits that.
    pub(crate) fn intermediate(&self, name: &str, is_ca: IsCa) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(name, is_ca);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let above_pem = format!("{}{}", cert.pem(), self.above_pem);
        Self { root_pem: self.root_pem.clone(), issuer: Issuer::new(params, key), above_pem }
    }

    pub(crate) fn leaf(&self, uri: &str) -> Leaf {
        self.issue(&leaf_params(&[uri]))
    }

    pub(crate) fn issue(&self, params: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { chain_pem: format!("{}{}", cert.pem(), self.above_pem), key_pem: key.serialize_pem() }
    }
}

pub(crate) fn self_signed(uri: &str) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let cert = leaf_params(&[uri]).self_signed(&key).unwrap();
    Leaf { chain_pem: cert.pem(), key_pem: key.serialize_pem() }
}

fn ca_params(name: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params.is_ca = is_ca;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

pub(crate) fn leaf_params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())).collect();
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(120)).into();
    params.not_after = (now + Duration::from_secs(86_400 - 120)).into();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}
