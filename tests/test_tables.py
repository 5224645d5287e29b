"The papers' tables as data: whole, consistent, and with the numbers that were printed."
import itertools
import re
from dataclasses import fields
from pathlib import Path

import pytest

from person_search_nb.paper_tables import CURVES, Row, SEARCHES, Table
from person_search_nb.tables import ELSEWHERE, TABLES

SEEDS = Path(__file__).resolve().parents[2] / 'shared' / 'seeds'
TEXTS = {'HDL': 'hdl_2021.txt', 'E2E': 'end_to_end_rss_2016.txt', 'CLSA': 'clsa_2018.txt',
         'attention embedding': 'attention_embedding_2020.txt', 'KD-E2E': 'kd_end_to_end_2019.txt'}
NAMES = """table2 table3 table4 table5 table6 table7 table8 figure6 e2e-table2 e2e-table3 e2e-figure5 e2e-figure6
    e2e-figure7a e2e-figure7b clsa-table2 clsa-table3 clsa-table4 clsa-table5 clsa-table6 clsa-table7 clsa-table8
    clsa-figure5 clsa-figure6a clsa-figure6b clsa-figure6c attention-table1 attention-table2 kd-e2e kd-e2e-resnet18
    kd-e2e-levels qeeps systems""".split()
SCHEMES = {'cuhk-sysu', 'prw', 'duke', 'cuhk03'}
real = pytest.mark.skipif(not SEEDS.is_dir(), reason='the texts of the papers are not here')
every = pytest.mark.parametrize('name', list(TABLES))


def text(paper): return (SEEDS / TEXTS[paper]).read_text()
def paper_of(table): return next((p for p in TEXTS if table.title.startswith(p)), None)
def tokens(line): return re.findall(r'\d+(?:\.\d+)?', line.replace('\u2013', ' '))


def everyone(rows):
    "Rows, and the rows they learn from."
    for r in rows:
        yield r
        yield from everyone([t for t in (r.teacher, r.detector) if t])


def test_all_of_them(): assert sorted(TABLES) == sorted(NAMES)


@every
def test_labels_and_references(name):
    table = TABLES[name]
    labels = [r.label for r in table.rows]
    assert len(set(labels)) == len(labels) and table.rows
    for r in table.rows:
        assert bool(r.model) != bool(r.of), r.label
        assert not r.of or r.of in labels and r.search in SEARCHES and not r.settings, r.label
        assert not r.of or next(o for o in table.rows if o.label == r.of).model, f'{r.label}: its `of` trains nothing'
        assert not r.length_of or r.length_of in labels and r.length_of != r.label, r.label
        assert r.terms is None or r.teacher and set(r.terms.split()) <= {'fd', 'ad', 'pd'}, r.label
        assert ('teach' in r.settings) <= bool(r.teacher), r.label
    same = {}
    for r in everyone(table.rows):  # one label is one network, wherever it stands
        assert same.setdefault(r.label, (r.model, r.settings, r.terms, r.length_of, r.of, r.search)) == \
            (r.model, r.settings, r.terms, r.length_of, r.of, r.search), r.label
    assert table.curve in ('', *CURVES) and table.measure in ('mAP', 'top1')
    assert all(s.endswith('.') and len(s) > 20 for s in table.differs)
    assert all(isinstance(why, str) and len(why) > 10 for why in table.left_out.values())


@every
def test_no_row_brings_a_start(name):
    rows = list(everyone(TABLES[name].rows))
    assert not any(k in r.settings for r in rows for k in ('start', 'crops', 'after', 'seed', 'data'))
    assert {r.settings.get('imprint') for r in rows} == ({False} if name == 'table7' else {None})


@every
def test_printed_numbers_name_their_data(name):
    table = TABLES[name]
    assert set(table.schemes) <= SCHEMES and set(table.options) <= set(table.schemes)
    for r in table.rows:
        for scheme, printed in r.paper.items():
            assert scheme.partition('?')[0] in table.schemes and printed, r.label
            assert set(printed) <= {'mAP', 'top1', 'det_ap', 'det_recall'}
            assert all(0 < v < 100 for v in printed.values()), r.label


