//! User and group of the proxy where OpenShift gives every namespace a range of its own (spec IN-22).

use super::pod::{CONTAINERS, INIT_CONTAINERS, Pod};
use super::{INIT, PROXY, VALIDATION};
use proto::wire::PROXY_UID;
use serde_json::Value;

/// Annotation of a namespace: the users of its pods, as `START/SIZE` or `START-END`.
const UID_RANGE: &str = "openshift.io/sa.scc.uid-range";
/// Annotation of a namespace: the groups of its pods, several ranges divided by commas.
const GROUPS: &str = "openshift.io/sa.scc.supplemental-groups";

/// User and group of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    /// uid.
    pub(super) user: u32,
    /// gid.
    pub(super) group: u32,
}

impl Ids {
    /// The last user and the last group of the first range that the namespace's annotations give: OpenShift itself
    /// takes the first ones for the application. 1337 where there are none, or they cannot be read.
    pub(super) fn of_namespace<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Self {
        let users = annotation(UID_RANGE).and_then(last_of);
        let groups = annotation(GROUPS).or_else(|| annotation(UID_RANGE));
        let groups = groups.and_then(|groups| groups.split(',').next()).and_then(last_of);
        Self { user: users.unwrap_or(PROXY_UID), group: groups.unwrap_or(PROXY_UID) }
    }
}

fn last_of(range: &str) -> Option<u32> {
    if let Some((start, size)) = range.trim().split_once('/') {
        let (start, size) = (start.parse::<u32>().ok()?, size.parse::<u32>().ok()?);
        return start.checked_add(size)?.checked_sub(1).filter(|last| *last >= start);
    }
    let (start, end) = range.trim().split_once('-')?;
    let (start, end) = (start.parse::<u32>().ok()?, end.parse::<u32>().ok()?);
    (start <= end).then_some(end)
}

/// OpenShift gives every container the same user, a proxy written by hand too; then traffic of both looks alike and
/// cannot be redirected. A user of the proxy that is the application's is therefore not taken as a wish.
pub(super) fn forget_assigned_user(pod: &mut Pod) {
    let user = |container: &Value| container["securityContext"]["runAsUser"].as_i64();
    let all = pod.list(CONTAINERS).iter().chain(pod.list(INIT_CONTAINERS));
    let (mut own, mut app) = (None, None);
    for container in all {
        match super::pod::name(container) {
            PROXY => own = own.or_else(|| user(container)),
            INIT | VALIDATION => {}
            _ => app = user(container).or(app),
        }
    }
    if own.is_some() && own == app {
        let context = pod.proxy_mut().and_then(|proxy| proxy["securityContext"].as_object_mut());
        if let Some(context) = context {
            context.shift_remove("runAsUser");
            context.shift_remove("runAsGroup");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ids(pairs: &[(&str, &'static str)]) -> Ids {
        Ids::of_namespace(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    // spec: IN-22
    #[test]
    fn the_proxy_takes_the_last_ids_of_the_namespaces_ranges() {
        assert_eq!(ids(&[]), Ids { user: 1337, group: 1337 });
        assert_eq!(ids(&[(UID_RANGE, "1000620000/10000")]), Ids { user: 1000629999, group: 1000629999 });
        let both = ids(&[(UID_RANGE, "5-9"), (GROUPS, "20/10,40/2")]);
        assert_eq!(both, Ids { user: 9, group: 29 });
        for bad in ["", "x", "5", "9-5", "4294967295/2", "1/0"] {
            assert_eq!(Ids::of_namespace(|_| Some(bad)), Ids { user: 1337, group: 1337 }, "{bad}");
        }
    }

    // spec: IN-22
    #[test]
    fn a_user_that_openshift_gave_is_no_wish() {
        let pod = |proxy: i64| {
            let container = |name: &str, user: i64| json!({"name": name, "securityContext": {"runAsUser": user}});
            let mut pod =
                Pod::new(json!({"spec": {"containers": [container("app", 7), container("istio-proxy", proxy)]}}))
                    .unwrap();
            forget_assigned_user(&mut pod);
            pod.proxy().unwrap()["securityContext"]["runAsUser"].clone()
        };
        assert_eq!((pod(7), pod(8)), (json!(null), json!(8)));
    }
}
