"""What leads to the pages: the site's card for the page without Python, and badges from the one address in settings.ini."""
import json, os, runpy, shutil, stat, subprocess, sys
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
import pytest
from PIL import Image

ADDRESS = 'https://github.com/someone/person_search'


@pytest.fixture
def pages(root, tmp_path):
    "docs/pages.py, which writes into a folder of its own."
    spec = spec_from_file_location('pages', root/'docs/pages.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PAGES, module.PAGE = tmp_path/'pages', tmp_path/'page'
    return module


def write_files(folder, *names):
    for name in names:
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_text('here')


def test_the_site_has_a_card_for_the_page_that_is_there(root, pages):
    said = json.loads(''.join((root/'nbs/index.ipynb').read_text(encoding='utf-8')))['cells']
    said = ''.join(next(c['source'] for c in said if 'page.gif' in ''.join(c['source'])))
    text = runpy.run_path(str(root/'.ci/readme'))['from_root'](said)
    card = pages.with_card(text)
    assert ':target: page/index.html' in card and pages.STILL in card and 'page.gif' not in card
    assert card.count('\n') > text.count('\n') and ':alt: ![' not in card
    picture = Image.open(BytesIO(pages.still(root/'nbs/assets/page.gif')))
    assert picture.format == 'JPEG' and len(picture.getcolors(10 ** 6)) > 1000
    write_files(pages.PAGE, 'index.html', 'data.json')
    assert not pages.has_page(pages.PAGE), 'nothing runs its networks'
    write_files(pages.PAGE, 'vendor/ort.wasm.min.mjs')
    assert pages.has_page(pages.PAGE)


@pytest.mark.parametrize('there', [True, False])
def test_the_site_copies_the_page(pages, tmp_path, there, root, monkeypatch):
    "Where `make page` has written one; one of an earlier site goes."
    pytest.importorskip('sphinx', reason='no Sphinx here: make docs brings it')
    monkeypatch.syspath_prepend(root/'docs')
    conf = runpy.run_path(str(root/'docs/conf.py'))
    write_files(tmp_path/'html', 'page/old.js')
    if there: write_files(pages.PAGE, 'index.html', 'data.json', 'vendor/ort.wasm.min.mjs')
    conf['copy_page'].__globals__['runpy'] = type('Run', (), dict(run_path=lambda path: dict(has_page=lambda: pages.has_page(pages.PAGE), PAGE=pages.PAGE)))
    builder = type('Builder', (), dict(format='html'))
    conf['copy_page'](type('App', (), dict(builder=builder, outdir=tmp_path/'html')), None)
    assert (tmp_path/'html/page/index.html').exists() == there and not (tmp_path/'html/page/old.js').exists()


def fetch(root, folder, tmp_path, **programs):
    "`.ci/fetch-onnxruntime-web FOLDER` where npm is one of `programs`, or missing."
    bin_ = tmp_path/'bin'
    bin_.mkdir(exist_ok=True)
    for name in ('sh', 'grep', 'mkdir', 'mktemp', 'rm'):
        if not (bin_/name).exists(): (bin_/name).symlink_to(shutil.which(name))
    for name, text in programs.items():
        (bin_/name).write_text(text)
        (bin_/name).chmod(stat.S_IRWXU)
    return subprocess.run([shutil.which('sh'), root/'.ci/fetch-onnxruntime-web', folder], env=dict(os.environ, PATH=str(bin_)), capture_output=True, text=True)


def test_what_is_missing_is_said_in_one_line(root, tmp_path):
    "Without npm, without its registry; a folder that has the files needs neither."
    done = fetch(root, tmp_path/'vendor', tmp_path)
    assert done.returncode and done.stderr.count('\n') == 1 and 'npm is missing' in done.stderr and 'apt-get install npm' in done.stderr
    version = next(line for line in (root/'.ci/fetch-onnxruntime-web').read_text().splitlines() if line.startswith('version=')).partition('=')[2]
    write_files(tmp_path/'vendor', 'LICENSE.txt', 'ort.webgpu.min.mjs')
    (tmp_path/'vendor/LICENSE.txt').write_text(f'onnxruntime-web {version}, of an earlier call\n')
    assert fetch(root, tmp_path/'vendor', tmp_path).returncode == 0
    (tmp_path/'vendor/LICENSE.txt').write_text('onnxruntime-web 0.1.0, too old\n')
    done = fetch(root, tmp_path/'vendor', tmp_path, npm='#!/bin/sh\necho noise >&2\nexit 1\n')
    assert done.returncode and done.stderr.count('\n') == 1 and 'registry' in done.stderr


# Badges

@pytest.fixture
def tree(root, tmp_path):
    "`tree(address)`: a copy of what badges are made from, with another address."
    def make(address):
        for name in ('settings.ini', '.ci/badges', '.ci/readme', 'nbs/index.ipynb', 'tutorials/00_ten_minutes.ipynb', 'tutorials/15_million.ipynb', 'tutorials/explore.ipynb'):
            (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root/name, tmp_path/name)
        (tmp_path/'nbs/assets').mkdir(exist_ok=True)
        return set_address(tmp_path, address)
    return make


def set_address(folder, address):
    lines = (folder/'settings.ini').read_text(encoding='utf-8').splitlines()
    at = [k for k, line in enumerate(lines) if line.startswith('git_url =')]
    assert len(at) == 1
    lines[at[0]] = f'git_url = {address}'
    (folder/'settings.ini').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return folder


def run(folder, script, *args): return subprocess.run([sys.executable, folder/'.ci'/script, *args], capture_output=True, text=True)


def test_without_an_address_there_are_no_badges_and_nothing_is_claimed(tree):
    folder = tree('')
    run(folder, 'badges', '--write'), run(folder, 'readme')
    for file in [folder/'README.md', *folder.glob('tutorials/*.ipynb')]:
        text = file.read_text(encoding='utf-8')
        assert 'Open in Colab' not in text and 'mybinder' not in text
    assert "'PERSON_SEARCH_NB', '..'" in text, 'the repository that the tutorial lies in'
    assert not list(folder.glob('nbs/assets/*.svg'))


def test_one_address_makes_every_badge_and_takes_it_away(tree, root):
    folder = tree(ADDRESS + '/')
    before = {p: p.read_bytes() for p in folder.glob('tutorials/*.ipynb')}
    stale = run(folder, 'badges')
    assert stale.returncode and 'run .ci/badges --write' in stale.stderr
    assert run(folder, 'badges', '--write').returncode == 0 and run(folder, 'badges').returncode == 0
    run(folder, 'readme')
    cells = json.loads((folder/'tutorials/15_million.ipynb').read_text(encoding='utf-8'))['cells']
    first = ''.join(cells[0]['source'])
    assert first.splitlines()[0] == '# Search a million people' and first.count('Open in') == 2
    assert '(https://colab.research.google.com/github/someone/person_search/blob/main/tutorials/15_million.ipynb)' in first
    assert '(https://mybinder.org/v2/gh/someone/person_search/main?labpath=tutorials/15_million.ipynb)' in first
    install = ''.join(cells[1]['source'])
    assert f"'git+{ADDRESS}'" in install and 'faiss-cpu' in install, 'what a tutorial needs besides stays'
    readme = (folder/'README.md').read_text(encoding='utf-8').splitlines()
    assert readme[0].startswith('# ') and readme[2].count('Open in') == 2 and '](nbs/assets/colab.svg)' in readme[2]
    svg = (folder/'nbs/assets/binder.svg').read_text()
    assert svg.startswith('<svg') and 'Open in Binder' in svg and 'href' not in svg
    run(set_address(folder, ''), 'badges', '--write')
    assert {p: p.read_bytes() for p in before} == before and not list(folder.glob('nbs/assets/*.svg'))


def test_an_address_elsewhere_is_refused(tree):
    done = run(tree('https://example.org/person_search'), 'badges', '--write')
    assert done.returncode and 'git_url = https://example.org/person_search' in done.stderr and 'https://github.com/OWNER/NAME' in done.stderr
