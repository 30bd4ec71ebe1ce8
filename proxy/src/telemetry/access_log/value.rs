//! What operators yield, and how it looks in text and in JSON.

use super::time::TimeFormat;
use std::net::SocketAddr;
use std::time::SystemTime;

/// Takes the value of an operator: nothing is made that is not written.
pub(super) trait Show {
    /// Not known.
    fn absent(&mut self);
    /// Bytes, most often text.
    fn text(&mut self, text: &[u8]);
    /// A number.
    fn number(&mut self, number: u64);
    /// An address with its port.
    fn address(&mut self, address: SocketAddr);
    /// A point in time.
    fn time(&mut self, time: SystemTime, format: &TimeFormat);
    /// Structured metadata.
    fn json(&mut self, value: &serde_json::Value);
}

/// Text at the end of a line.
#[derive(Debug)]
pub(super) struct Text<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// Stands for what is not known.
    pub(super) absent: &'a [u8],
}

impl Show for Text<'_> {
    #[inline]
    fn absent(&mut self) {
        match self.absent {
            [byte] => self.out.push(*byte),
            text => self.out.extend_from_slice(text),
        }
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
    }

    #[inline]
    fn number(&mut self, number: u64) {
        match number {
            0..=9 => self.out.push(b'0' + number as u8),
            _ => self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        }
    }

    fn address(&mut self, address: SocketAddr) {
        write_address(address, self.out);
    }

    fn time(&mut self, time: SystemTime, format: &TimeFormat) {
        format.write(time, self.out);
    }

    fn json(&mut self, value: &serde_json::Value) {
        match value.as_str() {
            Some(text) => self.out.extend_from_slice(text.as_bytes()),
            None => self.out.extend_from_slice(value.to_string().as_bytes()),
        }
    }
}

/// A JSON value at the end of a line: numbers stay numbers, what is not known is null.
#[derive(Debug)]
pub(super) struct Json<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// Bytes of a text that are shown.
    pub(super) limit: Option<usize>,
    /// Whether the value was not known.
    pub(super) was_absent: bool,
}

impl Json<'_> {
    fn quoted(&mut self, write: impl FnOnce(&mut Text<'_>)) {
        let mut text = Vec::with_capacity(32);
        write(&mut Text { out: &mut text, absent: b"" });
        self.text(&text);
    }
}

impl Show for Json<'_> {
    fn absent(&mut self) {
        self.was_absent = true;
        self.out.extend_from_slice(b"null");
    }

    fn text(&mut self, text: &[u8]) {
        let shown = self.limit.unwrap_or(usize::MAX).min(text.len());
        write_json_string(text.get(..shown).unwrap_or(text), self.out);
    }

    fn number(&mut self, number: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn address(&mut self, address: SocketAddr) {
        self.quoted(|text| text.address(address));
    }

    fn time(&mut self, time: SystemTime, format: &TimeFormat) {
        self.quoted(|text| text.time(time, format));
    }

    fn json(&mut self, value: &serde_json::Value) {
        self.out.extend_from_slice(value.to_string().as_bytes());
    }
}

/// The number that a value is, where it is one.
#[derive(Debug, Default)]
pub(super) struct Number(pub(super) Option<u64>);

impl Show for Number {
    fn absent(&mut self) {}

    fn text(&mut self, text: &[u8]) {
        self.0 = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    }

    fn number(&mut self, number: u64) {
        self.0 = Some(number);
    }

    fn address(&mut self, _: SocketAddr) {}

    fn time(&mut self, _: SystemTime, _: &TimeFormat) {}

    fn json(&mut self, value: &serde_json::Value) {
        self.0 = value.as_u64();
    }
}

/// Appends `10.0.0.1:80` or `[::1]:80`.
fn write_address(address: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(v4) = address else {
        return out.extend_from_slice(address.to_string().as_bytes());
    };
    // made on the stack: five numbers one by one would cost five looks at the room that is left
    let (mut text, mut at) = ([0_u8; 24], 0);
    let mut put = |part: [u8; 4], length: usize| {
        if let Some(room) = text.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *room = part;
        }
        at += length;
    };
    for (octet, separator) in v4.ip().octets().into_iter().zip(*b"...:") {
        let ([a, b, c], length) = OCTETS[usize::from(octet)];
        match length {
            1 => put([a, separator, 0, 0], 2),
            2 => put([a, b, separator, 0], 3),
            _ => put([a, b, c, separator], 4),
        }
    }
    out.extend_from_slice(text.get(..at).unwrap_or_default());
    out.extend_from_slice(itoa::Buffer::new().format(v4.port()).as_bytes());
}

/// The numbers of a byte as text, with their length.
static OCTETS: [([u8; 3], usize); 256] = octets();

const fn octets() -> [([u8; 3], usize); 256] {
    let mut table = [([0; 3], 0); 256];
    let mut n = 0;
    while n < 256 {
        let [hundreds, tens, ones] = [b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
        table[n] = match n {
            0..10 => ([ones, 0, 0], 1),
            10..100 => ([tens, ones, 0], 2),
            _ => ([hundreds, tens, ones], 3),
        };
        n += 1;
    }
    table
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_look_as_the_library_writes_them() {
        let mut random = fastrand::Rng::with_seed(2);
        for n in 0..=255_u8 {
            let ip = [n, random.u8(..), 255 - n, random.u8(..)];
            for address in
                [SocketAddr::from((ip, random.u16(..))), SocketAddr::from(([0xfe80_u16 + u16::from(n); 8], 1))]
            {
                let mut out = Vec::new();
                write_address(address, &mut out);
                assert_eq!(String::from_utf8(out).unwrap(), address.to_string());
            }
        }
    }
}
