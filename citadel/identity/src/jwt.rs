//! Tokens (RFC 7519) checked against a key set: those of end users and of workloads that enrol.
//!
//! Pure: keys and time are arguments. Only public-key algorithms are accepted, so neither `none` nor a shared secret
//! can ever verify.

use crate::jwks::KeySet;
use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Tolerance between clocks, as Envoy's `clock_skew_seconds`.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// Why a token is refused. The text never holds any part of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three base64url parts with JSON in the first two, or too long.
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections: {0}")]
    Malformed(&'static str),
    /// The algorithm is none of the supported public-key algorithms.
    #[error("Jwt header [alg] is not supported: {0:?}")]
    Algorithm(String),
    /// No key of the set fits key id and algorithm.
    #[error("Jwt header refers to a key that is not in the key set")]
    UnknownKey,
    /// No fitting key verifies the signature.
    #[error("Jwt verification fails")]
    Signature,
    /// Past its end.
    #[error("Jwt is expired")]
    Expired,
    /// Before its beginning.
    #[error("Jwt not yet valid")]
    NotYetValid,
    /// Without `exp`, where one is required.
    #[error("Jwt has no expiry (claim exp), which is required here")]
    NoExpiry,
    /// Of another issuer.
    #[error("Jwt issuer is not configured: expected {expected:?}")]
    Issuer {
        /// The issuer that was configured.
        expected: String,
    },
    /// For another audience.
    #[error("Audiences in Jwt are not allowed: expected one of {expected:?}")]
    Audience {
        /// The audiences that were configured.
        expected: Vec<String>,
    },
}

/// Whether a token must say when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// Refuse tokens without `exp`.
    Required,
    /// Accept them for ever, as Envoy does.
    #[default]
    Optional,
}

/// What a token must satisfy beyond its signature.
#[derive(Debug, Clone, Default)]
pub struct TokenRules {
    /// The issuer; `None` accepts any.
    pub issuer: Option<String>,
    /// Acceptable audiences; empty accepts any.
    pub audiences: Vec<String>,
    /// Whether `exp` is required.
    pub expiry: Expiry,
}

/// The claims of a verified token.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`, a text or a list of texts.
    pub audiences: Vec<String>,
    /// `exp`.
    pub expires: Option<SystemTime>,
    /// All claims as they stand in the token.
    pub all: Map<String, Value>,
}

impl Claims {
    /// The identity of a workload's token: `sub` is a SPIFFE id or `system:serviceaccount:<namespace>:<account>`.
    ///
    /// # Errors
    /// [`SpiffeError`] where `sub` is neither.
    pub fn workload_id(&self, domain: &TrustDomain) -> Result<SpiffeId, SpiffeError> {
        let subject = self.subject.as_deref().unwrap_or_default();
        let Some(account) = subject.strip_prefix("system:serviceaccount:") else {
            return SpiffeId::parse(subject);
        };
        let (namespace, name) = account.split_once(':').ok_or_else(|| SpiffeError::Path(subject.to_owned()))?;
        SpiffeId::service_account(domain, namespace, name)
    }
}

/// Verifies a token.
///
/// # Errors
/// [`TokenError`] says which rule the token breaks; the signature is checked before any claim.
pub fn verify(token: &str, keys: &KeySet, rules: &TokenRules, now: SystemTime) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed("longer than 16 KiB"));
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("no signature"))?;
    let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed("no payload"))?;
    if payload.contains('.') {
        return Err(TokenError::Malformed("more than three sections"));
    }
    let header: Header = section(header, "header")?;
    let algorithm = header.algorithm()?;
    let mut tried = false;
    let verifies = keys.candidates(header.key_id.as_deref(), algorithm).any(|key| {
        tried = true;
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, algorithm).unwrap_or(false)
    });
    if !verifies {
        return Err(if tried { TokenError::Signature } else { TokenError::UnknownKey });
    }
    let Unique(all) = section(payload, "payload")?;
    let claims = read_claims(all)?;
    rules.check(&claims, now)?;
    Ok(claims)
}

impl TokenRules {
    fn check(&self, claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
        match claims.expires {
            Some(end) if now >= end + LEEWAY => return Err(TokenError::Expired),
            None if self.expiry == Expiry::Required => return Err(TokenError::NoExpiry),
            _ => {}
        }
        if time_claim(&claims.all, "nbf")?.is_some_and(|start| now + LEEWAY < start) {
            return Err(TokenError::NotYetValid);
        }
        if let Some(expected) = &self.issuer
            && claims.issuer.as_ref() != Some(expected)
        {
            return Err(TokenError::Issuer { expected: expected.clone() });
        }
        if !self.audiences.is_empty() && !self.audiences.iter().any(|wanted| claims.audiences.contains(wanted)) {
            return Err(TokenError::Audience { expected: self.audiences.clone() });
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(rename = "kid")]
    key_id: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

impl Header {
    fn algorithm(&self) -> Result<Algorithm, TokenError> {
        if self.crit.is_some() {
            return Err(TokenError::Malformed("critical header fields are not supported"));
        }
        Ok(match self.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "RS384" => Algorithm::RS384,
            "RS512" => Algorithm::RS512,
            "PS256" => Algorithm::PS256,
            "PS384" => Algorithm::PS384,
            "PS512" => Algorithm::PS512,
            "ES256" => Algorithm::ES256,
            "ES384" => Algorithm::ES384,
            "EdDSA" => Algorithm::EdDSA,
            other => return Err(TokenError::Algorithm(other.chars().take(16).collect())),
        })
    }
}

fn section<T: for<'a> Deserialize<'a>>(text: &str, name: &'static str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed(name))?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed(name))
}

fn read_claims(all: Map<String, Value>) -> Result<Claims, TokenError> {
    let text = |name: &'static str| match all.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(TokenError::Malformed(name)),
    };
    let audiences = match all.get("aud") {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => {
            let item = |v: &Value| v.as_str().map(str::to_owned).ok_or(TokenError::Malformed("aud"));
            many.iter().map(item).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(TokenError::Malformed("aud")),
    };
    let (issuer, subject, expires) = (text("iss")?, text("sub")?, time_claim(&all, "exp")?);
    Ok(Claims { issuer, subject, audiences, expires, all })
}

fn time_claim(all: &Map<String, Value>, name: &'static str) -> Result<Option<SystemTime>, TokenError> {
    let Some(value) = all.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|s| s.is_finite() && *s >= 0.0).ok_or(TokenError::Malformed(name))?;
    let span = Duration::try_from_secs_f64(seconds).map_err(|_| TokenError::Malformed(name))?;
    UNIX_EPOCH.checked_add(span).map(Some).ok_or(TokenError::Malformed(name))
}

/// A JSON object in which no name occurs twice: two readers of a duplicate could see two identities.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Unique;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
                let mut all = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if all.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("duplicate claim"));
                    }
                }
                Ok(Unique(all))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests;
