//! Fields → header block: what repeats costs one or two bytes (design 7.6, point 6).

use super::table::{STATIC, static_index};
use super::{huffman, write_int};
use crate::message::Known;
use foldhash::fast::FixedState;
use foldhash::{HashMap, HashMapExt};
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};

/// Whether a field may enter the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::codec::h2) enum Indexing {
    /// It is likely to repeat.
    Yes,
    /// It is not.
    No,
    /// It must not, here and at every hop (RFC 7541 section 7.1.3).
    Never,
}

#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    name_len: usize,
    known: Known,
    hash: u64,
}

/// The table that the peer's decoder mirrors.
#[derive(Debug)]
pub(in crate::codec::h2) struct Encoder {
    table: VecDeque<Entry>,
    /// Hash of name and value → number of the insertion.
    by_hash: HashMap<u64, u64>,
    /// Number of the last insertion of each known name: most values are the same as the last time.
    last: Box<[u64; Known::COUNT]>,
    inserted: u64,
    size: usize,
    max: usize,
    /// A size update that the next block must start with.
    announce: Option<usize>,
}

/// Largest table that is used, whatever the peer offers.
const MAX_TABLE: usize = 4096;
const ENTRY_OVERHEAD: usize = 32;
const SEED: FixedState = FixedState::with_seed(0x6d65_7368);

impl Encoder {
    /// An empty table.
    pub(in crate::codec::h2) fn new() -> Self {
        let by_hash = HashMap::new();
        let last = Box::new([u64::MAX; Known::COUNT]);
        Self { table: VecDeque::new(), by_hash, last, inserted: 0, size: 0, max: MAX_TABLE, announce: None }
    }

    /// Obeys the peer's SETTINGS_HEADER_TABLE_SIZE.
    pub(in crate::codec::h2) fn set_max(&mut self, size: usize) {
        let size = size.min(MAX_TABLE);
        if size != self.max {
            self.max = size;
            self.evict(0);
            self.announce = Some(size);
        }
    }

    /// Starts a block.
    pub(in crate::codec::h2) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(size) = self.announce.take() {
            write_int(out, 0x20, 5, size);
        }
    }

    /// Writes a pseudo-header; `index` is its first static index.
    pub(in crate::codec::h2) fn pseudo(&mut self, index: usize, value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        if let Some(index) = static_pair(index, value) {
            return write_int(out, 0x80, 7, index);
        }
        let name = STATIC.get(index - 1).map_or(&b""[..], |(name, _)| name);
        self.write(Known::Other, name, value, index, indexing, out);
    }

    /// Writes a field; `name` may be in any case and is written in lower case.
    #[expect(clippy::too_many_arguments, reason = "a field is a name, a value and how to write them")]
    pub(in crate::codec::h2) fn field(
        &mut self,
        known: Known,
        name: &[u8],
        value: &[u8],
        indexing: Indexing,
        out: &mut Vec<u8>,
    ) {
        if known != Known::Other {
            return self.write(known, known.as_str().as_bytes(), value, static_index(known), indexing, out);
        }
        if name.iter().any(u8::is_ascii_uppercase) {
            return self.write(known, &name.to_ascii_lowercase(), value, 0, indexing, out);
        }
        self.write(known, name, value, 0, indexing, out);
    }

    #[expect(clippy::too_many_arguments, reason = "a field is a name, a value and how to write them")]
    fn write(&mut self, known: Known, name: &[u8], value: &[u8], index: usize, indexing: Indexing, out: &mut Vec<u8>) {
        let mut hash = 0;
        if indexing == Indexing::Yes {
            if let Some(position) = self.repeated(known, value) {
                return write_int(out, 0x80, 7, STATIC.len() + 1 + position);
            }
            hash = hash_of(name, value);
            if let Some(position) = self.position(hash, name, value) {
                return write_int(out, 0x80, 7, STATIC.len() + 1 + position);
            }
        }
        // An entry that fills half the table would only push out what is worth more.
        let insert = indexing == Indexing::Yes && name.len() + value.len() + ENTRY_OVERHEAD <= self.max / 2;
        match indexing {
            Indexing::Yes if insert => write_int(out, 0x40, 6, index),
            Indexing::Never => write_int(out, 0x10, 4, index),
            _ => write_int(out, 0, 4, index),
        }
        // What is sent once is not worth the bit-twiddling.
        if index == 0 {
            text(name, insert, out);
        }
        text(value, insert, out);
        if insert {
            self.insert(known, name, value, hash);
        }
    }

    /// Where the last value of a known name stands, if it is this one.
    fn repeated(&self, known: Known, value: &[u8]) -> Option<usize> {
        let number = self.last[known as usize];
        let position = usize::try_from(self.inserted.checked_sub(1)?.checked_sub(number)?).ok()?;
        let entry = self.table.get(position)?;
        let same = entry.known == known && known != Known::Other && entry.text.get(entry.name_len..)? == value;
        same.then_some(position)
    }

    fn position(&self, hash: u64, name: &[u8], value: &[u8]) -> Option<usize> {
        let number = *self.by_hash.get(&hash)?;
        let position = usize::try_from(self.inserted - 1 - number).ok()?;
        let entry = self.table.get(position)?;
        let (its_name, its_value) = entry.text.split_at_checked(entry.name_len)?;
        (its_name == name && its_value == value).then_some(position)
    }

    fn insert(&mut self, known: Known, name: &[u8], value: &[u8], hash: u64) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(size);
        self.table.push_front(Entry { text: [name, value].concat().into(), name_len: name.len(), known, hash });
        self.size += size;
        self.by_hash.insert(hash, self.inserted);
        self.last[known as usize] = self.inserted;
        self.inserted += 1;
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.max {
            let Some(entry) = self.table.pop_back() else { break };
            self.size -= entry.text.len() + ENTRY_OVERHEAD;
            let number = self.inserted - self.table.len() as u64 - 1;
            if self.by_hash.get(&entry.hash) == Some(&number) {
                self.by_hash.remove(&entry.hash);
            }
        }
    }
}

