//! Which workload a pod belongs to, by its name: what Istio shows in metrics and peer metadata (LBL-2, MX-106).

use proto::istio::meta::ObjectMeta;

/// The label by which a Deployment tells its ReplicaSets apart; their names end in its value.
const LABEL_HASH: &str = "pod-template-hash";
/// Digits of the time that a CronJob puts behind its name for each Job.
const JOB_TIME_DIGITS: usize = 8;

/// Name of the workload that a pod belongs to, as Istio derives it (`pkg/kube/util.go`): the label
/// `service.istio.io/workload-name`, else its controller; the Deployment of a ReplicaSet and the CronJob of a Job are found
/// by their names alone. A pod that nothing controls is its own workload.
pub fn workload_name(meta: &ObjectMeta) -> &str {
    let label = |name: &str| meta.labels.get(name).map(String::as_str).filter(|text| !text.is_empty());
    if let Some(name) = label(proto::wire::LABEL_WORKLOAD_NAME) {
        return name;
    }
    let owner = meta.owner_references.iter().find(|owner| owner.controller && !owner.name.is_empty());
    let Some(owner) = owner else { return &meta.name };
    let above = match owner.kind.as_str() {
        "ReplicaSet" => label(LABEL_HASH).and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-')),
        "Job" => owner.name.rsplit_once('-').filter(|(_, time)| is_job_time(time)).map(|(name, _)| name),
        // The kubelet is no workload: a static pod stands for itself.
        "Node" => Some(meta.name.as_str()),
        _ => None,
    };
    above.filter(|name| !name.is_empty()).unwrap_or(&owner.name)
}

fn is_job_time(text: &str) -> bool {
    text.len() >= JOB_TIME_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::istio::meta::OwnerReference;

    fn name(kind: &str, owner: &str, labels: &[(&str, &str)]) -> String {
        let owner = OwnerReference { kind: kind.into(), name: owner.into(), controller: true };
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let meta = ObjectMeta { name: "pod-x".into(), labels, owner_references: vec![owner], ..ObjectMeta::default() };
        workload_name(&meta).to_owned()
    }

    // spec: MX-106, LBL-2
    #[test]
    fn a_pod_belongs_to_what_istio_says_it_does() {
        assert_eq!(name("ReplicaSet", "reviews-v1-5d4f", &[("pod-template-hash", "5d4f")]), "reviews-v1");
        assert_eq!(name("ReplicaSet", "reviews-v1-5d4f", &[]), "reviews-v1-5d4f");
        assert_eq!(name("ReplicaSet", "reviews-v1", &[("pod-template-hash", "5d4f")]), "reviews-v1");
        assert_eq!(name("StatefulSet", "web", &[]), "web");
        assert_eq!(name("Job", "sweep-28123456", &[]), "sweep");
        assert_eq!(name("Job", "sweep-once", &[]), "sweep-once");
        assert_eq!(name("Node", "machine", &[]), "pod-x");
        assert_eq!(name("StatefulSet", "web", &[("service.istio.io/workload-name", "front")]), "front");
        let alone = ObjectMeta { name: "pod-x".into(), ..ObjectMeta::default() };
        assert_eq!(workload_name(&alone), "pod-x");
        let owner = OwnerReference { kind: "ReplicaSet".into(), name: "a".into(), controller: false };
        assert_eq!(workload_name(&ObjectMeta { owner_references: vec![owner], ..alone }), "pod-x");
    }
}
