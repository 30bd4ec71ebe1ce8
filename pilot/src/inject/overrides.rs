//! What a pod writes itself about containers of ours wins, field by field, also when it is injected again (PI-57).

use super::merge::merge;
use super::mesh::{MeshSettings, ProxyConfig};
use super::pod::{CONTAINERS, INIT_CONTAINERS, Pod, find, name};
use super::proxy::INTERCEPTION_MODE;
use super::{INIT, InjectError, OVERRIDES, PROXY, STATUS, VALIDATION, prometheus};
use serde_json::{Value, json};

/// The image of a container that only says something else about a container of ours.
const AUTO_IMAGE: &str = "auto";
const LISTS: [&str; 2] = [CONTAINERS, INIT_CONTAINERS];

/// Names that an earlier injection has added to a list; `None` where there was none.
fn added_before(pod: &Pod, list: &str) -> Option<Vec<String>> {
    let status: Value = serde_json::from_str(pod.annotation(STATUS)?).ok()?;
    let names = status[list].as_array().into_iter().flatten();
    Some(names.filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// The pod without what an earlier injection has added, and with what it had written itself.
///
/// # Errors
/// Where the annotation of an earlier injection was changed into something else.
pub(super) fn strip(pod: &Pod, mesh: &MeshSettings) -> Result<Pod, InjectError> {
    let mut stripped = pod.clone();
    let injected = LISTS.map(|list| added_before(pod, list));
    if injected.iter().any(Option::is_some) {
        for (list, added) in LISTS.iter().zip(injected) {
            let added = added.unwrap_or_default();
            let kept = pod.list(list).iter().filter(|container| !added.iter().any(|known| known == name(container)));
            stripped.set_list(list, kept.cloned().collect());
        }
        prometheus::forget(&mut stripped, mesh);
        stripped.remove_annotation(STATUS);
    }
    let written = earlier(pod)?;
    for list in LISTS {
        let missing = written[list].as_array().into_iter().flatten();
        let missing = missing.filter(|container| find(stripped.list(list), name(container)).is_none());
        let all: Vec<Value> = stripped.list(list).iter().chain(missing).cloned().collect();
        stripped.set_list(list, all);
    }
    Ok(stripped)
}

/// The containers that the pod had written itself, by list.
fn earlier(pod: &Pod) -> Result<Value, InjectError> {
    let Some(json) = pod.annotation(OVERRIDES) else { return Ok(json!({})) };
    let why = "injection writes this annotation itself: remove it";
    let bad = || InjectError::annotation(OVERRIDES, json, why);
    let parsed: Value = serde_json::from_str(json).map_err(|_| bad())?;
    let lists = LISTS.iter().all(|list| {
        let part = &parsed[*list];
        part.is_null() || part.as_array().is_some_and(|list| list.iter().all(Value::is_object))
    });
    if parsed.is_object() && lists { Ok(parsed) } else { Err(bad()) }
}

/// Applies what the original pod writes about containers of the template on top of the merged one.
///
/// # Errors
/// Where the annotation of an earlier injection was changed into something else.
pub(super) fn reapply(
    merged: &mut Pod,
    original: &Pod,
    template: &Pod,
    proxy: &ProxyConfig,
) -> Result<(), InjectError> {
    let earlier = earlier(original)?;
    let mut overrides = json!({});
    for list in LISTS {
        // What was injected before is made anew, not restored.
        let injected = added_before(original, list).unwrap_or_default();
        let mut written = Vec::new();
        for container in template.list(list) {
            let own = name(container);
            let before = earlier[list].as_array().and_then(|list| find(list, own));
            let now = || {
                // The proxy of a native sidecar stands among the init containers, that of its user among the others.
                let other = || if list == INIT_CONTAINERS { find(original.list(CONTAINERS), own) } else { None };
                let is_ours = injected.iter().any(|known| known == own);
                find(original.list(list), own).or_else(other).filter(|_| !is_ours)
            };
            let Some(found) = before.or_else(now) else { continue };
            let mut overlay = found.clone();
            if overlay["image"] == AUTO_IMAGE {
                overlay.as_object_mut().map(|overlay| overlay.shift_remove("image"));
            }
            let patch = json!({"spec": {list: [overlay]}});
            let mut whole = merged.value().clone();
            merge(&mut whole, &patch);
            *merged = Pod::new(whole)?;
            written.push(overlay);
        }
        if !written.is_empty() {
            overrides[list] = json!(written);
        }
    }
    let first_time = original.annotation(STATUS).is_none();
    if first_time && overrides.as_object().is_some_and(|lists| !lists.is_empty()) {
        merged.set_annotation(OVERRIDES, overrides.to_string());
    }
    let written = LISTS.iter().filter_map(|list| find(overrides[*list].as_array()?, PROXY)).next();
    if let Some(written) = written {
        follow_user(merged, written, proxy);
    }
    Ok(())
}

/// Where the pod gives its proxy another user, the rules must exempt that one, and the check must run as it.
fn follow_user(merged: &mut Pod, written: &Value, proxy: &ProxyConfig) {
    let context = &written["securityContext"];
    let (user, group) = (context["runAsUser"].as_i64(), context["runAsGroup"].as_i64());
    if user.is_none() && group.is_none() {
        return;
    }
    let tproxy = proxy.interception_mode() == "TPROXY" || merged.annotation(INTERCEPTION_MODE) == Some("TPROXY");
    // Transparent proxying needs root.
    if let Some(container) = merged.proxy_mut().filter(|_| tproxy && user.is_some()) {
        container["securityContext"]["runAsUser"] = json!(0);
    }
    let Some(init) = merged.list_mut(INIT_CONTAINERS) else { return };
    let Some(init) = init.iter_mut().find(|container| [INIT, VALIDATION].contains(&name(container))) else { return };
    if !tproxy && name(init) == VALIDATION {
        for (field, id) in [("runAsUser", user), ("runAsGroup", group)] {
            if let Some(id) = id {
                init["securityContext"][field] = json!(id);
            }
        }
    }
    let Some(user) = user.filter(|user| *user != 0) else { return };
    let args = init["args"].as_array_mut();
    if let Some(exempted) = args.and_then(|args| {
        let flag = args.iter().position(|arg| arg == "-u")?;
        args.get_mut(flag + 1)
    }) {
        *exempted = json!(user.to_string());
    }
}

/// A user's container of a native sidecar stands among the others: it moves to where the template has it.
pub(super) fn move_native(merged: &mut Pod, template: &Pod) {
    let wanted = find(template.list(INIT_CONTAINERS), PROXY).is_some();
    let Some(at) = merged.list(CONTAINERS).iter().position(|container| name(container) == PROXY) else { return };
    if !wanted {
        return;
    }
    let mut containers = merged.list(CONTAINERS).to_vec();
    let mut init = merged.list(INIT_CONTAINERS).to_vec();
    init.push(containers.remove(at));
    merged.set_list(CONTAINERS, containers);
    merged.set_list(INIT_CONTAINERS, init);
}
