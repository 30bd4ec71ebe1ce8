//! Tables, JSON and YAML. The only place that writes to standard output; colours only on a terminal.

use owo_colors::{OwoColorize, Stream, Style};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// How a command shows its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    #[value(alias = "short")]
    Table,
    /// JSON, as the proxy or pilot gave it.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Rows under headings, aligned by spaces as istioctl does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these headings.
    pub fn new(heads: &[&str]) -> Self {
        Self { heads: heads.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the headings are dropped, missing ones stay empty.
    pub fn row<I: IntoIterator<Item = S>, S: Into<String>>(&mut self, cells: I) {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.heads.len(), String::new());
        self.rows.push(row);
    }

    /// Sorts the rows by their cells, the first column first.
    pub fn sort(&mut self) {
        self.rows.sort();
    }

    /// The lines, the headings first; columns are four spaces apart.
    pub fn lines(&self) -> Vec<String> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.chain(self.heads.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("    ").trim_end().to_owned()
        };
        std::iter::once(&self.heads).chain(&self.rows).map(line).collect()
    }
}

/// Shows a result: the table, or the values behind it.
///
/// # Errors
/// Where standard output is closed or a value has no YAML form.
pub fn show(format: Format, table: &Table, values: &Value) -> anyhow::Result<()> {
    match format {
        Format::Table => {
            let lines = table.lines();
            let (head, rows) = lines.split_first().map_or((None, lines.as_slice()), |(h, r)| (Some(h), r));
            if let Some(head) = head {
                say(&paint(head, Style::new().bold()))?;
            }
            rows.iter().try_for_each(|row| say(row))
        }
        Format::Json => say(&serde_json::to_string_pretty(values)?),
        Format::Yaml => {
            let text = serde_saphyr::to_string(values).map_err(|e| anyhow::anyhow!("cannot write YAML: {e}"))?;
            say(text.trim_end())
        }
    }
}

/// One line on standard output.
///
/// # Errors
/// Where it is closed.
pub fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// Text without a newline, shown at once.
///
/// # Errors
/// Where standard output is closed.
pub fn show_now(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// One line on standard error: what is said beside a result.
pub fn note(line: &str) {
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes())); // nowhere left to say it
}

/// Bytes on standard output, as they are.
///
/// # Errors
/// Where it is closed.
pub fn say_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Bytes on standard error, as they are.
///
/// # Errors
/// Where it is closed.
pub fn note_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    std::io::stderr().write_all(bytes)?;
    Ok(())
}

/// A line on standard error that the next one replaces; an empty one removes it. Nothing where that is no terminal.
pub fn progress(line: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        drop(out.write_all(format!("\r\x1b[2K{line}").as_bytes())); // as above
    }
}

/// Whether an error only says that nobody reads the output any more (`meshctl … | head`).
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error with its causes, on standard error.
pub fn complain(error: &anyhow::Error) {
    let text = format!("{}: {error:#}\n", "error".if_supports_color(Stream::Stderr, |t| t.red()));
    drop(std::io::stderr().write_all(text.as_bytes())); // nowhere left to say it
}

/// Text in a style, where standard output takes colours.
pub fn paint(text: &str, style: Style) -> String {
    text.if_supports_color(Stream::Stdout, |t| t.style(style)).to_string()
}

/// A verdict: green or red.
pub fn verdict(good: bool) -> String {
    if good { paint("ok  ", Style::new().green()) } else { paint("MISS", Style::new().red().bold()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let mut table = Table::new(&["NAME", "PORT"]);
        table.row(["réviews", "9080"]);
        table.row(["a"]);
        assert_eq!(table.lines(), ["NAME       PORT", "réviews    9080", "a"]);
    }
}
