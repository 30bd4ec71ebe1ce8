//! The streams of a connection by their number, found without hashing it: numbers of streams that are open at a time lie
//! close together, so that a small row of places, by their lowest bits, nearly always knows where one is.

use super::stream::Stream;
use foldhash::{HashMap, HashMapExt};
use slab::Slab;

/// Places that are remembered.
const REMEMBERED: usize = 256;

/// The streams that are open.
#[derive(Debug)]
pub(super) struct Table {
    streams: Slab<(u32, Stream)>,
    by_id: HashMap<u32, u32>,
    /// Where the stream that was opened last, of those with these lowest bits, is or was.
    places: Box<[u32; REMEMBERED]>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { streams: Slab::new(), by_id: HashMap::new(), places: Box::new([0; REMEMBERED]) }
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        let (_, stream) = self.streams.get(self.place(id)?)?;
        Some(stream)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.place(id)?;
        let (_, stream) = self.streams.get_mut(place)?;
        Some(stream)
    }

    #[inline]
    fn place(&self, id: u32) -> Option<usize> {
        let place = self.places[remembered(id)] as usize;
        match self.streams.get(place) {
            Some((its, _)) if *its == id => Some(place),
            _ => self.by_id.get(&id).map(|place| *place as usize),
        }
    }

    /// Opens a stream with these windows; no other is open under its number.
    pub(super) fn open(&mut self, id: u32, send_window: i64, recv_window: i64) -> &mut Stream {
        let entry = self.streams.vacant_entry();
        // A connection has fewer streams than there are numbers.
        let place = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        self.by_id.insert(id, place);
        self.places[remembered(id)] = place;
        let (_, stream) = entry.insert((id, Stream::new(send_window, recv_window)));
        stream
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Some(place) = self.by_id.remove(&id) {
            drop(self.streams.try_remove(place as usize));
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        self.streams.iter_mut().map(|(_, (id, stream))| (*id, stream))
    }
}

/// Streams of one side have every other number.
const fn remembered(id: u32) -> usize {
    (id >> 1) as usize % REMEMBERED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_open_and_nothing_else_however_far_apart_the_numbers_are() {
        let (mut table, mut random) = (Table::new(), fastrand::Rng::with_seed(5));
        let (mut open, mut next) = (std::collections::BTreeMap::new(), 1);
        for _ in 0..20_000 {
            if random.u8(..) < 140 {
                let window = random.i64(..);
                table.open(next, window, 0);
                open.insert(next, window);
                next += 2 * random.u32(1..700);
            } else if let Some(id) = open.keys().nth(random.usize(..open.len().max(1))).copied() {
                table.remove(id);
                open.remove(&id);
            }
            let id = random.u32(..next + 10) | 1;
            assert_eq!(table.get(id).map(|stream| stream.send_window), open.get(&id).copied());
        }
        assert_eq!((table.len(), table.is_empty()), (open.len(), false));
        let found: std::collections::BTreeMap<_, _> =
            table.iter_mut().map(|(id, stream)| (id, stream.send_window)).collect();
        assert_eq!(found, open);
    }
}
