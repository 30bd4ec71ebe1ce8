//! Two targets in one run: short slices of each in turn, so that whatever else happens on the machine happens to both.

use super::format::general;
use super::plan::{Plan, Schedule};
use super::record::Record;
use super::run::{Crew, Outcome, Stop};
use serde_json::{Value, json};
use std::time::Duration;

/// Length of a slice, where the rate leaves at least two calls per connection in it.
const SLICE: Duration = Duration::from_millis(250);
/// Order of the targets in four slices: a drift of the machine weighs on both alike.
const TURNS: [usize; 4] = [0, 1, 1, 0];
/// Fewest pairs of slices from which noise can be told.
const FEWEST_PAIRS: usize = 4;

/// The two targets' results.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// All calls of each.
    pub totals: [Outcome; 2],
    /// What is compared.
    pub rows: Vec<Row>,
}

/// One value of both targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name, such as `p99`.
    pub name: String,
    /// Of each target; latencies in seconds.
    pub values: [f64; 2],
    /// The second by the first.
    pub ratio: f64,
    /// Whether the difference is more than chance, or too few slices to say.
    pub beyond_noise: Option<bool>,
}

/// A value of a run: name, and how it is read.
struct Measure {
    name: String,
    percentile: Option<f64>,
}

impl Measure {
    fn of(&self, outcome: &Outcome) -> f64 {
        let record = &outcome.record;
        match (self.percentile, self.name.as_str()) {
            (Some(percentile), _) => from_due(record).percentile(percentile),
            (_, "avg") if record.corrected.counter.count > 0 => record.corrected.counter.average(),
            (_, "avg") => record.latency.counter.average(),
            (_, "errors") => record.failures() as f64,
            _ => record.calls() as f64 / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
        }
    }
}

/// Latencies counted from when calls were due, where they were.
fn from_due(record: &Record) -> &super::record::Exact {
    if record.corrected.counter.count > 0 { &record.exact_corrected } else { &record.exact }
}

/// The plan of one slice, and how many slices the length has for both targets together.
fn slices(plan: &Plan) -> (Plan, usize) {
    let length = plan.length.unwrap_or(Duration::from_secs(5));
    // with a rate, a slice holds whole rounds of calls over all connections, at least two of them
    let slice = plan.rate.map_or(SLICE, |rate| {
        let round = plan.connections as f64 / rate;
        let rounds = (SLICE.as_secs_f64() / round).ceil().max(2.0);
        Duration::from_secs_f64(rounds * round * (1.0 + 1e-9)).min(length) // a little more: the division was not exact
    });
    // both targets get the whole length, so that figures stand on as many calls as without a comparison
    let count = (2.0 * length.as_secs_f64() / slice.as_secs_f64()).round().max(2.0) as usize;
    (Plan { length: Some(slice), exactly: None, ..plan.clone() }, count + count % 2)
}

/// Runs both targets of a crew in turn.
///
/// # Errors
/// Where a thread died.
pub async fn run(crew: &mut Crew, plan: &Plan, processors: usize, stop: &Stop) -> anyhow::Result<Comparison> {
    let (slice, count) = slices(plan);
    let schedule = Schedule::new(&slice, processors);
    let mut parts: [Vec<Outcome>; 2] = [Vec::new(), Vec::new()];
    for number in 0..count {
        if stop.is_set() {
            break;
        }
        let target = TURNS[number % TURNS.len()];
        let outcome = crew.work(target, &slice, &schedule).await?;
        parts[target].push(outcome);
    }
    Ok(Comparison::new(&slice, &parts))
}

impl Comparison {
    fn new(plan: &Plan, parts: &[Vec<Outcome>; 2]) -> Self {
        let total = |parts: &[Outcome]| {
            let mut all = Outcome { record: Record::new(plan), elapsed: Duration::ZERO };
            for part in parts {
                all.record.add(&part.record);
                all.elapsed += part.elapsed;
            }
            all
        };
        let totals = [total(&parts[0]), total(&parts[1])];
        let named = |name: &str| Measure { name: name.to_owned(), percentile: None };
        let percentiles = plan.percentiles.iter().map(|p| Measure { name: format!("p{p}"), percentile: Some(*p) });
        let measures = [named("qps"), named("errors"), named("avg")].into_iter().chain(percentiles);
        let rows = measures.map(|measure| row(&measure, &totals, parts)).collect();
        Self { totals, rows }
    }

