//! The way of a request through two proxies: of who asks, and of who is asked.

use super::program::Program;
use super::source::{Source, Workload};
use super::story::Story;
use anyhow::Context;
use serde::Serialize;
use std::net::SocketAddr;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method.
    pub method: String,
    /// `http://HOST:PORT/PATH`.
    pub url: String,
    /// `name: value`.
    pub headers: Vec<String>,
    /// Who asks: a workload's name.
    pub from: String,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A server answers, or a route does with a status below 400.
    Answered,
    /// A policy refuses it.
    Denied,
    /// It does not get through.
    Failing,
}

/// One proxy on the way.
#[derive(Debug, Clone, Serialize)]
pub struct Leg {
    /// Whose proxy it is, as `NAME.NAMESPACE`.
    pub workload: String,
    /// `outbound` or `inbound`.
    pub side: &'static str,
    /// Who asks, as the server sees it; none in plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What its proxy decides.
    pub story: Story,
}

/// The whole way.
#[derive(Debug, Clone, Serialize)]
pub struct Journey {
    /// `METHOD URL`.
    pub request: String,
    /// Who asks, as `NAME.NAMESPACE`.
    pub from: String,
    /// The proxies, in the order of the way.
    pub legs: Vec<Leg>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Status that a proxy answers with; none where the server answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Who answers, or why nobody does.
    pub outcome: String,
}

impl Journey {
    /// Explains a request.
    ///
    /// # Errors
    /// Where the workload is not known or has no proxy, or the request is malformed.
    pub async fn explain(source: &Source, program: &Program, request: &Request) -> anyhow::Result<Self> {
        let asking = source.workload(&request.from)?;
        let dump = source.configuration(asking).await?.with_context(|| {
            format!("{} has no proxy that is connected to pilot: nothing decides on its way out", asking.id())
        })?;
        let mut arguments = vec![format!("--namespace={}", asking.namespace)];
        arguments.extend(request.headers.iter().map(|header| format!("--header={header}")));
        let ask = |more: &[String]| {
            let last = ["--".to_owned(), request.method.clone(), request.url.clone()];
            [arguments.as_slice(), more, &last].concat()
        };
        let story = program.explain(&dump, &ask(&[])).await?;
        let next = story.outcome.next();
        let mut legs = vec![Leg { workload: asking.id(), side: "outbound", identity: None, story }];
        let mut note = None;
        if let Some((address, mutual_tls)) = next {
            let Some(asked) = source.at(address.ip()) else {
                note = Some(outside(&legs, address));
                return Ok(Self::of(source, (request, asking), legs, note));
            };
            let identity = mutual_tls.then(|| asking.identity(source.trust_domain()));
            let more = inbound(asking, address, identity.as_deref());
            match source.configuration(asked).await? {
                None => note = Some(format!("{} answers at {address}: it has no proxy", asked.id())),
                Some(dump) => {
                    let story = program.explain(&dump, &ask(&more)).await?;
                    legs.push(Leg { workload: asked.id(), side: "inbound", identity, story });
                }
            }
        }
        Ok(Self::of(source, (request, asking), legs, note))
    }

    fn of(source: &Source, (request, asking): (&Request, &Workload), mut legs: Vec<Leg>, note: Option<String>) -> Self {
        for story in legs.iter_mut().map(|leg| &mut leg.story) {
            for step in &mut story.steps {
                step.spell_out();
                step.object = step.origin();
                if let Some((file, line)) = step.object.as_deref().and_then(|object| source.written(object)) {
                    (step.file, step.line) = (Some(file), line);
                }
            }
            for endpoint in &mut story.outcome.endpoints {
                let ip = endpoint.address.rsplit_once(':').map_or("", |(ip, _)| ip.trim_matches(['[', ']']));
                endpoint.workload = ip.parse().ok().and_then(|ip| source.at(ip)).map(Workload::id);
            }
        }
        let (verdict, status, outcome) = conclude(&legs, note);
        let request = format!("{} {}", request.method.to_ascii_uppercase(), request.url);
        Self { request, from: asking.id(), legs, verdict, status, outcome }
    }
}

