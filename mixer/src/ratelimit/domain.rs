//! Domains: trees of rules, and which limit a descriptor meets (MX-111).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// A unit of time (`RateLimitUnit`), or any other length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
    /// 30 days, as envoyproxy/ratelimit counts it.
    Month,
    /// 365 days.
    Year,
    /// Another length.
    Every(Duration),
}

/// Name, unit, seconds and number on the wire of each named unit.
const UNITS: [(&str, Unit, u64, i32); 7] = [
    ("second", Unit::Second, 1, 1),
    ("minute", Unit::Minute, 60, 2),
    ("hour", Unit::Hour, 3_600, 3),
    ("day", Unit::Day, 86_400, 4),
    ("week", Unit::Week, 604_800, 7),
    ("month", Unit::Month, 2_592_000, 5),
    ("year", Unit::Year, 31_536_000, 6),
];

impl Unit {
    /// The unit of this name, whatever its case.
    pub fn named(name: &str) -> Option<Self> {
        UNITS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)).map(|(_, unit, ..)| *unit)
    }

    /// Its name in capitals.
    pub fn name(self) -> String {
        match (UNITS.iter().find(|(_, unit, ..)| *unit == self), self) {
            (Some((name, ..)), _) => name.to_ascii_uppercase(),
            (None, Self::Every(length)) => format!("{}s", length.as_secs_f64()),
            (None, _) => String::new(),
        }
    }

    /// Its length.
    pub fn length(self) -> Duration {
        match (UNITS.iter().find(|(_, unit, ..)| *unit == self), self) {
            (_, Self::Every(length)) => length,
            (found, _) => Duration::from_secs(found.map_or(1, |(_, _, seconds, _)| *seconds)),
        }
    }

    /// Its number in `RateLimitResponse.RateLimit.Unit`; 0 where it has none.
    pub fn number(self) -> i32 {
        UNITS.iter().find(|(_, unit, ..)| *unit == self).map_or(0, |(.., number)| *number)
    }

    /// The unit of `envoy.type.v3.RateLimitUnit`, whose numbers are other ones.
    pub fn of_override(number: i32) -> Option<Self> {
        let name = ["", "second", "minute", "hour", "day", "month", "year", "week"];
        name.get(usize::try_from(number).ok()?).and_then(|name| Self::named(name))
    }
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// How much per unit; nothing is no limit, and nothing is counted.
    pub per_unit: Option<u32>,
    /// The unit.
    pub unit: Unit,
    /// Its name, if it has one.
    pub name: String,
    /// Names of the limits that do not count where this one does.
    pub replaces: Vec<String>,
    /// Whether it only counts and never refuses.
    pub shadow: bool,
    /// Whether values of descriptors are part of its name in metrics.
    pub detailed: bool,
    /// The way to it, `key_value.key`, for metrics.
    pub path: String,
}

/// Rules below a domain or a rule.
#[derive(Debug, Default, Clone)]
pub struct Level {
    exact: HashMap<(String, String), Arc<Node>>,
    /// Values that end in a star; longer ones first.
    prefixes: Vec<(String, String, Arc<Node>)>,
    any: HashMap<String, Arc<Node>>,
}

/// A rule.
#[derive(Debug, Default, Clone)]
pub struct Node {
    /// Its limit.
    pub limit: Option<Arc<Limit>>,
    /// What is nested in it.
    pub below: Level,
}

/// A domain.
#[derive(Debug, Default, Clone)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its rules.
    pub rules: Level,
    /// Limits that each proxy counts by itself, for people.
    pub local: Vec<Arc<Limit>>,
}

/// All domains by name.
pub type Domains = BTreeMap<String, Arc<Domain>>;

/// An entry of a descriptor: key and value.
pub type Entry = (String, String);

impl Level {
    /// Adds a rule for a key and a value; an empty value is any, one that ends in `*` is a prefix.
    ///
    /// # Errors
    /// Where there is one already.
    pub fn add(&mut self, key: &str, value: &str, node: Node) -> Result<(), String> {
        let node = Arc::new(node);
        let key = key.to_owned();
        let twice = match value.strip_suffix('*') {
            Some(prefix) => {
                let twice = self.prefixes.iter().any(|(known, other, _)| *known == key && other == prefix);
                self.prefixes.push((key.clone(), prefix.to_owned(), node));
                self.prefixes.sort_by_key(|(_, prefix, _)| std::cmp::Reverse(prefix.len()));
                twice
            }
            None if value.is_empty() => self.any.insert(key.clone(), node).is_some(),
            None => self.exact.insert((key.clone(), value.to_owned()), node).is_some(),
        };
        if twice { Err(format!("{key} {value} stands here twice")) } else { Ok(()) }
    }

    /// The rule for an entry: key and value beat a prefix, that beats the key alone.
    fn rule(&self, entry: &Entry) -> Option<&Arc<Node>> {
        let prefix = |(key, prefix, _): &&(String, String, Arc<Node>)| *key == entry.0 && entry.1.starts_with(prefix);
        let by_prefix = || self.prefixes.iter().find(prefix).map(|(.., node)| node);
        self.exact.get(entry).or_else(by_prefix).or_else(|| self.any.get(&entry.0))
    }

    /// Every limit below, for people.
    pub fn limits(&self) -> Vec<Arc<Limit>> {
        let nodes = self.exact.values().chain(self.prefixes.iter().map(|(.., node)| node)).chain(self.any.values());
        let mut found: Vec<_> = nodes.flat_map(|node| node.limit.iter().cloned().chain(node.below.limits())).collect();
        found.sort_by(|one, other| one.path.cmp(&other.path));
        found
    }
}

impl Domain {
    /// The limit of a descriptor: it must be nested exactly as deep as the descriptor has entries.
    pub fn limit(&self, descriptor: &[Entry]) -> Option<&Arc<Limit>> {
        let (last, before) = descriptor.split_last()?;
        let mut level = &self.rules;
        for entry in before {
            level = &level.rule(entry)?.below;
        }
        level.rule(last)?.limit.as_ref()
    }

    /// The limit of entries whose order is not known.
    pub fn limit_of_set(&self, entries: &mut [Entry]) -> Option<&Arc<Limit>> {
        fn find<'d>(level: &'d Level, entries: &mut [Entry], from: usize) -> Option<&'d Arc<Limit>> {
            for at in from..entries.len() {
                entries.swap(from, at);
                if let Some(node) = entries.get(from).and_then(|entry| level.rule(entry)) {
                    let found = match from + 1 == entries.len() {
                        true => node.limit.as_ref(),
                        false => find(&node.below, entries, from + 1),
                    };
                    if found.is_some() {
                        return found;
                    }
                }
                entries.swap(from, at);
            }
            None
        }
        find(&self.rules, entries, 0)
    }
}