    /// As lines of text, under the names of the targets.
    pub fn lines(&self, names: [&str; 2]) -> Vec<String> {
        let mut lines = vec![
            format!("Comparison, slices in turn; latencies from when calls were due. A: {}", names[0]),
            format!("{:>66}", format!("B: {}", names[1])).trim_start().to_owned(),
            format!("{:>8} {:>14} {:>14} {:>8}  verdict", "", "A", "B", "B/A"),
        ];
        for row in &self.rows {
            let shown = |value: f64| match row.name.as_str() {
                "qps" => format!("{value:.1}"),
                "errors" => format!("{value}"),
                _ => format!("{} ms", general(value * 1e3, 4)),
            };
            let verdict = match row.beyond_noise {
                Some(true) => "beyond noise",
                Some(false) => "within noise",
                None => "too short to say",
            };
            let [a, b] = row.values.map(shown);
            lines.push(format!("{:>8} {a:>14} {b:>14} {:>8.3}  {verdict}", row.name, row.ratio));
        }
        lines
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "Name": row.name, "A": row.values[0], "B": row.values[1], "Ratio": row.ratio,
                "BeyondNoise": row.beyond_noise,
            })
        });
        rows.collect()
    }
}

fn row(measure: &Measure, totals: &[Outcome; 2], parts: &[Vec<Outcome>; 2]) -> Row {
    let values = [measure.of(&totals[0]), measure.of(&totals[1])];
    let ratio = if values[0] == values[1] { 1.0 } else { values[1] / values[0] };
    let pairs: Vec<(f64, f64)> = parts[0].iter().zip(&parts[1]).map(|(a, b)| (measure.of(a), measure.of(b))).collect();
    Row { name: measure.name.clone(), values, ratio, beyond_noise: beyond_noise(&pairs) }
}

/// Whether the differences within pairs of slices are beyond what chance gives in one of a hundred comparisons: the
/// t-test for pairs.
fn beyond_noise(pairs: &[(f64, f64)]) -> Option<bool> {
    if pairs.len() < FEWEST_PAIRS {
        return None;
    }
    let count = pairs.len() as f64;
    let differences = || pairs.iter().map(|(a, b)| b - a);
    let mean = differences().sum::<f64>() / count;
    let variance = differences().map(|d| (d - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let error = (variance / count).sqrt();
    Some(mean.abs() > critical(pairs.len() - 1) * error)
}

/// Two-sided 1 % bound of Student's distribution, by its expansion around the normal one (within 4 % from 3 degrees on).
fn critical(degrees: usize) -> f64 {
    const NORMAL: f64 = 2.5758;
    let (z, n) = (NORMAL, degrees as f64);
    let first = (z.powi(3) + z) / (4.0 * n);
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n);
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n.powi(3));
    z + first + second + third
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::record::Answer;

    fn slice(ms: u64) -> Outcome {
        let mut record = Record::new(&Plan::default());
        for extra in 0..20 {
            let latency = Duration::from_micros(ms * 1000 + extra * 10);
            record.take(&Answer::http(200, 1, 1), latency, Some(latency));
        }
        Outcome { record, elapsed: Duration::from_millis(250) }
    }

    #[test]
    fn the_bound_is_students() {
        // two-sided 1 % from a table
        for (degrees, expected) in [(3, 5.841), (5, 4.032), (9, 3.250), (19, 2.861), (99, 2.626)] {
            let found = critical(degrees);
            assert!((found / expected - 1.0_f64).abs() < 0.04, "{degrees}: {found} instead of {expected}");
        }
    }

    // spec: FO-43
    #[test]
    fn a_difference_is_told_from_noise() {
        let noisy = |base: u64| (0..12).map(|number| slice(base + number * 7 % 5)).collect::<Vec<_>>();
        // as much noise, but not the same in each pair
        let other = |base: u64| (0..12).map(|number| slice(base + (number * 3 + 1) % 5)).collect::<Vec<_>>();
        let p50 = |comparison: &Comparison| comparison.rows.iter().find(|row| row.name == "p50").unwrap().clone();
        let same = Comparison::new(&Plan::default(), &[noisy(10), noisy(10).into_iter().rev().collect()]);
        assert_eq!(p50(&same).beyond_noise, Some(false));
        let slower = Comparison::new(&Plan::default(), &[noisy(10), other(14)]);
        let row = p50(&slower);
        assert_eq!(row.beyond_noise, Some(true));
        assert!((1.2..1.5).contains(&row.ratio), "{}", row.ratio);
        assert_eq!(slower.totals[1].record.calls(), 240);
        let short = Comparison::new(&Plan::default(), &[vec![slice(1)], vec![slice(9)]]);
        assert_eq!(p50(&short).beyond_noise, None);
    }

    // spec: FO-43
    #[test]
    fn slices_leave_each_connection_two_calls() {
        let (slice, count) = slices(&Plan::default());
        assert_eq!((slice.length.unwrap().as_secs_f32(), count), (1.0, 10));
        let (slice, count) = slices(&Plan { rate: Some(100.0), ..Plan::default() });
        assert_eq!((Schedule::new(&slice, 1).calls, count), (Some(7), 36));
        let (slice, count) = slices(&Plan { rate: None, ..Plan::default() });
        assert_eq!((slice.length, count), (Some(SLICE), 40));
    }
}
