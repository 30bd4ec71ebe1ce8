//! What a tap wants to see: the parameters of `/tap`.

use super::Seen;
use crate::message::{Known, RequestHead};
use crate::telemetry::access_log::LogFacts;
use crate::telemetry::istio::{Ends, Workload};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Requests per second that are shown where nothing is said.
pub const PER_SECOND: u32 = 100;
/// Most requests per second that are shown.
pub const MAX_PER_SECOND: u32 = 1000;
/// Longest life of a tap, in seconds; also its life where nothing is said.
pub const MAX_SECONDS: u32 = 3600;
/// Values of one parameter, and headers, at most.
const MAX_VALUES: usize = 16;
/// Longest value of a parameter, in bytes.
const MAX_VALUE_BYTES: usize = 1024;

/// What may be asked, for the text that teaches.
const PARAMETERS: &str = "direction, method, scheme, path, path_prefix, authority, status, header, source, \
                          source_namespace, destination, destination_namespace, min_duration_ms, show_header, \
                          show_query, open, max_per_second, seconds";

/// Which way a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the workload.
    Inbound,
    /// Out of it; also through a gateway.
    Outbound,
}

/// What a tap wants to see. What is not said takes everything; several values of one parameter are alternatives, but
/// every header must be there.
#[derive(Debug, Default)]
pub struct Ask {
    direction: Option<Direction>,
    methods: Vec<String>,
    schemes: Vec<String>,
    paths: Vec<PathRule>,
    authorities: Vec<String>,
    statuses: Vec<RangeInclusive<u16>>,
    headers: Vec<(String, String)>,
    sources: Vec<Party>,
    destinations: Vec<Party>,
    min_duration: Option<Duration>,
    /// Names of headers that are shown, in lower case.
    pub(super) shown: Vec<String>,
    /// Values of query parameters are shown.
    pub(super) show_query: bool,
    /// The beginning of a request is shown too.
    pub(super) open: bool,
    /// Requests per second that are shown.
    pub per_second: u32,
    /// Seconds after which it is over.
    pub seconds: u32,
}

#[derive(Debug)]
enum PathRule {
    Exact(String),
    Prefix(String),
}

/// A workload (or service), or all of a namespace.
#[derive(Debug)]
enum Party {
    Named(String),
    Namespace(String),
}

