//! What pilot's webhook warns of when an object is applied, in the same words.

use super::code::Code;
use super::message::Message;
use super::view::View;
use pilot::model::caution::{Surprise, cautions};
use pilot::source::Kind;

/// Policies that close TCP ports.
pub fn policies(view: &View<'_>) -> Vec<Message> {
    of(view, Kind::AuthorizationPolicy)
}

/// Rules behind one without a match, and matches that an earlier rule has.
pub fn routes(view: &View<'_>) -> Vec<Message> {
    of(view, Kind::VirtualService)
}

/// TCP ports of ServiceEntries without addresses.
pub fn entries(view: &View<'_>) -> Vec<Message> {
    of(view, Kind::ServiceEntry)
}

fn of(view: &View<'_>, kind: Kind) -> Vec<Message> {
    let mut found = Vec::new();
    for object in view.kind(kind) {
        for caution in cautions(object, &view.offline.mesh.config) {
            let text = match caution.surprise {
                Surprise::ClosesTcp => format!("Schema validation warning: {}", caution.text),
                _ => caution.text,
            };
            found.push(Message::at(code(caution.surprise), object, &caution.field, text));
        }
    }
    found
}

fn code(surprise: Surprise) -> Code {
    match surprise {
        Surprise::ClosesTcp => Code::SchemaWarning,
        Surprise::UnreachableRule => Code::VirtualServiceUnreachableRule,
        Surprise::IneffectiveMatch => Code::VirtualServiceIneffectiveMatch,
        Surprise::AddressesRequired => Code::ServiceEntryAddressesRequired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_one_that_an_object_silences_at_the_webhook() {
        use Surprise::{AddressesRequired, ClosesTcp, IneffectiveMatch, UnreachableRule};
        for surprise in [ClosesTcp, UnreachableRule, IneffectiveMatch, AddressesRequired] {
            assert_eq!(code(surprise).text(), surprise.code());
        }
    }
}
