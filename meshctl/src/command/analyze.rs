//! `meshctl analyze`: what is wrong with objects of a cluster, or of files before they are applied (CT-1).

use crate::analyze::{ANALYZERS, Code, Level, Message, analyze_with};
use crate::live;
use crate::offline::{self, Offline};
use crate::output::{self, Format, Table, paint};
use crate::reach::At;
use anyhow::Context;
use owo_colors::{OwoColorize as _, Style};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Exit code where an issue reaches the failure threshold, as istioctl's.
const CODE_ISSUES: u8 = 79;
/// Exit code where a file cannot be read, as istioctl's.
const CODE_INPUT: u8 = 65;
/// Exit code where there is nothing to look at, as istioctl's for wrong usage.
const CODE_USAGE: u8 = 64;

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
/// holds. Without files it is the cluster's objects that are looked at: of one namespace, or of all with -A. Exit code 79
/// where an issue reaches the failure threshold, 65 where a file cannot be read, 64 with --use-kube=false and no file, else 0.
/// An object silences codes for itself by the annotation galley.istio.io/analyze-suppress: IST0101,IST0118 or "*".
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
    /// Look at the cluster's objects, and at files as if they were applied; with =false at files alone.
    #[arg(short = 'k', long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_kube: Option<bool>,
    /// How long the cluster may take to show its objects.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    /// Issues of all namespaces, of a cluster.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Also what stands below directories.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Show the analyzers and what they find.
    #[arg(short = 'L', long)]
    list_analyzers: bool,
    /// Only what this analyzer finds. May be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = analyzer)]
    analyzer: Vec<String>,
    /// Say nothing of documents that are no objects.
    #[arg(long)]
    ignore_unknown: bool,
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
    /// Whether levels are coloured; without it they are on a terminal.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    color: Option<bool>,
}

fn duration(text: &str) -> Result<Duration, String> {
    proto::duration::parse(text).map_err(|error| error.to_string())
}

fn analyzer(text: &str) -> Result<String, String> {
    let known = ANALYZERS.iter().any(|(name, ..)| *name == text);
    known.then(|| text.to_owned()).ok_or_else(|| "there is no such analyzer: -L lists them".to_owned())
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
    if args.paths.is_empty() && args.use_kube == Some(false) {
        output::complain(&anyhow::anyhow!("with --use-kube=false files are needed"));
        return Ok(ExitCode::from(CODE_USAGE));
    }
    let texts = match texts(args) {
        Ok(texts) => texts,
        Err(error) => {
            output::complain(&error);
            return Ok(ExitCode::from(CODE_INPUT));
        }
    };
    let mut namespace = args.namespace.clone();
    let offline = if args.use_kube.unwrap_or(args.paths.is_empty()) {
        let cluster = args.at.cluster().await.context("files or a cluster are needed")?;
        if args.paths.is_empty() && !args.all_namespaces {
            namespace.get_or_insert_with(|| cluster.namespace().to_owned());
        }
        let shown = tokio::time::timeout(args.timeout, live::offline(&cluster, &texts)).await;
        shown
            .with_context(|| format!("the cluster has not shown its objects within {:?}: --timeout", args.timeout))??
    } else {
        Offline::of(&texts, offline::settings(args.mesh_config_file.as_deref())?)
    };
    let mut found = analyze_with(&offline, &args.analyzer);
    found.retain(|message| {
        let own = |namespace: &String| message.object.as_ref().is_none_or(|key| *key.namespace == **namespace);
        let unknown = message.object.is_none() && message.code == Code::SchemaValidationError;
        namespace.as_ref().is_none_or(own)
            && !(args.ignore_unknown && unknown)
            && !args.suppress.iter().any(|suppress| suppress.covers(message))
    });
    let failed = found.iter().any(|message| message.code.level() >= args.failure_threshold);
    found.retain(|message| message.code.level() >= args.output_threshold);
    show(args, &found)?;
    if found.is_empty() && args.output == Form::Log {
        let what = looked_at(args, namespace.as_deref());
        output::note(&format!("✔ No validation issues found when analyzing {what}."));
    }
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
        let level = match args.color {
            None => paint(&level, style),
            Some(true) => level.style(style).to_string(),
            Some(false) => level,
        };
        output::say(&format!("{level}{rest}"))?;
    }
    Ok(())
}

