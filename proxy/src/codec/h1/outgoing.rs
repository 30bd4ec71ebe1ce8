//! What one side is about to write: a head or chunk line, a piece of body, a line end; never more than one piece.

use super::write::{chunk_head, write_trailers};
use crate::message::Headers;
use bytes::Bytes;
use std::io::IoSlice;

/// Bytes on their way out. The body piece is not copied.
#[derive(Debug, Default)]
pub struct Outgoing {
    lead: Vec<u8>,
    data: Bytes,
    tail: &'static [u8],
    written: usize,
}

impl Outgoing {
    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.lead.is_empty() && self.data.is_empty() && self.tail.is_empty()
    }

    /// The buffer for a head; only before a piece is set.
    pub fn lead(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.data.is_empty() && self.tail.is_empty(), "a head precedes its body");
        &mut self.lead
    }

    /// Whether a piece can be taken: the one before has left.
    pub fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty()
    }

    /// Takes a piece of the body, as a chunk where the body is chunked.
    pub fn data(&mut self, data: Bytes, chunked: bool) {
        debug_assert!(self.has_room(), "one piece at a time");
        if chunked {
            chunk_head(data.len(), &mut self.lead);
            self.tail = b"\r\n";
        }
        self.data = data;
    }

    /// Takes the end of a chunked body.
    pub fn end_chunks(&mut self, trailers: Option<&Headers>) {
        write_trailers(trailers, &mut self.lead);
    }

    /// What to write next.
    pub fn slices(&self) -> [IoSlice<'_>; 3] {
        let lead = self.lead.get(self.written..).unwrap_or_default();
        let past = self.written.saturating_sub(self.lead.len());
        let data = self.data.get(past..).unwrap_or_default();
        let tail = self.tail.get(past.saturating_sub(self.data.len())..).unwrap_or_default();
        [IoSlice::new(lead), IoSlice::new(data), IoSlice::new(tail)]
    }

    /// Notes that `n` bytes were written.
    pub fn advance(&mut self, n: usize) {
        self.written += n;
        if self.written >= self.lead.len() + self.data.len() + self.tail.len() {
            self.lead.clear();
            self.data = Bytes::new();
            self.tail = b"";
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_every_byte_once_whatever_the_socket_takes() {
        for step in 1..12 {
            let mut out = Outgoing::default();
            out.lead().extend_from_slice(b"head\r\n\r\n");
            out.data(Bytes::from_static(b"0123456789"), true);
            let mut written = Vec::new();
            while !out.is_empty() {
                let all: Vec<u8> = out.slices().iter().flat_map(|s| s.to_vec()).collect();
                let n = step.min(all.len());
                written.extend_from_slice(&all[..n]);
                out.advance(n);
            }
            assert_eq!(written, b"head\r\n\r\na\r\n0123456789\r\n");
            assert!(out.has_room());
        }
    }
}
