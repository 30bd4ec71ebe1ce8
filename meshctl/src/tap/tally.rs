//! Requests by source, destination, method and path (CT-42).

use super::request::Request;
use super::text::printable;
use serde::Serialize;
use std::collections::HashMap;

/// Most rows that are kept: what comes beyond them is added up in one.
const MAX_ROWS: usize = 1000;
/// The name of that one.
const OTHER: &str = "(other)";

/// What a row stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    source: String,
    destination: String,
    method: String,
    path: String,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Who asks.
    pub source: String,
    /// Who is asked.
    pub destination: String,
    /// Method.
    pub method: String,
    /// Path without its query.
    pub path: String,
    /// Requests.
    pub count: u64,
    /// Shortest time, milliseconds.
    pub best_ms: f64,
    /// Longest time.
    pub worst_ms: f64,
    /// Time of the last one.
    pub last_ms: f64,
    /// Share of those that went well.
    pub success: f64,
}

#[derive(Debug, Clone, Copy)]
struct Sum {
    count: u64,
    good: u64,
    best_ms: f64,
    worst_ms: f64,
    last_ms: f64,
}

/// All rows so far.
#[derive(Debug, Default)]
pub struct Tally {
    rows: HashMap<Key, Sum>,
}

impl Tally {
    /// Adds a request that has ended; with `hide_sources` all who ask are one.
    pub fn add(&mut self, request: &Request, hide_sources: bool) {
        let mut key = Key {
            source: if hide_sources { "*".to_owned() } else { printable(request.source_name()) },
            destination: printable(request.destination_name()),
            method: printable(&request.method),
            path: printable(request.path.split('?').next().unwrap_or_default()),
        };
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&key) {
            let other = || OTHER.to_owned();
            key = Key { source: other(), destination: other(), method: other(), path: other() };
        }
        let ms = request.total_ms.unwrap_or_default();
        let sum = self.rows.entry(key).or_insert(Sum { count: 0, good: 0, best_ms: ms, worst_ms: ms, last_ms: ms });
        sum.count += 1;
        sum.good += u64::from(request.is_success());
        (sum.best_ms, sum.worst_ms, sum.last_ms) = (sum.best_ms.min(ms), sum.worst_ms.max(ms), ms);
    }

    /// The rows, the most frequent first.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<(&Key, &Sum)> = self.rows.iter().collect();
        rows.sort_by(|(a, x), (b, y)| y.count.cmp(&x.count).then_with(|| a.cmp(b)));
        let row = |(key, sum): (&Key, &Sum)| Row {
            source: key.source.clone(),
            destination: key.destination.clone(),
            method: key.method.clone(),
            path: key.path.clone(),
            count: sum.count,
            best_ms: sum.best_ms,
            worst_ms: sum.worst_ms,
            last_ms: sum.last_ms,
            success: sum.good as f64 / sum.count as f64,
        };
        rows.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, status: u16, ms: f64) -> Request {
        let (path, method) = (path.to_owned(), "GET".to_owned());
        Request { path, method, status: Some(status), total_ms: Some(ms), authority: "a".into(), ..Request::default() }
    }

    // spec: CT-42
    #[test]
    fn a_row_has_count_best_worst_last_and_success_and_the_most_frequent_stands_first() {
        let mut tally = Tally::default();
        tally.add(&request("/once", 200, 1.0), false);
        for (status, ms) in [(200, 3.0), (503, 1.5), (404, 9.0), (200, 2.0)] {
            tally.add(&request("/often?x=1", status, ms), false);
        }
        let rows = tally.rows();
        assert_eq!((rows[0].path.as_str(), rows[0].count, rows[0].success), ("/often", 4, 0.75));
        assert_eq!((rows[0].best_ms, rows[0].worst_ms, rows[0].last_ms), (1.5, 9.0, 2.0));
        assert_eq!((rows[1].path.as_str(), rows[1].count), ("/once", 1));
    }

    #[test]
    fn rows_are_bounded() {
        let mut tally = Tally::default();
        for number in 0..MAX_ROWS + 50 {
            tally.add(&request(&format!("/{number}"), 200, 1.0), true);
        }
        let rows = tally.rows();
        assert_eq!((rows.len(), rows[0].path.as_str(), rows[0].count), (MAX_ROWS + 1, OTHER, 50));
        assert_eq!(rows[1].source, "*");
    }
}
