//! Descriptors → an answer.

use super::domain::{Domain, Domains, Entry, Limit, Unit};
use super::meters::Meters;
use crate::quota::{Ask, CounterError, Counters, Grant, Window};
use crate::report::decided::{By, Decided};
use crate::report::family::Family;
use arc_swap::ArcSwap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// The most descriptors of a question.
pub const MAX_DESCRIPTORS: usize = 64;
/// The most entries of a descriptor.
pub const MAX_ENTRIES: usize = 32;
/// The longest lease.
pub const LONGEST_LEASE: Duration = Duration::from_secs(5);

/// Requests that may go on where nothing is limited.
const UNBOUNDED: u64 = u32::MAX as u64;

/// A descriptor of a question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// What it says.
    pub entries: Vec<Entry>,
    /// A limit that beats the configured one.
    pub limit: Option<(u32, Unit)>,
    /// How many hits, where it is not what the question says; negative gives back.
    pub hits: Option<i64>,
}

/// A question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// The domain.
    pub domain: String,
    /// The descriptors.
    pub descriptors: Vec<Descriptor>,
    /// How many hits; 0 is 1.
    pub hits: u32,
    /// Whether the caller honours leases.
    pub leases: bool,
}

/// What is said of a descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether it is beyond its limit.
    pub over: bool,
    /// Its limit.
    pub limit: Option<Arc<Limit>>,
    /// What is left of it.
    pub remaining: u32,
    /// How long until there is more.
    pub until_reset: Duration,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether any descriptor is beyond its limit.
    pub over: bool,
    /// One per descriptor.
    pub statuses: Vec<Status>,
    /// Requests, this one included, that may go on without a question, and how long.
    pub lease: Option<(u32, Duration)>,
}

/// Decides by the domains in force.
#[derive(Debug)]
pub struct Limiter {
    files: ArcSwap<Domains>,
    objects: ArcSwap<Domains>,
    mesh: ArcSwap<Domains>,
    stores: Stores,
    meters: Meters,
    shadow: bool,
}

/// Where limits are counted.
#[derive(Debug)]
pub struct Stores {
    /// All, but for what has a store of its own.
    pub common: Counters,
    /// Those of a second.
    pub per_second: Option<Counters>,
}

impl Stores {
    fn of(&self, window: Window) -> &Counters {
        let second = window == Window::Aligned(Unit::Second.length());
        self.per_second.as_ref().filter(|_| second).unwrap_or(&self.common)
    }
}

/// A limit that a descriptor met.
struct Met<'q> {
    index: usize,
    descriptor: &'q Descriptor,
    limit: Arc<Limit>,
    hits: i64,
}

impl Limiter {
    /// A limiter that counts in these stores. `shadow`: it refuses nothing at all.
    pub fn new(stores: Stores, meters: Meters, shadow: bool) -> Self {
        let (files, objects, mesh) = Default::default();
        Self { files, objects, mesh, stores, meters, shadow }
    }

    /// Puts the domains of files in force.
    pub fn load_files(&self, domains: Domains) {
        self.files.store(Arc::new(domains));
    }

    /// Puts the domains of RateLimit objects in files in force.
    pub fn load_objects(&self, domains: Domains) {
        self.objects.store(Arc::new(domains));
    }

    /// Puts the domains of RateLimit objects that pilot has in force.
    pub fn load_mesh(&self, domains: Domains) {
        self.mesh.store(Arc::new(domains));
    }

    fn sources(&self) -> [&ArcSwap<Domains>; 3] {
        [&self.files, &self.objects, &self.mesh]
    }

    /// The domain of this name: mixer's own files count before what pilot has.
    pub fn domain(&self, name: &str) -> Option<Arc<Domain>> {
        self.sources().into_iter().find_map(|source| source.load().get(name).cloned())
    }

    /// All domains in force.
    pub fn domains(&self) -> Vec<Arc<Domain>> {
        let all = self.sources().map(|source| source.load_full());
        let named = all.iter().rev().flat_map(|domains| domains.iter());
        let first: Domains = named.map(|(name, domain)| (name.clone(), domain.clone())).collect();
        first.into_values().collect()
    }

    /// What is measured.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Counts hits that proxies counted by themselves as those that were counted here. A limit that is gone counts no more.
    pub fn decided(&self, decided: &Decided) {
        let By::Limit(path) = &decided.by else { return };
        let within = |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        for domain in self.domains().iter().filter(|domain| within(&domain.name)) {
            let mut limits = domain.rules.limits().into_iter().chain(domain.local.iter().cloned());
            if let Some(limit) = limits.find(|limit| limit.path == *path) {
                return self.meters.tell(&domain.name, &limit, decided.count, decided.family == Family::LimitOver);
            }
        }
    }

