"""The papers' claims at laptop size: train the rows of a table where no trunk hides what they say, and print what shows.

    python benchmarks/claims.py --list                 # what there is, and how long it takes
    python benchmarks/claims.py table6                 # trains what is missing, then prints; goes on where it was stopped
    python benchmarks/claims.py table6 --workers 2     # two trainings at once, a core each
    make trunks                                        # before a claim that starts from trunks which do not ship: --list says which need them
    python benchmarks/claims.py --page                 # puts what is measured into benchmarks/claims.md; the page keeps its other tables
    python benchmarks/claims.py table6 --steps 0.02 --seeds 0 --out runs/try      # proves only that it runs

Every claim is measured in worlds of its own (one for each seed), which no trunk has seen and on which no setting was chosen.
"""
import argparse
import platform
import re
from dataclasses import dataclass, replace
from datetime import date
from html import escape
from pathlib import Path

import torch

from person_search_nb.ablations import ablation_table, run_ablation
from person_search_nb.files import atomic_write
from person_search_nb.safe_reading import read_json
from person_search_nb.model_files import shipped_trunk
from person_search_nb.paper_tables import OIM_AS_T, OIM_HDL
from person_search_nb.tables import TABLES
from person_search_nb.training import read_log

WORLD = 'synth:tiny?train_scenes=480&train_ids=300&seed=10{seed}'
MANY = 'synth:tiny?train_scenes=4800&train_ids=3000&seed=10{seed}'  # E2E's data set has 5,532 people
SHIPPED = dict(epochs=4.)  # 480 steps from the trunk that ships, which stands for ImageNet
RANDOM = dict(start='', imprint=False, epochs=10., precision='fp32')  # 1,200 steps from nothing
TRUNK = dict(start='taught/{}', epochs=4.)  # 480 steps from a trunk of `make trunks`, each row's own
CUTOUTS = 12.  # epochs of cut-outs: some 920 steps of 48
VGG = TRUNK | {'start': 'taught/vgg16', 'batch_norm': True, 'cutouts.epochs': CUTOUTS}
LARGER = {'size': (384, 672), 'epochs': 8.}  # half as large again: a person is 3 x 7 cells of VGG16's last map, not 2 x 5; 960 steps
TEN_TIMES = {'epochs': .8, 'cutouts.epochs': 1.2}  # of ten times as much: as many steps of cut-outs, and twice as many in scenes
IDNET = VGG | {'epochs': CUTOUTS, 'detector.epochs': 4.}  # its identities are learned from cut-outs, as CLSA's
ONE_SCALE = {'start': 'labels/resnet50', 'epochs': CUTOUTS, 'detector.epochs': 4.}  # it has seen cut-outs of one size, and learned nothing from a pyramid
TAUGHT = dict(lambdas=(.9, 400., 100.), temperature=4., hinton=False)  # as printed, but AD and FD for small maps
SHIPS = {p.stem for p in shipped_trunk('hdl-teacher').parent.glob('*.safetensors')}
PD, FD, AD, ALONE, ALL = 'PD', 'FD', 'AD', 'no distillation', 'FD + AD + PD'


def start(name, folder):
    "The trunk taught/NAME or labels/NAME: of this folder, or, where it is not there, the one that ships with the package."
    file, (how, net) = Path(folder) / f'{name}.safetensors', name.split('/')
    ships = f'{net}-taught' if how == 'taught' else net
    return f'shipped:{ships}' if not file.exists() and ships in SHIPS else str(file)


