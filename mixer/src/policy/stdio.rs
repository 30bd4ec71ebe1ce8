//! The adapter `stdio` (MX-71): instances of `logentry` and `metric` as lines on a stream or in a file.
//!
//! One task writes; lines are dropped, and counted, when it cannot keep up.

use super::instance::{Instance, Template, texts};
use crate::attribute::Value;
use crate::expression::eval::{Failure, Reader};
use crate::yaml::{Fault, Place};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// When a file is put aside, in MiB.
const MAX_MEGABYTES: u64 = 100;
/// How long files that were put aside are kept, in days.
const MAX_DAYS: u64 = 30;
/// How many of them are kept.
const MAX_FILES: usize = 1_000;
/// Lines that may wait.
const WAITING: usize = 4_096;

/// A configured adapter.
#[derive(Debug)]
pub struct Stdio {
    severities: BTreeMap<String, Level>,
    metric_level: Level,
    output_level: Level,
    as_json: bool,
    lines: mpsc::Sender<String>,
    dropped: AtomicU64,
}

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Info,
    Warning,
    Error,
}

/// Where lines go.
#[derive(Debug)]
enum Target {
    Stdout,
    Stderr,
    File(PathBuf, Option<Rotation>),
}

/// When a file is put aside, and what is kept.
#[derive(Debug, Clone, Copy)]
struct Rotation {
    bytes: u64,
    age: Duration,
    files: usize,
}

impl Stdio {
    /// Reads `params`; needs a runtime of tokio.
    ///
    /// # Errors
    /// An unknown field or a value out of range.
    pub fn parse(params: &Place<'_>) -> Result<Self, Fault> {
        let mut fields = params.fields()?;
        let stream = fields.text("logStream")?;
        let path = PathBuf::from(fields.text("outputPath")?);
        let number = |place: Option<Place<'_>>, default: u64| match place {
            None => Ok(default),
            Some(place) => u64::try_from(place.int()?).map_err(|_| place.fault("a number of 0 or more is asked for")),
        };
        let megabytes = number(fields.get("maxMegabytesBeforeRotation"), MAX_MEGABYTES)?;
        let days = number(fields.get("maxDaysBeforeRotation"), MAX_DAYS)?;
        let files = fields.get("maxRotatedFiles");
        let files = number(files, u64::try_from(MAX_FILES).unwrap_or(u64::MAX))?;
        let rotation = Rotation {
            bytes: megabytes.saturating_mul(1 << 20).max(1),
            age: Duration::from_secs(days.saturating_mul(86_400)),
            files: usize::try_from(files).unwrap_or(usize::MAX),
        };
        let target = match stream.as_str() {
            "" | "STDOUT" => Target::Stdout,
            "STDERR" => Target::Stderr,
            "FILE" | "ROTATED_FILE" if path.as_os_str().is_empty() => {
                return Err(params.fault("outputPath is missing"));
            }
            "FILE" => Target::File(path, None),
            "ROTATED_FILE" => Target::File(path, Some(rotation)),
            other => return Err(params.fault(format!("unknown logStream {other}: STDOUT, STDERR, FILE, ROTATED_FILE"))),
        };
        let mut severities = BTreeMap::new();
        if let Some(place) = fields.get("severityLevels") {
            for (name, place) in place.entries()? {
                severities.insert(name.to_owned(), level(Some(&place))?);
            }
        }
        let metric_level = level(fields.get("metricLevel").as_ref())?;
        let output_level = level(fields.get("outputLevel").as_ref())?;
        let as_json = fields.get("outputAsJson").map_or(Ok(true), |place| place.bool())?;
        fields.done()?;
        let (lines, received) = mpsc::channel(WAITING);
        tokio::spawn(write(target, received));
        Ok(Self { severities, metric_level, output_level, as_json, lines, dropped: AtomicU64::new(0) })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Where an expression has no value.
    pub fn report<'a>(&self, instance: &'a Instance, reader: &mut Reader<'a, '_>) -> Result<(), Failure> {
        let mut time = jiff::Timestamp::now();
        let (level, variables) = match &instance.template {
            Template::LogEntry { variables, timestamp, severity } => {
                if let Some(Value::Time(at)) = timestamp.as_ref().map(|one| one.eval(reader)).transpose()? {
                    time = at;
                }
                let severity = severity.as_ref().map(|one| one.eval(reader)).transpose()?;
                let known = severity.as_ref().and_then(Value::as_text).and_then(|name| self.severities.get(name));
                (known.copied().unwrap_or(Level::Info), texts(variables, reader)?)
            }
            Template::Metric { value, dimensions } => {
                let mut all = texts(dimensions, reader)?;
                all.push(("value", value.eval(reader)?.to_string().into()));
                (self.metric_level, all)
            }
            _ => return Ok(()),
        };
        if level < self.output_level {
            return Ok(());
        }
        let name = format!("{}.{}.{}", instance.name, instance.template.name(), instance.namespace);
        let level = match level {
            Level::Info => "info",
            Level::Warning => "warn",
            Level::Error => "error",
        };
        let line = if self.as_json {
            let mut line = json!({"level": level, "time": time.to_string(), "instance": name});
            if let Some(fields) = line.as_object_mut() {
                fields.extend(variables.into_iter().map(|(key, value)| (key.to_owned(), value.into_owned().into())));
            }
            format!("{line}\n")
        } else {
            // A line of text stays one line whatever a client sends.
            let pairs: Vec<String> = variables.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
            format!("{time}\t{level}\t{name}\t{}\n", pairs.join("\t"))
        };
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lines that were dropped because the writer could not keep up.
    pub fn last_error(&self) -> Option<String> {
        let dropped = self.dropped.load(Ordering::Relaxed);
        (dropped > 0).then(|| format!("{dropped} lines dropped"))
    }
}

