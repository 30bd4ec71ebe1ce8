//! `x-request-id` (HD-1).

use super::config::HcmConfig;
use crate::env::Env;
use crate::message::{Known, RequestHead};

/// Makes the id where there is none, and at the edge where the client's is not to be kept.
pub(super) fn request(head: &mut RequestHead, config: &HcmConfig, env: &Env) {
    if !config.generate_request_id {
        return;
    }
    let kept = !config.use_remote_address || config.preserve_external_request_id;
    if kept && head.headers.contains(Known::XRequestId) {
        return;
    }
    head.headers.set(Known::XRequestId, &uuid4(env.bits()));
}

/// A random UUID (RFC 9562 section 5.4) as text.
fn uuid4(bits: u128) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    /// Where the two digits of each byte stand.
    const AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut out = [b'-'; 36];
    for (byte, at) in bits.to_be_bytes().into_iter().zip(AT) {
        out[at] = HEX[usize::from(byte >> 4)];
        out[at + 1] = HEX[usize::from(byte & 15)];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Version;
    use crate::route::RouteTable;
    use std::sync::Arc;

    fn config(use_remote_address: bool) -> HcmConfig {
        let plain = HcmConfig::plain(Arc::new([]), Arc::new(RouteTable::default())).expect("valid");
        HcmConfig { use_remote_address, ..plain }
    }

    // spec: HD-1
    #[test]
    fn made_where_absent_and_kept_only_where_the_client_is_trusted() {
        let env = Env::seeded(1);
        let head = |id: Option<&[u8]>| {
            let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"a", b"/");
            if let Some(id) = id {
                head.headers.append(b"X-Request-Id", id);
            }
            head
        };
        let after = |id, edge| {
            let mut head = head(id);
            request(&mut head, &config(edge), &env);
            head.headers.get(Known::XRequestId).map(<[u8]>::to_vec)
        };
        let made = after(None, false).expect("made");
        assert_eq!((made.len(), made[14], made.iter().filter(|b| **b == b'-').count()), (36, b'4', 4));
        assert!(matches!(made[19], b'8' | b'9' | b'a' | b'b'));
        assert_eq!(after(Some(b"mine"), false).as_deref(), Some(&b"mine"[..]));
        assert_ne!(after(Some(b"mine"), true).as_deref(), Some(&b"mine"[..]));
    }
}