/// What becomes of the request: what the last proxy on its way says.
fn conclude(legs: &[Leg], note: Option<String>) -> (Verdict, Option<u16>, String) {
    let Some(leg) = legs.last() else { return (Verdict::Failing, None, "nobody was asked".to_owned()) };
    let outcome = &leg.story.outcome;
    let last = |verdict: &str| leg.story.steps.iter().rev().find(|step| step.verdict == verdict);
    let by = |text: &str| format!("the proxy of {} {text}", leg.workload);
    if outcome.status.is_none() && !outcome.is_closed() {
        return (Verdict::Answered, None, note.unwrap_or_else(|| format!("{} answers", leg.workload)));
    }
    let denied = leg.story.steps.iter().rev().find(|step| step.verdict == "denied" && step.station == "policy");
    let said = match outcome.status {
        Some(status) => format!("answers {status}"),
        None => "closes the connection".to_owned(),
    };
    let said = by(&said);
    if let Some(step) = denied {
        return (Verdict::Denied, outcome.status, format!("{said}: {} ({})", step.because, step.name));
    }
    if outcome.status.is_some_and(|status| status < 400) {
        return (Verdict::Answered, outcome.status, said);
    }
    let why = last("failed").map(|step| format!("{} {}: {}", step.station, step.name, step.because));
    let why = why.unwrap_or_else(|| format!("{} {}", outcome.flags, outcome.details));
    (Verdict::Failing, outcome.status, format!("{said}: {why}"))
}

/// Who answers where it is no workload of the mesh.
fn outside(legs: &[Leg], address: SocketAddr) -> String {
    let mut steps = legs.iter().flat_map(|leg| &leg.story.steps);
    match steps.find(|step| step.station == "name" && step.verdict == "unknown") {
        Some(step) => {
            let name = step.name.split(':').next().unwrap_or_default();
            format!("whoever has the name {name} answers, if anybody: no service of the mesh has it")
        }
        None => format!("{address} answers: no workload of the mesh has this address"),
    }
}

fn inbound(asking: &Workload, to: SocketAddr, identity: Option<&str>) -> Vec<String> {
    let mut more = vec!["--side=inbound".to_owned(), format!("--to-address={to}")];
    more.extend(identity.map(|identity| format!("--from-identity={identity}")));
    more.extend(asking.addresses.first().map(|from| format!("--from-address={from}")));
    more
}

#[cfg(test)]
mod tests {
    use super::super::story::{Outcome, Step};
    use super::*;

    fn leg(outcome: Outcome, steps: &[(&str, &str, &str)]) -> Leg {
        let step = |(station, verdict, because): &(&str, &str, &str)| Step {
            station: (*station).to_owned(),
            verdict: (*verdict).to_owned(),
            because: (*because).to_owned(),
            name: "n".to_owned(),
            ..Step::default()
        };
        let story = Story { outcome, steps: steps.iter().map(step).collect(), ..Story::default() };
        Leg { workload: "a.b".into(), side: "inbound", identity: None, story }
    }

    // spec: CT-60
    #[test]
    fn the_last_proxy_decides_what_becomes_of_it() {
        let answered = leg(Outcome::default(), &[("route", "matched", "")]);
        assert_eq!(conclude(&[answered], None), (Verdict::Answered, None, "a.b answers".to_owned()));
        let denied = Outcome { status: Some(403), ..Outcome::default() };
        let (verdict, status, text) =
            conclude(&[leg(denied, &[("policy", "denied", "no rule allows"), ("outcome", "denied", "")])], None);
        assert_eq!((verdict, status), (Verdict::Denied, Some(403)));
        assert_eq!(text, "the proxy of a.b answers 403: no rule allows (n)");
        let redirect = Outcome { status: Some(301), flags: "-".into(), ..Outcome::default() };
        assert_eq!(conclude(&[leg(redirect, &[])], None).0, Verdict::Answered);
        let closed = Outcome { flags: "NR".into(), ..Outcome::default() };
        assert_eq!(conclude(&[leg(closed, &[("outcome", "failed", "no listener")])], None).0, Verdict::Failing);
        let missing = Outcome { status: Some(503), flags: "UH".into(), ..Outcome::default() };
        assert_eq!(conclude(&[leg(missing, &[("cluster", "failed", "0 of 0")])], None).0, Verdict::Failing);
    }
}