def test_what_is_equal_has_a_control():
    "Where a taught or compared embedding is longer, another row has its length; where QEEPS teaches, none is needed."
    for name in ('table2', 'table3', 'table4', 'figure6', 'clsa-table2', 'clsa-table3', 'clsa-table4', 'clsa-table6',
                 'clsa-figure5', 'clsa-figure6c', 'kd-e2e', 'kd-e2e-resnet18', 'systems'):
        assert any(r.length_of for r in TABLES[name].rows), name
    for name, trunk in (('kd-e2e', 'resnet50'), ('kd-e2e-resnet18', 'resnet18')):
        rows = TABLES[name].rows
        assert any(r.length_of and r.settings['trunk'] == trunk for r in rows)
        assert [r.teacher.model for r in rows if r.paper and r.teacher] == ['qeeps']  # where a number is printed
        assert all(not r.paper for r in everyone(rows) if r.teacher and r.teacher.model == 'hdl-teacher')


def test_published_numbers_of_oim_stand_beside_the_published_network():
    "HDL prints the numbers of OIM that CLSA prints; only on DukeMTMC-PS, its own set, are they of an OIM that HDL trained."
    printed = lambda name: [(r.model, r.paper) for r in TABLES[name].rows if r.label.startswith('OIM') and r.paper]
    for ours, theirs in (('table2', 'clsa-table2'), ('table3', 'clsa-table3')):
        assert printed(ours) == printed(theirs) and [m for m, _ in printed(ours)] == ['oim']
    assert [m for m, _ in printed('table4')] == ['oim-hdl']


def test_rows_that_cannot_carry_the_printed_number():
    "The printed DenseSIFT + ColorHist numbers do not stand beside our colour strips."
    for table in TABLES.values():
        assert not any(r.paper for r in table.rows if r.search.startswith('colours'))
    assert '28.0' in str(TABLES['e2e-table2'].left_out) and '34.5' in str(TABLES['clsa-table2'].left_out)


def test_only_data():
    "The modules read nothing else of the package, and two dataclasses say all there is to a table."
    import person_search_nb.paper_tables, person_search_nb.tables
    for module in person_search_nb.paper_tables, person_search_nb.tables:
        source = Path(module.__file__).read_text()
        assert not re.search(r'^(from|import) (?!dataclasses|io|\.paper_tables)', source, re.M)
    assert [f.name for f in fields(Row)][:2] == ['label', 'model'] and 'left_out' in [f.name for f in fields(Table)]


# --- against the texts ---

def places(paper):
    "{'Table 2': lines of its captions}."
    found = {}
    for n, line in enumerate(text(paper).splitlines()):
        m = re.match(r'\W*(Table|TABLE|Fig\.|Figure) (\d+|I+)\b(?!\s+(shows|reports|presents|reveals|also))', line)
        if m: found.setdefault(f'{"Table" if m[1].lower() == "table" else "Fig."} {m[2]}', []).append(n)
    return found


@real
@pytest.mark.parametrize('paper', ['HDL', 'E2E', 'CLSA', 'attention embedding'])
def test_every_table_and_figure_is_here_or_said_to_be_elsewhere(paper):
    here = [t.title for t in TABLES.values()] + list(ELSEWHERE)
    captions = places(paper)
    assert len([c for c in captions if c.startswith('Table')]) == dict(HDL=8, E2E=3, CLSA=8).get(paper, 2)
    for c in captions: assert any(re.match(rf'{paper}, {re.escape(c)}[a-c]?(:|$)', t) for t in here), c
    for title in here:
        if m := re.match(rf'{paper}, ((?:Table|Fig\.) \w+?)[a-c]?(:|$)', title):
            assert m[1] in captions or m[1] in text(paper).replace('Figure', 'Fig.'), title


@real
@pytest.mark.parametrize('name', [n for n in TABLES if paper_of(TABLES[n])])
def test_numbers_are_the_printed_ones(name):
    "All numbers of a row and data set stand on one line of the paper or on two in succession, near their table."
    table = TABLES[name]
    paper = paper_of(table)
    lines = text(paper).splitlines()
    lines = [tokens(re.sub(r'\[[^]]*\]', ' ', l)) for l in lines]
    pairs = [set(a) | set(b) for a, b in zip(lines, [*[l for l in lines[1:]], []])]
    m = re.search(r'(Table|Fig\.) (\w+?)[ab]?:', table.title)
    captions = places(paper).get(f'{m[1]} {m[2]}', []) if m and m[1] == 'Table' else []
    near = {n for at in captions for n in range(at - 25, at + 40)}
    for r in table.rows:
        for scheme, printed in r.paper.items():
            written = [f'{v / 100:.3f}' if paper == 'attention embedding' else str(v) for v in printed.values()]
            hits = [n for n, pair in enumerate(pairs) if set(written) <= pair]
            assert hits, f'{r.label}, {scheme}: {written} are not printed together'
            if near and r.label != 'HDL(T), the teacher': assert set(hits) & near, f'{r.label}: {written}, {m[0]}'


