//! The part of CEL that access-log filters of Istio users are made of: comparisons of numbers of the response and the
//! request, joined by `&&` and `||`.

use super::facts::LogFacts;
use super::filter::{Comparison, Relation};

/// Alternatives, each of which is a list of comparisons that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expression {
    alternatives: Vec<Vec<(Attribute, Comparison)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    ResponseCode,
    ResponseGrpcStatus,
    ResponseSize,
    RequestSize,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// The part that is no comparison of this kind.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let alternative = |part: &str| part.split("&&").map(comparison).collect::<Result<Vec<_>, _>>();
        Ok(Self { alternatives: text.split("||").map(alternative).collect::<Result<_, _>>()? })
    }

    /// Whether the expression holds; an attribute that is not there makes its comparison false.
    pub(super) fn holds(&self, facts: &LogFacts<'_>) -> bool {
        let one = |(attribute, comparison): &(Attribute, Comparison)| {
            attribute.of(facts).is_some_and(|value| comparison.holds(value))
        };
        self.alternatives.iter().any(|all| all.iter().all(one))
    }
}

impl Attribute {
    fn of(self, facts: &LogFacts<'_>) -> Option<u64> {
        match self {
            Self::ResponseCode => facts.status.map(u64::from),
            Self::ResponseGrpcStatus => facts.grpc_status().map(u64::from),
            Self::ResponseSize => Some(facts.bytes.sent),
            Self::RequestSize => Some(facts.bytes.received),
        }
    }
}

fn comparison(part: &str) -> Result<(Attribute, Comparison), String> {
    const RELATIONS: [(&str, Relation); 6] = [
        (">=", Relation::AtLeast),
        ("<=", Relation::AtMost),
        ("==", Relation::Equal),
        ("!=", Relation::NotEqual),
        (">", Relation::More),
        ("<", Relation::Less),
    ];
    let refused = || {
        format!(
            "not supported yet: {:?}; write comparisons such as response.code >= 400, joined by && and ||",
            part.trim()
        )
    };
    let found = RELATIONS.iter().find_map(|(sign, relation)| Some((part.split_once(sign)?, *relation)));
    let ((name, value), relation) = found.ok_or_else(refused)?;
    let attribute = match name.trim() {
        "response.code" => Attribute::ResponseCode,
        "response.grpc_status" => Attribute::ResponseGrpcStatus,
        "response.size" => Attribute::ResponseSize,
        "request.size" => Attribute::RequestSize,
        _ => return Err(refused()),
    };
    let value = value.trim().trim_end_matches('u').parse().map_err(|_| refused())?;
    Ok((attribute, Comparison { relation, value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_joined() {
        let holds = |text: &str, status: u16| {
            Expression::parse(text).unwrap().holds(&LogFacts { status: Some(status), ..LogFacts::default() })
        };
        assert!(holds("response.code >= 400", 400) && !holds("response.code >= 400", 399));
        assert!(holds("response.code < 200 || response.code > 299 && response.code != 404", 500));
        assert!(!holds("response.code < 200 || response.code > 299 && response.code != 404", 404));
        assert!(!holds("response.grpc_status == 0", 200), "not there");
        for wrong in ["", "response.code", "has(x)", "response.code >= x", "connection.mtls == true"] {
            assert!(Expression::parse(wrong).unwrap_err().contains("not supported yet"), "{wrong}");
        }
    }
}
