"""What every test may ask for."""
from pathlib import Path
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