@dataclass(frozen=True)
class Claim:
    "A table of a paper, as it is run here."
    table: str            # a name of `TABLES`
    hours: float          # three seeds on one core of 2026
    gains: tuple          # of (row, row it is better than) in the paper
    settings: dict        # model -> settings of its rows; '' for all others
    student_model: str = 'hdl-student-fast'
    only: tuple = ()      # rows of the table; none: all
    other: str = ''       # what is other in this one, where there are several claims of one table
    note: str = ''        # what else a reader should know
    measures: tuple = (None,)  # what should gain, 'det_ap' for detection; None: what the table compares
    world: str = WORLD    # the training data, for a seed

    @property
    def rows(self): return [r for r in TABLES[self.table].rows if r.label in self.only or not self.only]

    def of(self, row):
        "What is set in a row, beside what the paper's row sets."
        own = self.settings.get(row.model, self.settings[''])
        if row.model.startswith('hdl'): own = own | dict(factored=True)  # as the preset has it; some of the papers' tables have not
        return own | dict(start=own['start'].format(row.settings.get('trunk', 'resnet50'))) if 'start' in own else own

    @property
    def trunks(self):
        "Which trunks of `make trunks` its rows start from, as 'taught/vgg16'."
        return sorted({self.of(r).get('start', '') for r in self.rows if r.model} - {''})

    def with_settings(self, share, folder):
        "The paper's table, its rows with these settings: `share` of the epochs, trunks from this folder."
        def settled(row):
            if row is None or not row.model: return row
            own = self.of(row)
            own = own | {k: v * share for k, v in own.items() if k.endswith('epochs')}
            if own.get('start'): own['start'] = start(own['start'], folder)
            return replace(row, settings=row.settings | own, teacher=settled(row.teacher), detector=settled(row.detector))
        return replace(TABLES[self.table], rows=tuple(map(settled, self.rows)))


_TABLE6 = (PD, ALONE), (FD, ALONE), (AD, ALONE), ('FD + AD', ALONE), (ALL, ALONE), (ALL, PD), (PD, FD), (FD, AD)
_OIM = OIM_HDL.label  # what is measured: the network of HDL's Table 4, not the published one of its Table 2
_TABLE2 = ('HDL(T)', 'HDL(S)'), ('HDL(S)', _OIM), ('HDL(T)', _OIM), ('HDL(T)', OIM_AS_T.label), ('CLSA', 'HDL(T)'), ('CLSA', _OIM), ('QEEPS', _OIM)
_ITS_OWN = _OIM, OIM_AS_T.label, 'HDL(T)', 'HDL(S)'
COMPARED = {'': SHIPPED, 'hdl-student': SHIPPED | TAUGHT}
_GROWN = ('All weights of HDL(T) start from the file that ships, which grew up in this very network; OIM takes 58 of its 59 from that file and leaves the attention; the fast student starts from its own file, '
          'which learned without a teacher. So a part of what lies between HDL(T) and OIM may be the start.')
_PUBLISHED = 'OIM is trained as HDL trains. The paper prints the result of the published OIM instead, which is not run here: HDL(T) is 10.5 above it, HDL(S) 9.1, CLSA 11.7.'
_FROM_NOTHING = 'Nothing that ships with the package is used: the student\'s teacher starts from random weights, too, and has learned for as many steps as all the others.'
_TABLE5 = tuple((f'{who}, with attention', f'{who}, without attention') for who in ('teacher', 'student'))
_E2E6 = ('RSS, cut-outs first', 'softmax, cut-outs first'), ('softmax, cut-outs first', 'softmax, from ImageNet'), ('RSS, cut-outs first', 'RSS, from ImageNet')
_E2E2 = (('E2E', 'Deep + IDNet'), ('Deep + IDNet', 'Deep + BoW'), ('Deep + IDNet', 'Deep + colours'), ('GT + IDNet', 'Deep + IDNet'),
         ('Deep + colours, KISSME', 'Deep + colours'))
_CLSA4 = (('CLSA', 'ResNet-50'), ('CLSA', 'in-network pyramid'), ('CLSA', 'FPN'), ('CLSA', 'image pyramid (MST)'), ('CLSA', 'DPFL'), ('FPN', 'ResNet-50'), ('image pyramid (MST)', 'ResNet-50'), ('ResNet-50', 'in-network pyramid'),
          ('CLSA', 'ResNet-50, as long as CLSA'))
