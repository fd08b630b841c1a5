"""Every example of docs/keyloader.md does what the page says: all of them in one shell, in order."""

import os
import re
import subprocess

import pytest

from harness.paths import KEYLOADER, REPOSITORY

PAGE = REPOSITORY / "docs" / "keyloader.md"


def examples():
    """(command, expected lines) of all sh blocks, a here-document counting as part of its command."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        until = None
        for line in block.splitlines():
            if until:
                found[-1][0] += "\n" + line
                until = None if line == until else until
            elif line.startswith("$ "):
                found.append([line[2:], []])
                here = re.search(r"<<'(\w+)'", line)
                until = here and here[1]
            else:
                found[-1][1].append(line)
    return found


def pattern(lines):
    text = re.escape("\n".join(lines)).replace("…", ".*")
    return re.sub(r"(\\ )+", r"\\s+", text)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    place = tmp_path_factory.mktemp("documentation")
    (place / "bin").mkdir()
    (place / "bin" / "keyloader").symlink_to(KEYLOADER)
    script = "".join(f"{{\n{command}\n}} >answer.{number} 2>&1; echo $? >status.{number}\n"
                     for number, (command, _) in enumerate(examples()))
    environment = {**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "APIKEY_DIR": str(place / "node"),
                   "LC_ALL": "C.UTF-8"}
    subprocess.run(["bash", "-c", script], cwd=place, env=environment, check=True, stdin=subprocess.DEVNULL)
    return [((place / f"answer.{number}").read_text(), int((place / f"status.{number}").read_text()))
            for number in range(len(examples()))]


@pytest.mark.parametrize("number", range(len(examples())), ids=lambda number: examples()[number][0].splitlines()[0][:60])
def test_example(answers, number):
    command, expected = examples()[number]
    answer, status = answers[number]
    assert status == 0, f"$ {command}\n{answer}"
    flags = re.DOTALL if expected and expected[-1] == "…" else 0
    assert re.fullmatch(pattern(expected), answer.strip("\n"), flags), f"$ {command}\n{answer}"


def test_the_page_lists_every_command():
    listed = set()
    for family, words in re.findall(r"^keyloader (\w+)(?: (\S+))?$", PAGE.read_text(), re.MULTILINE):
        listed |= {f"{family} {word}".strip() for word in words.split("|")}
    manual = subprocess.run([KEYLOADER, "manual"], capture_output=True, text=True, check=True).stdout
    assert listed == set(re.findall(r"^\.SS keyloader (.+)$", manual, re.MULTILINE))
