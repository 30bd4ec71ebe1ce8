//! How an object stands: accepted or refused, and which proxies have it.

use super::progress::Progress;
use crate::source::{HostAddress, Key, Problem};
use crate::translate::cache::ResourceType;
use std::collections::BTreeMap;

/// How one object stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The object.
    pub key: Key,
    /// Generation of the newest version that was seen; none if it is not known.
    pub generation: Option<i64>,
    /// When the object was made.
    pub created: Option<String>,
    /// Why the newest version is refused; nothing: it is in force.
    pub refused: Vec<Problem>,
    /// What it names and does not exist, while it is in force.
    pub dangling: Vec<Problem>,
    /// Whether a version is in force, the newest or one before.
    pub in_force: bool,
    /// The least number of a snapshot that rests on the version in force.
    pub since: u64,
    /// Of a ServiceEntry: the addresses that were chosen for its hosts (SE-13).
    pub addresses: Vec<HostAddress>,
    /// How far the proxies are with the version in force.
    pub reach: Reach,
}

/// How far the connected proxies are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Proxies that hold everything that rests on the object, or whose resources it does not touch.
    pub have: usize,
    /// Proxies that have not said yet whether they take it.
    pub pending: usize,
    /// Proxies that refused something since, by node, with their words.
    pub rejected: BTreeMap<String, String>,
}

/// How far one proxy is, without regard to objects.
#[derive(Debug, Clone)]
pub struct Advance {
    /// Its node id.
    pub node: String,
    /// Number of the newest snapshot that is meant for it.
    pub published: u64,
    /// Number of the newest snapshot that it is known to hold as a whole.
    pub settled: u64,
    /// What it refuses now.
    pub refusal: Option<String>,
}

impl Advance {
    /// The same after a look at what the proxy has said: `offered` is the snapshot that was sent to it last.
    pub fn observe(&mut self, published: u64, offered: u64, progress: &BTreeMap<ResourceType, Progress>) {
        self.published = published;
        self.refusal = progress.values().find_map(|one| one.nack.as_ref()).map(|nack| nack.message.clone());
        let all_taken =
            !progress.is_empty() && self.refusal.is_none() && progress.values().all(|one| one.sent == one.acked);
        if all_taken && offered == published {
            self.settled = published;
        }
    }

    fn has(&self, since: u64) -> bool {
        self.settled >= since || self.published < since
    }
}

impl Reach {
    /// How far proxies are with what rests on snapshots from `since` on.
    pub fn of<'a>(since: u64, proxies: impl Iterator<Item = &'a Advance>) -> Self {
        let mut reach = Self::default();
        for proxy in proxies {
            match &proxy.refusal {
                _ if proxy.has(since) => reach.have += 1,
                Some(words) => drop(reach.rejected.insert(proxy.node.clone(), words.clone())),
                None => reach.pending += 1,
            }
        }
        reach
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::progress::Nack;

    fn progress(sent: &str, acked: &str, nack: bool) -> BTreeMap<ResourceType, Progress> {
        let nack = nack.then(|| Nack { nonce: sent.to_owned(), code: 13, message: "listener x is wrong".to_owned() });
        let one = Progress { sent: sent.to_owned(), acked: acked.to_owned(), nack, resources: 1 };
        [(ResourceType::Listener, one)].into()
    }

    #[test]
    fn a_proxy_has_what_it_has_acknowledged_since() {
        let mut proxy = Advance { node: "p".into(), published: 0, settled: 0, refusal: None };
        let reach = |proxy: &Advance, since| Reach::of(since, std::iter::once(proxy));
        proxy.observe(5, 5, &progress("n1", "", false));
        assert_eq!(reach(&proxy, 5).pending, 1, "sent, not acknowledged");
        assert_eq!(reach(&proxy, 6).have, 1, "what is newer than all that is meant for it does not touch it");
        proxy.observe(5, 5, &progress("n1", "n1", false));
        assert_eq!(reach(&proxy, 5).have, 1);
        proxy.observe(7, 5, &progress("n1", "n1", false));
        assert_eq!((reach(&proxy, 7).pending, reach(&proxy, 5).have), (1, 1), "made, not sent yet");
        proxy.observe(7, 7, &progress("n2", "n1", true));
        assert_eq!(reach(&proxy, 7).rejected["p"], "listener x is wrong");
        assert_eq!(reach(&proxy, 5).have, 1, "the refusal is of what came later");
    }
}
