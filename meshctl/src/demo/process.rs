//! Processes of the demo: started in their namespace, tied to the life of their parent, and removed without a trace.

use crate::demo::netns::{self, Namespace};
use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Name for people, such as `reviews-v1 sidecar`.
    pub name: String,
    /// Where.
    pub namespace: Namespace,
    /// As whom; root where it is `None`.
    pub uid: Option<u32>,
    /// What.
    pub program: PathBuf,
    /// With which arguments.
    pub args: Vec<String>,
    /// With which variables beside those of this process.
    pub env: Vec<(String, String)>,
    /// Where its output goes.
    pub log: PathBuf,
}

impl Launch {
    /// The command: enter the namespace, change the user, die with the parent, become the program.
    fn command(&self) -> anyhow::Result<Command> {
        let log = |path: &Path| -> anyhow::Result<File> {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.namespace.name(), "setpriv", "--pdeathsig", "KILL"]);
        if let Some(uid) = self.uid {
            let uid = uid.to_string();
            command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups"]);
        }
        command.arg("--").arg(&self.program).args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(log(&self.log)?).stderr(log(&self.log)?);
        Ok(command)
    }

    /// Starts it. Must run on the main thread: the child dies with the thread that started it.
    ///
    /// # Errors
    /// Where the log cannot be written or the tools are missing.
    pub fn start(&self) -> anyhow::Result<Process> {
        let child = self.command()?.spawn().context("cannot run ip: install iproute2 and util-linux")?;
        Ok(Process { launch: self.clone(), child })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// Where it fails; the end of its log is part of the text.
    pub fn run(&self) -> anyhow::Result<()> {
        let status = self.command()?.status().context("cannot run ip: install iproute2 and util-linux")?;
        anyhow::ensure!(status.success(), "{} failed ({status}):\n{}", self.name, tail(&self.log));
        Ok(())
    }
}

/// A started process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: Child,
}

impl Process {
    /// Name for people.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        tail(&self.launch.log)
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        drop(self.child.kill()); // has ended already
        drop(self.child.wait());
    }

    /// Starts it again with the same command.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.child = self.launch.command()?.spawn()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log.
pub fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(12);
    format!("{}\n(log: {})", lines.get(from..).unwrap_or_default().join("\n"), path.display())
}

/// A second process that cleans up when this one ends, however it ends: it waits for the end of its standard input.
#[derive(Debug)]
pub struct Reaper {
    child: Child,
}

impl Reaper {
    /// Starts it for the demo of that name and directory. It shares `lock`, so that no successor starts before it is
    /// done.
    ///
    /// # Errors
    /// Where this program cannot be started again.
    pub fn start(name: &str, directory: &Path, lock: &File) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["reaper", "--name", name, "--directory"]).arg(directory);
        // A group of its own: Ctrl-C on the terminal must not reach it.
        command.process_group(0).stdin(Stdio::piped()).stdout(lock.try_clone()?).stderr(Stdio::null());
        Ok(Self { child: command.spawn()? })
    }

    /// Tells it to clean up, and waits until it has.
    ///
    /// # Errors
    /// Where it failed.
    pub fn finish(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "cleaning up failed ({status})");
        Ok(())
    }
}

/// What the reaper does: waits until its parent is gone, then removes everything.
///
/// # Errors
/// Where something cannot be removed.
pub fn reap(name: &str, directory: &Path) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    remove(name, directory)?;
    Ok(fs::remove_file(lock_file(directory))?)
}

/// Beside the directory: who has it locked has the name.
fn lock_file(directory: &Path) -> PathBuf {
    let mut path = directory.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// Locks the name of the demo that has this directory; none where somebody else has it.
///
/// # Errors
/// Where the file cannot be made.
pub fn take(directory: &Path) -> anyhow::Result<Option<File>> {
    let path = lock_file(directory);
    fs::create_dir_all(directory.parent().context("the demo's directory has no parent")?)?;
    loop {
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = opened.with_context(|| format!("cannot open {}", path.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        // A predecessor removes the file at its end: what was opened before that is nobody's.
        if fs::metadata(&path).is_ok_and(|found| lock.metadata().is_ok_and(|own| own.ino() == found.ino())) {
            return Ok(Some(lock));
        }
    }
}

/// Removes namespaces, the processes in them, and files of the demo called `name`.
///
/// # Errors
/// Where a process does not end or a file cannot be removed.
pub fn remove(name: &str, directory: &Path) -> anyhow::Result<()> {
    for namespace in netns::existing(&prefix(name))? {
        end_processes(&namespace)?;
        namespace.delete();
        remove_directory(&resolver_directory(&namespace))?;
    }
    drop(fs::remove_dir(RESOLVERS)); // stays where others have files in it
    remove_directory(directory)
}

/// What the names of all namespaces of a demo begin with.
pub fn prefix(name: &str) -> String {
    format!("fm-{name}-")
}

/// Where `ip netns exec` looks for files to lay over those of /etc.
const RESOLVERS: &str = "/etc/netns";

/// resolv.conf and hosts of one namespace.
pub fn resolver_directory(namespace: &Namespace) -> PathBuf {
    Path::new(RESOLVERS).join(namespace.name())
}

fn end_processes(namespace: &Namespace) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let processes = namespace.processes();
        if processes.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "processes {processes:?} in {} do not end", namespace.name());
        for process in processes {
            let pid = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // It may have ended meanwhile.
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_or(());
            }
        }
        std::thread::yield_now();
    }
}

fn remove_directory(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
