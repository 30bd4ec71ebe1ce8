//! The bars of the certificate authority (C) and of the control plane's security (S): each is held by tests that name it
//! (`// bar: C1`), and the reference page lists them. `cargo test -p e2e --test bars -- --nocapture` prints the table.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

use std::collections::BTreeMap;

/// All that there are.
const BARS: [&str; 14] = ["C1", "C2", "C3", "C4", "C5", "C6", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"];
/// Where tests are looked for.
const COMPONENTS: [&str; 7] = ["proto", "citadel", "pilot", "mixer", "proxy", "meshctl", "e2e"];
/// The page with the table.
const PAGE: &str = "docs/src/reference/bars.md";

/// The tests of each bar, as `file: name`.
fn tests() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for component in COMPONENTS {
        for (path, text) in e2e::sources(component).unwrap() {
            let mut bars: Vec<String> = Vec::new();
            for line in text.lines().map(str::trim) {
                if let Some(list) = line.strip_prefix("// bar: ") {
                    bars.extend(list.split(',').map(|bar| bar.trim().to_owned()));
                } else if let Some(name) = line.split("fn ").nth(1).and_then(|rest| rest.split('(').next()) {
                    for bar in bars.drain(..) {
                        found.entry(bar).or_default().push(format!("{path}: {name}"));
                    }
                }
            }
            assert!(bars.is_empty(), "{path}: {bars:?} stand above no test");
        }
    }
    found
}

#[test]
fn every_bar_is_held_by_tests_and_the_page_names_them() {
    let (found, page) = (tests(), std::fs::read_to_string(e2e::root().join(PAGE)).unwrap());
    let unknown: Vec<&String> = found.keys().filter(|bar| !BARS.contains(&bar.as_str())).collect();
    assert!(unknown.is_empty(), "there are no bars {unknown:?}");
    for bar in BARS {
        let own = found.get(bar).unwrap_or_else(|| panic!("no test holds {bar}: mark it with // bar: {bar}"));
        println!("{bar}  {}", own.len());
        for test in own {
            println!("      {test}");
        }
        let row = page.lines().find(|line| line.starts_with(&format!("| {bar} |"))).unwrap_or_default();
        let row = row.split('|').nth(3).unwrap_or_default();
        let names = |test: &String| test.split(": ").nth(1).is_some_and(|name| row.contains(&format!("`{name}`")));
        let missing: Vec<&String> = own.iter().filter(|test| !names(test)).collect();
        assert!(missing.is_empty(), "{PAGE}, row {bar}, lacks {missing:?}");
        assert_eq!(row.matches('`').count() / 2, own.len(), "{PAGE}, row {bar}, names tests that are not there");
    }
    println!("{} bars, {} tests", BARS.len(), found.values().map(Vec::len).sum::<usize>());
}
