//! HPACK (RFC 7541): header blocks ↔ fields.

mod decode;
mod encode;
mod huffman;
mod table;

pub(super) use decode::{Decoder, Field};
pub(super) use encode::{Encoder, Indexing};

/// A header block that cannot be decoded: the connection's compression state is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// Reads an integer with a prefix of `bits` bits (RFC 7541 section 5.1) at `at`, and moves `at` behind it.
fn read_int(block: &[u8], at: &mut usize, bits: u8) -> Result<usize, Broken> {
    let max = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(*at).ok_or(Broken)?) & max;
    *at += 1;
    if value < max {
        return Ok(value);
    }
    let mut shift = 0;
    loop {
        let byte = *block.get(*at).ok_or(Broken)?;
        *at += 1;
        value += usize::from(byte & 127) << shift;
        if byte < 128 {
            return Ok(value);
        }
        shift += 7;
        if shift > 21 {
            return Err(Broken);
        }
    }
}

/// Writes an integer behind the bits of `first`.
#[inline]
fn write_int(out: &mut Vec<u8>, first: u8, bits: u8, value: usize) {
    let max = (1_usize << bits) - 1;
    match value < max {
        true => out.push(first | value as u8),
        false => write_long_int(out, first, max, value),
    }
}

fn write_long_int(out: &mut Vec<u8>, first: u8, max: usize, value: usize) {
    out.push(first | max as u8);
    let mut rest = value - max;
    while rest >= 128 {
        out.push((rest & 127) as u8 | 128);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_rfc_7541_section_c_1() {
        let mut out = Vec::new();
        write_int(&mut out, 0, 5, 10);
        write_int(&mut out, 0, 5, 1337);
        write_int(&mut out, 0, 8, 42);
        assert_eq!(out, [10, 0x1f, 0x9a, 0x0a, 42]);
        let mut at = 0;
        assert_eq!(read_int(&out, &mut at, 5), Ok(10));
        assert_eq!(read_int(&out, &mut at, 5), Ok(1337));
        assert_eq!(read_int(&out, &mut at, 8), Ok(42));
        assert_eq!(read_int(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 1], &mut 0, 5), Err(Broken));
    }
}
