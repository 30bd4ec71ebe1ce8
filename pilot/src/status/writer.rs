//! Writes conditions, and the addresses of hosts that have none, into objects while this pilot leads: what changed in
//! truth at once, counts at leisure.

use super::conditions::{Condition, conditions};
use super::leader::Leadership;
use crate::delivery::standing::Standing;
use crate::delivery::{Command, HubHandle};
use crate::source::kinds;
use crate::source::kube::Defined;
use crate::source::{HostAddress, Key};
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Whose fields the conditions are.
const MANAGER: &str = "ferromesh-pilot";
/// Time between two looks at what there is to write.
const LOOK: Duration = Duration::from_millis(500);
/// Time after which counts alone are written anew.
const REFRESH: Duration = Duration::from_secs(60);
/// Writes per look: 20 each second at most, however many objects there are.
const WRITES: usize = 10;

/// What was written into an object last.
struct Written {
    conditions: [Condition; 2],
    addresses: Vec<HostAddress>,
    generation: Option<i64>,
    created: Option<String>,
    at: Instant,
    /// The server did not take it.
    refused: bool,
}

/// The writer of conditions.
pub struct Writer {
    /// The way to the API server.
    pub client: Client,
    /// The way to the hub.
    pub hub: HubHandle,
    /// Whether this pilot writes.
    pub leadership: Leadership,
    /// Versions under which the cluster knows the kinds.
    pub defined: watch::Receiver<Defined>,
}

impl Writer {
    /// Writes for ever.
    ///
    /// # Errors
    /// Never: what cannot be written is tried again.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut ready = self.hub.ready();
        if ready.wait_for(|ready| *ready).await.is_err() {
            return Ok(());
        }
        let mut written: BTreeMap<Key, Written> = BTreeMap::new();
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if !self.leadership.holds() {
                // Another may write meanwhile; what it wrote is looked at when this one leads again.
                written.clear();
                continue;
            }
            let Some(standings) = self.hub.ask(Command::Standings).await else { return Ok(()) };
            let known: BTreeSet<&Key> = standings.iter().map(|standing| &standing.key).collect();
            written.retain(|key, _| known.contains(key));
            for standing in due(&standings, &written, Instant::now()) {
                if !self.leadership.holds() {
                    break;
                }
                let refused = match self.write(standing).await {
                    Ok(()) => false,
                    // Somebody else was faster: seen at the next look.
                    Err(kube::Error::Api(status)) if status.code == 409 => continue,
                    Err(kube::Error::Api(status)) => {
                        tracing::warn!(object = %standing.key, "its status cannot be written: {status}");
                        true
                    }
                    Err(error) => {
                        tracing::debug!(object = %standing.key, "status: {error}");
                        break;
                    }
                };
                written.insert(standing.key.clone(), Written::of(standing, refused));
            }
        }
    }

    async fn write(&self, standing: &Standing) -> kube::Result<()> {
        let Some(row) = kinds::row(standing.key.kind) else { return Ok(()) };
        // A kind that the cluster no longer defines has no objects.
        let Some(version) = self.defined.borrow().get(&row.kind).cloned() else { return Ok(()) };
        let kind = GroupVersionKind::gvk(row.group, &version, row.name);
        let resource = ApiResource::from_gvk_with_plural(&kind, &row.plural());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &standing.key.namespace, &resource);
        let Some(object) = api.get_opt(&standing.key.name).await? else { return Ok(()) };
        let held = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let now = Timestamp::now().round(Unit::Second).unwrap_or_default();
        let wanted =
            conditions(standing).map(|condition| merged(&condition, standing.generation, &held, &now.to_string()));
        let addresses = &standing.addresses;
        // What another has written for hosts that need none any more does no harm.
        let recorded = addresses.is_empty() || object.data["status"]["addresses"] == json!(addresses);
        if recorded && wanted.iter().all(|condition| held.contains(condition)) {
            return Ok(());
        }
        // The conditions of others stay.
        let others = held.into_iter().filter(|one| !wanted.iter().any(|own| own["type"] == one["type"]));
        let all: Vec<Value> = wanted.iter().cloned().chain(others).collect();
        // The version that was seen goes along: what another has written meanwhile is not lost.
        let version = object.metadata.resource_version;
        let mut status = json!({"metadata": {"resourceVersion": version}, "status": {"conditions": all}});
        if !recorded {
            status["status"]["addresses"] = json!(addresses);
        }
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_status(&standing.key.name, &params, &Patch::Merge(&status)).await {
            Err(kube::Error::Api(gone)) if gone.code == 404 => Ok(()),
            done => done.map(drop),
        }
    }
}

impl Written {
    fn of(standing: &Standing, refused: bool) -> Self {
        Self {
            conditions: conditions(standing),
            addresses: standing.addresses.clone(),
            generation: standing.generation,
            created: standing.created.clone(),
            at: Instant::now(),
            refused,
        }
    }

