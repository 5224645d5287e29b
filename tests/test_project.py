"""The tree keeps its promises: modules in step with notebooks, notebooks clean, complete and light, imports that only point down."""
from collections import Counter
from functools import cache
from pathlib import Path
import ast, functools, json, re, runpy, shutil, subprocess, sys
import pytest

ROOT = Path(__file__).resolve().parents[1]
MB = 1024**2
# a home or work folder of one machine
MACHINE_PATH = re.compile(r'(?<![\w.:/])/(?:home|root|work|Users)/\w')
# in an output also what differs from one run or machine to the next
OUTPUT_PATH = re.compile(MACHINE_PATH.pattern + r'|[/\\](?:site|dist)-packages[/\\]|(?<![\w.:/])/tmp/\w|[A-Z]:\\Users')


def tracked(suffix=''):
    "Files that are, or are about to be, in the repository."
    names = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    return sorted(p for n in set(names.split('\0')) if n.endswith(suffix) and n and (p := ROOT/n).is_file())


NOTEBOOKS = tracked('.ipynb')
NUMBERED = [p for p in NOTEBOOKS if p.parent.name in ('nbs', 'tutorials') and re.match(r'\d\d_', p.name)]
TOOLS = [p for p in NOTEBOOKS if p.parent.name == 'tools']
LESSONS = [*TOOLS, *(p for p in NUMBERED if p.parent.name == 'nbs')]
NUMBER = lambda path: int(path.name[:2]) if path.parent.name == 'nbs' else 0  # of tools: see `levels`
each_notebook = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(ROOT).as_posix())
each_lesson = pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.name)


@cache
def parsed(text): return json.loads(text)['cells']


def cells(path): return parsed(path.read_text(encoding='utf-8'))
def source(cell): return ''.join(cell['source'])
def markdown(path): return '\n\n'.join(source(c) for c in cells(path) if c['cell_type'] == 'markdown')
def code(path): return [source(c) for c in cells(path) if c['cell_type'] == 'code']
def outputs(path): return [o for c in cells(path) for o in c.get('outputs', [])]


def as_text(output):
    "What a reader sees of an output as text: streams, text and HTML; not pictures, whose letters are noise."
    parts = [output.get('text', ''), *(v for k, v in output.get('data', {}).items() if k.startswith('text/'))]
    return '\n'.join(''.join(p) for p in parts if isinstance(p, (str, list)))


@cache
def module_of(path):
    "The module a notebook exports (`#| default_exp`), or None."
    found = re.search(r'(?m)^#\|\s*default_exp\s+(\S+)', '\n'.join(code(path)))
    return found and found[1]


def copy_project(folder):
    "The notebooks, the package and nbdev's settings, in `folder`."
    for path in tracked():
        if path.relative_to(ROOT).parts[0] in ('nbs', 'tutorials', 'person_search_nb', 'pyproject.toml'):
            (folder/path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder/path.relative_to(ROOT))


