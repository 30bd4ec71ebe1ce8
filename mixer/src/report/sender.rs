//! What each proxy counted so far, so that running totals become gains: pure, time is given.
//!
//! A lost report loses nothing, since the next one says the total. A proxy that restarts says so by a new start time
//! (or by a smaller total). After a restart of mixer the first totals count as totals, not as traffic of that second.

use super::point::{Point, Since, Value};
use foldhash::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

/// Proxies that are remembered.
pub const MAX_SENDERS: usize = 10_000;
/// Series that are remembered over all proxies; each costs about 100 bytes, a histogram 300.
pub const MAX_REMEMBERED: usize = 200_000;
/// A proxy that was silent for so long is forgotten when there is no room.
const SILENT: Duration = Duration::from_secs(15 * 60);
/// Points that a proxy may report per second, with twice as many at once; what comes beyond waits for its next total.
const POINTS_PER_SECOND: f64 = 50_000.;
/// First totals of a proxy come within this time after its first report.
const BASELINE: Duration = Duration::from_millis(700);

/// A proxy.
#[derive(Debug)]
pub struct Sender {
    first: Duration,
    last: Duration,
    previous: Duration,
    /// Points that it may report now.
    budget: f64,
    /// Whether it sends metrics of Istio's families itself.
    counts: bool,
    remembered: HashMap<u64, Last>,
}

#[derive(Debug)]
struct Last {
    series: u32,
    start: u64,
    value: Value,
}

/// What a point adds.
#[derive(Debug)]
pub struct Gain {
    /// To this series.
    pub series: u32,
    /// So much.
    pub value: Value,
    /// Whether it happened since the last report; otherwise nobody knows when.
    pub recent: bool,
}

impl Sender {
    /// When it reported first and last.
    pub fn seen(&self) -> (Duration, Duration) {
        (self.first, self.last)
    }

    /// Series that it reports.
    pub fn series(&self) -> usize {
        self.remembered.len()
    }
}

/// All proxies.
#[derive(Debug, Default)]
pub struct Senders {
    senders: HashMap<String, Sender>,
    remembered: usize,
}

impl Senders {
    /// Notes that a proxy reports so many points now, and says when it reported before. Nothing where there is no room for
    /// one more proxy, or where this one floods.
    pub fn note(&mut self, name: &str, points: usize, now: Duration) -> Option<Duration> {
        if !self.senders.contains_key(name) && self.senders.len() >= MAX_SENDERS && !self.forget_silent(now) {
            return None;
        }
        let burst = 2. * POINTS_PER_SECOND;
        let sender = self.senders.entry(name.to_owned()).or_insert_with(|| Sender {
            first: now,
            last: now,
            previous: now,
            budget: burst,
            counts: false,
            remembered: HashMap::default(),
        });
        let earned = now.saturating_sub(sender.last).as_secs_f64() * POINTS_PER_SECOND;
        sender.budget = (sender.budget + earned).min(burst);
        if now > sender.last {
            (sender.previous, sender.last) = (sender.last, now);
        }
        if sender.budget < points as f64 {
            return None;
        }
        sender.budget -= points as f64;
        Some(sender.previous)
    }

    /// Notes that a proxy counts itself: it is no longer counted from its access log.
    pub fn note_own_counts(&mut self, name: &str) {
        if let Some(sender) = self.senders.get_mut(name) {
            sender.counts = true;
        }
    }

    /// Whether a proxy counts itself.
    pub fn counts_itself(&self, name: &str) -> bool {
        self.senders.get(name).is_some_and(|sender| sender.counts)
    }

