"""The templates that docker's documentation and scripts use."""

from __future__ import annotations

import pytest

from machine.gotemplate import TemplateError, render

DATA = {
    "Name": "web",
    "State": {"Running": True, "ExitCode": 0},
    "Config": {"Env": ["A=1", "B=2"], "Labels": {"a": "b"}},
    "Ports": {"80/tcp": [{"HostPort": "8080"}]},
    "Empty": None,
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Name}}", "web"),
        ("{{ .State.Running }}", "true"),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[a:b]"),
        ("{{.Empty}}", "<no value>"),
        ("{{json .Config.Labels}}", '{"a":"b"}'),
        ("{{.Config.Labels | json}}", '{"a":"b"}'),
        ("{{range .Config.Env}}{{.}};{{end}}", "A=1;B=2;"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if not .State.Running}}a{{else if eq .Name `web`}}b{{else}}c{{end}}", "b"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .Config.Labels "a"}}', "b"),
        ('{{join .Config.Env ","}}', "A=1,B=2"),
        ("{{with .State}}{{.ExitCode}}{{end}}", "0"),
        ("{{len .Config.Env}}", "2"),
        ("{{upper .Name}}", "WEB"),
        ('{{printf "%s-%d" .Name 3}}', "web-3"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* nothing */}}x", "x"),
        ("{{prettyjson .Config.Labels}}", '{\n    "a": "b"\n}'),
    ],
)
def test_render(template: str, expected: str) -> None:
    assert render(template, DATA) == expected


@pytest.mark.parametrize(
    "template", ["{{", "{{.Name", "{{.Nope}}", "{{nope .Name}}", "{{if .Name}}", "{{end}}", "{{}}"]
)
def test_errors(template: str) -> None:
    with pytest.raises(TemplateError, match="template parsing error"):
        render(template, DATA)
