//! Whether the webhooks answer: pilot asks itself before it says that it is ready (F31).

use crate::ads::tls::Files;
use anyhow::{Context as _, ensure};
use identity::bundle::TrustBundle;
use identity::san::SanMatch;
use identity::svid::provider;
use identity::verify::server_verifier;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

/// Time between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// A pod that gets no proxy, whatever the settings are.
const QUESTION: &str = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"own-probe","kind":{"group":"","version":"v1","kind":"Pod"},"namespace":"kube-system","operation":"CREATE","object":{"metadata":{"name":"own-probe"},"spec":{"hostNetwork":true}}}}"#;

/// Asks until there is an answer, says so, and keeps saying it for as long as somebody listens.
///
/// # Errors
/// Never.
pub async fn until_it_answers(local: SocketAddr, files: Files, answers: watch::Sender<bool>) -> anyhow::Result<()> {
    let mut said = String::new();
    loop {
        let asked = tokio::time::timeout(TIMEOUT, ask(local, &files)).await;
        match asked.map_err(anyhow::Error::from).flatten() {
            Ok(()) => break,
            Err(error) => {
                let why = format!("{error:#}");
                // Once, however often it is tried.
                if why != said {
                    tracing::info!("the webhooks do not answer yet: {why}");
                    said = why;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::info!(address = %local, "the webhooks answer");
    answers.send_replace(true);
    answers.closed().await;
    Ok(())
}

async fn ask(local: SocketAddr, files: &Files) -> anyhow::Result<()> {
    let roots = std::fs::read(&files.roots).with_context(|| format!("read {}", files.roots.display()))?;
    let verifier = server_verifier(Arc::new(TrustBundle::from_pem(&roots).context("roots")?), SanMatch::any());
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let address = if local.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, local.port()).into() } else { local };
    let stream = TcpStream::connect(address).await.context("connect")?;
    let name = ServerName::IpAddress(address.ip().into());
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("TLS")?;
    let head = format!(
        "POST /inject HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        QUESTION.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(QUESTION.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await.context("answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 ") && answer.contains("\"own-probe\""), "{status}");
    Ok(())
}
