//! `envoy.filters.http.cors`: cross-origin requests by route (VS-37).

use super::{Decision, FilterState, Step, StreamCx};
use crate::message::matcher::StringMatcher;
use crate::message::{Body, Known, Request, Response, ResponseHead};
use crate::refusal::{Refusal, Within};
use proto::any;
use proto::envoy::http_filters::cors::v3::CorsPolicy;
use proto::envoy::wkt::Any;

/// The filter's name, under which routes have their policy.
pub const NAME: &str = "envoy.filters.http.cors";

/// What a route allows.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<StringMatcher>,
    methods: Box<str>,
    headers: Box<str>,
    expose: Box<str>,
    max_age: Box<str>,
    credentials: bool,
    /// A preflight of an origin that is not allowed goes to the upstream (the default), or is answered here.
    forward_unmatched: bool,
    enabled: bool,
}

/// Parses what a route has for the filter.
///
/// # Errors
/// The field that is wrong.
pub fn parse_override(typed: &Any) -> Result<Cors, Refusal> {
    let written: CorsPolicy = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let origins = written.allow_origin_string_match.iter().enumerate();
    let origins = origins.map(|(i, m)| StringMatcher::parse(m).within(&format!("allow_origin_string_match[{i}]")));
    let share = written.filter_enabled.as_ref().and_then(|f| f.default_value.as_ref());
    Ok(Cors {
        origins: origins.collect::<Result<_, _>>()?,
        methods: written.allow_methods.into(),
        headers: written.allow_headers.into(),
        expose: written.expose_headers.into(),
        max_age: written.max_age.into(),
        credentials: written.allow_credentials.is_some_and(|b| b.value),
        forward_unmatched: written.forward_not_matching_preflights.is_none_or(|b| b.value),
        enabled: share.is_none_or(|share| share.numerator > 0),
    })
}

impl Cors {
    fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|matcher| matcher.matches(origin))
    }

    fn preflight(&self, origin: &[u8]) -> Response {
        let mut head = ResponseHead::new(200);
        self.grant(origin, &mut head);
        let lists: [(&[u8], &str); 3] = [
            (b"access-control-allow-methods", &self.methods),
            (b"access-control-allow-headers", &self.headers),
            (b"access-control-max-age", &self.max_age),
        ];
        self.show(&mut head);
        for (name, value) in lists.into_iter().filter(|(_, value)| !value.is_empty()) {
            head.headers.append(name, value.as_bytes());
        }
        Response { head, body: Body::Empty }
    }

    fn show(&self, head: &mut ResponseHead) {
        if !self.expose.is_empty() {
            head.headers.set_name(b"access-control-expose-headers", self.expose.as_bytes());
        }
    }

    fn grant(&self, origin: &[u8], head: &mut ResponseHead) {
        head.headers.set_name(b"access-control-allow-origin", origin);
        if self.credentials {
            head.headers.set_name(b"access-control-allow-credentials", b"true");
        }
    }
}

/// The request passes.
pub(super) fn on_request<'a>(st: &'a mut FilterState, rq: &'a Request, cx: &'a StreamCx) -> Step<'a> {
    let Some(origin) = rq.head.headers.get(Known::Origin).filter(|origin| !origin.is_empty()) else {
        return Step::CONTINUE;
    };
    let Some(policy) = cx.override_of::<Cors>(&rq.head, NAME).filter(|policy| policy.enabled) else {
        return Step::CONTINUE;
    };
    let allowed = policy.allows(origin);
    let preflight = rq.head.method() == b"OPTIONS" && rq.head.headers.contains(Known::AccessControlRequestMethod);
    match (preflight, allowed) {
        (true, true) => {
            cx.info.borrow_mut().details = Some("cors_response".into());
            return Step::Done(Decision::Reply(Box::new(policy.preflight(origin))));
        }
        (true, false) if !policy.forward_unmatched => {
            cx.info.borrow_mut().details = Some("cors_response".into());
            let empty = Response { head: ResponseHead::new(200), body: Body::Empty };
            return Step::Done(Decision::Reply(Box::new(empty)));
        }
        (false, true) => *st = FilterState::Cors(policy, origin.into()),
        _ => {}
    }
    Step::CONTINUE
}

/// The response passes.
pub(super) fn on_response(st: &FilterState, rs: &mut Response) {
    if let FilterState::Cors(policy, origin) = st {
        policy.grant(origin, &mut rs.head);
        policy.show(&mut rs.head);
    }
}
