//! Numbers as lower-case hex digits.

/// The 32 digits of a number, eight for each of its words.
pub fn digits(number: u128) -> [[u8; 8]; 4] {
    [96, 64, 32, 0].map(|below| eight((number >> below) as u32))
}

/// The digits of a word, all at once: each in a byte of its own, then as a character.
fn eight(word: u32) -> [u8; 8] {
    let mut digits = u64::from(word);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in the byte of a digit from a to f
    let letters = (digits + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (digits + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_that_the_standard_library_writes() {
        let mut number = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128;
        for _ in 0..1_000 {
            let expected = format!("{number:032x}");
            assert_eq!(std::str::from_utf8(digits(number).as_flattened()), Ok(expected.as_str()));
            number = number.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
        }
        assert_eq!(digits(u128::MAX), [*b"ffffffff"; 4]);
    }
}
