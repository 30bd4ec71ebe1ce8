//! Strategic merge of pods: lists of named things are merged by name, other lists are replaced, null removes.
//!
//! Rules and order are those of `k8s.io/apimachinery/pkg/util/strategicpatch`; the keys are the `patchMergeKey` tags of
//! `k8s.io/api/core/v1`. A list whose field is not in [`KEYS`] is atomic.

use serde_json::{Map, Value};

/// Fields of a pod whose lists are merged, and the field that names their items.
const KEYS: &[(&str, &str)] = &[
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
    ("schedulingGates", "name"),
    ("resourceClaims", "name"),
    ("ownerReferences", "uid"),
];

/// Instruction within a patch: `delete`, `replace` or `merge`.
const DIRECTIVE: &str = "$patch";

/// Merges a patch into a document.
pub(super) fn merge(document: &mut Value, patch: &Value) {
    match (document, patch) {
        (Value::Object(document), Value::Object(patch)) => merge_maps(document, patch),
        (document, patch) => *document = without_directives(patch),
    }
}

fn merge_maps(document: &mut Map<String, Value>, patch: &Map<String, Value>) {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => document.clear(),
        Some("delete") => return document.clear(),
        _ => {}
    }
    for (name, new) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let key = KEYS.iter().find(|(field, _)| field == name).map(|(_, key)| *key);
        match (document.get_mut(name), new) {
            (_, Value::Null) => drop(document.shift_remove(name)),
            (Some(Value::Object(old)), Value::Object(new)) => merge_maps(old, new),
            (Some(Value::Array(old)), Value::Array(new)) if key.is_some() => {
                *old = merge_lists(old, new, key.unwrap_or_default());
            }
            (Some(old), new) => *old = without_directives(new),
            (None, new) => drop(document.insert(name.clone(), without_directives(new))),
        }
    }
}

fn merge_lists(old: &[Value], patch: &[Value], key: &str) -> Vec<Value> {
    let directive = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    if patch.iter().any(|item| directive(item).as_deref() == Some("replace") && item.get(key).is_none()) {
        return patch.iter().filter(|item| directive(item).is_none()).map(without_directives).collect();
    }
    let same = |a: &Value, b: &Value| a.get(key).is_some() && a.get(key) == b.get(key);
    let deleted = |item: &Value| patch.iter().any(|p| same(p, item) && directive(p).as_deref() == Some("delete"));
    let left: Vec<&Value> = old.iter().filter(|item| !deleted(item)).collect();
    // Items of the patch in its own order, merged with those of the same name.
    let mut patched: Vec<(Option<usize>, Value)> = Vec::new();
    for item in patch.iter().filter(|item| directive(item).as_deref() != Some("delete")) {
        if let Some((_, earlier)) = patched.iter_mut().find(|(_, earlier)| same(earlier, item)) {
            merge(earlier, item);
            continue;
        }
        let at = left.iter().position(|known| same(known, item));
        let mut merged = at.and_then(|at| left.get(at)).map_or(Value::Null, |known| (*known).clone());
        merge(&mut merged, item);
        patched.push((at, merged));
    }
    let only_old = left.iter().enumerate().filter(|(_, item)| !patched.iter().any(|(_, p)| same(p, item)));
    let only_old: Vec<(usize, Value)> = only_old.map(|(at, item)| (at, (*item).clone())).collect();
    interleave(patched, only_old)
}

/// Items that only the document has come first, except behind an item of the patch that stood before them.
fn interleave(patched: Vec<(Option<usize>, Value)>, only_old: Vec<(usize, Value)>) -> Vec<Value> {
    let mut result = Vec::with_capacity(patched.len() + only_old.len());
    let (mut patched, mut only_old) = (patched.into_iter().peekable(), only_old.into_iter().peekable());
    loop {
        let patch_first = match (patched.peek(), only_old.peek()) {
            (Some((Some(patch), _)), Some((old, _))) => patch < old,
            (Some(_), None) => true,
            (_, Some(_)) => false,
            (None, None) => return result,
        };
        let next =
            if patch_first { patched.next().map(|(_, item)| item) } else { only_old.next().map(|(_, item)| item) };
        result.extend(next);
    }
}

/// A part of a patch as it stands where the document has nothing: nulls and instructions mean nothing there.
fn without_directives(patch: &Value) -> Value {
    match patch {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
            kept.map(|(name, value)| (name.clone(), without_directives(value))).collect()
        }
        Value::Array(items) => {
            let kept = items.iter().filter(|item| item.get(DIRECTIVE).is_none());
            kept.map(without_directives).collect()
        }
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(mut document: Value, patch: &Value) -> Value {
        merge(&mut document, patch);
        document
    }

    // spec: PI-57
    #[test]
    fn named_lists_are_merged_and_others_replaced() {
        let pod = json!({"containers": [{"name": "a", "args": ["x", "y"], "env": [{"name": "A", "value": "1"}]}]});
        let patch = json!({"containers": [
            {"name": "a", "args": ["z"], "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]}, {"name": "b"},
        ]});
        let expected = json!({"containers": [
            {"name": "a", "args": ["z"], "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]}, {"name": "b"},
        ]});
        assert_eq!(merged(pod, &patch), expected);
    }

    #[test]
    fn what_only_the_document_has_stays_in_front() {
        let names = |list: &Value| list.as_array().unwrap().iter().map(|i| i["name"].clone()).collect::<Vec<_>>();
        let pod = json!({"volumes": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
        let patch = json!({"volumes": [{"name": "b", "emptyDir": {}}, {"name": "new"}]});
        assert_eq!(names(&merged(pod, &patch)["volumes"]), ["a", "b", "c", "new"]);
        let pod = json!({"volumes": [{"name": "a"}]});
        assert_eq!(names(&merged(pod, &json!({"volumes": [{"name": "x"}, {"name": "a"}]}))["volumes"]), ["x", "a"]);
    }

    #[test]
    fn null_and_the_instructions_remove_and_replace() {
        let pod = json!({"a": 1, "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w"}], "m": {"x": 1}});
        let patch = json!({"a": null, "volumes": [{"name": "w", "$patch": "delete"}, {"name": "v", "emptyDir": null}],
            "m": {"$patch": "replace", "y": 2}, "n": {"z": null}});
        assert_eq!(merged(pod.clone(), &patch), json!({"volumes": [{"name": "v"}], "m": {"y": 2}, "n": {}}));
        let all = json!({"volumes": [{"$patch": "replace"}, {"name": "only"}]});
        assert_eq!(merged(pod, &all)["volumes"], json!([{"name": "only"}]));
    }
}
