//! Fortio's histogram: the same buckets, the same interpolation between them, the same text and JSON.
//!
//! What it costs: a percentile below the resolution is a straight line between the smallest and the largest value.
//! [`super::record`] keeps exact percentiles beside it.

use super::format::{general, shortest};
use serde_json::{Value, json};

/// Ends of the buckets, in units of the resolution; a last one holds what is larger.
const ENDS: [u32; 56] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 100, 120, 140,
    160, 180, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 900, 1000, 2000, 3000, 4000, 5000, 7500, 10_000,
    20_000, 30_000, 40_000, 50_000, 75_000, 100_000,
];
const BUCKETS: usize = ENDS.len() + 1;

/// Count, sum and extremes of values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counter {
    /// How many.
    pub count: u64,
    /// The smallest; 0 where there is none.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their sum.
    pub sum: f64,
    squares: f64,
}

impl Counter {
    /// Takes a value.
    pub fn record(&mut self, value: f64) {
        (self.min, self.max) =
            if self.count == 0 { (value, value) } else { (self.min.min(value), self.max.max(value)) };
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    /// Takes what another one counted.
    pub fn add(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// The mean; 0 where there is no value.
    pub fn average(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// The standard deviation of all values (not of a sample).
    pub fn deviation(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let count = self.count as f64;
        ((self.squares - self.sum * self.sum / count) / count).max(0.0).sqrt()
    }

    /// One line: `<title> : count 2 avg … +/- … min … max … sum …`.
    pub fn line(&self, title: &str) -> String {
        format!(
            "{title} : count {} avg {} +/- {} min {} max {} sum {}",
            self.count,
            general(self.average(), 8),
            general(self.deviation(), 4),
            shortest(self.min),
            shortest(self.max),
            general(self.sum, 9)
        )
    }
}

/// Values counted in buckets.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// All values.
    pub counter: Counter,
    offset: f64,
    resolution: f64,
    counts: [u64; BUCKETS],
}

impl Histogram {
    /// An empty one. `resolution` is the width of the smallest bucket, above 0; `offset` where the first one ends.
    pub fn new(offset: f64, resolution: f64) -> Self {
        debug_assert!(resolution > 0.0, "a bucket has a width");
        Self { counter: Counter::default(), offset, resolution, counts: [0; BUCKETS] }
    }

    /// Takes a value.
    pub fn record(&mut self, value: f64) {
        self.counter.record(value);
        let scaled = (value - self.offset) / self.resolution;
        if let Some(count) = self.counts.get_mut(bucket_of(scaled)) {
            *count += 1;
        }
    }

    /// Takes what another one of the same buckets holds.
    pub fn add(&mut self, other: &Self) {
        debug_assert!(self.offset == other.offset && self.resolution == other.resolution, "the buckets are the same");
        self.counter.add(&other.counter);
        for (own, others) in self.counts.iter_mut().zip(&other.counts) {
            *own += others;
        }
    }

    /// How many values lie in the first bucket, at or below the offset.
    pub fn at_or_below_offset(&self) -> u64 {
        self.counts[0]
    }

    /// The buckets that hold something, with their cumulative percentage, and these percentiles.
    pub fn export(&self, percentiles: &[f64]) -> Exported {
        let mut buckets: Vec<Bucket> = Vec::new();
        let (mut previous, mut total) = (end_of(0).unwrap_or(0.0), 0);
        for (index, count) in self.counts.iter().enumerate() {
            let end = end_of(index);
            if *count > 0 {
                total += count;
                buckets.push(Bucket {
                    start: if buckets.is_empty() { self.counter.min } else { self.edge(previous) },
                    end: end.map_or(self.counter.max, |end| self.edge(end)),
                    percent: 100.0 * total as f64 / self.counter.count as f64,
                    count: *count,
                });
            }
            previous = end.unwrap_or(previous);
        }
        if let Some(last) = buckets.last_mut() {
            last.end = self.counter.max;
        }
        let mut exported = Exported { counter: self.counter, buckets, percentiles: Vec::new() };
        if self.counter.count > 0 {
            exported.percentiles = percentiles.iter().map(|p| (*p, exported.percentile(*p))).collect();
        }
        exported
    }

    fn edge(&self, end: f64) -> f64 {
        self.resolution * end + self.offset
    }
}

/// The end of a bucket in units of the resolution; none for the last one.
fn end_of(bucket: usize) -> Option<f64> {
    ENDS.get(bucket).map(|end| f64::from(*end))
}

/// A bucket holds what is above the end of the one before it, up to and with its own end.
fn bucket_of(scaled: f64) -> usize {
    // As Fortio: what is no more than this above an end belongs to it, for the division was not exact.
    const SLACK: f64 = 1e-12;
    let whole = scaled.trunc();
    let scaled = if scaled - whole < SLACK { whole } else { scaled };
    ENDS.partition_point(|end| f64::from(*end) < scaled)
}

/// One bucket with what it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Where it begins.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
    /// How many per cent of all values lie at or below its end.
    pub percent: f64,
    /// How many values it holds.
    pub count: u64,
}

/// A histogram as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// All values.
    pub counter: Counter,
    /// Buckets that are not empty, in order.
    pub buckets: Vec<Bucket>,
    /// Percentiles that were asked for, with their values.
    pub percentiles: Vec<(f64, f64)>,
}

