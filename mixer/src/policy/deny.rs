//! The adapter `denier` (MX-72): always the same refusal.

use super::code::Code;
use super::decision::{Answer, Direct};
use crate::yaml::{Fault, Place};
use std::time::Duration;

/// How long a refusal holds.
const VALID_DURATION: Duration = Duration::from_secs(5);
/// For how many requests it holds.
const VALID_USE_COUNT: u32 = 1_000;

/// A configured denier.
#[derive(Debug, Clone)]
pub struct Denier {
    answer: Answer,
}

impl Denier {
    /// Reads `params`.
    ///
    /// # Errors
    /// An unknown field or a value out of range.
    pub fn parse(params: &Place<'_>) -> Result<Self, Fault> {
        let mut fields = params.fields()?;
        let (code, message, direct) =
            fields.get("status").map_or_else(|| Ok(default_status()), |place| status(&place))?;
        let valid_for = fields.duration("validDuration", VALID_DURATION)?;
        let uses = fields.get("validUseCount").map_or(Ok(VALID_USE_COUNT), |place| use_count(&place))?;
        fields.done()?;
        Ok(Self { answer: Answer { direct, ..Answer::of(code, message, valid_for, Some(uses)) } })
    }

    /// The refusal.
    pub fn check(&self) -> Answer {
        self.answer.clone()
    }
}

fn default_status() -> (Code, String, Option<Direct>) {
    (Code::FAILED_PRECONDITION, String::new(), None)
}

/// A number of uses.
///
/// # Errors
/// Where it is negative or too large.
pub fn use_count(place: &Place<'_>) -> Result<u32, Fault> {
    u32::try_from(place.int()?).map_err(|_| place.fault("a count from 0 to 4294967295 is asked for"))
}

/// `google.rpc.Status`, with a `DirectHttpResponse` among its details (MX-25).
fn status(place: &Place<'_>) -> Result<(Code, String, Option<Direct>), Fault> {
    let mut fields = place.fields()?;
    let code = match fields.get("code") {
        None => Code::FAILED_PRECONDITION,
        Some(code) => Code::numbered(code.int()?)
            .filter(|code| *code != Code::OK)
            .ok_or_else(|| code.fault("a code of gRPC from 1 to 16 is asked for, such as 7 for PERMISSION_DENIED"))?,
    };
    let message = fields.text("message")?;
    let mut found = None;
    for detail in fields.list("details")? {
        found = Some(direct(&detail)?);
    }
    fields.done()?;
    Ok((code, message, found))
}

fn direct(place: &Place<'_>) -> Result<Direct, Fault> {
    let mut fields = place.fields()?;
    let kind = fields.text("@type")?;
    if !kind.ends_with("istio.policy.v1beta1.DirectHttpResponse") {
        return Err(place.fault("the detail that is understood is istio.policy.v1beta1.DirectHttpResponse"));
    }
    let status = match fields.get("code") {
        None => 0,
        Some(code) => u16::try_from(code.int()?)
            .ok()
            .filter(|status| *status == 0 || (200..600).contains(status))
            .ok_or_else(|| code.fault("an HTTP status from 200 to 599 is asked for"))?,
    };
    let mut headers = Vec::new();
    if let Some(place) = fields.get("headers") {
        for (name, value) in place.entries()? {
            headers.push((name.to_ascii_lowercase(), value.text()?));
        }
    }
    let body = fields.text("body")?;
    fields.done()?;
    Ok(Direct { status, body, headers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Node;

    fn parse(text: &str) -> Result<Denier, Fault> {
        Denier::parse(&Place::new(&Node::parse(text, 1).unwrap(), "spec.params"))
    }

    // spec: MX-72
    #[test]
    fn the_defaults_are_istios() {
        let answer = parse("{}").unwrap().check();
        let expected = (Code::FAILED_PRECONDITION, Duration::from_secs(5), Some(1000));
        assert_eq!((answer.code, answer.valid_for, answer.uses), expected);
        let answer = parse("status: {code: 7, message: Not allowed}\nvalid_duration: 1s\nvalidUseCount: 3").unwrap();
        let answer = answer.check();
        assert_eq!((answer.code, answer.message.as_str()), (Code::PERMISSION_DENIED, "Not allowed"));
        assert_eq!((answer.valid_for, answer.uses), (Duration::from_secs(1), Some(3)));
        assert!(parse("status: {code: 0}").unwrap_err().message.contains("1 to 16"), "a denier denies");
        assert_eq!(parse("stauts: {}").unwrap_err().field, "spec.params.stauts");
    }

    // spec: MX-25
    #[test]
    fn a_detail_says_how_the_answer_looks() {
        let text = "status:\n  code: 5\n  details:\n  - {'@type': type.googleapis.com/istio.policy.v1beta1.DirectHttpResponse, code: 418, body: tea, headers: {X-A: b}}";
        let direct = parse(text).unwrap().check().direct.unwrap();
        assert_eq!((direct.status, direct.body.as_str()), (418, "tea"));
        assert_eq!(direct.headers, [("x-a".to_owned(), "b".to_owned())]);
        assert!(parse("status: {details: [{'@type': other}]}").is_err());
    }
}
