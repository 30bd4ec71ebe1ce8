//! Secrets as meant: certificates with keys, authorities with what they revoked, and the names that gateways and rules
//! call them by (CA-26, GW-12).
//!
//! What is broken keeps the version before in force, each of the two halves on its own: a rotation that goes wrong takes
//! nothing down.

use super::shared::Shared;
use crate::source::{Key, Kind, Object, Spec, Store};
use identity::bundle::TrustBundle;
use identity::crl::{Depth, Revocations};
use identity::svid::Svid;
use proto::istio::secret::Secret as Written;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// End of the names that mean the authorities of a Secret, and not its certificate.
const AUTHORITIES: &str = "-cacert";
/// What stands before the name of a Secret, where nothing else does.
const KUBERNETES: &str = "kubernetes://";
/// Names of this kind mean the workload's own certificate.
pub const BUILTIN: &str = "builtin://";

/// Fields of a Secret that hold a chain and its key, in the order in which they are looked for.
const CERTIFICATE_FIELDS: [(&str, &str); 2] = [("cert", "key"), ("tls.crt", "tls.key")];
/// Fields that hold authorities.
const AUTHORITIES_FIELDS: [&str; 2] = ["cacert", "ca.crt"];
/// Fields that hold lists of revoked certificates.
const CRL_FIELDS: [&str; 2] = ["crl", "ca.crl"];
/// Field of an OCSP response, DER.
const STAPLE_FIELD: &str = "tls.ocsp-staple";

/// A chain with its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, leaf first.
    pub chain: Vec<u8>,
    /// The key; never shown.
    pub key: Vec<u8>,
    /// OCSP response that goes with the chain, DER.
    pub staple: Option<Vec<u8>>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate(..)")
    }
}

/// Authorities that certificates are checked by, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    /// Their certificates.
    pub roots: Vec<u8>,
    /// What they revoked.
    pub crl: Option<Vec<u8>>,
}

/// One half of a Secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Half<T> {
    /// The last good version.
    pub good: Option<Shared<T>>,
    /// What is wrong with the newest version; nothing where it is the good one.
    pub problem: Option<String>,
}

/// A Secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    /// What it proves.
    pub certificate: Half<Certificate>,
    /// What it checks by.
    pub authorities: Half<Authorities>,
}

impl<T: PartialEq> Half<T> {
    fn renew(old: Option<&Self>, newest: Result<T, String>) -> Self {
        let before = old.and_then(|old| old.good.as_ref());
        match newest {
            Ok(value) => Self { good: Some(Shared::renew(before, value)), problem: None },
            Err(problem) => Self { good: before.cloned(), problem: Some(problem) },
        }
    }
}

impl Secret {
    /// The Secret as it is written now, over what was good before.
    fn read(written: &Written, old: Option<&Self>) -> Self {
        Self {
            certificate: Half::renew(old.map(|old| &old.certificate), certificate(written)),
            authorities: Half::renew(old.map(|old| &old.authorities), authorities(written)),
        }
    }
}

fn certificate(written: &Written) -> Result<Certificate, String> {
    let both = |(chain, key): (&str, &str)| Some((written.field(chain)?.to_vec(), written.field(key)?.to_vec()));
    let (chain, key) =
        CERTIFICATE_FIELDS.into_iter().find_map(both).ok_or("it has neither tls.crt and tls.key nor cert and key")?;
    Svid::from_pem(&chain, &key).map_err(|error| error.to_string())?;
    Ok(Certificate { chain, key, staple: written.field(STAPLE_FIELD).map(<[u8]>::to_vec) })
}

fn authorities(written: &Written) -> Result<Authorities, String> {
    let first = |fields: [&str; 2]| fields.into_iter().find_map(|field| written.field(field)).map(<[u8]>::to_vec);
    let roots = first(AUTHORITIES_FIELDS).ok_or("it has neither ca.crt nor cacert")?;
    TrustBundle::from_pem(&roots).map_err(|error| error.to_string())?;
    let crl = first(CRL_FIELDS);
    if let Some(crl) = &crl {
        Revocations::from_pem(crl, Depth::Chain).map_err(|error| format!("ca.crl: {error}"))?;
    }
    Ok(Authorities { roots, crl })
}

/// All Secrets, by namespace and name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Secrets {
    all: BTreeMap<(Arc<str>, Arc<str>), Arc<Secret>>,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Content {
    /// A certificate to show.
    Certificate(Shared<Certificate>),
    /// Authorities to check by.
    Authorities(Shared<Authorities>),
}