def nbdev(command, *args, cwd):
    done = subprocess.run([Path(sys.executable).parent/command, *args], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f'{command} failed:\n{done.stdout}'


def different(folder, suffixes):
    "Names of the files with one of `suffixes` that are not the same in `folder` as here, or are in one place only."
    found = lambda top: {p.relative_to(top) for part in ('nbs', 'tutorials', 'person_search_nb') for p in (top/part).rglob('*') if p.suffix in suffixes}
    kept = {p.relative_to(ROOT) for p in tracked()}
    read = lambda p: p.read_bytes() if p.exists() else None
    return [n.as_posix() for n in sorted(found(folder) | found(ROOT) & kept) if read(folder/n) != read(ROOT/n)]


def test_modules_are_in_step_with_their_notebooks(tmp_path):
    copy_project(tmp_path)
    for module in (tmp_path/'person_search_nb').glob('*.py'):
        if module.name != '__init__.py': module.unlink()  # a module whose notebook is gone must not survive
    nbdev('nbdev-export', cwd=tmp_path)
    stale = different(tmp_path, {'.py'})
    assert not stale, f"{', '.join(stale)}: not what the notebooks export. `make export` writes the modules again (edit notebooks, not modules)."


def test_notebooks_are_clean(tmp_path):
    copy_project(tmp_path)
    for folder in ('nbs', 'tutorials'): nbdev('nbdev-clean', '--fname', folder, cwd=tmp_path)
    dirty = different(tmp_path, {'.ipynb'})
    assert not dirty, f"{', '.join(dirty)}: not clean. `make clean-nbs` repairs it."


def test_lint():
    "ruff reads notebooks, tests and benchmarks; its rules stand in pyproject.toml."
    done = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--quiet', '--output-format', 'concise', ROOT], capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr


def test_no_large_file():
    large = {p.relative_to(ROOT).as_posix(): p.stat().st_size for p in tracked() if p.stat().st_size > 5*MB}
    assert not large, f'over 5 MB: {large}'


def test_no_machine_path_in_any_file():
    found = []
    for path in tracked():
        try: text = path.read_text(encoding='utf-8')
        except UnicodeDecodeError: continue  # a picture, weights
        if path.suffix == '.ipynb': text = '\n'.join(source(c) for c in cells(path))  # outputs have their own test
        found += [f'{path.relative_to(ROOT)}: {m[0]}' for m in MACHINE_PATH.finditer(text)]
    assert not found, found


def test_machine_paths_are_told_from_others():
    "Written in parts, so that this file does not hold what it forbids."
    here = ['File "/' + 'root/venv/x.py", line 3', 'saved to /' + 'home/ann/runs', '/' + 'Users/ann/x']
    assert all(MACHINE_PATH.search(text) for text in here)
    assert all(OUTPUT_PATH.search(text) for text in [*here, 'lib/' + 'site-packages/torch', '/' + 'tmp/tmp1a2b/x.png', 'C:\\' + 'Users\\ann'])
    assert not any(OUTPUT_PATH.search(text) for text in ['runs/demo/report.html', '../shared/real', 'https://example.org/home/page', 'a/b', 'nbs/assets/' + 'work/x.png'])


@each_notebook
def test_notebook_opens_without_asking(path):
    "JupyterLab asks which kernel to take when a notebook names none, or one that is not there."
    assert json.loads(path.read_text(encoding='utf-8'))['metadata'].get('kernelspec', {}).get('name') == 'python3'


@each_notebook
def test_notebook_outputs(path):
    "Committed as they should be seen: no error, no path of the machine they ran on, light enough to open anywhere."
    outs = outputs(path)
    assert not [o for o in outs if o['output_type'] == 'error']
    found = [m[0] for o in outs for m in OUTPUT_PATH.finditer(as_text(o))]
    assert not found, f'paths of one machine in the outputs: {found}'
    assert path.stat().st_size < 450*1024, f'{path.stat().st_size/1024:.0f} KB: fewer or smaller pictures, please'


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if p.parent.name == 'tutorials'], ids=lambda p: p.name)
def test_tutorials_start_on_a_bare_machine(path):
    "The first cell installs the package where it is missing, and only there; badges are those of settings.ini."
    badges = runpy.run_path(str(ROOT/'.ci/badges'))
    assert code(path)[0].startswith(badges['install_cell'](badges['address']()))  # some ask for more packages
    assert path not in badges['stale']()


