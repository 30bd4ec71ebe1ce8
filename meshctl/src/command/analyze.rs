//! `meshctl analyze`: what is wrong with objects of a cluster, or of files before they are applied (CT-1).

use crate::analyze::{ANALYZERS, Level, Message, analyze};
use crate::live;
use crate::offline::{self, Offline};
use crate::output::{self, Format, Table, paint};
use crate::reach::At;
use anyhow::Context;
use owo_colors::Style;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code where an issue reaches the failure threshold, as istioctl's.
const CODE_ISSUES: u8 = 79;
/// Exit code where a file cannot be read, as istioctl's.
const CODE_INPUT: u8 = 65;

/// How the result is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// A line per issue.
    #[default]
    Log,
    /// istioctl's JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

/// `meshctl analyze`.
///
/// Files are looked at together, as one mesh; nothing that runs is asked, unless --use-kube lays them over what a cluster
/// holds. Without files it is the cluster's objects that are looked at: of one namespace, or of all with -A. Exit code 79 where an issue reaches the failure
/// threshold, 65 where a file cannot be read, else 0. An object silences codes for itself by the annotation
/// galley.istio.io/analyze-suppress: IST0101,IST0118 or "*".
///
/// Examples:
///   meshctl analyze reviews.yaml services.yaml
///   meshctl analyze -R ./mesh --failure-threshold Warning
///   meshctl analyze ./mesh -S 'IST0102=Namespace default' -o json
///   meshctl analyze -A
///   meshctl analyze -n shop --use-kube reviews.yaml
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct AnalyzeArgs {
    /// Files, directories, or - for standard input; without any the cluster's objects.
    #[arg(value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    at: At,
    /// Look at the cluster's objects, and at files as if they were applied.
    #[arg(short = 'k', long)]
    use_kube: bool,
    /// Issues of all namespaces, of a cluster.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Also what stands below directories.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Show the analyzers and what they find.
    #[arg(short = 'L', long)]
    list_analyzers: bool,
    /// Leave out a code for an object: 'IST0102=Namespace default', with * for any part of the object.
    #[arg(short = 'S', long, value_name = "CODE=KIND NAME.NS", value_parser = suppress)]
    suppress: Vec<Suppress>,
    /// Level from which the exit code is 79.
    #[arg(long, default_value = "Error", ignore_case = true)]
    failure_threshold: Level,
    /// Lowest level that is shown.
    #[arg(long, default_value = "Info", ignore_case = true)]
    output_threshold: Level,
    /// Only issues of objects in this namespace; of a cluster that of the kubeconfig, where none is given.
    #[arg(short, long)]
    namespace: Option<String>,
    /// File with the mesh's own settings.
    #[arg(long, alias = "meshConfigFile", value_name = "FILE")]
    mesh_config_file: Option<PathBuf>,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// A code that is left out, and for which objects.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suppress {
    code: String,
    resource: String,
}

fn suppress(text: &str) -> Result<Suppress, String> {
    let (code, resource) = text.split_once('=').ok_or("write it as 'IST0102=Namespace default'")?;
    Ok(Suppress { code: code.trim().to_owned(), resource: resource.trim().to_owned() })
}

impl Suppress {
    fn covers(&self, message: &Message) -> bool {
        self.code == message.code.text() && like(&self.resource, &message.resource())
    }
}

/// Whether a text is like a pattern, in which `*` stands for anything.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
        last = Some(part);
    }
    rest.is_empty() || last.is_some_and(|part| text.ends_with(part))
}