    fn says(&self, standing: &Standing, wanted: &[Condition; 2]) -> bool {
        let same = |(a, b): (&Condition, &Condition)| (a.holds, &a.reason) == (b.holds, &b.reason);
        // The first is about the object itself: each word of it counts. The second holds counts.
        self.conditions[0] == wanted[0]
            && self.conditions.iter().zip(wanted).all(same)
            && (self.generation, &self.created, &self.addresses)
                == (standing.generation, &standing.created, &standing.addresses)
    }
}

/// What is to be written now: first what is wrong, then what changed in truth. Who has made a mistake waits for no hundred others.
fn due<'a>(standings: &'a [Standing], written: &BTreeMap<Key, Written>, now: Instant) -> Vec<&'a Standing> {
    let (mut urgent, mut stale) = (Vec::new(), Vec::new());
    for standing in standings {
        let wanted = conditions(standing);
        match written.get(&standing.key) {
            Some(held) if held.says(standing, &wanted) => {
                if (held.refused || held.conditions != wanted) && now.duration_since(held.at) > REFRESH {
                    stale.push(standing);
                }
            }
            _ => urgent.push(standing),
        }
    }
    urgent.sort_by_key(|standing| standing.refused.is_empty() && standing.dangling.is_empty());
    urgent.into_iter().chain(stale).take(WRITES).collect()
}

/// A condition with the time since when it holds what it says, by what the object has.
fn merged(condition: &Condition, generation: Option<i64>, held: &[Value], now: &str) -> Value {
    let before = held.iter().find(|one| one["type"] == condition.name);
    let status = if condition.holds { "True" } else { "False" };
    let since = before.filter(|before| before["status"] == status).and_then(|one| one["lastTransitionTime"].as_str());
    condition.to_json(generation, since.unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::standing::Reach;
    use crate::source::{Class, Kind, Problem};

    fn standing(name: &str, have: usize, pending: usize) -> Standing {
        Standing {
            key: Key { kind: Kind::VirtualService, namespace: "n".into(), name: name.into() },
            generation: Some(1),
            created: None,
            refused: Vec::new(),
            dangling: Vec::new(),
            in_force: true,
            since: 1,
            addresses: Vec::new(),
            reach: Reach { have, pending, ..Reach::default() },
        }
    }

    #[test]
    fn truth_is_written_at_once_and_counts_at_leisure() {
        let now = Instant::now();
        let mut written = BTreeMap::new();
        let names = |due: Vec<&Standing>| due.iter().map(|one| one.key.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(due(&[standing("a", 1, 0)], &written, now)), ["a"], "new");
        written.insert(standing("a", 1, 0).key, Written::of(&standing("a", 1, 0), false));
        assert!(due(&[standing("a", 1, 0)], &written, now).is_empty());
        assert!(due(&[standing("a", 2, 0)], &written, now).is_empty(), "a proxy more is no news");
        assert_eq!(names(due(&[standing("a", 2, 0)], &written, now + 2 * REFRESH)), ["a"]);
        let both = [standing("a", 2, 0), standing("b", 1, 1)];
        assert_eq!(names(due(&both, &written, now + 2 * REFRESH)), ["b", "a"]);
        assert_eq!(names(due(&[standing("a", 1, 1)], &written, now)), ["a"], "one waits");
        let many = (0..2 * WRITES).map(|number| standing(&format!("m{number:02}"), 1, 0));
        let message = "it is wrong".to_owned();
        let problem =
            Problem { class: Class::Semantic, object: None, file: None, line: None, field: String::new(), message };
        let dangles = Standing { dangling: vec![problem.clone()], ..standing("y", 1, 0) };
        let all: Vec<Standing> =
            many.chain([dangles, Standing { refused: vec![problem], ..standing("z", 0, 0) }]).collect();
        assert_eq!(names(due(&all, &written, now))[..3], ["y", "z", "m00"], "mistakes are told first");
        written.insert(standing("a", 1, 0).key, Written::of(&standing("a", 1, 0), true));
        assert!(due(&[standing("a", 1, 0)], &written, now).is_empty(), "what is refused is not tried at every look");
        assert_eq!(names(due(&[standing("a", 1, 0)], &written, now + 2 * REFRESH)), ["a"]);
        let many: Vec<Standing> = (0..100).map(|i| standing(&format!("x{i}"), 1, 0)).collect();
        assert_eq!(due(&many, &written, now).len(), WRITES);
    }

    #[test]
    fn the_time_of_a_condition_is_that_of_its_last_change() {
        let condition = conditions(&standing("a", 1, 0))[0].clone();
        let held = [json!({"type": "Accepted", "status": "True", "lastTransitionTime": "then"})];
        assert_eq!(merged(&condition, None, &held, "now")["lastTransitionTime"], "then");
        let held = [json!({"type": "Accepted", "status": "False", "lastTransitionTime": "then"})];
        assert_eq!(merged(&condition, None, &held, "now")["lastTransitionTime"], "now");
    }
}