def rows_before_picture(cells):
    "About how many lines JupyterLab shows above the first picture, at 1280 px: folded code is one."
    rows = 0
    for c in cells:
        text = ''.join(c['source'])
        if c['cell_type'] == 'markdown': rows += sum(1 + len(line) // 110 + line.startswith('#') for line in text.splitlines()) + 1
        else: rows += 2 if c['metadata'].get('jupyter', {}).get('source_hidden') else len(text.splitlines()) + 2
        for o in c.get('outputs', []):
            if any(k.startswith('image/') for k in o.get('data', {})): return rows
            rows += ''.join(o.get('text', '')).count('\n')
    return rows


@pytest.mark.parametrize('path', [p for p in NUMBERED if p.parent.name == 'tutorials'], ids=lambda p: p.name)
def test_a_tutorial_opens_on_a_picture(path):
    "It begins on the first screen of JupyterLab; what installs and imports stands behind one line."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    imports = [c for c in cells[:4] if c['cell_type'] == 'code' and re.match(r'(import|from) ', ''.join(c['source']))]
    assert imports and all(c['metadata'].get('jupyter', {}).get('source_hidden') for c in imports)
    assert rows_before_picture(cells) <= 29


@pytest.mark.parametrize('path', [p for p in NUMBERED if p.parent.name == 'tutorials' and p.name[:2] != '19'], ids=lambda p: p.name)
def test_a_tutorial_asks_two_or_three_questions(path):
    "They check themselves, and are seen: a cell shows its last line only. The cheat sheet has none."
    asking = [c for c in cells(path) if c['cell_type'] == 'code' and re.search(r'(?m)^(?:ask|check_answer)\(', source(c))]
    assert 2 <= len(asking) <= 3
    shown = [''.join(map(as_text, c['outputs'])) for c in asking]
    assert all('Replace ... by' in s or '✓ Right.' in s for s in shown), shown
    assert not any(re.search(r'Right\.</b> (?:Right|No)\b', s) for s in shown), 'said twice'


@pytest.mark.parametrize('path', [p for p in NUMBERED if p.parent.name == 'tutorials'], ids=lambda p: p.name)
def test_exercises_find_what_they_need_after_run_all(path):
    "Folders go when the kernel ends, and not in a last cell; nothing is emptied."
    text = '\n'.join(code(path))
    assert not re.search(r'\.cleanup\(\)|rmtree|(?m:^\w+(?: = \w+)* = None$)', text)


def test_numbers_name_one_notebook_each():
    "Two digits, unique in the repository: tutorials below 20, notebooks from 20, the first digit their part."
    numbers = {folder: [p.name[:2] for p in NUMBERED if p.parent.name == folder] for folder in ('nbs', 'tutorials')}
    assert all(len(set(n)) == len(n) > 10 for n in numbers.values()), numbers
    assert max(numbers['tutorials']) < '20' <= min(numbers['nbs'])
    others = {p.name for p in NOTEBOOKS} - {p.name for p in [*NUMBERED, *TOOLS]}
    assert others == {'index.ipynb', 'explore.ipynb'}


def test_references_to_notebooks_are_true():
    "Every `notebook 45` in prose is a link with that notebook's number and title; in code its number is there."
    done = subprocess.run([sys.executable, ROOT/'.ci/renum'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def test_renaming_takes_the_references_along(tmp_path):
    "`.ci/renum` on a small tree: files, links, titles, numbers in comments."
    def book(path, *cells):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(cells=[dict(cell_type=k, source=[t], metadata={}) for k, t in cells], metadata={}, nbformat=4, nbformat_minor=5)))
    book(tmp_path/'nbs/20_a.ipynb', ('markdown', '# First\nsee notebook [21 Second](21_b.ipynb) and [this](21_b.ipynb#x)'), ('code', '# as in notebooks 20, 21 and tutorial 00'))
    book(tmp_path/'nbs/21_b.ipynb', ('markdown', '# Second'))
    book(tmp_path/'tutorials/00_t.ipynb', ('markdown', '# T\n[21 Second](../nbs/21_b.ipynb)'))
    for name in ('.ci', 'tests', 'benchmarks', 'docs'): (tmp_path/name).mkdir()
    shutil.copy(ROOT/'.ci/renum', tmp_path/'.ci/renum')
    (tmp_path/'tests/t.py').write_text('"nbs/21_b.ipynb"  # notebook 21, not page 21')
    git = lambda *args: subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *args], cwd=tmp_path, check=True, capture_output=True)
    git('init'); git('add', '-A'); git('commit', '-m', 'x')
    run = lambda *args: subprocess.run([sys.executable, '.ci/renum', *args], cwd=tmp_path, capture_output=True, text=True)
    assert run().returncode == 0
    assert run('nbs/21_b', 'nbs/35_c').returncode == 0 == run().returncode
    first = [source(c) for c in cells(tmp_path/'nbs/20_a.ipynb')]
    assert first == ['# First\nsee notebook [35 Second](35_c.ipynb) and [this](35_c.ipynb#x)', '# as in notebooks 20, 35 and tutorial 00']
    assert '[35 Second](../nbs/35_c.ipynb)' in source(cells(tmp_path/'tutorials/00_t.ipynb')[0])
    assert (tmp_path/'tests/t.py').read_text() == '"nbs/35_c.ipynb"  # notebook 35, not page 21'
    book(tmp_path/'nbs/35_c.ipynb', ('markdown', '# Another title, notebook 20'), ('code', '# notebook 77'))
    assert run().returncode and len(run().stderr.strip().split('\n')) == 4  # two links say the old title, one number is no link, one is nobody's
    run('--write')
    assert '[35 Another title, notebook 20](35_c.ipynb)' in source(cells(tmp_path/'nbs/20_a.ipynb')[0])


