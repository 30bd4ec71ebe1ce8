//! Contexts as they are written → sessions between two of them, in memory.

use super::{Secrets, Spec, config};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use proto::envoy::core::TransportSocket;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{ClientConnection, Connection, ServerConnection};
use serde_json::{Value, json};

/// A root, and what it issues.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

struct Leaf {
    chain: String,
    key: String,
    der: Vec<u8>,
    spki: Vec<u8>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn leaf(&self, name: &str, serial: u64) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let der = cert.der().to_vec();
        Leaf {
            chain: cert.pem(),
            key: key.serialize_pem(),
            spki: rcgen::PublicKeyData::subject_public_key_info(&key),
            der,
        }
    }

    /// A list that names `serials` and holds until `year`.
    fn list(&self, serials: &[u64], year: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Leaf {
    fn json(&self) -> Value {
        json!({"certificate_chain": {"inline_string": self.chain}, "private_key": {"inline_string": self.key}})
    }

    fn hash(&self) -> String {
        digest(&SHA256, &self.der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn pin(&self) -> String {
        STANDARD.encode(digest(&SHA256, &self.spki))
    }
}

fn socket(kind: &str, mut context: Value) -> TransportSocket {
    context["@type"] = format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}").into();
    let json = json!({"name": "tls", "typed_config": context});
    let bytes = proto::json::from_value("envoy.config.core.v3.TransportSocket", &json).unwrap();
    TransportSocket::decode(bytes.as_slice()).unwrap()
}

fn upstream(context: Value) -> Result<Spec, String> {
    config::upstream(Some(&socket("UpstreamTlsContext", context)))
        .map(Option::unwrap)
        .map_err(|error| error.to_string())
}

fn downstream(context: Value) -> Result<Spec, String> {
    let parsed = config::downstream(Some(&socket("DownstreamTlsContext", context)));
    parsed.map(Option::unwrap).map_err(|error| error.to_string())
}

/// What both sides of a session are.
struct Made {
    client: ClientConnection,
    server: ServerConnection,
}

/// Two contexts and a session between them, or why there is none. `secrets` are those of both.
fn session(secrets: &Secrets, client: &Spec, server: &Spec) -> Result<Made, String> {
    let config = secrets.client(client).unwrap().ok_or("client waits for a secret")?;
    let name = client.sni.as_deref().unwrap_or("none.invalid").to_owned();
    let mut client = ClientConnection::new(config, name.try_into().unwrap()).unwrap();
    let config = secrets.server(server).unwrap().ok_or("server waits for a secret")?;
    let mut server = ServerConnection::new(std::sync::Arc::clone(&config.config)).unwrap();
    for _ in 0..10 {
        pass(&mut client, &mut server).map_err(|error| format!("server: {error}"))?;
        pass(&mut server, &mut client).map_err(|error| format!("client: {error}"))?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Made { client, server })
}

/// Bytes from one side to the other.
fn pass<A, B, S, T>(from: &mut A, to: &mut B) -> Result<(), Box<rustls::Error>>
where
    A: std::ops::DerefMut<Target = rustls::ConnectionCommon<S>>,
    B: std::ops::DerefMut<Target = rustls::ConnectionCommon<T>>,
{
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().map_err(Box::new)?;
    }
    Ok(())
}

/// A session between a server with `leaf` and a client with this validation context.
fn judged(leaf: &Leaf, validation: Value) -> Result<(), String> {
    let client = upstream(json!({"common_tls_context": {"validation_context": validation}, "sni": "b.test"}))?;
    let server = downstream(json!({"common_tls_context": {"tls_certificates": [leaf.json()]}})).unwrap();
    session(&Secrets::default(), &client, &server).map(|_| ())
}

// spec: HP-17, XT-12
// bar: C6
#[test]
fn certificates_that_a_list_revokes_are_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (good, revoked) = (ca.leaf("b.test", 1), ca.leaf("b.test", 2));
    let with = |list: String, leaf: &Leaf| {
        judged(leaf, json!({"trusted_ca": {"inline_string": ca.pem}, "crl": {"inline_string": list}}))
    };
    assert_eq!(with(ca.list(&[2], 2099), &good), Ok(()));
    assert!(with(ca.list(&[2], 2099), &revoked).unwrap_err().contains("Revoked"));
    assert!(with(ca.list(&[2], 2025), &good).is_err(), "an outdated list says nothing");
    assert!(with(other.list(&[], 2099), &good).is_err(), "nor does another issuer's");
    assert!(with("junk".to_owned(), &good).unwrap_err().contains("crl"));

    // as a server, too
    let mtls = |leaf: &Leaf| {
        let root = json!({"inline_string": ca.pem});
        let client = upstream(json!({"common_tls_context":
            {"tls_certificates": [leaf.json()], "validation_context": {"trusted_ca": root}}, "sni": "b.test"}));
        let server = downstream(json!({"require_client_certificate": true, "common_tls_context":
            {"tls_certificates": [good.json()], "validation_context": {"trusted_ca": root, "crl": {"inline_string": ca.list(&[2], 2099)}}}}));
        session(&Secrets::default(), &client.unwrap(), &server.unwrap()).map(|_| ())
    };
    assert_eq!(mtls(&good), Ok(()));
    assert!(mtls(&revoked).unwrap_err().contains("Revoked"));
}

