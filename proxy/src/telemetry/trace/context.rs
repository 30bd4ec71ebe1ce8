//! The trace a request belongs to, as headers say it: B3 in several headers or in one, and W3C's `traceparent` (TR-1).

use crate::message::{Headers, Known, hex};
use smallvec::SmallVec;

/// An id in hex.
pub(in crate::telemetry) type Hex = SmallVec<[u8; 32]>;

/// A span within a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: u128,
    /// Whether the trace's id has 128 bits on the wire.
    pub wide: bool,
    /// The span.
    pub span: u64,
    /// The span above it.
    pub parent: Option<u64>,
    /// Whether the trace is recorded; `None` where that is not decided yet.
    pub sampled: Option<bool>,
}

impl Context {
    /// What B3 headers say (openzipkin/b3-propagation): the single `b3` goes first.
    pub fn of_b3(headers: &Headers) -> Option<Self> {
        if let Some(single) = headers.get(Known::B3) {
            return Self::of_single(single);
        }
        let (trace, wide) = wide_id(headers.get(Known::XB3TraceId)?)?;
        let debug = headers.get(Known::XB3Flags) == Some(b"1");
        let sampled = headers.get(Known::XB3Sampled).and_then(decision);
        Some(Self {
            trace,
            wide,
            span: id(headers.get(Known::XB3SpanId)?)?,
            parent: headers.get(Known::XB3ParentSpanId).and_then(id),
            sampled: if debug { Some(true) } else { sampled },
        })
    }

    /// A decision without a trace: `b3: 0`, or `x-b3-sampled` alone.
    pub fn decision_alone(headers: &Headers) -> Option<bool> {
        match headers.get(Known::B3) {
            Some(single) => decision(single),
            None => headers.get(Known::XB3Sampled).and_then(decision),
        }
    }

    fn of_single(text: &[u8]) -> Option<Self> {
        let mut parts = text.split(|byte| *byte == b'-');
        let (trace, wide) = wide_id(parts.next()?)?;
        let span = id(parts.next()?)?;
        let sampled = parts.next().and_then(decision);
        Some(Self { trace, wide, span, parent: parts.next().and_then(id), sampled })
    }

    /// What `traceparent` says (W3C Trace Context, section 3.2).
    pub fn of_w3c(headers: &Headers) -> Option<Self> {
        let mut parts = headers.get(Known::Traceparent)?.split(|byte| *byte == b'-');
        let version = parts.next().filter(|version| version.len() == 2 && *version != b"ff")?;
        let (trace, wide) = parts.next().filter(|trace| trace.len() == 32).and_then(wide_id)?;
        let span = parts.next().filter(|span| span.len() == 16).and_then(id)?;
        let flags = parts.next().filter(|flags| flags.len() == 2).and_then(id)?;
        if version == b"00" && parts.next().is_some() {
            return None;
        }
        Some(Self { trace, wide, span, parent: None, sampled: Some(flags & 1 == 1) })
    }

    /// The context of a span below this one.
    pub fn child(&self, span: u64) -> Self {
        Self { span, parent: Some(self.span), ..*self }
    }

    /// Writes the B3 headers; the single one too, where the request had it.
    pub fn write_b3(&self, headers: &mut Headers) {
        let sampled = self.sampled == Some(true);
        let (span, parent) = (hex(self.span.into(), 16), self.parent.map(|parent| hex(parent.into(), 16)));
        headers.set(Known::XB3TraceId, &self.trace_hex());
        headers.set(Known::XB3SpanId, &span);
        match &parent {
            Some(parent) => headers.set(Known::XB3ParentSpanId, parent),
            None => drop(headers.remove(Known::XB3ParentSpanId)),
        }
        headers.set(Known::XB3Sampled, if sampled { b"1" } else { b"0" });
        if headers.contains(Known::B3) {
            let trace = self.trace_hex();
            let mut single = joined(&[&trace, &span, if sampled { b"1" } else { b"0" }]);
            if let Some(parent) = parent {
                single.push(b'-');
                single.extend_from_slice(&parent);
            }
            headers.set(Known::B3, &single);
        }
    }

    /// Writes `traceparent`; `tracestate` stays as it is.
    pub fn write_w3c(&self, headers: &mut Headers) {
        let [_, _, high, low] = hex::digits(self.span.into());
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(hex::digits(self.trace).as_flattened());
        text[36..44].copy_from_slice(&high);
        text[44..52].copy_from_slice(&low);
        text[54] += u8::from(self.sampled == Some(true));
        headers.set(Known::Traceparent, &text);
    }