_ROWS4 = tuple(r.label for r in TABLES['clsa-table4'].rows if r.label != 'FPN, as long as CLSA')
_TRUNKS = 'GoogLeNet', 'ResNet-50', 'DenseNet-121'
_PARTS = tuple(f'ResNet-50, {part}' for part in ('transformer', 'mask', 'attention'))
_HALF_FOUND = 'Boxes count from an overlap of 0.75 on, as in the paper. Networks that start from trunks of cut-outs have hardly any after these steps (detection AP 0.3 to 4 in the first world, for the rows with attention, too).'
_PARTS_LATER = f'{_HALF_FOUND} So the parts are compared where the start has seen scenes.'


def _kd(name):
    plain = f'OIM, {name}'
    return ((f'{plain}, table of QEEPS', plain), (f'{plain}, advice of a detector', plain), (f'{plain}, table of QEEPS and advice', plain),
            (f'{plain}, table of the HDL teacher', f'{plain}, as long as the HDL teacher'))


BOTH = None, 'det_ap'  # search, and detection
_ADVICE = (*((what, 'no advice') for what in ('hint alone', 'all three')), ('all three', 'hint alone'))
_BY_PART = ('Not run: scores alone, boxes alone. The trunk has seen cut-outs alone: RPN and boxes begin from nothing. OIM\'s loss rises from 5.2 to 6.1 at the first step to 16 to 21, with advice and without, and ends at 7.1 to 7.7 '
            '(300 people and a queue of 5,000, which begins empty: chance is 8.6), so a part of what the advice repairs may be of this training\'s making. '
            'Tried in three more worlds, 120 steps of OIM, from this start and from the HDL teacher\'s: with the scale of OIM\'s paper, 10 instead of 30, detection AP is higher in all six (+2.0 to +6.2), mAP in four of them (-1.5 to +3.2).')
_PEOPLE = '4,800 scenes with 3,000 people; the paper has 11,206 and 5,532.'
_QEEPS = ('+ QSSE', 'OIM'), ('+ QSSE + QRPN', '+ QSSE'), ('QEEPS', '+ QSSE + QRPN'), ('QEEPS, query-guided', 'QEEPS'), ('QEEPS, query-guided', 'OIM')
_UNASKED = tuple(r.label for r in TABLES['kd-e2e'].rows if not r.search)
_TWICE = ('QEEPS is searched without its query. OIM without and with the advice of a detector were trained once more elsewhere, with other rounding (the next table): +0.4 mAP there (-0.1 to +0.8), +2.8 of detection AP (+2.5 to +3.2). '
          'So a point of mAP, or two of detection AP, are not to be built on.')