// spec: HP-17
#[test]
fn a_certificate_can_be_known_by_its_hash_or_the_hash_of_its_key() {
    let ca = Ca::new();
    let (right, wrong) = (ca.leaf("b.test", 1), ca.leaf("b.test", 2));
    let colons: Vec<String> =
        right.hash().as_bytes().chunks(2).map(|c| String::from_utf8_lossy(c).to_uppercase()).collect();
    for pins in [
        json!({"verify_certificate_spki": [right.pin()]}),
        json!({"verify_certificate_hash": [right.hash()]}),
        json!({"verify_certificate_hash": [colons.join(":")]}),
        json!({"verify_certificate_hash": [wrong.hash().replace(['0', '1'], "2"), right.hash()]}),
    ] {
        let mut beside = pins.clone();
        beside["trusted_ca"] = json!({"inline_string": ca.pem});
        for context in [pins, beside] {
            assert_eq!(judged(&right, context.clone()), Ok(()), "{context}");
            assert!(judged(&wrong, context.clone()).is_err(), "{context}");
        }
    }
    let other = json!({"verify_certificate_spki": [right.pin()], "trusted_ca": {"inline_string": Ca::new().pem}});
    assert!(judged(&right, other).is_err(), "roots are looked at all the same");
    for bad in [json!({"verify_certificate_spki": ["abc"]}), json!({"verify_certificate_hash": ["zz"]})] {
        assert!(judged(&right, bad).unwrap_err().contains("is no SHA-256 hash"));
    }
}

// spec: HP-17
#[test]
fn versions_suites_and_curves_are_as_configured() {
    let leaf = Ca::new().leaf("b.test", 1);
    let made = |client: Value, server: Value| {
        let client = upstream(json!({"common_tls_context": {"tls_params": client}, "sni": "b.test"}))?;
        let server =
            downstream(json!({"common_tls_context": {"tls_params": server, "tls_certificates": [leaf.json()]}}))?;
        let made = session(&Secrets::default(), &client, &server)?;
        let suite = made.server.negotiated_cipher_suite().unwrap().suite();
        let curve = made.server.negotiated_key_exchange_group().unwrap().name();
        Ok::<_, String>(format!("{:?} {suite:?} {curve:?}", made.server.protocol_version().unwrap()))
    };
    let plain = made(json!({}), json!({})).unwrap();
    assert!(plain.starts_with("TLSv1_3 ") && plain.ends_with(" X25519MLKEM768"), "{plain}");
    let old = json!({"tls_maximum_protocol_version": "TLSv1_2"});
    assert!(made(old.clone(), json!({})).unwrap().starts_with("TLSv1_2 "));
    assert!(made(old.clone(), json!({"tls_minimum_protocol_version": "TLSv1_3"})).is_err());
    // Istio's list: what has no forward secrecy is not offered, the rest is
    let istio =
        ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "AES256-GCM-SHA384", "AES128-GCM-SHA256"];
    let server = json!({"tls_minimum_protocol_version": "TLSv1_2", "cipher_suites": istio, "ecdh_curves": ["P-256"]});
    let expected = "TLSv1_2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 secp256r1";
    assert_eq!(made(old, server.clone()).as_deref(), Ok(expected));
    let narrow = |suite: &str| json!({"tls_maximum_protocol_version": "TLSv1_2", "cipher_suites": [suite]});
    assert!(made(narrow("ECDHE-ECDSA-AES128-GCM-SHA256"), server.clone()).is_err(), "no suite in common");
    assert!(made(json!({"ecdh_curves": ["X25519"]}), server).is_err(), "no curve in common");
    let refused = |server: Value| made(json!({}), server).unwrap_err();
    assert!(refused(narrow("AES128-SHA")).contains("cipher_suites"));
    assert!(refused(json!({"ecdh_curves": ["P-521"]})).contains("ecdh_curves"));
    assert!(refused(json!({"tls_maximum_protocol_version": "TLSv1_1"})).contains("below 1.2"));
    assert!(refused(json!({"signature_algorithms": ["x"]})).contains("signature_algorithms"));
}

