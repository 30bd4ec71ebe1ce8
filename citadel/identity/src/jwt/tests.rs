use super::*;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, crypto};
use serde_json::json;

struct Signer {
    key: EncodingKey,
    keys: KeySet,
}

impl Signer {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
        jwk["kid"] = json!("k1");
        let keys = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
        Self { key, keys }
    }

    fn sign(&self, header: &Value, payload: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload));
        let signature = crypto::sign(message.as_bytes(), &self.key, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "kid": "k1"}), &claims.to_string())
    }

    fn verify(&self, token: &str, rules: &TokenRules) -> Result<Claims, TokenError> {
        verify(token, &self.keys, rules, at(1000))
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn a_good_token_gives_its_claims() {
    let signer = Signer::new();
    let rules = TokenRules { issuer: Some("me".into()), audiences: vec!["istio-ca".into()], expiry: Expiry::Required };
    let claims =
        json!({"iss": "me", "sub": "system:serviceaccount:shop:reviews", "aud": ["x", "istio-ca"], "exp": 1100});
    let claims = signer.verify(&signer.token(&claims), &rules).unwrap();
    let domain = TrustDomain::parse("cluster.local").unwrap();
    assert_eq!(claims.workload_id(&domain).unwrap().as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
}

#[test]
fn one_audience_may_be_a_plain_text() {
    let signer = Signer::new();
    let rules = TokenRules { audiences: vec!["istio-ca".into()], ..Default::default() };
    assert!(signer.verify(&signer.token(&json!({"aud": "istio-ca"})), &rules).is_ok());
    for aud in [json!("other"), json!(["istio-ca-2"]), json!([])] {
        let refused = signer.verify(&signer.token(&json!({"aud": aud})), &rules);
        assert!(matches!(refused, Err(TokenError::Audience { .. })), "{refused:?}");
    }
    assert!(matches!(signer.verify(&signer.token(&json!({})), &rules), Err(TokenError::Audience { .. })));
    assert_eq!(
        signer.verify(&signer.token(&json!({"aud": 5})), &rules),
        Err(TokenError::Malformed("Jwt payload [aud] field is not a string or string list"))
    );
}

#[test]
fn times_have_a_minute_of_leeway() {
    let signer = Signer::new();
    let rules = TokenRules::default();
    for (claims, expected) in [
        (json!({"exp": 941}), None),
        (json!({"exp": 940}), Some(TokenError::Expired)),
        (json!({"nbf": 1060}), None),
        (json!({"nbf": 1061}), Some(TokenError::NotYetValid)),
        (json!({"exp": "soon"}), Some(TokenError::Malformed("Jwt payload [exp] field is not an integer"))),
        (json!({"exp": -1}), Some(TokenError::Malformed("Jwt payload [exp] field is not an integer"))),
        (json!({"exp": 1e300}), Some(TokenError::Malformed("Jwt payload [exp] field is not an integer"))),
    ] {
        assert_eq!(signer.verify(&signer.token(&claims), &rules).err(), expected, "{claims}");
    }
    let strict = TokenRules { expiry: Expiry::Required, ..Default::default() };
    assert_eq!(signer.verify(&signer.token(&json!({})), &strict), Err(TokenError::NoExpiry));
}

#[test]
fn neither_none_nor_a_shared_secret_verifies() {
    let signer = Signer::new();
    let payload = URL_SAFE_NO_PAD.encode("{}");
    for alg in ["none", "None", "HS256", "ES512", ""] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "k1"}).to_string());
        let verified = |signature| signer.verify(&format!("{header}.{payload}.{signature}"), &TokenRules::default());
        let refused = verified("AAAA");
        assert!(matches!(refused, Err(TokenError::Algorithm { .. })), "{alg}: {refused:?}");
        assert_eq!(verified(""), Err(NO_FORM), "{alg}");
    }
}

#[test]
fn a_changed_payload_or_foreign_key_fails() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let good = signer.token(&json!({"sub": "a"}));
    let other = signer.token(&json!({"sub": "b"}));
    let (message, _) = good.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    let rules = TokenRules::default();
    assert_eq!(signer.verify(&format!("{message}.{signature}"), &rules), Err(TokenError::Signature));
    assert_eq!(signer.verify(&stranger.token(&json!({})), &rules), Err(TokenError::Signature));
    let unknown = signer.sign(&json!({"alg": "ES256", "kid": "k9"}), "{}");
    assert_eq!(signer.verify(&unknown, &rules), Err(TokenError::UnknownKey));
    assert!(signer.verify(&signer.sign(&json!({"alg": "ES256"}), "{}"), &rules).is_ok(), "no kid: every key is tried");
}

#[test]
fn duplicate_claims_and_malformed_texts_are_refused() {
    let signer = Signer::new();
    let header = json!({"alg": "ES256", "kid": "k1"});
    let rules = TokenRules::default();
    let twice = signer.sign(&header, r#"{"sub":"a","sub":"admin"}"#);
    assert_eq!(signer.verify(&twice, &rules), Err(TokenError::Malformed(PAYLOAD[1])));
    let deep = format!("{}{}{}", r#"{"a":"#, "[".repeat(1000), "]".repeat(1000) + "}");
    assert_eq!(signer.verify(&signer.sign(&header, &deep), &rules), Err(TokenError::Malformed(PAYLOAD[1])));
    let critical = signer.sign(&json!({"alg": "ES256", "crit": ["b64"]}), "{}");
    assert!(matches!(signer.verify(&critical, &rules), Err(TokenError::Malformed(_))));
    for text in ["", ".", "..", "a.b", "a.b.c.d", "€.€.€"] {
        assert!(matches!(signer.verify(text, &rules), Err(TokenError::Malformed(_))), "{text}");
    }
    let long = "a".repeat(MAX_TOKEN_BYTES + 1);
    assert!(matches!(signer.verify(&long, &rules), Err(TokenError::Malformed(_))));
}

#[test]
fn a_subject_cannot_smuggle_an_identity() {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    for sub in [
        "",
        "reviews",
        "system:serviceaccount:shop",
        "system:serviceaccount:a/sa/admin:b",
        "system:serviceaccount:a:b:c",
    ] {
        let all = json!({ "sub": sub }).as_object().unwrap().clone();
        assert!(read_claims(all).unwrap().workload_id(&domain).is_err(), "{sub}");
    }
}
