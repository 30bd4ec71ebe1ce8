//! Who may talk to whom: mutual TLS and access policy.

use super::{Finding, Tour};
use crate::demo::client::{self, Answer, Ask};
use crate::demo::plan::SHOP_PORT;
use crate::demo::process;
use serde_json::{Value, json};

/// A plaintext client is refused; a member is let in, and the workload's log names both sides.
pub(super) async fn strict(tour: &Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let details = tour.workload("details-v1")?;
    tour.reset_counts().await?;
    let address = (details.v4, SHOP_PORT).into();
    let stranger = tour.namespace("stranger")?;
    let refused = client::ask(&stranger, address, &Ask::get("details", "/details/0")).await;
    let seen = tour.arrived("details-v1").await?;
    let member = tour.ask("shopper", "details", "/details/0", &[]).await?;
    let log = process::tail(&tour.mesh.plan.log("details-v1"));
    let id = |account: &str| format!("spiffe://cluster.local/ns/default/sa/{account}");
    let both = log.contains(&format!("By={}", id("bookinfo-details")))
        && log.contains(&format!("URI={}", id("bookinfo-shopper")));
    let what = match &refused {
        Ok(answer) => format!("status {}", answer.status.as_u16()),
        Err(error) => format!("{}", error.root_cause()),
    };
    Ok(vec![
        Finding::new(
            "a plaintext client gets no answer and reaches no workload",
            format!("{what}; {seen} requests at the workload"),
            refused.is_err() && seen == 0,
        ),
        Finding::new(
            "a member gets 200, and the workload's log names By= and URI= of both sides",
            format!("status {}, both ids in the log: {both}", member.status.as_u16()),
            member.status.is_success() && both,
        ),
    ])
}

fn deny(name: &str, app: &str, rule: &Value) -> String {
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": app}}, "action": "DENY", "rules": [rule]},
    });
    serde_saphyr::to_string(&object).unwrap_or_default()
}

fn denied(answer: &Answer) -> bool {
    answer.status.as_u16() == 403 && answer.text() == "RBAC: access denied"
}

/// One path of a workload is closed for everybody.
pub(super) async fn deny_path(tour: &Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let rule = json!({"to": [{"operation": {"paths": ["/details/7"]}}]});
    tour.mesh.write_config("policy.yaml", &deny("details-path", "details", &rule))?;
    let live = tour.until("shopper", "details", "/details/7", denied).await?;
    let open = tour.ask("shopper", "details", "/details/0", &[]).await?;
    Ok(vec![Finding::new(
        "/details/7: 403 RBAC: access denied; /details/0: 200",
        format!("403 after {} ms; {}", live.as_millis(), open.status.as_u16()),
        open.status.is_success(),
    )])
}

/// One identity is shut out, another is not.
pub(super) async fn deny_identity(tour: &Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let principal = "cluster.local/ns/default/sa/bookinfo-shopper";
    let rule = json!({"from": [{"source": {"principals": [principal]}}]});
    tour.mesh.write_config("policy.yaml", &deny("details-shopper", "details", &rule))?;
    let live = tour.until("shopper", "details", "/details/0", denied).await?;
    let other = tour.ask("productpage-v1", "details", "/details/0", &[]).await?;
    Ok(vec![Finding::new(
        "bookinfo-shopper: 403 RBAC: access denied; bookinfo-productpage: 200",
        format!("403 after {} ms; {}", live.as_millis(), other.status.as_u16()),
        other.status.is_success(),
    )])
}
