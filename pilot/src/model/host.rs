//! Host names: completion of short names, wildcards and their order (GEN-3).

/// Completes a short name with the namespace of the rule and the domain; leaves everything else as it is.
pub fn resolve(host: &str, namespace: &str, domain: &str) -> String {
    let host = host.to_ascii_lowercase();
    if host.is_empty() || host.contains('.') || host.starts_with('*') {
        host
    } else {
        format!("{host}.{namespace}.svc.{domain}")
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    // spec: GEN-3
    #[test]
    fn short_names_take_the_namespace_of_the_rule() {
        assert_eq!(resolve("Reviews", "ns", "cluster.local"), "reviews.ns.svc.cluster.local");
        assert_eq!(resolve("a.b", "ns", "cluster.local"), "a.b");
        assert_eq!(resolve("*", "ns", "cluster.local"), "*");
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
        assert!(!covers("*.com", ".co"));
        assert!(covers("*.com", "*.b.com") && !covers("*.b.com", "*.com") && overlap("*.b.com", "*.com"));
    }
}
