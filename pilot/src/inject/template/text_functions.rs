//! Functions of templates that make texts.

use super::functions::{Function, at, is_true, number, printed};
use serde_json::{Value, json};

/// Longest text that a function makes.
const MAX_BYTES: usize = 1 << 20;
/// Most spaces of an indent.
const MAX_INDENT: usize = 256;

/// Name → function.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("printf", printf),
    ("quote", |a| Ok(a.iter().map(|value| json!(printed(value)).to_string()).collect::<Vec<_>>().join(" ").into())),
    ("squote", |a| Ok(format!("'{}'", printed(at(a, 0)?)).into())),
    ("trim", |a| Ok(printed(at(a, 0)?).trim().into())),
    ("trimAll", |a| Ok(printed(at(a, 1)?).trim_matches(|c| printed(&a[0]).contains(c)).into())),
    ("trimPrefix", |a| Ok(cut(&printed(at(a, 1)?), |text| text.strip_prefix(printed(&a[0]).as_str())).into())),
    ("trimSuffix", |a| Ok(cut(&printed(at(a, 1)?), |text| text.strip_suffix(printed(&a[0]).as_str())).into())),
    ("trunc", |a| Ok(truncated(&printed(at(a, 1)?), number(&a[0])).into())),
    ("lower", |a| Ok(printed(at(a, 0)?).to_lowercase().into())),
    ("toLower", |a| Ok(printed(at(a, 0)?).to_lowercase().into())),
    ("upper", |a| Ok(printed(at(a, 0)?).to_uppercase().into())),
    ("replace", replace),
    ("contains", |a| Ok(printed(at(a, 1)?).contains(&printed(&a[0])).into())),
    ("hasPrefix", |a| Ok(printed(at(a, 1)?).starts_with(&printed(&a[0])).into())),
    ("hasSuffix", |a| Ok(printed(at(a, 1)?).ends_with(&printed(&a[0])).into())),
    ("join", join),
    ("splitList", |a| Ok(printed(at(a, 1)?).split(&printed(&a[0])).collect::<Vec<_>>().into())),
    ("indent", |a| limited(indented(&printed(at(a, 1)?), spaces(&a[0])?))),
    ("nindent", nindent),
    ("directory", |a| Ok(directory(&printed(at(a, 0)?)).into())),
    ("kubevirtInterfaces", |a| Ok(at(a, 0)?.clone())),
    ("excludeInterfaces", |a| Ok(at(a, 0)?.clone())),
    ("formatDuration", |a| Ok(at(a, 0)?.clone())),
    ("fail", |a| Err(printed(at(a, 0)?))),
    ("required", |a| if is_true(at(a, 1)?) { Ok(a[1].clone()) } else { Err(printed(&a[0])) }),
];

fn limited(text: String) -> Result<Value, String> {
    if text.len() > MAX_BYTES { Err(too_long()) } else { Ok(text.into()) }
}

fn too_long() -> String {
    format!("it makes more than {MAX_BYTES} bytes")
}

fn cut(text: &str, cut: impl Fn(&str) -> Option<&str>) -> String {
    cut(text).unwrap_or(text).to_owned()
}

/// The first characters, or the last ones where the number is negative.
fn truncated(text: &str, count: i64) -> String {
    let keep = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let all = text.chars().count();
    if count < 0 { text.chars().skip(all.saturating_sub(keep)).collect() } else { text.chars().take(keep).collect() }
}

fn spaces(count: &Value) -> Result<String, String> {
    let count = usize::try_from(number(count)).ok().filter(|count| *count <= MAX_INDENT);
    count.map(|count| " ".repeat(count)).ok_or_else(|| format!("use 0 to {MAX_INDENT} spaces"))
}

/// Every line but the first behind these spaces, as Istio's `indent`.
fn indented(text: &str, spaces: String) -> String {
    text.split('\n').collect::<Vec<_>>().join(&format!("\n{spaces}"))
}

fn nindent(arguments: &[Value]) -> Result<Value, String> {
    let (text, spaces) = (printed(at(arguments, 1)?), spaces(&arguments[0])?);
    limited(format!("\n{spaces}{}", indented(&text, spaces.clone())))
}

fn replace(arguments: &[Value]) -> Result<Value, String> {
    let (text, old, new) = (printed(at(arguments, 2)?), printed(&arguments[0]), printed(&arguments[1]));
    let added = text.matches(&old).count().saturating_mul(new.len());
    if added > MAX_BYTES { Err(too_long()) } else { limited(text.replace(&old, &new)) }
}

fn join(arguments: &[Value]) -> Result<Value, String> {
    let (mut text, separator) = (String::new(), printed(at(arguments, 0)?));
    for (index, item) in at(arguments, 1)?.as_array().into_iter().flatten().enumerate() {
        if index > 0 {
            text.push_str(&separator);
        }
        text.push_str(&printed(item));
        if text.len() > MAX_BYTES {
            return Err(too_long());
        }
    }
    Ok(text.into())
}

fn directory(path: &str) -> String {
    path.rsplit_once('/').map(|(directory, _)| format!("{directory}/")).unwrap_or_default()
}

/// `printf` with `%s %v %d %t %q %%`.
fn printf(arguments: &[Value]) -> Result<Value, String> {
    let format = printed(at(arguments, 0)?);
    let mut values = arguments.iter().skip(1);
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let verb = chars.next().unwrap_or(' ');
        let value = if verb == '%' { &Value::Null } else { values.next().ok_or("it has too few values")? };
        match verb {
            '%' => text.push('%'),
            's' | 'v' | 'd' | 't' => text.push_str(&printed(value)),
            'q' => text.push_str(&json!(printed(value)).to_string()),
            other => return Err(format!("%{other} is not supported")),
        }
    }
    limited(text)
}
