//! Lines and groups, and how they look.

use crate::output::paint;
use owo_colors::Style;
use serde_json::{Value, json};

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Result {
    /// As it should be.
    Success,
    /// It works, and somebody should look.
    Warning,
    /// It does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What should be the case.
    pub description: String,
    /// Whether it is.
    pub result: Result,
    /// What is wrong.
    pub error: String,
    /// What to do about it.
    pub hint: String,
}

impl Line {
    /// All is well.
    pub fn good(description: impl Into<String>) -> Self {
        Self { description: description.into(), result: Result::Success, error: String::new(), hint: String::new() }
    }

    /// Something should be looked at.
    pub fn warning(description: impl Into<String>, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { result: Result::Warning, error: error.into(), hint: hint.into(), ..Self::good(description) }
    }

    /// Something does not work.
    pub fn bad(description: impl Into<String>, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { result: Result::Error, ..Self::warning(description, error, hint) }
    }

    /// Good where nothing is wrong, else `kind` with what is wrong.
    pub fn of(description: &str, wrong: &[String], hint: &str, kind: Result) -> Self {
        if wrong.is_empty() {
            return Self::good(description);
        }
        let shown = wrong.iter().take(MOST_SHOWN).cloned().collect::<Vec<_>>().join("\n");
        let more = wrong.len().saturating_sub(MOST_SHOWN);
        let error = if more > 0 { format!("{shown}\nand {more} more") } else { shown };
        Self { result: kind, ..Self::warning(description, error, hint) }
    }
}

/// How many things that are wrong one line shows.
const MOST_SHOWN: usize = 5;

/// Lines about one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// All groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they rest on each other.
    pub groups: Vec<Group>,
}

impl Report {
    /// The worst line.
    pub fn worst(&self) -> Result {
        let lines = self.groups.iter().flat_map(|group| &group.lines);
        lines.map(|line| line.result).max().unwrap_or(Result::Success)
    }

    /// The lines for people; `all` shows what is well too.
    pub fn text(&self, all: bool) -> Vec<String> {
        let mut text = Vec::new();
        for group in &self.groups {
            let lines: Vec<&Line> = group.lines.iter().filter(|line| all || line.result != Result::Success).collect();
            if lines.is_empty() {
                continue;
            }
            text.push(paint(group.name, Style::new().bold()));
            text.push("-".repeat(group.name.chars().count()));
            for line in lines {
                text.push(format!("{} {}", sign(line.result), line.description));
                text.extend(line.error.lines().map(|error| format!("    {error}")));
                text.extend((!line.hint.is_empty()).then(|| format!("    what to do: {}", line.hint)));
            }
            text.push(String::new());
        }
        text.push(format!("Status check results are {}", sign(self.worst())));
        text
    }

    /// As linkerd writes it with `-o json`.
    pub fn json(&self) -> Value {
        let line = |line: &Line| {
            let mut value = json!({"description": line.description, "result": word(line.result)});
            for (key, text) in [("error", &line.error), ("hint", &line.hint)] {
                if !text.is_empty() {
                    value[key] = json!(text);
                }
            }
            value
        };
        let group = |group: &Group| json!({"categoryName": group.name, "checks": group.lines.iter().map(line).collect::<Vec<_>>()});
        let groups: Vec<Value> = self.groups.iter().map(group).collect();
        json!({"success": self.worst() != Result::Error, "categories": groups})
    }
}

fn word(result: Result) -> &'static str {
    match result {
        Result::Success => "success",
        Result::Warning => "warning",
        Result::Error => "error",
    }
}

fn sign(result: Result) -> String {
    match result {
        Result::Success => paint("√", Style::new().green()),
        Result::Warning => paint("‼", Style::new().yellow()),
        Result::Error => paint("×", Style::new().red()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CT-40
    #[test]
    fn a_report_has_linkerds_shape() {
        let lines = vec![Line::good("it answers"), Line::bad("it is current", "a\nb", "wait")];
        let report = Report { groups: vec![Group { name: "pilot", lines }] };
        let lines = report.text(true);
        assert_eq!(lines[..3], ["pilot", "-----", "√ it answers"]);
        assert_eq!(lines[3..7], ["× it is current", "    a", "    b", "    what to do: wait"]);
        assert_eq!(lines.last().unwrap(), "Status check results are ×");
        assert!(!report.text(false).iter().any(|line| line.contains("it answers")));
        let json = report.json();
        assert_eq!((&json["success"], &json["categories"][0]["checks"][1]["result"]), (&json!(false), &json!("error")));
    }

    #[test]
    fn a_long_list_is_cut() {
        let wrong: Vec<String> = (0..8).map(|n| n.to_string()).collect();
        assert!(Line::of("x", &wrong, "", Result::Warning).error.ends_with("4\nand 3 more"));
        assert_eq!(Line::of("x", &[], "y", Result::Error), Line::good("x"));
    }
}
