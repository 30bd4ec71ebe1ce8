//! Policy that the authorization service leaves here as a whole: requests are decided without a call (design decision G).
//!
//! An expression has the value that mixer would find, from the same parts of the request as mixer is told: where a part is
//! absent there is no value, and a rule without a value does not apply. Decisions are counted by rule, as mixer counts its
//! own, and told with the other metrics.

use super::http::listed;
use super::{ExtAuthz, Verdict, grpc};
use crate::env::Instant;
use crate::filter::StreamCx;
use crate::message::RequestHead;
use crate::telemetry::Cells;
use crate::telemetry::envoy::EnvoyStats;
use crate::telemetry::names::PolicyMetric;
use foldhash::{HashMap, HashSet};
use proto::envoy::auth::{CheckResponse, DeniedHttpResponse, check_response::HttpResponse};
use proto::envoy::core::header_value_option::HeaderAppendAction;
use proto::envoy::core::{HeaderValue, HeaderValueOption};
use proto::envoy::types::HttpStatus;
use proto::envoy::wkt::value::Kind;
use proto::program::{self, Check, Denial, FIELD, MAX_BYTES, Part};
use regex::Regex;
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Longest time that a policy is believed.
const LONGEST: Duration = Duration::from_secs(60);
/// Largest compiled pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Policies by filter.
#[derive(Debug, Default)]
pub struct Programs(RefCell<HashMap<u64, (Rc<Program>, Instant)>>);

/// The rules of one policy.
#[derive(Debug)]
pub(super) struct Program {
    rules: Box<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    handler: Box<str>,
    /// Whether it is the first check of a rule of mixer's.
    leads: bool,
    when: Option<Expression>,
    check: Checked,
    cells: Rc<Cells<PolicyMetric>>,
}

#[derive(Debug)]
enum Checked {
    Pass,
    Deny(Denial),
    List { value: Expression, entries: HashSet<Box<str>>, ignore_case: bool, blacklist: bool, refusal: Denial },
}

#[derive(Debug)]
enum Expression {
    Text(Box<str>),
    Bool(bool),
    Read(Part),
    Default(Box<[Self; 2]>),
    And(Box<[Self; 2]>),
    Or(Box<[Self; 2]>),
    Equal(Box<[Self; 2]>, bool),
    Matches(Regex, Box<Self>),
    Wildcard(Box<[Self; 2]>),
    StartsWith(Box<[Self; 2]>),
    EndsWith(Box<[Self; 2]>),
    ToLower(Box<Self>),
}

#[derive(Debug, PartialEq)]
enum Value<'r> {
    Text(Cow<'r, str>),
    Bool(bool),
}

impl Programs {
    /// The policy that a filter decides by.
    pub(super) fn find(&self, filter: u64, now: Instant) -> Option<Rc<Program>> {
        let known = self.0.borrow();
        let (program, until) = known.get(&filter)?;
        (now < *until).then(|| Rc::clone(program))
    }

    /// Takes the policy out of an answer, if there is one that is understood.
    pub(super) fn keep(&self, filter: u64, answer: &CheckResponse, (now, stats): (Instant, &EnvoyStats)) {
        let field = answer.dynamic_metadata.as_ref().and_then(|metadata| metadata.fields.get(FIELD));
        let Some(Kind::StringValue(text)) = field.and_then(|field| field.kind.as_ref()) else { return };
        let Some((program, time)) = Program::parse(text, stats) else {
            tracing::debug!("a policy is not understood: its service is asked");
            return;
        };
        let mut known = self.0.borrow_mut();
        // Those of filters that are gone end here.
        known.retain(|_, (_, until)| now < *until);
        known.insert(filter, (Rc::new(program), now + time.min(LONGEST)));
    }
}

impl Program {
    fn parse(text: &str, stats: &EnvoyStats) -> Option<(Self, Duration)> {
        let written: program::Program = (text.len() <= MAX_BYTES).then(|| serde_json::from_str(text).ok()).flatten()?;
        let time = Duration::try_from_secs_f64(written.valid_for_s).ok()?;
        let mut rules = Vec::with_capacity(written.rules.len());
        let mut before = String::new();
        for rule in written.rules {
            let leads = rule.rule != before;
            before.clone_from(&rule.rule);
            rules.push(Rule::new(rule, leads, stats)?);
        }
        Some((Self { rules: rules.into() }, time))
    }

