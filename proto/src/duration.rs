//! Durations as protobuf, Go and Envoy write them.

use crate::envoy::wkt;
use std::time::Duration;

/// A duration text that is neither protobuf's nor Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {0:?}: write it like 1.5s, 250ms, 1h30m")]
pub struct DurationError(pub String);

/// Parses Go's `time.ParseDuration` form (`1h30m`, `250ms`), of which protobuf's `1.5s` is a special case.
///
/// # Errors
/// [`DurationError`] for anything else, negative values and overflow included.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let bad = || DurationError(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.trim();
    let mut nanos: f64 = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        nanos += number.parse::<f64>().map_err(|_| bad())? * scale;
        rest = next;
    }
    if nanos.is_finite() && nanos < 1e19 { Ok(Duration::from_nanos(nanos.round() as u64)) } else { Err(bad()) }
}

/// The protobuf form of a duration.
pub fn to_proto(duration: Duration) -> wkt::Duration {
    wkt::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A protobuf duration as a Rust one; negative values become zero.
pub fn from_proto(duration: &wkt::Duration) -> Duration {
    Duration::new(u64::try_from(duration.seconds).unwrap_or(0), u32::try_from(duration.nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_go_and_protobuf_forms() {
        for (text, ms) in [("1.5s", 1500), ("250ms", 250), ("1h1m1s", 3_661_000), ("24h0m0s", 86_400_000), ("0", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "-1s", "1x", "s", "1.5"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