@each_lesson
def test_a_notebook_is_a_lesson(path):
    "Every numbered notebook exports a module, shows pictures, tests itself, ends with exercises."
    text, sources = markdown(path), '\n'.join(code(path))
    end = re.split(r'(?mi)^#+ .*exercises?\b.*$', text, maxsplit=1)[1:]
    has = {
        '`#| default_exp` with the name of the notebook': module_of(path) == re.sub(r'^\d\d_', '', path.stem),
        'first `# Title` and `> one-line summary`': re.match(r'# \S.*\n+> \S', text),
        'a picture among the outputs': any(k.startswith('image/') for o in outputs(path) for k in o.get('data', {})),
        'at least five assertions': len(re.findall(r'(?m)^\s*(?:assert\b|test_\w+\()', sources)) >= 5,
        'a section "What you built"': re.search(r'(?mi)^#+ .*what (?:you|we) built', text),
        'a section of exercises, 1 to 3 at least': end and {'1', '2', '3'} <= set(re.findall(r'(?mi)^\W*(?:exercise )?(\d)\b', end[0])),
        'their solutions in <details>': end and '<details' in end[0],
    }
    lacks = [what for what, there in has.items() if not there]
    assert not lacks, '; '.join(lacks)


def stub_of(cells):
    "The assertions of each exercise that leaves the reader a line or a function to write: lists of lines."
    here = next(i for i, c in enumerate(cells) if c['cell_type'] == 'markdown' and re.search(r'(?mi)^#+ .*exercise', source(c)))
    text = re.sub(r'<details>.*?</details>', '', '\n'.join(source(c) for c in cells[here:] if c['cell_type'] == 'markdown'), flags=re.S)
    blocks = re.findall(r'```python\n(.*?)```', text, re.S)
    blocks += [source(c) for c in cells[here:] if c['cell_type'] == 'code' and not source(c).startswith('#| hide')]
    unfinished = [b for b in blocks if '...' in b]
    lines = lambda block: [re.sub(r'\s+#.*', '', line.strip()) for line in block.splitlines()]
    return [[line for line in lines(b) if re.match(r'assert\b|test_|with ', line)] for b in unfinished]


@each_lesson
def test_an_exercise_is_a_stub_whose_solution_is_tested(path):
    "At least one exercise is a function to write, with an assertion that says when it is right; a hidden cell runs a solution against that very assertion."
    hidden = '\n'.join(s for s in code(path) if s.startswith('#| hide'))
    stubs = stub_of(cells(path))
    assert stubs, 'no exercise is a stub: a fenced block of Python with `...` for the body, and an assertion'
    assert any(lines and all(line in hidden for line in lines) for lines in stubs), f'no hidden cell runs all of {stubs}'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.name)
