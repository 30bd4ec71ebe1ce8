//! HTTP/1.1: bytes in, counts out.

use crate::Args;

pub(crate) fn request(args: &Args) -> Vec<u8> {
    format!("GET {} HTTP/1.1\r\nhost: backend\r\nuser-agent: hairpin\r\naccept: */*\r\n\r\n", args.path).into_bytes()
}

pub(crate) fn response(args: &Args) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", args.response)
        .into_bytes();
    out.resize(out.len() + args.response, b'x');
    out
}

/// Takes whole requests without bodies out of `buf`; gives back how many.
pub(crate) fn take_requests(buf: &mut Vec<u8>) -> usize {
    let mut taken = 0;
    let mut from = 0;
    while let Some(at) = find(buf.get(from..).unwrap_or_default()) {
        from += at + 4;
        taken += 1;
    }
    buf.drain(..from);
    taken
}

/// Takes whole responses with `content-length` out of `buf`; gives back how many had status 200 and how many not.
pub(crate) fn take_responses(buf: &mut Vec<u8>) -> (usize, usize) {
    let (mut good, mut bad, mut from) = (0, 0, 0);
    while let Some(rest) = buf.get(from..)
        && let Some(at) = find(rest)
    {
        let head = String::from_utf8_lossy(rest.get(..at).unwrap_or_default()).to_ascii_lowercase();
        let length = head.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if rest.len() < at + 4 + length {
            break;
        }
        from += at + 4 + length;
        if head.starts_with("http/1.1 200") { good += 1 } else { bad += 1 }
    }
    buf.drain(..from);
    (good, bad)
}

fn find(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n")
}
