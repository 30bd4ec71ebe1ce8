//! Keeping the authority current: files that an operator replaces, and an own root that grows old (spec CA-11, CA-12).

use crate::ca::keystore::Keystore;
use crate::ca::root::Authority;
use crate::watch_files;
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

/// Reloads the authority when its files change and renews an own root in time. Ends when nobody holds a receiver.
///
/// A broken new set of files is refused with a log line, and the authority in use stays.
pub async fn run(keystore: Keystore, directory: &Path, current: watch::Sender<Arc<Authority>>) -> anyhow::Result<()> {
    let mut changes = watch_files::watch(&[directory.to_owned()])?;
    loop {
        let jitter = Duration::from_millis(fastrand::u64(0..60_000));
        tokio::select! {
            () = current.closed() => return Ok(()),
            changed = changes.changed() => changed?,
            () = tokio::time::sleep(CHECK_INTERVAL + jitter) => {}
        }
        let now = SystemTime::now();
        let signer = current.borrow().signing_life();
        if keystore.is_generated()
            && is_due(signer, now)
            && let Err(error) = keystore.renew_root(now)
        {
            tracing::error!(%error, "cannot renew the root");
        }
        match keystore.load(now) {
            Ok(authority) => {
                current.send_if_modified(|held| {
                    let changed = held.intermediates() != authority.intermediates()
                        || held.roots() != authority.roots()
                        || held.signing_life() != authority.signing_life();
                    if changed {
                        *held = Arc::new(authority);
                        tracing::info!("authority reloaded");
                    }
                    changed
                });
            }
            Err(error) => tracing::error!(%error, "new CA files refused, the old authority stays in use"),
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
