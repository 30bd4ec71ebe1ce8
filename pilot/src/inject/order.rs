//! The order of containers (D1, spec PI-63, PI-64).

use super::pod::{CONTAINERS, INIT_CONTAINERS, Pod, find, name};
use super::{INIT, PROXY, VALIDATION};
use serde_json::Value;

/// Orders the containers: native: redirection, proxy, the rest; else the check of a node agent first and redirection
/// last, for init containers of the application come before the proxy, which stands first where they wait for it.
pub(super) fn order(pod: &mut Pod, proxy_first: bool) {
    reorder(pod, CONTAINERS, if proxy_first { &[PROXY] } else { &[] }, if proxy_first { &[] } else { &[PROXY] });
    if find(pod.list(INIT_CONTAINERS), PROXY).is_some() {
        reorder(pod, INIT_CONTAINERS, &[INIT, VALIDATION, PROXY], &[]);
    } else {
        reorder(pod, INIT_CONTAINERS, &[VALIDATION], &[INIT]);
    }
}

fn reorder(pod: &mut Pod, list: &str, first: &[&str], last: &[&str]) {
    let all = pod.list(list);
    let named =
        |names: &[&str]| -> Vec<Value> { names.iter().filter_map(|wanted| find(all, wanted).cloned()).collect() };
    let rest = all.iter().filter(|container| !first.contains(&name(container)) && !last.contains(&name(container)));
    let ordered: Vec<Value> = named(first).into_iter().chain(rest.cloned()).chain(named(last)).collect();
    if !ordered.is_empty() {
        pod.set_list(list, ordered);
    }
}
