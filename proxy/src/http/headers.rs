//! Headers that the connection manager sets on every message.

use crate::env::{Env, Instant};
use crate::message::{Known, ResponseHead};
use std::cell::RefCell;
use std::time::SystemTime;

/// What happens to `server` (HD-14).
#[derive(Debug, Clone, Default)]
pub enum ServerHeader {
    /// Always this name.
    Overwrite(Box<str>),
    /// This name where the upstream gave none.
    AppendIfAbsent(Box<str>),
    /// As the upstream wrote it.
    #[default]
    PassThrough,
}

thread_local! {
    /// The `date` of the current second.
    static DATE: RefCell<(u64, [u8; 29])> = const { RefCell::new((0, [0; 29])) };
}

/// Sets `server` and `date`.
pub(super) fn finish_response(head: &mut ResponseHead, server: &ServerHeader, env: &Env, now: Instant) {
    match server {
        ServerHeader::Overwrite(name) => head.headers.set(Known::Server, name.as_bytes()),
        ServerHeader::AppendIfAbsent(name) if !head.headers.contains(Known::Server) => {
            head.headers.append_known(Known::Server, name.as_bytes());
        }
        _ => {}
    }
    if !head.headers.contains(Known::Date) {
        let seconds = env.wall(now).duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        DATE.with(|date| {
            let mut date = date.borrow_mut();
            if date.0 != seconds {
                *date = (seconds, imf_fixdate(seconds));
            }
            head.headers.append_known(Known::Date, &date.1);
        });
    }
}

/// RFC 9110 section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn imf_fixdate(seconds: u64) -> [u8; 29] {
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let text = i64::try_from(seconds)
        .ok()
        .and_then(|s| jiff::Timestamp::from_second(s).ok())
        .map(|t| t.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    if let Some(text) = text.filter(|text| text.len() == out.len()) {
        out.copy_from_slice(text.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: HD-14
    #[test]
    fn server_and_date_are_set_as_configured() {
        let env = Env::seeded(1);
        let mut head = ResponseHead::new(200);
        head.headers.append(b"server", b"app");
        finish_response(&mut head, &ServerHeader::PassThrough, &env, env.now());
        assert_eq!(head.headers.get(Known::Server), Some(&b"app"[..]));
        assert!(head.headers.get(Known::Date).is_some_and(|d| d.ends_with(b" GMT")));
        finish_response(&mut head, &ServerHeader::AppendIfAbsent("x".into()), &env, env.now());
        assert_eq!(head.headers.get(Known::Server), Some(&b"app"[..]));
        finish_response(&mut head, &ServerHeader::Overwrite("istio-envoy".into()), &env, env.now());
        assert_eq!(head.headers.get(Known::Server), Some(&b"istio-envoy"[..]));
        assert_eq!(&imf_fixdate(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
