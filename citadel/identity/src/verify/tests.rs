use super::*;
use crate::pem;
use crate::testca::{Leaf, TestCa, leaf_params, self_signed};
use rcgen::{ExtendedKeyUsagePurpose, IsCa};
use std::time::{Duration, SystemTime};

const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

fn mesh() -> SanMatch {
    SanMatch::trust_domains(&TrustDomain::parse("cluster.local").unwrap(), &[])
}

fn bundle(ca: &TestCa) -> Arc<TrustBundle> {
    Arc::new(TrustBundle::from_pem(ca.root_pem.as_bytes()).unwrap())
}

fn check(bundle: &Arc<TrustBundle>, accept: SanMatch, role: Role, leaf: &Leaf) -> Result<(), VerifyError> {
    let chain = pem::certificates(leaf.chain_pem.as_bytes()).unwrap();
    PeerVerifier::new(Arc::clone(bundle), accept, role).check(&chain[0], &chain[1..], UnixTime::now())
}

fn chain_refused(result: &Result<(), VerifyError>, expected: fn(&webpki::Error) -> bool) -> bool {
    matches!(result, Err(VerifyError::Chain { reason, .. }) if expected(reason))
}

// spec: MT-6
#[test]
fn accepts_a_member_of_the_mesh_on_both_sides() {
    let ca = TestCa::new("cluster.local");
    let leaf = ca.leaf(REVIEWS);
    for role in [Role::Client, Role::Server] {
        check(&bundle(&ca), mesh(), role, &leaf).unwrap();
        check(&bundle(&ca), SanMatch::uris([REVIEWS]), role, &leaf).unwrap();
        check(&bundle(&ca), SanMatch::any(), role, &leaf).unwrap();
    }
    let below = ca.intermediate("shop", IsCa::Ca(rcgen::BasicConstraints::Constrained(0)));
    check(&bundle(&ca), mesh(), Role::Client, &below.leaf(REVIEWS)).unwrap();
}

// spec: MT-6
#[test]
fn names_what_was_expected_and_what_was_found() {
    let ca = TestCa::new("cluster.local");
    let accept = SanMatch::uris(["spiffe://cluster.local/ns/shop/sa/ratings"]);
    let error = check(&bundle(&ca), accept, Role::Server, &ca.leaf(REVIEWS)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a certificate of spiffe://cluster.local/ns/shop/sa/ratings, found spiffe://cluster.local/ns/shop/sa/reviews"
    );
}

#[test]
fn refuses_another_trust_domain_under_the_same_root() {
    let ca = TestCa::new("cluster.local");
    let leaf = ca.leaf("spiffe://evil/ns/shop/sa/reviews");
    assert!(matches!(check(&bundle(&ca), mesh(), Role::Client, &leaf), Err(VerifyError::WrongName { .. })));
}

#[test]
fn a_federated_root_speaks_for_its_own_domain_only() {
    let (home, friend) = (TestCa::new("home"), TestCa::new("friend"));
    let domain = |name: &str| TrustDomain::parse(name).unwrap();
    let both = TrustBundle::new()
        .with_domain(domain("cluster.local"), home.root_pem.as_bytes())
        .unwrap()
        .with_domain(domain("friend.example"), friend.root_pem.as_bytes())
        .unwrap();
    let both = Arc::new(both);
    check(&both, SanMatch::any(), Role::Client, &friend.leaf("spiffe://friend.example/ns/a/sa/b")).unwrap();
    let forged = check(&both, SanMatch::any(), Role::Client, &friend.leaf(REVIEWS));
    assert!(chain_refused(&forged, |reason| matches!(reason, webpki::Error::UnknownIssuer)), "{forged:?}");
    let stranger = check(&both, SanMatch::any(), Role::Client, &home.leaf("spiffe://third/ns/a/sa/b"));
    assert_eq!(stranger, Err(VerifyError::UnknownTrustDomain(domain("third"))));
}

#[test]
fn refuses_foreign_roots_and_self_signed_certificates() {
    let ca = TestCa::new("cluster.local");
    for leaf in [TestCa::new("cluster.local").leaf(REVIEWS), self_signed(REVIEWS)] {
        let refused = check(&bundle(&ca), mesh(), Role::Client, &leaf);
        assert!(matches!(refused, Err(VerifyError::Chain { .. })), "{refused:?}");
    }
}

