//! Header block → fields, checked as they come.

use super::table::{STATIC, static_known};
use super::{Broken, huffman, read_int};
use crate::codec::bytes::{is_token, is_value};
use crate::message::Known;
use std::collections::VecDeque;

/// An entry of the dynamic table; validated when it was inserted.
#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    name_len: usize,
    known: Known,
    valid: bool,
}

/// A decoded field.
#[derive(Debug, Clone, Copy)]
pub(in crate::codec::h2) struct Field<'a> {
    pub(in crate::codec::h2) name: &'a [u8],
    pub(in crate::codec::h2) known: Known,
    pub(in crate::codec::h2) value: &'a [u8],
    /// Well-formed: lower-case name, clean value.
    pub(in crate::codec::h2) valid: bool,
    /// Must never enter a table.
    pub(in crate::codec::h2) never_index: bool,
}

impl Entry {
    fn field(&self) -> Field<'_> {
        let (name, value) = self.text.split_at_checked(self.name_len).unwrap_or_default();
        Field { name, known: self.known, value, valid: self.valid, never_index: false }
    }
}

/// The table that the peer's encoder drives.
#[derive(Debug)]
pub(in crate::codec::h2) struct Decoder {
    table: VecDeque<Entry>,
    size: usize,
    max: usize,
    /// What our SETTINGS allow.
    allowed: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Size of an entry beside its text (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

impl Decoder {
    /// An empty table of at most `allowed` bytes.
    pub(in crate::codec::h2) fn new(allowed: usize) -> Self {
        Self { table: VecDeque::new(), size: 0, max: allowed, allowed, name: Vec::new(), value: Vec::new() }
    }

    /// Decodes a whole block. It is decoded to its end whatever `field` thinks of one, so that the table stays right.
    pub(in crate::codec::h2) fn decode(&mut self, block: &[u8], mut take: impl FnMut(Field<'_>)) -> Result<(), Broken> {
        let (mut at, mut first) = (0, true);
        while let Some(byte) = block.get(at).copied() {
            if byte & 0x80 != 0 {
                let index = read_int(block, &mut at, 7)?;
                take(self.entry(index)?);
            } else if byte & 0xe0 == 0x20 {
                // Size updates stand at the start of a block only.
                let size = read_int(block, &mut at, 5)?;
                if !first || size > self.allowed {
                    return Err(Broken);
                }
                self.max = size;
                self.evict(0);
                continue;
            } else {
                self.literal(block, &mut at, byte, &mut take)?;
            }
            first = false;
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &[u8],
        at: &mut usize,
        byte: u8,
        take: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Broken> {
        let (bits, indexed, never) = if byte & 0x40 != 0 { (6, true, false) } else { (4, false, byte & 0x10 != 0) };
        let index = read_int(block, at, bits)?;
        let (mut name_room, mut value_room) = (std::mem::take(&mut self.name), std::mem::take(&mut self.value));
        let (name, known, name_ok) = if index == 0 {
            let name = string(block, at, &mut name_room)?;
            (name, Known::of(name), valid_name(name))
        } else {
            let entry = self.entry(index)?;
            let name: &[u8] = match STATIC.get(index - 1) {
                Some((name, _)) => name,
                None => {
                    name_room.clear();
                    name_room.extend_from_slice(entry.name);
                    &name_room
                }
            };
            (name, entry.known, index <= STATIC.len() || valid_name(name))
        };
        let value = string(block, at, &mut value_room)?;
        let field = Field { name, known, value, valid: name_ok && valid_value(value), never_index: never };
        take(field);
        if indexed {
            self.insert(&field);
        }
        (self.name, self.value) = (name_room, value_room);
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<Field<'_>, Broken> {
        match index.checked_sub(1).ok_or(Broken)? {
            fixed if fixed < STATIC.len() => {
                let (name, value) = STATIC[fixed];
                Ok(Field { name, known: static_known(fixed), value, valid: true, never_index: false })
            }
            dynamic => Ok(self.table.get(dynamic - STATIC.len()).ok_or(Broken)?.field()),
        }
    }

    fn insert(&mut self, field: &Field<'_>) {
        let Field { name, known, value, valid, .. } = *field;
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(size);
        if size <= self.max {
            let text = [name, value].concat().into();
            self.table.push_front(Entry { text, name_len: name.len(), known, valid });
            self.size += size;
        }
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.max {
            let Some(entry) = self.table.pop_back() else { break };
            self.size -= entry.text.len() + ENTRY_OVERHEAD;
        }
    }
}

/// The text at `at`: as it stands in the block, or decoded into `room`.
fn string<'a>(block: &'a [u8], at: &mut usize, room: &'a mut Vec<u8>) -> Result<&'a [u8], Broken> {
    let coded = block.get(*at).ok_or(Broken)? & 0x80 != 0;
    let length = read_int(block, at, 7)?;
    let text = block.get(*at..*at + length).ok_or(Broken)?;
    *at += length;
    if !coded {
        return Ok(text);
    }
    room.clear();
    huffman::decode(text, room)?;
    Ok(room)
}

/// RFC 9113 section 8.2: lower-case token, or a pseudo-header.
fn valid_name(name: &[u8]) -> bool {
    let name = name.strip_prefix(b":").unwrap_or(name);
    !name.is_empty() && is_token(name) && !name.iter().any(u8::is_ascii_uppercase)
}

/// RFC 9113 section 8.2.1, and as strict as HTTP/1: no control bytes, no white space at the ends.
fn valid_value(value: &[u8]) -> bool {
    let space = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    is_value(value) && !space(value.first()) && !space(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String, bool)>, Broken> {
        let mut fields = Vec::new();
        decoder.decode(block, |f| {
            fields.push((f.name.escape_ascii().to_string(), f.value.escape_ascii().to_string(), f.valid));
        })?;
        Ok(fields)
    }

    fn pairs(fields: &[(String, String, bool)]) -> Vec<(&str, &str)> {
        fields.iter().map(|(n, v, _)| (n.as_str(), v.as_str())).collect()
    }

    #[test]
    fn request_examples_of_rfc_7541_section_c_4() {
        let mut decoder = Decoder::new(4096);
        let first =
            [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let fields = decode(&mut decoder, &first).expect("valid");
        let expected = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(pairs(&fields), expected);
        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        let fields = decode(&mut decoder, &second).expect("valid");
        assert_eq!(pairs(&fields)[3..], [(":authority", "www.example.com"), ("cache-control", "no-cache")]);
        assert_eq!(decoder.size, 57 + 53);
    }

    #[test]
    fn broken_blocks_are_refused_and_malformed_fields_marked() {
        let mut decoder = Decoder::new(4096);
        for block in
            [&[0x80][..], &[0xff, 0x80, 0x01], &[0x40, 0x05, b'a'], &[0x82, 0x20], &[0x3f, 0xe2, 0x1f], &[0xbe]]
        {
            assert!(decode(&mut decoder, block).is_err(), "{block:x?}");
        }
        for (name, value, ok) in
            [("A", "b", false), ("a", "b\n", false), ("a", " b", false), ("a:", "b", false), ("a", "b", true)]
        {
            let mut block = vec![0, name.len() as u8];
            block.extend_from_slice(name.as_bytes());
            block.push(value.len() as u8);
            block.extend_from_slice(value.as_bytes());
            assert_eq!(decode(&mut decoder, &block).expect("decodes")[0].2, ok, "{name:?} {value:?}");
        }
    }

    #[test]
    fn garbage_never_panics() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..20_000 {
            let block: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
            decode(&mut Decoder::new(4096), &block).ok();
        }
    }
}
