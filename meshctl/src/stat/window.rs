//! What happened between two scrapes.

use super::scrape::{Labels, Scrape, Series};
use std::collections::BTreeMap;
use std::time::Duration;

/// What counters gained, and over which time.
#[derive(Debug, Clone)]
pub struct Window {
    gained: BTreeMap<Series, f64>,
    seconds: f64,
    now: Scrape,
}

impl Window {
    /// The difference of two scrapes that are `apart`. A counter that fell began anew: what it shows is what it gained.
    pub fn between(before: &Scrape, now: Scrape, apart: Duration) -> Self {
        let gain = |(series, value): (&Series, &f64)| {
            let old = before.values.get(series).copied().unwrap_or(0.0);
            (series.clone(), if *value < old { *value } else { *value - old })
        };
        Self { gained: now.values.iter().map(gain).collect(), seconds: apart.as_secs_f64().max(0.001), now }
    }

    /// Series of a family with what they gained.
    pub fn gained<'a>(&'a self, family: &'static str) -> impl Iterator<Item = (&'a Labels, f64)> {
        self.gained.iter().filter(move |((own, _), _)| *own == family).map(|((_, labels), value)| (labels, *value))
    }

    /// Series of a family with what they show now.
    pub fn total<'a>(&'a self, family: &'static str) -> impl Iterator<Item = (&'a Labels, f64)> {
        self.now.values.iter().filter(move |((own, _), _)| *own == family).map(|((_, labels), value)| (labels, *value))
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_fell_began_anew() {
        let at = |a: u32, b: u32| {
            Scrape::parse(&format!("istio_requests_total{{x=\"a\"}} {a}\nistio_requests_total{{x=\"b\"}} {b}\n"))
        };
        let window = Window::between(&at(10, 10), at(14, 3), Duration::from_secs(2));
        let gained: Vec<f64> = window.gained("istio_requests_total").map(|(_, value)| value).collect();
        assert_eq!((gained, window.seconds()), (vec![4.0, 3.0], 2.0));
    }
}
