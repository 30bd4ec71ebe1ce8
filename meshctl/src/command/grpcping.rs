//! `meshctl grpcping`: round trips and clock skew, or health checks (spec FO-5).

use crate::load::dial::Dialer;
use crate::load::flags::RequestArgs;
use crate::load::format::parse_duration;
use crate::load::grpc::{GrpcClient, HEALTH, HealthRequest, HealthResponse, PING, PingMessage, health_name};
use crate::load::histogram::Histogram;
use crate::load::plan::Plan;
use crate::load::target::{GrpcArgs, Kind, Target, now_nanos};
use crate::output;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `meshctl grpcping`.
#[derive(Debug, Clone, clap::Args)]
#[command(args_override_self = true)] // of a flag that stands twice the last counts, as in Fortio
pub struct GrpcPingArgs {
    /// host, host:port, or a URL; https:// for TLS.
    #[arg(value_name = "TARGET")]
    target: String,
    /// How often.
    #[arg(short = 'n', default_value_t = 1, value_name = "COUNT")]
    count: u64,
    /// Health checks instead of pings.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    health: bool,
    /// Service whose health is asked for.
    #[arg(long, default_value = "", value_name = "NAME")]
    healthservice: String,
    /// How long the server waits before it answers.
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "DURATION")]
    grpc_ping_delay: Duration,
    #[command(flatten)]
    request: RequestArgs,
}

/// Pings or checks.
///
/// # Errors
/// Where a call fails.
pub async fn run(args: GrpcPingArgs) -> anyhow::Result<ExitCode> {
    let flags = GrpcArgs {
        grpc: true,
        ping: !args.health,
        healthservice: args.healthservice.clone(),
        grpc_ping_delay: args.grpc_ping_delay,
        ..GrpcArgs::default()
    };
    let target = Target::grpc(&args.target, &args.request, &flags)?;
    let Kind::Grpc { channel, call, .. } = &target.kind else { anyhow::bail!("{:?} is no gRPC target", args.target) };
    let dialer = Dialer::new(&target.destination, &Plan::default());
    let mut client = GrpcClient::new(channel.clone(), call.clone(), dialer);
    if args.health { Box::pin(check(&args, &mut client)).await } else { Box::pin(ping(&args, &mut client)).await }
}

/// Nanoseconds, as microseconds.
fn micros(nanos: i64) -> f64 {
    nanos as f64 / 1000.0
}

async fn ping(args: &GrpcPingArgs, client: &mut GrpcClient) -> anyhow::Result<ExitCode> {
    let delay_nanos = i64::try_from(args.grpc_ping_delay.as_nanos()).unwrap_or(i64::MAX);
    let payload = args.request.payload.clone();
    let mut message = PingMessage { seq: 0, ts: 0, payload, delay_nanos };
    client.unary::<_, PingMessage>(PING, &message).await?; // connects
    let (mut skew, mut round_trips) = (Histogram::new(-10.0, 2.0), Histogram::new(0.0, 10.0));
    for number in 1..=args.count {
        message.seq = i64::try_from(number).unwrap_or(i64::MAX);
        let first = now_nanos();
        message.ts = first;
        let (one, _) = client.unary::<_, PingMessage>(PING, &message).await?;
        let second = now_nanos();
        let (two, _) = client.unary::<_, PingMessage>(PING, &message).await?;
        let third = now_nanos();
        // there and back seen from here, again, and back and there seen from the server
        let trips = [second - first, third - second, two.ts - one.ts];
        trips.iter().for_each(|trip| round_trips.record(micros(*trip)));
        let middle = one.ts + trips[2] / 2;
        skew.record(micros(middle - second));
        output::note(&format!(
            "Ping RTT {} (avg of {}, {}, {} ns) clock skew {}",
            trips.iter().sum::<i64>() / 3,
            trips[0],
            trips[2],
            trips[1],
            middle - second
        ));
    }
    let lines = skew.export(&[50.0]).lines("Clock skew histogram usec");
    lines
        .iter()
        .chain(&round_trips.export(&[50.0]).lines("RTT histogram usec"))
        .try_for_each(|line| output::say(line))?;
    Ok(ExitCode::SUCCESS)
}

async fn check(args: &GrpcPingArgs, client: &mut GrpcClient) -> anyhow::Result<ExitCode> {
    let question = HealthRequest { service: args.healthservice.clone() };
    let (mut statuses, mut round_trips) = (BTreeMap::<&str, u64>::new(), Histogram::new(0.0, 10.0));
    for _ in 0..args.count {
        let start = Instant::now();
        let (answer, _) = client.unary::<_, HealthResponse>(HEALTH, &question).await?;
        round_trips.record(start.elapsed().as_secs_f64() * 1e6);
        *statuses.entry(health_name(answer.status)).or_default() += 1;
    }
    round_trips.export(&[50.0]).lines("RTT histogram usec").iter().try_for_each(|line| output::say(line))?;
    statuses.iter().try_for_each(|(status, count)| output::say(&format!("Health {status} : {count}")))?;
    let all_serve = statuses.get("SERVING") == Some(&args.count);
    Ok(if all_serve { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
