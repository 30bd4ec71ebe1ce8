//! Key sets (RFC 7517): public keys that tokens are checked against.

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use std::str::FromStr;

/// Most keys that one set may hold.
pub const MAX_KEYS: usize = 256;

/// Why a key set could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// The text is no JSON object with a `keys` list.
    #[error("no JSON Web Key Set: {0}")]
    Malformed(serde_json::Error),
    /// More than [`MAX_KEYS`] keys.
    #[error("a key set of {0} keys: at most 256 are allowed")]
    TooMany(usize),
    /// No key of the set can verify a signature.
    #[error("the key set holds no usable key: RSA, EC (P-256, P-384) and Ed25519 public keys are supported")]
    Empty,
}

/// The usable public keys of a set. Keys of unknown kinds are left out, secret keys are never used.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    decoding: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads a JWKS document.
    ///
    /// # Errors
    /// [`KeySetError`] where the document is malformed or has no usable key.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let document: Document = serde_json::from_slice(json).map_err(KeySetError::Malformed)?;
        if document.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(document.keys.len()));
        }
        let keys: Vec<Key> = document.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self { keys }) }
    }

    /// The set of no key: it verifies no token.
    pub fn empty() -> Self {
        Self { keys: Vec::new() }
    }

    /// How many usable keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no usable key; true of [`Self::empty`] alone.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys that may have signed a token with this key id and algorithm. Without a key id every fitting key is tried.
    pub fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a DecodingKey> {
        let fits = move |key: &&Key| {
            id.is_none_or(|id| key.id.as_deref().is_none_or(|own| own == id))
                && key.algorithm.is_none_or(|own| own == algorithm)
                && key.decoding.family().algorithms().contains(&algorithm)
        };
        self.keys.iter().filter(fits).map(|key| &key.decoding)
    }
}

fn usable(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
        return None; // a shared secret in a public document is no secret
    }
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let algorithm = match jwk.common.key_algorithm {
        Some(KeyAlgorithm::UNKNOWN_ALGORITHM) => return None,
        Some(named) => Some(Algorithm::from_str(&named.to_string()).ok()?),
        None => None,
    };
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    if decoding.family() == AlgorithmFamily::Hmac {
        return None;
    }
    Some(Key { id: jwk.common.key_id, algorithm, decoding })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"one","alg":"ES256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

    #[test]
    fn keeps_the_good_keys_of_a_mixed_set() {
        let set = format!(
            r#"{{"keys":[{EC},{{"kty":"oct","k":"c2VjcmV0","kid":"shared"}},{{"kty":"new-kind"}},{{"kty":"EC","crv":"P-256","use":"enc","x":"AA","y":"AA"}}]}}"#
        );
        let set = KeySet::parse(set.as_bytes()).unwrap();
        assert_eq!(set.len(), 1);
        assert_eq!(set.candidates(Some("one"), Algorithm::ES256).count(), 1);
        assert_eq!(set.candidates(None, Algorithm::ES256).count(), 1);
        assert_eq!(set.candidates(Some("two"), Algorithm::ES256).count(), 0);
        assert_eq!(set.candidates(Some("one"), Algorithm::ES384).count(), 0);
        assert_eq!(set.candidates(Some("one"), Algorithm::RS256).count(), 0);
        assert_eq!(set.candidates(Some("one"), Algorithm::HS256).count(), 0);
    }

    #[test]
    fn says_why_a_set_is_refused() {
        assert!(matches!(KeySet::parse(b"[]"), Err(KeySetError::Malformed(_))));
        assert!(matches!(KeySet::parse(br#"{"keys":[]}"#), Err(KeySetError::Empty)));
        let many = format!(r#"{{"keys":[{}]}}"#, vec![EC; 257].join(","));
        assert!(matches!(KeySet::parse(many.as_bytes()), Err(KeySetError::TooMany(257))));
    }
}
