//! The Huffman code of RFC 7541: a table for codes of up to ten bits, a sorted list for the long ones.

use super::Broken;
use super::table::HUFFMAN;
use std::sync::LazyLock;

const FAST_BITS: usize = 10;

struct Tables {
    /// By the next ten bits: length in the high byte, byte in the low one; 0 where the code is longer.
    fast: Vec<u16>,
    /// Codes aligned to 32 bits, their length and byte, sorted.
    long: Vec<(u32, u8, u8)>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let (mut fast, mut long) = (vec![0_u16; 1 << FAST_BITS], Vec::new());
    for (byte, (code, bits)) in (0_u8..=255).zip(HUFFMAN) {
        let bits_wide = usize::from(bits);
        if bits_wide <= FAST_BITS {
            let first = (code as usize) << (FAST_BITS - bits_wide);
            let slots = fast.iter_mut().skip(first).take(1 << (FAST_BITS - bits_wide));
            slots.for_each(|slot| *slot = u16::from(bits) << 8 | u16::from(byte));
        } else {
            long.push((code << (32 - bits_wide), bits, byte));
        }
    }
    long.sort_unstable();
    Tables { fast, long }
});

/// Decodes `source` to the end of `out`.
pub(super) fn decode(source: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    let tables = &*TABLES;
    out.reserve(source.len() * 8 / 5 + 1);
    let (mut bits, mut count) = (0_u64, 0_usize);
    let mut source = source.iter();
    loop {
        while count <= 56 {
            let Some(byte) = source.next() else { break };
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        if count == 0 {
            return Ok(());
        }
        let entry = tables.fast.get((bits >> (64 - FAST_BITS)) as usize).copied().unwrap_or(0);
        let length = usize::from(entry >> 8);
        if length != 0 && length <= count {
            out.push((entry & 0xff) as u8);
            bits <<= length;
            count -= length;
            continue;
        }
        // Padding: less than a byte, all ones.
        if count < 8 && bits.leading_ones() as usize >= count {
            return Ok(());
        }
        if length != 0 {
            return Err(Broken);
        }
        let window = (bits >> 32) as u32;
        let at = tables.long.partition_point(|(code, ..)| *code <= window);
        let (code, length, byte) = *at.checked_sub(1).and_then(|at| tables.long.get(at)).ok_or(Broken)?;
        let length = usize::from(length);
        if length > count || (window ^ code) >> (32 - length) != 0 {
            return Err(Broken);
        }
        out.push(byte);
        bits <<= length;
        count -= length;
    }
}

/// Bytes that `text` takes when encoded.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| usize::from(HUFFMAN[usize::from(*byte)].1)).sum();
    bits.div_ceil(8)
}

/// Encodes `text` to the end of `out`.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0_u64, 0_u32);
    for byte in text {
        let (code, length) = HUFFMAN[usize::from(*byte)];
        bits = bits << length | u64::from(code);
        count += u32::from(length);
        while count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    if count > 0 {
        out.push((bits << (8 - count)) as u8 | (0xff >> count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_7541_example_and_every_byte_round_trip() {
        let mut out = Vec::new();
        encode(b"www.example.com", &mut out);
        assert_eq!(out, [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]);
        let mut random = fastrand::Rng::with_seed(3);
        for n in 0..300 {
            let text: Vec<u8> = (0..n).map(|_| random.u8(..)).collect();
            let (mut coded, mut plain) = (Vec::new(), Vec::new());
            encode(&text, &mut coded);
            assert_eq!(coded.len(), encoded_len(&text));
            decode(&coded, &mut plain).expect("decodes");
            assert_eq!(plain, text);
        }
    }

    #[test]
    fn bad_padding_and_the_end_of_string_symbol_are_refused() {
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff], &mut Vec::new()), Err(Broken));
        assert_eq!(decode(&[0b0001_1000], &mut Vec::new()), Err(Broken));
        assert_eq!(decode(&[0b0001_1111, 0xff], &mut Vec::new()), Err(Broken));
    }
}
