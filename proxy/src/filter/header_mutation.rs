//! `envoy.filters.http.header_mutation`: sets, adds and removes headers.

use super::StreamCx;
use crate::message::{Headers, Request, Response};
use crate::refusal::{Refusal, Within};
use proto::any;
use proto::envoy::core::header_value_option::HeaderAppendAction;
use proto::envoy::extensions::filters::http::header_mutation::v3::{HeaderMutation as Written, Mutations};
use proto::envoy::wkt::Any;

/// One change.
#[derive(Debug)]
enum Change {
    Remove(Box<[u8]>),
    Set(Box<[u8]>, Box<[u8]>, HeaderAppendAction),
}

/// Changes of requests and responses.
#[derive(Debug)]
pub struct HeaderMutation {
    request: Vec<Change>,
    response: Vec<Change>,
}

/// Parses the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any) -> Result<HeaderMutation, Refusal> {
    let written: Written = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let mutations: Mutations = written.mutations.unwrap_or_default();
    if !mutations.query_parameter_mutations.is_empty() {
        return Err(Refusal::unsupported("mutations.query_parameter_mutations"));
    }
    Ok(HeaderMutation {
        request: changes(&mutations.request_mutations).within("mutations.request_mutations")?,
        response: changes(&mutations.response_mutations).within("mutations.response_mutations")?,
    })
}

type WrittenChange = proto::envoy::mutation_rules::HeaderMutation;

fn changes(written: &[WrittenChange]) -> Result<Vec<Change>, Refusal> {
    use proto::envoy::mutation_rules::header_mutation::Action;
    let one = |(i, mutation): (usize, &WrittenChange)| match &mutation.action {
        Some(Action::Remove(name)) => Ok(Change::Remove(name.as_bytes().into())),
        Some(Action::Append(option)) => {
            let header =
                option.header.as_ref().ok_or_else(|| Refusal::new(format!("[{i}].append.header"), "is needed"))?;
            if header.value.contains('%') {
                return Err(Refusal::unsupported(format!("[{i}].append.header.value: command operators")));
            }
            let action = HeaderAppendAction::try_from(option.append_action)
                .map_err(|_| Refusal::new(format!("[{i}].append.append_action"), "unknown"))?;
            Ok(Change::Set(header.key.as_bytes().into(), header.value.as_bytes().into(), action))
        }
        _ => Err(Refusal::unsupported(format!("[{i}].action"))),
    };
    written.iter().enumerate().map(one).collect()
}

impl Change {
    fn apply(&self, headers: &mut Headers) {
        let Self::Set(name, value, action) = self else {
            if let Self::Remove(name) = self {
                headers.remove_name(name);
            }
            return;
        };
        let there = headers.get_name(name).is_some();
        match action {
            HeaderAppendAction::AppendIfExistsOrAdd => headers.append(name, value),
            HeaderAppendAction::AddIfAbsent if !there => headers.append(name, value),
            HeaderAppendAction::OverwriteIfExistsOrAdd => headers.set_name(name, value),
            HeaderAppendAction::OverwriteIfExists if there => headers.set_name(name, value),
            _ => {}
        }
    }
}

impl HeaderMutation {
    pub(super) fn on_request(&self, rq: &mut Request, cx: &StreamCx) {
        self.request.iter().for_each(|change| change.apply(&mut rq.head.headers));
        if !self.request.is_empty() {
            cx.clear_route();
        }
    }

    pub(super) fn on_response(&self, rs: &mut Response) {
        self.response.iter().for_each(|change| change.apply(&mut rs.head.headers));
    }
}
