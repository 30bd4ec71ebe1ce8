//! HTTP/2: frames without a header table, so that all of them can be encoded beforehand.

use crate::Args;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Credit that is given at once, for the connection.
const WINDOW: u32 = 1 << 30;
/// Credit is renewed once so much was used.
const RENEW: u32 = 1 << 29;

/// One connection, either role.
#[derive(Debug)]
pub(crate) struct Peer {
    block: Vec<u8>,
    body: Vec<u8>,
    server: bool,
    preface: usize,
    next_id: u32,
    used: u32,
    /// Bytes that the peer may still be sent.
    window: i64,
    /// Streams that wait for window.
    owed: Vec<u32>,
}

/// What some bytes brought.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Took {
    /// Requests (server) or good answers (client).
    pub(crate) good: usize,
    /// Answers of another status, resets, the end of the connection.
    pub(crate) bad: usize,
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A literal without indexing and without Huffman; `index` 0 writes the name.
fn literal(out: &mut Vec<u8>, index: u8, name: &[u8], value: &[u8]) {
    out.push(index.min(14));
    if index == 0 {
        out.push(u8::try_from(name.len()).unwrap_or(0));
        out.extend_from_slice(name);
    }
    out.push(u8::try_from(value.len()).unwrap_or(0));
    out.extend_from_slice(value);
}

impl Peer {
    /// A client's or a server's side; what it says first goes to `out`.
    pub(crate) fn new(args: &Args, server: bool, out: &mut Vec<u8>) -> Self {
        let mut block = Vec::new();
        if server {
            block.push(0x88);
            literal(&mut block, 0, b"content-type", b"text/plain");
            literal(&mut block, 0, b"content-length", args.response.to_string().as_bytes());
        } else {
            out.extend_from_slice(PREFACE);
            block.extend_from_slice(&[0x82, 0x86]);
            literal(&mut block, 4, b"", args.path.as_bytes());
            literal(&mut block, 1, b"", b"backend");
            literal(&mut block, 0, b"user-agent", b"hairpin");
            literal(&mut block, 0, b"accept", b"*/*");
        }
        // 1,000 streams, 1 MiB of window for each
        frame(out, 4, 0, 0, &[0, 3, 0, 0, 3, 0xe8, 0, 4, 0, 16, 0, 0]);
        frame(out, 8, 0, 0, &WINDOW.to_be_bytes());
        let preface = if server { PREFACE.len() } else { 0 };
        let body = vec![b'x'; args.response];
        Self { block, body, server, preface, next_id: 1, used: 0, window: 65_535, owed: Vec::new() }
    }

    /// Sends a request.
    pub(crate) fn request(&mut self, out: &mut Vec<u8>) {
        frame(out, 1, 0x5, self.next_id, &self.block);
        self.next_id += 2;
    }

    fn answer(&mut self, id: u32, out: &mut Vec<u8>) {
        let length = i64::try_from(self.body.len()).unwrap_or(0);
        if self.window < length {
            self.owed.push(id);
            return;
        }
        self.window -= length;
        frame(out, 1, 0x4, id, &self.block);
        for (n, part) in self.body.chunks(16_384).enumerate() {
            let last = (n + 1) * 16_384 >= self.body.len();
            frame(out, 0, u8::from(last), id, part);
        }
    }

    /// Takes whole frames out of `buf`; acknowledgements and, on a server, answers go to `out`.
    pub(crate) fn take(&mut self, buf: &mut Vec<u8>, out: &mut Vec<u8>) -> Took {
        let mut took = Took::default();
        let mut from = 0;
        if self.preface > 0 && buf.len() >= self.preface {
            from = std::mem::take(&mut self.preface);
        }
        while self.preface == 0
            && let Some(rest) = buf.get(from..)
            && let Some(&[a, b, c, kind, flags, s0, s1, s2, s3]) = rest.first_chunk::<9>()
        {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some(payload) = rest.get(9..9 + length) else { break };
            let stream = u32::from_be_bytes([s0, s1, s2, s3]);
            from += 9 + length;
            match kind {
                0 => self.used += u32::try_from(length).unwrap_or(0),
                1 if !self.server && payload.first() != Some(&0x88) => took.bad += 1,
                3 | 7 => took.bad += 1,
                4 if flags & 1 == 0 => frame(out, 4, 1, 0, &[]),
                6 if flags & 1 == 0 => frame(out, 6, 1, 0, payload),
                8 if stream == 0 => {
                    let more = payload.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                    self.window += i64::from(more);
                    for id in std::mem::take(&mut self.owed) {
                        self.answer(id, out);
                    }
                }
                _ => {}
            }
            if kind < 2 && flags & 1 != 0 {
                took.good += 1;
                if self.server {
                    self.answer(stream, out);
                }
            }
        }
        buf.drain(..from);
        if self.used > RENEW {
            frame(out, 8, 0, 0, &std::mem::take(&mut self.used).to_be_bytes());
        }
        took
    }
}
