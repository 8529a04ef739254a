"""The page of the drivers tells what their tables say."""

from drivers import registry
from tests.meta.driverdocs import PAGE, ROOT, page


def test_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.meta.driverdocs"


def test_every_driver_that_makes_something_has_a_page() -> None:
    for name in registry.built_in():
        driver = registry.load(name)
        if not driver.adopts:
            text = (ROOT / "docs" / "drivers" / f"{driver.name}.md").read_text().lower()
            for told in ("creates", "cost", "permission", "clean up"):
                assert told in text, f"docs/drivers/{driver.name}.md says nothing of: {told}"
