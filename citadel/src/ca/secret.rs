//! Where the signing key lives on Kubernetes: a Secret of the control plane's namespace (spec CA-12, CA-13).
//!
//! `cacerts` is what an operator plugs in; without it `istio-ca-secret` holds a root of our own. The API server creates
//! a Secret once and replaces it only by the version that was read: two citadels make one root, without a lease.

use crate::ca::contents::{Contents, GENERATED};
use crate::ca::root::{Authority, AuthorityError};
use crate::ca::rotate::is_due;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use identity::spiffe::TrustDomain;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use std::time::SystemTime;

/// What an operator plugs in.
pub const PLUGGED: &str = "cacerts";
/// A root of our own.
pub const OWN: &str = "istio-ca-secret";
/// Type of the Secret with a root of our own, as Istio has it.
const OWN_TYPE: &str = "istio.io/ca-root";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server refuses or is away.
    #[error("secret {name} in namespace {namespace}: {source}")]
    Api {
        /// Which Secret.
        name: &'static str,
        /// Where.
        namespace: String,
        /// What the server said.
        source: Box<kube::Error>,
    },
    /// What it holds makes no authority.
    #[error("secret {name} in namespace {namespace}: {source}")]
    Authority {
        /// Which Secret.
        name: &'static str,
        /// Where.
        namespace: String,
        /// What is wrong.
        source: Box<AuthorityError>,
    },
    /// It is gone.
    #[error("secret {name} in namespace {namespace} is gone")]
    Gone {
        /// Which Secret.
        name: &'static str,
        /// Where.
        namespace: String,
    },
}

/// The Secret with the material of one authority.
#[derive(Clone)]
pub struct SecretStore {
    api: Api<Secret>,
    namespace: String,
    domain: TrustDomain,
    name: &'static str,
}

impl SecretStore {
    /// Finds the Secret, or makes a root of our own; with the authority that is in it.
    ///
    /// # Errors
    /// [`SecretError`] names the Secret.
    pub async fn open(
        client: Client,
        namespace: &str,
        domain: TrustDomain,
        now: SystemTime,
    ) -> Result<(Self, Authority), SecretError> {
        let api = Api::namespaced(client, namespace);
        let mut store = Self { api, namespace: namespace.to_owned(), domain, name: PLUGGED };
        if store.get().await?.is_none() {
            store.name = OWN;
            if store.get().await?.is_none() {
                store.create(now).await?;
            }
        }
        let authority = store.load(now).await?;
        tracing::info!(secret = store.name, namespace, "authority is in use");
        Ok((store, authority))
    }

    /// Reads the authority.
    ///
    /// # Errors
    /// [`SecretError`] names the Secret.
    pub async fn load(&self, now: SystemTime) -> Result<Authority, SecretError> {
        let Some(secret) = self.get().await? else { return Err(self.gone()) };
        self.contents(&secret).authority(now).map_err(|source| self.unusable(source))
    }

    /// Replaces an own root that is due; a version that another citadel has written meanwhile stays.
    ///
    /// # Errors
    /// [`SecretError`] names the Secret.
    pub async fn renew_if_due(&self, now: SystemTime) -> Result<(), SecretError> {
        let Some(secret) = self.get().await? else { return Err(self.gone()) };
        let contents = self.contents(&secret);
        let life = contents.authority(now).map_err(|source| self.unusable(source))?.signing_life();
        if !contents.is_generated() || !is_due(life, now) {
            return Ok(());
        }
        let renewed = contents.renewed(&self.domain, now).map_err(|source| self.unusable(source))?;
        let secret = Secret { data: Some(data(&renewed)), ..secret };
        match self.api.replace(self.name, &PostParams::default(), &secret).await {
            Ok(_) => tracing::info!(secret = self.name, "renewed the root"),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(source) => return Err(self.api_error(source)),
        }
        Ok(())
    }

    /// Something about the Secret has changed, or may have: the API server was away.
    pub fn changes(&self) -> BoxStream<'static, ()> {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let events = watcher(self.api.clone(), config).default_backoff();
        events.filter_map(|event| async move { event.is_ok().then_some(()) }).boxed()
    }

    async fn create(&self, now: SystemTime) -> Result<(), SecretError> {
        let contents = Contents::generate(&self.domain, now).map_err(|source| self.unusable(source))?;
        let metadata = ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() };
        let secret =
            Secret { metadata, type_: Some(OWN_TYPE.to_owned()), data: Some(data(&contents)), ..Secret::default() };
        match self.api.create(&PostParams::default(), &secret).await {
            Ok(_) => tracing::info!(secret = self.name, trust_domain = %self.domain, "made a root of our own"),
            // Another citadel was first: its root is ours.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            Err(source) => return Err(self.api_error(source)),
        }
        Ok(())
    }

    async fn get(&self) -> Result<Option<Secret>, SecretError> {
        self.api.get_opt(self.name).await.map_err(|source| self.api_error(source))
    }

    /// Istio does not mark the root in its own Secret; its name does.
    fn contents(&self, secret: &Secret) -> Contents {
        let mut contents = Contents::default();
        for (name, ByteString(bytes)) in secret.data.iter().flatten() {
            contents.insert(name, bytes.clone());
        }
        if self.name == OWN {
            contents.insert(GENERATED, Vec::new());
        }
        contents
    }

    fn api_error(&self, source: kube::Error) -> SecretError {
        SecretError::Api { name: self.name, namespace: self.namespace.clone(), source: Box::new(source) }
    }

    fn unusable(&self, source: AuthorityError) -> SecretError {
        SecretError::Authority { name: self.name, namespace: self.namespace.clone(), source: Box::new(source) }
    }

    fn gone(&self) -> SecretError {
        SecretError::Gone { name: self.name, namespace: self.namespace.clone() }
    }
}

fn data(contents: &Contents) -> std::collections::BTreeMap<String, ByteString> {
    contents.iter().map(|(name, bytes)| (name.to_owned(), ByteString(bytes.to_vec()))).collect()
}
