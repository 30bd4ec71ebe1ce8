//! The difference of two texts, line by line.

/// Lines around a difference that are shown.
const CONTEXT: usize = 2;
/// Most cells of the table of common lines; beyond it everything between the first and the last difference is shown.
const MAX_CELLS: usize = 16 << 20;

/// One line, and in which of the two texts it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Both(&'a str),
    Old(&'a str),
    New(&'a str),
}

/// The lines that differ: `-` old, `+` new, a space for context, `...` where something is left out.
pub fn difference(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same_start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (old.get(same_start..).unwrap_or_default(), new.get(same_start..).unwrap_or_default());
    let same_end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let middle = |rest: &[&'_ str]| rest.len() - same_end;
    let (old_middle, new_middle) = (middle(old_rest), middle(new_rest));
    let mut lines: Vec<Line<'_>> = old.iter().take(same_start).map(|line| Line::Both(line)).collect();
    lines.extend(align(old_rest.get(..old_middle).unwrap_or_default(), new_rest.get(..new_middle).unwrap_or_default()));
    lines.extend(old_rest.iter().skip(old_middle).map(|line| Line::Both(line)));
    excerpt(&lines)
}

/// The longest common lines of both stay, the rest is old or new.
fn align<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let width = new.len() + 1;
    if (old.len() + 1).saturating_mul(width) > MAX_CELLS {
        let (gone, come) = (old.iter().map(|line| Line::Old(line)), new.iter().map(|line| Line::New(line)));
        return gone.chain(come).collect();
    }
    // How many lines are common from here to both ends.
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = match old[i] == new[j] {
                true => common[(i + 1) * width + j + 1] + 1,
                false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Both(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(Line::Old(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
    lines
}

fn excerpt(lines: &[Line<'_>]) -> Vec<String> {
    let near = |at: usize| {
        let around = lines.get(at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(lines.len())).unwrap_or_default();
        around.iter().any(|line| !matches!(line, Line::Both(_)))
    };
    let (mut shown, mut gap) = (Vec::new(), false);
    for (at, line) in lines.iter().enumerate() {
        if !near(at) {
            gap = true;
            continue;
        }
        if std::mem::take(&mut gap) && !shown.is_empty() {
            shown.push("...".to_owned());
        }
        shown.push(match line {
            Line::Both(text) => format!(" {text}"),
            Line::Old(text) => format!("-{text}"),
            Line::New(text) => format!("+{text}"),
        });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown_with_some_context() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl";
        let new = "a\nb\nc\nD\ne\nf\ng\nh\ni\nj\nk\nl\nm";
        let expected = [" b", " c", "-d", "+D", " e", " f", "...", " k", " l", "+m"];
        assert_eq!(difference(old, new), expected);
        assert_eq!(difference("", "x"), ["+x"]);
        assert!(difference(old, old).is_empty());
    }
}
