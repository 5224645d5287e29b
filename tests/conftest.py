"""What every test may ask for."""
import gc
import multiprocessing
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# importing PyTorch and the package takes seconds: a server does it once, and every process of a test begins as its copy
METHOD = 'forkserver' if 'forkserver' in multiprocessing.get_all_start_methods() else 'spawn'
multiprocessing.set_forkserver_preload(['torch._dynamo', 'pytest', 'hypothesis', 'person_search_nb.cli', 'person_search_nb.demo', 'person_search_nb.ablations', 'person_search_nb.search'])

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


def pytest_collection_finish():
    "What is loaded by now stays: the garbage collector need not go through it again and again, which took a fifteenth of all time."
    gc.collect()
    gc.freeze()


def pytest_unconfigure(): gc.unfreeze()  # extension modules look at their end for what is left


def pytest_collection_modifyitems(items):
    items = [item for item in items if item.get_closest_marker('cuda')]
    if not items: return
    import torch  # only now: it takes seconds, and most tests of the tree need none of it
    if torch.cuda.is_available(): return
    for item in items: item.add_marker(pytest.mark.skip(reason='no GPU here'))


@pytest.fixture(scope='session')
def process_method():
    "How processes begin: `multiprocessing.get_context(process_method)`."
    return METHOD


@pytest.fixture(scope='session')
def child(process_method):
    "`child(f, *args)` starts a process of its own that runs a function of a test's module -> a `multiprocessing.Process`."
    def start(f, *args):
        process = multiprocessing.get_context(process_method).Process(target=f, args=args)
        process.start()
        return process
    return start


def _typed(words, cwd, env, out, err):
    "What a process of `shell` does: its own words, folder, environment and files of output."
    os.environ.clear(); os.environ.update(env)
    os.chdir(cwd)
    for name, number in ((out, 1), (err, 2)): os.dup2(os.open(name, os.O_WRONLY), number)
    sys.argv = ['person-search', *words]
    from person_search_nb.cli import main
    main()


@pytest.fixture(scope='session')
def shell(child, tmp_path_factory):
    """`shell('data', folder, env={}, cwd=...)` runs a person-search command in a process of its own, which need not import PyTorch -> returncode, stdout, stderr.
    `command` is cheaper still, where what the process has loaded and registered does no harm."""
    files = [tmp_path_factory.mktemp('shell')/name for name in ('out', 'err')]

    def run(*words, env={}, cwd=None):
        for f in files: f.write_text('')
        process = child(_typed, [*map(str, words)], cwd or os.getcwd(), {**os.environ, **env}, *files)
        process.join()
        return SimpleNamespace(returncode=process.exitcode, **{k: f.read_text(encoding='utf-8') for k, f in zip(('stdout', 'stderr'), files)})
    return run


@pytest.fixture(scope='session')
def made_once(tmp_path_factory):
    "`made_once('page', make)`: the folder that `make(folder)` has filled, once for all workers of a run; nobody changes it afterwards."
    base = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ: base = base.parent

    def get(name, make):
        folder, done = base/'once'/name, base/'once'/f'{name}.done'
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(base/'once'/f'{name}.lock'):
            if not done.exists():
                make(folder)
                done.touch()
        return folder
    return get


@pytest.fixture(scope='module')
def undrawn():
    "Figures are made, but written as one pixel: for tests that prove something else, many times."
    from matplotlib.figure import Figure
    from PIL import Image
    def savefig(self, file, **kw): Image.new('L', (1, 1)).save(file, 'PNG')
    with pytest.MonkeyPatch.context() as m:
        m.setattr(Figure, 'savefig', savefig)
        yield


@pytest.fixture(scope='module')
def no_curves():
    "The curves of a training, which take longer than a few steps, are a blank picture; all else is drawn. tests/test_training.py draws them."
    from matplotlib.figure import Figure
    with pytest.MonkeyPatch.context() as m:
        m.setattr('person_search_nb.runs.plot_losses', lambda *a: Figure((1, 1)))
        yield


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
