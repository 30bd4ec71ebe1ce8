//! `envoy.filters.http.jwt_authn`: tokens of end users, verified by keys that the configuration brings (RA-1 to RA-10).
//!
//! Whatever cannot be verified is refused. What a verified token says is left as metadata, for RBAC and logs.

mod config;
mod find;
mod leave;

pub use config::{Override, parse, parse_override};

use super::{Decision, Step, StreamCx, plain};
use crate::message::{Known, Request, RequestHead};
use crate::outcome::{Outcome, Reason};
use crate::route::Condition;
use find::{Found, Place};
use identity::jwks::KeySet;
use identity::jwt::{Claims, TokenError, TokenRules, Unverified};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// The filter's name, under which routes have their own configuration and what tokens say is kept.
pub const NAME: &str = "envoy.filters.http.jwt_authn";

/// Longest part of a path that is shown as realm, in bytes (Envoy's `MaxRealmLength`).
const MAX_REALM_PATH_BYTES: usize = 256;

/// The filter.
#[derive(Debug)]
pub struct JwtAuthn {
    providers: Box<[Provider]>,
    /// The first whose condition holds decides; without one every request passes.
    rules: Box<[(Condition, Option<Requirement>)]>,
    named: BTreeMap<Box<str>, Requirement>,
    /// CORS preflights carry no token.
    bypass_preflight: bool,
}

/// Who issues tokens, where they stand in a request, and what is left of them.
#[derive(Debug)]
struct Provider {
    rules: TokenRules,
    keys: KeySet,
    places: Box<[Place]>,
    /// The token goes on to the upstream.
    forward: bool,
    /// Header for the payload, and whether it is padded.
    payload_header: Option<(Box<[u8]>, bool)>,
    claim_headers: Box<[ClaimHeader]>,
    /// Key of the metadata for the payload.
    metadata: Box<str>,
    /// Claims whose words become a list there.
    spaced: Box<[Box<str>]>,
    clear_route: bool,
}

/// A header, and the keys down to the claim that it shows.
type ClaimHeader = (Box<[u8]>, Box<[Box<str>]>);

/// What a request must bring.
#[derive(Debug)]
enum Requirement {
    /// A token of this provider; other audiences than the provider's, if any.
    Provider(usize, Option<TokenRules>),
    /// One of these.
    Any(Box<[Self]>),
    /// All of these.
    All(Box<[Self]>),
    /// No token of these providers, or a good one.
    AllowMissing(Box<[usize]>),
    /// Anything; good tokens of these providers are made known.
    AllowMissingOrFailed(Box<[usize]>),
}

/// Why a requirement is not met, from the weakest reason to the one that tells most.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    Missing,
    Bad(TokenError),
}

impl Failure {
    fn text(&self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::Bad(error) => error.text(),
        }
    }

    /// A wrong token of the right issuer says more than a token of another one, and that more than none.
    fn weight(&self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::Bad(TokenError::Issuer { .. }) => 1,
            Self::Bad(_) => 2,
        }
    }
}

/// A token that was verified.
struct Verified {
    provider: usize,
    place: Place,
    claims: Claims,
    /// As it stands in the token.
    payload: Box<str>,
}

/// What was seen of a request's tokens.
struct Seen {
    now: SystemTime,
    verified: Vec<Verified>,
    /// Those that a provider refused by its own rules.
    refused: Vec<(usize, Place, TokenError)>,
}