_ASKED_ONCE = tuple(r.label for r in TABLES['qeeps'].rows if not r.search) + ('QEEPS, query-guided',)
_ASKING = 'Only the whole network is also searched with its query: 12,000 pairs of query and scene take some 18 minutes of one core.'
CLAIMS = {
    'table6': Claim('table6', 10, _TABLE6, {'': SHIPPED, 'hdl-student': RANDOM | TAUGHT}),
    'table6-longer': Claim('table6', 1.5, ((PD, ALONE),), {'': SHIPPED, 'hdl-student': RANDOM | TAUGHT | dict(epochs=20.)}, only=(ALONE, PD), other='twice as long'),
    'table6-paper-student': Claim('table6', 7, _TABLE6, {'': SHIPPED, 'hdl-student': RANDOM | TAUGHT}, 'hdl-student', only=(ALONE, FD, AD, PD, 'FD + AD', ALL), other="the paper's student", note='Not run: FD + PD, AD + PD.'),
    'table5': Claim('table5', 1.5, _TABLE5, {'': RANDOM}),
    'table2': Claim('table2', 3, _TABLE2, COMPARED, only=(*_ITS_OWN, 'CLSA', 'QEEPS'), note=f'{_PUBLISHED} {_GROWN} QEEPS is searched without its query.'),
    'table2-random': Claim('table2', 1, _TABLE2[:3], {'': RANDOM, 'hdl-student': RANDOM | TAUGHT}, only=(_OIM, 'HDL(T)', 'HDL(S)'), other='all from random weights', note=_FROM_NOTHING),
    'figure6': Claim('figure6', 1.5, _TABLE2[1:3], COMPARED, only=_ITS_OWN, note=_GROWN),  # the networks of Table 2
    'figure6-random': Claim('figure6', .5, _TABLE2[1:3], {'': RANDOM, 'hdl-student': RANDOM | TAUGHT}, only=(_OIM, 'HDL(T)', 'HDL(S)'), other='all from random weights', note=f'{_FROM_NOTHING} The networks are those of Table 2.'),
    'table7': Claim('table7', .7, (('softmax', 'centre'), ('softmax', 'softmax + centre')), {'': SHIPPED}),
    'table8': Claim('table8', 4.5, (('ARM', 'no attention'), ('non-local', 'no attention'), ('non-local', 'ARM')), {'': RANDOM}, note="ARM runs in factors, which gives the same numbers; as published it costs +176 M, as the row with HA-CNN's BatchNorm."),
    'e2e-figure6': Claim('e2e-figure6', 1, _E2E6, {'': VGG}),
    'e2e-figure6-larger': Claim('e2e-figure6', 2.5, _E2E6[:1], {'': VGG | LARGER}, only=_E2E6[0], other='scenes half as large again'),
    'e2e-figure6-many': Claim('e2e-figure6', 1.5, _E2E6[:1], {'': VGG | TEN_TIMES}, only=_E2E6[0], other='ten times as many people', note=_PEOPLE, world=MANY),
    'e2e-table2': Claim('e2e-table2', 1, _E2E2, {'': VGG, 'detector+idnet': IDNET}),
    'e2e-table2-larger': Claim('e2e-table2', 1.5, _E2E2[:1], {'': VGG | LARGER, 'detector+idnet': IDNET | {'size': LARGER['size'], 'detector.epochs': LARGER['epochs']}}, only=_E2E2[0], other='scenes half as large again'),
    'e2e-figure7b': Claim('e2e-figure7b', .5, (('E2E', 'Deep + BoW'), _E2E2[0]), {'': VGG, 'detector+idnet': IDNET}, note='The networks are those of Table 2.'),
    'clsa-table4': Claim('clsa-table4', 2.5, _CLSA4, {'': ONE_SCALE}, only=_ROWS4, note='Not run: FPN, as long as CLSA.'),
    'clsa-table5': Claim('clsa-table5', 1.5, (('full', 'first block learns'), ('full', 'no small proposals'), ('RoI pooling', 'full')), {'': ONE_SCALE}),
    'clsa-table6': Claim('clsa-table6', 1, (('CLSA', '5-4'), ('CLSA', '5-4-3-2'), ('CLSA', '5-4, as long as CLSA')), {'': ONE_SCALE}),
    'clsa-table7': Claim('clsa-table7', 1, (('T = 3', 'T = 1'), ('T = 5', 'T = 7')), {'': ONE_SCALE}),
    'clsa-figure6a': Claim('clsa-figure6a', 1, (('CLSA', 'detector without those changes'),), {'': ONE_SCALE}, note='Those changes: RoIAlign, and small proposals stay. The first block learns in both rows.', measures=BOTH),
    'clsa-figure6c': Claim('clsa-figure6c', 1, (('CLSA', 'ResNet-50'), ('CLSA, true boxes', 'CLSA'), ('ResNet-50, true boxes', 'ResNet-50')), {'': ONE_SCALE}),
    'attention-table1': Claim('attention-table1', .3, (('ResNet-50', 'GoogLeNet'), ('DenseNet-121', 'ResNet-50')), {'': TRUNK}, note=f'{_HALF_FOUND} The networks are those of Table II.', measures=BOTH[1:]),
    'attention-table2': Claim('attention-table2', 1, (('ResNet-50', 'GoogLeNet'), ('DenseNet-121', 'ResNet-50')), {'': TRUNK}, only=_TRUNKS, other='trunks', note=_PARTS_LATER),
    'attention-table2-parts': Claim('attention-table2', 1.5, tuple((part, 'ResNet-50') for part in _PARTS), {'': SHIPPED}, only=('ResNet-50', *_PARTS), other='parts of the attention', note=_PARTS_LATER),
    'kd-e2e': Claim('kd-e2e', 2.5, (*_kd('ResNet-50'), ('QEEPS, table of QEEPS', 'QEEPS')), {'': TRUNK, 'hdl-teacher': SHIPPED}, only=_UNASKED, note=_TWICE, measures=BOTH),
    'kd-e2e-resnet18': Claim('kd-e2e-resnet18', 2, _kd('ResNet-18'), {'': TRUNK, 'hdl-teacher': SHIPPED}, measures=BOTH),
    'kd-e2e-levels': Claim('kd-e2e-levels', 1.5, _ADVICE, {'': TRUNK, 'hdl-teacher': SHIPPED}, only=('no advice', 'hint alone', 'all three', 'specialised detector'), measures=BOTH, note=_BY_PART),
    'qeeps': Claim('qeeps', 2, _QEEPS, {'': TRUNK}, only=_ASKED_ONCE, note=_ASKING),
}


