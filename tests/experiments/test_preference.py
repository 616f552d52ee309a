"""Blind listening: pairs without names, votes that stay, a preference with its interval, and position bias."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

import rtnb
from rtnb.errors import CaseError
from rtnb.experiments import BlindPairs, Preference, Result

SPOKEN = {"latency": "fast", "voice": "babble", "instructions": "Answer in one sentence."}


@pytest.fixture(scope="module")
async def spoken(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Three cases under two variants, twice each; the model speaks."""
    variants: Any = {"a": SPOKEN, "b": {**SPOKEN, "speed": 1.2}}
    cases, path = ["Tell me about tea.", "How are you?", "Goodbye!"], tmp_path_factory.mktemp("spoken")
    return await rtnb.experiment("sim", cases, variants, repeats=2, folder=path, progress=False)


@pytest.fixture
def result(spoken: Result, tmp_path: Path) -> Result:
    return Result(spoken.save(tmp_path / "copy"))


def test_every_pair_is_heard_once_in_an_order_that_names_nothing(result: Result) -> None:
    pairs = BlindPairs(result, "a", "b", seed=3)
    assert len(pairs.pairs) == 6
    heard = []
    while (pair := pairs.next) is not None:
        assert {run.variant for run in pair} == {"a", "b"}
        assert (pair[0].case, pair[0].repeat) == (pair[1].case, pair[1].repeat)
        heard.append((pair[0].case.id, pair[0].repeat, pair[0].variant))
        pairs.vote("first")
    assert len({(case, repeat) for case, repeat, _ in heard}) == 6
    assert [name for _, _, name in heard] != ["a"] * 6
    assert [one[:2] for one in heard] != sorted(one[:2] for one in heard)
    with pytest.raises(CaseError, match="every pair has a vote"):
        pairs.vote("first")
    other = BlindPairs(result, "b", "a", seed=3)
    assert other.next is None, "the votes are those of these two variants, whichever is named first"


def test_votes_stay_and_listening_goes_on(result: Result) -> None:
    pairs = BlindPairs(result, "a", "b")
    first = pairs.next
    pairs.vote("second")
    pairs.vote("neither")
    again = BlindPairs(Result(result.path), "a", "b")
    assert again.votes == pairs.votes
    assert again.next is not None
    assert again.next[0].trace_file == pairs.next[0].trace_file
    assert first is not None
    kept = json.loads((result.path / "votes.jsonl").read_text().splitlines()[0])
    assert kept == {
        "case": first[0].case.id, "repeat": first[0].repeat, "first": first[0].variant, "second": first[1].variant,
        "better": "second",
    }  # fmt: skip


def test_wrong_votes_and_results_without_pairs_are_refused(result: Result) -> None:
    with pytest.raises(CaseError, match="vote 'both'; allowed: first, second, neither"):
        BlindPairs(result, "a", "b").vote("both")
    with pytest.raises(CaseError, match="no case has a run with sound of both 'a' and 'c'; there are: a, b"):
        BlindPairs(result, "a", "c")


def judged(result: Result, votes: list[tuple[str, str, str]]) -> Preference:
    """The preference of votes, each (case, variant heard first, better)."""
    pairs = BlindPairs(result, "a", "b")
    for n, (case, first, better) in enumerate(votes):
        second = "b" if first == "a" else "a"
        pairs.votes.append({"case": case, "repeat": n, "first": first, "second": second, "better": better})
    return pairs.preference


def test_a_listener_who_prefers_b_is_recognised_and_one_who_takes_the_first_is_not(result: Result) -> None:
    chance = random.Random(1)
    firsts = [chance.choice("ab") for _ in range(24)]
    likes_b = [(str(n % 12), first, "first" if first == "b" else "second") for n, first in enumerate(firsts)]
    found = judged(result, likes_b)
    assert (found.share.n_cases, found.share.n_runs, found.share.estimate, found.share.high) == (12, 24, 1.0, 1.0)
    assert found.share.low > 0.5
    assert str(found).startswith("b is preferred in 100% of the votes (")
    assert "a preference is shown. Votes: 24, cases: 12." in str(found)

    takes_first = [(str(n % 12), first, "first") for n, first in enumerate(firsts)]
    found = judged(result, takes_first)
    assert found.share.low < 0.5 < found.share.high
    assert (found.n_first, found.n_decided) == (24, 24)
    assert found.first_interval[0] > 0.85
    assert "a preference is not shown" in str(found)
    assert "The first answer was chosen in 24 of 24" in str(found)


def test_no_votes_one_case_and_no_difference_claim_nothing(result: Result) -> None:
    assert str(judged(result, [])) == "No votes yet."
    one = judged(result, [("1", "a", "second"), ("1", "b", "first")])
    assert "(interval not shown: one case); a preference is not shown. Votes: 2, cases: 1." in str(one)
    same = judged(result, [(str(n), "a", "neither") for n in range(9)])
    assert (same.share.estimate, same.n_decided) == (0.5, 0)
    assert "not shown" in str(same)
