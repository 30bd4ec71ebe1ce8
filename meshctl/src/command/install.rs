//! `meshctl install`, `upgrade`, `manifest`, `prune` and `verify-install` (CT-9, CT-11, CT-12, CT-49).

use super::kube_inject;
use crate::install::cluster::{self, Cluster, Name};
use crate::install::platform::is_foreign;
use crate::install::{Component, Rendered, Spec, charts, render};
use crate::output;
use crate::reach::Where;
use anyhow::Context as _;
use serde_json::Value;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// What is wanted.
#[derive(Debug, Clone, clap::Args)]
pub struct Wanted {
    /// A field of the specification: PATH=VALUE, such as profile=demo or values.global.hub=example/mesh. May be repeated.
    #[arg(long, short = 's', value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// A file of kind IstioOperator; - is standard input. May be repeated: the later one wins.
    #[arg(long, short = 'f', value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Name of a pilot that runs beside others; the same as --set revision=NAME.
    #[arg(long, short = 'r', value_name = "NAME")]
    revision: Option<String>,
}

impl Wanted {
    fn spec(&self) -> anyhow::Result<Spec> {
        self.of(&cluster::read_files(&self.filename)?)
    }

    /// The same of files that are read already, laid over what was asked for before.
    fn over(&self, before: Option<String>, files: Vec<String>) -> anyhow::Result<Spec> {
        let is_installed = before.is_some();
        let spec = self.of(&before.into_iter().chain(files).collect::<Vec<_>>());
        if !is_installed {
            return spec;
        }
        spec.context("what was asked for at the installation (ConfigMap istio-install, or istio-install-REVISION) holds on; --set FIELD=null drops a field of it")
    }

    /// The same, of files that are read already.
    fn of(&self, files: &[String]) -> anyhow::Result<Spec> {
        let revision = self.revision.iter().map(|revision| format!("revision={revision}"));
        Spec::new(files, &self.set.iter().cloned().chain(revision).collect::<Vec<_>>())
    }
}

/// `meshctl install`.
#[derive(Debug, Clone, clap::Args)]
pub struct InstallArgs {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    at: Where,
    /// Ask nothing.
    #[arg(long, short = 'y', alias = "yes")]
    skip_confirmation: bool,
    /// Say what would be applied, and apply nothing.
    #[arg(long)]
    dry_run: bool,
    /// How a dry run says it.
    #[arg(long, short = 'o', value_enum, default_value_t, requires = "dry_run")]
    output: Form,
    /// How long a component may take to become ready.
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = duration)]
    readiness_timeout: Duration,
    /// Do not wait until the components are ready.
    #[arg(long)]
    no_wait: bool,
}

/// How a dry run says what would be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Form {
    /// A line for each object.
    #[default]
    Name,
    /// The objects, for kubectl apply --server-side -f -
    Yaml,
}

/// `meshctl upgrade`.
///
/// What was asked for at the installation holds on; files and --set are laid over it. The control plane is replaced in place,
/// component by component; proxies keep what they have meanwhile, and change when their pods are restarted. To try a version
/// on some workloads first: meshctl install --revision NAME, then meshctl tag.
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct UpgradeArgs {
    #[command(flatten)]
    install: InstallArgs,
    /// Also to an older version than the one that is installed.
    #[arg(long)]
    force: bool,
}

/// `meshctl manifest`.
#[derive(Debug, Clone, clap::Args)]
pub struct ManifestArgs {
    #[command(subcommand)]
    command: ManifestCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum ManifestCommand {
    /// Write the objects as YAML, for kubectl apply --server-side -f -
    Generate(GenerateArgs),
    /// Write Helm charts: base, istiod, gateway, cni.
    Charts {
        /// Directory that they are written to.
        directory: PathBuf,
    },
}

/// `meshctl manifest generate`.
#[derive(Debug, Clone, clap::Args)]
struct GenerateArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Only this component: base (namespace and definitions), cni, citadel, pilot, mixer, gateways. May be repeated.
    #[arg(long, value_name = "NAME", value_parser = component)]
    component: Vec<Component>,
    /// Write a file for each component into this directory, such as citadel.yaml, and their paths on standard output.
    #[arg(long, short = 'o', value_name = "DIR")]
    output: Option<PathBuf>,
}

