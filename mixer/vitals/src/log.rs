//! Set-up of the log.

use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// The level of the log, to be changed while the process runs.
#[derive(Clone)]
pub struct Level {
    handle: reload::Handle<EnvFilter, Registry>,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Sets up the log of this process; `level` is a filter like `info` or `pilot=debug,info`. Istio's form
/// `scope:level` is taken too; lines go to standard error.
///
/// # Errors
/// When the filter is malformed or a log is set up already.
pub fn init(format: Format, level: &str) -> anyhow::Result<Level> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        Format::Text => registry.with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init(),
        Format::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init(),
    }
    .context("the log is set up already")?;
    Ok(Level { handle })
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let directives: Vec<String> = level
        .split(',')
        .map(|part| part.trim().replacen(':', "=", 1))
        .map(|part| part.strip_prefix("default=").map(str::to_owned).unwrap_or_else(|| part.clone()))
        .collect();
    EnvFilter::try_new(directives.join(",")).with_context(|| format!("log level {level:?}"))
}

impl Level {
    /// Changes the level.
    ///
    /// # Errors
    /// When the filter is malformed.
    pub fn set(&self, level: &str) -> anyhow::Result<()> {
        self.handle.reload(filter(level)?).context("change the log level")
    }

    /// The level in force.
    pub fn current(&self) -> String {
        self.handle.with_current(ToString::to_string).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_form_of_levels_is_taken() {
        assert_eq!(filter("default:info,pilot:debug").unwrap().to_string(), "pilot=debug,info");
        assert!(filter("pilot=loud").is_err());
    }
}
