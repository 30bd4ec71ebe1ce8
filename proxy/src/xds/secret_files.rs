//! Secrets that are files of this machine, by the names that Istio's agent gives them (CA-25, DR-35): `file-root:PATH`,
//! `file-root:system` and `file-cert:CHAIN~KEY`. Read again when they change.

use super::files::watch;
use super::stream::Event;
use super::{Kind, Resource};
use prost::Message;
use proto::envoy::core::{DataSource, data_source::Specifier};
use proto::envoy::tls::{CertificateValidationContext, Secret, TlsCertificate, secret::Type};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Where systems keep the roots that they trust; the first that is there counts.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// One such secret.
pub(super) struct SecretFile {
    pub(super) name: Arc<str>,
    pub(super) events: mpsc::Sender<Event>,
}

/// The files that a name stands for.
#[derive(Debug, PartialEq, Eq)]
enum Files<'a> {
    Roots(&'a str),
    Certificate { chain: &'a str, key: &'a str },
}

impl<'a> Files<'a> {
    fn of(name: &'a str) -> Result<Self, &'static str> {
        match name.split_once(':') {
            Some(("file-root", "system")) => {
                let found = SYSTEM_ROOTS.into_iter().find(|path| Path::new(path).exists());
                found.map(Self::Roots).ok_or("this system has no bundle of roots")
            }
            Some(("file-root", path)) => Ok(Self::Roots(path)),
            Some(("file-cert", pair)) => match pair.split_once('~') {
                Some((chain, key)) => Ok(Self::Certificate { chain, key }),
                None => Err("write file-cert:CHAIN~KEY"),
            },
            _ => Err("write file-root:PATH or file-cert:CHAIN~KEY"),
        }
    }

    fn paths(&self) -> Vec<&'a str> {
        match self {
            Self::Roots(path) => vec![path],
            Self::Certificate { chain, key } => vec![chain, key],
        }
    }

    /// The secret as the files are now.
    fn read(&self) -> Result<Type, String> {
        let inline = |path: &str| {
            let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
            Ok::<_, String>(Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..Default::default() }))
        };
        Ok(match self {
            Self::Roots(path) => {
                let context = CertificateValidationContext { trusted_ca: inline(path)?, ..Default::default() };
                Type::ValidationContext(context)
            }
            Self::Certificate { chain, key } => Type::TlsCertificate(TlsCertificate {
                certificate_chain: inline(chain)?,
                private_key: inline(key)?,
                ..Default::default()
            }),
        })
    }
}

impl SecretFile {
    /// Provides the secret, and again after each change, until nobody listens to the events. A file that cannot be read is
    /// reported; what was read before stays in use.
    pub(super) async fn run(self) {
        let files = match Files::of(&self.name) {
            Ok(files) => files,
            Err(why) => return tracing::warn!(secret = &*self.name, why, "this secret cannot be read"),
        };
        let (wake, mut woken) = mpsc::channel(1);
        // held for as long as the files are watched
        let watchers: Vec<_> = files.paths().into_iter().map(|path| watch(path, wake.clone())).collect();
        drop(wake);
        for error in watchers.iter().filter_map(|watcher| watcher.as_ref().err()) {
            tracing::warn!(secret = &*self.name, %error, "a file of this secret is not watched");
        }
        let (mut last, mut version) = (None, 0_u64);
        loop {
            match files.read() {
                Ok(read) if last.as_ref() != Some(&read) => {
                    version += 1;
                    last = Some(read.clone());
                    let secret = Secret { name: self.name.to_string(), r#type: Some(read) };
                    let (name, version) = (self.name.clone(), version.to_string().into());
                    let resource = Arc::new(Resource { name, version, body: secret.encode_to_vec().into() });
                    if self.events.send(Event::Local(Kind::Secret, resource)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(why) => tracing::warn!(secret = &*self.name, why, "this secret cannot be read"),
            }
            if woken.recv().await.is_none() {
                // no watcher: keep what was read until the process ends
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_say_which_files_are_meant() {
        assert_eq!(Files::of("file-root:/a"), Ok(Files::Roots("/a")));
        assert_eq!(Files::of("file-cert:/a~/b"), Ok(Files::Certificate { chain: "/a", key: "/b" }));
        assert!(Files::of("file-cert:/a").is_err() && Files::of("file-other:/a").is_err());
    }

    // spec: CA-25
    #[tokio::test]
    async fn a_secret_follows_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let [chain, key] = ["chain", "key"].map(|name| directory.path().join(name).display().to_string());
        std::fs::write(&chain, "one").unwrap();
        let (events, mut seen) = mpsc::channel(8);
        let name: Arc<str> = format!("file-cert:{chain}~{key}").into();
        let task = tokio::spawn(SecretFile { name: name.clone(), events }.run());
        let mut next = async || {
            let event = tokio::time::timeout(Duration::from_secs(10), seen.recv()).await.unwrap().unwrap();
            let Event::Local(Kind::Secret, resource) = event else { panic!("{event:?}") };
            assert_eq!(resource.name, name);
            let secret = Secret::decode(resource.body.clone()).unwrap();
            let Some(Type::TlsCertificate(certificate)) = secret.r#type else { panic!("{secret:?}") };
            let Some(Specifier::InlineBytes(chain)) = certificate.certificate_chain.unwrap().specifier else {
                panic!()
            };
            String::from_utf8(chain).unwrap()
        };
        std::fs::write(&key, "key").unwrap();
        assert_eq!(next().await, "one", "as soon as both are there");
        let fresh = directory.path().join("fresh");
        std::fs::write(&fresh, "two").unwrap();
        std::fs::rename(&fresh, &chain).unwrap();
        assert_eq!(next().await, "two");
        task.abort();
    }
}
