//! `AccessLog` of Envoy's API → filter, format, sink.

use super::expression::Expression;
use super::facts::{Entry, LogFacts};
use super::filter::{Comparison, LogFilter, Relation};
use super::format::{ENVOY_TEXT, Format, JsonFormat};
use super::grpc::GrpcLog;
use super::otlp::OtlpLog;
use super::sinks::LogSinks;
use super::stats::StatsLog;
use crate::bootstrap::Environment;
use crate::message::matcher::HeaderMatcher;
use crate::outcome::Flags;
use crate::refusal::{Refusal, Within};
use proto::envoy::accesslog::access_log_filter::FilterSpecifier;
use proto::envoy::accesslog::{
    AccessLog as Written, AccessLogFilter, ComparisonFilter, access_log, comparison_filter::Op, extension_filter,
};
use proto::envoy::core::{SubstitutionFormatString, substitution_format_string};
use proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat};
use proto::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use proto::envoy::extensions::access_loggers::grpc::v3::{HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig};
use proto::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use proto::envoy::extensions::access_loggers::stats::v3::Config as StatsConfig;
use proto::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use proto::envoy::types::fractional_percent::DenominatorType;
use proto::envoy::wkt::{Any, Struct};
use proto::value::of_struct;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One access log of a listener, an HTTP connection manager or a TCP proxy.
#[derive(Debug, Clone)]
pub struct AccessLog {
    filter: Option<LogFilter>,
    sink: Sink,
}

#[derive(Debug, Clone)]
enum Sink {
    /// Lines of a file.
    Lines(Arc<str>, Line),
    /// Statistics.
    Stats(StatsLog),
    /// Entries for a service.
    Grpc(Box<GrpcLog>),
    /// Records for a collector.
    Otlp(Box<OtlpLog>),
}

#[derive(Debug, Clone)]
enum Line {
    Text(Format),
    /// Text in which what is not known is left out.
    Omitting(Format),
    Json(JsonFormat),
}

/// What an access log is read with.
#[derive(Debug, Clone, Copy)]
pub struct LogContext<'a> {
    /// For `%ENVIRONMENT(X)%`.
    pub environment: &'a Environment,
    /// Values of runtime keys.
    pub runtime: &'a BTreeMap<String, f64>,
}

impl AccessLog {
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub fn parse(written: &Written, cx: LogContext<'_>) -> Result<Self, Refusal> {
        let filter = written.filter.as_ref().map(|filter| parse_filter(filter, cx).within("filter")).transpose()?;
        let Some(access_log::ConfigType::TypedConfig(any)) = &written.config_type else {
            return Err(Refusal::new("typed_config", "is missing"));
        };
        let sink = sink(any, cx).within("typed_config")?;
        Ok(Self { filter, sink })
    }

    /// Logs an entry, if the filter lets it through; `random` decides about shares.
    pub fn log(&self, facts: &LogFacts<'_>, random: u64, sinks: &LogSinks) {
        if self.filter.as_ref().is_some_and(|filter| !filter.passes(facts, random)) {
            return;
        }
        match &self.sink {
            Sink::Lines(path, line) => sinks.lines.line(path, |out| line.write(facts, out)),
            Sink::Stats(stats) => stats.count(facts, &sinks.stats),
            Sink::Grpc(log) => log.log(facts, &sinks.outbox),
            Sink::Otlp(log) => log.log(facts, &sinks.outbox),
        }
    }
}

impl Line {
    fn write(&self, facts: &LogFacts<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Text(format) => format.write(facts, out),
            Self::Omitting(format) => format.write_omitting(facts, out),
            Self::Json(format) => format.write(facts, out),
        }
    }
}

fn sink(any: &Any, cx: LogContext<'_>) -> Result<Sink, Refusal> {
    let name = proto::any::type_name(&any.type_url);
    let malformed = |error: proto::any::AnyError| Refusal::new("", error.to_string());
    match name {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let file: FileAccessLog = proto::any::unpack(any).map_err(malformed)?;
            if file.path.is_empty() {
                return Err(Refusal::new("path", "is empty"));
            }
            Ok(Sink::Lines(file.path.as_str().into(), file_line(&file, cx)?))
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            let out: StdoutAccessLog = proto::any::unpack(any).map_err(malformed)?;
            let stdout_format =
                out.access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
            Ok(Sink::Lines("/dev/stdout".into(), log_format(stdout_format.as_ref(), cx).within("log_format")?))
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let out: StderrAccessLog = proto::any::unpack(any).map_err(malformed)?;
            let stderr_format =
                out.access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
            Ok(Sink::Lines("/dev/stderr".into(), log_format(stderr_format.as_ref(), cx).within("log_format")?))
        }
        "envoy.extensions.access_loggers.stats.v3.Config" => {
            let config: StatsConfig = proto::any::unpack(any).map_err(malformed)?;
            Ok(Sink::Stats(StatsLog::parse(&config, cx)?))
        }
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig" => {
            let config: HttpGrpcAccessLogConfig = proto::any::unpack(any).map_err(malformed)?;
            Ok(Sink::Grpc(Box::new(GrpcLog::http(&config, cx)?)))
        }
        "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig" => {
            let config: TcpGrpcAccessLogConfig = proto::any::unpack(any).map_err(malformed)?;
            Ok(Sink::Grpc(Box::new(GrpcLog::tcp(&config, cx)?)))
        }
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig" => {
            let config: OpenTelemetryAccessLogConfig = proto::any::unpack(any).map_err(malformed)?;
            Ok(Sink::Otlp(Box::new(OtlpLog::parse(&config, cx)?)))
        }
        _ => Err(Refusal::unsupported(format!("access log {name}"))),
    }
}