    /// Answers a question.
    ///
    /// # Errors
    /// Where the store does not answer: the caller's own configuration says what that means.
    pub async fn decide(&self, question: &Question) -> Result<Answer, CounterError> {
        let domain = self.domain(&question.domain);
        let met = domain.as_deref().map_or_else(Vec::new, |domain| meet(domain, question));
        let mut statuses = vec![Status::default(); question.descriptors.len()];
        let mut answer = Answer::default();
        // How many requests all limits so far have granted.
        let mut ahead = None;
        let mut taken = Vec::new();
        let mut shortest = LONGEST_LEASE;
        for met in &met {
            let Some(per_unit) = met.limit.per_unit else {
                let status = Status { limit: Some(met.limit.clone()), remaining: u32::MAX, ..Status::default() };
                if let Some(place) = statuses.get_mut(met.index) {
                    *place = status
                }
                continue;
            };
            let ask = ask(question, met, per_unit, ahead);
            let grant = self.stores.of(ask.window).take(ask.clone()).await?;
            let status = self.status(question, met, &grant);
            answer.over |= status.over;
            if let Some(place) = statuses.get_mut(met.index) {
                *place = status
            }
            shortest = shortest.min(grant.until_reset);
            if let Ok(hits @ 1..) = u64::try_from(met.hits) {
                // A shadow that is exhausted restrains nobody.
                let requests = if grant.granted == 0 { 1 } else { grant.granted / hits };
                ahead = Some(ahead.map_or(requests, |before: u64| before.min(requests)));
                taken.push((ask, grant.granted, hits));
            }
        }
        answer.statuses = statuses;
        if question.leases {
            let requests = if answer.over { 1 } else { ahead.unwrap_or(UNBOUNDED) };
            self.give_back(taken, requests).await?;
            let granted = Some(requests).filter(|_| !answer.over);
            answer.lease =
                granted.filter(|_| !shortest.is_zero()).map(|one| (u32::try_from(one).unwrap_or(u32::MAX), shortest));
        }
        Ok(answer)
    }

    fn status(&self, question: &Question, met: &Met<'_>, grant: &Grant) -> Status {
        let counted = u64::try_from(met.hits).unwrap_or_default();
        let over = match counted {
            // Nothing to count: a look at what is left.
            0 => grant.remaining == 0 && met.hits == 0,
            _ => grant.granted == 0,
        };
        if counted > 0 {
            let left = (!over).then_some(grant.remaining);
            self.meters.count(&question.domain, (&met.limit, &met.descriptor.entries), counted, left);
        }
        Status {
            over: over && !met.limit.shadow && !self.shadow,
            limit: Some(met.limit.clone()),
            remaining: u32::try_from(grant.remaining).unwrap_or(u32::MAX),
            until_reset: grant.until_reset,
        }
    }

    /// Gives back what one limit granted beyond what all of them did.
    async fn give_back(&self, taken: Vec<(Ask, u64, u64)>, requests: u64) -> Result<(), CounterError> {
        for (ask, granted, hits) in taken {
            let beyond = granted.saturating_sub(requests.saturating_mul(hits));
            if beyond > 0 {
                let amount = -i64::try_from(beyond).unwrap_or_default();
                self.stores.of(ask.window).take(Ask { amount, ahead: None, ..ask }).await?;
            }
        }
        Ok(())
    }
}

/// The limits that a question's descriptors meet, without those that others replace.
fn meet<'q>(domain: &Domain, question: &'q Question) -> Vec<Met<'q>> {
    let default = i64::from(question.hits.max(1));
    let mut met = Vec::new();
    for (index, descriptor) in question.descriptors.iter().enumerate() {
        let own = descriptor.limit.map(|(per_unit, unit)| {
            Arc::new(Limit {
                per_unit: Some(per_unit),
                unit,
                name: String::new(),
                replaces: Vec::new(),
                shadow: false,
                detailed: false,
                path: "override".to_owned(),
            })
        });
        if let Some(limit) = own.or_else(|| domain.limit(&descriptor.entries).cloned()) {
            met.push(Met { index, descriptor, limit, hits: descriptor.hits.unwrap_or(default) });
        }
    }
    let replaced: Vec<String> = met.iter().flat_map(|met| met.limit.replaces.clone()).collect();
    met.retain(|met| met.limit.name.is_empty() || !replaced.contains(&met.limit.name));
    met
}

fn ask(question: &Question, met: &Met<'_>, per_unit: u32, ahead: Option<u64>) -> Ask {
    let mut key = question.domain.clone();
    for (name, value) in &met.descriptor.entries {
        // Lengths keep values apart that contain what separates them; writing to a String cannot fail.
        let _fits = write!(key, "|{}:{name}={}:{value}", name.len(), value.len()).is_err();
    }
    let _fits = write!(key, "|{}", met.limit.unit.name()).is_err();
    let hits = u64::try_from(met.hits).unwrap_or_default();
    Ask {
        key,
        limit: u64::from(per_unit),
        window: Window::Aligned(met.limit.unit.length()),
        amount: met.hits,
        best_effort: false,
        ahead: question.leases.then(|| ahead.map_or(u64::MAX, |requests| requests.saturating_mul(hits))),
        dedup: None,
    }
}

#[cfg(test)]
mod tests;
