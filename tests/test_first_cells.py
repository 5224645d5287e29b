"""A tutorial's first cells where nothing is installed, as on Colab: the install cell, the imports, the first picture. Minutes: `pytest -m slow tests/test_first_cells.py`.

The environment has Jupyter's kernel and pip, nothing else; the first way fetches all that the package needs, the others find it there and install the package alone."""
import json, os, subprocess, sys
from importlib.util import find_spec
import pytest
from test_packaging import build_wheel, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def source(root, tmp_path_factory):
    "The wheel, and the sources it was built from as a repository of their own."
    folder = tmp_path_factory.mktemp('source')
    wheel = build_wheel(root, folder)
    git = lambda *args: run('git', '-c', 'user.name=a', '-c', 'user.email=a@example.org', *args, cwd=folder/'source')
    git('init', '-q'), git('add', '.'), git('commit', '-q', '-m', 'as it is')
    (folder/'source/tutorials').mkdir()
    return folder/'source', wheel


@pytest.fixture(scope='module')
def empty(tmp_path_factory):
    "An environment without the package, known to Jupyter as the kernel `empty`; its python."
    if find_spec('nbclient') is None: pytest.skip('no nbclient here')
    folder = tmp_path_factory.mktemp('empty')
    python = folder/'env/bin/python'
    run(sys.executable, '-m', 'venv', folder/'env')
    run(python, '-m', 'pip', 'install', '--quiet', 'ipykernel')
    spec = folder/'kernels/empty/kernel.json'
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(dict(argv=[str(python), '-m', 'ipykernel_launcher', '-f', '{connection_file}'], display_name='empty', language='python')))
    with pytest.MonkeyPatch.context() as m:
        m.setenv('JUPYTER_PATH', str(folder))
        m.delenv('PYTHONPATH', raising=False)   # it would show the kernel the package that is tested here
        yield python


def first_cells(root):
    "Tutorial 00 up to its first picture."
    import nbformat
    nb = nbformat.read(root/'tutorials/00_ten_minutes.ipynb', 4)
    last = next(k for k, c in enumerate(nb.cells) if any('image/jpeg' in o.get('data', {}) for o in c.get('outputs', [])))
    nb.cells = nb.cells[:last + 1]
    for c in nb.cells:
        if c.cell_type == 'code': c.outputs = []
    return nb


@pytest.mark.parametrize('way', ['wheel', 'git', 'index', 'here'])
def test_tutorial_00_where_nothing_is_installed(root, source, empty, way, monkeypatch):
    "From the wheel, a git address, a name in an index (a folder that pip searches stands for it), and, when nothing is said, from the repository around the tutorial."
    from nbclient import NotebookClient
    sources, wheel = source
    subprocess.run([empty, '-m', 'pip', 'uninstall', '--quiet', '--yes', 'person_search_nb'], capture_output=True)
    monkeypatch.delenv('PERSON_SEARCH_NB', raising=False)
    named = dict(wheel=str(wheel), git=f'git+{sources.as_uri()}', index='person_search_nb')
    if way in named: monkeypatch.setenv('PERSON_SEARCH_NB', named[way])
    if way == 'index': monkeypatch.setenv('PIP_FIND_LINKS', ' '.join([os.environ.get('PIP_FIND_LINKS', ''), str(wheel.parent)]).strip())
    nb = first_cells(root)
    if way == 'here' and "'..'" not in nb.cells[1].source: pytest.skip('settings.ini has an address, which is installed then')
    NotebookClient(nb, timeout=1800, kernel_name='empty', resources=dict(metadata=dict(path=str(sources/'tutorials')))).execute()
    assert any('image/jpeg' in o.get('data', {}) for o in nb.cells[-1].outputs)
    where = run(empty, '-c', 'import person_search_nb; print(person_search_nb.__file__)', cwd=wheel.parent)
    assert str(empty.parent.parent) in where
    told = json.loads(run(empty, '-c', "import importlib.metadata as m; print(m.distribution('person_search_nb').read_text('direct_url.json') or '{}')", cwd=wheel.parent))
    assert dict(wheel='archive_info' in told, git='vcs_info' in told, index=not told, here='dir_info' in told)[way], told


def test_binder_builds_what_the_tutorials_need(root, source, empty):
    "`.binder/postBuild`, with the environment's pip."
    sources = source[0]
    subprocess.run([empty, '-m', 'pip', 'uninstall', '--quiet', '--yes', 'person_search_nb'], capture_output=True)
    run('sh', root/'.binder/postBuild', cwd=sources, env=dict(os.environ, PATH=f'{empty.parent}:{os.environ["PATH"]}'))
    run(empty, '-c', 'import person_search_nb.explorer, anywidget, voila, pytorch_grad_cam, jupyterlab', cwd=sources.parent)