    /// What a point of `name` adds since its last report; `find` names the series of a point that is new. Nothing where
    /// there is no room to remember it.
    pub fn gain(&mut self, name: &str, point: &Point, now: Duration, find: impl FnOnce() -> u32) -> Option<Gain> {
        if self.remembered >= MAX_REMEMBERED {
            self.forget_silent(now);
        }
        let sender = self.senders.get_mut(name)?;
        let known = now.saturating_sub(sender.first) > BASELINE;
        match sender.remembered.entry(point.hash) {
            Entry::Occupied(mut last) => {
                let last = last.get_mut();
                if point.since == Since::LastReport {
                    return Some(Gain { series: last.series, value: point.value.clone(), recent: true });
                }
                let difference = (last.start == point.start).then(|| difference(&point.value, &last.value)).flatten();
                let recent = difference.is_some() || point.fresh;
                (last.start, last.value) = (point.start, point.value.clone());
                let value = difference.unwrap_or_else(|| point.value.clone());
                Some(Gain { series: last.series, value, recent })
            }
            Entry::Vacant(place) => {
                if self.remembered >= MAX_REMEMBERED {
                    return None;
                }
                self.remembered += 1;
                let series = find();
                place.insert(Last { series, start: point.start, value: point.value.clone() });
                let recent = known || point.fresh || point.since == Since::LastReport;
                Some(Gain { series, value: point.value.clone(), recent })
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Sender)> {
        self.senders.iter().map(|(name, sender)| (name.as_str(), sender))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Forgets the proxy that has been silent for longest; says whether there was one.
    fn forget_silent(&mut self, now: Duration) -> bool {
        let silent = self.senders.iter().filter(|(_, sender)| now.saturating_sub(sender.last) > SILENT);
        let Some(name) = silent.min_by_key(|(_, sender)| sender.last).map(|(name, _)| name.clone()) else {
            return false;
        };
        if let Some(gone) = self.senders.remove(&name) {
            self.remembered -= gone.remembered.len();
        }
        true
    }
}

/// What came on top; nothing when it is less than before: then counting began anew.
fn difference(now: &Value, before: &Value) -> Option<Value> {
    match (now, before) {
        (Value::Number(now), Value::Number(before)) => (now >= before).then(|| Value::Number(now - before)),
        (Value::Histogram(now, sum, bounds), Value::Histogram(before, sum_before, bounds_before)) => {
            if bounds != bounds_before || now.len() != before.len() {
                return None;
            }
            let counts: Option<Vec<u64>> =
                now.iter().zip(before).map(|(now, before)| now.checked_sub(*before)).collect();
            Some(Value::Histogram(counts?, (sum - sum_before).max(0.), bounds.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::family::Family;

    fn point(start: u64, total: f64, since: Since) -> Point {
        Point {
            family: Family::Requests,
            labels: Vec::new(),
            hash: 7,
            start,
            value: Value::Number(total),
            since,
            fresh: false,
        }
    }

    fn gained(senders: &mut Senders, seconds: u64, point: &Point) -> (f64, bool) {
        let now = Duration::from_secs(seconds);
        senders.note("a", 1, now).unwrap();
        let gain = senders.gain("a", point, now, || 3).unwrap();
        let Value::Number(value) = gain.value else { panic!("a counter") };
        (value, gain.recent)
    }

    #[test]
    fn running_totals_become_gains() {
        let mut senders = Senders::default();
        assert_eq!(gained(&mut senders, 1, &point(5, 1000., Since::Start)), (1000., false), "first: nobody knows when");
        assert_eq!(gained(&mut senders, 2, &point(5, 1010., Since::Start)), (10., true));
        assert_eq!(gained(&mut senders, 9, &point(5, 1010., Since::Start)), (0., true), "sent again: nothing new");
        assert_eq!(
            gained(&mut senders, 10, &point(9, 4000., Since::Start)),
            (4000., false),
            "restarted: another start"
        );
        assert_eq!(gained(&mut senders, 11, &point(9, 3., Since::Start)), (3., false), "restarted: less than before");
    }

    #[test]
    fn deltas_are_gains() {
        let mut senders = Senders::default();
        assert_eq!(gained(&mut senders, 1, &point(0, 5., Since::LastReport)), (5., true));
        assert_eq!(gained(&mut senders, 2, &point(1, 5., Since::LastReport)), (5., true));
    }

    #[test]
    fn what_is_new_from_a_known_proxy_has_just_happened() {
        let mut senders = Senders::default();
        senders.note("a", 0, Duration::from_secs(1)).unwrap();
        assert_eq!(gained(&mut senders, 3, &point(5, 2., Since::Start)), (2., true));
    }

    #[test]
    fn a_flood_is_throttled() {
        let mut senders = Senders::default();
        let now = Duration::from_secs(1);
        assert!(senders.note("a", 100_000, now).is_some());
        assert!(senders.note("a", 1, now).is_none());
        assert!(senders.note("a", 50_000, now + Duration::from_secs(1)).is_some());
    }

    #[test]
    fn there_is_room_for_so_many_only() {
        let mut senders = Senders::default();
        for n in 0..MAX_SENDERS {
            assert!(senders.note(&n.to_string(), 1, Duration::from_secs(1)).is_some());
        }
        assert!(senders.note("more", 1, Duration::from_secs(2)).is_none());
        assert!(senders.note("more", 1, Duration::from_secs(2000)).is_some(), "a silent one makes room");
        assert_eq!(senders.len(), MAX_SENDERS);
    }
}
