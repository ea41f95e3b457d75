"""Pages that draw pictures: they are found, their pictures are in the repository and on the page, and can be drawn again."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pages import draw, drawing

DOCS = Path(__file__).parents[2] / "docs"


def test_the_pictures_of_pages_are_there_and_shown():
    pages = drawing(DOCS)
    assert {"heartbeats.md", "signals.md", "keywords.md", "skeletons.md", "sleep.md"} <= {page.name for page in pages}
    for page, pictures in pages.items():
        for picture in pictures:
            assert (DOCS / picture).exists(), (page.name, picture)
            assert f"]({picture})" in page.read_text(encoding="utf-8"), (page.name, picture)


def test_a_page_is_drawn(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        '```python\nimport os\nfrom pathlib import Path\nnowhere, width = "elsewhere", 3\n```\nThen:\n\n```python\n'
        'Path(os.environ.get("PICTURES", nowhere), "line.png").write_text("-" * width)\n```\n'
    )
    assert drawing(tmp_path) == {page: ["line.png"]}
    (tmp_path / "pictures").mkdir()
    draw(page, tmp_path / "pictures")
    assert (tmp_path / "pictures" / "line.png").read_text() == "---"
