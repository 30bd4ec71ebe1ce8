//! Figures in words.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Letters that stand for themselves in a part of a URL.
const KEEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A part of a path or of a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, KEEP).to_string()
}

/// The time of day, UTC.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{} UTC", time_of_day(since))
}

/// The time of day of a point in time.
pub fn time_of_day(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Per second.
pub fn rate(value: f64) -> String {
    match value {
        v if v <= 0. => "0".to_owned(),
        v if v < 10. => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// Per cent.
pub fn percent(value: f64) -> String {
    match value {
        v if v <= 0. => "0 %".to_owned(),
        v if v < 0.1 => "<0.1 %".to_owned(),
        v if v < 10. => format!("{v:.1} %"),
        v => format!("{v:.0} %"),
    }
}

/// Milliseconds.
pub fn ms(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(v) if v < 10. => format!("{v:.1} ms"),
        Some(v) if v < 1000. => format!("{v:.0} ms"),
        Some(v) => format!("{:.1} s", v / 1000.),
    }
}

/// Nanoseconds.
pub fn nanos(value: u64) -> String {
    ms(Some(value as f64 / 1e6))
}

/// Bytes per second.
pub fn bytes_rate(value: f64) -> String {
    match value {
        v if v < 1e3 => format!("{v:.0} B/s"),
        v if v < 1e6 => format!("{:.1} kB/s", v / 1e3),
        v => format!("{:.1} MB/s", v / 1e6),
    }
}

/// At most so many characters.
pub fn short(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(characters.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!((rate(0.), rate(3.149), rate(1234.5)), ("0".into(), "3.1".into(), "1234".into()));
        assert_eq!((percent(0.05), percent(33.3)), ("<0.1 %".into(), "33 %".into()));
        assert_eq!((ms(Some(2.345)), ms(Some(2345.)), ms(None)), ("2.3 ms".into(), "2.3 s".into(), "-".into()));
        assert_eq!((short("abcdef", 4), encoded("a/b&c")), ("abc…".into(), "a%2Fb%26c".into()));
        assert_eq!(time_of_day(Duration::from_secs(86_400 + 3_661)), "01:01:01");
    }
}
