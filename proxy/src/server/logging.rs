//! Log levels of the process, changed while it runs (`/logging`).

use crate::bootstrap::{Flags, LogLevel, component_directives};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// Loggers by the names that Envoy's users know, and the modules behind them.
const LOGGERS: [(&str, &[&str]); 14] = [
    ("admin", &["proxy::server"]),
    ("client", &["proxy::pool"]),
    ("config", &["proxy::xds", "proxy::publish"]),
    ("connection", &["proxy::net", "proxy::listener"]),
    ("dns", &["proxy::dns"]),
    ("filter", &["proxy::filter"]),
    ("http", &["proxy::http"]),
    ("http2", &["proxy::codec"]),
    ("main", &["proxy::worker", "proxy::bootstrap"]),
    ("pool", &["proxy::pool"]),
    ("router", &["proxy::route"]),
    ("secret", &["proxy::tls"]),
    ("upstream", &["proxy::upstream", "proxy::cluster", "proxy::endpoint", "proxy::balancer"]),
    ("xds", &["proxy::xds"]),
];

/// The levels in force, and the way to change them.
#[derive(Clone)]
pub struct Logging {
    levels: Arc<watch::Sender<BTreeMap<&'static str, LogLevel>>>,
    reload: Option<reload::Handle<Targets, Registry>>,
}

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logging").field("levels", &*self.levels.borrow()).finish_non_exhaustive()
    }
}

/// The entries of a list `component:level` whose component is known here.
pub(super) fn known(list: &str) -> String {
    let named = |entry: &&str| {
        entry.split(':').next().is_some_and(|name| LOGGERS.iter().any(|(known, _)| *known == name.trim()))
    };
    list.split(',').filter(named).collect::<Vec<_>>().join(",")
}

impl Logging {
    /// Starts logging to standard error as the flags say.
    ///
    /// # Errors
    /// A component of `--component-log-level` that does not exist, or logging that was started before.
    pub fn start(flags: &Flags) -> Result<Self, String> {
        let levels = levels_of(flags)?;
        let (filter, handle) = reload::Layer::new(targets(&levels));
        let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(filter).with(format);
        subscriber.try_init().map_err(|error| error.to_string())?;
        Ok(Self { levels: Arc::new(watch::Sender::new(levels)), reload: Some(handle) })
    }

    /// Levels that nothing obeys, for a process whose logging was set up elsewhere.
    pub fn detached(flags: &Flags) -> Result<Self, String> {
        Ok(Self { levels: Arc::new(watch::Sender::new(levels_of(flags)?)), reload: None })
    }

    /// Sets all loggers.
    ///
    /// # Errors
    /// When logging has ended.
    pub fn set_all(&self, level: LogLevel) -> Result<(), String> {
        self.change(|levels| levels.values_mut().for_each(|found| *found = level))
    }

    /// Sets one logger.
    ///
    /// # Errors
    /// The name of a logger that does not exist.
    pub fn set(&self, name: &str, level: LogLevel) -> Result<(), String> {
        let Some((name, _)) = LOGGERS.iter().find(|(known, _)| *known == name) else {
            return Err(format!("unknown logger {name}: see /logging for those that exist"));
        };
        self.change(|levels| {
            levels.insert(name, level);
        })
    }

    /// `active loggers:` with the level of each.
    pub fn list(&self) -> String {
        let lines = self
            .levels
            .borrow()
            .iter()
            .map(|(name, level)| format!("  {name}: {}\n", level.name()))
            .collect::<String>();
        format!("active loggers:\n{lines}")
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<&'static str, LogLevel>)) -> Result<(), String> {
        self.levels.send_modify(change);
        let Some(reload) = &self.reload else { return Ok(()) };
        reload.reload(targets(&self.levels.borrow())).map_err(|error| error.to_string())
    }
}

fn levels_of(flags: &Flags) -> Result<BTreeMap<&'static str, LogLevel>, String> {
    let mut levels: BTreeMap<&'static str, LogLevel> =
        LOGGERS.iter().map(|(name, _)| (*name, flags.log_level)).collect();
    for (name, level) in flags.component_log_level.as_deref().map(component_directives).transpose()?.unwrap_or_default()
    {
        match levels.iter_mut().find(|(known, _)| **known == name) {
            Some((_, found)) => *found = level,
            // Envoy has loggers for parts that do not exist here; start scripts name them
            None => tracing::debug!(name, "--component-log-level names a logger that does not exist"),
        }
    }
    Ok(levels)
}

/// The lowest level that any logger of a module has; everything else logs from warnings on.
fn targets(levels: &BTreeMap<&'static str, LogLevel>) -> Targets {
    let mut by_module: BTreeMap<&str, LevelFilter> = BTreeMap::new();
    for (name, modules) in LOGGERS {
        let level =
            levels.get(name).copied().unwrap_or(LogLevel::Info).directive().parse().unwrap_or(LevelFilter::INFO);
        for module in modules {
            let found = by_module.entry(module).or_insert(level);
            *found = (*found).max(level);
        }
    }
    let main =
        levels.get("main").map_or(LevelFilter::INFO, |level| level.directive().parse().unwrap_or(LevelFilter::INFO));
    by_module.insert("proxy", main);
    Targets::new().with_default(LevelFilter::WARN.min(main)).with_targets(by_module)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::component_directives;
    use clap::Parser;
    use tracing::Level;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: Flags,
    }

    // spec: AD-6
    #[test]
    fn levels_change_by_logger_and_all_at_once() {
        let flags = Cli::try_parse_from(["proxy", "-l", "warning", "--component-log-level", "http:debug,lua:trace"])
            .unwrap()
            .flags;
        assert_eq!(component_directives("lua:trace").unwrap().len(), 1);
        let logging = Logging::detached(&flags).unwrap();
        assert!(logging.list().starts_with("active loggers:\n  admin: warning\n"), "{}", logging.list());
        assert!(logging.list().contains("  http: debug\n"));
        logging.set("pool", LogLevel::Trace).unwrap();
        let filter = targets(&logging.levels.borrow());
        assert!(filter.would_enable("proxy::pool::h1", &Level::TRACE));
        assert!(!filter.would_enable("proxy::xds", &Level::INFO) && filter.would_enable("proxy::xds", &Level::WARN));
        assert!(!filter.would_enable("hyper", &Level::INFO));
        logging.set_all(LogLevel::Error).unwrap();
        assert!(!targets(&logging.levels.borrow()).would_enable("proxy::pool", &Level::WARN));
        assert!(logging.set("lua", LogLevel::Info).unwrap_err().contains("unknown logger lua"));
    }
}
