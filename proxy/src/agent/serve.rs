//! The plugin says that a pod is set up, and waits until its rules are there.

use super::{Agent, pod, space};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// Name of the socket in its directory.
pub(super) const SOCKET: &str = "plugin.sock";
/// Largest question.
const MAX_BYTES: u64 = 1 << 20;
/// Time for a question to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the API server is asked while it does not know the pod yet, or does not answer.
const TRIES: u32 = 5;
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Listens in a directory that is root's alone.
pub(super) fn listen(directory: &Path) -> anyhow::Result<UnixListener> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("{}", directory.display()))?;
    let path = directory.join(SOCKET);
    drop(std::fs::remove_file(&path)); // that of the agent before
    let listener = UnixListener::bind(&path).with_context(|| format!("{}", path.display()))?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers plugins for ever.
pub(super) async fn serve(agent: &Arc<Agent>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let agent = agent.clone();
                tokio::spawn(async move {
                    if let Err(error) = one(&agent, stream).await {
                        tracing::warn!("a plugin was not answered: {error:#}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn one(agent: &Agent, mut stream: UnixStream) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut question = (&mut stream).take(MAX_BYTES);
    tokio::time::timeout(READ_TIMEOUT, question.read_to_string(&mut text))
        .await
        .context("no question within 5 s")??;
    let event: Value = serde_json::from_str(&text)?;
    let answer = match added(agent, &event).await {
        Ok(()) => json!({}),
        Err(error) => {
            tracing::warn!(event = %event["CNI_ARGS"], "a pod cannot be redirected: {error:#}");
            json!({"error": format!("{error:#}")})
        }
    };
    stream.write_all(answer.to_string().as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

/// A pod is set up: it gets its rules, if it is one of ours.
async fn added(agent: &Agent, event: &Value) -> anyhow::Result<()> {
    let words = event["CNI_ARGS"].as_str().unwrap_or_default();
    let word = |name: &str| words.split(';').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let (Some(namespace), Some(name)) = (word("K8S_POD_NAMESPACE"), word("K8S_POD_NAME")) else {
        return Ok(()); // no pod of Kubernetes
    };
    if agent.args.exclude_namespaces.iter().any(|excluded| excluded == namespace) {
        return Ok(());
    }
    let found = pod_of(agent, namespace, name).await?;
    let Some(args) = pod::rules(&found, &agent.args.exclude_namespaces)? else { return Ok(()) };
    let network = PathBuf::from(event["CNI_NETNS"].as_str().unwrap_or_default());
    tokio::task::spawn_blocking(move || space::redirect(&network, &args)).await??;
    tracing::info!(pod = format!("{namespace}/{name}"), "redirected");
    Ok(())
}

async fn pod_of(agent: &Agent, namespace: &str, name: &str) -> anyhow::Result<Value> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let mut why = anyhow::anyhow!("the API server knows no pod {namespace}/{name}");
    for _ in 0..TRIES {
        match agent.api.get(&path).await {
            Ok(Some(pod)) => return Ok(pod),
            Ok(None) => {}
            Err(error) => why = error,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(why)
}