impl Exported {
    /// A percentile, by a straight line within its bucket; 0 where there is no value.
    pub fn percentile(&self, percentile: f64) -> f64 {
        if percentile >= 100.0 {
            return self.counter.max;
        }
        // the smallest value alone is that many per cent
        let mut previous = 100.0 / self.counter.count as f64;
        if percentile <= previous {
            return self.counter.min;
        }
        for bucket in &self.buckets {
            if percentile <= bucket.percent {
                let part = (percentile - previous) / (bucket.percent - previous);
                return bucket.start + part * (bucket.end - bucket.start);
            }
            previous = bucket.percent;
        }
        self.counter.max
    }

    /// As lines of text.
    pub fn lines(&self, title: &str) -> Vec<String> {
        if self.buckets.is_empty() {
            return vec![format!("{title} : no data")];
        }
        let mut lines = vec![self.counter.line(title), "# range, mid point, percentile, count".to_owned()];
        for (index, bucket) in self.buckets.iter().enumerate() {
            lines.push(format!(
                "{} {} <= {} , {} , {:.2}, {}",
                if index == 0 { ">=" } else { ">" },
                general(bucket.start, 6),
                general(bucket.end, 6),
                general((bucket.start + bucket.end) / 2.0, 6),
                bucket.percent,
                bucket.count
            ));
        }
        lines.extend(self.percentile_lines());
        lines
    }

    /// `# target 50% 0.0123` and so on.
    pub fn percentile_lines(&self) -> impl Iterator<Item = String> {
        self.percentiles.iter().map(|(p, value)| format!("# target {}% {}", shortest(*p), general(*value, 6)))
    }

    /// As JSON: Fortio's `HistogramData`.
    pub fn json(&self) -> Value {
        let buckets = self.buckets.iter().map(|bucket| {
            json!({
                "Start": number(bucket.start), "End": number(bucket.end),
                "Percent": number(bucket.percent), "Count": bucket.count,
            })
        });
        let mut value = json!({
            "Count": self.counter.count,
            "Min": number(self.counter.min),
            "Max": number(self.counter.max),
            "Sum": number(self.counter.sum),
            "Avg": number(self.counter.average()),
            "StdDev": number(self.counter.deviation()),
            "Data": if self.buckets.is_empty() { Value::Null } else { buckets.collect() },
        });
        if !self.percentiles.is_empty() {
            value["Percentiles"] = percentiles_json(&self.percentiles);
        }
        value
    }
}

/// Percentiles as Fortio's JSON has them.
pub fn percentiles_json(percentiles: &[(f64, f64)]) -> Value {
    percentiles.iter().map(|(p, value)| json!({"Percentile": number(*p), "Value": number(*value)})).collect()
}

