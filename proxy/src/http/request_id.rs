//! `x-request-id` (HD-1).

use super::config::HcmConfig;
use crate::env::Env;
use crate::message::{Known, RequestHead, hex};
use crate::telemetry::trace::TraceConfig;

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

/// Where a UUID says its version; the id of a request that is followed says why instead.
const REASON: usize = 14;

/// Whether a request is followed (TR-2): its id says so, the client asks for it, or chance decides by the id, so that
/// all hops decide alike. The id says it from here on.
pub(super) fn is_traced(head: &mut RequestHead, config: &TraceConfig, (pack, ask): (bool, bool), random: u64) -> bool {
    let id = head.headers.get(Known::XRequestId).filter(|id| id.len() == 36);
    let before = id.and_then(|id| id.get(REASON)).copied().filter(|_| ask).unwrap_or(b'4');
    let number = id.and_then(|id| number(id.get(..8)?)).unwrap_or(random);
    let mut reason = match before {
        b'9' | b'a' | b'b' => before,
        _ if head.headers.contains(Known::XClientTraceId) && config.client.takes(random) => b'b',
        _ if head.headers.contains(Known::XEnvoyForceTrace) => b'a',
        _ if config.random.takes(number) => b'9',
        _ => b'4',
    };
    if reason != b'4' && !config.overall.takes(number) {
        reason = b'4';
    }
    if pack
        && reason != before
        && let Some(mut id) = id.map(<[u8]>::to_vec)
    {
        if let Some(digit) = id.get_mut(REASON) {
            *digit = reason;
        }
        head.headers.set(Known::XRequestId, &id);
    }
    reason != b'4'
}

/// The number that hex digits are.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

/// A random UUID (RFC 9562 section 5.4) as text.
fn uuid4(bits: u128) -> [u8; 36] {
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let [a, b, c, d] = hex::digits(bits);
    let mut out = [b'-'; 36];
    out[..8].copy_from_slice(&a);
    out[9..13].copy_from_slice(&b[..4]);
    out[14..18].copy_from_slice(&b[4..]);
    out[19..23].copy_from_slice(&c[..4]);
    out[24..28].copy_from_slice(&c[4..]);
    out[28..].copy_from_slice(&d);
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

    // spec: HD-1, TR-2
    #[test]
    fn the_id_says_whether_the_request_is_followed_and_all_hops_decide_alike() {
        use crate::telemetry::trace::Share;
        let config = |client, random, overall| TraceConfig {
            client: Share(client),
            random: Share(random),
            overall: Share(overall),
            tags: Box::default(),
            max_path: 256,
            span_per_try: false,
            operation: None,
            driver: None,
        };
        let decide = |id: &str, more: &[(&str, &str)], config: &TraceConfig, how| {
            let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"a", b"/");
            head.headers.append(b"x-request-id", id.as_bytes());
            more.iter().for_each(|(name, value)| head.headers.append(name.as_bytes(), value.as_bytes()));
            let traced = is_traced(&mut head, config, how, 9_999);
            let after = String::from_utf8(head.headers.get(Known::XRequestId).unwrap_or_default().to_vec());
            (traced, after.unwrap_or_default())
        };
        // 0x14 = 20 of 10,000: within 1 %
        let (within, beyond) = ("00000014-0000-4000-8000-000000000000", "000003e8-0000-4000-8000-000000000000");
        let (all, one) = ((true, true), config(10_000, 100, 10_000));
        assert_eq!(decide(within, &[], &one, all), (true, "00000014-0000-9000-8000-000000000000".into()));
        assert_eq!(decide(beyond, &[], &one, all), (false, beyond.into()));
        let client = [("x-client-trace-id", "1")];
        assert_eq!(decide(beyond, &client, &one, all), (true, "000003e8-0000-b000-8000-000000000000".into()));
        let forced = [("x-envoy-force-trace", "1")];
        assert_eq!(decide(beyond, &forced, &one, all), (true, "000003e8-0000-a000-8000-000000000000".into()));
        let followed = "000003e8-0000-9000-8000-000000000000";
        assert_eq!(decide(followed, &[], &config(0, 0, 10_000), all), (true, followed.into()));
        assert!(!decide(followed, &[], &config(0, 0, 10_000), (true, false)).0, "the id does not decide");
        assert_eq!(decide(within, &[], &one, (false, true)), (true, within.into()), "the id does not say it");
        assert_eq!(decide(followed, &[], &config(0, 0, 100), all), (false, beyond.into()), "no more than so many");
        assert_eq!(decide("mine", &[], &one, all), (false, "mine".into()));
    }
}
