//! A bookshop of four small services, in the shape that every Istio user knows: productpage calls details and reviews,
//! reviews calls ratings. It is what the demo runs behind its sidecars; it knows nothing of the mesh.

mod knobs;
mod page;
mod shop;
mod upstream;

use clap::{Parser, ValueEnum};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How long requests that are being answered may take when the process is to end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Which of the services this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Productpage => "productpage",
            Self::Details => "details",
            Self::Reviews => "reviews",
            Self::Ratings => "ratings",
        }
    }
}

/// One service of the bookshop.
#[derive(Debug, Clone, Parser)]
#[command(name = "bookshop")]
pub(crate) struct Arguments {
    /// Which service to be.
    #[arg(long)]
    pub(crate) role: Role,
    /// Version of the service; reviews v1 shows no stars, v2 black ones, v3 red ones.
    #[arg(long, default_value = "v1")]
    pub(crate) version: String,
    /// Where to listen.
    #[arg(long, default_value = "[::]:9080")]
    pub(crate) listen: SocketAddr,
    /// Name of this instance, shown in answers.
    #[arg(long, default_value = "local")]
    pub(crate) instance: String,
    /// Where details answers.
    #[arg(long, default_value = "http://details:9080")]
    pub(crate) details: String,
    /// Where reviews answers.
    #[arg(long, default_value = "http://reviews:9080")]
    pub(crate) reviews: String,
    /// Where ratings answers.
    #[arg(long, default_value = "http://ratings:9080")]
    pub(crate) ratings: String,
    /// Percentage of requests that are answered by 503.
    #[arg(long, default_value_t = 0)]
    pub(crate) fail_percent: u8,
    /// Write no line per request.
    #[arg(long)]
    pub(crate) quiet: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(arguments.listen).await?;
    // In a container this is process 1, which the kernel ends by no signal that it does not ask for.
    let mut ended = signal(SignalKind::terminate())?;
    let shop = Arc::new(shop::Shop::new(arguments));
    shop.announce(listener.local_addr()?)?;
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = ended.recv() => break,
        };
        stream.set_nodelay(true)?;
        let shop = Arc::clone(&shop);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let shop = Arc::clone(&shop);
                async move { Ok::<_, std::convert::Infallible>(shop.answer(request, peer).await) }
            });
            // An error here is a client that went away in the middle: nobody is left to tell.
            drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
        });
    }
    // As most applications do: the port is closed at once, what is being answered is answered.
    drop(listener);
    drop(tokio::time::timeout(LAST_ANSWERS, shop.is_idle()).await);
    Ok(())
}