// spec: HP-17
#[test]
fn alpn_server_name_and_staple_reach_the_other_side() {
    let ca = Ca::new();
    let leaf = ca.leaf("b.test", 1);
    let client = |sni: &str| {
        let context = json!({"common_tls_context": {"alpn_protocols": ["x", "h2"]}, "sni": sni});
        upstream(context).unwrap()
    };
    let mut certificate = leaf.json();
    certificate["ocsp_staple"] = json!({"inline_bytes": STANDARD.encode(b"staple")});
    let server = downstream(json!({"require_sni": true, "common_tls_context":
        {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate]}}))
    .unwrap();
    let made = session(&Secrets::default(), &client("b.test"), &server).unwrap();
    assert_eq!(made.client.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(made.server.server_name(), Some("b.test"));
    assert!(session(&Secrets::default(), &client(""), &server).is_err(), "a name is required");
    let ready = Secrets::default().server(&server).unwrap().unwrap();
    assert_eq!(ready.config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert!(stapled(&client("b.test"), &server).contains("staple"));
}

/// The OCSP response that a client is given.
fn stapled(client: &Spec, server: &Spec) -> String {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    #[derive(Debug, Default)]
    struct Notes(std::sync::OnceLock<Vec<u8>>);
    impl ServerCertVerifier for Notes {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            staple: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            self.0.set(staple.to_vec()).unwrap();
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            identity::svid::provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let notes = std::sync::Arc::new(Notes::default());
    let secrets = Secrets::default();
    let mut config = rustls::ClientConfig::clone(&secrets.client(client).unwrap().unwrap());
    config.dangerous().set_certificate_verifier(notes.clone());
    let mut client = ClientConnection::new(config.into(), "b.test".try_into().unwrap()).unwrap();
    let ready = secrets.server(server).unwrap().unwrap();
    let mut server = ServerConnection::new(std::sync::Arc::clone(&ready.config)).unwrap();
    for _ in 0..4 {
        pass(&mut client, &mut server).unwrap();
        pass(&mut server, &mut client).unwrap();
    }
    String::from_utf8(notes.0.get().unwrap().clone()).unwrap()
}

fn secret(name: &str, kind: &str, value: Value) -> proto::envoy::tls::Secret {
    let mut json = json!({"name": name});
    json[kind] = value;
    let bytes = proto::json::from_value("envoy.extensions.transport_sockets.tls.v3.Secret", &json).unwrap();
    Message::decode(bytes.as_slice()).unwrap()
}

// spec: HP-17, XT-12
#[test]
fn secrets_rotate_and_what_they_demand_of_a_peer_is_added() {
    let (ca, next) = (Ca::new(), Ca::new());
    let sds = json!({"name": "own", "sds_config": {"ads": {}}});
    let server = downstream(json!({"common_tls_context": {"tls_certificate_sds_secret_configs": [sds]}})).unwrap();
    let roots = json!({"name": "ROOTCA", "sds_config": {"ads": {}}});
    let client = upstream(json!({"sni": "b.test", "common_tls_context": {"combined_validation_context": {
        "default_validation_context": {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "b.test"}}]},
        "validation_context_sds_secret_config": roots}}}))
    .unwrap();
    let mut secrets = Secrets::default();
    let try_it = |secrets: &Secrets| session(secrets, &client, &server).map(|_| ());
    assert!(try_it(&secrets).unwrap_err().contains("waits for a secret"));
    let root = |pem: &str| json!({"trusted_ca": {"inline_string": pem}});
    secrets.insert(&secret("ROOTCA", "validation_context", root(&ca.pem))).unwrap();
    assert!(try_it(&secrets).unwrap_err().contains("server waits for a secret"));
    secrets.insert(&secret("own", "tls_certificate", ca.leaf("b.test", 1).json())).unwrap();
    assert_eq!(try_it(&secrets), Ok(()));
    secrets.insert(&secret("own", "tls_certificate", next.leaf("b.test", 1).json())).unwrap();
    assert!(try_it(&secrets).is_err(), "the new key is in use, its root is not known");
    secrets.insert(&secret("ROOTCA", "validation_context", root(&next.pem))).unwrap();
    assert_eq!(try_it(&secrets), Ok(()));
    let broken =
        secrets.insert(&secret("own", "tls_certificate", json!({"certificate_chain": {"inline_string": "x"}})));
    assert!(broken.unwrap_err().to_string().contains("tls_certificate"));
    assert_eq!(try_it(&secrets), Ok(()), "the last good one stays");
    secrets.insert(&secret("own", "tls_certificate", next.leaf("c.test", 1).json())).unwrap();
    assert!(try_it(&secrets).is_err(), "the configuration's names hold");
    let mut more = root(&next.pem);
    more["match_typed_subject_alt_names"] = json!([{"san_type": "DNS", "matcher": {"suffix": ".test"}}]);
    secrets.insert(&secret("ROOTCA", "validation_context", more)).unwrap();
    assert_eq!(try_it(&secrets), Ok(()), "and the secret's beside them");
    let mut revoking = root(&next.pem);
    revoking["crl"] = json!({"inline_string": next.list(&[1], 2099)});
    revoking["match_typed_subject_alt_names"] = json!([{"san_type": "DNS", "matcher": {"suffix": ".test"}}]);
    secrets.insert(&secret("ROOTCA", "validation_context", revoking)).unwrap();
    assert!(try_it(&secrets).unwrap_err().contains("Revoked"));
}