def verdict(result, better, other, measure=None):
    "One line: the gain of a row over another, in the paper and here, seed by seed, and whether it shows."
    of = {r['label']: r for r in result['rows']}
    a, b, measure = of[better], of[other], measure or result['measure']
    gains = [100 * (x[measure] - y[measure]) for x, y in zip(a['runs'], b['runs'])]
    ours, theirs = a['paper'], b['paper']
    printed = {s: ours[s][measure] - theirs[s][measure] for s in ours if measure in ours[s] and measure in theirs.get(s, {})}
    gain = printed.get('cuhk-sysu', next(iter(printed.values()), None))  # most tables have it
    least, most = round(min(gains), 1), round(max(gains), 1)  # what is printed as 0 does not show
    shows = 'one seed shows nothing' if len(gains) < 2 else '**shows in every seed**' if least > 0 else '**the reverse shows in every seed**' if most < 0 else '**does not show** beyond the seeds'
    words = f'{better} over {other}: {sum(gains) / len(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f}), {shows}'
    return words + (f' (paper: {gain:+.1f})' if printed else '')


def with_scenes(result, n):
    "The result of a figure over the size of the gallery, when a query searches n scenes."
    return result | dict(rows=[r | dict(runs=[run['curve'][n][0] for run in r['runs']], paper={}) for r in result['rows']])


def over_sizes(result, sizes):
    "Markdown: what the figure draws of each row, for every number of scenes."
    what = result['measure']
    cell = lambda row: (lambda m: f'{sum(m) / len(m):.1f} ({min(m):.1f}–{max(m):.1f})')([100 * run[what] for run in row['runs']])
    rows = [f"| {n} | {' | '.join(map(cell, with_scenes(result, n)['rows']))} |" for n in sizes]
    return '\n'.join(['', f"| scenes searched{', top-1' * (what == 'top1')} | {' | '.join(r['label'] for r in result['rows'])} |", '|---' * (1 + len(result['rows'])) + '|', *rows, ''])


def trained(folder):
    "The folder of a network, and those of all that was trained for it before."
    folder = folder.resolve()  # one network may be reached by several paths
    recipe = read_json(folder / 'recipe.json')
    before = [Path(recipe[k]).parent for k in ('teacher', 'detector', 'after') if recipe[k]]
    return {folder, *(f for b in before for f in trained(b))}


def minutes(result):
    "Minutes of training of all networks of a table, how many there are, and of how many steps each."
    logs = [read_log(f / 'log.csv') for f in set().union(*(trained(Path(run['folder'])) for row in result['rows'] for run in row['runs']))]
    return sum(log[-1]['seconds'] for log in logs) / 60, len(logs), ' or '.join(map(str, sorted({len(log) for log in logs})))


def title(name):
    "Of the paper's table, and what is other here if several claims are made of it."
    c = CLAIMS[name]
    return TABLES[c.table].title + (f' ({c.other})' if c.other else '')


