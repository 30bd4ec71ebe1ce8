//! The story for people: indented lines, coloured on a terminal.

use super::journey::{Journey, Leg, Verdict};
use super::story::{Endpoint, Step};
use crate::output::paint;
use owo_colors::Style;

/// The lines of a journey.
pub fn lines(journey: &Journey) -> Vec<String> {
    let mut lines = vec![paint(&format!("{} from {}", journey.request, journey.from), Style::new().bold())];
    for leg in &journey.legs {
        lines.push(String::new());
        lines.push(head(leg));
        lines.extend(leg.story.steps.iter().filter(|step| step.station != "outcome").map(step_line));
        let outcome = &leg.story.outcome;
        if outcome.status.is_none() {
            for share in outcome.clusters.iter().filter(|_| outcome.clusters.len() > 1) {
                lines.push(format!("  {:<13} {:>6.1} % to {}", "share", share.percent, share.cluster));
            }
            lines.extend(outcome.endpoints.iter().map(endpoint_line));
        }
        lines.extend(leg.story.not_understood.iter().map(|part| format!("  not understood: {part}")));
    }
    let style = match journey.verdict {
        Verdict::Answered => Style::new().green().bold(),
        Verdict::Denied | Verdict::Failing => Style::new().red().bold(),
    };
    let sign = match journey.verdict {
        Verdict::Answered => "√",
        Verdict::Denied | Verdict::Failing => "×",
    };
    lines.push(String::new());
    lines.push(paint(&format!("{sign} {}", journey.outcome), style));
    lines
}

fn head(leg: &Leg) -> String {
    match (leg.side, &leg.identity) {
        ("outbound", _) => format!("at the proxy of {}, on the way out", leg.workload),
        (_, Some(identity)) => format!("at the proxy of {}, over mutual TLS from {identity}", leg.workload),
        (_, None) => format!("at the proxy of {}, in plaintext", leg.workload),
    }
}

fn step_line(step: &Step) -> String {
    let style = match step.verdict.as_str() {
        "matched" | "passed" => Style::new().green(),
        "denied" | "failed" => Style::new().red(),
        _ => Style::new().yellow(),
    };
    let verdict = paint(&format!("{:<8}", step.verdict), style);
    let origin = match (&step.object, &step.file, step.line) {
        (Some(object), Some(file), Some(line)) => format!("  [{object}, {file}:{line}]"),
        (Some(object), Some(file), None) => format!("  [{object}, {file}]"),
        (Some(object), ..) => format!("  [{object}]"),
        (None, ..) => String::new(),
    };
    format!("  {:<13} {verdict} {}: {}{origin}", step.station, step.name, step.because)
}

fn endpoint_line(endpoint: &Endpoint) -> String {
    let workload = endpoint.workload.as_deref().map(|id| format!("  {id}")).unwrap_or_default();
    format!("  {:<13} {:<8} {} over {}{workload}", "endpoint", endpoint.health, endpoint.address, endpoint.transport)
}
