//! What pilot refuses.

use super::message::Message;
use super::view::View;
use pilot::source::Class;

/// Every problem that pilot has with a file or an object; references are looked at by their own analyzers.
pub fn refused(view: &View<'_>) -> Vec<Message> {
    let problems = view.offline.problems.iter().filter(|problem| problem.class != Class::DanglingReference);
    problems.map(Message::refused).collect()
}
