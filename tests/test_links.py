"""Links and pictures lead somewhere: in Markdown, in notebooks, and in the built site where there is one (`make docs`).
`python tests/test_links.py` lists the links to elsewhere, which no test fetches."""
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
import json, re, sys
import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT/'docs/_build/html'
MD = MarkdownIt('commonmark').enable('table')


def pages(root):
    "The files a reader opens."
    found = [root/n for n in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md')]
    found += [p for pattern in ('benchmarks/*.md', 'nbs/*.ipynb', 'nbs/tools/*.ipynb', 'tutorials/*.ipynb') for p in sorted(root.glob(pattern))]
    return [p for p in found if p.is_file()]


def texts(path):
    "The Markdown of a file, in pieces."
    text = path.read_text(encoding='utf-8')
    if path.suffix != '.ipynb': return [text]
    return [''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'markdown']


class Tags(HTMLParser):
    "Links, pictures and anchors of HTML."
    def __init__(self):
        super().__init__()
        self.links, self.pictures, self.anchors, self.loaded, self.base = [], [], set(), [], None
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.anchors |= {a[k] for k in ('id', 'name') if a.get(k)}
        if tag == 'a' and a.get('href'): self.links.append(a['href'])
        elif tag == 'img': self.pictures.append((a.get('src', ''), a.get('alt') or ''))
        if tag in ('script', 'iframe', 'source', 'video') and a.get('src'): self.loaded.append(a['src'])
        if tag == 'link' and a.get('href'): self.loaded.append(a['href'])


def tags(html):
    parser = Tags()
    parser.feed(html)
    return parser


def links_of(text):
    "([links], [(picture, its text)], [what is left of others]) of a piece of Markdown: what stands in code is no link, nor is what stands in a formula."
    text = re.sub(r'\$\$.+?\$\$|(?<![\w$\\])\$(?! )[^$\n`]+?(?<![ \\])\$(?![\w$])', 'formula', text, flags=re.S)
    links, pictures, halves = [], [], []
    for block in MD.parse(text):
        for token in [block, *(block.children or [])]:
            if token.type == 'link_open': links.append(token.attrs['href'])
            elif token.type == 'image': pictures.append((token.attrs['src'], token.content))
            elif token.type == 'text' and '](' in token.content: halves.append(token.content.strip())   # no link holds another
            elif token.type in ('html_block', 'html_inline'):
                inside = tags(token.content)
                links, pictures = links + inside.links, pictures + inside.pictures
    return links, pictures, halves


def headings(path):
    "Anchors that the headings of a file get: in a notebook as Jupyter makes them (spaces to hyphens), in Markdown as GitHub does (lower case, no punctuation)."
    found, seen = set(), Counter()
    for text in texts(path):
        tokens = MD.parse(text)
        for a, b in zip(tokens, tokens[1:]):
            if a.type != 'heading_open': continue
            said = ''.join(t.content for t in b.children if t.type in ('text', 'code_inline'))
            slug = said.strip().replace(' ', '-') if path.suffix == '.ipynb' else re.sub(r'[^\w\- ]', '', said.strip().lower()).replace(' ', '-')
            found.add(f'{slug}-{seen[slug]}' if seen[slug] and path.suffix != '.ipynb' else slug)
            seen[slug] += 1
        found |= tags(text).anchors
    return found


def broken(root):
    "What is wrong with links and pictures of the tree in `root`, a line each."
    wrong = []
    for path in pages(root):
        say = lambda what: wrong.append(f'{path.relative_to(root).as_posix()}: {what}')
        for text in texts(path):
            links, pictures, halves = links_of(text)
            for half in halves: say(f'{half[:40]}: half of a link')
            for src, alt in pictures:
                if not alt.strip(): say(f'the picture {src} has no text for those who do not see it')
            for link in [*links, *(src for src, _ in pictures)]:
                parts = urlsplit(link)
                if parts.scheme or parts.netloc:
                    if parts.scheme != 'https': say(f'{link}: not https')
                    continue
                to = (path.parent/unquote(parts.path)).resolve() if parts.path else path
                if not to.is_relative_to(root.resolve()) and to != path: say(f'{link}: outside the repository')
                elif not to.exists(): say(f'{link}: no such file')
                elif parts.fragment and (to.suffix not in ('.md', '.ipynb') or unquote(parts.fragment) not in headings(to)): say(f'{link}: no such heading')
    return wrong


def external(root):
    "{link to elsewhere: files it stands in}"
    found = {}
    for path in pages(root):
        for text in texts(path):
            links, pictures, _ = links_of(text)
            for link in [*links, *(src for src, _ in pictures)]:
                if urlsplit(link).scheme: found.setdefault(link, set()).add(path.relative_to(root).as_posix())
    return found


def broken_site(site):
    "Links of a built site that lead nowhere, and whatever it would fetch from elsewhere."
    wrong, parsed = [], {p: tags(p.read_text(encoding='utf-8')) for p in sorted(site.rglob('*.html'))}
    for page, found in parsed.items():
        say = lambda what: wrong.append(f'{page.relative_to(site).as_posix()}: {what}')
        for src in [*found.loaded, *(src for src, _ in found.pictures)]:
            if urlsplit(src).scheme not in ('', 'data') or src.startswith('//'): say(f'{src}: comes from elsewhere')
        if page.name == 'search.html' or '_static' in page.parts: continue   # its links are made by the script
        for src, alt in found.pictures:
            if not alt.strip(): say(f'the picture {src} has no text')
        for link in [*found.links, *found.loaded, *(src for src, _ in found.pictures)]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc: continue
            to = (page.parent/unquote(parts.path)).resolve() if parts.path else page
            if not to.is_file(): say(f'{link}: no such file')
            elif parts.fragment and to in parsed and unquote(parts.fragment) not in parsed[to].anchors: say(f'{link}: no such place')
    return wrong


def test_links_and_pictures():
    assert len(pages(ROOT)) > 40
    wrong = broken(ROOT)
    assert not wrong, '\n'.join(wrong)


def test_built_site():
    if not (SITE/'index.html').exists(): pytest.skip('no site here: make docs')
    wrong = broken_site(SITE.resolve())
    assert not wrong, '\n'.join(wrong)


def notebook(*cells): return json.dumps(dict(cells=[dict(cell_type='markdown', metadata={}, source=c) for c in cells], metadata={}, nbformat=4, nbformat_minor=5))


def test_broken_links_are_found(tmp_path):
    "A tree with one fault of each kind, and beside each the same thing done right."
    for folder in ('nbs', 'tutorials', 'benchmarks'): (tmp_path/folder).mkdir()
    (tmp_path/'there.png').write_bytes(b'')
    (tmp_path/'README.md').write_text('# Top\n\n[a](nbs/00_a.ipynb) [gone](nbs/99_gone.ipynb) [b](CHANGELOG.md#second-part-2) [c](CHANGELOG.md#third) [d](#top) [e](#bottom)\n\n'
        '![seen](there.png) ![](there.png) ![lost](lost.png) <img src="there.png"> <a href="gone.html">x</a> `[code](no.md)` $[p](q)$\n\n```\n[code](no.md)\n```\n\n'
        '[web](https://example.org/x) [plain](http://example.org) [up](../elsewhere.md) <ftp://example.org> [ref]\n\n[Top [a](nbs/00_a.ipynb)](#top) `[a](b)](c)`\n\n[ref]: nowhere.md\n', encoding='utf-8')
    (tmp_path/'CHANGELOG.md').write_text('# Log\n\n## Second part, 2\n', encoding='utf-8')
    (tmp_path/'nbs/00_a.ipynb').write_text(notebook('# A\n[x](../tutorials/t.ipynb#The-table)', '[y](../tutorials/t.ipynb#the-table) [z](../there.png)\n<details><summary>S</summary>\n\n[w](lost.ipynb)\n\n</details>'), encoding='utf-8')
    (tmp_path/'tutorials/t.ipynb').write_text(notebook('# T', '## The table'), encoding='utf-8')
    assert broken(tmp_path) == ['README.md: ](#top): half of a link', 'README.md: the picture there.png has no text for those who do not see it', 'README.md: the picture there.png has no text for those who do not see it',
        'README.md: nbs/99_gone.ipynb: no such file', 'README.md: CHANGELOG.md#third: no such heading', 'README.md: #bottom: no such heading', 'README.md: gone.html: no such file',
        'README.md: http://example.org: not https', 'README.md: ../elsewhere.md: outside the repository', 'README.md: ftp://example.org: not https', 'README.md: nowhere.md: no such file',
        'README.md: lost.png: no such file', 'nbs/00_a.ipynb: ../tutorials/t.ipynb#the-table: no such heading', 'nbs/00_a.ipynb: lost.ipynb: no such file']
    assert set(external(tmp_path)) == {'https://example.org/x', 'http://example.org', 'ftp://example.org'}


def test_broken_site_is_found(tmp_path):
    (tmp_path/'index.html').write_text('<h1 id="top"></h1><a href="#top">a</a><a href="b.html#x">b</a><a href="b.html#y">c</a><a href="c.html">d</a><a href="https://example.org">e</a>'
        '<script src="https://cdn.example.org/m.js"></script><link href="s.css"><img src="p.png" alt="p"><img src="data:image/png;base64,AA" alt="q"><img src="//example.org/i.png" alt="r">', encoding='utf-8')
    (tmp_path/'b.html').write_text('<p id="x"></p><img src="index.html">', encoding='utf-8')
    assert broken_site(tmp_path.resolve()) == ['b.html: the picture index.html has no text', 'index.html: https://cdn.example.org/m.js: comes from elsewhere', 'index.html: //example.org/i.png: comes from elsewhere',
        'index.html: b.html#y: no such place', 'index.html: c.html: no such file', 'index.html: s.css: no such file', 'index.html: p.png: no such file']


if __name__ == '__main__':
    for link, files in sorted(external(ROOT).items()): print(link, '  in', ', '.join(sorted(files)))
    sys.exit('\n'.join(broken(ROOT)) or 0)
