#!/usr/bin/env python3
"""The pages of the site, from the notebooks, the modules' docments and the Markdown files, in docs/_build/pages; `make docs` then lets Sphinx set them."""
import ast, io, json, re, runpy, shutil, tokenize
from pathlib import Path

from PIL import Image
from nbdev.process import NBProcessor
from nbdev.processors import FilterDefaults, ai_magics, clean_magics, filter_stream_, hide_, hide_line, populate_language, rm_header_dash, strip_ansi, strip_hidden_metadata

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT/'docs/_build/pages'
LIB = 'person_search_nb'
PAGE = ROOT/'runs/page'   # of `make page`; docs/conf.py copies it to html/page
written = set()


def write(name, text):
    "One page, touched only when it changed, so that Sphinx sets only that one again."
    path = PAGES/name
    written.add(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text if isinstance(text, bytes) else text.encode()
    if not path.exists() or path.read_bytes() != data: path.write_bytes(data)


def copy(path):
    to = PAGES/path.relative_to(ROOT)
    written.add(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists() or to.read_bytes() != path.read_bytes(): shutil.copy(path, to)


# Notebooks

class Lesson(FilterDefaults):
    "nbdev's processors without those for reference pages: a reader of a lesson wants to see the exported code where it is explained; its table is on the API page."
    def base_procs(self):
        return [populate_language, strip_ansi, hide_line, filter_stream_, rm_header_dash, ai_magics, clean_magics, hide_, strip_hidden_metadata]


def markdown_cell(text): return dict(cell_type='markdown', metadata={}, source=text)


def minutes(cell):
    "What the reader should know before he runs a cell that tests leave out."
    marks = cell.get('directives_', {})
    return '*On a GPU:*' if 'cuda' in marks else '*Takes minutes:*' if 'slow' in marks else ''


def without_widget(data):
    "A widget needs Python behind it: its picture, where one is stored, or a word takes its place."
    if data.pop('application/vnd.jupyter.widget-view+json', None) and set(data) <= {'text/plain'}: data['text/plain'] = '(controls and pictures that answer them: open the notebook)'


def fold(metadata, source):
    "Imports, and what draws a first picture, stand behind one line, on the site as in Jupyter."
    what = 'imports' if re.match('import |from ', source) else 'code'
    metadata['tags'] = ['hide-input']
    metadata['mystnb'] |= dict(code_prompt_show=what.capitalize(), code_prompt_hide=f'Hide the {what}')


def notebook(path):
    "The cells of a notebook as they should be read: no directives, no hidden or empty cells, pictures with a text for those who do not see them."
    worked = NBProcessor(path, procs=Lesson().procs())
    worked.process()
    cells = []
    for c in worked.nb.cells:
        if not c.source.strip() and not c.get('outputs') or '%pip install' in c.source: continue
        cell = {k: c[k] for k in ('cell_type', 'source', 'outputs', 'execution_count') if k in c} | {'metadata': {}}
        if c.cell_type == 'code':
            for o in cell['outputs']: without_widget(o.get('data', {}))
            said = c.source.strip().splitlines()[-1].strip().rstrip(';')
            cell['metadata'] = {'mystnb': {'image': {'alt': f'Picture drawn by the code above: {said}'}}}
            if c.metadata.get('jupyter', {}).get('source_hidden'): fold(cell['metadata'], c.source)
            if minutes(c): cells.append(markdown_cell(minutes(c)))
        else: cell['source'] = re.sub(r'(\]\([^)\s]+\.ipynb)#([^)\s]+)\)', lambda m: f'{m[1]}#{slug(m[2])})', cell['source']).replace('](../nbs/index.ipynb', '](../index.ipynb')  # the site's first page
        cells.append(cell)
    return cells


def slug(heading):
    "The anchor of a heading, as GitHub and MyST make it (Jupyter keeps the case)."
    return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


def title(cells): return next(m[1].strip() for c in cells if c['cell_type'] == 'markdown' and (m := re.search(r'(?m)^# (.+)$', c['source'])))


def write_notebook(name, cells):
    meta = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'), language_info=dict(name='python', pygments_lexer='ipython3'))
    write(name, json.dumps(dict(cells=cells, metadata=meta, nbformat=4, nbformat_minor=4), ensure_ascii=False, indent=1))


# The page whose networks run in the browser

def has_page(folder=PAGE):
    "Whether `make page` has been here: the page, and what runs its networks."
    return all((folder/f).is_file() for f in ('index.html', 'data.json', 'vendor/ort.wasm.min.mjs'))


STILL = 'nbs/assets/page.jpg'   # on the site alone: a picture of the GIF
CARD = """```{{figure}} {still}
:alt: {said}
:target: page/index.html
:figclass: psnb-card
{title}. It runs in your browser: nothing is installed, and a picture of yours stays on your computer.
```"""


def still(gif, number=3):
    "One picture of a GIF, as JPEG."
    with Image.open(gif) as pictures:
        pictures.seek(number)
        out = io.BytesIO()
        pictures.convert('RGB').save(out, 'JPEG', quality=88)
    return out.getvalue()


def with_card(text):
    "The README's moving picture of the page becomes a card that opens it."
    return re.sub(r'!\[([^]]+)\]\(nbs/assets/page\.gif\)', lambda m: CARD.format(still=STILL, said=m[1], title='<a href="page/index.html">Open the page</a>'), text)


# API: from the source, so that nothing has to be imported

def plain(text):
    "Text that Markdown leaves as it is, but for `code`."
    parts = text.split('`')
    if len(parts) % 2 == 0: parts = [text.replace('`', "'")]
    return ' '.join('`'.join(re.sub(r'([\\*_<>$|\[\]#~{}])', r'\\\1', p) if i % 2 == 0 else p.replace('|', r'\|') for i, p in enumerate(parts)).split())


def comments_of(path):
    "{line number: its comment}: at the end of the line, or on the lines above it where that would be too long."
    with open(path, 'rb') as f: tokens = [t for t in tokenize.tokenize(f.readline) if t.type == tokenize.COMMENT]
    text = {t.start[0]: t.string.lstrip('# ').strip() for t in tokens}
    alone = {t.start[0] for t in tokens if not t.line[:t.start[1]].strip()}
    said = {n: c for n, c in text.items() if n not in alone}
    for n in sorted(alone):
        if n + 1 in alone or n + 1 in said: continue   # the last line of a comment stands above what it speaks of
        first = n
        while first - 1 in alone: first -= 1
        said[n + 1] = ' '.join(text[k] for k in range(first, n + 1))
    return said


def parameters(args, said):
    "(name, type, default, comment) of every parameter but `self`."
    both = [*args.posonlyargs, *args.args]
    defaults = [None]*(len(both) - len(args.defaults)) + args.defaults
    every = list(zip(both, defaults)) + ([(args.vararg, None)] if args.vararg else []) + list(zip(args.kwonlyargs, args.kw_defaults)) + ([(args.kwarg, None)] if args.kwarg else [])
    for a, default in every:
        if a.arg in ('self', 'cls'): continue   # patched functions annotate them
        name = ('*' if a is args.vararg else '**' if a is args.kwarg else '') + a.arg
        end = default.end_lineno if default is not None else a.end_lineno
        yield name, ast.unparse(a.annotation) if a.annotation else '', ast.unparse(default) if default is not None else '', said.get(end, '')


def fields(node, said):
    "The same of a dataclass."
    for f in node.body:
        if isinstance(f, ast.AnnAssign): yield f.target.id, ast.unparse(f.annotation), ast.unparse(f.value) if f.value else '', said.get(f.end_lineno, '')


def table(rows):
    rows = [r for r in rows if any(r[1:])]
    if not rows: return ''
    code = lambda s: '`' + s.replace('|', r'\|') + '`' if s else ''
    columns = [i for i in range(4) if i in (0, 3) or any(r[i] for r in rows)]   # no empty ones
    lines = [['parameter', 'type', 'default', 'meaning'], ['---']*4, *([code(n), code(t), code(d), plain(c)] for n, t, d, c in rows)]
    return '\n'.join('| ' + ' | '.join(line[i] for i in columns) + ' |' for line in lines)


def signature(name, rows):
    "Names and short defaults: the table has the rest."
    return f"{name}({', '.join(n + (f'={d}' if d and len(d) < 24 else '=...' if d else '') for n, t, d, c in rows)})"


def entry(kind, sign, parts, depth=0):
    fence = '`'*(8 - depth)
    return f"{fence}{{py:{kind}}} {sign}\n" + '\n\n'.join(p for p in parts if p) + f'\n{fence}\n'


def function(node, said, kind='function', depth=0):
    rows = list(parameters(node.args, said))
    back = said.get(node.returns.end_lineno, '') if node.returns else ''
    if not node.returns and (closing := max([node.lineno, *(a.end_lineno for a in ast.walk(node.args) if hasattr(a, 'end_lineno'))]) + 1) < node.body[0].lineno: back = said.get(closing, '')
    if back in {c for *_, c in rows}: back = ''   # all on one line
    to = f"`{ast.unparse(node.returns)}`" if node.returns and ast.unparse(node.returns) != 'None' else ''
    gives = f"**Returns** {to} {plain(back)}" if to or back else ''
    return entry(kind, signature(node.name, rows), [plain(ast.get_docstring(node) or ''), table(rows), gives], depth)


def grown(tree):
    "{class: methods that later cells gave it by `@patch`}"
    found = {}
    for n in tree.body:
        how = next((ast.unparse(d) for d in getattr(n, 'decorator_list', []) if ast.unparse(d).startswith('patch')), None)
        if not how or not n.args.args[0].annotation: continue
        kind = 'property' if 'as_prop' in how else 'classmethod' if 'cls_method' in how else None
        if kind: n.decorator_list.insert(0, ast.Name(kind))
        for of in re.findall(r'\w+', ast.unparse(n.args.args[0].annotation)): found.setdefault(of, []).append(n)
    return found


def klass(node, said, patched=()):
    methods = [*(m for m in node.body if isinstance(m, ast.FunctionDef)), *patched]
    init = next((m for m in methods if m.name == '__init__'), None)
    rows = list(parameters(init.args, said) if init else fields(node, said))
    shown = [m for m in methods if (m.name[0] != '_' or m.name == '__call__') and ast.get_docstring(m)]
    kinds = [{'property': 'property', 'classmethod': 'classmethod', 'staticmethod': 'staticmethod'}.get(next((ast.unparse(d) for d in m.decorator_list), ''), 'method') for m in shown]
    of = ', '.join(f'`{ast.unparse(b)}`' for b in node.bases)
    inner = [entry('property', m.name, [plain(ast.get_docstring(m))], 1) if k == 'property' else function(m, said, k, 1) for k, m in zip(kinds, shown)]
    return entry('class', signature(node.name, rows), [plain(ast.get_docstring(node) or ''), f'A kind of {of}.' if of else '', table(rows), *inner])


def constant(node, name, said):
    value = ast.unparse(node.value)
    value = f'Value: `{value}`' if len(value) < 160 else ''
    return entry('data', name, [plain(said.get(node.lineno, '') or said.get(node.end_lineno, '')), value])


def api_page(module, lesson):
    "Every exported name of a module, in the order of the source; its names."
    path = ROOT/LIB/f'{module}.py'
    tree, said = ast.parse(path.read_text(encoding='utf-8')), comments_of(path)
    wanted = next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '__all__'), [])
    parts, names, methods = [], [], grown(tree)
    for node in tree.body:
        name = node.name if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else None
        if name not in wanted or name in names: continue
        names.append(name)
        parts.append(function(node, said) if isinstance(node, ast.FunctionDef) else klass(node, said, methods.get(name, ())) if isinstance(node, ast.ClassDef) else constant(node, name, said))
    summary = plain(ast.get_docstring(tree) or '')
    write(f'api/{module}.md', f'# {LIB}.{module}\n\n{summary}\n\nBuilt and explained in [{lesson}](../{lesson}.ipynb).\n\n```{{py:module}} {LIB}.{module}\n```\n\n' + '\n'.join(parts))
    return summary, names