def settings_text(name):
    "What a claim sets in its rows: the settings that the list of differences leaves out, because the paper's rows are given them, too."
    every = CLAIMS[name].settings
    rest = 'other rows' if len(every) > 1 else 'all rows'
    return '; '.join(f"{model or rest}: {', '.join(f'{k}={v!r}' for k, v in own.items())}" for model, own in every.items())


def section(name, out):
    "Markdown of a claim: what shows, what it cost, and its table."
    result = read_json(out / name / 'results.json')
    if missing := {g for gain in CLAIMS[name].gains for g in gain} - {r['label'] for r in result['rows']}:
        raise SystemExit(f'{out / name}: measured when the table had other rows, there is no {sorted(missing)[0]!r}; move this folder away, and measure again')
    took, networks, steps = minutes(result)
    sizes = list(result['rows'][0]['runs'][0]['curve']) if result['curve'] == 'gallery sizes' else []
    found = [verdict(with_scenes(result, n), *g).replace(':', f', {n} scenes:', 1) for n in sizes[:1] + sizes[-1:] for g in CLAIMS[name].gains]
    found = found or ['detection AP, ' * (m == 'det_ap') + verdict(result, *g, m) for m in CLAIMS[name].measures for g in CLAIMS[name].gains]
    lines = [f'## {title(name)}', '', *(f'* {v}' for v in found), '',
             f"`python benchmarks/claims.py {name} --seeds {' '.join(map(str, result['seeds']))}`: {networks} networks of {steps} steps, on one thread each, {took:.0f} minutes by the clock "
             f"together, beside other work; worlds {', '.join(f'10{s}' for s in result['seeds'])}, {result['rows'][0]['runs'][0]['queries']} queries in each.", '',
             f'* Set for this page: {settings_text(name)}.', *[f'* {CLAIMS[name].note}'] * bool(CLAIMS[name].note)]
    return '\n'.join(lines) + '\n' + folded(ablation_table(result).partition('\n\n')[2]) + (over_sizes(result, sizes) if sizes else '')


def folded(text):
    "Markdown of a table's differences, the long lists of settings folded up below the others."
    settings = re.findall(r'(?m)^\* (.+), here \(and at preset paper\): (.+)\n', text)
    lists = '\n'.join(f'<li>{escape(who)}: {escape(told, quote=False)}</li>' for who, told in settings)
    text = re.sub(r'(?m)^\* .+, here \(and at preset paper\): .+\n', '', text)
    fold = f'\n<details><summary>Settings, here (and at preset paper)</summary>\n<ul>\n{lists}\n</ul>\n</details>\n'
    return text.replace('\n\n|', f'\n{fold}\n|', 1) if settings else text


GAIN = re.compile(r'(?m)^\* (detection AP, )?(.+ over .+): ([+-][\d.]+ \([^)]+\)), (?:\*\*)?(shows|the reverse|does not|one seed).*?(?:\(paper: (.+)\))?$')
SHOWS = {'shows': '**yes**', 'the reverse': 'the reverse', 'does not': 'no', 'one seed': 'one seed'}


def overview(found):
    "Markdown: every comparison of the page in a line, by the tables it stands in."
    by_top1 = {title(name) for name, c in CLAIMS.items() if TABLES[c.table].measure == 'top1'}
    rows = ['| table | comparison | paper | here | shows |', '|---|---|---|---|---|']
    for at, text in found.items():
        anchor = re.sub(r'[^\w -]', '', at.lower()).replace(' ', '-')
        link = f"[{at}](#{anchor}){', top-1' * (at in by_top1)}"
        for what, who, here, said, paper in GAIN.findall(text):
            rows.append(f"| {link} | {who}{', detection AP' * bool(what)} | {paper} | {here} | {SHOWS[said]} |")
            link = ''
    return '\n'.join(rows) + '\n'