impl Secrets {
    /// These Secrets after the objects of `changed` have changed in the store.
    pub fn update(&self, store: &Store, changed: &BTreeMap<Key, Arc<Object>>) -> Self {
        let mut all = self.all.clone();
        for key in changed.keys().filter(|key| key.kind == Kind::Secret) {
            let name = (key.namespace.clone(), key.name.clone());
            match store.get(key).map(|object| &object.spec) {
                Some(Spec::Secret(written)) => {
                    let secret = Secret::read(written, all.get(&name).map(|old| &**old));
                    all.insert(name, Arc::new(secret));
                }
                _ => drop(all.remove(&name)),
            }
        }
        Self { all }
    }

    /// What a resource name leads to for a proxy in `namespace`: Secrets of that namespace alone (CA-27).
    pub fn find(&self, resource: &str, namespace: &str) -> Option<Content> {
        let name = Name::parse(resource)?;
        if name.namespace.is_some_and(|own| own != namespace) {
            return None;
        }
        let secret = |name: &str| self.all.get(&(Arc::from(namespace), Arc::from(name)));
        match name.stem() {
            None => secret(name.name)?.certificate.good.clone().map(Content::Certificate),
            Some(stem) => {
                let found = secret(name.name).or_else(|| secret(stem))?;
                found.authorities.good.clone().map(Content::Authorities)
            }
        }
    }

    /// What is wrong with what a resource name leads to for a proxy in `namespace`.
    pub fn lack(&self, resource: &str, namespace: &str) -> Option<Lack> {
        let Some(name) = Name::parse(resource) else {
            return Some(Lack::Missing(format!("{resource:?} names no Secret")));
        };
        if let Some(other) = name.namespace.filter(|own| *own != namespace) {
            let text = format!("a proxy in namespace {namespace} may not read Secrets of namespace {other}");
            return Some(Lack::Missing(text));
        }
        let secret = |name: &str| self.all.get(&(Arc::from(namespace), Arc::from(name)));
        let own = secret(name.name).map(|own| (own, name.name));
        let Some((found, called)) = own.or_else(|| Some((secret(name.stem()?)?, name.stem()?))) else {
            let called =
                name.stem().map_or_else(|| name.name.to_owned(), |stem| format!("{stem} and no {}", name.name));
            return Some(Lack::Missing(format!(
                "namespace {namespace}, where its proxies are, has no Secret {called}"
            )));
        };
        let (problem, stays) = match name.stem() {
            None => (found.certificate.problem.as_ref()?, found.certificate.good.is_some()),
            Some(_) => (found.authorities.problem.as_ref()?, found.authorities.good.is_some()),
        };
        let stays = if stays { "; the version before stays in force" } else { "" };
        Some(Lack::Broken(format!("Secret {namespace}/{called}: {problem}{stays}")))
    }
}

/// Why a name leads to nothing, or not to what was written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// There is no such Secret for this proxy.
    Missing(String),
    /// The Secret is broken.
    Broken(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Missing(text) | Self::Broken(text)) = self;
        f.write_str(text)
    }
}

/// A resource name, taken apart.
struct Name<'a> {
    /// Namespace, where it is named.
    namespace: Option<&'a str>,
    name: &'a str,
}

impl<'a> Name<'a> {
    fn parse(resource: &'a str) -> Option<Self> {
        let path = resource.strip_prefix(KUBERNETES).or_else(|| resource.strip_prefix("kubernetes-gateway://"))?;
        let (namespace, name) = match path.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, path),
        };
        (!name.is_empty() && !name.contains('/')).then_some(Self { namespace, name })
    }

    /// The name without its ending, where it means authorities.
    fn stem(&self) -> Option<&'a str> {
        self.name.strip_suffix(AUTHORITIES)
    }
}

/// The resource name of a credential as a Gateway or DestinationRule names it.
pub fn resource(credential: &str) -> String {
    if credential.contains("://") { credential.to_owned() } else { format!("{KUBERNETES}{credential}") }
}

/// The resource name of the authorities that go with a credential.
pub fn authorities_of(credential: &str) -> String {
    let name = resource(credential);
    if name.ends_with(AUTHORITIES) { name } else { format!("{name}{AUTHORITIES}") }
}

/// Whether a resource name means authorities, which are no secret.
pub fn is_public(resource: &str) -> bool {
    resource.ends_with(AUTHORITIES)
}

/// What is wrong with a credential as it is written.
pub fn check_name(credential: &str) -> Option<String> {
    match credential.split_once("://") {
        None if credential.contains('/') => Some(format!("{credential:?}: write kubernetes://NAMESPACE/NAME")),
        None => None,
        Some(_) if credential == BUILTIN || Name::parse(credential).is_some() => None,
        Some((scheme @ ("configmap" | "sds" | "invalid"), _)) => {
            Some(format!("{}: {scheme}://", proto::istio::NOT_SUPPORTED_YET))
        }
        Some(_) => Some(format!("{credential:?} is no name of a Secret: write NAME or kubernetes://NAMESPACE/NAME")),
    }
}

#[cfg(test)]
mod tests;
