"""The commands that a page of the documentation shows, run as the page says: all of them in one shell, in order.

Used by tests of pages whose ```sh blocks are sessions: `$ command`, then the answer, in which … stands for anything.
"""

import os
import re
import subprocess

from harness.paths import KEYLOADER


def examples(page):
    """(command, expected lines) of all sh blocks, a here-document counting as part of its command."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
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


def run_examples(page, place, directory):
    """RETURNS: (answer, exit code) of each command. `place`: where they run; `directory`: what they work on."""
    (place / "bin").mkdir()
    (place / "bin" / "keyloader").symlink_to(KEYLOADER)
    script = "".join(f"{{\n{command}\n}} >answer.{number} 2>&1; echo $? >status.{number}\n"
                     for number, (command, _) in enumerate(examples(page)))
    environment = {**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "APIKEY_DIR": str(directory),
                   "LC_ALL": "C.UTF-8"}
    subprocess.run(["bash", "-c", script], cwd=place, env=environment, check=True, stdin=subprocess.DEVNULL)
    return [((place / f"answer.{number}").read_text(), int((place / f"status.{number}").read_text()))
            for number in range(len(examples(page)))]


def check_example(example, answered):
    command, expected = example
    answer, status = answered
    assert status == 0, f"$ {command}\n{answer}"
    shown = answer.strip("\n")
    if expected and expected[-1] == "…":
        is_so = re.fullmatch(_pattern("\n".join(expected)), shown, re.DOTALL)
    else:  # line by line: what does not match is known at once
        lines = shown.split("\n") if shown else []
        is_so = len(lines) == len(expected) and all(map(re.fullmatch, map(_pattern, expected), lines))
    assert is_so, f"$ {command}\n{answer}"


def _pattern(text):
    text = re.escape(text).replace("…", ".*")
    return re.sub(r"(\\ )+", r"\\s+", text)