@real
def test_qeeps_numbers_are_those_of_the_project_page():
    rows = [tokens(l) for l in text('KD-E2E').splitlines()]
    for r in TABLES['qeeps'].rows:
        for printed in r.paper.values(): assert any({str(v) for v in printed.values()} <= set(line) for line in rows), r.label


@real
def test_numbers_in_left_out_are_printed():
    for table in TABLES.values():
        if paper := paper_of(table):
            known = {t for line in text(paper).splitlines() for t in tokens(line)}
            for why in table.left_out.values(): assert {t for t in tokens(why) if '.' in t} <= known, why


# --- the page for researchers ---

PAGE = Path(__file__).resolve().parents[1] / 'benchmarks' / 'fidelity.md'


def test_the_page_lists_every_table_with_its_rows():
    lines = {m[1]: line for line in PAGE.read_text().splitlines() if (m := re.match(r'\| `([\w-]+)` \|', line))}
    assert set(lines) == set(TABLES) - {'systems'}
    for name, line in lines.items():
        _, _, title, data, rows, left, _ = (c.strip() for c in line.split('|'))
        table = TABLES[name]
        assert title == table.title
        assert rows.split(' · ') == [r.label + ('' if r.paper else '*') for r in table.rows], name
        assert left == (' · '.join(table.left_out) or '–'), name
    for where, why in ELSEWHERE.items(): assert f'| {where} | {why} |' in PAGE.read_text()


def test_the_page_names_tests_that_exist():
    for file, name in re.findall(r'(?:tests/)?(test_\w+\.py)::(test_\w+)', PAGE.read_text()):
        assert f'def {name}(' in (PAGE.parents[1] / 'tests' / file).read_text(), f'{file}::{name}'


def test_printed_numbers_stand_below_what_differs():
    "A measured table that shows a paper's numbers begins with what differs from that paper."
    lines = (PAGE.parent / 'training.md').read_text().splitlines()
    shown = [n for n, line in enumerate(lines) if line.startswith('|') and 'paper: mAP' in line]
    assert shown
    for n in shown:
        top = max(k for k in range(n) if lines[k].startswith('## '))
        assert any('What differs from the paper' in line for line in lines[top:n]), lines[n]


