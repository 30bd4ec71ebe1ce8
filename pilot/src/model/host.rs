//! Host names: completion of short names, wildcards and their order (GEN-3).

use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::net::Ipv6Addr;

/// Completes a short name with the namespace of the rule and the domain; leaves everything else as it is, addresses too.
pub fn resolve(host: &str, namespace: &str, domain: &str) -> String {
    let host = host.to_ascii_lowercase();
    let as_it_is = host.is_empty() || host.contains('.') || host.starts_with('*');
    if as_it_is || host.parse::<Ipv6Addr>().is_ok() { host } else { format!("{host}.{namespace}.svc.{domain}") }
}

/// Whether a host is a wildcard.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether every name of `inner` is also one of `outer`; either may be a wildcard.
pub fn covers(outer: &str, inner: &str) -> bool {
    match outer.strip_prefix('*') {
        Some(suffix) => inner.strip_prefix('*').unwrap_or(inner).ends_with(suffix) && inner.len() >= outer.len(),
        None => outer == inner,
    }
}

/// Whether the two have a name in common.
pub fn overlap(a: &str, b: &str) -> bool {
    covers(a, b) || covers(b, a)
}

/// The best of `candidates` that covers `host`: an exact one, else the longest wildcard; of equals the first.
pub fn best<'a, T>(host: &str, candidates: impl Iterator<Item = (&'a str, T)>) -> Option<T> {
    let mut best: Option<(usize, T)> = None;
    for (candidate, value) in candidates {
        if candidate == host {
            return Some(value);
        }
        if covers(candidate, host) && best.as_ref().is_none_or(|(length, _)| candidate.len() > *length) {
            best = Some((candidate.len(), value));
        }
    }
    best.map(|(_, value)| value)
}

/// Hosts that are asked for often: [`best`] and [`covers`] without a look at each of them.
#[derive(Debug)]
pub struct Index<'a, T> {
    exact: HashMap<&'a str, T, RandomState>,
    wildcards: Vec<(&'a str, T)>,
}

impl<'a, T> FromIterator<(&'a str, T)> for Index<'a, T> {
    /// Of equal hosts the first counts.
    fn from_iter<I: IntoIterator<Item = (&'a str, T)>>(hosts: I) -> Self {
        let mut index = Self { exact: HashMap::default(), wildcards: Vec::new() };
        for (host, value) in hosts {
            if is_wildcard(host) {
                index.wildcards.push((host, value));
            } else {
                index.exact.entry(host).or_insert(value);
            }
        }
        index
    }
}

impl<'a, T> Index<'a, T> {
    /// The best of the hosts that covers `host`.
    pub fn best(&self, host: &str) -> Option<&T> {
        self.exact.get(host).or_else(|| best(host, self.wildcards.iter().map(|(own, value)| (*own, value))))
    }

    /// Whether `host` covers any of them.
    pub fn has_within(&self, host: &str) -> bool {
        let all = || self.exact.keys().chain(self.wildcards.iter().map(|(own, _)| own));
        if is_wildcard(host) { all().any(|own| covers(host, own)) } else { self.exact.contains_key(host) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: GEN-3
    #[test]
    fn short_names_take_the_namespace_of_the_rule() {
        assert_eq!(resolve("Reviews", "ns", "cluster.local"), "reviews.ns.svc.cluster.local");
        assert_eq!(resolve("a.b", "ns", "cluster.local"), "a.b");
        assert_eq!(resolve("*", "ns", "cluster.local"), "*");
        assert_eq!(resolve("2001:DB8::1", "ns", "cluster.local"), "2001:db8::1");
    }

    // spec: GEN-3, VSM-4
    #[test]
    fn exact_beats_wildcard_and_longer_beats_shorter() {
        let hosts = ["*", "*.com", "*.b.com", "a.b.com"];
        let found = |host: &str| best(host, hosts.iter().map(|h| (*h, *h)));
        assert_eq!(found("a.b.com"), Some("a.b.com"));
        assert_eq!(found("x.b.com"), Some("*.b.com"));
        assert_eq!(found("x.com"), Some("*.com"));
        assert_eq!(found("x.org"), Some("*"));
        assert_eq!(best("a.com", ["*.com", "a.com"].iter().map(|h| (*h, *h))), Some("a.com"), "of one length too");
        let index: Index<'_, usize> = hosts.iter().enumerate().map(|(at, host)| (*host, at)).collect();
        for host in ["a.b.com", "x.b.com", "x.com", "x.org"] {
            assert_eq!(index.best(host).map(|at| hosts[*at]), found(host), "{host}");
        }
        for host in ["*.b.com", "a.b.com", "x.b.com", "*.org"] {
            assert_eq!(index.has_within(host), hosts.iter().any(|own| covers(host, own)), "{host}");
        }
        assert!(!covers("*.com", ".co"));
        assert!(covers("*.com", "*.b.com") && !covers("*.b.com", "*.com") && overlap("*.b.com", "*.com"));
    }
}