// spec: HP-17
#[test]
fn sessions_are_resumed_unless_both_switches_are_off() {
    let leaf = Ca::new().leaf("b.test", 1);
    let client = upstream(json!({"sni": "b.test"})).unwrap();
    for (stateful, stateless, resumes) in [(false, false, true), (true, false, true), (true, true, false)] {
        let server = downstream(json!({"disable_stateful_session_resumption": stateful,
            "disable_stateless_session_resumption": stateless, "common_tls_context": {"tls_certificates": [leaf.json()]}}))
        .unwrap();
        let secrets = Secrets::default();
        let (c, s) = (secrets.client(&client).unwrap().unwrap(), secrets.server(&server).unwrap().unwrap());
        let kinds: Vec<_> = (0..2)
            .map(|_| {
                let mut client = ClientConnection::new(c.clone(), "b.test".try_into().unwrap()).unwrap();
                let mut server = ServerConnection::new(s.config.clone()).unwrap();
                for _ in 0..4 {
                    pass(&mut client, &mut server).unwrap();
                    pass(&mut server, &mut client).unwrap();
                }
                Connection::from(client).handshake_kind().unwrap()
            })
            .collect();
        let second = if resumes { rustls::HandshakeKind::Resumed } else { rustls::HandshakeKind::Full };
        assert_eq!(kinds.last(), Some(&second), "{stateful} {stateless}");
    }
}

// spec: HP-17, XT-12
#[test]
fn what_is_not_looked_at_is_refused_by_its_name() {
    let leaf = Ca::new().leaf("b.test", 1);
    let common = |field: &str, value: Value| {
        let mut context = json!({"tls_certificates": [leaf.json()]});
        context[field] = value;
        json!({"common_tls_context": context})
    };
    let validation = |field: &str, value: Value| common("validation_context", json!({field: value}));
    let cases = [
        ("key_log", common("key_log", json!({"path": "/tmp/x"}))),
        ("max_verify_depth", validation("max_verify_depth", json!(1))),
        ("allow_expired_certificate", validation("allow_expired_certificate", json!(true))),
        ("require_signed_certificate_timestamp", validation("require_signed_certificate_timestamp", json!(true))),
        ("custom_validator_config", validation("custom_validator_config", json!({"name": "x"}))),
        ("crl", validation("crl", json!({"inline_string": "x"}))),
        ("private_key_provider", common("tls_certificates", json!([{"private_key_provider": {"provider_name": "x"}}]))),
        ("ocsp_staple_policy", json!({"ocsp_staple_policy": "MUST_STAPLE"})),
        ("session_ticket_keys", json!({"session_ticket_keys": {"keys": [{"inline_string": "x"}]}})),
        (
            "validation_context.trusted_ca",
            json!({"require_client_certificate": true, "common_tls_context": {"tls_certificates": [leaf.json()]}}),
        ),
    ];
    for (field, context) in cases {
        let why = match downstream(context) {
            Err(why) => why,
            Ok(spec) => Secrets::default().server(&spec).unwrap_err().to_string(),
        };
        assert!(why.contains(field), "{field}: {why}");
    }
    for field in ["auto_host_sni", "auto_sni_san_validation", "allow_renegotiation"] {
        assert!(upstream(json!({field: true})).unwrap_err().contains(field));
    }
}