T6, E6, CLSA = 'HDL, Table 6: which distillation', 'E2E, Fig. 6: how to train', 'CLSA, Fig. 6c: detection or several levels'
C4 = 'CLSA, Table 4: several scales'
T2, T8, KD = 'HDL, Table 2: against other systems, CUHK-SYSU', 'HDL, Table 8: attention mechanisms', "KD-E2E: which of the detector's advice"
K1, K2, AE, QE = 'KD-E2E, first table: ResNet-50', 'KD-E2E, second table: ResNet-18', 'attention embedding, Table II: search', 'QEEPS: three parts on OIM'
QUOTED = [('benchmarks/README.md', T2, r'its teacher above OIM (\+\d+\.\d)', 1),
          ('README.md', T6, r'brings most: (\+\d+\.\d) points of mAP', 1),
          ('README.md', f'{T6} (twice as long)', r'and (\+\d+\.\d) twice as long, where labels alone reach (\d+\.\d)', 1),
          ('tutorials/03_teacher.ipynb', 'HDL, Table 5: attention', r'\| (\d+\.\d) \| (\d+\.\d) \| (\+[^|]+\)) \|', 2),
          ('tutorials/05_distil.ipynb', T6, r'\| [AFPD +]+ \| (\d+\.\d) \| ([-+]\d[^|]+\)) \|', 7),
          ('tutorials/05_distil.ipynb', f"{T6} (the paper's student)", r'\) \| (\d+\.\d) \| ([-+]\d[^|]+\)) \| \+', 5),
          ('tutorials/12_kd_e2e.ipynb', K1, r'\| (?:O|Q)[^|]+ \| (\d+\.\d) \| (\d+\.\d) \| ([-+]\d[^|)]+\))[^|]*\| ([-+]\d[^|)]+\))', 5),
          ('benchmarks/README.md', K1, r'the table of QEEPS brings OIM (\+\d\.\d) mAP \((\+\d\.\d)\) and (\+\d\.\d) of detection AP \((\+\d\.\d)\), .+ advice (\+\d\.\d) and (\+\d+\.\d)', 1),
          ('tutorials/12_kd_e2e.ipynb', KD, r'differ by less: ([-+.\d]+) of mAP (\([^)]+\)) and (\+\d\.\d) of detection AP (\([^)]+\))', 1),
          ('tutorials/12_kd_e2e.ipynb', KD, r'detection AP of (\d+\.\d) in that run, a detector alone (\d+\.\d)', 1),
          ('benchmarks/README.md', KD, r'brings the joint network (\+\d\.\d) of detection AP, .+ joint training has (\d+\.\d), a detector alone (\d+\.\d)', 1),
          ('tutorials/09_e2e_rss.ipynb', E6, r'are worth (\+\d\.\d) points of mAP (\([^)]+\)), from (\d\.\d) to (\d\.\d)', 1),
          ('tutorials/09_e2e_rss.ipynb', f'{E6} (scenes half as large again)', r'E2E reaches (\d+\.\d). RSS is worth ([-+.\d]+ \([^)]+\))', 1),
          ('tutorials/09_e2e_rss.ipynb', f'{E6} (ten times as many people)', r'ends at (\d+\.\d), RSS at (\d+\.\d), a gain of ([-+.\d]+ \([^)]+\))', 1),
          ('tutorials/11_clsa.ipynb', CLSA, r'CLSA finds (\d+\.\d) % of the people first, one level (\d+\.\d) %: a gain of ([-+.\d]+ \([^)]+\)), in every seed; the paper has (\+\d\.\d)', 1),
          ('tutorials/11_clsa.ipynb', CLSA, r'with their true boxes CLSA gains ([-+.\d]+ \([^)]+\)), and (\+\d\.\d) in the paper', 1),
          ('tutorials/10_attention_embedding.ipynb', f'{AE} (trunks)', r'ResNet-50 above GoogLeNet by (\+\d\.\d \([^)]+\)), DenseNet-121 above ResNet-50 by (\+\d\.\d \([^)]+\))', 1),
          ('tutorials/10_attention_embedding.ipynb', f'{AE} (parts of the attention)', r'\| (?:transformer|mask|both) \| (\d+\.\d) \| ([-+]\d\.\d \([^)]+\)) \|', 3),
          ('tutorials/13_qeeps.ipynb', QE, r'asking the query brings ([-+.\d]+) points of mAP (\([^)]+\)), .+ the whole network, asked, is above OIM by \d\.\d (\([^)]+\)), where the paper has (\+6\.4)', 1),
          ('nbs/71_qeeps.ipynb', QE, r'asking the query brings ([-+.\d]+) points of mAP (\([^)]+\)); .+ by \d\.\d (\([^)]+\))', 1),
          ('tutorials/11_clsa.ipynb', C4, r'\| (?:ResNet-50, one level|in-network pyramid|image pyramid \(MST\)|DPFL|FPN) \| (\d+\.\d) \| (\+[^|]+\)) \| (\+\d\.\d) \|', 5),
          ('tutorials/03_teacher.ipynb', T8, r'\| (?:non-local|ARM) \| (\d+\.\d) \| (\+[^|]+\)) \| (\+\d\.\d) \| (\d+ M) \|', 2),
          ('tutorials/03_teacher.ipynb', T8, r"\| ARM, with HA-CNN's BatchNorm \| (\d+\.\d) \| (\+[^|]+\)) \| \| (\d+ M) \|", 1),
          ('tutorials/05_distil.ipynb', f'{T2} (all from random weights)', r'reaches (\d\.\d) mAP, the taught student (\d+\.\d), its teacher (\d+\.\d): the student is above OIM by (\+[^)]+\))', 1),
          ('tutorials/05_distil.ipynb', 'HDL, Fig. 6: mAP over the size of the gallery (all from random weights)', r'10 scenes to search \((\+\d+\.\d)\) and with 199 \((\+\d\.\d)\)', 1),
          ('tutorials/11_clsa.ipynb', 'CLSA, Fig. 6a: precision and recall of the detector', r'detection AP is higher by (\+\d\.\d) (\([^)]+\)), and the mAP of CLSA.+ by (\+\d\.\d) (\([^)]+\))', 1),
          ('tutorials/09_e2e_rss.ipynb', 'E2E, Table 2: against detection and re-id in two steps', r'has E2E (\d\.\d) points of top-1 above .+ in every world: by (\d\d\.\d) points', 1),
          ('tutorials/09_e2e_rss.ipynb', 'E2E, Table 2: against detection and re-id in two steps (scenes half as large again)', r'and by (\d\d\.\d) with the larger', 1),
          ('tutorials/05_distil.ipynb', f"{T6} (the paper's student)", r'labels alone, (\d+\.\d) mAP \((\d+\.\d) to (\d+\.\d)\)', 1),
          ('benchmarks/README.md', f"{T6} (the paper's student)", r"(\+\d+\.\d) for the paper's student, from (\d+\.\d)", 1),
          ('README.md', f'{T2} (all from random weights)', r'is above OIM by (\d+\.\d) points', 1),
          ('tutorials/12_kd_e2e.ipynb', K2, r'table brings (\+\d+\.\d) of mAP and (\+\d\.\d) of detection AP. Here that does not show [^:]+: (\+\d\.\d) of mAP (\([^)]+\)), in every world, and (\+\d\.\d) of detection AP (\([^)]+\))', 1),
          ('tutorials/11_clsa.ipynb', 'CLSA, Table 5: parts of the detector', r'costs (\d\.\d) points not to train the first block, and (\d\.\d) to pool', 1),
          ('benchmarks/README.md', f'{T2} (all from random weights)', r'the taught student is above OIM, (\+\d+\.\d)', 1),
          ('benchmarks/README.md', C4, r'above one (\+\d\.\d) mAP \((\+\d\.\d)\), above three without alignment[^+]+(\+\d\.\d) \((\+\d\.\d)\), above an FPN (\+\d\.\d) \((\+\d\.\d)\)', 1),
          ('tutorials/11_clsa.ipynb', 'CLSA, Table 7: temperature', r'mAP (\d+\.\d) with a temperature of 1, then (\d+\.\d), (\d+\.\d) and (\d+\.\d) with 3, 5 and 7', 1)]


