//! Type URL → filter: the one table. Adding a filter is its file and a line here.

use super::Filter;
use crate::refusal::Refusal;
use crate::route::Override;
use proto::envoy::wkt::Any;

/// What a filter configuration turned out to be.
#[derive(Debug)]
pub enum Parsed {
    /// A filter of the chain.
    Filter(Box<Filter>),
    /// The router, with which every chain ends.
    Router,
    /// A filter whose work this proxy does elsewhere or not at all for HTTP.
    Nothing,
}

type Parse = fn(&Any) -> Result<Parsed, Refusal>;

const TABLE: &[(&str, Parse)] = &[("envoy.extensions.filters.http.router.v3.Router", |_| Ok(Parsed::Router))];

/// Parses the filter `name`.
///
/// # Errors
/// Envoy's text for an unknown type (XM-5), or the field that is wrong.
pub fn parse(name: &str, typed: &Any) -> Result<Parsed, Refusal> {
    let type_name = proto::any::type_name(&typed.type_url);
    match TABLE.iter().find(|(known, _)| *known == type_name) {
        Some((_, parse)) => parse(typed),
        None => Err(Refusal::new(
            "typed_config",
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'"),
        )),
    }
}

/// Parses the configuration that a route has for the filter `name`.
///
/// # Errors
/// The field that is wrong.
pub fn parse_override(name: &str, typed: &Any) -> Result<Override, Refusal> {
    Err(Refusal::new("", format!("{name} takes no configuration of a route ({})", typed.type_url)))
}
