//! `meshctl curl`: one fetch (spec FO-3).

use crate::load::dial::Dialer;
use crate::load::flags::RequestArgs;
use crate::load::h1::FastClient;
use crate::load::h2::GeneralClient;
use crate::load::plan::Plan;
use crate::load::target::{GrpcArgs, Kind, Target};
use crate::output;
use http_body_util::BodyExt;
use std::process::ExitCode;
use std::time::Duration;

/// `meshctl curl`.
#[derive(Debug, Clone, clap::Args)]
#[command(args_override_self = true)] // of a flag that stands twice the last counts, as in Fortio
pub struct CurlArgs {
    /// What to fetch.
    #[arg(value_name = "URL")]
    url: String,
    /// Write the headers to standard output too.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    curl_stdout_headers: bool,
    #[command(flatten)]
    request: RequestArgs,
}

/// Fetches: the body goes to standard output, the headers to standard error. Fails where the status is no 2xx.
///
/// # Errors
/// Where there is no answer.
pub async fn run(args: CurlArgs) -> anyhow::Result<ExitCode> {
    let target = Target::new(&args.url, &args.request, &GrpcArgs::default(), Duration::ZERO)?;
    let Kind::Http(request) = &target.kind else { anyhow::bail!("{:?} is no URL of HTTP", args.url) };
    let dialer = Dialer::new(&target.destination, &Plan::default());
    let show_head = |head: &[u8]| -> anyhow::Result<()> {
        if args.curl_stdout_headers { output::say_bytes(head) } else { output::note_bytes(head) }
    };
    let status = if args.request.h2 || args.request.stdclient || args.request.follow {
        let mut client = GeneralClient::new(request, &args.request, dialer);
        let response = client.fetch().await?;
        let mut head = format!("{:?} {}\r\n", response.version(), response.status()).into_bytes();
        for (name, value) in response.headers() {
            head.extend_from_slice(format!("{name}: ").as_bytes());
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        show_head(&head)?;
        show_head(b"\r\n")?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                output::say_bytes(data)?;
            }
        }
        status
    } else {
        let mut client = FastClient::new(request, &args.request, dialer);
        let (status, kept) = client.fetch().await?;
        show_head(&kept.head)?;
        output::say_bytes(&kept.body)?;
        status
    };
    if (200..300).contains(&status) {
        return Ok(ExitCode::SUCCESS);
    }
    output::note(&format!("Error status {status}"));
    Ok(ExitCode::FAILURE)
}
