//! The streams of a connection by their number, found without hashing it: numbers of streams that are open at a time lie
//! close together, so that a small row of places, by their lowest bits, nearly always knows where one is.

use super::stream::Stream;
use foldhash::{HashMap, HashMapExt};

/// Places that are remembered.
const REMEMBERED: usize = 256;
/// The number of no stream (RFC 9113 section 5.1.1: they have 31 bits).
const NOBODY: u32 = u32::MAX;

/// The streams that are open.
#[derive(Debug)]
pub(super) struct Table {
    /// A stream has some 400 bytes: it is cleared where it is and used again, not moved in and out.
    streams: Vec<(u32, Stream)>,
    /// Those that are not open.
    vacant: Vec<u32>,
    /// Where the stream with these lowest bits is.
    places: Box<[u32; REMEMBERED]>,
    /// Where streams are whose place was taken when they were opened.
    astray: HashMap<u32, u32>,
}

impl Table {
    pub(super) fn new() -> Self {
        let (streams, vacant) = (Vec::new(), Vec::new());
        Self { streams, vacant, places: Box::new([0; REMEMBERED]), astray: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len() - self.vacant.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
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
            _ => self.astray.get(&id).map(|place| *place as usize),
        }
    }

    /// Opens a stream with these windows; no other is open under its number.
    pub(super) fn open(&mut self, id: u32, send_window: i64, recv_window: i64) -> &mut Stream {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.streams.push((NOBODY, Stream::new()));
            // A connection has fewer streams than there are numbers.
            u32::try_from(self.streams.len() - 1).unwrap_or(NOBODY)
        });
        let known = self.places[remembered(id)] as usize;
        match self.streams.get(known) {
            Some((other, _)) if *other != NOBODY && remembered(*other) == remembered(id) => {
                self.astray.insert(id, place);
            }
            _ => self.places[remembered(id)] = place,
        }
        let (its, stream) = &mut self.streams[place as usize];
        *its = id;
        stream.send_window = send_window;
        stream.recv_window = recv_window;
        stream
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some(place) = self.place(id) else { return };
        let Some((its, stream)) = self.streams.get_mut(place) else { return };
        *its = NOBODY;
        stream.clear();
        self.vacant.push(place as u32);
        if !self.astray.is_empty() {
            self.astray.remove(&id);
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        self.streams.iter_mut().filter(|(id, _)| *id != NOBODY).map(|(id, stream)| (*id, stream))
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
