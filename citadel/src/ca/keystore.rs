//! Where the signing key lives without Kubernetes: a directory with Istio's file names (spec CA-12, CA-13).

use crate::ca::contents::{CERT, CHAIN, Contents, GENERATED, KEY, MANAGER, ROOTS};
use crate::ca::root::{Authority, AuthorityError};
use identity::spiffe::TrustDomain;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key can be read by others.
    #[error("{0} can be read by others: run chmod 600 on it")]
    OpenKey(PathBuf),
    /// The files make no authority.
    #[error("{directory}: {source}")]
    Authority {
        /// Which directory.
        directory: PathBuf,
        /// What is wrong.
        source: Box<AuthorityError>,
    },
}

/// A directory with the material of one authority.
#[derive(Debug, Clone)]
pub struct Keystore {
    directory: PathBuf,
    domain: TrustDomain,
}

impl Keystore {
    /// The store in `directory` for a trust domain. Nothing is read yet.
    pub fn new(directory: &Path, domain: TrustDomain) -> Self {
        Self { directory: directory.to_owned(), domain }
    }

    /// Reads the authority; makes a root of our own where the directory holds none.
    ///
    /// # Errors
    /// [`KeystoreError`] names the file.
    pub fn load_or_create(&self, now: SystemTime) -> Result<Authority, KeystoreError> {
        if !self.contents()?.holds_authority() {
            self.create(now)?;
        }
        self.load(now)
    }

    /// Reads the authority.
    ///
    /// # Errors
    /// [`KeystoreError`] names the file.
    pub fn load(&self, now: SystemTime) -> Result<Authority, KeystoreError> {
        self.contents()?.authority(now).map_err(|source| self.unusable(source))
    }

    /// Whether citadel made the root itself, and so may replace it.
    pub fn is_generated(&self) -> bool {
        self.path(GENERATED).exists()
    }

    /// Replaces the own root by a new one from the same key; peers trust it by the old root's key too (CA-11).
    ///
    /// # Errors
    /// [`KeystoreError`] names the file.
    pub fn renew_root(&self, now: SystemTime) -> Result<(), KeystoreError> {
        let renewed = self.contents()?.renewed(&self.domain, now).map_err(|source| self.unusable(source))?;
        self.write(&renewed, &[ROOTS, CERT])
    }

    fn create(&self, now: SystemTime) -> Result<(), KeystoreError> {
        fs::create_dir_all(&self.directory).map_err(|source| io_error(&self.directory, source))?;
        let contents = Contents::generate(&self.domain, now).map_err(|source| self.unusable(source))?;
        self.write(&contents, &[KEY, GENERATED, ROOTS, CERT])?;
        tracing::info!(directory = %self.directory.display(), trust_domain = %self.domain, "made a root of our own");
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn contents(&self) -> Result<Contents, KeystoreError> {
        let mut contents = Contents::default();
        for name in [CERT, KEY, CHAIN, ROOTS, GENERATED].into_iter().chain(MANAGER) {
            let path = self.path(name);
            if !path.exists() {
                continue;
            }
            let facts = fs::metadata(&path).map_err(|source| io_error(&path, source))?;
            // The group is allowed: Kubernetes mounts secrets 0640 with fsGroup.
            if [KEY, MANAGER[1]].contains(&name) && facts.permissions().mode() & 0o007 != 0 {
                return Err(KeystoreError::OpenKey(path));
            }
            contents.insert(name, fs::read(&path).map_err(|source| io_error(&path, source))?);
        }
        Ok(contents)
    }

    /// Writes some names, the last of which makes the store whole.
    fn write(&self, contents: &Contents, names: &[&str]) -> Result<(), KeystoreError> {
        for name in names {
            let path = self.path(name);
            let mode = if *name == KEY { 0o600 } else { 0o644 };
            let bytes = contents.get(name).unwrap_or_default();
            write_atomically(&path, bytes, mode).map_err(|source| io_error(&path, source))?;
        }
        Ok(())
    }

    fn unusable(&self, source: AuthorityError) -> KeystoreError {
        KeystoreError::Authority { directory: self.directory.clone(), source: Box::new(source) }
    }
}

/// Writes a file so that readers see the old or the new content, never a part.
///
/// # Errors
/// What the system says.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), fastrand::u64(..)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written
}

