//! Totals of all proxies, merged by labels (MX-102): they only grow, also when a proxy has gone or restarts.
//!
//! The number of series is bounded; what comes after that shares one overflow series per family.

use super::family::Family;
use super::point::{MAX_VALUE_BYTES, Value, cut, text};
use foldhash::HashMap;
use proto::otlp::common::KeyValue;
use std::sync::Arc;

/// Series unless a flag says otherwise.
pub const MAX_SERIES: usize = 20_000;
/// What labels say in the series that stands for all beyond the limit.
pub const OVERFLOW: &str = "overflow";

/// Labels of a series, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of a label; empty where it is missing.
    pub fn of(&self, name: &str) -> &str {
        let found = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok();
        found.and_then(|index| self.0.get(index)).map_or("", |(_, value)| value)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// A merged total.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its family.
    pub family: Family,
    /// Its labels.
    pub labels: Labels,
    /// Of all proxies together.
    pub total: Value,
}

/// All series.
#[derive(Debug)]
pub struct SeriesTable {
    series: Vec<Series>,
    by_labels: HashMap<(Family, Labels), u32>,
    overflow: HashMap<Family, u32>,
    texts: foldhash::HashSet<Arc<str>>,
    limit: usize,
}

impl SeriesTable {
    /// An empty table for at most `limit` series, overflow aside.
    pub fn new(limit: usize) -> Self {
        Self {
            series: Vec::new(),
            by_labels: HashMap::default(),
            overflow: HashMap::default(),
            texts: foldhash::HashSet::default(),
            limit,
        }
    }

    /// The series of these labels, which is made when it is new and there is room.
    pub fn find(&mut self, family: Family, attributes: &[KeyValue]) -> u32 {
        let labels = self.labels(attributes);
        if let Some(index) = self.by_labels.get(&(family, labels.clone())) {
            return *index;
        }
        if self.series.len() >= self.limit + self.overflow.len() {
            return self.overflow(family, &labels);
        }
        let index = self.push(family, labels.clone());
        self.by_labels.insert((family, labels), index);
        index
    }

    /// Whether this is an overflow series.
    pub fn is_overflow(&self, index: u32) -> bool {
        self.overflow.values().any(|known| *known == index)
    }

    /// A series.
    pub fn get(&self, index: u32) -> Option<&Series> {
        self.series.get(index as usize)
    }

    /// Adds to a total. A gauge takes the value instead.
    pub fn add(&mut self, index: u32, gained: &Value) {
        let Some(series) = self.series.get_mut(index as usize) else { return };
        match (&mut series.total, gained) {
            (Value::Number(total), Value::Number(gained)) if series.family == Family::Build => {
                *total = total.max(*gained)
            }
            (Value::Number(total), Value::Number(gained)) => *total += gained,
            (Value::Histogram(counts, sum, bounds), Value::Histogram(gained, gained_sum, gained_bounds)) => {
                if bounds.is_empty() {
                    (*counts, *bounds) = (vec![0; gained.len()], gained_bounds.clone());
                }
                merge(counts, bounds, gained, gained_bounds);
                *sum += gained_sum;
            }
            _ => {}
        }
    }

    /// All of them.
    pub fn all(&self) -> &[Series] {
        &self.series
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    fn push(&mut self, family: Family, labels: Labels) -> u32 {
        let total = match family.kind() {
            super::family::Kind::Histogram => Value::Histogram(Vec::new(), 0., Vec::new()),
            _ => Value::Number(0.),
        };
        self.series.push(Series { family, labels, total });
        u32::try_from(self.series.len() - 1).unwrap_or(u32::MAX)
    }

    /// The series of a family for all beyond the limit.
    fn overflow(&mut self, family: Family, like: &Labels) -> u32 {
        if let Some(index) = self.overflow.get(&family) {
            return *index;
        }
        let value: Arc<str> = OVERFLOW.into();
        let labels: Vec<_> = like.0.iter().map(|(name, _)| (name.clone(), value.clone())).collect();
        let index = self.push(family, Labels(labels.into()));
        self.overflow.insert(family, index);
        index
    }

    fn labels(&mut self, attributes: &[KeyValue]) -> Labels {
        let mut labels: Vec<(Arc<str>, Arc<str>)> = attributes
            .iter()
            .map(|attribute| {
                let value = text(attribute.value.as_ref()).unwrap_or_default();
                (self.intern(&label_name(&attribute.key)), self.intern(cut(&value, MAX_VALUE_BYTES)))
            })
            .collect();
        labels.sort();
        labels.dedup_by(|later, earlier| later.0 == earlier.0);
        Labels(labels.into())
    }

    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let text: Arc<str> = text.into();
        // Past the limit labels of new series are dropped at once: their texts are not kept.
        if self.series.len() < self.limit {
            self.texts.insert(text.clone());
        }
        text
    }
}

/// Whether a name as it was sent becomes this one (short, of letters and `_`).
pub fn label_is(text: &str, name: &str) -> bool {
    text == name || text.chars().map(clean).eq(name.chars())
}

fn clean(c: char) -> char {
    if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }
}

/// A name that Prometheus takes as that of a label.
fn label_name(text: &str) -> String {
    let name: String = cut(text, 64).chars().map(clean).collect();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// Adds buckets to buckets. Where bounds differ, a bucket goes into the one that holds its upper bound.
fn merge(counts: &mut [u64], bounds: &[f64], gained: &[u64], gained_bounds: &[f64]) {
    for (index, count) in gained.iter().enumerate() {
        let at = if bounds == gained_bounds {
            index
        } else {
            gained_bounds.get(index).map_or(bounds.len(), |bound| bounds.partition_point(|known| known < bound))
        };
        if let Some(sum) = counts.get_mut(at) {
            *sum += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::otlp::common::{AnyValue, any_value};

    fn label(key: &str, value: &str) -> KeyValue {
        let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
        KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
    }

    #[test]
    fn the_order_of_labels_does_not_matter() {
        let mut table = SeriesTable::new(10);
        let one = table.find(Family::Requests, &[label("a", "1"), label("b.c", "2")]);
        let two = table.find(Family::Requests, &[label("b.c", "2"), label("a", "1")]);
        assert_eq!(one, two);
        assert_eq!(table.get(one).unwrap().labels.of("b_c"), "2");
    }

    #[test]
    fn past_the_limit_series_share_one() {
        let mut table = SeriesTable::new(2);
        for n in 0..5 {
            let index = table.find(Family::Requests, &[label("reporter", "source"), label("n", &n.to_string())]);
            table.add(index, &Value::Number(1.));
        }
        assert_eq!(table.len(), 3);
        let overflow = table.all().last().unwrap();
        assert_eq!((overflow.labels.of("n"), &overflow.total), ("overflow", &Value::Number(3.)));
    }

    #[test]
    fn buckets_with_other_bounds_are_kept_on_the_safe_side() {
        let mut table = SeriesTable::new(2);
        let index = table.find(Family::Duration, &[]);
        table.add(index, &Value::Histogram(vec![1, 2, 3], 10., vec![1., 10.]));
        table.add(index, &Value::Histogram(vec![1, 1, 1, 1], 20., vec![1., 5., 20.]));
        assert_eq!(table.get(index).unwrap().total, Value::Histogram(vec![2, 3, 5], 30., vec![1., 10.]));
    }
}
