//! Clusters for tests: real Kubernetes, made by the scripts of `e2e/kube`, gone when the test is.
//!
//! Two ways: kind, as users have it; and [`Bare`], a few processes in a network namespace, for tests that need an API
//! server alone, or one kubelet. Both need root; what is expensive is kept in `~/.cache/ferromesh/kube`.

use anyhow::Context;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long an answer of a cluster may take. Beside a compiler an API server has taken over 30 s to let a definition go.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How much of a cluster without kind there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bare {
    /// etcd and API server: 4 seconds. Nothing runs pods, and no controller acts.
    Api,
    /// With controllers, scheduler, kubelet and kube-proxy: 10 seconds.
    Node,
}

/// A running cluster. Dropping it removes it; so does the end of this process, however it ends.
#[derive(Debug)]
pub struct Cluster {
    /// Its name on this machine.
    pub name: String,
    script: PathBuf,
    kubeconfig: PathBuf,
    /// None where somebody else removes it.
    remover: Option<Child>,
}

impl Cluster {
    /// A cluster by kind, with `nodes` nodes of which one is the control plane. `CLUSTER_MODE` and `KIND_NODE_IMAGE` say
    /// which node image; without them it is what the machine has.
    ///
    /// # Errors
    /// What the scripts say.
    pub fn start(name: &str, nodes: usize) -> anyhow::Result<Self> {
        Self::up(name, "cluster.sh", &nodes.to_string())
    }

    /// A cluster without kind.
    ///
    /// # Errors
    /// What the scripts say.
    pub fn bare(name: &str, what: Bare) -> anyhow::Result<Self> {
        Self::up(name, "bare.sh", if what == Bare::Api { "api" } else { "node" })
    }

    /// A cluster by kind that is there already, made by `e2e/kube/cluster.sh up`: for who writes tests. It stays.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn existing(name: &str) -> anyhow::Result<Self> {
        let script = crate::root().join("e2e/kube/cluster.sh");
        let kubeconfig = run(Command::new(&script).args(["kubeconfig", name]))?.trim().into();
        Ok(Self { name: name.to_owned(), script, kubeconfig, remover: None })
    }

    fn up(name: &str, script: &str, what: &str) -> anyhow::Result<Self> {
        let script = crate::root().join("e2e/kube").join(script);
        let name = format!("{name}-{}", std::process::id());
        let began = Instant::now();
        let remover = Some(remover(&script, &name)?);
        let mut cluster = Self { name, script, kubeconfig: PathBuf::new(), remover };
        let printed = run(Command::new(&cluster.script).arg("up").arg(&cluster.name).arg(what))?;
        cluster.kubeconfig = printed.lines().last().context("no path of a kubeconfig")?.into();
        let mut error = std::io::stderr();
        writeln!(error, "cluster {}: up in {:.1} s", cluster.name, began.elapsed().as_secs_f64())?;
        Ok(cluster)
    }

    /// Path of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl and returns what it prints.
    ///
    /// # Errors
    /// What it says on its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.command().args(arguments)).with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// Applies objects, YAML or JSON.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn apply(&self, objects: &str) -> anyhow::Result<()> {
        self.apply_by(&[], objects)
    }

    /// Applies objects that name no namespace into this one.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn apply_in(&self, namespace: &str, objects: &str) -> anyhow::Result<()> {
        self.apply_by(&["-n", namespace], objects)
    }

    fn apply_by(&self, flags: &[&str], objects: &str) -> anyhow::Result<()> {
        let mut child = self
            .command()
            .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("no input")?;
        let text = objects.to_owned();
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
        let output = child.wait_with_output()?;
        let written = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        success(&output).context("kubectl apply")?;
        written.context("kubectl apply took no more")
    }

    /// Waits until what kubectl prints is what is waited for.
    ///
    /// # Errors
    /// Where it does not come in time; the text is what was printed last.
    #[expect(clippy::disallowed_methods, reason = "a test waits for another process; nothing tells it when")]
    pub fn eventually(&self, arguments: &[&str], says: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let printed = self.kubectl(arguments);
            match printed {
                Ok(text) if says(&text) => return Ok(text),
                Ok(text) if Instant::now() > deadline => anyhow::bail!("kubectl {arguments:?} printed at last: {text}"),
                Err(error) if Instant::now() > deadline => return Err(error),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Brings images to the nodes: an archive as `docker save` makes it, or an OCI archive.
    ///
    /// # Errors
    /// What the scripts say.
    pub fn load(&self, archive: &Path) -> anyhow::Result<()> {
        run(Command::new(&self.script).arg("load").arg(&self.name).arg(archive)).map(drop)
    }

    /// Whether the cluster does what a mesh needs of it; the lines of the 19 checks (kind with our own node image).
    ///
    /// # Errors
    /// Where a check fails, with all lines.
    pub fn check(&self) -> anyhow::Result<String> {
        let output = Command::new(&self.script).arg("check").arg(&self.name).stdin(Stdio::null()).output()?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(output.status.success(), "{lines}{}", String::from_utf8_lossy(&output.stderr));
        Ok(lines)
    }

    /// Kills a program of a bare cluster, as `kube-apiserver`.
    ///
    /// # Errors
    /// What the scripts say.
    pub fn kill(&self, program: &str) -> anyhow::Result<()> {
        run(Command::new(&self.script).args(["stop", &self.name, program])).map(drop)
    }

    /// Starts a program that was killed, and waits until the API server answers.
    ///
    /// # Errors
    /// What the scripts say.
    pub fn revive(&self, program: &str) -> anyhow::Result<()> {
        run(Command::new(&self.script).args(["start", &self.name, program]))?;
        self.eventually(&["get", "--raw", "/readyz"], |_| true).map(drop)
    }

    /// kubectl as the administrator of this cluster, without arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.script);
        command.arg("kubectl").arg(&self.name);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of its input is what the remover waits for.
        if let Some(mut remover) = self.remover.take() {
            drop(remover.stdin.take());
            let _ended = remover.wait();
        }
    }
}

/// A process of its own that outlives this one, and removes the cluster when its input ends.
fn remover(script: &Path, name: &str) -> anyhow::Result<Child> {
    let mut command = Command::new("setsid");
    command
        .args(["--wait", "sh", "-c", "cat >/dev/null; exec \"$0\" down \"$1\" >/dev/null 2>&1"])
        .arg(script)
        .arg(name);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("setsid (Debian: util-linux)")
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    success(&output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn success(output: &Output) -> anyhow::Result<()> {
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
