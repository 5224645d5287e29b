"""The wheel says what settings.ini says, holds the whole package, and works without the tools of its developers."""
from configparser import ConfigParser
from email import message_from_string
from importlib import metadata
import json, re, shutil, subprocess, sys, zipfile
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

SOURCES = 'settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'


def run(*cmd, **kw):
    "Run `cmd`; its output, or a failure that shows it."
    done = subprocess.run([str(c) for c in cmd], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    assert done.returncode == 0, f"{' '.join(map(str, cmd))}\n{done.stdout}"
    return done.stdout


def read_settings(folder):
    parser = ConfigParser(delimiters=['='])
    parser.read(folder/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']


def build_wheel(root, folder, edit=lambda text: text):
    "Build the wheel from a copy of the sources in `folder`, so that nothing is left behind in the tree; `edit` changes settings.ini."
    source = folder/'source'
    source.mkdir()
    for name in SOURCES: shutil.copy(root/name, source)
    shutil.copytree(root/'person_search_nb', source/'person_search_nb', ignore=shutil.ignore_patterns('__pycache__'))
    ini = source/'settings.ini'
    ini.write_text(edit(ini.read_text(encoding='utf-8')), encoding='utf-8')
    run(sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir', folder, source)
    return next(folder.glob('*.whl'))


def read_wheel(wheel):
    "METADATA as a message, entry points as {group: {name: target}}, and the names of all files."
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        text = lambda end: z.read(next(n for n in names if n.endswith(end))).decode()
        meta, points = message_from_string(text('.dist-info/METADATA')), ConfigParser(delimiters=['='])
        points.read_string(text('.dist-info/entry_points.txt'))
    return meta, {group: dict(points[group]) for group in points.sections()}, names


def check_against(cfg, meta, points):
    "Every field of the built metadata follows the settings `cfg`."
    reqs = [Requirement(r) for r in meta.get_all('Requires-Dist')]
    runtime = {str(r) for r in reqs if not r.marker}
    extras = {e: {str(r).split(';')[0].strip() for r in reqs if str(r.marker) == f'extra == "{e}"'} for e in ('dev', 'docs', 'data', 'explore', 'search', 'deploy', 'pandas', 'milvus', 'timm', 'hub')}
    assert len(runtime) + sum(map(len, extras.values())) == len(reqs), 'a requirement with another marker'
    assert canonicalize_name(meta['Name']) == canonicalize_name(cfg['lib_name'])
    assert meta['Version'] == cfg['version']
    assert meta['Summary'] == cfg['description']
    assert meta['License-Expression'] == cfg['license']
    assert meta['Author'] == cfg['author'] and meta['Author-email'] == cfg['author_email']
    assert meta.get_all('Project-URL', []) == ([f"Source, {cfg['git_url']}"] if cfg['git_url'] else [])
    assert [k.strip() for k in meta['Keywords'].split(',')] == [k.strip() for k in cfg['keywords'].split(',')]
    assert SpecifierSet(meta['Requires-Python']) == SpecifierSet('>=' + cfg['min_python'])
    assert {f'Programming Language :: Python :: {v}' for v in cfg['python_versions'].split()} <= set(meta.get_all('Classifier'))
    assert runtime == {str(Requirement(r)) for r in cfg['requirements'].split()}
    assert all(found == {str(Requirement(r)) for r in cfg[f'{e}_requirements'].split()} for e, found in extras.items())
    assert points['console_scripts'] == dict(line.split('=') for line in cfg['console_scripts'].split())


@pytest.fixture(scope='session')
def wheel(root, tmp_path_factory): return build_wheel(root, tmp_path_factory.mktemp('wheel'))


def test_metadata_equals_settings(root, wheel):
    meta, points, _ = read_wheel(wheel)
    check_against(read_settings(root), meta, points)
    assert (root/'README.md').read_text(encoding='utf-8').strip() == meta.get_payload().strip()


def test_settings_are_live(root, tmp_path):
    "Another settings.ini makes another wheel: no second copy of a value hides elsewhere."
    changes = dict(version='7.8.9', description='Something else', min_python='3.11', python_versions='3.11', license='Apache-2.0', author='Nobody',
                   author_email='nobody@example.org', git_url='https://github.com/some/where', keywords='one, two', requirements='torch>=2.11 pillow', dev_requirements='pytest', docs_requirements='sphinx', explore_requirements='voila', search_requirements='faiss-cpu', deploy_requirements='onnx',
                   console_scripts='find-person=person_search_nb.search:find')
    def edit(text):
        for key, value in changes.items(): text, n = re.subn(rf'(?m)^{key} =.*$', f'{key} = {value}', text); assert n == 1, key
        return text
    wheel = build_wheel(root, tmp_path, edit)
    cfg = read_settings(tmp_path/'source')
    assert all(cfg[k] == v for k, v in changes.items())
    check_against(cfg, *read_wheel(wheel)[:2])


def test_version_in_the_package(root):
    text = (root/'person_search_nb/__init__.py').read_text(encoding='utf-8')
    assert re.search(r'(?m)^__version__ = "(.*)"$', text)[1] == read_settings(root)['version'], 'run `make export`'


def test_wheel_holds_the_whole_package(root, wheel):
    "Modules, plot style and weights: whatever lies in the package's folder."
    package = root/'person_search_nb'
    here = {p.relative_to(root).as_posix() for p in package.rglob('*') if p.is_file() and '__pycache__' not in p.parts}
    names = {n for n in read_wheel(wheel)[2] if '.dist-info/' not in n}
    assert names == here
    assert {f'person_search_nb/{n}' for n in ('psnb.mplstyle', 'page/scene_picture.js', 'page/picture.css', 'page/picture_widget.js', 'page/index.html')} <= names


def runtime_distributions(requirements):
    "Canonical names of the installed distributions that `requirements` need, directly or through others."
    found, todo = set(), [Requirement(r) for r in requirements]
    while todo:
        req = todo.pop()
        key = canonicalize_name(req.name), frozenset(req.extras)
        if key in found: continue
        found.add(key)
        for text in metadata.requires(req.name) or ():
            sub = Requirement(text)
            if not sub.marker or any(sub.marker.evaluate({'extra': e}) for e in {'', *req.extras}):
                sub.marker = None
                todo.append(sub)
    return {name for name, _ in found}


# Runs in a fresh interpreter. argv: folder with the installed wheel, then the top-level modules that must seem absent.
IMPORT_ALL = '''
import sys
at_start = set(sys.modules)  # what site-packages' own .pth files pull in
import importlib, pkgutil
from importlib.metadata import distribution
where, absent = sys.argv[1], set(sys.argv[2:])
from importlib.machinery import PathFinder
class Hiding(PathFinder):  # as if they were not installed, for who imports and for who only asks
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split('.')[0] in absent else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
if where: sys.path.insert(0, where)
import person_search_nb
assert person_search_nb.__file__.startswith(where or sys.prefix), person_search_nb.__file__
modules = [m.name for m in pkgutil.iter_modules(person_search_nb.__path__)]
for name in modules: importlib.import_module('person_search_nb.' + name)
for point in distribution('person_search_nb').entry_points: assert point.load() is not None
import matplotlib.pyplot as plt
plt.style.use('person_search_nb.psnb')
from person_search_nb.demo import DemoConfig, run_demo
tiny = 'synth:tiny?train_scenes=4&test_scenes=4&train_ids=6&test_ids=4&queries=2&gallery=3&cameras=2&size=96x160'
if where: run_demo(DemoConfig(data=tiny, teacher_epochs=1, student_epochs=1), 'demo')
assert not absent & {m.split('.')[0] for m in set(sys.modules) - at_start}
print('imported', *sorted(modules))
'''


def modules_of(root): return sorted(p.stem for p in (root/'person_search_nb').glob('*.py') if p.stem != '__init__')


def test_wheel_works_without_the_extras(root, wheel, tmp_path):
    """Installed alone, every module imports and the demo runs with only the runtime requirements (and what they need) visible.
    All else that is installed here, nbdev, jupyterlab and grad-cam among it, is hidden from the importing process."""
    where = tmp_path/'site'
    run(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', where, wheel)
    needed = runtime_distributions(read_settings(root)['requirements'].split()) | {'person-search-nb'}
    absent = [top for top, dists in metadata.packages_distributions().items() if not {canonicalize_name(d) for d in dists} & needed]
    assert {'nbdev', 'jupyterlab', 'ipywidgets', 'IPython', 'pytorch_grad_cam', 'scipy', 'hypothesis', 'pytest'} <= set(absent)
    assert not {'torch', 'torchvision', 'numpy', 'PIL', 'matplotlib', 'fastcore', 'tqdm', 'safetensors'} & set(absent)
    out = run(sys.executable, '-I', '-c', IMPORT_ALL, where, *absent, cwd=tmp_path)
    assert out.split()[-len(modules_of(root)) - 1:] == ['imported', *modules_of(root)]


@pytest.mark.slow
def test_wheel_in_an_empty_environment(root, wheel, tmp_path):
    "The same, for real: a new environment, the wheel and what it asks for from the package index, nothing else."
    env = tmp_path/'env'
    run(sys.executable, '-m', 'venv', env)
    python = env/'bin/python'
    run(python, '-m', 'pip', 'install', '--quiet', wheel)
    installed = {p['name'].lower() for p in json.loads(run(python, '-m', 'pip', 'list', '--format', 'json'))}
    assert not installed & {'nbdev', 'jupyterlab', 'grad-cam', 'ipywidgets', 'ipython', 'scipy'}
    out = run(python, '-I', '-c', IMPORT_ALL, '', cwd=tmp_path)
    assert out.split()[-len(modules_of(root)) - 1:] == ['imported', *modules_of(root)]
    assert 'demo' in run(env/'bin/person-search', '--help', cwd=tmp_path)
