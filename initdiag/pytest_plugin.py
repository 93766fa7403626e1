"""The pytest plugin: the ``initdiag_check`` fixture, the ``initdiag`` marker, and
``--initdiag``.

Imports nothing but pytest until one of them is used. Without ``--initdiag`` only the
option, the marker and the fixture are there. Where plugins are not loaded by themselves
its name is ``-p initdiag``; ``-p no:initdiag`` turns it off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from initdiag.diagnosing.report import Report
    from initdiag.project.baseline import Baseline
    from initdiag.project.config import Config, ModelConfig
    from initdiag.project.outcome import Outcome

__all__ = ["initdiag_check", "pytest_addoption", "pytest_configure"]

_MARKER = (
    "initdiag(**options): options of `initdiag_check` in this test, e.g. "
    "initdiag(optimizer='adam', draws=256)."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--initdiag`` and ``--initdiag-no-isolate``."""
    text = "also run the models of [tool.initdiag] in pyproject.toml as tests"
    group = parser.getgroup("initdiag")
    group.addoption("--initdiag", action="store_true", help=text)
    text = "run these models in pytest's own process: for a debugger"
    group.addoption("--initdiag-no-isolate", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; with ``--initdiag``, the collector of the
    configured models.
    """
    config.addinivalue_line("markers", _MARKER)
    if config.getoption("initdiag"):
        config.pluginmanager.register(_Collector(_project(config)), "initdiag-models")


@pytest.fixture
def initdiag_check(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """Return ``check(model, example_input=None, *, fail_on="no-verdict", ignore=(),
    **options) -> Report``.

    It fails the test with the report's text, which says what to change, if the network
    is at risk or (unless ``fail_on="risk"``) could not be judged. ``options`` are those
    of `initdiag.diagnose`; what is not given is taken from the test's ``initdiag``
    marker, then from ``[tool.initdiag]``. The report's numbers are recorded as
    properties of the test, for JUnit files.
    """

    def check(model: Any, example_input: Any = None, **options: Any) -> Report:
        from initdiag.diagnosing.diagnose import diagnose
        from initdiag.project.outcome import outcome

        options = {**_defaults(request), **options}
        rule = {name: options.pop(name) for name in ("fail_on", "ignore") if name in options}
        report = diagnose(model, example_input, **options)
        result = outcome(report.target, report, **rule)
        request.node.user_properties.extend(_properties(result.report))
        if result.failures:
            pytest.fail(_failure(result), pytrace=False)
        return result.report

    return check


def _defaults(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the configured options; those of markers win, the closest most."""
    config = _project(request.config)
    defaults = {"fail_on": config.fail_on, **config.defaults}
    for marker in reversed(list(request.node.iter_markers("initdiag"))):
        if marker.args:
            raise pytest.UsageError(f"the initdiag marker takes keywords only, got {marker.args!r}")
        defaults.update(marker.kwargs)
    return defaults


def _project(config: pytest.Config) -> Config:
    from initdiag.errors import TargetError
    from initdiag.project.config import find_config

    try:
        return find_config(config.rootpath)
    except TargetError as error:
        raise pytest.UsageError(str(error)) from error


def _properties(report: Report) -> Iterator[tuple[str, object]]:
    yield "initdiag/verdict", report.verdict.value
    yield from report.to_metrics().items()


def _failure(result: Outcome) -> str:
    return "\n".join(text for text in (result.summary, result.note, str(result.report)) if text)


class _Collector:
    """Adds the configured models to what pytest runs."""

    def __init__(self, config: Config) -> None:
        if not config.models:
            raise pytest.UsageError(
                f"--initdiag: no models in [tool.initdiag] of {config.path or 'pyproject.toml'}"
            )
        self._config = config

    def pytest_collect_file(
        self, file_path: Any, parent: pytest.Collector
    ) -> pytest.Collector | None:
        """Collect ``pyproject.toml`` where it is asked for, e.g.
        ``pyproject.toml::model.py:build``.
        """
        return self._file(parent) if file_path == self._config.path else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
        """Add the models, before -m and -k choose, unless they have been collected by
        name.
        """
        if not any(isinstance(item, _ModelItem) for item in items):
            items.extend(self._file(session).collect())

    def _file(self, parent: pytest.Collector) -> _ModelsFile:
        file: _ModelsFile = _ModelsFile.from_parent(parent, path=self._config.path)
        file.configuration = self._config
        return file


class _ModelsFile(pytest.File):
    configuration: Config

    def collect(self) -> Iterator[_ModelItem]:
        for model in self.configuration.models:
            item: _ModelItem = _ModelItem.from_parent(self, name=model.name)
            item.model, item.configuration = model, self.configuration
            yield item


class _ModelItem(pytest.Item):
    """One configured model as a test."""

    model: ModelConfig
    configuration: Config

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_marker("initdiag")

    def runtest(self) -> None:
        from initdiag.project.isolation import isolated
        from initdiag.project.outcome import diagnosed_here, outcome

        is_alone = not self.config.getoption("initdiag_no_isolate")
        (report,) = (isolated if is_alone else diagnosed_here)([self.model])
        if isinstance(report, Exception):
            raise report
        result = outcome(
            self.model.name,
            report,
            ignore=self.model.ignore,
            fail_on=self.configuration.fail_on,
            baseline=_baseline(self.configuration),
        )
        self.user_properties.extend(_properties(result.report))
        if result.failures:
            pytest.fail(_failure(result), pytrace=False)

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Show a target or a model that cannot be used by its message alone."""
        from initdiag.errors import InitdiagError

        if isinstance(excinfo.value, InitdiagError):
            return f"{self.name}: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, None, str]:
        return self.path, None, f"initdiag: {self.name}"


def _baseline(config: Config) -> Baseline | None:
    from initdiag.project.baseline import Baseline

    is_written = config.baseline is not None and config.baseline.exists()
    return Baseline.read(config.baseline) if config.baseline and is_written else None