/// The static index of a pseudo-header of which the first is `index`, with this value.
fn static_pair(index: usize, value: &[u8]) -> Option<usize> {
    Some(match (index, value) {
        (2, b"GET") => 2,
        (2, b"POST") => 3,
        (4, b"/") => 4,
        (4, b"/index.html") => 5,
        (6, b"http") => 6,
        (6, b"https") => 7,
        (8, b"200") => 8,
        (8, b"204") => 9,
        (8, b"206") => 10,
        (8, b"304") => 11,
        (8, b"400") => 12,
        (8, b"404") => 13,
        (8, b"500") => 14,
        _ => return None,
    })
}

fn hash_of(name: &[u8], value: &[u8]) -> u64 {
    let mut hasher = SEED.build_hasher();
    hasher.write(name);
    hasher.write_u8(0);
    hasher.write(value);
    hasher.finish()
}

fn text(text: &[u8], may_code: bool, out: &mut Vec<u8>) {
    if may_code {
        let coded = huffman::encoded_len(text);
        if coded < text.len() {
            write_int(out, 0x80, 7, coded);
            return huffman::encode(text, out);
        }
    }
    write_int(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;

    #[test]
    fn static_pairs_stand_where_the_table_has_them() {
        for (i, (name, value)) in
            STATIC.iter().enumerate().filter(|(_, (name, value))| name[0] == b':' && !value.is_empty())
        {
            let first = STATIC.iter().position(|(other, _)| other == name).unwrap() + 1;
            assert_eq!(static_pair(first, value), Some(i + 1), "{}", value.escape_ascii());
        }
        assert_eq!((static_pair(8, b"201"), static_pair(1, b"")), (None, None));
    }

    #[test]
    fn what_repeats_costs_a_byte_and_decodes_the_same_over_many_blocks() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        let mut random = fastrand::Rng::with_seed(9);
        let long = vec![b'm'; 540];
        for round in 0..500 {
            let mut fields: Vec<(Vec<u8>, Vec<u8>)> =
                vec![(b"user-agent".to_vec(), b"x/1".to_vec()), (b"x-meta".to_vec(), long.clone())];
            fields.push((format!("x-{}", random.u8(..)).into_bytes(), format!("{}", random.u16(..)).into_bytes()));
            let mut block = Vec::new();
            if round == 250 {
                encoder.set_max(512);
            }
            encoder.begin(&mut block);
            encoder.pseudo(2, b"GET", Indexing::Yes, &mut block);
            encoder.pseudo(4, b"/a/b", Indexing::No, &mut block);
            for (name, value) in &fields {
                encoder.field(Known::of(name), name, value, Indexing::Yes, &mut block);
            }
            let mut seen = Vec::new();
            decoder
                .decode(&block, |f| {
                    assert!(f.valid);
                    seen.push((f.name.to_vec(), f.value.to_vec()));
                })
                .expect("decodes");
            assert_eq!(seen[0], (b":method".to_vec(), b"GET".to_vec()));
            assert_eq!(seen[2..], fields);
        }
        let mut block = Vec::new();
        let mut fresh = Encoder::new();
        fresh.field(Known::Other, b"X-Meta", &long, Indexing::Yes, &mut block);
        block.clear();
        fresh.field(Known::Other, b"x-meta", &long, Indexing::Yes, &mut block);
        assert_eq!(block.len(), 1);
    }
}
