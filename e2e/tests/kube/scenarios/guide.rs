//! The guide "The first service" (docs/src/guides/first-service.md), as somebody who reads it would go through it.

use super::mesh::Mesh;
use e2e::cluster::PATIENCE;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Namespace that the guide makes and deletes.
const NAMESPACE: &str = "shop";

/// A block of code of the guide.
#[derive(Debug, PartialEq)]
enum Block {
    /// ```` ```sh ````: lines for a shell.
    Do(String),
    /// ```` ```console ````: `$ COMMAND`, and what it prints.
    See { command: String, lines: Vec<String> },
}

fn blocks(guide: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        let Some(kind @ ("sh" | "console")) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if kind == "sh" {
            blocks.push(Block::Do(body.join("\n")));
            continue;
        }
        for part in body.join("\n").split("$ ").filter(|part| !part.is_empty()) {
            let mut part = part.lines();
            let command = part.next().unwrap().to_owned();
            blocks.push(Block::See { command, lines: part.map(str::to_owned).collect() });
        }
    }
    blocks
}

/// A line without what differs from run to run: numbers, what Kubernetes adds to pods' names, and the widths of columns.
fn shape(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let (pod, rest) = word.split_at(word.find('.').unwrap_or(word.len()));
        let added = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
            lengths.contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric())
        };
        let stem = match *pod.rsplitn(3, '-').collect::<Vec<_>>() {
            [last, hash, stem] if added(last, 5..=5) && added(hash, 8..=10) => stem,
            _ => pod,
        };
        format!("{stem}{rest}").replace(|c: char| c.is_ascii_digit() || c == '.', "")
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Runs what the guide says, each block in a shell that has the cluster and our programs. Dropping it ends what the shells
/// left running.
struct Reader {
    head: String,
    kubeconfig: PathBuf,
    groups: Vec<u32>,
}

impl Reader {
    fn new() -> Self {
        let meshctl = e2e::program("meshctl").unwrap();
        let ours = meshctl.parent().unwrap().display();
        let head = format!("eval \"$(e2e/kube/cluster.sh env)\"; export PATH={ours}:$PATH\n");
        Self { head, kubeconfig: Mesh::get().cluster.kubeconfig().to_owned(), groups: Vec::new() }
    }

    /// What it printed, and whether it succeeded.
    fn run(&mut self, text: &str) -> (bool, String) {
        let mut shell = Command::new("bash");
        shell.args(["-ec", &format!("{}{text}", self.head)]).current_dir(e2e::root());
        shell.env("KUBECONFIG", &self.kubeconfig).process_group(0);
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = shell.spawn().unwrap();
        if text.lines().any(|line| line.ends_with('&')) {
            self.groups.push(child.id());
        }
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Runs a command until it prints every line.
    #[expect(clippy::disallowed_methods, reason = "nothing tells when a rule has reached a proxy")]
    fn see(&mut self, command: &str, lines: &[String]) {
        let begun = Instant::now();
        loop {
            let (_, said) = self.run(command);
            let shapes: Vec<String> = said.lines().map(shape).collect();
            let Some(missing) = lines.iter().find(|line| !shapes.contains(&shape(line))) else { return };
            assert!(begun.elapsed() < PATIENCE, "{command} does not print\n{missing}\nbut\n{said}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for group in &self.groups {
            let ended = Command::new("kill").args(["--", &format!("-{group}")]).stderr(Stdio::null()).status();
            drop(ended);
        }
    }
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn the_guide_to_the_first_service_does_what_it_says() {
    let guide = std::fs::read_to_string(e2e::root().join("docs/src/guides/first-service.md")).unwrap();
    let mut reader = Reader::new();
    let begun = Instant::now();
    let blocks = blocks(&guide);
    for block in &blocks {
        match block {
            Block::Do(text) => {
                let (done, said) = reader.run(text);
                assert!(done, "{text}\n{said}");
            }
            Block::See { command, lines } => reader.see(command, lines),
        }
    }
    println!("scenario {NAMESPACE}: {} blocks of the guide ({:.0} s)", blocks.len(), begun.elapsed().as_secs_f64());
}

#[test]
fn blocks_are_what_is_done_and_what_is_seen() {
    let guide = "A\n```sh\na\nb\n```\n```yaml\nx: 1\n```\n```console\n$ c d\ne\nf\n$ g\n```\n";
    let see = |command: &str, lines: &[&str]| Block::See {
        command: command.to_owned(),
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(blocks(guide), [Block::Do("a\nb".into()), see("c d", &["e", "f"]), see("g", &[])]);
    assert_eq!(shape("reviews-v2-7d6fbc4b44-mmr58  2/2   12s"), shape("reviews-v2-77c86f45f7-4gzzh 2/2 3s"));
    assert_eq!(shape("10.0.0.1:80 a-v1-5b5bd8c9-cdjsg.shop"), shape("10.1.0.12:80 a-v1-59fb766ff8-5rssb.shop"));
    assert_ne!(shape("istio-ingressgateway"), shape("istio-egressgateway"));
}
