//! `meshctl validate`: whether the mesh would take objects of files, without asking anybody (CT-14).

use crate::offline::{self, Offline};
use crate::output;
use anyhow::Context as _;
use pilot::source::{Class, Problem};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `meshctl validate`.
///
/// Each object is read as pilot reads it: unknown fields, values of another type, and values that make no sense are errors.
/// What an object refers to may be elsewhere: it is not looked for. That, and what is accepted and still surprises, is found
/// by meshctl analyze. Exit code 1 where anything is refused, as istioctl's.
///
/// Examples:
///   meshctl validate -f reviews.yaml
///   meshctl validate -f ./mesh -f more.yaml
///   kubectl get virtualservices -o yaml | meshctl validate -f -
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ValidateArgs {
    /// Files, directories with all that stands below them, or - for standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR", required = true, value_delimiter = ',')]
    files: Vec<PathBuf>,
    /// File with the mesh's own settings.
    #[arg(long, alias = "meshConfigFile", value_name = "FILE")]
    mesh_config_file: Option<PathBuf>,
}

/// Validates.
///
/// # Errors
/// Where a file cannot be read, or standard output is closed.
pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let mut texts = Vec::new();
    for path in &args.files {
        if path == Path::new("-") {
            texts.push(("-".to_owned(), offline::standard_input()?));
            continue;
        }
        for file in offline::files(path, true)? {
            texts.push((file.display().to_string(), offline::read(&file)?));
        }
    }
    anyhow::ensure!(!texts.is_empty(), "no file is there: -f takes files and directories with .yaml, .yml or .json");
    let settings = offline::settings(args.mesh_config_file.as_deref()).context("--mesh-config-file")?;
    let offline = Offline::of(&texts, settings);
    let own = |one: &&Problem| !matches!(one.class, Class::DanglingReference | Class::Conflict);
    let problems: Vec<&Problem> = offline.problems.iter().filter(own).collect();
    for (file, _) in &texts {
        let wrong: Vec<_> = problems.iter().filter(|one| one.file.as_deref() == Some(file.as_str())).collect();
        if wrong.is_empty() {
            output::say(&format!("{file:?} is valid"))?;
        }
        wrong.iter().for_each(|problem| output::note(&format!("Error: {problem}")));
    }
    if !offline.unused.is_empty() {
        output::note(&format!("not looked at, for they are not the mesh's: {}", offline.unused.join(", ")));
    }
    match problems.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => anyhow::bail!("1 error: an object with an error is refused, and its last good version stays in force"),
        n => anyhow::bail!("{n} errors: an object with an error is refused, and its last good version stays in force"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        validate: ValidateArgs,
    }

    const GOOD: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n\
        spec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}\n";

    // spec: CT-14
    #[test]
    fn schema_and_meaning_are_validated_in_files_and_below_directories() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let code = |text: &str, files: &[&Path]| {
            std::fs::write(below.join("a.yaml"), text).unwrap();
            let files = files.iter().flat_map(|file| ["-f".to_owned(), file.display().to_string()]);
            run(&Flags::parse_from(std::iter::once("x".to_owned()).chain(files)).validate)
        };
        let all = [directory.path()];
        assert_eq!(format!("{:?}", code(GOOD, &all).unwrap()), format!("{:?}", ExitCode::SUCCESS));
        for (from, to) in
            [("http:", "htp:"), ("{host: a}", "{host: a}, weight: heavy"), ("route: [{", "timeout: never, route: [{")]
        {
            let error = code(&GOOD.replacen(from, to, 1), &all).unwrap_err().to_string();
            assert!(error.contains("last good version"), "{to}: {error}");
        }
        let two = format!("{GOOD}---\n{}", GOOD.replace("name: a", "name: b").replace("http:", "htp:"));
        let file = below.join("a.yaml");
        assert!(code(&two, &[&file]).is_err(), "one of two is enough");
        assert!(code(GOOD, &[Path::new("/nowhere.yaml")]).is_err());
        std::fs::remove_file(file).unwrap();
        let empty = ValidateArgs { files: vec![below], mesh_config_file: None };
        assert!(run(&empty).unwrap_err().to_string().contains("-f takes"), "nothing is not valid");
    }
}