def test_equations_render(path):
    r"`\\\\frac` in Markdown is a line break and letters: it was escaped twice. Line breaks in matrices are followed by a space or a new line."
    cells = [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'markdown']
    assert not (found := [m for c in cells for m in re.findall(r'.{0,20}\\\\[A-Za-z{}].{0,20}', c)]), found


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if p.parent.name == 'tutorials'], ids=lambda p: p.name)
def test_run_all_leaves_out_slow_cells(path):
    "A tutorial with cells that take minutes or need a GPU leaves them out, and stores what they gave."
    cells = [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    marked = [c for c in cells if ''.join(c['source']).startswith(('#| slow', '#| cuda'))]
    assert any('skip_slow_cells()' in ''.join(c['source']) for c in cells) or not marked
    assert not any('Not run, because' in as_text(o) for c in marked for o in c['outputs']), 'outputs of Run All are no results'
    assert not any('progress=False' in part for c in marked for part in re.findall(r'(?:train|run_recipe|run_ablation)\([^()]*', ''.join(c['source']))), 'show a bar'


@pytest.mark.parametrize('path', [p for p in NUMBERED if p.parent.name == 'tutorials'], ids=lambda p: p.name)
def test_slow_cells_say_how_long_they_take(path):
    "In the text before them, or in the heading of their section."
    said = ''
    for c in cells(path):
        if c['cell_type'] == 'markdown': said = source(c) if '# ' not in source(c) else source(c)[source(c).index('# '):]
        elif source(c).startswith('#| slow'): assert re.search('second|minute|hour', said), said


def test_no_cell_is_empty():
    empty = [p.name for p in NOTEBOOKS if any(not ''.join(c['source']).strip() for c in json.loads(p.read_text(encoding='utf-8'))['cells'])]
    assert not empty, empty


def imported_modules(text, known=()):
    "Modules of the package that Python source imports, at any depth: inside functions, and as strings for import_module, too."
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import): names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ('person_search_nb.' if node.level else '') + (node.module or '')
            names |= {base, *(f"{base.rstrip('.')}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (m := re.fullmatch(r'(?:person_search_nb)?\.(\w+)|(\w+):\w+', node.value)):
            if (m[1] or m[2]) in known: names.add(f'person_search_nb.{m[1] or m[2]}')
    return {n.split('.')[1] for n in names if n.startswith('person_search_nb.') and n.split('.')[1]}


def test_imported_modules_finds_every_form():
    text = '''
import person_search_nb.boxes as b
from person_search_nb.anchors import x
from person_search_nb import oim
from .models import y
from . import rpn
def later():
    from person_search_nb.search import z
    import_module('person_search_nb.runs'), import_module('.steps', 'person_search_nb'), dict(a='clsa:build', b='no:where')
import torch.nn, search
'''
    known = 'boxes anchors oim models rpn search runs steps clsa'.split()
    assert imported_modules(text, known) & {*known, 'nn', 'no'} == set(known)


@functools.cache
def imports():
    "Module -> modules of notebooks that it imports."
    known = {module_of(p) for p in LESSONS}
    return {m: imported_modules((ROOT/f'person_search_nb/{m}.py').read_text(encoding='utf-8'), known) & known - {m} for m in known}


@functools.cache
def levels():
    "Module -> number of its notebook; a tool counts as the highest number that it builds on, as 0 without one."
    level, below = {module_of(p): NUMBER(p) for p in LESSONS}, imports()
    tools = [module_of(p) for p in TOOLS]
    for _ in tools: level |= {m: max((level[x] for x in below[m]), default=0) for m in tools}
    return level


@functools.cache
def place(module):
    "Number of the first notebook that needs a module: its own, or, for a tool, the lowest of those it is there for; 100 without one."
    if module in {module_of(p) for p in LESSONS if p not in TOOLS}: return levels()[module]
    return min((place(m) for m, below in imports().items() if module in below and levels()[m]), default=100)


@each_lesson
def test_imports_point_down(path):
    "A notebook, and the module it exports, import only modules of notebooks with a lower number, or tools that build on none higher (and a notebook its own). The cells of a tool may take what comes before all who use it."
    level, own = levels(), module_of(path)
    python = '\n'.join(re.sub(r'(?m)^\s*[%!].*$', '', c) for c in code(path) if not c.startswith('%%'))
    up = {m for m in imported_modules(python) & set(level) if level[m] > level[own] and not (path in TOOLS and level[m] < place(own))}
    if path not in TOOLS: up |= {m for m in imports()[own] if level[m] >= level[own]}
    assert not up, f'imports {sorted(up)}, which come at or after {path.name}'


def test_no_circle():
    "Tools have no numbers: what imports what, followed to its end, never comes back."
    below = imports()
    for _ in below: below = {m: seen.union(*(below[x] for x in seen)) for m, seen in below.items()}
    assert not [m for m in below if m in below[m]]


def test_no_private_name_is_imported():
    "What another module needs has a name without an underscore."
    found = []
    for p in LESSONS:
        tree = ast.parse((ROOT/f'person_search_nb/{module_of(p)}.py').read_text(encoding='utf-8'))
        found += [f'{module_of(p)}: {n.module}.{a.name}' for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.level or (n.module or '').startswith('person_search_nb'))
                  for a in n.names if a.name.startswith('_') and not a.name.startswith('__')]
    assert not found, found


tree_of = cache(ast.parse)  # text -> tree


def given(node):
    "Names that a statement at the top of a module gives; methods that are patched into classes may share theirs."
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)): return [] if node.decorator_list else [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


@each_lesson
def test_no_name_is_given_twice(path):
    "A later cell would change what an earlier function means by it, without a word."
    body = tree_of((ROOT/f'person_search_nb/{module_of(path)}.py').read_text(encoding='utf-8')).body
    assert not (twice := [k for k, n in Counter(x for node in body for x in given(node)).items() if n > 1]), twice


def statements(node):
    "All statements in a tree, without the expressions in them, which are many."
    for field in ('body', 'orelse', 'finalbody', 'handlers', 'cases'):
        for inner in getattr(node, field, ()):
            yield inner
            yield from statements(inner)


def defined(module):
    "Names at the top of a module of the package, whatever stands around them."
    names = set()
    for node in ast.walk(tree_of((ROOT/f'person_search_nb/{module}.py').read_text(encoding='utf-8'))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)): names |= {(a.asname or a.name).split('.')[0] for a in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): names.add(node.id)
    return names


def test_every_name_that_is_imported_is_there():
    "Imports inside functions, too: they fail only when someone calls them."
    have = {p.stem: defined(p.stem) for p in tracked('.py') if p.parent == ROOT/'person_search_nb'}
    plain = lambda cell: '' if cell.startswith('%%') else re.sub(r'(?m)^([ \t]*)[%!].*$', r'\1pass', cell)
    texts = [(p, '\n'.join(map(plain, code(p)))) for p in NOTEBOOKS] + [(p, p.read_text(encoding='utf-8')) for p in tracked('.py')]
    lost = [f'{p.relative_to(ROOT)}: {m}.{a.name}' for p, text in texts for n in statements(tree_of(text)) if isinstance(n, ast.ImportFrom)
            and (m := (n.module or '').removeprefix('person_search_nb').lstrip('.')) in have and (n.level or n.module.startswith('person_search_nb'))
            for a in n.names if a.name != '*' and a.name not in have[m]]
    assert not lost, '\n'.join(lost)


def test_every_module_has_a_notebook():
    modules = {p.stem for p in tracked('.py') if p.parent == ROOT/'person_search_nb'} - {'__init__', '_modidx'}
    assert modules == {module_of(p) for p in LESSONS}