#[expect(deprecated, reason = "old files still write format and json_format")]
fn file_line(file: &FileAccessLog, cx: LogContext<'_>) -> Result<Line, Refusal> {
    match &file.access_log_format {
        None => log_format(None, cx),
        Some(AccessLogFormat::Format(text)) => Ok(Line::Text(text_format(text, cx).within("format")?)),
        Some(AccessLogFormat::JsonFormat(object) | AccessLogFormat::TypedJsonFormat(object)) => {
            json_line(object, false, cx).within("json_format")
        }
        Some(AccessLogFormat::LogFormat(format)) => log_format(Some(format), cx).within("log_format"),
    }
}

fn log_format(format: Option<&SubstitutionFormatString>, cx: LogContext<'_>) -> Result<Line, Refusal> {
    let Some(format) = format else { return Ok(Line::Text(text_format(ENVOY_TEXT, cx)?)) };
    for (index, formatter) in format.formatters.iter().enumerate() {
        let name = formatter.typed_config.as_ref().map_or("", |any| proto::any::type_name(&any.type_url));
        // these two are built in; their operators need no formatter here
        if !name.ends_with(".req_without_query.v3.ReqWithoutQuery") && !name.ends_with(".metadata.v3.Metadata") {
            return Err(Refusal::unsupported(format!("formatters[{index}]: {}", formatter.name)));
        }
    }
    match &format.format {
        #[expect(deprecated, reason = "old files still write text_format")]
        Some(substitution_format_string::Format::TextFormat(text)) => text_line(text, format, cx).within("text_format"),
        Some(substitution_format_string::Format::TextFormatSource(source)) => {
            use proto::envoy::core::data_source::Specifier;
            match &source.specifier {
                Some(Specifier::InlineString(text)) => {
                    text_line(text, format, cx).within("text_format_source.inline_string")
                }
                Some(Specifier::InlineBytes(bytes)) => {
                    text_line(&String::from_utf8_lossy(bytes), format, cx).within("text_format_source.inline_bytes")
                }
                _ => Err(Refusal::unsupported("text_format_source")),
            }
        }
        Some(substitution_format_string::Format::JsonFormat(object)) => {
            json_line(object, format.omit_empty_values, cx).within("json_format")
        }
        None => Err(Refusal::new("format", "one of text_format, text_format_source, json_format is needed")),
    }
}

fn text_line(text: &str, format: &SubstitutionFormatString, cx: LogContext<'_>) -> Result<Line, Refusal> {
    let parsed = text_format(text, cx)?;
    Ok(if format.omit_empty_values { Line::Omitting(parsed) } else { Line::Text(parsed) })
}

fn text_format(text: &str, cx: LogContext<'_>) -> Result<Format, Refusal> {
    Format::parse(text, cx.environment).map_err(|error| Refusal::new("", error.to_string()))
}

fn json_line(object: &Struct, omit_absent: bool, cx: LogContext<'_>) -> Result<Line, Refusal> {
    let format = JsonFormat::parse(&of_struct(object), omit_absent, cx.environment);
    format.map(Line::Json).map_err(|error| Refusal::new("", error.to_string()))
}

