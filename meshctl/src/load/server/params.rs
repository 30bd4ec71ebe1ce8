//! Parameters of the echo server, each a value or a choice by chance: `status=503`, `status=503:20,404:10`.

use super::super::format::parse_duration;
use percent_encoding::percent_decode_str;
use std::time::Duration;

/// What the query of a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params {
    /// How long to wait before answering.
    pub delay: Duration,
    /// Status; 200 where it is not given.
    pub status: Option<u16>,
    /// Bytes to answer with instead of the request's body.
    pub size: Option<usize>,
    /// Whether to close the connection afterwards.
    pub close: bool,
    /// Whether to compress by gzip, if the client takes it.
    pub gzip: bool,
    /// Headers to add.
    pub headers: Vec<(String, String)>,
    /// Whether to list the environment (`env=dump`).
    pub environment: bool,
}

/// Bounds of what a request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest delay.
    pub delay: Duration,
    /// Largest size in bytes.
    pub size: usize,
}

impl Params {
    /// Reads a query, and throws the dice where it leaves a choice. What cannot be read is as if it were not there, but
    /// a status that cannot be read gives 400, as with Fortio.
    pub fn new(query: &str, limits: Limits) -> Self {
        let mut params = Self::default();
        let mut seen = Vec::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name), decoded(value));
            if name == "header" {
                if let Some((name, value)) = value.split_once(':') {
                    params.headers.push((name.trim().to_owned(), value.trim().to_owned()));
                }
                continue;
            }
            if value.is_empty() || seen.contains(&name) {
                continue; // the first one counts
            }
            match name.as_str() {
                "delay" => {
                    let delay = chosen(&value, |text| parse_duration(text).ok());
                    params.delay = delay.ok().flatten().unwrap_or_default().min(limits.delay);
                }
                "status" => {
                    let status = chosen(&value, |text| text.parse().ok().filter(|code| (200..1000).contains(code)));
                    params.status = status.unwrap_or(Some(400));
                }
                "size" => {
                    let size =
                        chosen(&value, |text| text.parse().ok().map(|size: i64| usize::try_from(size).unwrap_or(0)));
                    params.size = size.ok().flatten().map(|size| size.min(limits.size));
                }
                "close" => params.close = by_chance(&value),
                "gzip" => params.gzip = by_chance(&value),
                "env" => params.environment = value == "dump",
                _ => {}
            }
            seen.push(name);
        }
        params
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// A value, or one of several by chance (`a:20,b:10.5%`); `None` for the rest of the hundred per cent.
fn chosen<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ()> {
    if !text.contains([':', ',']) {
        return parse(text).map(Some).ok_or(());
    }
    let mut total = 0.0;
    let mut choices = Vec::new();
    for entry in text.split(',') {
        let (value, percent) = entry.split_once(':').ok_or(())?;
        let percent: f64 = percent.trim_end_matches('%').parse().map_err(|_| ())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(());
        }
        total += percent;
        choices.push((parse(value).ok_or(())?, total));
    }
    if total > 100.0001 {
        return Err(()); // a little more is only rounding
    }
    let dice = 100.0 * fastrand::f64();
    Ok(choices.into_iter().find(|(_, up_to)| dice < *up_to).map(|(value, _)| value))
}

/// `true`, or a percentage, perhaps as `true:10`.
fn by_chance(text: &str) -> bool {
    let percent = text.strip_prefix("true:").unwrap_or(text).trim_end_matches('%');
    match (percent, percent.parse::<f64>()) {
        ("false", _) => false,
        (_, Ok(percent)) => 100.0 * fastrand::f64() < percent,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { delay: Duration::from_millis(1500), size: 1000 };

    fn read(query: &str) -> Params {
        Params::new(query, LIMITS)
    }

    // spec: FO-34
    #[test]
    fn single_values_are_taken_and_capped() {
        let params = read("delay=10ms&status=503&size=12&close=true&header=a:b&header=c:%20d&gzip=true&x=y");
        assert_eq!((params.delay, params.status, params.size), (Duration::from_millis(10), Some(503), Some(12)));
        assert!(params.close && params.gzip && !params.environment);
        assert_eq!(params.headers, [("a".into(), "b".into()), ("c".into(), "d".into())]);
        let capped = read("delay=1h&size=5000");
        assert_eq!((capped.delay, capped.size), (LIMITS.delay, Some(1000)));
        assert_eq!(read("size=-3").size, Some(0));
        assert_eq!(read(""), Params::default());
        assert!(read("env=dump").environment);
    }

    // spec: FO-34
    #[test]
    fn chances_come_about_as_often_as_they_should() {
        let rolls: Vec<Params> = (0..20_000)
            .map(|_| read("status=503:20,404:10%25&delay=10ms:50&size=7:25,9:25&close=30&gzip=true:40"))
            .collect();
        let share = |wanted: fn(&Params) -> bool| rolls.iter().filter(|params| wanted(params)).count() as f64 / 200.0;
        for (found, expected) in [
            (share(|p| p.status == Some(503)), 20.0),
            (share(|p| p.status == Some(404)), 10.0),
            (share(|p| p.status.is_none()), 70.0),
            (share(|p| p.delay == Duration::from_millis(10)), 50.0),
            (share(|p| p.size == Some(9)), 25.0),
            (share(|p| p.close), 30.0),
            (share(|p| p.gzip), 40.0),
        ] {
            assert!((found - expected).abs() < 2.0, "{found} % instead of {expected} %");
        }
    }

    // spec: FO-34
    #[test]
    fn what_cannot_be_read_changes_nothing_but_the_status() {
        for query in ["status=abc", "status=503:60,404:60", "status=503:200", "status=503:1,404", "status=99"] {
            assert_eq!(read(query).status, Some(400), "{query}");
        }
        let params = read("delay=abc&size=x&size=3&delay=1ms:x&close=false&gzip=0&header=none");
        assert_eq!(params, Params::default());
    }
}
