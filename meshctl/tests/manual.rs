//! Completion and manual pages, read by a real shell and a real `man`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn meshctl(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_meshctl")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

// spec: CT-31
#[test]
fn bash_completes_commands_and_flags() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("meshctl.bash");
    std::fs::write(&script, meshctl(&["completion", "bash"]).stdout).unwrap();
    let complete = |words: &str| {
        let count = words.split(' ').count() - 1;
        let line = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={count}; _meshctl meshctl \"${{COMP_WORDS[{count}]}}\" \"\"; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["-c", &line]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(complete("meshctl proxy-s").contains("proxy-status"));
    assert!(complete("meshctl load --comp").contains("--compare"));
    for shell in ["zsh", "fish"] {
        assert!(String::from_utf8_lossy(&meshctl(&["completion", shell]).stdout).contains("proxy-config"), "{shell}");
    }
}

#[test]
fn every_command_has_a_page() {
    let directory = tempfile::tempdir().unwrap();
    meshctl(&["man", directory.path().to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    assert!(page("meshctl.1").contains("proxy\\-status"));
    assert!(page("meshctl-load.1").contains("Calls per second over all connections"));
    assert!(page("meshctl-proxy-config-route.1").starts_with(".ie"));
    assert!(!directory.path().join("meshctl-reaper.1").exists(), "hidden commands have none");
}