fn component(text: &str) -> Result<Component, String> {
    let found = Component::ALL.into_iter().find(|one| one.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("there are: {}", Component::ALL.map(|one| one.name().to_lowercase()).join(", ")))
}

/// `meshctl prune`.
///
/// Writes what is installed and wanted no longer, as YAML for kubectl delete -f -. install and upgrade delete it by themselves;
/// this is for whoever applies by other means what manifest generate or a dry run has written. What was asked for at the
/// installation holds on; files and --set are laid over it.
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct PruneArgs {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    at: Where,
}

/// `meshctl verify-install`.
///
/// A file may hold what is wanted (kind IstioOperator), or the objects themselves, as manifest generate writes them.
#[derive(Debug, Clone, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    at: Where,
}

fn duration(text: &str) -> Result<Duration, String> {
    proto::duration::parse(text).map_err(|error| error.to_string())
}

/// Applies the objects, component by component, and waits for each.
///
/// # Errors
/// What cannot be, or what holds a component up.
pub async fn install(args: InstallArgs) -> anyhow::Result<ExitCode> {
    let spec = args.wanted.spec()?;
    if args.dry_run {
        show(&render(&spec)?, args.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    bring(args, spec).await
}

/// What a dry run says.
fn show(parts: &[Rendered], form: Form) -> anyhow::Result<()> {
    match form {
        Form::Name => names(parts).iter().try_for_each(|name| output::say(&format!("would apply {name}"))),
        Form::Yaml => documents(parts.iter().flat_map(|part| &part.objects)),
    }
}

/// Writes documents of YAML.
fn documents<'a>(objects: impl Iterator<Item = &'a Value>) -> anyhow::Result<()> {
    for object in objects {
        output::say(&document(object)?)?;
    }
    Ok(())
}

fn document(object: &Value) -> anyhow::Result<String> {
    Ok(format!("{}\n---", serde_saphyr::to_string(object).context("YAML")?.trim_end()))
}

/// What a specification becomes in a cluster: without what is not served there, and without definitions that others keep.
///
/// # Errors
/// What cannot be beside it, with the way out.
async fn fitted(cluster: &Cluster, spec: &Spec) -> anyhow::Result<Vec<Rendered>> {
    let platform = cluster.platform().await?;
    let conflicts: Vec<String> = platform.conflicts(spec).iter().map(ToString::to_string).collect();
    anyhow::ensure!(conflicts.is_empty(), "{}", conflicts.join("\n"));
    for warning in platform.warnings() {
        output::note(&format!("  ‼ {warning}"));
    }
    let mut parts = render(spec)?;
    for part in &mut parts {
        part.objects.retain(|object| !is_foreign(&platform, object));
    }
    let all: Vec<&Value> = parts.iter().flat_map(|part| &part.objects).collect();
    if let Some((name, other)) = cluster.of_other_meshes(&all).await?.first() {
        anyhow::bail!(
            "{name} belongs to the mesh in the namespace {other}; what to do: give this mesh another revision or another namespace (--set revision=NAME, --set namespace=NAMESPACE)"
        );
    }
    if platform.operators.is_empty() {
        return Ok(parts);
    }
    let kept = cluster.kept_by_others(&all).await?;
    for (name, keeper) in &kept {
        anyhow::ensure!(
            name.kind == "CustomResourceDefinition",
            "{name} belongs to {keeper}; what to do: give this mesh a revision and a namespace of its own (--set revision=NAME --set namespace=NAMESPACE), or take the other away"
        );
        output::note(&format!("  {name} is kept by {keeper}: left as it is"));
    }
    for part in &mut parts {
        part.objects.retain(|object| !kept.iter().any(|(name, _)| *name == Name::of(object)));
    }
    Ok(parts)
}

/// Brings what is installed to this version (CT-11).
///
/// # Errors
/// Where nothing is installed, or what is is newer.
pub async fn upgrade(args: UpgradeArgs) -> anyhow::Result<ExitCode> {
    let UpgradeArgs { install, force } = args;
    let own = env!("CARGO_PKG_VERSION");
    let files = cluster::read_files(&install.wanted.filename)?;
    let first = install.wanted.of(&files)?;
    let cluster = Cluster::connect(&install.at).await?;
    let (namespace, revision) = (first.namespace(), first.revision_label());
    let pilots = cluster.pilots(&namespace).await?;
    let Some(version) = pilots.get(&revision) else {
        let known: Vec<&String> = pilots.keys().collect();
        anyhow::bail!(
            "no revision {revision:?} is installed in {namespace}, but {known:?}: meshctl install brings one"
        );
    };
    anyhow::ensure!(
        force || numbers(version) <= numbers(own),
        "{version} is installed, which is newer than this meshctl ({own}): use that version's meshctl, or --force"
    );
    let spec = install.wanted.over(cluster.written(&namespace, &revision).await?, files)?;
    output::note(&format!("{revision}: {version} → {own}"));
    if install.dry_run {
        let spec = beside(&cluster, spec).await?;
        let parts = fitted(&cluster, &spec).await?;
        show(&parts, install.output)?;
        for name in cluster.superfluous(&names(&parts), &spec.revision_label(), &spec.namespace()).await? {
            output::note(&format!("would delete {name}"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let old = cluster.proxies(Some(&revision)).await?;
    let code = bring(install, spec).await?;
    if code == ExitCode::SUCCESS && !old.is_empty() {
        output::say(&format!(
            "{} pods have a proxy that stays as it is until they are restarted, such as {}: kubectl rollout restart deployment -n NAMESPACE",
            old.len(),
            old.first().map_or("", String::as_str)
        ))?;
    }
    Ok(code)
}

/// The numbers of a version.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).take(3).collect()
}

/// The specification beside the revisions that run.
///
/// # Errors
/// Where it would change for all what it shares with the default one.
async fn beside(cluster: &Cluster, spec: Spec) -> anyhow::Result<Spec> {
    if !spec.revision().is_empty()
        && let Some(written) = cluster.written(&spec.namespace(), "default").await?
    {
        let default = Spec::stored(&written).context("ConfigMap istio-install")?;
        let odds = spec.at_odds(&default);
        anyhow::ensure!(odds.is_empty(), "{}", odds.join("\n"));
    }
    let others = cluster.pilots(&spec.namespace()).await?.into_keys().collect();
    Ok(spec.beside(others))
}

async fn bring(args: InstallArgs, spec: Spec) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::connect(&args.at).await?;
    let spec = beside(&cluster, spec).await?;
    let parts = fitted(&cluster, &spec).await?;
    let what: Vec<&str> = parts.iter().map(|part| part.component.name()).collect();
    let revision = spec.revision();
    let named = if revision.is_empty() { String::new() } else { format!(", with the revision {revision}") };
    let asked = format!(
        "This will install into the namespace {}{named}: {}. Proceed? (y/N)",
        spec.namespace(),
        what.join(", ")
    );
    if !args.skip_confirmation && !agreed(&asked)? {
        return Ok(ExitCode::FAILURE);
    }
    let began = Instant::now();
    for part in &parts {
        install_part(&cluster, part, &args).await.with_context(|| format!("✘ {}", part.component.name()))?;
    }
    for name in cluster.superfluous(&names(&parts), &spec.revision_label(), &spec.namespace()).await? {
        cluster.delete(&name).await?;
        output::say(&format!("  {name} is wanted no longer: deleted"))?;
    }
    output::say(&format!("✔ Installation complete in {:.1} s", began.elapsed().as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}

async fn install_part(cluster: &Cluster, part: &Rendered, args: &InstallArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    let deadline = began + args.readiness_timeout;
    let mut changed = 0;
    for (index, object) in part.objects.iter().enumerate() {
        output::progress(&format!("  {}: {} of {} objects", part.component.name(), index + 1, part.objects.len()));
        changed += usize::from(cluster.apply(object).await?);
    }
    if part.component == Component::Base || !args.no_wait {
        output::progress(&format!("  {}: waiting until it is ready", part.component.name()));
        cluster.ready(&part.objects, deadline).await?;
    }
    output::progress("");
    let (name, seconds) = (part.component.name(), began.elapsed().as_secs_f64());
    let what =
        if changed == 0 { "unchanged".to_owned() } else { format!("{changed} of {} objects", part.objects.len()) };
    output::say(&format!("✔ {name} installed ({what}, {seconds:.1} s)"))
}

/// Writes the objects as YAML.
///
/// # Errors
/// What cannot be.
pub fn manifest(args: &ManifestArgs) -> anyhow::Result<()> {
    let args = match &args.command {
        ManifestCommand::Generate(args) => args,
        ManifestCommand::Charts { directory } => return write_charts(directory),
    };
    let mut parts = render(&args.wanted.spec()?)?;
    parts.retain(|part| args.component.is_empty() || args.component.contains(&part.component));
    let Some(directory) = &args.output else { return show(&parts, Form::Yaml) };
    parts.iter().try_for_each(|part| write_part(directory, part))?;
    let gone = |one: &Component| args.component.is_empty() && !parts.iter().any(|part| part.component == *one);
    Component::ALL.into_iter().filter(gone).try_for_each(|component| remove_part(directory, component))
}

/// The file of a component.
fn file(directory: &Path, component: Component) -> PathBuf {
    directory.join(format!("{}.yaml", component.name().to_lowercase()))
}

/// Deletes what an earlier run has written of a component that is wanted no longer.
fn remove_part(directory: &Path, component: Component) -> anyhow::Result<()> {
    let path = file(directory, component);
    match std::fs::remove_file(&path) {
        Ok(()) => output::note(&format!("{} is wanted no longer: deleted", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    }
    Ok(())
}

/// Writes the objects of a component into a file of its name.
fn write_part(directory: &Path, part: &Rendered) -> anyhow::Result<()> {
    let documents = part.objects.iter().map(document).collect::<anyhow::Result<Vec<_>>>()?;
    write(&file(directory, part.component), &(documents.join("\n") + "\n"))
}

/// Writes a file, with the directories that it needs, and says its path.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).with_context(|| format!("{}", parent.display()))?;
    std::fs::write(path, text).with_context(|| format!("{}", path.display()))?;
    output::say(&format!("{}", path.display()))
}

/// Writes what is installed and wanted no longer.
///
/// # Errors
/// What the API server says.
pub async fn prune(args: PruneArgs) -> anyhow::Result<()> {
    let files = cluster::read_files(&args.wanted.filename)?;
    let first = args.wanted.of(&files)?;
    let cluster = Cluster::connect(&args.at).await?;
    let written = cluster.written(&first.namespace(), &first.revision_label()).await?;
    let spec = args.wanted.over(written, files)?;
    let gone = cluster.superfluous(&names(&render(&spec)?), &spec.revision_label(), &spec.namespace()).await?;
    documents(gone.iter().filter_map(Name::reference).collect::<Vec<_>>().iter())
}

fn write_charts(directory: &Path) -> anyhow::Result<()> {
    charts::charts()?.iter().try_for_each(|(name, text)| write(&directory.join(name), text))
}

/// Says of each object whether it is there, and of Deployments whether they are ready.
///
/// # Errors
/// What the API server says.
pub async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let files = cluster::read_files(&args.wanted.filename)?;
    let written = manifests(&files)?;
    let no_more = written.is_empty() || (args.wanted.set.is_empty() && args.wanted.revision.is_none());
    anyhow::ensure!(no_more, "--set and --revision change a specification, and -f holds the objects themselves");
    let cluster = Cluster::connect(&args.at).await?;
    let objects: Vec<Value> = match written.is_empty() {
        true => fitted(&cluster, &args.wanted.of(&files)?).await?.into_iter().flat_map(|part| part.objects).collect(),
        false => written,
    };
    let mut missing = 0;
    for object in &objects {
        let name = Name::of(object);
        let found = cluster.get(&name).await?;
        let problem = match &found {
            None => Some("it is not there: meshctl install brings it".to_owned()),
            Some(_) => cluster
                .ready(std::slice::from_ref(object), Instant::now())
                .await
                .err()
                .map(|error| format!("{error:#}")),
        };
        match problem {
            None => output::say(&format!("✔ {name}"))?,
            Some(why) => {
                missing += 1;
                output::say(&format!("✘ {name}: {why}"))?;
            }
        }
    }
    let count = objects.len();
    output::say(&format!("{} of {count} objects are as they should be", count - missing))?;
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The objects in files of objects; none where the files are specifications.
fn manifests(files: &[String]) -> anyhow::Result<Vec<Value>> {
    let documents = files.iter().flat_map(|text| kube_inject::documents(text));
    let mut objects = Vec::new();
    for document in documents {
        let object: Value = serde_saphyr::from_str(&document).context("-f")?;
        match object["kind"].as_str() {
            None | Some("IstioOperator") => return Ok(Vec::new()),
            Some(_) => objects.push(object),
        }
    }
    Ok(objects)
}

fn names(parts: &[Rendered]) -> Vec<Name> {
    parts.iter().flat_map(|part| &part.objects).map(Name::of).collect()
}

/// Asks; whoever has no terminal cannot agree.
pub(super) fn agreed(question: &str) -> anyhow::Result<bool> {
    output::show_now(&format!("{question} "))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    let agreed = matches!(answer.trim(), "y" | "Y" | "yes");
    if !agreed {
        let how = if std::io::stdin().is_terminal() { "" } else { ": -y agrees beforehand" };
        output::say(&format!("nothing is done{how}"))?;
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::fake::{Fake, refused};
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        manifest: ManifestArgs,
    }

    // spec: CT-12, CT-9
    #[test]
    fn a_component_has_a_file_of_its_own_which_can_be_verified() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("new");
        let flags = ["x", "generate", "--set", "profile=minimal", "-o", out.to_str().unwrap()];
        manifest(&Flags::parse_from(flags).manifest).unwrap();
        let mut found: Vec<PathBuf> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        assert_eq!(found, ["base.yaml", "citadel.yaml", "pilot.yaml"].map(|name| out.join(name)));
        let spec = Spec::new(&[], &["profile=minimal".to_owned()]).unwrap();
        let wanted: Vec<Value> = render(&spec).unwrap().into_iter().flat_map(|part| part.objects).collect();
        assert_eq!(manifests(&cluster::read_files(&found).unwrap()).unwrap(), wanted);
    }

    // spec: CT-12
    #[test]
    fn files_of_components_that_are_wanted_no_longer_go() {
        let directory = tempfile::tempdir().unwrap();
        let generate = |more: &[&str]| {
            let flags = ["x", "generate", "-o", directory.path().to_str().unwrap()];
            manifest(&Flags::parse_from(flags.iter().chain(more)).manifest).unwrap();
        };
        std::fs::write(directory.path().join("notes.yaml"), "").unwrap();
        generate(&[]);
        generate(&["--component", "base"]);
        assert!(directory.path().join("mixer.yaml").exists(), "one component says nothing of the others");
        generate(&["--set", "profile=minimal"]);
        for (name, there) in [("mixer", false), ("gateways", false), ("citadel", true), ("notes", true)] {
            assert_eq!(directory.path().join(format!("{name}.yaml")).exists(), there, "{name}");
        }
    }

    /// What an installation of the revision canary says, and whether it has changed something.
    async fn refused_by(answer: fn(&str) -> (u16, Value)) -> (String, bool) {
        #[derive(Parser)]
        struct Install {
            #[command(flatten)]
            args: InstallArgs,
        }
        let fake = Fake::new(answer).await;
        let args = Install::parse_from(["x", "-y", "--no-wait", "--revision", "canary"]).args;
        let refused = Box::pin(install(InstallArgs { at: fake.place("istio-system").at, ..args })).await.unwrap_err();
        (format!("{refused:#}"), fake.asked().iter().any(|line| !line.starts_with("GET ")))
    }

    // spec: IN-30, PI-54
    #[tokio::test]
    async fn a_revision_that_would_change_others_is_refused_before_anything_is_applied() {
        fn bare(line: &str) -> (u16, Value) {
            match line {
                "GET /apis" => (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
                line if line.contains("/deployments?") => (200, json!({"metadata": {}, "items": []})),
                _ => refused(404),
            }
        }
        let (text, changed) = refused_by(|line| {
            let found = line.contains("/configmaps/istio-install");
            let data = json!({"spec": "values: {global: {sds: {token: {aud: mesh}}}}"});
            if found { (200, json!({"metadata": {"name": "a"}, "data": data})) } else { bare(line) }
        })
        .await;
        assert!(text.starts_with("values.global.sds.token.aud is \"istio-ca\", and \"mesh\"") && !changed, "{text}");
        let (text, changed) = refused_by(|line| {
            let found = line.contains("/mutatingwebhookconfigurations/istio-sidecar-injector-canary");
            let labels = json!({"install.operator.istio.io/namespace": "canary"});
            if found { (200, json!({"metadata": {"name": "a", "labels": labels}})) } else { bare(line) }
        })
        .await;
        let expected =
            "MutatingWebhookConfiguration istio-sidecar-injector-canary belongs to the mesh in the namespace canary;";
        assert!(text.starts_with(expected) && text.contains("--set revision=NAME") && !changed, "{text}");
    }

    // spec: CT-11
    #[test]
    fn a_field_of_the_installation_that_there_is_no_longer_can_be_dropped() {
        let stored = || Some(json!({"values": {"global": {"hubb": "x", "hub": "kept"}}}).to_string());
        let wanted = |set: &[&str]| Wanted {
            set: set.iter().map(|set| (*set).to_owned()).collect(),
            filename: Vec::new(),
            revision: None,
        };
        let refused = format!("{:#}", wanted(&[]).over(stored(), Vec::new()).unwrap_err());
        assert!(
            refused.starts_with("what was asked for at the installation (ConfigMap istio-install")
                && refused.contains("--set FIELD=null drops")
                && refused.ends_with("values.global.hubb: there is no such field; did you mean hub?"),
            "{refused}"
        );
        let spec = wanted(&["values.global.hubb=null"]).over(stored(), Vec::new()).unwrap();
        assert_eq!(spec.text("values.global.hub"), "kept");
        let own = wanted(&["values.global.hubb=x"]).over(None, Vec::new()).unwrap_err().to_string();
        assert!(own.starts_with("values.global.hubb: "), "nothing was installed: {own}");
    }

    // spec: CT-9
    #[test]
    fn a_specification_is_no_object_to_verify() {
        for text in
            ["apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {profile: demo}\n", "profile: demo\n"]
        {
            assert!(manifests(&[text.to_owned()]).unwrap().is_empty(), "{text}");
        }
        assert!(manifests(&[]).unwrap().is_empty());
    }
}
