"""Ten ordinary jobs in every library: they run, they are counted rightly, and the guide says what was counted."""

import json
import re
import sys

import pytest
from commands import run
from notebooks import ROOT

sys.path.insert(0, str(ROOT / "tests" / "benchmarks" / "jobs"))
import statements

STORED = json.loads((ROOT / "book" / "results" / "jobs.json").read_text())
GUIDE = (ROOT / "book" / "using.md").read_text()
JOBS = tuple(statements.JOBS)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ('"""Says what."""\nimport torch\nfrom job_data import rows\ntrain, test = rows()\n', 0),
        ("x, labels = next(iter(test))\n", 0),
        ("x = 1; y = 2\n", 2),
        ("train = rows()\n", 1),  # of nobody knows where
        ("def f(x):\n    return x\n", 2),
        ("class A:\n    def f(self):\n        pass\n", 3),
        ("for x in y:\n    if x:\n        a = x\n    else:\n        a = 0\n", 4),
        ("f(\n    a,\n    b,\n)\n", 1),
    ],
)
def test_statements_are_counted(text, number):
    assert statements.count(text) == number


def test_no_job_of_ours_is_longer_than_the_shortest_of_any_other_library():
    for job, numbers in statements.counted().items():
        assert set(numbers) == {
            library for library in statements.LIBRARIES if (job, library) not in statements.NO_SCRIPT
        }
        assert numbers["ours"] <= min(numbers.values()), (job, numbers)


def test_scripts_of_a_job_share_their_data_and_what_they_assert():
    for job, paths in statements.scripts().items():
        of_data, last = set(), set()
        for path in paths.values():
            lines = path.read_text().splitlines()
            of_data.add(tuple(line for line in lines if line.startswith("from job_data") or "torch.rand(" in line))
            last.add((lines[0], *(line for line in lines if line.startswith("assert result"))))
        assert len(of_data) == len(last) == 1, (job, of_data, last)


def test_the_stored_file_is_of_these_scripts_and_every_library_was_there():
    counted = statements.counted()
    assert tuple(STORED["jobs"]) == JOBS
    for job, found in STORED["jobs"].items():
        assert tuple(found) == tuple(statements.LIBRARIES)
        for library, row in found.items():
            if (job, library) in statements.NO_SCRIPT:
                assert row == {"missing": statements.NO_SCRIPT[job, library]}
            else:
                assert row["statements"] == counted[job][library], (job, library)
                assert 0 < row["result"] <= 1
    assert {"norse": "1.1.0", "snntorch": "1.0.0", "spikingjelly": "2.0.0"}.items() <= STORED["versions"].items()


def test_the_table_of_the_guide_is_what_is_stored():
    assert statements.table(STORED["jobs"]) in GUIDE


def test_where_another_network_is_more_accurate_the_guide_says_so():
    for job, place in (("streaming", "in the stream"), ("spoken_digits", "on the spoken digits")):
        found = {library: row["result"] for library, row in STORED["jobs"][job].items()}
        assert max(found, key=found.get) == "spikingjelly"
        assert f"{place} ({found['spikingjelly']:.0%}, ours {found['ours']:.0%})".replace("%", " %") in GUIDE


def test_what_the_guide_says_of_another_library_is_used_in_its_scripts():
    section = GUIDE.partition("## From another library\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in rows[0][1:]] == ["here", "Norse", "snnTorch", "SpikingJelly"]
    for column, library in enumerate(("ours", "norse", "snntorch", "spikingjelly"), start=1):
        text = "".join(of[library].read_text() for of in statements.scripts().values() if library in of)
        known = set(re.findall(r"\w+", text)) | {"module", "loader"}
        for row in rows[1:]:
            for code in re.findall(r"`(.+?)`", row[column]):
                assert set(re.findall(r"[A-Za-z]\w+", code)) <= known, (library, code)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What ours and Norse's scripts find here and now."""
    output = tmp_path_factory.mktemp("jobs") / "jobs.json"
    command = [sys.executable, ROOT / "tests" / "benchmarks" / "jobs", "--library", "ours", "norse"]
    run(*command, "--output", output, cwd=ROOT, timeout=600)
    return json.loads(output.read_text())["jobs"]


@pytest.mark.slow
@pytest.mark.parametrize("library", ["ours", "norse"])
@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_done(found, job, library):
    row = found[job][library]
    if "Free Spoken Digit Dataset could not be had" in row.get("missing", ""):
        pytest.skip("the spoken digits could not be had")
    if (job, library) in statements.NO_SCRIPT:
        assert row["missing"] == statements.NO_SCRIPT[job, library]
    else:
        assert row["result"] > 0
