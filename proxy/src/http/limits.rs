//! How long one stream may take (RT-6, HD-21, VS-25).

use super::config::HcmConfig;
use crate::filter::{StreamCx, is_grpc};
use crate::message::{Known, RequestHead};
use crate::route::Timeouts;
use std::time::Duration;

/// Time limits of one stream; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Without a byte either way.
    pub(super) idle: Option<Duration>,
    /// From its first byte to its last.
    pub(super) life: Option<Duration>,
}

impl Limits {
    /// What the route says, else the connection manager. Where the route honours `grpc-timeout`, a gRPC client sets the
    /// life itself, up to the route's bound.
    pub(super) fn of(config: &HcmConfig, cx: &StreamCx, head: &RequestHead) -> Self {
        let of_route = cx.route(head).map(|route| {
            let times = &route.timeouts;
            let asked = times.grpc_timeout_max.and_then(|bound| Some((grpc_timeout(head)?, bound)));
            Self {
                idle: times.idle.unwrap_or(config.stream_idle_timeout),
                life: match asked {
                    Some((asked, bound)) => Some(bound.map_or(asked, |bound| asked.min(bound))),
                    None => times.max_stream_duration.unwrap_or(config.max_stream_duration),
                },
            }
        });
        of_route.unwrap_or(Self { idle: config.stream_idle_timeout, life: config.max_stream_duration })
    }
}

/// How long all tries of a request may take: what the route says, or where it honours `grpc-timeout`, what a gRPC client
/// says, up to the route's bound (VS-25).
pub(super) fn of_tries(times: &Timeouts, head: &RequestHead) -> Option<Duration> {
    let Some(bound) = times.max_grpc_timeout.filter(|_| is_grpc(head)) else { return times.route };
    let asked = grpc_timeout(head).filter(|asked| !asked.is_zero());
    [asked, bound].into_iter().flatten().min()
}

/// What a gRPC client allows: up to eight digits and a unit.
fn grpc_timeout(head: &RequestHead) -> Option<Duration> {
    let text = std::str::from_utf8(head.headers.get(Known::GrpcTimeout)?).ok()?;
    if !is_grpc(head) || !(2..=9).contains(&text.len()) {
        return None;
    }
    let (number, unit) = text.split_at_checked(text.len() - 1)?;
    let number: u64 = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::filter::Facts;
    use crate::message::Version;
    use crate::net::PeerFacts;
    use crate::route::{Route, RouteTable};
    use std::rc::Rc;
    use std::sync::Arc;

    const S: fn(u64) -> Option<Duration> = |seconds| Some(Duration::from_secs(seconds));

    fn head(content_type: &str, grpc_timeout: &str) -> RequestHead {
        let mut head = RequestHead::new(Version::H2, b"POST", b"http", b"a", b"/");
        head.headers.append(b"content-type", content_type.as_bytes());
        head.headers.append(b"grpc-timeout", grpc_timeout.as_bytes());
        head
    }

    fn of(timeouts: Option<Timeouts>, head: &RequestHead) -> (Option<Duration>, Option<Duration>) {
        let table = timeouts.map_or_else(RouteTable::default, |timeouts| {
            RouteTable::single(Route { timeouts, ..Route::to_cluster("c") })
        });
        let plain = HcmConfig::plain(Arc::new([]), Arc::default()).expect("valid");
        let config = HcmConfig { stream_idle_timeout: S(300), max_stream_duration: S(60), ..plain };
        let facts = Rc::new(Facts::alone(Env::seeded(1)));
        let peer = PeerFacts::plain(1, ([10, 0, 0, 9], 1).into(), ([10, 0, 0, 1], 80).into());
        let cx = StreamCx::new(&facts, &Rc::new(peer), Arc::new(table), facts.env.now());
        let limits = Limits::of(&config, &cx, head);
        (limits.idle, limits.life)
    }

    // spec: RT-6, HD-21, VS-25
    #[test]
    fn the_route_has_the_last_word_and_a_grpc_client_one_where_it_is_let() {
        let grpc = head("application/grpc", "5S");
        assert_eq!(of(None, &grpc), (S(300), S(60)));
        assert_eq!(of(Some(Timeouts::default()), &grpc), (S(300), S(60)), "the header means nothing");
        let route = |idle, life, grpc_timeout_max| {
            Some(Timeouts { idle, max_stream_duration: life, grpc_timeout_max, ..Timeouts::default() })
        };
        assert_eq!(of(route(Some(S(7)), Some(S(8)), None), &grpc), (S(7), S(8)));
        assert_eq!(of(route(Some(None), Some(None), None), &grpc), (None, None));
        assert_eq!(of(route(None, Some(None), Some(None)), &grpc).1, S(5), "without a bound");
        assert_eq!(of(route(None, Some(None), Some(S(2))), &grpc).1, S(2), "up to the bound");
        assert_eq!(of(route(None, Some(None), Some(None)), &head("text/plain", "5S")).1, None);
    }

    // spec: RT-5, VS-25, HD-21
    #[test]
    fn tries_have_the_clients_time_up_to_the_routes() {
        let grpc = |asked: &str| head("application/grpc", asked);
        let route = |route, max_grpc_timeout| Timeouts { route, max_grpc_timeout, ..Timeouts::default() };
        assert_eq!(of_tries(&route(S(9), None), &grpc("5S")), S(9), "the route does not look at it");
        assert_eq!(of_tries(&route(None, Some(None)), &grpc("5S")), S(5));
        assert_eq!(of_tries(&route(S(3), Some(S(3))), &grpc("5S")), S(3));
        assert_eq!(of_tries(&route(S(9), Some(S(9))), &grpc("5S")), S(5));
        assert_eq!(of_tries(&route(S(9), Some(S(9))), &grpc("0S")), S(9), "zero asks for nothing");
        assert_eq!(of_tries(&route(None, Some(None)), &grpc("x")), None);
        assert_eq!(of_tries(&route(S(9), Some(None)), &head("text/plain", "5S")), S(9));
    }

    // spec: HD-21
    #[test]
    fn the_header_has_a_number_and_a_unit() {
        let read = |text: &str| grpc_timeout(&head("application/grpc+proto", text));
        let units = [("1H", 3_600_000_000), ("2M", 120_000_000), ("3S", 3_000_000), ("4m", 4000), ("5u", 5)];
        for (text, micros) in units {
            assert_eq!(read(text), Some(Duration::from_micros(micros)), "{text}");
        }
        assert_eq!(read("12345678n"), Some(Duration::from_nanos(12_345_678)));
        for text in ["", "S", "5", "5x", "-5S", "+5S", "5.0S", "123456789S", "5 S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
