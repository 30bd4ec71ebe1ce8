//! Compiles our own protos to code, and Envoy's API to a descriptor set for JSON, both with `protox` (pure Rust: no
//! protoc on any machine). Envoy's `.proto` files are taken from the package `envoy-types` itself: nothing is vendored.

#![expect(clippy::disallowed_methods, reason = "a build script gets its input by the environment")]

use prost_types::{DescriptorProto, FileDescriptorProto};
use protox::file::{File, FileResolver, GoogleFileResolver};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Folders of the `envoy-types` package that imports are relative to.
const ROOTS: &[&str] = &[
    "data-plane-api",
    "xds",
    "googleapis",
    "protoc-gen-validate",
    "cel-spec/proto",
    "client_model",
    "opentelemetry-proto",
    "ratelimit",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=protos");
    println!("cargo:rerun-if-changed=build.rs");
    let ours = protox::compile(["protos/ca.proto"], ["protos"])?;
    tonic_prost_build::configure().compile_fds(ours)?;
    let set = descriptor_set()?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("envoy.descriptors"), set)?;
    Ok(())
}

/// All files of Envoy's API and `protos/missing`, resolved, as an encoded `FileDescriptorSet`.
fn descriptor_set() -> Result<Vec<u8>, Box<dyn Error>> {
    let package = envoy_types_package()?;
    let mut files = BTreeMap::new();
    for root in ROOTS {
        let root = package.join("proto").join(root);
        collect(&root, &root, &mut files)?;
    }
    let missing = Path::new("protos/missing");
    collect(missing, missing, &mut files)?;
    make_absolute(&mut files);
    let names: Vec<String> = files.keys().cloned().collect();
    let mut compiler = protox::Compiler::with_file_resolver(Parsed { files, google: GoogleFileResolver::new() });
    compiler.include_imports(true);
    for name in names {
        compiler.open_file(name)?;
    }
    Ok(compiler.encode_file_descriptor_set())
}

/// Where cargo unpacked `envoy-types`: asked of cargo itself, first without the network.
fn envoy_types_package() -> Result<PathBuf, Box<dyn Error>> {
    let cargo = env::var("CARGO")?;
    let manifest = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let target = env::var("TARGET")?;
    let mut failure = String::new();
    for network in [&["--offline"][..], &[][..]] {
        let output = Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--filter-platform", &target, "--manifest-path"])
            .arg(&manifest)
            .args(network)
            .output()?;
        if !output.status.success() {
            failure = String::from_utf8_lossy(&output.stderr).into_owned();
            continue;
        }
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
        let found = packages.iter().find(|package| package["name"] == "envoy-types");
        let manifest = found.and_then(|package| package["manifest_path"].as_str());
        let folder = manifest.and_then(|path| Path::new(path).parent());
        return Ok(folder.ok_or("cargo metadata lists no package envoy-types")?.to_path_buf());
    }
    Err(format!("cargo metadata failed: {failure}").into())
}

/// Parses every `.proto` below `folder` under its name relative to `root`.
fn collect(
    root: &Path,
    folder: &Path,
    files: &mut BTreeMap<String, FileDescriptorProto>,
) -> Result<(), Box<dyn Error>> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            let name = path.strip_prefix(root)?.to_str().ok_or("file name is not UTF-8")?.to_owned();
            let file = File::from_source(&name, &fs::read_to_string(&path)?)?;
            files.insert(name, file.file_descriptor_proto().clone());
        }
    }
    Ok(())
}

/// Makes every relative type name absolute, by the innermost scope that really defines it. Without this, one pool of
/// all files resolves `config.core.v3.X` inside `envoy.extensions.…` to `envoy.extensions.config.…`, a package that
/// exists in another file; protoc never sees it because it looks at imported files only.
fn make_absolute(files: &mut BTreeMap<String, FileDescriptorProto>) {
    let mut defined = BTreeSet::new();
    for file in files.values() {
        let package = file.package().to_owned();
        for message in &file.message_type {
            define(&package, message, &mut defined);
        }
        defined.extend(file.enum_type.iter().map(|found| format!("{package}.{}", found.name())));
    }
    for file in files.values_mut() {
        let package = file.package().to_owned();
        for message in &mut file.message_type {
            resolve_message(&package, message, &defined);
        }
        for field in &mut file.extension {
            resolve(&package, &mut field.type_name, &defined);
        }
        for method in file.service.iter_mut().flat_map(|service| &mut service.method) {
            resolve(&package, &mut method.input_type, &defined);
            resolve(&package, &mut method.output_type, &defined);
        }
    }
}

fn define(scope: &str, message: &DescriptorProto, defined: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        define(&name, nested, defined);
    }
    defined.extend(message.enum_type.iter().map(|found| format!("{name}.{}", found.name())));
    defined.insert(name);
}

fn resolve_message(scope: &str, message: &mut DescriptorProto, defined: &BTreeSet<String>) {
    let scope = format!("{scope}.{}", message.name());
    for nested in &mut message.nested_type {
        resolve_message(&scope, nested, defined);
    }
    for field in &mut message.field {
        resolve(&scope, &mut field.type_name, defined);
    }
}

fn resolve(scope: &str, reference: &mut Option<String>, defined: &BTreeSet<String>) {
    let Some(name) = reference.as_ref().filter(|name| !name.starts_with('.')) else { return };
    let mut scope = Some(scope);
    while let Some(outer) = scope {
        let candidate = format!("{outer}.{name}");
        if defined.contains(&candidate) {
            *reference = Some(format!(".{candidate}"));
            return;
        }
        scope = outer.rsplit_once('.').map(|(outer, _)| outer);
    }
    if defined.contains(name) {
        *reference = Some(format!(".{name}"));
    }
}

/// The parsed files, and Google's own that every protobuf compiler brings along.
struct Parsed {
    files: BTreeMap<String, FileDescriptorProto>,
    google: GoogleFileResolver,
}

impl FileResolver for Parsed {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        path.to_str().map(str::to_owned)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.files.get(name) {
            Some(file) => Ok(File::from_file_descriptor_proto(file.clone())),
            None => self.google.open_file(name),
        }
    }
}
