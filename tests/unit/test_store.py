"""A run's folder: what is kept through a kill, what continues it, and what is refused."""

from __future__ import annotations

import json

import pytest

from adacd_cli.errors import ConfigurationError, OutputError, UsageError
from adacd_cli.evaluation.store import AnswerRecord, JudgementRecord, Store

PLAN = {"model": "demo", "methods": {"adacd": {"alpha": 4.5, "stop": []}}, "limit": None}


def answer(id="1", text="Hi.", **values):
    return AnswerRecord("adacd", "set", id, "Hello?", "safe", "talk", text=text, **values)


def test_records_come_back_as_they_were(tmp_path):
    hostile = answer("2", "line\nbreak \u2028 \ud83d \x00 ünïcode", tokens=3, seconds=0.5)
    word = JudgementRecord("adacd", "set", "1", "keyword", "compliance", "hash", {"rule": "none"})
    with Store(tmp_path / "run", PLAN) as store:
        for record in (answer(), hostile):
            store.add(record)
        store.add(word)
    with Store(tmp_path / "run", PLAN) as store:
        assert store.answers == {record.key: record for record in (answer(), hostile)}
        assert store.judgements == {word.key: word}


def test_a_later_record_of_the_same_sample_wins(tmp_path):
    with Store(tmp_path, PLAN) as store:
        store.add(answer(error="out of memory", text=""))
        store.add(answer(text="Better."))
    with Store(tmp_path, PLAN) as store:
        assert [record.text for record in store.answers.values()] == ["Better."]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_that_a_kill_cut_off_is_mended(tmp_path, cut):
    with Store(tmp_path, PLAN) as store:
        store.add(answer("1"))
        store.add(answer("2"))
    path = tmp_path / "answers.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Store(tmp_path, PLAN) as store:
        assert [record.id for record in store.answers.values()] == ["1"]
        store.add(answer("2"))
    assert path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_named_and_nothing_is_removed(tmp_path):
    with Store(tmp_path, PLAN) as store:
        store.add(answer("1"))
        store.add(answer("2"))
    path = tmp_path / "answers.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0][:-9], lines[1], ""]))
    before = path.read_text()
    with pytest.raises(UsageError, match=r"answers.jsonl, line 1 is damaged"):
        Store(tmp_path, PLAN)
    assert path.read_text() == before


def test_other_settings_are_refused_with_the_difference_named(tmp_path):
    with Store(tmp_path, PLAN):
        pass
    other = {**PLAN, "methods": {"adacd": {"alpha": 3.0, "stop": []}}}
    with pytest.raises(ConfigurationError, match=r"methods\.adacd\.alpha was 4\.5 and is now 3\.0"):
        Store(tmp_path, other)
    with pytest.raises(ConfigurationError, match="limit was null and is now 5"):
        Store(tmp_path, {**PLAN, "limit": 5})
    with pytest.raises(ConfigurationError, match=r"methods.default was null and is now \{\}"):
        Store(tmp_path, {**PLAN, "methods": {**PLAN["methods"], "default": {}}})
    with Store(tmp_path, json.loads(json.dumps(PLAN))):
        pass


def test_a_second_process_is_refused_while_the_first_one_works(tmp_path):
    with Store(tmp_path, PLAN), pytest.raises(UsageError, match="Another run is working in"):
        Store(tmp_path, PLAN)
    with Store(tmp_path, PLAN):
        pass


def test_a_refusal_lets_the_lock_go(tmp_path):
    with Store(tmp_path, PLAN):
        pass
    with pytest.raises(ConfigurationError):
        Store(tmp_path, {**PLAN, "limit": 5})
    with Store(tmp_path, PLAN):
        pass


def test_foreign_and_damaged_folders_are_refused(tmp_path):
    (tmp_path / "answers.jsonl").write_text("")
    with pytest.raises(UsageError, match=r"has answers but no run.json"):
        Store(tmp_path, PLAN)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match=r"run.json cannot be read"):
        Store(tmp_path, PLAN)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        Store(file, PLAN)


def test_a_full_disk_is_said_and_what_was_written_stays(tmp_path, monkeypatch):
    with Store(tmp_path, PLAN) as store:
        store.add(answer("1"))

        class Full:
            def write(self, text):
                raise OSError(28, "No space left on device")

            def close(self):
                raise OSError(28, "No space left on device")

        monkeypatch.setitem(store._files, "answers.jsonl", Full())
        with pytest.raises(OutputError, match="No space left on device") as caught:
            store.add(answer("2"))
        assert "the same command then continues" in caught.value.hint
    with Store(tmp_path, PLAN) as store:
        assert list(store.answers) == [("adacd", "set", "1")]
