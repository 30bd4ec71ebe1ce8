//! Issuers of tokens for end users, as an identity provider signs them.

use anyhow::Context;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// An issuer with one ECDSA key.
pub struct Issuer {
    /// `iss` of its tokens.
    pub name: String,
    key_id: String,
    key: EncodingKey,
    jwk: Value,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Issuer {
    /// A new issuer with a new key.
    ///
    /// # Errors
    /// When the crypto library makes no key.
    pub fn new(name: &str, key_id: &str) -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1()?.as_ref());
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).context("no key")?)?;
        jwk["kid"] = key_id.into();
        Ok(Self { name: name.to_owned(), key_id: key_id.to_owned(), key, jwk })
    }

    /// Its public key as a key set.
    pub fn key_set(&self) -> String {
        json!({"keys": [self.jwk]}).to_string()
    }

    /// A token of these claims; `iss` is added where it is missing.
    ///
    /// # Errors
    /// When the crypto library refuses to sign.
    pub fn token(&self, mut claims: Value) -> anyhow::Result<String> {
        if claims.get("iss").is_none() {
            claims["iss"] = self.name.as_str().into();
        }
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}
