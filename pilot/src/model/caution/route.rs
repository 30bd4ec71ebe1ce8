//! Rules of VirtualServices that no request reaches.

use super::{Caution, Surprise};
use proto::istio::virtual_service::HttpRoute;
use std::collections::BTreeMap;

/// Rules behind one without a match, and matches that an earlier rule has.
pub(super) fn of(routes: &[HttpRoute]) -> Vec<Caution> {
    let mut found = Vec::new();
    let (mut seen, mut open) = (BTreeMap::<String, String>::new(), false);
    for (i, route) in routes.iter().enumerate() {
        let (at, rule) = (format!("spec.http[{i}]"), named(&route.name, i));
        let mut unused = |reason: &str| {
            let text = format!("VirtualService rule {rule} not used ({reason}).");
            found.push(Caution::new(Surprise::UnreachableRule, &at, text));
        };
        if open {
            unused("only the last rule can have no matches");
            continue;
        }
        open = route.matches.is_empty();
        let mut same = Vec::new();
        for (j, block) in route.matches.iter().enumerate() {
            // The name of a match decides nothing.
            let content = serde_json::to_value(block).map(|mut value| {
                value["name"] = serde_json::Value::Null;
                value.to_string()
            });
            let Ok(content) = content else { continue };
            match seen.get(&content) {
                Some(earlier) => same.push((j, named(&block.name, j), earlier.clone())),
                None => drop(seen.insert(content, rule.clone())),
            }
        }
        if !same.is_empty() && same.len() == route.matches.len() {
            unused("all matches used by prior rules");
        }
        for (j, block, earlier) in same {
            let text = format!(
                "VirtualService rule {rule} match {block} is not used (duplicate/overlapping match in rule {earlier})."
            );
            found.push(Caution::new(Surprise::IneffectiveMatch, format!("{at}.match[{j}]"), text));
        }
    }
    found
}

/// The name in quotes, else the number.
fn named(name: &str, index: usize) -> String {
    if name.is_empty() { format!("#{index}") } else { format!("{name:?}") }
}