/// Analyzes.
///
/// # Errors
/// Where the mesh's settings are wrong, the cluster does not answer, or standard output is closed.
pub async fn run(args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    if args.list_analyzers {
        ANALYZERS.iter().try_for_each(|(name, finds, _)| output::say(&format!("{name}:\n    {finds}")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let texts = match texts(args) {
        Ok(texts) => texts,
        Err(error) => {
            output::complain(&error);
            return Ok(ExitCode::from(CODE_INPUT));
        }
    };
    let mut namespace = args.namespace.clone();
    let offline = if args.paths.is_empty() || args.use_kube {
        let cluster = args.at.cluster().await.context("files or a cluster are needed")?;
        if args.paths.is_empty() && !args.all_namespaces {
            namespace.get_or_insert_with(|| cluster.namespace().to_owned());
        }
        live::offline(&cluster, &texts).await?
    } else {
        Offline::of(&texts, offline::settings(args.mesh_config_file.as_deref())?)
    };
    let mut found = analyze(&offline);
    found.retain(|message| {
        let own = |namespace: &String| message.object.as_ref().is_none_or(|key| *key.namespace == **namespace);
        namespace.as_ref().is_none_or(own) && !args.suppress.iter().any(|suppress| suppress.covers(message))
    });
    let failed = found.iter().any(|message| message.code.level() >= args.failure_threshold);
    found.retain(|message| message.code.level() >= args.output_threshold);
    show(args, &found)?;
    Ok(if failed { ExitCode::from(CODE_ISSUES) } else { ExitCode::SUCCESS })
}

fn show(args: &AnalyzeArgs, found: &[Message]) -> anyhow::Result<()> {
    let values = || Value::Array(found.iter().map(Message::json).collect());
    match args.output {
        Form::Json => return output::show(Format::Json, &Table::new(&[]), &values()),
        Form::Yaml => return output::show(Format::Yaml, &Table::new(&[]), &values()),
        Form::Log => {}
    }
    for message in found {
        let style = match message.code.level() {
            Level::Error => Style::new().red(),
            Level::Warning => Style::new().yellow(),
            Level::Info => Style::new(),
        };
        let text = message.to_string();
        let level = message.code.level().to_string();
        let rest = text.strip_prefix(&level).unwrap_or(&text);
        output::say(&format!("{}{rest}", paint(&level, style)))?;
    }
    if found.is_empty() {
        let names = args.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let what = match (&args.namespace, args.paths.is_empty()) {
            (_, false) => names,
            (Some(namespace), true) => format!("namespace: {namespace}"),
            (None, true) if args.all_namespaces => "all namespaces".to_owned(),
            (None, true) => "the namespace of the kubeconfig".to_owned(),
        };
        output::note(&format!("✔ No validation issues found when analyzing {what}."));
    }
    Ok(())
}

/// The text of each file, with the name under which it is shown.
fn texts(args: &AnalyzeArgs) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for path in &args.paths {
        if path == Path::new("-") {
            texts.push(("-".to_owned(), offline::standard_input()?));
            continue;
        }
        for file in offline::files(path, args.recursive)? {
            texts.push((file.display().to_string(), offline::read(&file)?));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        analyze: AnalyzeArgs,
    }

    // spec: CT-1
    #[tokio::test]
    async fn the_exit_code_tells_whether_the_threshold_is_reached() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        std::fs::write(&file, "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n").unwrap();
        let path = directory.path().display().to_string();
        let code = async |flags: &[&str]| {
            let flags = ["x", &path].into_iter().chain(flags.iter().copied());
            format!("{:?}", run(&Flags::parse_from(flags).analyze).await.unwrap())
        };
        let is = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(&[]).await, is(0));
        assert_eq!(code(&["--failure-threshold", "info", "--output-threshold", "Error"]).await, is(CODE_ISSUES));
        assert_eq!(code(&["--failure-threshold", "Info", "-S", "IST0102=Namespace *"]).await, is(0));
        assert_eq!(code(&["/nowhere.yaml"]).await, is(CODE_INPUT));
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(like("Namespace *", "Namespace default") && like("*", "Pod a.b") && like("Pod *.b", "Pod a.b"));
        assert!(!like("Namespace a", "Namespace ab") && !like("Pod *.c", "Pod a.b"));
    }
}
