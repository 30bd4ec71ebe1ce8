//! Bootstrap tokens where no Kubernetes issues them: a JWT bound to one SPIFFE id, signed by a key of the operator.

use crate::ca::keystore::write_atomically;
use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use identity::csr::PrivateKey;
use identity::pem;
use identity::spiffe::SpiffeId;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Issuer in bootstrap tokens.
pub const ISSUER: &str = "ferromesh-bootstrap";

/// `citadel token`.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// The only identity that the token proves.
    #[arg(long)]
    spiffe_id: String,
    /// Signing key (PEM, mode 0600); made where it does not exist.
    #[arg(long)]
    key: PathBuf,
    /// Seconds that the token lives.
    #[arg(long, default_value_t = 3600)]
    ttl_s: u64,
    /// Also write the public half as a key set, for `citadel serve --token-jwks`.
    #[arg(long)]
    jwks_out: Option<PathBuf>,
}

/// Prints a token.
///
/// # Errors
/// Where the id is malformed or a file cannot be used.
pub fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let id = SpiffeId::parse(&args.spiffe_id)?;
    let key = TokenKey::load_or_create(&args.key)?;
    if let Some(path) = &args.jwks_out {
        write_atomically(path, key.jwks().to_string().as_bytes(), 0o644)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let token = key.mint(&id, Duration::from_secs(args.ttl_s), SystemTime::now())?;
    writeln!(std::io::stdout(), "{token}")?;
    Ok(())
}

/// The key that signs bootstrap tokens.
pub struct TokenKey {
    encoding: EncodingKey,
    jwk: Value,
    id: String,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// Reads the key, or makes an ECDSA P-256 key in a 0600 file.
    ///
    /// # Errors
    /// Where the file cannot be read or written, or is no PKCS#8 P-256 key.
    pub fn load_or_create(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
            let key = PrivateKey::from_pkcs8(pair.to_pkcs8v1()?.as_ref().to_vec());
            write_atomically(path, key.to_pem().as_bytes(), 0o600)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let text = Zeroizing::new(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
        let key = PrivateKey::from_der(&pem::private_key(&text)?);
        let encoding = EncodingKey::from_ec_der(key.secret_der());
        let jwk = Jwk::from_encoding_key(&encoding, Algorithm::ES256)
            .with_context(|| format!("{} is no PKCS#8 key on P-256", path.display()))?;
        let mut jwk = serde_json::to_value(jwk)?;
        let id =
            digest(&SHA256, jwk.to_string().as_bytes()).as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect();
        jwk["kid"] = json!(id);
        jwk["alg"] = json!("ES256");
        Ok(Self { encoding, jwk, id })
    }

    /// The public half as a key set.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk] })
    }

    /// A token that proves `id` to the CA for a while.
    ///
    /// # Errors
    /// When the crypto library refuses to sign.
    pub fn mint(&self, id: &SpiffeId, ttl: Duration, now: SystemTime) -> anyhow::Result<String> {
        let seconds = now.duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": ISSUER, "sub": id.as_str(), "aud": [proto::wire::TOKEN_AUDIENCE],
            "iat": seconds, "nbf": seconds, "exp": seconds + ttl.as_secs(),
        });
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.encoding)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::jwks::KeySet;
    use identity::jwt::{TokenRules, verify};
    use identity::spiffe::TrustDomain;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_proves_its_one_id() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token-key.pem");
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/reviews").unwrap();
        let token =
            TokenKey::load_or_create(&path).unwrap().mint(&id, Duration::from_secs(60), SystemTime::now()).unwrap();
        let keys = TokenKey::load_or_create(&path).unwrap().jwks().to_string();
        let claims =
            verify(&token, &KeySet::parse(keys.as_bytes()).unwrap(), &TokenRules::default(), SystemTime::now())
                .unwrap();
        assert_eq!(claims.workload_id(&TrustDomain::parse("cluster.local").unwrap()).unwrap(), id);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!keys.contains("\"d\""), "the private half stays private");
    }
}
