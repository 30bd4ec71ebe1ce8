//! What a run must not come to: `p99>20ms`, so that a test in CI fails by itself.

use super::format::parse_duration;
use super::record::Record;
use super::run::Outcome;
use std::str::FromStr;

/// A value of a run that makes it fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    text: String,
    value: Value,
    comparison: Comparison,
    /// Seconds, calls per second, calls, or per cent.
    bound: f64,
    percent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Percentile(f64),
    CorrectedPercentile(f64),
    Average,
    CorrectedAverage,
    Least,
    Most,
    CorrectedMost,
    Rate,
    Failures,
    Successes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
}

/// Longer signs first: `>=` begins with `>`.
const SIGNS: [(&str, Comparison); 5] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("==", Comparison::Equal),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

impl Value {
    fn parse(name: &str) -> Option<Self> {
        let percentile = |digits: &str| digits.parse::<f64>().ok().filter(|p| *p > 0.0 && *p <= 100.0);
        Some(match name {
            "avg" => Self::Average,
            "corrected-avg" => Self::CorrectedAverage,
            "min" => Self::Least,
            "max" => Self::Most,
            "corrected-max" => Self::CorrectedMost,
            "qps" => Self::Rate,
            "errors" => Self::Failures,
            "success" => Self::Successes,
            _ => match (name.strip_prefix('p'), name.strip_prefix("corrected-p")) {
                (_, Some(digits)) => Self::CorrectedPercentile(percentile(digits)?),
                (Some(digits), _) => Self::Percentile(percentile(digits)?),
                _ => return None,
            },
        })
    }

    fn is_count(self) -> bool {
        matches!(self, Self::Failures | Self::Successes)
    }

    fn of(self, outcome: &Outcome, percent: bool) -> f64 {
        let record = &outcome.record;
        let share = |count: u64| match (percent, record.calls()) {
            (false, _) => count as f64,
            (true, 0) => 0.0,
            (true, calls) => 100.0 * count as f64 / calls as f64,
        };
        match self {
            Self::Percentile(p) => record.exact.percentile(p),
            Self::CorrectedPercentile(p) => corrected(record).percentile(p),
            Self::Average => record.latency.counter.average(),
            Self::CorrectedAverage if record.corrected.counter.count > 0 => record.corrected.counter.average(),
            Self::CorrectedAverage => record.latency.counter.average(),
            Self::Least => record.latency.counter.min,
            Self::Most => record.latency.counter.max,
            Self::CorrectedMost => record.latency.counter.max.max(record.corrected.counter.max),
            Self::Rate => record.calls() as f64 / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            Self::Failures => share(record.failures()),
            Self::Successes => share(record.calls() - record.failures()),
        }
    }
}

/// Without a rate no call is due before it is made: both are the same.
fn corrected(record: &Record) -> &super::record::Exact {
    if record.corrected.counter.count > 0 { &record.exact_corrected } else { &record.exact }
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare: String = text.split_whitespace().collect();
        let wrong = |what: &str| format!("{text:?}: {what}; write p99>20ms, errors>0.1% or qps<990");
        let found = SIGNS.iter().find_map(|(sign, comparison)| Some((bare.split_once(sign)?, *comparison)));
        let ((name, bound), comparison) = found.ok_or_else(|| wrong("there is no comparison"))?;
        let value = Value::parse(name).ok_or_else(|| wrong(&format!("{name:?} is no value of a run")))?;
        let percent = bound.ends_with('%');
        let number = bound.trim_end_matches('%').parse::<f64>().ok().filter(|number| number.is_finite());
        let bound = match (value, number) {
            (Value::Rate, Some(number)) if !percent => number,
            (value, Some(number)) if value.is_count() => number,
            (value, None) if !value.is_count() && value != Value::Rate => {
                parse_duration(bound).map_err(|text| wrong(&text))?.as_secs_f64()
            }
            _ => return Err(wrong(&format!("{bound:?} has the wrong unit for {name}"))),
        };
        Ok(Self { text: bare, value, comparison, bound, percent })
    }
}

impl Bound {
    /// What to say where the bound is broken.
    pub fn broken_by(&self, outcome: &Outcome) -> Option<String> {
        let value = self.value.of(outcome, self.percent);
        let broken = match self.comparison {
            Comparison::Above => value > self.bound,
            Comparison::AtLeast => value >= self.bound,
            Comparison::Below => value < self.bound,
            Comparison::AtMost => value <= self.bound,
            Comparison::Equal => (value - self.bound).abs() < f64::EPSILON,
        };
        let shown = match self.value {
            Value::Rate => format!("{value:.1}"),
            value_name if value_name.is_count() && self.percent => format!("{value:.3}%"),
            value_name if value_name.is_count() => format!("{value}"),
            _ => format!("{:.3}ms", value * 1000.0),
        };
        broken.then(|| format!("FAILED {}: it is {shown}", self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::plan::Plan;
    use crate::load::record::Answer;
    use std::time::Duration;

    fn outcome() -> Outcome {
        let mut record = Record::new(&Plan::default());
        for number in 1..=100 {
            let status = if number == 100 { 503 } else { 200 };
            let ms = Duration::from_millis(number);
            record.take(&Answer::http(status, 1, 1), ms, Some(ms * 2));
        }
        Outcome { record, elapsed: Duration::from_secs(2) }
    }

    // spec: FO-43
    #[test]
    fn bounds_are_broken_or_kept() {
        let outcome = outcome();
        let broken = |text: &str| text.parse::<Bound>().unwrap().broken_by(&outcome);
        for text in [
            "p99>20ms",
            "p50 >= 0.04s",
            "p99.9>1us",
            "avg>50ms",
            "max>99ms",
            "min<2ms",
            "qps<51",
            "errors>0",
            "errors==1",
            "errors>0.5%",
            "success<99.5%",
            "success<=99",
            "corrected-p50>99ms",
            "corrected-max>199ms",
            "corrected-avg>100ms",
        ] {
            assert!(broken(text).is_some(), "{text}");
        }
        for text in ["p99>120ms", "p50<40ms", "qps>51", "errors>1", "errors>1%", "success<99", "corrected-p50>110ms"] {
            assert!(broken(text).is_none(), "{text}");
        }
        assert_eq!(broken("errors>0").unwrap(), "FAILED errors>0: it is 1");
        assert_eq!(broken("max > 99ms").unwrap(), "FAILED max>99ms: it is 100.000ms");
    }

    // spec: FO-43
    #[test]
    fn a_bound_that_says_nothing_is_refused() {
        for wrong in ["p99", "p99>20", "p101>1ms", "x>1", "qps<5ms", "qps<5%", "errors>1ms", "p99>5%", ">1", "p99>x"] {
            assert!(wrong.parse::<Bound>().is_err(), "{wrong}");
        }
    }
}