HEAD = """# What of the papers' claims shows at laptop size

**Result.** {result}

`{command}` · {today} · {machine}, one thread for each training · Python {python}, torch {torch}

Means over the seeds, in brackets the lowest and the highest. A gain, of mAP where nothing else is said, *shows* where it has the same sign in every seed, as printed: with few seeds that is little proof, and nothing is said of its size. The paper's gain is of CUHK-SYSU where its table has that, otherwise of the first data set that it names; a comparison without one is our own control, or read off a figure without numbers.
What differs from the papers in every table: drawn scenes (480 of 256 x 448 px with 300 people, another world for each seed, which no trunk has seen and on which no setting was chosen; more where it is said), a quarter of the width (students: 0.625), AdamW with a cosine, a start from the trunk that ships with the package, from one of `make trunks`, or from random weights, few steps (said at
each table), 12 regions a scene. Students of HDL are taught as printed (PD 0.9, T = 4, the printed direction), but for the weights of AD and FD, which are 400 and 100: the printed ones are for a norm over larger maps.
"""


def sections(text):
    "The tables of a page: title -> Markdown."
    return {part.partition('\n')[0]: '## ' + part.strip() + '\n' for part in ('\n' + text).split('\n## ')[1:]}


def page(out, old=''):
    "The page of all claims that were measured in the folder `out`; of the page `old` are the tables of the others."
    measured = [section(name, out) for name in CLAIMS if (out / name / 'results.json').exists()]
    if not measured: raise SystemExit(f'{out}: nothing is measured there; run: python benchmarks/claims.py table6')
    found = sections(old) | sections('\n'.join(measured))
    order = list(dict.fromkeys(title(name) for name in CLAIMS))
    if strangers := found.keys() - set(order): raise SystemExit(f'{sorted(strangers)[0]}: a table of the page that no claim makes; take it out')
    found = {t: found[t] for t in order if t in found}
    said = [m[3] for m in GAIN.findall('\n'.join(found.values()))]
    about = dict(result=f"Of {len(said)} comparisons {said.count('shows')} show in every seed.", command='python benchmarks/claims.py --page', today=date.today(),
                 machine=f'{platform.system()} {platform.machine()}', python=platform.python_version(), torch=torch.__version__.partition('+')[0])
    return '\n'.join([HEAD.format(**about), overview(found), *found.values()])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', nargs='?', choices=list(CLAIMS), metavar='CLAIM', help=', '.join(CLAIMS))
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--workers', type=int, default=1, help='trainings at once')
    p.add_argument('--out', type=Path, default=Path('runs/claims'), help='folder for tables and networks')
    p.add_argument('--trunks', type=Path, default=Path('runs/trunks'), help='folder of the trunks that `make trunks` has made')
    p.add_argument('--steps', type=float, default=1., help='share of the steps, for a quick try')
    p.add_argument('--page', type=Path, nargs='?', const=Path('benchmarks/claims.md'), help='write the page of all that is measured')
    p.add_argument('--list', action='store_true', help='what there is')
    a = p.parse_args()
    if a.page: return atomic_write(a.page, page(a.out, a.page.read_text() if a.page.exists() else '').encode())
    if a.list or not a.name:
        for name, c in CLAIMS.items():
            print(f"{name}: {title(name)}; about {c.hours:g} hours on one core{'; starts from ' * bool(c.trunks)}{', '.join(c.trunks)}")
        return
    c = CLAIMS[a.name]
    if missing := [t for t in c.trunks if not start(t, a.trunks).startswith('shipped:') and not (a.trunks / f'{t}.safetensors').exists()]:
        names = ' '.join(dict.fromkeys(t.partition('/')[2] for t in missing))
        raise SystemExit(f"{a.trunks}: {', '.join(missing)} missing; make what is missing: python .ci/trunks.py {names} --out {a.trunks} --how {missing[0].partition('/')[0]}")
    run_ablation(f'claim-{a.name}', c.world, 'tiny', a.out / a.name, a.out / 'networks', tuple(a.seeds), c.student_model, workers=a.workers,
                 rows=c.with_settings(a.steps, a.trunks), cache=True)  # a scene takes as long to draw as a quarter of a step
    print(section(a.name, a.out))


if __name__ == '__main__': main()
