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
    /// Not three base64url parts with JSON in the first two, too long, or a claim of the wrong type; says which.
    #[error("{0}")]
    Malformed(&'static str),
    /// The algorithm is none of the supported public-key algorithms.
    #[error("{}: {name:?}", self.text())]
    Algorithm {
        /// Its name, at most 16 characters of it.
        name: String,
    },
    /// No key of the set fits key id and algorithm.
    #[error("{}", self.text())]
    UnknownKey,
    /// No fitting key verifies the signature.
    #[error("{}", self.text())]
    Signature,
    /// Past its end.
    #[error("{}", self.text())]
    Expired,
    /// Before its beginning.
    #[error("{}", self.text())]
    NotYetValid,
    /// Without `exp`, where one is required.
    #[error("{}", self.text())]
    NoExpiry,
    /// Of another issuer.
    #[error("{}: expected {expected:?}", self.text())]
    Issuer {
        /// The issuer that was configured.
        expected: String,
    },
    /// For another audience.
    #[error("{}: expected one of {expected:?}", self.text())]
    Audience {
        /// The audiences that were configured.
        expected: Vec<String>,
    },
}

impl TokenError {
    /// The text for whoever sent the token, as Envoy's `jwt_verify_lib` has it: without what is configured here.
    pub fn text(&self) -> &'static str {
        match self {
            Self::Malformed(text) => text,
            Self::Algorithm { .. } => "Jwt header [alg] is not supported",
            Self::UnknownKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::Signature => "Jwt verification fails",
            Self::Expired => "Jwt is expired",
            Self::NotYetValid => "Jwt not yet valid",
            Self::NoExpiry => "Jwt has no expiry (claim exp), which is required here",
            Self::Issuer { .. } => "Jwt issuer is not configured",
            Self::Audience { .. } => "Audiences in Jwt are not allowed",
        }
    }
}

const NO_FORM: TokenError =
    TokenError::Malformed("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections");
const TOO_LONG: TokenError = TokenError::Malformed("Jwt is longer than 16 KiB");
/// Texts for a section that is no base64url, and for one that is no JSON object.
const HEADER: [&str; 2] = ["Jwt header is an invalid Base64url encoded", "Jwt header is an invalid JSON"];
const PAYLOAD: [&str; 2] = ["Jwt payload is an invalid Base64url encoded", "Jwt payload is an invalid JSON"];
const CRITICAL: TokenError = TokenError::Malformed("Jwt header has critical fields, which are not supported");

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
    let claims = Unverified::parse(token)?.verify(keys)?;
    rules.check(&claims, now)?;
    Ok(claims)
}

/// A token that was read and not verified yet: its issuer says which keys to verify it with.
#[derive(Debug)]
pub struct Unverified<'a> {
    message: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    key_id: Option<String>,
    claims: Claims,
}

impl<'a> Unverified<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`] where it is malformed or uses another algorithm than the supported ones.
    pub fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TOO_LONG);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(NO_FORM)?;
        let (header, payload) = message.split_once('.').ok_or(NO_FORM)?;
        if payload.contains('.') || signature.is_empty() {
            return Err(NO_FORM);
        }
        let header: Header = section(header, HEADER)?;
        let algorithm = header.algorithm()?;
        let Unique(all) = section(payload, PAYLOAD)?;
        Ok(Self { message, signature, algorithm, key_id: header.key_id, claims: read_claims(all)? })
    }

    /// What the token claims. Nobody has proven it.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The payload as it stands in the token, base64url.
    pub fn payload(&self) -> &'a str {
        self.message.split_once('.').map_or("", |(_, payload)| payload)
    }

    /// The claims, once a key of the set has verified them.
    ///
    /// # Errors
    /// [`TokenError`] where no key does.
    pub fn verify(self, keys: &KeySet) -> Result<Claims, TokenError> {
        let mut tried = false;
        let verifies = keys.candidates(self.key_id.as_deref(), self.algorithm).any(|key| {
            tried = true;
            let message = self.message.as_bytes();
            jsonwebtoken::crypto::verify(self.signature, message, key, self.algorithm).unwrap_or(false)
        });
        if verifies {
            return Ok(self.claims);
        }
        Err(if tried { TokenError::Signature } else { TokenError::UnknownKey })
    }
}

impl TokenRules {
    /// Whether claims satisfy the rules.
    ///
    /// # Errors
    /// [`TokenError`] for the first of issuer, time and audience that is wrong.
    pub fn check(&self, claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
        if let Some(expected) = &self.issuer
            && claims.issuer.as_ref() != Some(expected)
        {
            return Err(TokenError::Issuer { expected: expected.clone() });
        }
        if time_claim(&claims.all, "nbf")?.is_some_and(|start| now + LEEWAY < start) {
            return Err(TokenError::NotYetValid);
        }
        match claims.expires {
            Some(end) if now >= end + LEEWAY => return Err(TokenError::Expired),
            None if self.expiry == Expiry::Required => return Err(TokenError::NoExpiry),
            _ => {}
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
            return Err(CRITICAL);
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
            other => return Err(TokenError::Algorithm { name: other.chars().take(16).collect() }),
        })
    }
}

fn section<T: for<'a> Deserialize<'a>>(text: &str, [encoding, json]: [&'static str; 2]) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed(encoding))?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed(json))
}

fn read_claims(all: Map<String, Value>) -> Result<Claims, TokenError> {
    let text = |name: &str, wrong: &'static str| match all.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(TokenError::Malformed(wrong)),
    };
    let wrong = TokenError::Malformed("Jwt payload [aud] field is not a string or string list");
    let audiences = match all.get("aud") {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => {
            let item = |v: &Value| v.as_str().map(str::to_owned).ok_or_else(|| wrong.clone());
            many.iter().map(item).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(wrong),
    };
    let issuer = text("iss", "Jwt payload [iss] field is not a string")?;
    let subject = text("sub", "Jwt payload [sub] field is not a string")?;
    let expires = time_claim(&all, "exp")?;
    time_claim(&all, "nbf")?;
    Ok(Claims { issuer, subject, audiences, expires, all })
}

fn time_claim(all: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, TokenError> {
    let wrong = TokenError::Malformed(match name {
        "exp" => "Jwt payload [exp] field is not an integer",
        _ => "Jwt payload [nbf] field is not an integer",
    });
    let Some(value) = all.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|s| s.is_finite() && *s >= 0.0);
    let span = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    span.and_then(|span| UNIX_EPOCH.checked_add(span)).map(Some).ok_or(wrong)
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
