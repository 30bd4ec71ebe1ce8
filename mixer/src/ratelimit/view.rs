//! What a person may want to see of rate limits: each limit, who counts it, and how often it was met.

use super::domain::{Domain, Limit};
use super::limiter::Limiter;

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitView {
    /// `NAMESPACE/NAME.RULE` where a RateLimit made it, else the way to it in its file.
    pub name: String,
    /// Who counts: each proxy, or all together.
    pub counted_by: &'static str,
    /// How much it allows.
    pub allows: String,
    /// Whether it refuses nobody.
    pub shadow: bool,
    /// Hits, those that proxies counted among them; none where they are counted by value.
    pub hits: Option<u64>,
    /// Those that were beyond it: refused, unless it is a shadow.
    pub over: Option<u64>,
}

impl Limiter {
    /// All limits in force, by name.
    pub fn view(&self) -> Vec<LimitView> {
        let domains = self.domains();
        domains.iter().flat_map(|domain| self.limits_of(domain)).collect()
    }

    fn limits_of(&self, domain: &Domain) -> Vec<LimitView> {
        let shared = domain.rules.limits().into_iter().map(|limit| ("all proxies", limit));
        let local = domain.local.iter().cloned().map(|limit| ("each proxy", limit));
        let mut limits: Vec<_> = shared.chain(local).map(|(by, limit)| self.one(domain, by, &limit)).collect();
        limits.sort_by(|one, other| one.name.cmp(&other.name));
        limits
    }

    fn one(&self, domain: &Domain, counted_by: &'static str, limit: &Limit) -> LimitView {
        let counted = (!limit.detailed && limit.per_unit.is_some()).then(|| self.meters().of(&domain.name, limit));
        let unit = limit.unit.name().to_lowercase();
        LimitView {
            name: limit.path.clone(),
            counted_by,
            allows: limit.per_unit.map_or_else(|| "any number".to_owned(), |amount| format!("{amount} per {unit}")),
            shadow: limit.shadow,
            hits: counted.map(|(hits, _)| hits),
            over: counted.map(|(_, over)| over),
        }
    }
}
