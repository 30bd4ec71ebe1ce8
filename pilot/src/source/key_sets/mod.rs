//! Public keys of those who issue tokens to end users: fetched, kept, fetched anew (CA-30).
//!
//! What was fetched once stays until something newer comes: an issuer that is away for a while locks nobody out.

mod fetch;
pub mod metrics;

pub use fetch::Fetcher;

use super::Event;
use futures_util::{StreamExt, stream};
use metrics::Metrics;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySource {
    /// At this URL.
    Uri(Arc<str>),
    /// Where this issuer's OpenID configuration says.
    Discovery(Arc<str>),
}

impl KeySource {
    /// The URL that is asked first.
    fn url(&self) -> String {
        match self {
            Self::Uri(uri) => uri.to_string(),
            Self::Discovery(issuer) => format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
        }
    }

    /// Whether it can be asked at all.
    pub fn is_url(&self) -> bool {
        fetch::parse(&self.url()).is_ok()
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url())
    }
}

/// Key sets as they were fetched, or why there is none.
pub type KeySets = BTreeMap<KeySource, Result<Arc<str>, Arc<str>>>;

/// Which key sets are wanted, and how long fetching each may take.
pub type Wanted = BTreeMap<KeySource, Duration>;

/// How often good keys are fetched anew, where nothing else is said.
pub const REFRESH: Duration = Duration::from_secs(20 * 60);
/// Failures after which the next try waits a minute and more.
const QUICK_RETRIES: u32 = 7;
const QUICK: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(60);
const SLOWEST: Duration = Duration::from_secs(60 * 60);
/// Keys that nobody has wanted for so long are forgotten.
const KEPT_UNUSED: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Sets that are fetched at one time.
const PARALLEL: usize = 16;

/// How long the next try waits after so many failures in a row.
fn wait_after(failures: u32) -> Duration {
    if failures <= QUICK_RETRIES {
        return QUICK;
    }
    SLOW.saturating_mul(1 << (failures - QUICK_RETRIES - 1).min(6)).min(SLOWEST)
}

/// What is known of one set.
#[derive(Debug)]
struct Held {
    known: Option<Result<Arc<str>, Arc<str>>>,
    failures: u32,
    due: Instant,
    wanted: Instant,
}

/// Fetches what is wanted, and reports every change.
///
/// # Errors
/// Never; ends when the hub is gone.
pub async fn run(
    mut wanted: watch::Receiver<Wanted>,
    fetcher: Fetcher,
    refresh: Duration,
    metrics: Metrics,
    events: mpsc::Sender<Vec<Event>>,
) -> anyhow::Result<()> {
    let mut held: BTreeMap<KeySource, Held> = BTreeMap::new();
    loop {
        let now = Instant::now();
        let mut due: Vec<(KeySource, Duration)> = Vec::new();
        for (source, timeout) in wanted.borrow_and_update().iter() {
            let own = held.entry(source.clone()).or_insert(Held { known: None, failures: 0, due: now, wanted: now });
            own.wanted = now;
            if own.due <= now {
                due.push((source.clone(), *timeout));
            }
        }
        held.retain(|_, own| now.duration_since(own.wanted) < KEPT_UNUSED);
        let fetch = |(source, timeout): (KeySource, Duration)| {
            let fetcher = &fetcher;
            async move { (fetcher.key_set(&source, timeout).await, source) }
        };
        let mut fetched = stream::iter(due).map(fetch).buffer_unordered(PARALLEL);
        while let Some((result, source)) = fetched.next().await {
            metrics.count(result.is_ok());
            let Some(own) = held.get_mut(&source) else { continue };
            if own.take(result, &source, refresh) {
                let known = held.iter().filter_map(|(source, own)| Some((source.clone(), own.known.clone()?)));
                if events.send(vec![Event::KeySets(Arc::new(known.collect()))]).await.is_err() {
                    return Ok(());
                }
            }
        }
        let next = wanted.borrow().keys().filter_map(|source| Some(held.get(source)?.due)).min();
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep_until(next.unwrap_or(now + KEPT_UNUSED)) => {}
        }
    }
}

impl Held {
    /// Takes a result in; whether that changes what is known.
    fn take(&mut self, result: anyhow::Result<String>, source: &KeySource, refresh: Duration) -> bool {
        let now = Instant::now();
        match result {
            Ok(text) => {
                if self.failures > 0 {
                    tracing::info!(%source, "the keys are there");
                }
                (self.failures, self.due) = (0, now + refresh);
                let fresh = Some(Ok(Arc::from(text)));
                let differs = self.known != fresh;
                self.known = fresh;
                differs
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                self.due = now + wait_after(self.failures);
                if self.failures == 1 || self.failures > QUICK_RETRIES {
                    tracing::warn!(%source, failures = self.failures, "no keys: {why:#}");
                }
                if matches!(self.known, Some(Ok(_))) {
                    return false; // those that were good stay
                }
                let fresh = Some(Err(Arc::from(format!("{why:#}"))));
                let differs = self.known != fresh;
                self.known = fresh;
                differs
            }
        }
    }
}

#[cfg(test)]
mod tests;