impl JwtAuthn {
    pub(super) fn on_request<'a>(&'a self, rq: &'a mut Request, cx: &'a StreamCx) -> Step<'a> {
        for provider in &self.providers {
            provider.remove_forged(&mut rq.head);
        }
        if self.bypass_preflight && is_preflight(&rq.head) {
            return Step::CONTINUE;
        }
        let own = cx.override_of::<Override>(&rq.head, NAME);
        let required = match own.as_deref() {
            Some(Override::Off) => None,
            Some(Override::Named(name)) => self.named.get(name),
            None => {
                let holds = |(condition, _): &&(Condition, _)| condition.holds(&rq.head, cx.random);
                self.rules.iter().find(holds).and_then(|(_, requirement)| requirement.as_ref())
            }
        };
        let Some(required) = required else { return Step::CONTINUE };
        let mut seen = Seen { now: cx.facts.env.wall(cx.now()), verified: Vec::new(), refused: Vec::new() };
        match self.check(required, &rq.head, &mut seen) {
            Ok(()) => {
                for token in seen.verified {
                    self.leave(token, &mut rq.head, cx);
                }
                Step::CONTINUE
            }
            Err(failure) => Step::Done(Decision::Reply(Box::new(refuse(&failure, &rq.head, cx)))),
        }
    }

    /// Whether a request meets a requirement; what was seen of its tokens on the way is noted.
    fn check(&self, required: &Requirement, head: &RequestHead, seen: &mut Seen) -> Result<(), Failure> {
        match required {
            Requirement::Provider(index, audiences) => {
                let provider = self.providers.get(*index).ok_or(Failure::Missing)?;
                let found = find::tokens(&provider.places, head);
                if found.is_empty() {
                    return Err(Failure::Missing);
                }
                let rules = audiences.as_ref().unwrap_or(&provider.rules);
                for token in found {
                    let place = token.place.clone();
                    match provider.verify(*index, rules, token, seen.now) {
                        Ok(token) => seen.verified.push(token),
                        Err(error) => {
                            if audiences.is_none() {
                                seen.refused.push((*index, place, error.clone()));
                            }
                            return Err(Failure::Bad(error));
                        }
                    }
                }
                Ok(())
            }
            Requirement::All(all) => all.iter().try_for_each(|one| self.check(one, head, seen)),
            Requirement::Any(any) => {
                let known = seen.verified.len();
                let mut failure = Failure::Missing;
                for one in any {
                    match self.check(one, head, seen) {
                        Ok(()) => return Ok(()),
                        Err(other) if other.weight() >= failure.weight() => failure = other,
                        Err(_) => {}
                    }
                    seen.verified.truncate(known);
                }
                Err(failure)
            }
            Requirement::AllowMissing(of) => {
                for token in self.tokens_of(of, head) {
                    let token = self.issued_by_one(of, token, seen).map_err(Failure::Bad)?;
                    seen.verified.push(token);
                }
                Ok(())
            }
            Requirement::AllowMissingOrFailed(of) => {
                for token in self.tokens_of(of, head) {
                    seen.verified.extend(self.issued_by_one(of, token, seen).ok());
                }
                Ok(())
            }
        }
    }

    /// The tokens in these providers' places.
    fn tokens_of(&self, of: &[usize], head: &RequestHead) -> Vec<Found> {
        let mut places: Vec<Place> = Vec::new();
        for place in of.iter().filter_map(|index| self.providers.get(*index)).flat_map(|provider| &provider.places) {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        find::tokens(&places, head)
    }

    /// A token, verified by the first of these providers that has its issuer and looks for tokens there.
    fn issued_by_one(&self, of: &[usize], token: Found, seen: &Seen) -> Result<Verified, TokenError> {
        let first = |issuer: Option<&String>| {
            let mut providers = of.iter().filter_map(|index| Some((*index, self.providers.get(*index)?)));
            providers.find(|(_, provider)| {
                (provider.rules.issuer.is_none() || provider.rules.issuer.as_ref() == issuer)
                    && provider.places.contains(&token.place)
            })
        };
        // One that its provider has refused already is not read once more.
        let of_issuer = |(index, place, error): &&(usize, Place, TokenError)| {
            let issuer = self.providers.get(*index).and_then(|provider| provider.rules.issuer.as_ref());
            let same = issuer.is_some() && first(issuer).is_some_and(|(other, _)| other == *index);
            *place == token.place && same && !matches!(error, TokenError::Issuer { .. })
        };
        if let Some((.., error)) = seen.refused.iter().find(of_issuer) {
            return Err(error.clone());
        }
        let read = Unverified::parse(&token.text)?;
        let unknown = || TokenError::Issuer { expected: "one of the providers'".to_owned() };
        let (index, provider) = first(read.claims().issuer.as_ref()).ok_or_else(unknown)?;
        provider.verify_read((index, &token.place), &provider.rules, read, seen.now)
    }
}

impl Provider {
    fn verify(&self, index: usize, rules: &TokenRules, token: Found, now: SystemTime) -> Result<Verified, TokenError> {
        self.verify_read((index, &token.place), rules, Unverified::parse(&token.text)?, now)
    }

    fn verify_read(
        &self,
        (index, place): (usize, &Place),
        rules: &TokenRules,
        read: Unverified<'_>,
        now: SystemTime,
    ) -> Result<Verified, TokenError> {
        rules.check(read.claims(), now)?;
        let payload = read.payload().into();
        let claims = read.verify(&self.keys)?;
        Ok(Verified { provider: index, place: place.clone(), claims, payload })
    }
}

/// Who a verified token is of, as policies write it: issuer and subject (RA-5).
pub fn principal(cx: &StreamCx) -> Option<String> {
    let info = cx.info.borrow();
    let payload = info.metadata.as_ref()?.get(NAME)?.as_object()?.values().next()?;
    let text = |name: &str| payload.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    Some(format!("{}/{}", text("iss"), text("sub")))
}

fn is_preflight(head: &RequestHead) -> bool {
    head.method() == b"OPTIONS"
        && head.headers.get(Known::Origin).is_some_and(|origin| !origin.is_empty())
        && head.headers.get(Known::AccessControlRequestMethod).is_some_and(|method| !method.is_empty())
}

/// 401, or 403 where the token is good but for others; with what RFC 6750, section 3 asks for.
fn refuse(failure: &Failure, head: &RequestHead, cx: &StreamCx) -> crate::message::Response {
    cx.note(Outcome::with_detail(Reason::JwtDenied, failure.text()));
    let status = if matches!(failure, Failure::Bad(TokenError::Audience { .. })) { 403 } else { 401 };
    let mut response = plain(status, failure.text(), head);
    let path = head.path();
    let path = path.get(..MAX_REALM_PATH_BYTES).unwrap_or(path);
    let scheme = head.headers.get(Known::XForwardedProto).unwrap_or_else(|| head.scheme());
    let mut realm = [b"Bearer realm=\"", scheme, b"://", head.authority(), path, b"\""].concat();
    if *failure != Failure::Missing {
        realm.extend_from_slice(b", error=\"invalid_token\"");
    }
    response.head.headers.append_known(Known::WwwAuthenticate, &realm);
    response
}

#[cfg(test)]
mod tests;