    /// What the service would say of a request.
    pub(super) fn decide(&self, filter: &ExtAuthz, head: &mut RequestHead, cx: &StreamCx) -> Verdict {
        let request = Seen { filter, head, cx };
        let mut first: Option<&Denial> = None;
        let mut reasons = String::new();
        for rule in &self.rules {
            let Some((denial, reason)) = rule.refuses(&request) else { continue };
            if first.is_some() {
                reasons.push_str(", ");
            } else {
                rule.cells.increment(PolicyMetric::Denials);
            }
            first.get_or_insert(denial);
            reasons.push_str(&rule.handler);
            reasons.push(':');
            reasons.push_str(&reason);
        }
        match first {
            None => Ok(Ok(Box::default())),
            Some(denial) => grpc::obey(&answer(denial, &reasons), head),
        }
    }
}

/// A refusal as the service would write it.
fn answer(denial: &Denial, reasons: &str) -> CheckResponse {
    let typed = denial.headers.iter().any(|(name, _)| name == "content-type");
    let plain = (!typed).then(|| ("content-type".to_owned(), "text/plain".to_owned()));
    let header = |(name, value): (String, String)| HeaderValueOption {
        append_action: match name.as_str() {
            "set-cookie" => HeaderAppendAction::AppendIfExistsOrAdd,
            _ => HeaderAppendAction::OverwriteIfExistsOrAdd,
        }
        .into(),
        header: Some(HeaderValue { key: name, value, ..HeaderValue::default() }),
        ..HeaderValueOption::default()
    };
    let body = if denial.body.is_empty() { format!("{}:{reasons}", denial.name) } else { denial.body.clone() };
    CheckResponse {
        status: Some(proto::envoy::RpcStatus { code: denial.code, message: reasons.to_owned(), details: Vec::new() }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: denial.status.into() }),
            headers: denial.headers.iter().cloned().chain(plain).map(header).collect(),
            body,
        })),
        dynamic_metadata: None,
    }
}

impl Rule {
    fn new(written: program::Rule, leads: bool, stats: &EnvoyStats) -> Option<Self> {
        let check = match written.check {
            Check::Pass => Checked::Pass,
            Check::Deny(denial) => Checked::Deny(denial),
            Check::List(list) => {
                let (code, name, status) = list.refusal;
                Checked::List {
                    value: Expression::new(list.value)?,
                    entries: list.entries.into_iter().map(Into::into).collect(),
                    ignore_case: list.ignore_case,
                    blacklist: list.blacklist,
                    refusal: Denial {
                        code,
                        name,
                        status,
                        message: String::new(),
                        body: String::new(),
                        headers: Vec::new(),
                    },
                }
            }
        };
        let when = match written.when {
            None => None,
            Some(when) => Some(Expression::new(when)?),
        };
        let cells = stats.policy(&written.rule, &written.handler);
        Some(Self { handler: written.handler.into(), leads, when, check, cells })
    }

    /// How it refuses a request, and why; `None` where it does not.
    fn refuses(&self, request: &Seen<'_>) -> Option<(&Denial, Cow<'_, str>)> {
        if !self.applies(request) {
            return None;
        }
        self.cells.increment(PolicyMetric::Dispatches);
        let refusal = self.decides(request)?;
        self.cells.increment(PolicyMetric::Refusals);
        Some(refusal)
    }

    fn applies(&self, request: &Seen<'_>) -> bool {
        let value = self.when.as_ref().map_or(Some(Value::Bool(true)), |when| when.value(request));
        let applies = value == Some(Value::Bool(true));
        // A rule counts a request once, however many checks it has.
        match self.leads {
            true if applies => self.cells.increment(PolicyMetric::Hits),
            true if value.is_none() => self.cells.increment(PolicyMetric::Failures),
            _ => {}
        }
        applies
    }

    fn decides(&self, request: &Seen<'_>) -> Option<(&Denial, Cow<'_, str>)> {
        match &self.check {
            Checked::Pass => None,
            Checked::Deny(denial) => Some((denial, denial.message.as_str().into())),
            Checked::List { value, entries, ignore_case, blacklist, refusal } => {
                let Some(Value::Text(value)) = value.value(request) else { return None };
                let listed = if *ignore_case {
                    entries.contains(value.to_lowercase().as_str())
                } else {
                    entries.contains(&*value)
                };
                let reason = match (listed, *blacklist) {
                    (true, true) => format!("{value} is blacklisted"),
                    (false, false) => format!("{value} is not whitelisted"),
                    _ => return None,
                };
                Some((refusal, reason.into()))
            }
        }
    }
}

