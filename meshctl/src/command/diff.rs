//! `meshctl diff`: what a change does to each proxy, before it is applied (CT-61).

use crate::demo;
use crate::diff::change::Verb;
use crate::diff::{Change, changes};
use crate::offline::Offline;
use crate::output::{self, Format, Table, paint};
use anyhow::Context as _;
use owo_colors::Style;
use pilot::source::{Class, Problem};
use std::path::PathBuf;

/// Most lines of one resource's difference that are shown without --full.
const MOST_LINES: usize = 40;

/// `meshctl diff`.
///
/// What is in force is a directory: that of a demo, or the one that is given. To it the files are applied as kubectl
/// apply does, by kind, namespace and name, and pilot's own library says what every proxy would be told before and after.
/// Nothing is changed and nobody is asked. A change that pilot would refuse is an error.
///
/// Examples:
///   meshctl diff reviews-v3.yaml
///   meshctl diff new/ --config-dir ./mesh --names
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct DiffArgs {
    /// Files and directories with the objects as they would be.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Demo whose configuration is in force.
    #[arg(long, default_value = "demo", value_name = "NAME")]
    demo: String,
    /// Directory that is in force, instead of a demo's.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// File with the mesh's own settings, with --config-dir.
    #[arg(long, value_name = "FILE", requires = "config_dir")]
    mesh_config: Option<PathBuf>,
    /// Only proxies whose name contains this.
    #[arg(short, long)]
    proxy: Option<String>,
    /// Names of resources only.
    #[arg(long)]
    names: bool,
    /// All lines of every difference.
    #[arg(long)]
    full: bool,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Shows what would change.
///
/// # Errors
/// Where a file cannot be read, or pilot would refuse an object.
pub fn run(args: &DiffArgs) -> anyhow::Result<()> {
    let (directory, settings) = match &args.config_dir {
        Some(directory) => (directory.clone(), args.mesh_config.clone()),
        None => {
            let found = demo::configuration(&args.demo).context("or name a directory with --config-dir")?;
            (found.0, Some(found.1))
        }
    };
    let before = Offline::read(std::slice::from_ref(&directory), settings.as_deref())?;
    let mut paths = vec![directory];
    paths.extend(args.paths.iter().cloned());
    let after = Offline::read(&paths, settings.as_deref())?;
    refuse(&before, &after)?;
    let mut found = changes(&before, &after);
    if let Some(part) = &args.proxy {
        found.iter_mut().for_each(|change| change.proxies.retain(|proxy| proxy.contains(part.as_str())));
        found.retain(|change| !change.proxies.is_empty());
    }
    if args.output != Format::Table {
        return output::show(args.output, &Table::new(&[]), &serde_json::to_value(&found)?);
    }
    if found.is_empty() {
        output::note("nothing changes for any proxy");
    }
    found.iter().try_for_each(|change| show(args, change))
}

/// Fails where pilot refuses what it took before.
fn refuse(before: &Offline, after: &Offline) -> anyhow::Result<()> {
    let fresh = |problem: &&Problem| !before.problems.contains(problem);
    let (dangling, refused): (Vec<&Problem>, Vec<&Problem>) =
        after.problems.iter().filter(fresh).partition(|problem| problem.class == Class::DanglingReference);
    for problem in dangling {
        output::note(&format!("leads nowhere: {problem}"));
    }
    let text = refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
    anyhow::ensure!(refused.is_empty(), "pilot would refuse the change and keep what is in force:\n  {text}");
    Ok(())
}

fn show(args: &DiffArgs, change: &Change) -> anyhow::Result<()> {
    let sign = match change.verb {
        Verb::Added => paint("+", Style::new().green()),
        Verb::Changed => paint("~", Style::new().yellow()),
        Verb::Removed => paint("-", Style::new().red()),
    };
    let head = paint(&format!("{} {}", change.kind, change.resource), Style::new().bold());
    output::say(&format!("{sign} {head}"))?;
    output::say(&format!("    for {}", change.proxies.join(", ")))?;
    if args.names {
        return Ok(());
    }
    let most = if args.full { usize::MAX } else { MOST_LINES };
    for line in change.diff.iter().take(most) {
        let style = match line.chars().next() {
            Some('+') => Style::new().green(),
            Some('-') => Style::new().red(),
            _ => Style::new(),
        };
        output::say(&paint(&format!("    {line}"), style))?;
    }
    if change.diff.len() > most {
        output::say(&format!("    {} more lines: --full shows them", change.diff.len() - most))?;
    }
    Ok(())
}
