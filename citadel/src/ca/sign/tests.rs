use super::*;
use crate::ca::policy::Policy;
use crate::ca::root::{CaKey, Material, self_signed};
use identity::csr::Csr;
use identity::spiffe::{SpiffeId, TrustDomain};
use identity::svid::{LeafFacts, Svid};
use rcgen::{BasicConstraints, CertificateParams};
use std::collections::HashSet;
use x509_parser::prelude::X509Certificate;

const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

fn authority() -> Authority {
    let key = CaKey::generate().unwrap();
    let cert = self_signed(&key, &domain(), SystemTime::now()).unwrap().into_bytes();
    Authority::new(Material { cert: cert.clone(), key, chain: Vec::new(), roots: cert }, SystemTime::now()).unwrap()
}

fn grant(seconds: i64) -> Grant {
    Policy::new(domain()).grant(&SpiffeId::parse(REVIEWS).unwrap(), seconds).unwrap()
}

fn evil_csr() -> String {
    let mut params = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://cluster.local/ns/kube-system/sa/admin".try_into().unwrap()));
    params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn with_leaf(chain: &[String], check: impl FnOnce(&X509Certificate<'_>)) {
    let der = pem::certificates(chain[0].as_bytes()).unwrap().swap_remove(0);
    check(&X509Certificate::from_der(&der).unwrap().1);
}

// spec: CA-3
// bar: C1
#[test]
fn nothing_that_the_request_asks_for_is_signed_in() {
    let authority = authority();
    let chain = sign(&authority, &evil_csr(), &grant(0), SystemTime::now()).unwrap();
    let facts = LeafFacts::read(&pem::certificates(chain[0].as_bytes()).unwrap()[0]).unwrap();
    assert_eq!((facts.uris.as_slice(), facts.dns.as_slice()), ([REVIEWS.to_owned()].as_slice(), [].as_slice()));
    assert_eq!(facts.subject, "");
    with_leaf(&chain, |leaf| {
        assert!(!leaf.is_ca());
        assert!(!leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
        assert!(!leaf.extended_key_usage().unwrap().unwrap().value.code_signing);
    });
}

// spec: CA-3
#[test]
fn the_answer_is_one_certificate_per_element_and_the_roots_last() {
    let authority = authority();
    let id = SpiffeId::parse(REVIEWS).unwrap();
    let csr = Csr::generate(&id).unwrap();
    let chain = sign(&authority, &csr.pem, &grant(0), SystemTime::now()).unwrap();
    assert_eq!(chain.len(), 2, "leaf and root: a root signs without intermediates");
    assert!(chain.iter().all(|element| element.ends_with("-----END CERTIFICATE-----\n")));
    assert_eq!(chain[1], authority.roots().to_pem());
    let svid = Svid::from_pem(chain[0].as_bytes(), csr.key.to_pem().as_bytes()).unwrap();
    assert_eq!(svid.facts().id, Some(id));
}

// spec: CA-4
// bar: C3
#[test]
fn the_certificate_has_the_profile_of_istio() {
    let authority = authority();
    let now = SystemTime::now();
    let csr = Csr::generate(&SpiffeId::parse(REVIEWS).unwrap()).unwrap();
    let chain = sign(&authority, &csr.pem, &grant(3600), now).unwrap();
    with_leaf(&chain, |leaf| {
        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature() && usage.value.key_encipherment());
        let extended = leaf.extended_key_usage().unwrap().unwrap();
        assert!(extended.value.server_auth && extended.value.client_auth);
        let constraints = leaf.basic_constraints().unwrap().expect("present and false");
        assert!(!constraints.value.ca);
        assert!(leaf.subject_alternative_name().unwrap().unwrap().critical, "the subject is empty");
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        assert_eq!(leaf.validity().not_before.timestamp(), now - 120);
        assert_eq!(leaf.validity().not_after.timestamp(), now + 3600);
    });
}

// spec: CA-4
// bar: C3
#[test]
fn serials_are_long_and_unique() {
    let mut seen = HashSet::new();
    for _ in 0..1000 {
        let serial = random_serial().unwrap().to_bytes();
        assert_eq!(serial.len(), 16);
        assert!((0x40..0x80).contains(&serial[0]));
        assert!(seen.insert(serial));
    }
}

// spec: CA-4, CA-10
// bar: C3
#[test]
fn a_leaf_never_outlives_its_signer() {
    let key = CaKey::generate().unwrap();
    let born = SystemTime::now() - crate::ca::root::ROOT_TTL + Duration::from_secs(600);
    let cert = self_signed(&key, &domain(), born).unwrap().into_bytes();
    let material = Material { cert: cert.clone(), key, chain: Vec::new(), roots: cert };
    let old = Authority::new(material, SystemTime::now()).unwrap();
    let csr = Csr::generate(&SpiffeId::parse(REVIEWS).unwrap()).unwrap();
    let chain = sign(&old, &csr.pem, &grant(0), SystemTime::now()).unwrap();
    let facts = LeafFacts::read(&pem::certificates(chain[0].as_bytes()).unwrap()[0]).unwrap();
    assert_eq!(facts.lifetime.not_after, old.signing_life().not_after);
    let later = SystemTime::now() + Duration::from_secs(700);
    assert_eq!(sign(&old, &csr.pem, &grant(0), later), Err(SignError::AuthorityExpired));
}

// spec: CA-3, CA-5
#[test]
fn malformed_requests_are_refused_with_a_reason() {
    let authority = authority();
    let csr = Csr::generate(&SpiffeId::parse(REVIEWS).unwrap()).unwrap();
    let mut der = x509_parser::pem::parse_x509_pem(csr.pem.as_bytes()).unwrap().1.contents;
    let trailing = pem::encode("CERTIFICATE REQUEST", &[der.as_slice(), &[0]].concat());
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = pem::encode("CERTIFICATE REQUEST", &der);
    let weak = pem::encode("CERTIFICATE", b"x");
    for (text, reason) in [
        ("", "not PEM"),
        (forged.as_str(), "its signature"),
        (trailing.as_str(), "bytes after"),
        (weak.as_str(), "PEM block is a CERTIFICATE"),
        (&"x".repeat(MAX_CSR_BYTES + 1), "longer than"),
    ] {
        match sign(&authority, text, &grant(0), SystemTime::now()) {
            Err(SignError::Csr(found)) => assert!(found.contains(reason), "{found}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
}

// spec: CA-21
#[test]
fn keys_of_the_usual_kinds_are_signed() {
    let authority = authority();
    for algorithm in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let chain = sign(&authority, &csr, &grant(0), SystemTime::now()).unwrap();
        Svid::from_pem(chain[0].as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    }
    let edwards = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = CertificateParams::default().serialize_request(&edwards).unwrap().pem().unwrap();
    assert!(matches!(sign(&authority, &csr, &grant(0), SystemTime::now()), Err(SignError::Csr(_))));
}
