//! A certificate that stays fresh: drives `identity::enrol` (spec CA-23).
//!
//! The key is made here and never leaves. Key, chain and roots are kept in one 0600 file of the state directory, which
//! is meant to be in memory, so that a process starts while its CA is away.

use crate::client::{Config, Credentials};
use anyhow::Context as _;
use identity::bundle::TrustBundle;
use identity::enrol::{ATTEMPT_TIMEOUT, Action, Enrolment, Event};
use identity::svid::Svid;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{Notify, watch};
use zeroize::Zeroizing;

/// Name of the file in the state directory.
const KEPT_FILE: &str = "identity.pem";
/// Separates the chain from the roots in that file.
const ROOTS_MARK: &str = "# roots\n";

/// Publishes credentials for as long as somebody listens: first those kept on disk, then fresh ones. A failure keeps
/// the old ones. `renew` asks for new ones at once: peers of tomorrow may not know the root of today.
pub async fn keep_fresh(config: Config, held: watch::Sender<Option<Arc<Credentials>>>, renew: Arc<Notify>) {
    let mut enrolment = Enrolment::new(fastrand::u64(..));
    let kept = config.state_dir.as_deref().and_then(load_kept).filter(|kept| {
        let facts = kept.svid.facts();
        facts.id.as_ref().is_some_and(|id| config.identity.is_same_workload(id))
            && facts.lifetime.not_after > SystemTime::now()
    });
    let lifetime = kept.as_ref().map(|kept| kept.svid.facts().lifetime);
    if let Some(kept) = kept {
        tracing::info!(id = %config.identity, "certificate kept from before is in use");
        held.send_replace(Some(Arc::new(kept)));
    }
    let mut action = enrolment.handle(Event::Started(lifetime), SystemTime::now());
    loop {
        let event = match action {
            Action::WaitUntil(time) => {
                let pause = time.duration_since(SystemTime::now()).unwrap_or_default();
                tokio::select! {
                    () = tokio::time::sleep(pause) => Event::Timer,
                    () = renew.notified() => Event::Renew,
                    () = held.closed() => return,
                }
            }
            Action::Ask => ask(&config, &held).await,
        };
        action = enrolment.handle(event, SystemTime::now());
    }
}

async fn ask(config: &Config, held: &watch::Sender<Option<Arc<Credentials>>>) -> Event {
    let own = held.borrow().clone();
    match tokio::time::timeout(ATTEMPT_TIMEOUT, attempt(config, own.as_deref())).await {
        Ok(Ok(new)) => {
            let facts = new.svid.facts();
            tracing::info!(id = %config.identity, serial = facts.serial, "certificate installed");
            let lifetime = facts.lifetime;
            held.send_replace(Some(Arc::new(new)));
            Event::Issued(lifetime)
        }
        Ok(Err(error)) => {
            let error = format!("{error:#}");
            tracing::warn!(id = %config.identity, ca = config.ca_address, error, "no certificate, will try again");
            Event::Failed
        }
        Err(_) => {
            tracing::warn!(id = %config.identity, ca = config.ca_address, "no certificate within 10 s, will try again");
            Event::Failed
        }
    }
}

async fn attempt(config: &Config, own: Option<&Credentials>) -> anyhow::Result<Credentials> {
    let credentials = config.request(own).await?;
    if let Some(directory) = &config.state_dir {
        let kept = keep(directory, &credentials);
        kept.with_context(|| format!("cannot keep the certificate in {}", directory.display()))?;
    }
    Ok(credentials)
}

/// Writes key, chain and roots as one file, so that a reader never sees the key of one and the chain of another.
fn keep(directory: &Path, credentials: &Credentials) -> std::io::Result<()> {
    let text = Zeroizing::new(format!(
        "{}{}{ROOTS_MARK}{}",
        *credentials.svid.key().to_pem(),
        credentials.svid.chain_pem(),
        credentials.roots.to_pem()
    ));
    let temporary = directory.join(format!(".{KEPT_FILE}.{}", fastrand::u64(..)));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&temporary, directory.join(KEPT_FILE)));
    if written.is_err() {
        drop(std::fs::remove_file(&temporary));
    }
    written
}

/// What [`keep`] wrote; a file that cannot be used is passed over with a log line.
fn load_kept(directory: &Path) -> Option<Credentials> {
    let path = directory.join(KEPT_FILE);
    let text = Zeroizing::new(std::fs::read_to_string(&path).ok()?);
    let (own, roots) = text.split_once(ROOTS_MARK)?;
    let read = || -> anyhow::Result<Credentials> {
        let svid = Svid::from_pem(own.as_bytes(), own.as_bytes())?;
        Ok(Credentials { svid, roots: Arc::new(TrustBundle::from_pem(roots.as_bytes())?) })
    };
    read().inspect_err(|error| tracing::warn!(%error, path = %path.display(), "kept certificate is unusable")).ok()
}

#[cfg(test)]
mod tests;
