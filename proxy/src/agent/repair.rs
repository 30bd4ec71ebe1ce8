//! Pods that were set up while no agent listened: they hold themselves back until their rules are proven, and get them here
//! (IN-13, `repairPods`). No pod is deleted or changed.

use super::{Agent, pod, space};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at the pods of the node.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Pods are listed in pages of so many.
const PAGE: u32 = 500;

/// Looks for ever.
pub(super) async fn run(agent: &Arc<Agent>) {
    let mut failing = false;
    loop {
        match look(agent).await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true; // said once, for it is tried again all the time
                tracing::warn!("pods cannot be looked at: {error:#}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn look(agent: &Agent) -> anyhow::Result<()> {
    let label = proto::wire::LABEL_TLS_MODE;
    let path = format!(
        "/api/v1/pods?fieldSelector=spec.nodeName%3D{}%2Cstatus.phase%3DPending&labelSelector={label}&limit={PAGE}",
        agent.args.node
    );
    let list = agent.api.get(&path).await?.unwrap_or_default();
    for pod in list["items"].as_array().into_iter().flatten().filter(|pod| pod::waits(pod)) {
        if let Err(error) = repair(agent, pod).await {
            tracing::warn!(pod = pod::name(pod), "cannot be repaired: {error:#}");
        }
    }
    Ok(())
}

async fn repair(agent: &Agent, found: &Value) -> anyhow::Result<()> {
    let (Some(args), Some(address)) = (pod::rules(found, &agent.args.exclude_namespaces)?, pod::address(found)) else {
        return Ok(());
    };
    let networks: PathBuf = agent.args.networks.clone();
    let done = tokio::task::spawn_blocking(move || -> anyhow::Result<bool> {
        let Some(network) = space::of_address(&networks, address)? else {
            anyhow::bail!("no network in {} has the address {address}", networks.display());
        };
        if space::is_redirected(&network)? {
            return Ok(false);
        }
        space::redirect(&network, &args)?;
        Ok(true)
    });
    if done.await?? {
        tracing::info!(pod = pod::name(found), "repaired: it was set up while no agent listened");
    }
    Ok(())
}
