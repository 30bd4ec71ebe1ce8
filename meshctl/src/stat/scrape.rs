//! One answer of mixer's `/metrics`, as far as it is Istio's (Prometheus' text format).

use std::collections::BTreeMap;

/// Most series that are read: mixer itself holds fewer.
const MAX_SERIES: usize = 1_000_000;

/// Families that are read.
const FAMILIES: [&str; 6] = [
    "istio_requests_total",
    "istio_request_duration_milliseconds_bucket",
    "istio_tcp_connections_opened_total",
    "istio_tcp_connections_closed_total",
    "istio_tcp_sent_bytes_total",
    "istio_tcp_received_bytes_total",
];

/// Labels of a series.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// A label; empty where there is none, and where Istio says `unknown`.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).filter(|value| *value != "unknown").unwrap_or_default()
    }
}

/// A series: its family and its labels.
pub type Series = (&'static str, Labels);

/// The values of one moment.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// Values by series.
    pub values: BTreeMap<Series, f64>,
}

impl Scrape {
    /// Reads the text. Lines of other families and lines that are malformed are passed over.
    pub fn parse(text: &str) -> Self {
        let values = text.lines().filter_map(line).take(MAX_SERIES).collect();
        Self { values }
    }
}

fn line(line: &str) -> Option<(Series, f64)> {
    let (name, rest) = line.split_once('{')?;
    let family = FAMILIES.into_iter().find(|family| *family == name)?;
    let (labels, rest) = labels(rest)?;
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(((family, labels), value))
}

/// The labels of `a="b",c="d"} 1`, and what follows the brace.
fn labels(mut text: &str) -> Option<(Labels, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((Labels(labels), rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        labels.insert(name.to_owned(), value);
        text = rest;
    }
}

/// The text up to the closing quote, with `\\`, `\"` and `\n` resolved, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_series_are_read_and_others_passed_over() {
        let text = "# HELP x\nmixer_senders 7\nistio_requests_total{a=\"x,\\\"}y\",reporter=\"source\",v=\"unknown\"} 12\n\
                    istio_build{component=\"mixer\"} 1\nistio_requests_total{broken 1\n";
        let scrape = Scrape::parse(text);
        let ((family, labels), value) = scrape.values.iter().next().unwrap();
        assert_eq!((*family, *value, scrape.values.len()), ("istio_requests_total", 12.0, 1));
        assert_eq!((labels.get("a"), labels.get("reporter"), labels.get("v")), ("x,\"}y", "source", ""));
    }
}
