//! The demo without root: in a user namespace whose only user is the one who started it, called root inside.
//!
//! The commands of other terminals enter that namespace. Where it is, the lock file of the demo tells.

use anyhow::Context;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, mount};
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Firewall mark of what the proxies send: their user does not tell it, since there is one only.
pub const MARK: u32 = proto::wire::PROXY_UID;

/// Inside such a namespace: who its only user is outside.
fn inside() -> Option<u32> {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    match *map.split_whitespace().collect::<Vec<_>>() {
        ["0", outside, "1"] => outside.parse().ok(),
        _ => None,
    }
}

/// The id of the user who started the demo; none where it is root's.
pub fn user() -> Option<u32> {
    let own = rustix::process::geteuid();
    inside().or_else(|| (!own.is_root()).then(|| own.as_raw()))
}

/// Where demos of this user live.
pub fn base() -> PathBuf {
    user().map_or_else(|| "/run/ferromesh".into(), |user| format!("/tmp/ferromesh-{user}").into())
}

/// For an ordinary user: becomes this command again, inside a user namespace. Returns for root, and inside.
///
/// # Errors
/// Where the machine does not let ordinary users make one, or lacks a program.
pub fn become_root() -> anyhow::Result<()> {
    let Some(user) = user() else { return Ok(()) };
    if inside().is_some() {
        return furnish();
    }
    own_directory(&base(), user)?;
    let unshare = || {
        let mut command = Command::new("sh");
        // Debian has ip and iptables where ordinary users do not look.
        command.args(["-c", "PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin\" exec \"$@\"", "sh"]);
        command.args(["unshare", "--user", "--map-root-user", "--mount", "--"]);
        command
    };
    let probe =
        unshare().arg("true").stdin(Stdio::null()).output().context("cannot run unshare: install util-linux")?;
    anyhow::ensure!(
        probe.status.success(),
        "this machine does not let an ordinary user make a user namespace ({}), and without one the demo needs root: \
         run it with sudo, or allow them (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone or \
         kernel.apparmor_restrict_unprivileged_userns, whichever the machine has)",
        String::from_utf8_lossy(&probe.stderr).trim()
    );
    let mut command = unshare();
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    Err(command.exec()).context("cannot run unshare")
}

/// For an ordinary user outside: becomes this command again, inside the namespace of the demo called `name`.
///
/// # Errors
/// Where nsenter is missing. Where no such demo runs, it returns and the caller finds nothing.
pub fn enter(name: &str) -> anyhow::Result<()> {
    let Some(user) = user().filter(|_| inside().is_none()) else { return Ok(()) };
    let text = fs::read_to_string(base().join(format!("{name}.lock"))).unwrap_or_default();
    let Ok(pid) = text.trim().parse::<u32>() else { return Ok(()) };
    let own = fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == user);
    if !own {
        return Ok(());
    }
    let mut command = Command::new("nsenter");
    command.args(["--preserve-credentials", "--user", "--mount", "--target", &pid.to_string(), "--"]);
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    Err(command.exec()).context("cannot run nsenter: install util-linux")
}

/// A directory that nobody else can have prepared.
fn own_directory(path: &Path, user: u32) -> anyhow::Result<()> {
    drop(DirBuilder::new().mode(0o700).create(path)); // exists from last time
    let found = fs::symlink_metadata(path).with_context(|| format!("cannot make {}", path.display()))?;
    anyhow::ensure!(found.is_dir() && found.uid() == user, "{} belongs to somebody else: remove it", path.display());
    Ok(fs::set_permissions(path, Permissions::from_mode(0o700))?)
}

/// Room of our own for what `ip netns` and iptables write: an empty /run, and an /etc that can be changed.
fn furnish() -> anyhow::Result<()> {
    let run = || -> anyhow::Result<()> {
        let empty = |path: &str| mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755");
        empty("/run")?;
        for directory in ["/run/etc", "/run/etc/upper", "/run/etc/work"] {
            fs::create_dir(directory)?;
        }
        let layers = c"lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work";
        mount("overlay", "/etc", "overlay", MountFlags::empty(), layers)?;
        fs::create_dir_all("/etc/netns")?;
        empty("/etc/netns")?; // root's, where root has demos of its own
        // Where it is a link into what was /run, nothing could be laid over it.
        drop(fs::remove_file("/etc/resolv.conf"));
        rustix::fs::openat(CWD, "/etc/resolv.conf", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644))?;
        Ok(())
    };
    run().context("this machine does not let a user namespace have its own /run and /etc: run the demo with sudo")
}
