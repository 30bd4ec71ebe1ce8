"""The size report of `make check`: a question, not a rule."""

import pathlib
import re

files = [p for p in pathlib.Path(".").rglob("*.rs") if "target" not in p.parts]
sources = {p: p.read_text().splitlines() for p in files}


def functions(lines):
    """Name and length of each function, by the indentation that rustfmt gives its closing brace."""
    for start, line in enumerate(lines):
        found = re.match(r"( *)(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*fn (\w+)", line)
        if not found:
            continue
        closing = found[1] + "}"
        for end in range(start, len(lines)):
            if lines[end] == closing or (end == start and line.endswith(("}", ";"))):
                yield found[2], end - start + 1
                break


def is_test(path):
    return "tests" in path.parts or path.stem == "tests"


def report(title, rows):
    print(f"\n{title}")
    for size, name in sorted(rows, reverse=True)[:10]:
        print(f"  {size:5}  {name}")


product = {p: lines for p, lines in sources.items() if not is_test(p)}
report("largest files", [(len(lines), str(p)) for p, lines in product.items()])
report("largest functions", [(n, f"{p}: {name}") for p, lines in product.items() for name, n in functions(lines)])

code = []
for lines in product.values():
    cut = next((i for i, line in enumerate(lines) if line.strip() == "#[cfg(test)]"), len(lines))
    code += lines[:cut]
for word in (".clone()", ".unwrap()"):
    count = sum(line.count(word) for line in code)
    print(f"\n{word}: {count} in {len(code)} lines, {1000 * count / len(code):.1f} per 1,000")

rows = {}
for lines in sources.values():
    for line in lines:
        if found := re.search(r"// spec: (.+)", line):
            for row in re.findall(r"[A-Z][A-Z0-9]*-\d+", found[1]):
                rows.setdefault(row.split("-")[0], set()).add(row)
print("\nrows of the specification with a test: " + ", ".join(f"{k} {len(v)}" for k, v in sorted(rows.items())))
print(f"in all {sum(len(v) for v in rows.values())}")
