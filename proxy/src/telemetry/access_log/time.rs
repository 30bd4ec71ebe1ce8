//! Points in time as text, after Envoy's format specifiers.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

/// How a point in time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeFormat {
    /// None: `2026-11-25T13:00:00.123Z`, without the cost of a format.
    specification: Option<Box<str>>,
    local: bool,
}

impl TimeFormat {
    /// `%Y-%m-%dT%H:%M:%E3SZ`, the form of access logs.
    pub fn iso() -> Self {
        Self { specification: None, local: false }
    }

    /// A format of Envoy: `strftime` with `%s` and `%f` (with a number of digits) in addition, and `%E3S` of Abseil.
    ///
    /// # Errors
    /// What is wrong with the format.
    pub fn parse(text: &str, local: bool) -> Result<Self, String> {
        if text.is_empty() || text == "%Y-%m-%dT%H:%M:%E3SZ" {
            return Ok(Self { specification: None, local: false });
        }
        let specification = translate(text);
        let probe = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        match jiff::fmt::strtime::format(specification.as_str(), &probe) {
            Ok(_) => Ok(Self { specification: Some(specification.into()), local }),
            Err(error) => Err(format!("time format {text:?}: {error}")),
        }
    }

    /// Appends `time`.
    pub fn write(&self, time: SystemTime, out: &mut Vec<u8>) {
        match &self.specification {
            None => write_iso(time, out),
            Some(specification) => {
                let Ok(at) = Timestamp::try_from(time) else { return };
                let zone = if self.local { TimeZone::system() } else { TimeZone::UTC };
                let at: Zoned = at.to_zoned(zone);
                if let Ok(text) = jiff::fmt::strtime::format(specification.as_bytes(), &at) {
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
    }
}

/// Envoy's specifiers in jiff's words: `%E3S` is seconds with three digits, `%E*S` as many as needed, `%f` nine digits.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let tail = tail.strip_prefix('%').unwrap_or(tail);
        if let Some(after) = tail.strip_prefix("E*S") {
            out.push_str("%S%.f");
            rest = after;
        } else if let Some((digits, after)) = tail.strip_prefix('E').and_then(split_digits)
            && let Some(after) = after.strip_prefix('S')
        {
            out.push_str(&format!("%S%.{digits}f"));
            rest = after;
        } else if let Some(after) = tail.strip_prefix('f') {
            out.push_str("%9f");
            rest = after;
        } else {
            // the specifier itself is taken over together with its percent sign, so that %% stays one thing
            let end = tail.chars().next().map_or(0, char::len_utf8);
            let (specifier, after) = tail.split_at(end);
            out.push('%');
            out.push_str(specifier);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

fn split_digits(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    (end > 0).then(|| text.split_at(end))
}

/// `2026-11-25T13:00:00.`
type Second = [u8; 20];

thread_local! {
    /// The second that was written last, and its text: most entries are of the same one.
    static SECOND: Cell<(u64, Second)> = const { Cell::new((u64::MAX, [0; 20])) };
}

fn write_iso(time: SystemTime, out: &mut Vec<u8>) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut text) = SECOND.get();
    if second != since.as_secs() {
        second = since.as_secs();
        text = text_of(second);
        SECOND.set((second, text));
    }
    let millis = since.subsec_millis();
    out.extend_from_slice(&text);
    out.extend_from_slice(&[digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
}

fn text_of(second: u64) -> Second {
    let (days, second_of_day) = (second / 86_400, second % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let two = |value: u64| [digit((value / 10) as u32), digit((value % 10) as u32)];
    let ([y1, y2], [y3, y4]) = (two(year / 100 % 100), two(year % 100));
    let [[m1, m2], [d1, d2], [h1, h2], [i1, i2], [s1, s2]] = [month, day, hour, minute, second].map(two);
    [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', i1, i2, b':', s1, s2, b'.']
}

/// The last decimal digit of a number.
fn digit(value: u32) -> u8 {
    b'0' + (value % 10) as u8
}

/// Year, month and day of a number of days since 1970, in the proleptic Gregorian calendar; years are counted from March,
/// so that the leap day is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn text(format: &TimeFormat, millis: u64) -> String {
        let mut out = Vec::new();
        format.write(UNIX_EPOCH + Duration::from_millis(millis), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_fast_form_agrees_with_the_calendar() {
        let slow = TimeFormat { specification: Some(translate("%Y-%m-%dT%H:%M:%E3SZ").into()), local: false };
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let millis = rng.u64(0..4_102_444_800_000);
            assert_eq!(text(&TimeFormat::iso(), millis), text(&slow, millis));
        }
        assert_eq!(text(&TimeFormat::iso(), 951_782_400_123), "2000-02-29T00:00:00.123Z");
    }

    // spec: AL-4
    #[test]
    fn formats_of_envoy_are_understood() {
        let cases = [
            ("%s", "1700000000"),
            ("%s.%3f", "1700000000.456"),
            ("%f", "456000000"),
            ("%Y/%m/%dT%H:%M:%S%z", "2023/11/14T22:13:20+0000"),
            ("%E*S %% %E6S", "20.456 % 20.456000"),
            ("%b %e %H:%M:%S %Y GMT", "Nov 14 22:13:20 2023 GMT"),
        ];
        for (format, expected) in cases {
            assert_eq!(text(&TimeFormat::parse(format, false).unwrap(), 1_700_000_000_456), expected, "{format}");
        }
        assert!(TimeFormat::parse("%!", false).is_err());
    }
}