    /// The trace's id as it is on the wire, as text.
    pub fn trace_text(&self) -> String {
        String::from_utf8_lossy(&self.trace_hex()).into_owned()
    }

    /// The trace's id as it is on the wire.
    pub(in crate::telemetry) fn trace_hex(&self) -> Hex {
        hex(self.trace, if self.wide { 32 } else { 16 })
    }
}

/// Lower-case hex of the last `digits` digits, at most 32.
pub(super) fn hex(number: u128, digits: usize) -> Hex {
    Hex::from_slice(hex::digits(number).as_flattened().get(32 - digits.min(32)..).unwrap_or_default())
}

/// Parts with a hyphen between them; room for the longest header of a context without an allocation.
fn joined(parts: &[&[u8]]) -> SmallVec<[u8; 96]> {
    let mut text = SmallVec::new();
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            text.push(b'-');
        }
        text.extend_from_slice(part);
    }
    text
}

/// 16 or 32 hex digits, not all zero.
fn wide_id(text: &[u8]) -> Option<(u128, bool)> {
    let wide = text.len() > 16;
    number(text, 32).filter(|number| *number != 0).map(|number| (number, wide))
}

fn id(text: &[u8]) -> Option<u64> {
    u64::try_from(number(text, 16)?).ok()
}

fn number(text: &[u8], most: usize) -> Option<u128> {
    if text.is_empty() || text.len() > most || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u128::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

fn decision(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"true" | b"d" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        pairs.iter().for_each(|(name, value)| headers.append(name.as_bytes(), value.as_bytes()));
        headers
    }

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";

    // spec: TR-1
    #[test]
    fn b3_is_read_from_several_headers_and_from_one_and_written_back_as_it_came() {
        let several = [("x-b3-traceid", TRACE), ("x-b3-spanid", "e457b5a2e4d86bd1"), ("x-b3-sampled", "0")];
        let context = Context::of_b3(&headers(&several)).unwrap();
        assert_eq!((context.trace >> 64, context.wide, context.sampled), (0x80f1_98ee_5634_3ba8, true, Some(false)));
        let single = headers(&[("b3", &format!("{TRACE}-e457b5a2e4d86bd1-d-05e3ac9a4f6e3b90"))]);
        let found = Context::of_b3(&single).unwrap();
        assert_eq!((found.parent, found.sampled), (Some(0x05e3_ac9a_4f6e_3b90), Some(true)));
        let mut next = single;
        found.child(1).write_b3(&mut next);
        let expected = format!("{TRACE}-0000000000000001-1-e457b5a2e4d86bd1");
        assert_eq!(next.get(Known::B3), Some(expected.as_bytes()));
        assert_eq!(next.get(Known::XB3ParentSpanId), Some(&b"e457b5a2e4d86bd1"[..]));
        let narrow = headers(&[("x-b3-traceid", "463ac35c9f6413ad"), ("x-b3-spanid", "1"), ("x-b3-flags", "1")]);
        let narrow = Context::of_b3(&narrow).unwrap();
        assert_eq!((narrow.trace_hex(), narrow.sampled), (Hex::from_slice(b"463ac35c9f6413ad"), Some(true)));
        assert_eq!(Context::decision_alone(&headers(&[("b3", "0")])), Some(false));
        for bad in ["", "0", "xyz", "463ac35c9f6413ad463ac35c9f6413ad0"] {
            assert_eq!(Context::of_b3(&headers(&[("x-b3-traceid", bad), ("x-b3-spanid", "1")])), None, "{bad}");
        }
    }

    // spec: TR-1
    #[test]
    fn traceparent_is_read_and_written() {
        let good = format!("00-{TRACE}-e457b5a2e4d86bd1-01");
        let context = Context::of_w3c(&headers(&[("traceparent", &good)])).unwrap();
        assert_eq!(context.sampled, Some(true));
        let mut next = headers(&[("tracestate", "a=b")]);
        Context { sampled: Some(false), ..context.child(2) }.write_w3c(&mut next);
        assert_eq!(next.get(Known::Traceparent), Some(format!("00-{TRACE}-0000000000000002-00").as_bytes()));
        let bad = [
            format!("ff-{TRACE}-e457b5a2e4d86bd1-01"),
            format!("00-{TRACE}-e457b5a2e4d86bd1-01-x"),
            format!("00-{}-e457b5a2e4d86bd1-01", "0".repeat(32)),
            "00-1-2-01".to_owned(),
        ];
        for bad in bad {
            assert_eq!(Context::of_w3c(&headers(&[("traceparent", &bad)])), None, "{bad}");
        }
    }
}
