//! What an operator yields, and how it looks in text and in JSON.

use super::time::TimeFormat;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;

/// The value of one operator for one entry.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    /// Not known.
    Absent,
    /// Bytes, most often text.
    Text(Cow<'a, [u8]>),
    /// A number.
    Number(u64),
    /// An address with its port.
    Address(SocketAddr),
    /// A point in time.
    Time(SystemTime, &'a TimeFormat),
    /// Structured metadata.
    Json(Cow<'a, serde_json::Value>),
}

impl<'a> Value<'a> {
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
    }

    /// Text that counts as unknown when it is empty.
    pub(super) fn nonempty(text: &'a str) -> Self {
        if text.is_empty() { Self::Absent } else { Self::text(text) }
    }

    /// Text in which Envoy writes `_` for white space, so that a log line still splits at spaces.
    pub(super) fn spaceless(text: &'a str) -> Self {
        match text.contains(char::is_whitespace) {
            true => Self::text(text.replace(char::is_whitespace, "_")),
            false => Self::nonempty(text),
        }
    }

    /// Whether there is nothing to show.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Appends the text form, at most `limit` bytes of it; `absent` stands for what is not known.
    pub(super) fn write_text(&self, limit: Option<usize>, absent: &[u8], out: &mut Vec<u8>) {
        let from = out.len();
        match self {
            Self::Absent => out.extend_from_slice(absent),
            Self::Text(text) => out.extend_from_slice(text),
            Self::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
            Self::Address(address) => write_address(*address, out),
            Self::Time(time, format) => format.write(*time, out),
            Self::Json(value) => match value.as_str() {
                Some(text) => out.extend_from_slice(text.as_bytes()),
                None => out.extend_from_slice(value.to_string().as_bytes()),
            },
        }
        if let Some(limit) = limit
            && out.len() - from > limit
        {
            out.truncate(from + limit);
        }
    }

    /// Appends the JSON form: numbers stay numbers, what is not known is null.
    pub(super) fn write_json(&self, limit: Option<usize>, out: &mut Vec<u8>) {
        match self {
            Self::Absent => out.extend_from_slice(b"null"),
            Self::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
            Self::Json(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Text(text) => {
                write_json_string(text.get(..limit.unwrap_or(usize::MAX).min(text.len())).unwrap_or(text), out);
            }
            Self::Address(_) | Self::Time(..) => {
                let mut text = Vec::with_capacity(32);
                self.write_text(limit, b"", &mut text);
                write_json_string(&text, out);
            }
        }
    }
}

/// Appends `10.0.0.1:80` or `[::1]:80`.
fn write_address(address: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(v4) = address else {
        return out.extend_from_slice(address.to_string().as_bytes());
    };
    // made on the stack: five numbers one by one would cost five looks at the room that is left
    let (mut text, mut at) = ([0_u8; 24], 0);
    let mut push = |byte: u8| {
        if let Some(slot) = text.get_mut(at) {
            *slot = byte;
        }
        at += 1;
    };
    for (octet, separator) in v4.ip().octets().into_iter().zip(*b"...:") {
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
        push(separator);
    }
    itoa::Buffer::new().format(v4.port()).bytes().for_each(&mut push);
    out.extend_from_slice(text.get(..at).unwrap_or_default());
}

/// Appends a JSON string; bytes that are no UTF-8 become replacement characters.
pub(super) fn write_json_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let text = String::from_utf8_lossy(text);
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                let hex = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