fn io_error(path: &Path, source: io::Error) -> KeystoreError {
    KeystoreError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    use std::time::Duration;

    fn store(directory: &Path) -> Keystore {
        Keystore::new(directory, TrustDomain::parse("cluster.local").unwrap())
    }

    fn ca_params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    /// Root → intermediate; files as the certificate task of Istio makes them.
    fn plugged(directory: &Path, algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let root_key = KeyPair::generate_for(algorithm).unwrap();
        let mut root_params = ca_params();
        root_params.distinguished_name.push(rcgen::DnType::CommonName, "Root CA");
        let root = root_params.self_signed(&root_key).unwrap().pem();
        let key = KeyPair::generate_for(algorithm).unwrap();
        let cert = ca_params().signed_by(&key, &Issuer::from_params(&root_params, &root_key)).unwrap().pem();
        fs::write(directory.join(CERT), &cert).unwrap();
        write_atomically(&directory.join(KEY), key.serialize_pem().as_bytes(), 0o600).unwrap();
        fs::write(directory.join(CHAIN), format!("{cert}{root}")).unwrap();
        fs::write(directory.join(ROOTS), &root).unwrap();
        (cert, root)
    }

    // bar: C4
    #[test]
    fn makes_a_root_once_with_a_private_key_file() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory.path().join("new"));
        let first = store.load_or_create(SystemTime::now()).unwrap();
        let again = store.load_or_create(SystemTime::now()).unwrap();
        assert_eq!(first.roots(), again.roots());
        let mode = fs::metadata(store.path(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(store.is_generated());
        // spec: CA-10
        let days = first.root_life().length().as_secs() / 86_400;
        assert_eq!(days, 3650);
    }

    // spec: CA-1, CA-12, CA-21
    // bar: C4
    #[test]
    fn a_plugged_intermediate_signs_for_its_root() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
            let directory = tempfile::tempdir().unwrap();
            let (cert, root) = plugged(directory.path(), algorithm);
            let authority = store(directory.path()).load_or_create(SystemTime::now()).unwrap();
            let above: String = authority.intermediates().iter().map(identity::pem::encode_certificate).collect();
            assert_eq!(above.lines().collect::<Vec<_>>(), cert.lines().collect::<Vec<_>>());
            assert_eq!(authority.roots().to_pem().lines().count(), root.lines().count());
            assert!(!store(directory.path()).is_generated());
            let id = identity::spiffe::SpiffeId::parse("spiffe://cluster.local/ns/a/sa/b").unwrap();
            let csr = identity::csr::Csr::generate(&id).unwrap();
            let grant = crate::ca::policy::Grant { id, hosts: Vec::new(), ttl: Duration::from_secs(60) };
            let chain = crate::ca::sign::sign(&authority, &csr.pem, &grant, SystemTime::now()).unwrap();
            assert_eq!(chain.len(), 3, "leaf, intermediate, roots");
            assert_eq!(chain[1].lines().collect::<Vec<_>>(), cert.lines().collect::<Vec<_>>());
            assert_eq!(chain[2], authority.roots().to_pem());
        }
    }

    // spec: CA-12
    #[test]
    fn cert_manager_names_are_read_too() {
        let directory = tempfile::tempdir().unwrap();
        plugged(directory.path(), &rcgen::PKCS_ECDSA_P256_SHA256);
        for (from, to) in [(CERT, "tls.crt"), (KEY, "tls.key"), (ROOTS, "ca.crt")] {
            fs::rename(directory.path().join(from), directory.path().join(to)).unwrap();
        }
        fs::remove_file(directory.path().join(CHAIN)).unwrap();
        assert_eq!(store(directory.path()).load_or_create(SystemTime::now()).unwrap().intermediates().len(), 1);
    }

    // spec: CA-12
    #[test]
    fn an_intermediate_must_lead_to_the_root_and_fit_its_key() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        plugged(one.path(), &rcgen::PKCS_ECDSA_P256_SHA256);
        plugged(two.path(), &rcgen::PKCS_ECDSA_P256_SHA256);
        for file in [ROOTS, KEY] {
            let kept = fs::read(one.path().join(file)).unwrap();
            fs::write(one.path().join(file), fs::read(two.path().join(file)).unwrap()).unwrap();
            let refused = store(one.path()).load(SystemTime::now());
            let Err(KeystoreError::Authority { source, .. }) = refused else { panic!("{file}: {refused:?}") };
            assert!(matches!(*source, AuthorityError::Chain(_)), "{file}: {source}");
            fs::write(one.path().join(file), kept).unwrap();
        }
        store(one.path()).load(SystemTime::now()).unwrap();
    }

    // bar: C4
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        plugged(directory.path(), &rcgen::PKCS_ECDSA_P256_SHA256);
        fs::set_permissions(directory.path().join(KEY), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(store(directory.path()).load(SystemTime::now()), Err(KeystoreError::OpenKey(_))));
    }

    // spec: CA-11
    #[test]
    fn a_renewed_root_keeps_the_key_and_old_peers() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let old = store.load_or_create(SystemTime::now()).unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        store.renew_root(later).unwrap();
        let new = store.load(later).unwrap();
        assert!(new.signing_life().not_after > old.signing_life().not_after);
        assert_eq!(new.roots().certificates().len(), 2);
        let probe = crate::ca::sign::probe(&KeyPair::generate().unwrap(), &new, later).unwrap();
        identity::verify::PeerVerifier::new(
            old.roots(),
            identity::san::SanMatch::any(),
            identity::verify::Role::Client,
        )
        .check(&probe, &new.intermediates(), rustls_pki_types::UnixTime::now())
        .unwrap();
    }
}
