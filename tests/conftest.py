"""What every test may ask for."""
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# hypothesis' own limit of 0.2 s per example would fail tests on a busy machine
settings.register_profile('project', deadline=None, print_blob=True)
settings.load_profile('project')


@pytest.fixture(scope='session')
def root():
    "The project's folder."
    return ROOT


@pytest.fixture(scope='session')
def shared():
    "The folder beside the project with real frames and reference numbers; tests that need it are skipped where it is absent."
    path = ROOT.parent/'shared'
    if not path.is_dir(): pytest.skip('no ../shared folder here')
    return path


def pytest_collection_modifyitems(items):
    items = [item for item in items if item.get_closest_marker('cuda')]
    if not items: return
    import torch  # only now: it takes seconds, and most tests of the tree need none of it
    if torch.cuda.is_available(): return
    for item in items: item.add_marker(pytest.mark.skip(reason='no GPU here'))


@pytest.fixture
def command(monkeypatch):
    "`command('data', folder, cwd=...)` runs a person-search command in this process, as its entry point does -> returncode, stdout, stderr."
    from person_search_nb.cli import main

    def run(*words, cwd=None):
        out, err, code = StringIO(), StringIO(), 0
        with monkeypatch.context() as m, redirect_stdout(out), redirect_stderr(err):
            m.setattr(sys, 'argv', ['person-search', *map(str, words)])
            if cwd: m.chdir(cwd)
            try: main()
            except SystemExit as e:
                code = e.code or 0
                if isinstance(code, str): code = 1; print(e.code, file=err)
        return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())
    return run


@pytest.fixture
def registries(monkeypatch):
    "The tables of parts as they are, again after the test; and no plug-ins from outside."
    from person_search_nb import plugins
    before = {kind: (dict(r), dict(r.origin)) for kind, r in plugins.REGISTRIES.items()}
    monkeypatch.setenv(plugins.PLUGINS, '')
    monkeypatch.setattr(plugins, '_LOADED', set(plugins._LOADED))
    path, modules = list(sys.path), set(sys.modules)
    yield plugins.REGISTRIES
    for kind, r in plugins.REGISTRIES.items():
        parts, origin = before.get(kind, ({}, {}))
        r.clear(); r.update(parts); r.origin.clear(); r.origin.update(origin)
    sys.path[:] = path
    for name in set(sys.modules) - modules:  # so that a plug-in can be loaded by another test, too
        if not (getattr(sys.modules[name], '__file__', None) or '').startswith((sys.prefix, sys.base_prefix, str(ROOT))): del sys.modules[name]