fn level(place: Option<&Place<'_>>) -> Result<Level, Fault> {
    let Some(place) = place else { return Ok(Level::Info) };
    match place.text()?.as_str() {
        "" | "INFO" | "0" => Ok(Level::Info),
        "WARNING" | "1" => Ok(Level::Warning),
        "ERROR" | "2" => Ok(Level::Error),
        other => Err(place.fault(format!("unknown level {other}: INFO, WARNING or ERROR"))),
    }
}

async fn write(target: Target, mut lines: mpsc::Receiver<String>) {
    let written = match target {
        Target::Stdout => pour(tokio::io::stdout(), &mut lines).await,
        Target::Stderr => pour(tokio::io::stderr(), &mut lines).await,
        Target::File(path, rotation) => write_file(&path, rotation, &mut lines).await,
    };
    if let Err(error) = written {
        tracing::warn!("the stdio adapter has ended: {error}");
    }
}

async fn pour(mut to: impl AsyncWrite + Unpin, lines: &mut mpsc::Receiver<String>) -> std::io::Result<()> {
    while let Some(line) = lines.recv().await {
        to.write_all(line.as_bytes()).await?;
        to.flush().await?;
    }
    Ok(())
}

async fn write_file(
    path: &Path,
    rotation: Option<Rotation>,
    lines: &mut mpsc::Receiver<String>,
) -> std::io::Result<()> {
    let open = async || tokio::fs::OpenOptions::new().create(true).append(true).open(path).await;
    let mut file = open().await?;
    let mut size = file.metadata().await?.len();
    while let Some(line) = lines.recv().await {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if let Some(rotation) = rotation.filter(|rotation| size > 0 && size + length > rotation.bytes) {
            file.flush().await?;
            put_aside(path, rotation).await?;
            file = open().await?;
            size = 0;
        }
        file.write_all(line.as_bytes()).await?;
        file.flush().await?;
        size += length;
    }
    Ok(())
}

/// Renames a file to `NAME-TIME` and removes those that are too old or too many.
async fn put_aside(path: &Path, rotation: Rotation) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.9f").to_string();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    tokio::fs::rename(path, folder.join(format!("{name}-{time}"))).await?;
    let mut aside = Vec::new();
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_name().to_string_lossy().starts_with(&format!("{name}-")) {
            aside.push((entry.metadata().await?.modified()?, entry.path()));
        }
    }
    aside.sort();
    let surplus = aside.len().saturating_sub(rotation.files);
    for (index, (modified, path)) in aside.into_iter().enumerate() {
        let old =
            SystemTime::now().duration_since(modified).is_ok_and(|age| !rotation.age.is_zero() && age > rotation.age);
        if old || index < surplus {
            tokio::fs::remove_file(path).await?;
        }
    }
    Ok(())
}