impl Ask {
    /// Reads the parameters of `/tap`.
    ///
    /// # Errors
    /// The parameter that is wrong, and what it may be.
    pub fn parse(parameters: &[(String, String)]) -> Result<Self, String> {
        let mut ask = Self { per_second: PER_SECOND, seconds: MAX_SECONDS, ..Self::default() };
        for (name, value) in parameters {
            if value.len() > MAX_VALUE_BYTES {
                return Err(format!("{name}: longer than {MAX_VALUE_BYTES} bytes"));
            }
            ask.set(name, value).map_err(|why| format!("{name}={value}: {why}"))?;
        }
        let lists = [
            ask.methods.len(),
            ask.schemes.len(),
            ask.paths.len(),
            ask.authorities.len(),
            ask.statuses.len(),
            ask.headers.len(),
            ask.sources.len(),
            ask.destinations.len(),
            ask.shown.len(),
        ];
        if lists.into_iter().any(|length| length > MAX_VALUES) {
            return Err(format!("at most {MAX_VALUES} values of one parameter"));
        }
        let at_the_end = !ask.statuses.is_empty() || ask.min_duration.is_some();
        if ask.open && (at_the_end || !ask.sources.is_empty() || !ask.destinations.is_empty()) {
            return Err(
                "open goes with conditions on the request alone: status, duration, source and destination are \
                        known at its end"
                    .to_owned(),
            );
        }
        Ok(ask)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let own = || value.to_owned();
        match name {
            "direction" => {
                self.direction = Some(match value {
                    "inbound" => Direction::Inbound,
                    "outbound" => Direction::Outbound,
                    _ => return Err("inbound or outbound".to_owned()),
                });
            }
            "method" => self.methods.push(own()),
            "scheme" => self.schemes.push(own()),
            "path" => self.paths.push(PathRule::Exact(own())),
            "path_prefix" => self.paths.push(PathRule::Prefix(own())),
            "authority" => self.authorities.push(own()),
            "status" => self.statuses.push(statuses(value)?),
            "header" => {
                let (name, value) = value.split_once(':').ok_or("NAME:VALUE")?;
                self.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
            "source" => self.sources.push(Party::Named(own())),
            "source_namespace" => self.sources.push(Party::Namespace(own())),
            "destination" => self.destinations.push(Party::Named(own())),
            "destination_namespace" => self.destinations.push(Party::Namespace(own())),
            "min_duration_ms" => self.min_duration = Some(Duration::from_millis(number(value, 0, u32::MAX)?.into())),
            "show_header" => self.shown.push(value.trim().to_ascii_lowercase()),
            "show_query" => self.show_query = flag(value)?,
            "open" => self.open = flag(value)?,
            "max_per_second" => self.per_second = number(value, 1, MAX_PER_SECOND)?,
            "seconds" => self.seconds = number(value, 1, MAX_SECONDS)?,
            _ => return Err(format!("not known: one of {PARAMETERS}")),
        }
        Ok(())
    }

    /// Whether the request itself is what is wanted.
    pub(super) fn takes_request(&self, seen: &Seen<'_>) -> bool {
        let Some(head) = seen.facts.request else { return false };
        let direction = if seen.inbound { Direction::Inbound } else { Direction::Outbound };
        self.direction.is_none_or(|wanted| wanted == direction)
            && any(&self.methods, |method| head.method().eq_ignore_ascii_case(method.as_bytes()))
            && any(&self.schemes, |scheme| head.scheme() == scheme.as_bytes())
            && any(&self.authorities, |wanted| is_authority(head.authority(), wanted.as_bytes()))
            && any(&self.paths, |rule| rule.takes(head))
            && self.headers.iter().all(|(name, value)| {
                head.headers.values(name.as_bytes()).any(|found| found.eq_ignore_ascii_case(value.as_bytes()))
            })
    }

    /// Whether what became of it is what is wanted.
    pub(super) fn takes_answer(&self, facts: &LogFacts<'_>) -> bool {
        any(&self.statuses, |statuses| statuses.contains(&facts.status.unwrap_or(0)))
            && self.min_duration.is_none_or(|least| facts.times.total.unwrap_or_default() >= least)
    }

    /// Whether its ends are what is wanted.
    pub(super) fn takes_ends(&self, ends: &Ends) -> bool {
        let service = (&*ends.service.name, &*ends.service.namespace);
        any(&self.sources, |party| party.is(&ends.source))
            && any(&self.destinations, |party| {
                party.is(&ends.destination)
                    || party.is_called(service.0, service.1)
                    || party.is_called(&ends.service.host, "")
            })
    }
}

/// Whether one of the values fits; none takes everything.
fn any<T>(wanted: &[T], fits: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}

/// Whether a host is meant, with or without its port.
fn is_authority(found: &[u8], wanted: &[u8]) -> bool {
    let rest = found.get(wanted.len()..);
    found.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted))
        && rest.is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b':'))
}

/// The path that the client sent, with its query.
pub(super) fn path(head: &RequestHead) -> &[u8] {
    head.headers.get(Known::XEnvoyOriginalPath).unwrap_or_else(|| head.path())
}

impl PathRule {
    fn takes(&self, head: &RequestHead) -> bool {
        let path = path(head);
        let bare = path.split(|byte| *byte == b'?').next().unwrap_or(path);
        match self {
            Self::Exact(wanted) => bare == wanted.as_bytes(),
            Self::Prefix(wanted) => bare.starts_with(wanted.as_bytes()),
        }
    }
}

impl Party {
    /// Whether this workload is meant: by its own name or by that of its canonical service.
    fn is(&self, workload: &Workload) -> bool {
        self.is_called(&workload.name, &workload.namespace)
            || self.is_called(&workload.canonical_service, &workload.namespace)
    }

    fn is_called(&self, name: &str, namespace: &str) -> bool {
        match self {
            Self::Namespace(wanted) => wanted == namespace,
            Self::Named(wanted) => wanted.strip_prefix(name).is_some_and(|rest| match rest.strip_prefix('.') {
                None => rest.is_empty(),
                Some(rest) => rest == namespace,
            }),
        }
    }
}

/// `404`, `500-503` or `5xx`.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || "a status (404), a range (500-503) or a class (5xx)".to_owned();
    let status = |text: &str| text.parse().ok().filter(|status: &u16| *status <= 999).ok_or_else(wrong);
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class)).ok_or_else(wrong)?;
        return Ok(class * 100..=class * 100 + 99);
    }
    match text.split_once('-') {
        Some((first, last)) => Ok(status(first)?..=status(last)?),
        None => status(text).map(|status| status..=status),
    }
}

fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    text.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(|| format!("a number from {least} to {most}"))
}

fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" | "" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}
