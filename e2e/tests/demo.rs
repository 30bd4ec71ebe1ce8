//! The demo's tour as a test: a whole mesh on this machine, judged by what the workloads saw.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

use std::process::Command;

/// Walks the tour; skips with a line where the machine cannot run a demo.
fn tour(data_plane: &str) {
    let ready =
        Command::new("sh").args(["-c", "test \"$(id -u)\" = 0 && command -v ip iptables-restore setpriv"]).output();
    if !ready.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: needs root, iproute2, iptables and setpriv");
        return;
    }
    // One mesh at a time: the tours measure times on a machine of few cores.
    let turn = std::fs::File::create(std::env::temp_dir().join("ferromesh-e2e-tour.lock")).unwrap();
    turn.lock().unwrap();
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
    drop(std::fs::remove_file(format!("/run/ferromesh/{name}.lock")));
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