impl Expression {
    fn new(written: program::Expression) -> Option<Self> {
        use program::Expression as E;
        let pair = |pair: Box<[E; 2]>| {
            let [one, other] = *pair;
            Some(Box::new([Self::new(one)?, Self::new(other)?]))
        };
        let one = |one: Box<E>| Some(Box::new(Self::new(*one)?));
        Some(match written {
            E::Text(text) => Self::Text(text.into()),
            E::Bool(value) => Self::Bool(value),
            E::Read(part) => Self::Read(part),
            E::Default(both) => Self::Default(pair(both)?),
            E::And(both) => Self::And(pair(both)?),
            E::Or(both) => Self::Or(pair(both)?),
            E::Equal(both) => Self::Equal(pair(both)?, true),
            E::NotEqual(both) => Self::Equal(pair(both)?, false),
            E::Matches(pattern, text) => {
                let built = regex::RegexBuilder::new(&pattern).size_limit(MAX_PATTERN_BYTES).build();
                Self::Matches(built.ok()?, one(text)?)
            }
            E::Wildcard(both) => Self::Wildcard(pair(both)?),
            E::StartsWith(both) => Self::StartsWith(pair(both)?),
            E::EndsWith(both) => Self::EndsWith(pair(both)?),
            E::ToLower(text) => Self::ToLower(one(text)?),
        })
    }

    fn value<'r>(&'r self, request: &Seen<'r>) -> Option<Value<'r>> {
        let truth = |one: &'r Self| Some(one.value(request)? == Value::Bool(true));
        let texts = |[one, other]: &'r [Self; 2]| Some((one.text(request)?, other.text(request)?));
        Some(match self {
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::Bool(value) => Value::Bool(*value),
            Self::Read(part) => Value::Text(request.part(part)?),
            Self::Default(either) => {
                let [first, second] = &**either;
                return first.value(request).or_else(|| second.value(request));
            }
            Self::And(both) => Value::Bool(truth(&both[0])? && truth(&both[1])?),
            Self::Or(both) => Value::Bool(truth(&both[0])? || truth(&both[1])?),
            Self::Equal(both, wanted) => Value::Bool((both[0].value(request)? == both[1].value(request)?) == *wanted),
            Self::Matches(pattern, text) => Value::Bool(pattern.is_match(&text.text(request)?)),
            Self::Wildcard(both) => {
                let (text, pattern) = texts(both)?;
                Value::Bool(match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
                    (Some(start), _) => text.starts_with(start),
                    (None, Some(end)) => text.ends_with(end),
                    (None, None) => text == pattern,
                })
            }
            Self::StartsWith(both) => texts(both).map(|(text, start)| Value::Bool(text.starts_with(&*start)))?,
            Self::EndsWith(both) => texts(both).map(|(text, end)| Value::Bool(text.ends_with(&*end)))?,
            Self::ToLower(text) => Value::Text(Cow::Owned(text.text(request)?.to_lowercase())),
        })
    }

    fn text<'r>(&'r self, request: &Seen<'r>) -> Option<Cow<'r, str>> {
        match self.value(request)? {
            Value::Text(text) => Some(text),
            Value::Bool(value) => Some(Cow::Owned(value.to_string())),
        }
    }
}

/// A request as the service would be told of it.
struct Seen<'r> {
    filter: &'r ExtAuthz,
    head: &'r RequestHead,
    cx: &'r StreamCx,
}

impl<'r> Seen<'r> {
    fn part(&self, part: &Part) -> Option<Cow<'r, str>> {
        let head = self.head;
        let text = |bytes: &'r [u8]| Some(String::from_utf8_lossy(bytes)).filter(|text| !text.is_empty());
        match part {
            Part::Method => text(head.method()),
            Part::Path => text(head.path()),
            Part::UrlPath => text(head.path_only()),
            Part::Host => text(head.authority()),
            Part::Scheme => text(head.scheme()),
            Part::Principal => {
                let id = self.cx.peer.peer_id()?;
                text(id.strip_prefix("spiffe://").unwrap_or(id).as_bytes())
            }
            Part::Header(name) => self.header(name),
        }
    }

    /// A header with all its values, where the service is told of it.
    fn header(&self, name: &str) -> Option<Cow<'r, str>> {
        let head = self.head;
        let pseudo = match name {
            ":method" => Some(head.method()),
            ":path" => Some(head.path()),
            ":authority" => Some(head.authority()),
            ":scheme" => Some(head.scheme()),
            _ => None,
        };
        if let Some(value) = pseudo {
            return Some(String::from_utf8_lossy(value));
        }
        let told = name == "authorization"
            || self.filter.request_headers.as_ref().is_none_or(|list| listed(list, name.as_bytes()));
        if !told {
            return None;
        }
        let mut found: Option<Cow<'r, str>> = None;
        for (_, value) in head.headers.iter().filter(|(own, _)| own.bytes.eq_ignore_ascii_case(name.as_bytes())) {
            let value = String::from_utf8_lossy(value);
            found = Some(match found {
                Some(before) if !before.is_empty() => Cow::Owned(format!("{before},{value}")),
                _ => value,
            });
        }
        found
    }
}