/// A number as Go's JSON writes it: without a fraction where it is whole.
pub fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0; // whole numbers are exact up to here
    if value.fract() == 0.0 && value.abs() < EXACT { json!(value as i64) } else { json!(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(offset: f64, resolution: f64, values: &[f64]) -> Histogram {
        let mut histogram = Histogram::new(offset, resolution);
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    // spec: FO-28
    #[test]
    fn buckets_are_fortios_and_open_to_the_left() {
        let all: Vec<f64> = (0..BUCKETS - 1).filter_map(end_of).collect();
        assert_eq!(all.len(), 56);
        for (index, end) in all.iter().enumerate() {
            assert_eq!(bucket_of(*end), index, "{end} ends its bucket");
            assert_eq!(bucket_of(*end + 0.5), index + 1, "what is above {end} is in the next");
        }
        assert_eq!(bucket_of(-3.0), 0);
        assert_eq!(bucket_of(1e9), BUCKETS - 1);
        // a little more than 1, for 1.1 is no binary number
        assert_eq!(bucket_of((1.1 - 1.0) / 0.1), 1);
    }

    // spec: FO-28
    #[test]
    fn empty_buckets_are_not_exported_and_the_ends_are_the_extremes() {
        let exported = of(0.0, 0.001, &[0.0015, 0.0016, 0.0125, 500.0]).export(&[]);
        let shape: Vec<_> = exported.buckets.iter().map(|b| (b.start, b.end, b.percent, b.count)).collect();
        assert_eq!(shape, [(0.0015, 0.002, 50.0, 2), (0.012, 0.014, 75.0, 1), (100.0, 500.0, 100.0, 1)]);
        let shifted = of(10.0, 2.0, &[13.0, 14.5]).export(&[]);
        assert_eq!(shifted.buckets.iter().map(|b| b.end).collect::<Vec<_>>(), [14.0, 14.5]);
        assert!(of(0.0, 1.0, &[]).export(&[50.0]).json()["Data"].is_null());
    }

    // spec: FO-29
    #[test]
    fn percentiles_are_interpolated_as_fortio_does() {
        // the example of Fortio's own documentation
        let exported = of(0.0, 10.0, &[10.0, 20.0, 30.0]).export(&[]);
        for (percentile, expected) in [(0.0, 10.0), (33.33, 10.0), (50.0, 15.0), (66.666_666_666, 20.0), (100.0, 30.0)]
        {
            let value = exported.percentile(percentile);
            assert!((value - expected).abs() < 1e-6, "p{percentile} is {value}");
        }
    }

    // spec: FO-30, FO-31
    #[test]
    fn text_and_json_are_those_of_a_recorded_fortio() {
        // `fortio grpcping -n 3`, values read off its output
        let exported = of(-10.0, 2.0, &[41.326, -12.91, 22.177]).export(&[50.0]);
        assert_eq!(
            exported.lines("Clock skew histogram usec"),
            [
                "Clock skew histogram usec : count 3 avg 16.864333 +/- 22.46 min -12.91 max 41.326 sum 50.593",
                "# range, mid point, percentile, count",
                ">= -12.91 <= -10 , -11.455 , 33.33, 1",
                "> 22 <= 26 , 24 , 66.67, 1",
                "> 40 <= 41.326 , 40.663 , 100.00, 1",
                "# target 50% 24",
            ]
        );
        let text = serde_json::to_string(&of(0.0, 1.0, &[1.0, 1.0]).export(&[99.9]).json()).unwrap();
        assert_eq!(
            text,
            r#"{"Count":2,"Min":1,"Max":1,"Sum":2,"Avg":1,"StdDev":0,"Data":[{"Start":1,"End":1,"Percent":100,"Count":2}],"Percentiles":[{"Percentile":99.9,"Value":1}]}"#
        );
    }

    #[test]
    fn parts_add_up() {
        let mut one = of(0.0, 1.0, &[1.0, 5.0]);
        one.add(&of(0.0, 1.0, &[]));
        one.add(&of(0.0, 1.0, &[0.5, 200_000.0]));
        assert_eq!(one, of(0.0, 1.0, &[1.0, 5.0, 0.5, 200_000.0]));
    }
}
