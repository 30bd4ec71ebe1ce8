//! The demo's tour as a test: a whole mesh on this machine, judged by what the workloads saw.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Whether the machine can run a demo; says so where it cannot.
fn ready() -> bool {
    let ready =
        Command::new("sh").args(["-c", "test \"$(id -u)\" = 0 && command -v ip iptables-restore setpriv"]).output();
    let ready = ready.is_ok_and(|output| output.status.success());
    if !ready {
        println!("SKIPPED: needs root, iproute2, iptables and setpriv");
    }
    ready
}

/// One mesh at a time: the tours measure times on a machine of few cores.
fn turn() -> File {
    let turn = File::create(std::env::temp_dir().join("ferromesh-e2e-tour.lock")).unwrap();
    turn.lock().unwrap();
    turn
}

/// Walks the tour.
fn tour(data_plane: &str) {
    if !ready() {
        return;
    }
    let _turn = turn();
    let name = format!("e2e{}", std::process::id());
    let output = Command::new(e2e::program("meshctl").unwrap())
        .args(["demo", "--tour", "--port", "0", "--name", &name, "--data-plane", data_plane])
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}\n{error}");
    assert!(output.status.success(), "{out}\n{error}");
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&namespaces.stdout).contains(&name), "the demo left namespaces behind");
    for left in [format!("/run/ferromesh/{name}.lock"), format!("/run/ferromesh/{name}")] {
        assert!(!fs::exists(&left).unwrap(), "{left} was left behind");
    }
}

#[test]
fn the_tour_is_as_expected_with_real_envoys() {
    tour("envoy");
}

#[test]
fn the_tour_is_as_expected_with_our_proxy() {
    tour("ferromesh");
}

#[test]
fn the_tour_is_as_expected_between_envoys_and_our_proxy() {
    tour("mixed");
}

/// Somebody who is nobody special.
const USER: &str = "12345";

/// A command of `program` as that user.
fn as_user(program: &std::path::Path, args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "TERM", "--"]);
    command.arg(program).args(args).env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

#[tokio::test]
async fn an_ordinary_user_has_the_same_mesh_and_reaches_it_from_another_terminal() {
    if !ready() {
        return;
    }
    let unshare = as_user("unshare".as_ref(), &["--user", "--map-root-user", "--mount", "true"]).output();
    if !unshare.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: this machine lets no ordinary user make a user namespace");
        return;
    }
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    for name in ["meshctl", "proxy", "pilot", "citadel", "mixer", "bookshop"] {
        fs::copy(e2e::program(name).unwrap(), directory.path().join(name)).unwrap();
    }
    let meshctl = directory.path().join("meshctl");
    let text = |output: &Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let steps = ["--only", "page", "--only", "strict", "--only", "deny by identity", "--only", "nothing refused"];
    let args = [&["demo", "--name", "user", "--tour", "--port", "0"], &steps[..]].concat();
    let walked = as_user(&meshctl, &args).output().unwrap();
    println!("{}", text(&walked));
    assert!(walked.status.success());

    let log = File::create(directory.path().join("log")).unwrap();
    let mut demo = as_user(&meshctl, &["demo", "--name", "user", "--port", "0", "--page-port", "0"]);
    let mut demo = demo.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        let status = as_user(&meshctl, &["proxy-status", "--demo", "user"]).output().unwrap();
        if text(&status).matches(".default").count() >= 7 || begun.elapsed() > Duration::from_secs(30) {
            break text(&status);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    println!("{status}");
    let config = as_user(&meshctl, &["proxy-config", "cluster", "reviews-v1", "--demo", "user"]).output().unwrap();
    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = demo.wait().unwrap();
    println!("{}", fs::read_to_string(directory.path().join("log")).unwrap());
    assert!(ended.success() && status.contains("productpage-v1-0.default"), "{status}");
    assert!(text(&config).contains(" inbound "), "{}", text(&config));
    let left = format!("/tmp/ferromesh-{USER}");
    assert!(!fs::exists(format!("{left}/user")).unwrap(), "the demo left files behind");
    let processes = Command::new("pgrep").args(["-u", USER]).output().unwrap();
    assert!(processes.stdout.is_empty(), "left running: {}", text(&processes));
    fs::remove_dir_all(left).unwrap();
}
