//! `CustomTag` of Envoy's API: a name and a value that is made for each entry or span.

use super::config::LogContext;
use super::facts::LogFacts;
use super::format::Format;
use crate::refusal::{Refusal, Within};
use proto::envoy::tracing::{CustomTag, custom_tag::Type};
use proto::envoy::type_metadata::metadata_kind::Kind;
use proto::envoy::type_metadata::{MetadataKey, metadata_key::path_segment::Segment};

/// A tag.
#[derive(Debug, Clone)]
pub struct Tag {
    name: Box<str>,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Fixed(Box<str>),
    Made {
        format: Format,
        /// Stands for what is not known; empty: no tag then.
        default: Box<str>,
    },
}

impl Tag {
    /// A tag that always has this value.
    pub fn fixed(name: &str, value: &str) -> Self {
        Self { name: name.into(), value: Value::Fixed(value.into()) }
    }

    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub fn parse(written: &CustomTag, cx: LogContext<'_>) -> Result<Self, Refusal> {
        if written.tag.is_empty() {
            return Err(Refusal::new("tag", "is empty: a tag needs a name"));
        }
        let made = |text: &str, default: &str, field: &str| {
            let format = Format::parse(text, cx.environment).map_err(|why| Refusal::new(field, why.to_string()))?;
            Ok(Value::Made { format, default: default.into() })
        };
        let value = match written.r#type.as_ref().ok_or_else(|| Refusal::new("type", "is missing"))? {
            Type::Literal(literal) => Value::Fixed(literal.value.as_str().into()),
            Type::Environment(variable) => {
                let found = cx.environment.get(&variable.name).filter(|value| !value.is_empty());
                Value::Fixed(found.unwrap_or(&variable.default_value).into())
            }
            Type::RequestHeader(header) => {
                made(&format!("%REQ({})%", header.name), &header.default_value, "request_header.name")?
            }
            Type::Metadata(metadata) => {
                let kind = metadata.kind.as_ref().and_then(|kind| kind.kind.as_ref());
                let operator = match kind {
                    None | Some(Kind::Request(_)) => "DYNAMIC_METADATA",
                    Some(Kind::Cluster(_)) => "CLUSTER_METADATA",
                    Some(Kind::Host(_)) => "UPSTREAM_METADATA",
                    Some(Kind::Route(_)) => return Err(Refusal::unsupported("metadata.kind.route")),
                };
                let path = path(metadata.metadata_key.as_ref()).within("metadata.metadata_key")?;
                made(&format!("%{operator}({path})%"), &metadata.default_value, "metadata")?
            }
            Type::Value(text) => made(text, "", "value")?,
        };
        Ok(Self { name: written.tag.as_str().into(), value })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value for these facts; `None` where nothing is known.
    pub fn value(&self, facts: &LogFacts<'_>) -> Option<String> {
        let (format, default) = match &self.value {
            Value::Fixed(text) => return Some(text.as_ref().to_owned()),
            Value::Made { format, default } => (format, default),
        };
        let mut out = Vec::new();
        format.write_omitting(facts, &mut out);
        if out.is_empty() {
            out.extend_from_slice(default.as_bytes());
        }
        (!out.is_empty()).then(|| String::from_utf8_lossy(&out).into_owned())
    }
}

/// `NAMESPACE:KEY:…`, as command operators have it.
fn path(key: Option<&MetadataKey>) -> Result<String, Refusal> {
    let key = key.ok_or_else(|| Refusal::new("", "is missing"))?;
    let mut path = key.key.clone();
    for segment in &key.path {
        let Some(Segment::Key(name)) = &segment.segment else { return Err(Refusal::new("path", "a key is needed")) };
        path.push(':');
        path.push_str(name);
    }
    Ok(path)
}
