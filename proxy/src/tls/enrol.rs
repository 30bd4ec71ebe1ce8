//! Where and as whom this proxy enrols, as its environment says (PT-14; main thread only). The crate `credentials` does so.

use crate::bootstrap::Environment;
use crate::bootstrap::pod::{IDENTITY_SOCKET, IDENTITY_SOCKET_VARIABLE, IDENTITY_SOCKETS, identity_socket};
use anyhow::{Context, ensure};
use credentials::Config;
use identity::spiffe::{SpiffeId, TrustDomain};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Token and roots where Istio's injection puts them (PT-14).
const TOKEN_FILE: &str = "/var/run/secrets/tokens/istio-token";
const ROOT_FILE: &str = "/var/run/secrets/istio/root-cert.pem";

/// Reads the variables of Istio's agent: `CA_ADDR` says that this proxy enrols by itself; `CA_ROOT_CA`, `TRUST_DOMAIN`,
/// `POD_NAMESPACE`, `SERVICE_ACCOUNT`, `SECRET_TTL` and `ISTIO_META_CLUSTER_ID` are Istio's, `CA_HOST` and `CA_TOKEN_FILE` name
/// what is fixed there. `None` where the proxy does not enrol: its certificates are files, or another process has a socket
/// of secrets here, as SPIRE has (CA-19).
///
/// # Errors
/// Names the variable that is missing or cannot be used.
pub fn config(environment: &Environment, state_dir: Option<&Path>) -> anyhow::Result<Option<Config>> {
    config_beside(Path::new(IDENTITY_SOCKETS), environment, state_dir)
}

/// The same with another directory for sockets.
fn config_beside(
    sockets: &Path,
    environment: &Environment,
    state_dir: Option<&Path>,
) -> anyhow::Result<Option<Config>> {
    let name = identity_socket(environment);
    let socket = sockets.join(name);
    if socket.metadata().is_ok_and(|facts| facts.file_type().is_socket()) {
        tracing::info!(socket = %socket.display(), "another process gives the identity");
        return Ok(None);
    }
    // Whoever names a socket does not want certificates from elsewhere.
    ensure!(name == IDENTITY_SOCKET, "{IDENTITY_SOCKET_VARIABLE}: there is no socket {}", socket.display());
    let Some(address) = environment.get("CA_ADDR").filter(|address| !address.is_empty()) else { return Ok(None) };
    let needed = |name: &str| environment.get(name).with_context(|| format!("CA_ADDR is set, so {name} is needed"));
    let domain = TrustDomain::from_mesh_config(environment.get("TRUST_DOMAIN").unwrap_or("cluster.local"))
        .context("TRUST_DOMAIN")?;
    let identity = SpiffeId::service_account(&domain, needed("POD_NAMESPACE")?, needed("SERVICE_ACCOUNT")?)
        .context("POD_NAMESPACE, SERVICE_ACCOUNT")?;
    let token = environment.get("CA_TOKEN_FILE").unwrap_or(TOKEN_FILE);
    Ok(Some(Config {
        ca_address: address.to_owned(),
        ca_host: environment.get("CA_HOST").unwrap_or_else(|| credentials::host_of(address)).to_owned(),
        ca_roots: environment.get("CA_ROOT_CA").unwrap_or(ROOT_FILE).into(),
        token_file: Some(token).filter(|path| !path.is_empty()).map(Into::into),
        cluster_id: environment.get("ISTIO_META_CLUSTER_ID").map(str::to_owned),
        identity,
        ttl_s: ttl_s(environment)?,
        state_dir: state_dir.map(Path::to_owned),
    }))
}

/// Seconds of validity to ask for, as `SECRET_TTL` says (PI-83); without it the CA decides.
fn ttl_s(environment: &Environment) -> anyhow::Result<i64> {
    let Some(text) = environment.get("SECRET_TTL").filter(|text| !text.is_empty()) else { return Ok(0) };
    let parsed = proto::duration::parse(text).context("SECRET_TTL: a duration as 24h or 90m is needed")?;
    Ok(i64::try_from(parsed.as_secs())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

    // spec: PT-14, PI-83
    #[test]
    fn the_environment_says_who_enrols_where() {
        let read = |environment: Environment| config(&environment, None);
        assert!(read(Environment::from([("POD_NAMESPACE", "shop")])).unwrap().is_none());
        let found = read(Environment::from([
            ("CA_ADDR", "istiod:15012"),
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "reviews"),
        ]));
        let found = found.unwrap().unwrap();
        assert_eq!((found.identity.as_str(), found.ttl_s), (REVIEWS, 0));
        assert_eq!(found.token_file.as_deref(), Some(Path::new("/var/run/secrets/tokens/istio-token")));
        let with_ttl = |ttl: &str| {
            let fixed = [("CA_ADDR", "x:1"), ("POD_NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "reviews")];
            read(Environment::from([fixed[0], fixed[1], fixed[2], ("SECRET_TTL", ttl)]))
        };
        assert_eq!(with_ttl("24h0m0s").unwrap().unwrap().ttl_s, 86_400);
        let error = with_ttl("a day").unwrap_err().to_string();
        assert_eq!(error, "SECRET_TTL: a duration as 24h or 90m is needed");
        let error = read(Environment::from([("CA_ADDR", "x"), ("POD_NAMESPACE", "shop")])).unwrap_err();
        assert_eq!(error.to_string(), "CA_ADDR is set, so SERVICE_ACCOUNT is needed");
    }

    // spec: PT-14, CA-19
    #[test]
    fn whoever_has_a_socket_of_secrets_gives_the_identity() {
        let directory = tempfile::tempdir().unwrap();
        let fixed = [("CA_ADDR", "x:1"), ("POD_NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "reviews")];
        let named = [fixed[0], fixed[1], fixed[2], (IDENTITY_SOCKET_VARIABLE, "spire.sock")];
        let read = |environment: Environment| config_beside(directory.path(), &environment, None);
        std::fs::write(directory.path().join("socket"), "").unwrap();
        assert!(read(fixed.into()).unwrap().is_some(), "a file is no socket");
        std::fs::remove_file(directory.path().join("socket")).unwrap();
        let error = read(named.into()).unwrap_err().to_string();
        assert!(error.starts_with("WORKLOAD_IDENTITY_SOCKET_FILE: there is no socket /"), "{error}");
        let _spire = UnixListener::bind(directory.path().join("spire.sock")).unwrap();
        assert!(read(named.into()).unwrap().is_none());
        assert!(read(fixed.into()).unwrap().is_some(), "it has another name");
        let _other = UnixListener::bind(directory.path().join("socket")).unwrap();
        assert!(read(fixed.into()).unwrap().is_none());
    }
}