def toctree(caption, entries, hidden=True):
    return f'```{{toctree}}\n:caption: {caption}\n' + (':hidden:\n' if hidden else '') + '\n' + '\n'.join(entries) + '\n```\n'


def main():
    lists, modules = {'Tutorials': []}, {}
    parts = dict(re.findall(r'(?m)^### (\d) · (.+)$', '\n'.join(c['source'] for c in notebook(ROOT/'nbs/index.ipynb') if c['cell_type'] == 'markdown')))
    for path in [p for folder in ('tutorials', 'nbs', 'nbs/tools') for p in sorted((ROOT/folder).glob('*.ipynb')) if p.name not in ('index.ipynb', 'explore.ipynb')]:
        folder, cells = path.parent.relative_to(ROOT).as_posix(), notebook(path)
        number, module = path.stem.split('_', 1) if path.stem[0].isdigit() else ('', path.stem)
        caption = 'Tutorials' if folder == 'tutorials' else f'{number[0]} · {parts[number[0]]}' if number else 'Tools'
        lists.setdefault(caption, []).append(f'{number} {title(cells)} <{folder}/{path.stem}>'.strip())
        up = '../'*len(path.parent.relative_to(ROOT).parts)
        note = f'The notebook: {{download}}`{folder}/{path.name} <../../../{up}{folder}/{path.name}>`'
        if folder != 'tutorials':
            modules[module] = f'{folder}/{path.stem}'
            note += f' · exports [{LIB}.{module}]({up}api/{module}.md)'
            if module.startswith('web_') and has_page(): note += f' · <a href="{up}page/index.html">the page itself</a>'
        write_notebook(f'{folder}/{path.name}', [cells[0], markdown_cell(f'```{{container}} psnb-note\n{note}\n```'), *cells[1:]])
    for folder in ('tutorials', 'nbs'):
        for path in (ROOT/folder).glob('assets/*'): copy(path)

    where, rows = {}, []
    for module, lesson in modules.items():
        summary, names = api_page(module, lesson)
        rows.append(f'| [{module}]({module}.md) | {summary} | {len(names)} |')
        for n in names: where.setdefault(n, []).append(f'{LIB}.{module}.{n}')
    write('api/index.md', '\n'.join(['# API', '', 'What the package exports, by module. {ref}`All names in one list <genindex>`.', '', '| module | | names |', '|---|---|---|', *rows, '',
                                     toctree('API', [f'{m} <{m}>' for m in modules])]))

    pages = sorted((ROOT/'benchmarks').glob('*.md')) + [ROOT/'CONTRIBUTING.md', ROOT/'CHANGELOG.md', ROOT/'SECURITY.md']
    for path in [*pages, *(ROOT/'benchmarks').glob('*.py'), *(ROOT/'benchmarks').glob('*.sh')]: copy(path)   # the scripts: pages link to them
    measured = [f"benchmarks/{p.stem}" for p in pages if p.parent.name == 'benchmarks']

    from_readme = runpy.run_path(str(ROOT/'.ci/readme'))
    start = [c | {'source': from_readme['from_root'](c['source'])} if c['cell_type'] == 'markdown' else c for c in notebook(ROOT/'nbs/index.ipynb')]
    start[0]['source'] = from_readme['with_badges'](start[0]['source'])
    if has_page():
        start = [c | {'source': with_card(c['source'])} if c['cell_type'] == 'markdown' else c for c in start]
        write(STILL, still(ROOT/'nbs/assets/page.gif'))
    trees = [toctree(k, v) for k, v in lists.items()] + [toctree('Reference', ['API <api/index>']), toctree('Measured', measured), toctree('Project', ['CONTRIBUTING', 'SECURITY', 'CHANGELOG'])]
    write_notebook('index.ipynb', [start[0], markdown_cell('\n'.join(trees)), *start[1:]])

    # for conf.py: code words in prose that have a page
    links = {n: found[0] for n, found in where.items() if len(found) == 1} | {f'{LIB}.{m}': f'{LIB}.{m}' for m in modules}
    files = {str(p.relative_to(PAGES)): p.relative_to(PAGES).with_suffix('').as_posix() for p in written if p.suffix in ('.ipynb', '.md')}
    files |= {Path(d).name: d for d in files.values() if re.match(r'nbs/(\d|tools/)', d)} | {d: d for d in files.values() if re.match(r'(nbs|tutorials)/(\d|tools/)', d)}
    write('links.json', json.dumps(dict(names=links, files=files), indent=1, sort_keys=True))
    for path in PAGES.rglob('*'):
        if path.is_file() and path not in written: path.unlink()  # its source is gone


if __name__ == '__main__': main()
