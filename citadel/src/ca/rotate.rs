//! Keeping the authority current: files or a Secret that an operator replaces, and an own root that grows old (spec CA-11,
//! CA-12).

use crate::ca::keystore::Keystore;
use crate::ca::root::Authority;
use crate::ca::secret::SecretStore;
use crate::watch_files;
use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use identity::svid::Lifetime;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// How often the age of an own root is looked at (CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL).
pub const CHECK_INTERVAL: Duration = Duration::from_secs(3600);
/// The last part of a root's life in which it is replaced, in percent (GRACE_PERIOD_PERCENTILE).
pub const GRACE_PERCENT: u32 = 20;

/// Whether a root has reached the part of its life in which it is replaced.
pub fn is_due(root: Lifetime, now: SystemTime) -> bool {
    now + root.length() * GRACE_PERCENT / 100 >= root.not_after
}

/// A store of an authority that says when it may have changed.
pub struct Store {
    place: Place,
    changes: Changes,
}

enum Place {
    Directory(Keystore),
    Secret(Box<SecretStore>),
}

/// Apart from the place, for a stream is not shared between threads.
enum Changes {
    Files(watch_files::Changes),
    Watch(BoxStream<'static, ()>),
}

impl Store {
    /// A directory, watched.
    ///
    /// # Errors
    /// What the system says.
    pub fn directory(keystore: Keystore, path: &Path) -> anyhow::Result<Self> {
        let changes = Changes::Files(watch_files::watch(&[path.to_owned()])?);
        Ok(Self { place: Place::Directory(keystore), changes })
    }

    /// A Secret, watched.
    pub fn secret(store: SecretStore) -> Self {
        Self { changes: Changes::Watch(store.changes()), place: Place::Secret(Box::new(store)) }
    }
}

impl Changes {
    /// Waits for the next change. Cancel-safe.
    async fn next(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Files(changes) => Ok(changes.changed().await?),
            Self::Watch(changes) => changes.next().await.context("the watch of the secret ended"),
        }
    }
}

impl Place {
    async fn renew_if_due(&self, signer: Lifetime, now: SystemTime) -> anyhow::Result<()> {
        if !is_due(signer, now) {
            return Ok(());
        }
        match self {
            Self::Directory(keystore) if keystore.is_generated() => Ok(keystore.renew_root(now)?),
            Self::Directory(_) => Ok(()),
            Self::Secret(store) => Ok(store.renew_if_due(now).await?),
        }
    }

    async fn load(&self, now: SystemTime) -> anyhow::Result<Authority> {
        match self {
            Self::Directory(keystore) => Ok(keystore.load(now)?),
            Self::Secret(store) => Ok(store.load(now).await?),
        }
    }
}

/// Reloads the authority when its store changes and renews an own root in time. Ends when nobody holds a receiver.
///
/// What is broken in a new version is refused with a log line, and the authority in use stays.
///
/// # Errors
/// When the store can no longer be watched.
pub async fn run(store: Store, current: watch::Sender<Arc<Authority>>) -> anyhow::Result<()> {
    let Store { place, mut changes } = store;
    loop {
        let jitter = Duration::from_millis(fastrand::u64(0..60_000));
        tokio::select! {
            () = current.closed() => return Ok(()),
            changed = changes.next() => changed?,
            () = tokio::time::sleep(CHECK_INTERVAL + jitter) => {}
        }
        let now = SystemTime::now();
        let signer = current.borrow().signing_life();
        if let Err(error) = place.renew_if_due(signer, now).await {
            tracing::error!(error = format!("{error:#}"), "cannot renew the root");
        }
        match place.load(now).await {
            Ok(authority) => {
                current.send_if_modified(|held| {
                    let changed = !held.is_same_as(&authority);
                    if changed {
                        *held = Arc::new(authority);
                        tracing::info!("authority reloaded");
                    }
                    changed
                });
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "new CA material refused, the old authority stays in use"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CA-11
    #[test]
    fn a_root_is_due_in_the_last_fifth_of_its_life() {
        let born = SystemTime::UNIX_EPOCH;
        let life = Lifetime { not_before: born, not_after: born + Duration::from_secs(1000) };
        assert!(!is_due(life, born + Duration::from_secs(799)));
        assert!(is_due(life, born + Duration::from_secs(800)));
        assert!(is_due(life, born + Duration::from_secs(2000)));
    }
}
