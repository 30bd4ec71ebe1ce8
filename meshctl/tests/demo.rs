//! The demo leaves nothing behind, however it ends.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

/// Programs that do nothing for a long time: the demo waits for its control plane while the test looks.
fn idle_programs(directory: &Path) {
    for name in ["citadel", "pilot", "mixer", "proxy", "bookshop"] {
        let path = directory.join(name);
        std::fs::write(&path, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

struct Demo {
    child: Child,
    name: String,
}

impl Demo {
    /// A demo that has started citadel and pilot, and waits for them; or `None` where the machine cannot run one.
    fn start(programs: &Path, name: &str) -> Option<Self> {
        let ready =
            output("sh", &["-c", "test \"$(id -u)\" = 0 && command -v ip iptables-restore setpriv && echo yes"]);
        if !ready.ends_with("yes\n") {
            println!("SKIPPED: needs root, iproute2, iptables and setpriv");
            return None;
        }
        idle_programs(programs);
        let name = format!("{name}{}", std::process::id());
        let child = Command::new(env!("CARGO_BIN_EXE_meshctl"))
            .args(["demo", "--name", &name, "--port", "0", "--programs"])
            .arg(programs)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let demo = Self { child, name };
        until("two processes run", || demo.processes().len() == 2);
        Some(demo)
    }

    fn processes(&self) -> Vec<String> {
        let pids = output("ip", &["netns", "pids", &format!("fm-{}-fabric", self.name)]);
        pids.split_whitespace().map(str::to_owned).collect()
    }

    fn namespaces(&self) -> usize {
        output("ip", &["netns", "list"]).matches(&format!("fm-{}-", self.name)).count()
    }

    fn gone(&self, processes: &[String]) {
        let running = || processes.iter().any(|pid| Path::new("/proc").join(pid).exists());
        until("all processes are gone", || !running());
        until("all namespaces are gone", || self.namespaces() == 0);
        until("all files are gone", || !Path::new("/run/ferromesh").join(&self.name).exists());
        assert!(!Path::new(&format!("/etc/netns/fm-{}-fabric", self.name)).exists());
        drop(std::fs::remove_file(format!("/run/ferromesh/{}.lock", self.name)));
    }
}

fn until(what: &str, level: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !level() {
        assert!(Instant::now() < deadline, "not after 20 s: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_parent_leaves_nothing_behind() {
    let programs = tempfile::tempdir().unwrap();
    let Some(mut demo) = Demo::start(programs.path(), "k") else { return };
    let processes = demo.processes();
    assert!(demo.namespaces() > 5);
    demo.child.kill().unwrap(); // SIGKILL
    demo.child.wait().unwrap();
    demo.gone(&processes);
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let programs = tempfile::tempdir().unwrap();
    let Some(mut demo) = Demo::start(programs.path(), "c") else { return };
    let processes = demo.processes();
    let pid = rustix::process::Pid::from_child(&demo.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(demo.child.wait().unwrap().success());
    assert_eq!(demo.namespaces(), 0, "it ends only when all is gone");
    demo.gone(&processes);
}

#[test]
fn a_second_demo_of_the_same_name_is_refused() {
    let programs = tempfile::tempdir().unwrap();
    let Some(mut demo) = Demo::start(programs.path(), "s") else { return };
    let second = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["demo", "--name", &demo.name, "--port", "0", "--programs"])
        .arg(programs.path())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("runs already"));
    assert_eq!(demo.processes().len(), 2, "the first one is untouched");
    let processes = demo.processes();
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    demo.gone(&processes);
}