fn parse_filter(written: &AccessLogFilter, cx: LogContext<'_>) -> Result<LogFilter, Refusal> {
    let list = |filters: &[AccessLogFilter], field: &str| {
        let numbered = filters.iter().enumerate();
        numbered
            .map(|(index, filter)| parse_filter(filter, cx).within(&format!("{field}.filters[{index}]")))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(match &written.filter_specifier {
        Some(FilterSpecifier::StatusCodeFilter(filter)) => {
            LogFilter::Status(comparison(filter.comparison.as_ref(), cx).within("status_code_filter")?)
        }
        Some(FilterSpecifier::DurationFilter(filter)) => {
            LogFilter::Duration(comparison(filter.comparison.as_ref(), cx).within("duration_filter")?)
        }
        Some(FilterSpecifier::NotHealthCheckFilter(_)) => LogFilter::NotHealthCheck,
        Some(FilterSpecifier::RuntimeFilter(filter)) => share(filter, cx).within("runtime_filter")?,
        Some(FilterSpecifier::AndFilter(filter)) => LogFilter::All(list(&filter.filters, "and_filter")?),
        Some(FilterSpecifier::OrFilter(filter)) => LogFilter::Any(list(&filter.filters, "or_filter")?),
        Some(FilterSpecifier::HeaderFilter(filter)) => {
            let header = filter.header.as_ref().ok_or_else(|| Refusal::new("header_filter.header", "is missing"))?;
            LogFilter::Header(HeaderMatcher::parse(header).within("header_filter.header")?)
        }
        Some(FilterSpecifier::ResponseFlagFilter(filter)) => {
            flags(&filter.flags).within("response_flag_filter.flags")?
        }
        Some(FilterSpecifier::GrpcStatusFilter(filter)) => LogFilter::GrpcStatus {
            codes: filter.statuses.iter().filter_map(|code| u32::try_from(*code).ok()).collect(),
            exclude: filter.exclude,
        },
        Some(FilterSpecifier::LogTypeFilter(filter)) => LogFilter::Entries {
            entries: filter.types.iter().filter_map(|number| Entry::of_number(*number)).collect(),
            exclude: filter.exclude,
        },
        Some(FilterSpecifier::ExtensionFilter(filter)) => match &filter.config_type {
            Some(extension_filter::ConfigType::TypedConfig(any)) => {
                expression(any).within("extension_filter.typed_config")?
            }
            None => return Err(Refusal::new("extension_filter.typed_config", "is missing")),
        },
        Some(FilterSpecifier::TraceableFilter(_)) => return Err(Refusal::unsupported("traceable_filter")),
        Some(FilterSpecifier::MetadataFilter(_)) => return Err(Refusal::unsupported("metadata_filter")),
        None => return Err(Refusal::new("filter_specifier", "one filter is needed")),
    })
}

fn expression(any: &Any) -> Result<LogFilter, Refusal> {
    let filter: ExpressionFilter = proto::any::unpack(any)
        .map_err(|_| Refusal::unsupported(format!("log filter {}", proto::any::type_name(&any.type_url))))?;
    let parsed = Expression::parse(&filter.expression).map_err(|why| Refusal::new("expression", why))?;
    Ok(LogFilter::Expression(parsed))
}

fn comparison(written: Option<&ComparisonFilter>, cx: LogContext<'_>) -> Result<Comparison, Refusal> {
    let written = written.ok_or_else(|| Refusal::new("comparison", "is missing"))?;
    let relation = match Op::try_from(written.op) {
        Ok(Op::Eq) => Relation::Equal,
        Ok(Op::Ge) => Relation::AtLeast,
        Ok(Op::Le) => Relation::AtMost,
        Ok(Op::Ne) => Relation::NotEqual,
        Err(_) => return Err(Refusal::new("comparison.op", "one of EQ, GE, LE, NE")),
    };
    let value = written.value.as_ref().ok_or_else(|| Refusal::new("comparison.value", "is missing"))?;
    let value = match cx.runtime.get(&value.runtime_key) {
        Some(runtime) => runtime.max(0.0) as u64,
        None => u64::from(value.default_value),
    };
    Ok(Comparison { relation, value })
}

fn share(written: &proto::envoy::accesslog::RuntimeFilter, cx: LogContext<'_>) -> Result<LogFilter, Refusal> {
    let percent = written.percent_sampled.as_ref();
    let denominator = match percent.map(|percent| DenominatorType::try_from(percent.denominator)) {
        None | Some(Ok(DenominatorType::Hundred)) => 100,
        Some(Ok(DenominatorType::TenThousand)) => 10_000,
        Some(Ok(DenominatorType::Million)) => 1_000_000,
        Some(Err(_)) => {
            return Err(Refusal::new("percent_sampled.denominator", "one of HUNDRED, TEN_THOUSAND, MILLION"));
        }
    };
    let numerator = match cx.runtime.get(&written.runtime_key) {
        Some(value) => value.max(0.0) as u64,
        None => percent.map_or(0, |percent| u64::from(percent.numerator)),
    };
    Ok(LogFilter::Share { numerator, denominator })
}

fn flags(names: &[String]) -> Result<LogFilter, Refusal> {
    if names.is_empty() {
        return Ok(LogFilter::Flags(None));
    }
    let mut wanted = Flags::NONE;
    for name in names {
        wanted.insert(Flags::from_short(name).ok_or_else(|| Refusal::new("", format!("{name} is no response flag")))?);
    }
    Ok(LogFilter::Flags(Some(wanted)))
}

#[cfg(test)]
mod tests;
