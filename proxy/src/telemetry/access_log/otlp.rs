//! `envoy.access_loggers.open_telemetry`: entries as OTLP log records (OB-9, MX-99).

use super::config::LogContext;
use super::facts::LogFacts;
use super::format::Format;
use super::reason::PARTS;
use super::tag::Tag;
use crate::net::Service;
use crate::refusal::{Refusal, Within};
use crate::telemetry::otlp::{nanos, resource, string};
use crate::telemetry::outbox::{Destination, FLUSH_AFTER, FLUSH_AT, Outbox, Shape, field};
use prost::Message;
use proto::duration::from_proto;
use proto::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use proto::envoy::otlp_common::any_value::Value as WrittenValue;
use proto::envoy::otlp_common::{AnyValue as WrittenAny, KeyValueList};
use proto::otlp::common::AnyValue;
use proto::otlp::common::any_value::Value;
use proto::otlp::logs::LogRecord;
use std::sync::Arc;

/// Keys and what their values are made of.
type Attributes = Box<[(Box<str>, Format)]>;

/// A log that goes to a collector.
#[derive(Debug, Clone)]
pub(super) struct OtlpLog {
    to: Arc<Destination>,
    body: Option<Format>,
    attributes: Attributes,
    tags: Box<[Tag]>,
}

impl OtlpLog {
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub(super) fn parse(written: &OpenTelemetryAccessLogConfig, cx: LogContext<'_>) -> Result<Self, Refusal> {
        let refused = [
            ("http_service", written.http_service.is_some()),
            ("resource_detectors", !written.resource_detectors.is_empty()),
            ("formatters", !written.formatters.is_empty()),
            ("filter_state_objects_to_log", !written.filter_state_objects_to_log.is_empty()),
        ];
        if let Some((name, _)) = refused.iter().find(|(_, written)| *written) {
            return Err(Refusal::unsupported(*name));
        }
        #[expect(deprecated, reason = "the field that is written until today")]
        let old = written.common_config.as_ref();
        let service = written.grpc_service.as_ref().or_else(|| old.and_then(|old| old.grpc_service.as_ref()));
        let interval = written.buffer_flush_interval.as_ref().or_else(|| old?.buffer_flush_interval.as_ref());
        let size = written.buffer_size_bytes.or_else(|| old?.buffer_size_bytes);
        let name =
            if written.log_name.is_empty() { old.map(|old| old.log_name.as_str()) } else { Some(&*written.log_name) };
        let mut about = fixed(written.resource_attributes.as_ref());
        if !written.disable_builtin_labels {
            about.push(("log_name".to_owned(), name.unwrap_or_default().to_owned()));
        }
        let tags = written.custom_tags.iter().enumerate();
        Ok(Self {
            to: Arc::new(Destination {
                service: Service::parse(service)?,
                shape: Shape::OtlpLogs { resource: resource(about) },
                flush_after: interval.map_or(FLUSH_AFTER, from_proto),
                flush_at: size.map_or(FLUSH_AT, |bytes| bytes.value as usize),
            }),
            body: written.body.as_ref().map(|body| format(body, cx)).transpose().within("body")?,
            attributes: attributes(written.attributes.as_ref(), cx).within("attributes")?,
            tags: tags
                .map(|(i, tag)| Tag::parse(tag, cx).within(&format!("custom_tags[{i}]")))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Puts an entry on its way.
    pub(super) fn log(&self, facts: &LogFacts<'_>, outbox: &Outbox) {
        let made = |format: &Format| {
            let mut text = Vec::new();
            format.write(facts, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        };
        let attributes = self.attributes.iter().map(|(key, format)| string(key, made(format)));
        let tags = self.tags.iter().filter_map(|tag| Some(string(tag.name(), tag.value(facts)?)));
        let reasons = PARTS
            .iter()
            .filter_map(|(name, part)| Some(string(&format!("ferromesh.{name}"), part.of(facts)?.into_owned())));
        let record = LogRecord {
            time_unix_nano: facts.start.map_or(0, nanos),
            body: self.body.as_ref().map(|body| AnyValue { value: Some(Value::StringValue(made(body))) }),
            attributes: attributes.chain(tags).chain(reasons).collect(),
            trace_id: facts.trace.map(|span| span.trace.to_be_bytes().to_vec()).unwrap_or_default(),
            ..LogRecord::default()
        };
        outbox.put(&self.to, |out| field(2, &record.encode_to_vec(), out));
    }
}

/// Attributes whose values are text as it stands.
fn fixed(written: Option<&KeyValueList>) -> Vec<(String, String)> {
    let pairs = written.into_iter().flat_map(|list| &list.values);
    pairs.filter_map(|pair| Some((pair.key.clone(), text(pair.value.as_ref()?).ok()?.to_owned()))).collect()
}

fn attributes(written: Option<&KeyValueList>, cx: LogContext<'_>) -> Result<Attributes, Refusal> {
    let pairs = written.into_iter().flat_map(|list| &list.values);
    let parsed = pairs.map(|pair| {
        let value = pair.value.as_ref().ok_or_else(|| Refusal::new(&*pair.key, "has no value"))?;
        Ok((pair.key.as_str().into(), format(value, cx).within(&pair.key)?))
    });
    parsed.collect()
}

fn format(value: &WrittenAny, cx: LogContext<'_>) -> Result<Format, Refusal> {
    Format::parse(text(value)?, cx.environment).map_err(|why| Refusal::new("", why.to_string()))
}

fn text(value: &WrittenAny) -> Result<&str, Refusal> {
    match &value.value {
        Some(WrittenValue::StringValue(text)) => Ok(text),
        _ => Err(Refusal::unsupported("values other than string_value")),
    }
}
