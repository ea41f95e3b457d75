"""Sentences of pages and docstrings are short enough to be taken in at once; ``python -m tests.sentences`` lists the longest."""

from __future__ import annotations

from tests.sentences import paragraphs, prose, sentences, split, words

MOST = 45  # words; tests.sentences.LIMIT is what to aim at
WRITTEN_BY_SCRIPTS = {"docs/performance.md"}  # legends of tables, which a list of definitions would suit


def test_no_sentence_is_very_long():
    found = sentences()
    assert {"README.md", "docs/design.md", "co.continual", "co.CoModule.forward_step"} <= {s.place for s in found}
    assert [s for s in found if s.words > MOST and s.place not in WRITTEN_BY_SCRIPTS] == []


def test_code_tables_and_headings_are_no_sentences():
    page = "# A title\n\nOne. *Two* `a. B`.\n\n- an item\n  of two lines\n- another\n\n```python\nx = 1\n```\n\n| a | b |\n<!-- c -->\n"
    assert [split(block) for block in paragraphs(page)] == [["One.", "*Two* `a. B`."], ["an item of two lines"], ["another"]]


def test_words_are_counted_as_they_are_read():
    assert words("Call `net.forward(x, y)` – see [the page](a.md#b) of 3 frames.") == 8


def test_examples_of_docstrings_are_left_out():
    text = "A sentence.\n\n    Args:\n        x: a clip. It is\n            long.\n        y: another.\n\n    Example:\n        >>> 1\n"
    assert paragraphs(prose(text)) == ["A sentence.", "x: a clip. It is long.", "y: another."]
