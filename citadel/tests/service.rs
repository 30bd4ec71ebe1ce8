//! citadel in process over loopback: the certificate service, its attackers, and SDS on a Unix socket.
#![allow(clippy::unwrap_used, clippy::large_futures, clippy::allow_attributes, reason = "a test panics to fail")]

mod support;

use citadel::authenticate::mtls::RELAYED_CALLER;
use identity::csr::Csr;
use identity::pem;
use identity::svid::{LeafFacts, Svid};
use proto::ca::IstioCertificateRequest;
use std::time::{Duration, SystemTime};
use support::{Citadel, REVIEWS, id, request, with_token};
use tonic::Code;

fn leaf(chain: &[String]) -> LeafFacts {
    LeafFacts::read(&pem::certificates(chain[0].as_bytes()).unwrap()[0]).unwrap()
}

// spec: CA-1, CA-3, CA-8
// bar: C1
#[tokio::test]
async fn a_token_gets_a_certificate_of_its_own_identity_only() {
    let citadel = Citadel::start().await;
    let csr = Csr::generate(&id("spiffe://cluster.local/ns/kube-system/sa/admin")).unwrap();
    let answer = citadel.ask(&citadel.token(REVIEWS), request(csr.pem, 0)).await.unwrap();
    let facts = leaf(&answer);
    assert_eq!(facts.uris, [REVIEWS], "the SAN of the request is ignored");
    assert_eq!(facts.lifetime.length(), Duration::from_secs(86_400 + 120));
    assert_eq!(answer.len(), 2);
    Svid::from_pem(answer[0].as_bytes(), csr.key.to_pem().as_bytes()).unwrap();
}

// spec: CA-8
#[tokio::test]
async fn a_service_account_subject_is_an_identity_of_our_trust_domain() {
    let citadel = Citadel::start().await;
    let token = citadel.forge(|claims| claims["sub"] = "system:serviceaccount:shop:reviews".into());
    let answer = citadel.ask(&token, citadel.any_request()).await.unwrap();
    assert_eq!(leaf(&answer).uris, [REVIEWS]);
}

// spec: CA-5
// bar: C2
#[tokio::test]
async fn strangers_get_one_opaque_answer() {
    let citadel = Citadel::start().await;
    let past = SystemTime::now() - Duration::from_secs(7200);
    let other_key = Citadel::start().await.token(REVIEWS);
    let refused = [
        ("no token", String::new()),
        ("garbage", "x.y.z".to_owned()),
        ("foreign key", other_key),
        ("expired", citadel.key.mint(&id(REVIEWS), Duration::from_secs(60), past).unwrap()),
        ("wrong audience", citadel.forge(|claims| claims["aud"] = "vault".into())),
        ("no audience", citadel.forge(|claims| claims["aud"] = serde_json::Value::Array(Vec::new()))),
        ("no expiry", citadel.forge(|claims| drop(claims.as_object_mut().unwrap().remove("exp")))),
        ("not yet valid", citadel.forge(|claims| claims["nbf"] = 99_999_999_999u64.into())),
        ("other trust domain", citadel.token("spiffe://evil/ns/shop/sa/reviews")),
        ("no identity", citadel.forge(|claims| claims["sub"] = "alice".into())),
        ("smuggled segment", citadel.forge(|claims| claims["sub"] = "system:serviceaccount:a/sa/admin:b".into())),
    ];
    for (name, token) in refused {
        let status = citadel.ask(&token, citadel.any_request()).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unauthenticated, "request authenticate failure"),
            "{name}"
        );
    }
}

// spec: CA-5, CA-10
#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let citadel = Citadel::start().await;
    let token = citadel.token(REVIEWS);
    let csr = Csr::generate(&id(REVIEWS)).unwrap().pem;
    for (asked, text) in [
        (request("junk".to_owned(), 0), "invalid CSR"),
        (request(csr.clone(), 91 * 86_400), "requested validity of 7862400 s is longer than the maximum of 7776000 s"),
        (impersonation(csr), "not supported yet: metadata.ImpersonatedIdentity"),
    ] {
        let status = citadel.ask(&token, asked).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(text), "{}", status.message());
    }
}

fn impersonation(csr: String) -> IstioCertificateRequest {
    use prost_types::{Struct, Value};
    let fields = [("ImpersonatedIdentity".to_owned(), Value { kind: None })].into();
    let metadata = Struct { fields };
    IstioCertificateRequest { csr, validity_duration: 0, metadata: Some(metadata) }
}

// spec: CA-8
#[tokio::test]
async fn a_certificate_renews_itself_without_a_token() {
    let citadel = Citadel::start().await;
    let first = citadel.svid(REVIEWS).await;
    let mut client = citadel.connect(Some(&first)).await.unwrap();
    let answer = client.create_certificate(citadel.any_request()).await.unwrap().into_inner();
    assert_eq!(leaf(&answer.cert_chain).uris, [REVIEWS]);
}