#[test]
fn refuses_a_nul_in_the_name() {
    let ca = TestCa::new("cluster.local");
    let leaf = ca.leaf("spiffe://cluster.local/ns/shop/sa/reviews\0.evil");
    let refused = check(&bundle(&ca), mesh(), Role::Client, &leaf);
    assert!(matches!(refused, Err(VerifyError::MalformedId { .. })), "{refused:?}");
}

#[test]
fn refuses_wildcards_and_several_uris() {
    let ca = TestCa::new("cluster.local");
    let wild = check(&bundle(&ca), mesh(), Role::Client, &ca.leaf("spiffe://cluster.local/*"));
    assert!(matches!(wild, Err(VerifyError::MalformedId { .. })), "{wild:?}");
    let two = ca.issue(&leaf_params(&["spiffe://evil/ns/a/sa/b", REVIEWS]));
    let refused = check(&bundle(&ca), mesh(), Role::Client, &two);
    assert!(matches!(refused, Err(VerifyError::SeveralUris { count: 2, .. })), "{refused:?}");
}

#[test]
fn refuses_a_certificate_outside_its_life() {
    let ca = TestCa::new("cluster.local");
    let now = SystemTime::now();
    let mut expired = leaf_params(&[REVIEWS]);
    expired.not_after = (now - Duration::from_secs(5)).into();
    let refused = check(&bundle(&ca), mesh(), Role::Client, &ca.issue(&expired));
    assert!(chain_refused(&refused, |reason| matches!(reason, webpki::Error::CertExpired { .. })));
    assert!(matches!(
        as_rustls(refused.unwrap_err()),
        Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
    ));
    let mut early = leaf_params(&[REVIEWS]);
    early.not_before = (now + Duration::from_secs(600)).into();
    let refused = check(&bundle(&ca), mesh(), Role::Client, &ca.issue(&early));
    assert!(chain_refused(&refused, |reason| matches!(reason, webpki::Error::CertNotValidYet { .. })));
}

#[test]
fn refuses_the_wrong_key_usage() {
    let ca = TestCa::new("cluster.local");
    for (purpose, role) in [
        (ExtendedKeyUsagePurpose::ServerAuth, Role::Client),
        (ExtendedKeyUsagePurpose::ClientAuth, Role::Server),
        (ExtendedKeyUsagePurpose::CodeSigning, Role::Client),
    ] {
        let mut params = leaf_params(&[REVIEWS]);
        params.extended_key_usages = vec![purpose];
        let refused = check(&bundle(&ca), mesh(), role, &ca.issue(&params));
        assert!(matches!(refused, Err(VerifyError::Chain { .. })), "{refused:?}");
    }
}

#[test]
fn refuses_an_issuer_that_is_no_ca_and_a_ca_as_peer() {
    let ca = TestCa::new("cluster.local");
    for flag in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let refused = check(&bundle(&ca), mesh(), Role::Client, &ca.intermediate("x", flag).leaf(REVIEWS));
        assert!(matches!(refused, Err(VerifyError::Chain { .. })), "{refused:?}");
    }
    let mut params = leaf_params(&[REVIEWS]);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let refused = check(&bundle(&ca), mesh(), Role::Client, &ca.issue(&params));
    assert!(chain_refused(&refused, |reason| matches!(reason, webpki::Error::CaUsedAsEndEntity)));
}

#[test]
fn refuses_a_chain_that_is_too_deep() {
    let root = TestCa::new("cluster.local");
    let mut ca = root.intermediate("1", IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    for depth in 2..=10 {
        ca = ca.intermediate(&depth.to_string(), IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    }
    assert!(matches!(check(&bundle(&root), mesh(), Role::Client, &ca.leaf(REVIEWS)), Err(VerifyError::Chain { .. })));
}

#[test]
fn garbage_is_refused() {
    let ca = TestCa::new("cluster.local");
    let verifier = PeerVerifier::new(bundle(&ca), mesh(), Role::Client);
    let junk = CertificateDer::from(vec![0x30, 0x82, 0xff]);
    assert!(verifier.check(&junk, &[], UnixTime::now()).is_err());
}