@pytest.mark.parametrize('file, title, pattern, count', QUOTED)
def test_what_is_quoted_of_the_claims_stands_there(file, title, pattern, count):
    section = (PAGE.parent / 'claims.md').read_text().partition(f'## {title}\n')[2].partition('\n## ')[0]
    found = [m.groups() for m in re.finditer(pattern, (PAGE.parents[1] / file).read_text())]
    assert len(found) == count and section
    for number in itertools.chain(*found): assert number in section, f'{file}: {number} is not in {title} of benchmarks/claims.md'


def test_what_shows_on_the_page_of_claims():
    "By the numbers that are printed, also where a table was measured long ago; the table at the head says the same, line by line."
    text = (PAGE.parent / 'claims.md').read_text()
    lines = re.findall(r'(?m)^\* .+ over .+: ([+-][\d.]+ \(([+-][\d.]+) to ([+-][\d.]+)\)), (.+)$', text)
    shows = lambda low, high: '**shows' if low > 0 else '**the reverse' if high < 0 else '**does not'
    assert len(lines) > 40 and all(said.startswith(shows(float(low), float(high))) for _, low, high, said in lines)
    assert f"Of {len(lines)} comparisons {sum('**shows' in said for *_, said in lines)} show" in text
    head = [(row[4], row[5]) for row in map(lambda line: [c.strip() for c in line.split('|')], text.partition('\n## ')[0].splitlines()) if len(row) == 7]
    words = {'**shows': '**yes**', '**the reverse': 'the reverse', '**does not': 'no'}
    assert head[2:] == [(gain, words[shows(float(low), float(high))]) for gain, low, high, _ in lines]