// bar: C1
#[tokio::test]
async fn only_a_relay_may_name_another_caller() {
    let citadel = Citadel::start().await;
    for (caller, allowed) in [(support::PILOT, true), (REVIEWS, false)] {
        let svid = citadel.svid(caller).await;
        let mut client = citadel.connect(Some(&svid)).await.unwrap();
        let mut asked = tonic::Request::new(citadel.any_request());
        asked.metadata_mut().insert(RELAYED_CALLER, "spiffe://cluster.local/ns/shop/sa/ratings".parse().unwrap());
        match client.create_certificate(asked).await {
            Ok(answer) => {
                assert!(allowed);
                assert_eq!(leaf(&answer.into_inner().cert_chain).uris, ["spiffe://cluster.local/ns/shop/sa/ratings"]);
            }
            Err(status) => assert_eq!((allowed, status.code()), (false, Code::Unauthenticated)),
        }
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_in_the_handshake() {
    let (ours, theirs) = (Citadel::start().await, Citadel::start().await);
    let foreign = theirs.svid(REVIEWS).await;
    let refused = match ours.connect(Some(&foreign)).await {
        Err(_) => true,
        Ok(mut client) => client.create_certificate(ours.any_request()).await.is_err(),
    };
    assert!(refused);
}

// spec: CA-12
#[tokio::test]
async fn replaced_ca_files_are_taken_over_and_broken_ones_are_not() {
    let citadel = Citadel::start().await;
    let other = Citadel::start().await;
    let before = citadel.roots();
    std::fs::write(citadel.path("root-cert.pem"), "junk").unwrap();
    for file in ["ca-key.pem", "ca-cert.pem"] {
        std::fs::copy(other.path(file), citadel.path(file)).unwrap();
    }
    let svid = citadel.svid(REVIEWS).await;
    assert_eq!(svid.facts().uris, [REVIEWS], "a half-replaced set is refused, the old authority signs on");
    std::fs::write(citadel.path("root-cert.pem"), format!("{}{before}", other.roots())).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while citadel.published_roots() != format!("{}{before}", other.roots()) {
        assert!(tokio::time::Instant::now() < deadline, "the new roots were not taken over");
        tokio::task::yield_now().await;
    }
}

// bar: C5
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_at_once_are_all_answered() {
    let citadel = Citadel::start().await;
    let csr = Csr::generate(&id(REVIEWS)).unwrap().pem;
    let client = citadel.connect(None).await.unwrap();
    let token = citadel.token(REVIEWS);
    let started = std::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (mut client, asked) = (client.clone(), with_token(&token, request(csr.clone(), 0)));
        tasks.spawn(async move {
            let begun = std::time::Instant::now();
            client.create_certificate(asked).await.map(|_| begun.elapsed())
        });
    }
    let mut times: Vec<Duration> = tasks.join_all().await.into_iter().map(Result::unwrap).collect();
    times.sort();
    println!("1,000 requests in {:?}, p99 {:?}", started.elapsed(), times[990]);
}

// spec: CA-29
#[tokio::test]
async fn requests_are_counted_under_istios_names() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let citadel = Citadel::start().await;
    let token = citadel.token(REVIEWS);
    citadel.ask(&token, citadel.any_request()).await.unwrap();
    citadel.ask(&token, request("junk".to_owned(), 0)).await.unwrap_err();
    citadel.ask("x", citadel.any_request()).await.unwrap_err();
    let mut stream = tokio::net::TcpStream::connect(citadel.monitoring).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    for line in [
        "citadel_server_csr_count 3",
        "citadel_server_authentication_failure_count 1",
        "citadel_server_csr_parsing_err_count 1",
        "citadel_server_csr_sign_err_count 0",
        "citadel_server_success_cert_issuance_count 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(text.contains("citadel_server_root_cert_expiry_timestamp "));
    let left = text.lines().find_map(|line| line.strip_prefix("citadel_server_cert_chain_expiry_seconds ")).unwrap();
    assert!(left.parse::<i64>().unwrap() > 3600, "{left}");
}

// spec: CA-8
#[tokio::test]
async fn a_token_that_a_relay_passes_on_says_who_asks() {
    let citadel = Citadel::start().await;
    let relay = citadel.svid(support::PILOT).await;
    let mut client = citadel.connect(Some(&relay)).await.unwrap();
    let answer = client.create_certificate(with_token(&citadel.token(REVIEWS), citadel.any_request())).await.unwrap();
    assert_eq!(leaf(&answer.into_inner().cert_chain).uris, [REVIEWS]);
    // A relay that passes on a bad token, or nothing, gets no certificate of its own identity for it.
    for token in ["", "forged", &citadel.forge(|claims| claims["aud"] = "other".into())] {
        let refused = client.create_certificate(with_token(token, citadel.any_request())).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token}");
    }
}
