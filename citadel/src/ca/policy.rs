//! Who may get what: the decision before anything is signed (spec CA-3, CA-5, CA-10).

use identity::spiffe::{SpiffeId, TrustDomain};
use std::collections::BTreeMap;
use std::time::Duration;

/// Life of a workload certificate when the request names none (CA-10, DEFAULT_WORKLOAD_CERT_TTL).
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest life that may be asked for (CA-10, MAX_WORKLOAD_CERT_TTL).
pub const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// Why a request is refused before signing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The caller belongs to another trust domain.
    #[error("caller {caller} is not of trust domain {domain}")]
    TrustDomain {
        /// Who asked.
        caller: SpiffeId,
        /// For whom this authority signs.
        domain: TrustDomain,
    },
    /// The life asked for is too long.
    #[error("requested validity of {asked_seconds} s is longer than the maximum of {max_seconds} s: ask for less")]
    TooLong {
        /// Seconds that were asked for.
        asked_seconds: i64,
        /// Seconds that are allowed.
        max_seconds: u64,
    },
    /// The caller asks for a certificate of somebody else.
    #[error("not supported yet: metadata.{0}")]
    NotSupported(&'static str),
}

/// What may be signed for a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The caller's proven identity: the only name of a workload's certificate (CA-3).
    pub id: SpiffeId,
    /// Host names that it bears beside the identity: those of a server of the control plane (CA-17).
    pub hosts: Vec<String>,
    /// Life from now.
    pub ttl: Duration,
}

/// The rules of this authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// For whom it signs.
    pub trust_domain: TrustDomain,
    /// Servers of the control plane, with the host names under which they are called.
    pub hosts: BTreeMap<SpiffeId, Vec<String>>,
    /// Life when none is asked for.
    pub default_ttl: Duration,
    /// Longest life.
    pub max_ttl: Duration,
}

impl Policy {
    /// Istio's rules for a trust domain.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, hosts: BTreeMap::new(), default_ttl: DEFAULT_TTL, max_ttl: MAX_TTL }
    }

    /// What `caller` gets who asks for `seconds` of validity; zero and negative values ask for the default.
    ///
    /// # Errors
    /// [`Refused`] for a foreign trust domain or too long a life.
    pub fn grant(&self, caller: &SpiffeId, seconds: i64) -> Result<Grant, Refused> {
        if caller.trust_domain() != &self.trust_domain {
            return Err(Refused::TrustDomain { caller: caller.clone(), domain: self.trust_domain.clone() });
        }
        let ttl = match u64::try_from(seconds) {
            Err(_) | Ok(0) => self.default_ttl,
            Ok(asked) if asked <= self.max_ttl.as_secs() => Duration::from_secs(asked),
            Ok(_) => {
                return Err(Refused::TooLong { asked_seconds: seconds, max_seconds: self.max_ttl.as_secs() });
            }
        };
        let hosts = self.hosts.get(caller).cloned().unwrap_or_default();
        Ok(Grant { id: caller.clone(), hosts, ttl })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::new(TrustDomain::parse("cluster.local").unwrap())
    }

    // spec: CA-10
    // bar: C3
    #[test]
    fn the_life_is_24_h_unless_asked_and_90_d_at_most() {
        let caller = SpiffeId::parse("spiffe://cluster.local/ns/a/sa/b").unwrap();
        for (asked, hours) in [(0, 24), (-1, 24), (i64::MIN, 24), (3600, 1), (90 * 86_400, 2160)] {
            let ttl = policy().grant(&caller, asked).unwrap().ttl;
            assert_eq!(ttl, Duration::from_secs(hours * 3600), "{asked}");
        }
        for asked in [90 * 86_400 + 1, i64::MAX] {
            assert!(matches!(policy().grant(&caller, asked), Err(Refused::TooLong { .. })), "{asked}");
        }
    }

    // spec: CA-3, CA-17
    #[test]
    fn host_names_are_granted_to_servers_of_the_control_plane_alone() {
        let id = |text: &str| SpiffeId::parse(text).unwrap();
        let mut policy = policy();
        policy
            .hosts
            .insert(id("spiffe://cluster.local/ns/istio-system/sa/istiod"), vec!["istiod.istio-system.svc".into()]);
        let hosts = |text| policy.grant(&id(text), 0).unwrap().hosts;
        assert_eq!(hosts("spiffe://cluster.local/ns/istio-system/sa/istiod"), ["istiod.istio-system.svc"]);
        assert!(hosts("spiffe://cluster.local/ns/shop/sa/istiod").is_empty());
    }

    #[test]
    fn a_caller_of_another_trust_domain_gets_nothing() {
        let caller = SpiffeId::parse("spiffe://evil/ns/a/sa/b").unwrap();
        assert!(matches!(policy().grant(&caller, 0), Err(Refused::TrustDomain { .. })));
    }
}