/// What was looked at, in istioctl's words: files by their names, else the namespace.
fn looked_at(args: &AnalyzeArgs, namespace: Option<&str>) -> String {
    match namespace {
        _ if !args.paths.is_empty() => {
            args.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        }
        Some(namespace) => format!("namespace: {namespace}"),
        None => "all namespaces".to_owned(),
    }
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

    // spec: CT-1
    #[tokio::test]
    async fn the_cluster_is_asked_where_that_is_said_or_no_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml").display().to_string();
        std::fs::write(&file, "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n").unwrap();
        // Where it is asked, that this kubeconfig is not there is an error.
        let ran = async |flags: &[&str]| {
            let all = ["x", "--kubeconfig", "/nowhere"].into_iter().chain(flags.iter().copied());
            run(&Flags::parse_from(all).analyze).await.map(|code| format!("{code:?}"))
        };
        let is = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(ran(&["--use-kube=false", &file]).await.unwrap(), is(0));
        assert_eq!(ran(&["-k=false", &file]).await.unwrap(), is(0));
        assert_eq!(ran(&[&file]).await.unwrap(), is(0));
        for asking in
            [&["--use-kube", &file][..], &["--use-kube=true", &file], &["-k", &file], &["--use-kube=true"], &[]]
        {
            assert!(ran(asking).await.unwrap_err().to_string().contains("cluster"), "{asking:?}");
        }
        assert_eq!(ran(&["--use-kube=false"]).await.unwrap(), is(CODE_USAGE));
    }

    // spec: CT-1
    #[tokio::test]
    async fn one_analyzer_can_be_chosen_and_documents_that_are_no_objects_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml").display().to_string();
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n{{ template }}\n";
        std::fs::write(&file, text).unwrap();
        let code = async |flags: &[&str]| {
            let all = ["x", &file, "--failure-threshold", "Info"].into_iter().chain(flags.iter().copied());
            format!("{:?}", run(&Flags::parse_from(all).analyze).await.unwrap())
        };
        let is = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(&["-S", "IST0102=*", "--color=false"]).await, is(CODE_ISSUES), "the template");
        assert_eq!(code(&["-S", "IST0102=*", "--ignore-unknown"]).await, is(0));
        assert_eq!(code(&["--ignore-unknown"]).await, is(CODE_ISSUES), "the namespace");
        let other = "service.PortNameAnalyzer,gateway.SecretAnalyzer";
        assert_eq!(code(&["--ignore-unknown", "--analyzer", other]).await, is(0));
        assert_eq!(code(&["--analyzer", "injection.Analyzer"]).await, is(CODE_ISSUES));
        let error = Flags::try_parse_from(["x", "--analyzer", "none"]).err().unwrap();
        assert!(error.to_string().contains("-L lists them"), "{error}");
    }

    // spec: CT-1
    #[test]
    fn what_was_looked_at_is_said_as_istioctl_says_it() {
        let what = |flags: &[&str], namespace| {
            looked_at(&Flags::parse_from(std::iter::once(&"x").chain(flags)).analyze, namespace)
        };
        assert_eq!(what(&[], Some("shop")), "namespace: shop", "that of the kubeconfig");
        assert_eq!(what(&["-A"], None), "all namespaces");
        assert_eq!(what(&["a.yaml", "b.yaml", "-n", "shop"], Some("shop")), "a.yaml, b.yaml");
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(like("Namespace *", "Namespace default") && like("*", "Pod a.b") && like("Pod *.b", "Pod a.b"));
        assert!(!like("Namespace a", "Namespace ab") && !like("Pod *.c", "Pod a.b"));
    }
}
