//! Which bytes may stand where: the rules that both codecs share.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const VALUE: u8 = 4;
const HOST: u8 = 8;

/// Classes of each byte.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0_u8; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let alnum = b.is_ascii_alphanumeric();
        let tchar = matches!(
            b,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        if alnum || tchar {
            table[i] |= TOKEN;
        }
        // A fragment never belongs on the wire; what RFC 3986 forbids but clients send (`"`, `<`, `|` …) is let through.
        if b > 0x20 && b < 0x7f && b != b'#' {
            table[i] |= TARGET;
        }
        if b == b'\t' || (b >= 0x20 && b != 0x7f) {
            table[i] |= VALUE;
        }
        // unreserved, sub-delims and percent-encoding of RFC 3986
        if alnum
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            )
        {
            table[i] |= HOST;
        }
        i += 1;
    }
    table
}

#[inline]
fn all(text: &[u8], mask: u8) -> bool {
    text.iter().all(|byte| CLASS[*byte as usize] & mask != 0)
}

/// RFC 9110 section 5.6.2; an empty text passes.
pub(crate) fn is_token(text: &[u8]) -> bool {
    all(text, TOKEN)
}

/// What a request target may hold; an empty text passes.
pub(crate) fn is_target(text: &[u8]) -> bool {
    all(text, TARGET)
}

/// What a host name may hold; an empty text passes.
pub(crate) fn is_host(text: &[u8]) -> bool {
    all(text, HOST)
}

/// RFC 9110 section 5.5: visible bytes, space, tab and obs-text; an empty text passes.
pub(crate) fn is_value(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    // a word without control bytes needs no look at each of them
    words.iter().all(|word| !has_control(u64::from_ne_bytes(*word)) || all(word, VALUE)) && all(rest, VALUE)
}

/// Whether any of eight bytes is below a space or DEL.
#[inline]
const fn has_control(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    let is_del = word ^ (ONES * 0x7f);
    below_space | (is_del.wrapping_sub(ONES) & !is_del & HIGH) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_judged_byte_by_byte_wherever_a_byte_stands() {
        for byte in 0..=255_u8 {
            let allowed = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
            for at in 0..19 {
                let mut text = *b"0123456789 abcdef\xe4";
                if let Some(slot) = text.get_mut(at) {
                    *slot = byte;
                }
                assert_eq!(is_value(&text), allowed || at == 18, "{byte:#x} at {at}");
            }
        }
    }
}
