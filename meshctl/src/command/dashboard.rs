//! `meshctl dashboard`: opens the page that shows the mesh.

use crate::output;
use crate::reach::{At, Part, Reach};
use anyhow::Context;
use std::process::Stdio;
use tokio::net::TcpListener;

/// `meshctl dashboard`.
///
/// A port of this machine leads to mixer's page until Ctrl-C. Its address is printed and opened in a browser.
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct DashboardArgs {
    #[command(flatten)]
    at: At,
    /// Address of mixer's page (its port 8080); that of the mesh where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    page: Option<String>,
    /// Port on 127.0.0.1; 0 picks a free one.
    #[arg(short, long, default_value_t = 0)]
    port: u16,
    /// Open a browser (xdg-open).
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    browser: bool,
}

/// Forwards to the page until Ctrl-C.
///
/// # Errors
/// Where mixer does not answer, or the port is taken.
pub async fn run(args: DashboardArgs) -> anyhow::Result<()> {
    // Who gets no page should hear it now, not from the browser.
    let reach = args.at.reach().await;
    drop(Part::MixerPage.connect(args.page.as_deref(), &reach).await?);
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await;
    let listener = listener.with_context(|| format!("port {} is taken: choose another with --port", args.port))?;
    let url = format!("http://{}/", listener.local_addr()?);
    output::say(&format!("The mesh: {url} (Ctrl-C ends)"))?;
    if args.browser {
        open(&url);
    }
    tokio::select! {
        ended = forward(&listener, args.page.as_deref(), &reach) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn open(url: &str) {
    let quiet = || Stdio::null();
    let started =
        std::process::Command::new("xdg-open").arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
    if let Err(error) = started {
        output::note(&format!("no browser was opened ({error}): open the address yourself, or use --browser=false"));
    }
}

async fn forward(listener: &TcpListener, page: Option<&str>, reach: &Reach) -> anyhow::Result<()> {
    loop {
        let (mut browser, _) = listener.accept().await?;
        let (page, reach) = (page.map(str::to_owned), reach.clone());
        tokio::spawn(async move {
            match Part::MixerPage.connect(page.as_deref(), &reach).await {
                // Either side may leave.
                Ok(mut mixer) => drop(tokio::io::copy_bidirectional(&mut browser, &mut mixer).await),
                Err(error) => output::note(&format!("{error:#}")),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_browser_reaches_the_page() {
        let page = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = page.local_addr().unwrap().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let forwarding =
            tokio::spawn(async move { forward(&listener, Some(&address), &Reach::Demo("none".into())).await });
        let mut browser = tokio::net::TcpStream::connect(own).await.unwrap();
        browser.write_all(b"question").await.unwrap();
        let (mut asked, _) = page.accept().await.unwrap();
        let mut question = [0; 8];
        asked.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"question");
        asked.write_all(b"page").await.unwrap();
        drop(asked);
        let mut answer = Vec::new();
        browser.read_to_end(&mut answer).await.unwrap_or_default();
        assert_eq!(answer, b"page");
        forwarding.abort();
    }
}
