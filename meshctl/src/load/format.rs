//! Numbers and durations as Go writes and reads them: Fortio's text is parsed by scripts, so ours has the same letters.

use std::time::Duration;

const NANOS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
    ("d", 86_400e9), // Fortio's own addition
];

/// `%.<digits>g`.
pub fn general(value: f64, digits: usize) -> String {
    let digits = digits.max(1);
    if value == 0.0 || !value.is_finite() {
        return plain(value);
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let exponent = exponent_of(&scientific);
    let precision = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= precision {
        return with_exponent(&scientific);
    }
    let decimals = usize::try_from(precision - 1 - exponent).unwrap_or(0);
    trimmed(&format!("{value:.decimals$}")).to_owned()
}

/// `%g`: the shortest text that reads back as the same number.
pub fn shortest(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return plain(value);
    }
    let scientific = format!("{value:e}");
    // Go's bound where no precision was given
    if (-4..6).contains(&exponent_of(&scientific)) { format!("{value}") } else { with_exponent(&scientific) }
}

fn plain(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { value.to_string() }
}

fn exponent_of(scientific: &str) -> i32 {
    scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

/// Rust's `1.50e-5` as Go's `1.5e-05`.
fn with_exponent(scientific: &str) -> String {
    let mantissa = scientific.split_once('e').map_or(scientific, |(mantissa, _)| mantissa);
    let exponent = exponent_of(scientific);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
}

fn trimmed(decimal: &str) -> &str {
    if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal }
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `300ms`.
pub fn duration(value: Duration) -> String {
    let nanos = value.as_nanos();
    let scaled = |unit: u128, name: &str| {
        let (whole, rest) = (nanos / unit, nanos % unit);
        let width = unit.ilog10() as usize;
        let text = if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:0width$}") };
        format!("{}{name}", trimmed(&text))
    };
    match nanos {
        0 => "0s".to_owned(),
        1..=999 => scaled(1, "ns"),
        1_000..=999_999 => scaled(1_000, "µs"),
        1_000_000..=999_999_999 => scaled(1_000_000, "ms"),
        _ => {
            let total = value.as_secs();
            let (hours, minutes) = (total / 3600, total / 60 % 60);
            let seconds = nanos - u128::from(total / 60 * 60) * 1_000_000_000;
            let (whole, rest) = (seconds / 1_000_000_000, seconds % 1_000_000_000);
            let seconds = if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:09}") };
            let seconds = trimmed(&seconds);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, _) => format!("{minutes}m{seconds}s"),
                _ => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Reads a duration: `300ms`, `1.5s`, `1m30s`, `1d`, `0`. A minus sign gives zero, which Fortio takes for "no end".
///
/// # Errors
/// Where it is none; the text says how to write one.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 300ms, 1.5s or 1m30s");
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (name, tail) = tail.split_at(end);
        let (_, unit) = NANOS.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
        nanos += number.parse::<f64>().map_err(|_| wrong())? * unit;
        rest = tail;
    }
    if text.is_empty() || text == "-" {
        return Err(wrong());
    }
    if negative { Ok(Duration::ZERO) } else { Duration::try_from_secs_f64(nanos / 1e9).map_err(|_| wrong()) }
}

/// Percentiles of a list such as `50,99.9`.
///
/// # Errors
/// Where one is no number between 0 and 100, or there is none.
pub fn parse_percentiles(text: &str) -> Result<Vec<f64>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parse = |part: &str| match part.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent < 100.0 => Ok(percent),
        _ => Err(format!("percentile {part:?} must be a number above 0 and below 100")),
    };
    let found = parts.map(parse).collect::<Result<Vec<f64>, String>>()?;
    if found.is_empty() { Err("name at least one percentile, such as 50,99".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_does() {
        // each checked with fmt.Printf
        for (value, digits, expected) in [
            (0.000197919, 6, "0.000197919"),
            (16696.163221, 5, "16696"),
            (0.00001234, 8, "1.234e-05"),
            (100000.0, 9, "100000"),
            (1e21, 9, "1e+21"),
            (999999.9, 5, "1e+06"),
            (-0.001, 6, "-0.001"),
            (2.0, 4, "2"),
            (123_456_789_012.0, 9, "1.23456789e+11"),
        ] {
            assert_eq!(general(value, digits), expected);
        }
        assert_eq!(shortest(0.000704218), "0.000704218");
        assert_eq!(shortest(9.7575e-05), "9.7575e-05");
        assert_eq!(shortest(188.32000000000002), "188.32000000000002");
        assert_eq!(shortest(99.9), "99.9");
        assert_eq!(shortest(1e6), "1e+06");
    }

    #[test]
    fn durations_are_written_and_read_as_go_does() {
        let cases = [
            ("1.5s", 1_500_000_000),
            ("1m30s", 90_000_000_000),
            ("1h0m5s", 3_605_000_000_000),
            ("500.756198ms", 500_756_198),
            ("12µs", 12_000),
            ("7ns", 7),
            ("0s", 0),
        ];
        for (text, nanos) in cases {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
            assert_eq!(parse_duration(text).unwrap(), Duration::from_nanos(nanos));
        }
        assert_eq!(parse_duration("-1s").unwrap(), Duration::ZERO);
        for wrong in ["", "5", "s", "5x", "-"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn percentiles_lie_between_0_and_100() {
        assert_eq!(parse_percentiles("50, 99.9").unwrap(), [50.0, 99.9]);
        for wrong in ["", "100", "0", "x"] {
            assert!(parse_percentiles(wrong).is_err(), "{wrong}");
        }
    }
}
